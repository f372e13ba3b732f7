"""``gitdist store ls | gc``: list the artifacts of a results directory's store, delete unused ones."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from gitdist.cli.console import plain_table, print_line
from gitdist.disk import disk_errors
from gitdist.durations import DAY_S, format_duration
from gitdist.errors import StoreError
from gitdist.store.artifact import read_spec
from gitdist.store.gc import delete_unused, read_inventory
from gitdist.store.layout import StoreLayout
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results

_GB = 1e9
_SHOWN_FIELDS = ("source", "kind", "network", "loss", "nuisance", "profile", "steps", "lr", "epochs", "version", "seed")


def list_artifacts(results: Results, console: Console) -> None:
    """Print the artifacts of a store, the least recently used first, and their total size."""
    layout = _layout(results)
    entries = read_inventory(layout)
    now = layout.now()
    right = ("size", "unused for")
    table = plain_table("kind", "key", *right, "used by", "what it is", right=right)
    for entry in entries:
        users, what = ", ".join(sorted(entry.pinned_by)) or "-", _describe(read_spec(layout.path(entry.artifact)))
        table.add_row(
            *entry.artifact, decimal(entry.num_bytes), format_duration(now - entry.used_at), escape(users), escape(what)
        )
    if entries:
        console.print(table)
    print_line(console, f"{_count(len(entries), 'artifact')}, {decimal(sum(entry.num_bytes for entry in entries))}")


def collect_garbage(
    results: Results, console: Console, *, max_gb: float | None, unused_days: float | None, dry_run: bool
) -> None:
    """Delete leftovers of dead processes and, if a limit is given, artifacts that no running study uses; print them."""
    for option, value in (("--max-gb", max_gb), ("--unused-days", unused_days)):
        if value is not None and not math.isfinite(value):
            raise StoreError(f"{option} must be a number, but it is {value}; omit it for no limit")
    layout = _layout(results)
    if not dry_run:
        layout.create()
    with disk_errors(layout.root):
        removals = delete_unused(
            layout,
            max_bytes=None if max_gb is None else int(max_gb * _GB),
            unused_s=None if unused_days is None else unused_days * DAY_S,
            dry_run=dry_run,
        )
    for removal in removals:
        print_line(console, f"{removal.what} {removal.path.relative_to(layout.root)}: {decimal(removal.num_bytes)}")
    total = decimal(sum(removal.num_bytes for removal in removals))
    print_line(console, f"{'would delete' if dry_run else 'deleted'} {_count(len(removals), 'item')}, {total}")


def _layout(results: Results) -> StoreLayout:
    layout = StoreLayout(StudyPaths.at(results, "").results.store)
    layout.check_directories()
    if not layout.root.is_dir():
        raise StoreError(
            f"no store in {layout.root.parent}; `gitdist run` creates one, --results names another directory"
        )
    return layout


def _describe(spec: Mapping[str, Any] | None) -> str:
    if spec is None:
        return "-"
    trial = spec.get("trial")
    fields = {**(trial if isinstance(trial, Mapping) else {}), **spec}  # a prefix's length is not its trial's
    return ", ".join(filter(None, (_format_field(fields, name) for name in _SHOWN_FIELDS))) or "-"


def _format_field(spec: Mapping[str, Any], name: str) -> str | None:
    value = spec.get(name)
    if isinstance(value, Mapping):
        value = value.get("kind")
    if isinstance(value, str):
        return value if value != "none" else None
    return None if value is None else f"{name} {value}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
