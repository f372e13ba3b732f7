"""Where the files of a published data set lie: a folder that is named, a usual one, or one that is downloaded into."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from gitdist.errors import DataError, first_line

_CACHE = Path("~/.cache/gitdist")
_SILENCE_S = 60.0  # of a server, after which a download has failed


@dataclass(frozen=True, kw_only=True)
class Place:
    """The files of one source.

    Attributes:
        title: the data set's name in messages.
        name: its folder in ``$GITDIST_DATA``.
        files: paths in the folder, in the order in which they are returned.
        downloaded: the folder in the cache that ``download`` fills.
        download: fetches the files, given the cache; it raises OSError, RuntimeError or HTTPException where it cannot.
        system: a folder outside the user's own; None = there is none.
        remedy: how to have the files without a download.
    """

    title: str
    name: str
    files: tuple[str, ...]
    downloaded: str
    download: Callable[[Path], None]
    system: Path | None = None
    remedy: str

    def find(self, path: str | None) -> tuple[Path, ...]:
        """Return the files, out of ``path`` or the first usual folder that has them all.

        Usual folders: ``$GITDIST_DATA/NAME``, the system's, a download into ~/.cache/gitdist.

        Raises:
            DataError: a file is missing, or the download failed.
        """
        folder = Path(path).expanduser() if path else self._present() or self._fetch()
        for name in self.files:
            if not (folder / name).is_file():
                raise DataError(f"{self.title} needs {name}, but {folder} does not have it; {self.remedy}")
        return tuple(folder / name for name in self.files)

    def where(self) -> str:
        """Return where the files are, for a reader."""
        folder = self._present()
        return str(folder) if folder else f"not here; {self.remedy}, or let it be downloaded into {_CACHE} at first use"

    def _present(self) -> Path | None:
        given = os.environ.get("GITDIST_DATA")
        places = [Path(given).expanduser() / self.name] if given else []
        places += [self.system] if self.system else []
        places.append(_CACHE.expanduser() / self.downloaded)
        return next((place for place in places if all((place / name).is_file() for name in self.files)), None)

    def _fetch(self) -> Path:
        cache = _CACHE.expanduser()
        try:
            self.download(cache)
        except (OSError, RuntimeError, HTTPException) as error:
            raise DataError(
                f"{self.title} is not here and its download into {cache} failed ({first_line(error)}); {self.remedy}"
            ) from error
        return cache / self.downloaded


def fetch(url: str, file: Path, md5: str | None = None) -> None:
    """Download one file; ``file`` is there when it is whole and not before, however many download it at once.

    Args:
        url: where from.
        file: where to; nothing is done where it is there.
        md5: what the content must have; None = any content of the length that the server tells.

    Raises:
        OSError: the network or the disk does not give it, or gives another content.
        HTTPException: the server breaks off or does not speak HTTP.
    """
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    try:
        with urlopen(url, timeout=_SILENCE_S) as response, open(part, "xb") as stream:
            shutil.copyfileobj(response, stream)
        _check_download(part, url, response.headers["Content-Length"], md5)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _check_download(part: Path, url: str, length: str | None, md5: str | None) -> None:
    size = str(part.stat().st_size)
    if length not in (None, size):
        raise OSError(f"{size} of {length} bytes came from {url}")
    if md5 is not None and (found := file_md5(part)) != md5:
        raise OSError(f"{url} must have the md5 {md5}, but what came has {found}")


def file_md5(file: Path) -> str:
    """Return the md5 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
