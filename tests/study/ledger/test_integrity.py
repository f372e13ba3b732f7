"""A ledger's file that is damaged is reported before it is opened, and keeps its bytes."""

import pytest

from gitdist.errors import StudyError
from gitdist.study.ledger.integrity import check_journal_file, check_sqlite_file
from gitdist.study.ledger.storage import close_storage, open_storage, read_storage

LINE = b'{"op_code":0,"worker_id":"a","study_name":"study","directions":[1]}\n'


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(2000)])
@pytest.mark.parametrize("open_", [open_storage, read_storage])
def test_a_damaged_sqlite_ledger_is_not_opened(ledger_paths, content, open_):
    ledger_paths.ledger.write_bytes(content)
    with pytest.raises(StudyError, match="ledger.db is damaged"):
        open_("sqlite", ledger_paths)
    assert ledger_paths.ledger.read_bytes() == content


def test_a_truncated_sqlite_ledger_is_named(ledger_paths):
    close_storage(open_storage("sqlite", ledger_paths))
    check_sqlite_file(ledger_paths.ledger)
    content = ledger_paths.ledger.read_bytes()
    ledger_paths.ledger.write_bytes(content[: len(content) // 2])
    with pytest.raises(StudyError, match="malformed"):
        check_sqlite_file(ledger_paths.ledger)


@pytest.mark.parametrize("content", [b"no line end", b"no operation\n" + LINE, LINE + b"[]\n", LINE + b"\0\0\0"])
@pytest.mark.parametrize("open_", [open_storage, read_storage])
def test_a_damaged_journal_is_not_cut_off(ledger_paths, content, open_):
    ledger_paths.journal.write_bytes(content)
    with pytest.raises(StudyError, match="journal is damaged"):
        open_("journal", ledger_paths)
    assert ledger_paths.journal.read_bytes() == content


@pytest.mark.parametrize("content", [b"", LINE, LINE + LINE[:3], LINE + LINE[:-1], LINE[:20]])
def test_the_torn_line_of_a_killed_writer_is_no_damage(ledger_paths, content):
    ledger_paths.journal.write_bytes(content)
    check_journal_file(ledger_paths.journal)
