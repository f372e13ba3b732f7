from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from PIL import Image

from tests.commands import call, gitdist
from tests.study.ended_study import NAME, SPEC, give_weights, make_study
from tests.study.small_study import session_directory

SPACE = {"threshold": {"int": [10, 60]}, "fraction": {"float": [0.2, 0.8]}}


@pytest.fixture(scope="session")
def guide_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has ended and what its commands take; copy it before you use it."""
    folder = session_directory(tmp_path_factory) / "guide"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            give_weights(make_study(folder / "results", search={"space": SPACE}))
            values = {**SPEC, "search": {**SPEC["search"], "space": SPACE}}
            (folder / "STUDY.yaml").write_text(yaml.safe_dump(values))
            photos = [f"photos/{animal}/{number}.png" for animal in ("cat", "dog") for number in range(12)]
            for grey, place in enumerate(["photo.png", "new/1.png", *photos]):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (20, 20), grey).save(folder / place)
            done = call(gitdist("export", NAME, "--out", "model.pt2"), cwd=folder)
            assert done.returncode == 0, done.stderr
    return folder
