"""Moving a finished directory into its place with one rename."""

import errno
import shutil
from pathlib import Path

from gitdist.disk import fsync
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout
from gitdist.store.manifest import is_whole

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


def install(layout: Layout, target: Path, artefact: ArtefactId) -> None:
    """Make the sealed directory ``target`` the artefact; set a damaged one aside, leave a whole one where it is."""
    place = layout.place(artefact)
    place.parent.mkdir(exist_ok=True)
    while not _renamed(target, place):
        if is_whole(place, artefact.key):
            shutil.rmtree(target)
            return
        place.rename(layout.new_aside("damaged", artefact))
    fsync(place.parent)


def _renamed(target: Path, place: Path) -> bool:
    try:
        target.rename(place)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True
