import pickle

import pytest

from gitdist.errors import DiskError, GitdistError, StoreError, first_line


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (StoreError("a"), None),
        (StoreError("a", remedy="other_results"), "other_results"),
        (DiskError("a"), "other_disk"),
    ],
)
def test_an_error_keeps_its_remedy_on_the_way_to_another_process(error: GitdistError, remedy: str | None) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.remedy) == (type(error), "a", remedy)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\nb"), "a"),
        (ValueError(" \n b "), "b"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "'a'"),
        (ValueError("a" * 10**6), "a" * 300 + "..."),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a b", "a b"),
        ("a\nb\t", r"a\nb\t"),
        ("\x1b[31m", r"\x1b[31m"),
        ("caf\udce9", r"caf\udce9"),
        ("caf\u00e9", "caf\u00e9"),
    ],
)
def test_a_message_is_one_line_whatever_names_are_in_it(text: str, line: str) -> None:
    assert str(GitdistError(text)) == line
