from pathlib import Path

import pytest

from gitdist.errors import SpecError
from gitdist.home import expand_home


def test_a_tilde_is_the_home_directory_at_the_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, path in (("~/x", "/home/somebody/x"), ("~", "/home/somebody"), ("~root", "/root"), ("./~/x", "~/x")):
        assert expand_home(given) == Path(path)
    for same in ("a/~/b", "/data/~x", "x~"):
        assert expand_home(same) == Path(same)


@pytest.mark.parametrize("path", ["~nobody-here/x", "~nobody-here"])
def test_an_unknown_home_directory_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="~nobody-here"):
        expand_home(path)
