"""A small study that has ended, what can happen to each of its files, and what commands may change."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from tests.study.ended_study import NAME

Damage = Callable[[Path], None]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])


def _garble(path: Path) -> None:
    path.write_bytes(bytes(range(255, 0, -1)) * 4)


def _make_list(path: Path) -> None:
    path.write_text("[[]]\n")


def _change_types(path: Path) -> None:
    """Give every value another type, in a JSON object or in each line."""

    def changed(text: str) -> str:
        values = json.loads(text)
        return json.dumps({name: "text" if isinstance(value, int | float) else 5 for name, value in values.items()})

    text = path.read_text()
    path.write_text(changed(text) if path.suffix == ".json" else "\n".join(map(changed, text.splitlines())) + "\n")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make_directory(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _make_file(path: Path) -> None:
    _remove(path)
    path.write_text("a file\n")


def _make_dangling_link(path: Path) -> None:
    _remove(path)
    path.symlink_to(path.parent / "unmounted" / path.name)


def _make_loop(path: Path) -> None:
    _remove(path)
    path.symlink_to(path)


def _make_pipe(path: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _make_newer(path: Path) -> None:
    """Let a later version have written the file."""
    if path.suffix != ".db":
        path.write_text(path.read_text().replace("trial:", "of_a_later_version: 1\ntrial:", 1))
        return
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
        if path.name == "ledger.db":
            connection.execute("UPDATE version_info SET library_version = '99.0.0', schema_version = 99")


def _lose_trial(path: Path) -> None:
    """Let a ledger be a copy of a time when there were fewer trials."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM trials WHERE number = 2 AND study_id = 1")


UNREADABLE: Mapping[str, Damage] = {
    "dangling link": _make_dangling_link,
    "link loop": _make_loop,
    "pipe": _make_pipe,
    "a directory": _make_directory,
}
_OF_FILE = {**UNREADABLE, "missing": _remove, "empty": _empty, "truncated": _truncate, "not its format": _garble}
_OF_JSON = {**_OF_FILE, "a list": _make_list, "wrong types": _change_types}
_OF_DATABASE = {**_OF_FILE, "of a later version": _make_newer}
_OF_DIRECTORY = {**UNREADABLE, "a directory": _make_file, "missing": _remove}
_OF_DIRECTORY["a file"] = _OF_DIRECTORY.pop("a directory")

FAULTS: Mapping[str, Mapping[str, Damage]] = {
    f"{NAME}/study.yaml": {**_OF_FILE, "of a later version": _make_newer},
    f"{NAME}/identity": _OF_FILE,
    f"{NAME}/ledger.db": {**_OF_DATABASE, "without a trial": _lose_trial},
    f"{NAME}/driver.lock": _OF_FILE,
    f"{NAME}/summary.json": _OF_JSON,
    f"{NAME}/times.jsonl": _OF_JSON,
    f"{NAME}/watch.jsonl": _OF_JSON,
    f"{NAME}/samples.png": _OF_FILE,
    f"{NAME}/drivers": _OF_DIRECTORY,
    f"{NAME}/drivers/0000.json": _OF_JSON,
    f"{NAME}/trials": _OF_DIRECTORY,
    f"{NAME}/trials/0002": _OF_DIRECTORY,
    f"{NAME}/trials/0002/attempt": _OF_FILE,
    f"{NAME}/trials/0002/rows.jsonl": _OF_JSON,
    f"{NAME}/trials/0002/test.json": _OF_JSON,
    f"{NAME}/trials/0002/trial.json": _OF_JSON,
    f"{NAME}/trials/0002/epoch-*.pt": _OF_FILE,
    f"{NAME}/baseline": _OF_DIRECTORY,
    f"{NAME}/baseline/rows.jsonl": _OF_JSON,
    "mlflow.db": _OF_DATABASE,
    "mlartifacts": _OF_DIRECTORY,
    "store": _OF_DIRECTORY,
    "store/dataset/*": _OF_DIRECTORY,
    "store/dataset/*/artefact.json": _OF_JSON,
    "store/dataset/*/train.arrow": _OF_FILE,
    "store/generator": _OF_DIRECTORY,
    "store/generator/*/artefact.json": _OF_JSON,
    "store/generator/*/content.bin": _OF_FILE,
    "store/ekld/*": _OF_DIRECTORY,
    "store/prefix/*/content.bin": _OF_FILE,
    "store/blocks/*/0-0-0.block": _OF_FILE,
    "store/holds": _OF_DIRECTORY,
    "store/holds/*.json": _OF_JSON,
    "store/claims": _OF_DIRECTORY,
    "store/locks": _OF_DIRECTORY,
    "store/tmp": _OF_DIRECTORY,
    "store/work": _OF_DIRECTORY,
}
"""What can happen to each file below a results directory; a pattern has one match, or its last one is meant."""


def damage(results: Path, file: str, fault: str) -> None:
    """Damage one file of the results."""
    FAULTS[file][fault](max(results.glob(file)))


def content_of(results: Path) -> dict[str, bytes | str]:
    """Return the content of each file below a directory, and what is no file, by name."""
    found: dict[str, bytes | str] = {}
    for directory, names, files in os.walk(results):
        for path in (Path(directory, name) for name in (*names, *files)):
            name = str(path.relative_to(results))
            if path.is_symlink():
                found[name] = f"link to {os.readlink(path)}"
            elif path.is_fifo():
                found[name] = "pipe"
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


def lost_bytes(before: Mapping[str, bytes | str], after: Mapping[str, bytes | str]) -> dict[str, int]:
    """Return how many bytes of each file are gone; a database, or a file that has grown, has lost none."""
    lost = {}
    for name, content in before.items():
        now = after.get(name)
        is_database = name.endswith(".db") and content[:6] == b"SQLite" and now is not None
        has_grown = isinstance(now, bytes) and isinstance(content, bytes) and now.startswith(content)
        if now != content and not is_database and not has_grown:
            lost[name] = len(content)
    return lost
