"""The picture of the generator's draws."""

import io

from PIL import Image

from gitdist.study.files.layout import StudyPaths


def read_samples(paths: StudyPaths) -> bytes | None:
    """Return the picture, a PNG; None if it is missing or not whole."""
    if not paths.samples.exists():
        return None
    content = paths.samples.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.verify()
    except Exception:  # Pillow's errors have no common base
        return None
    return content
