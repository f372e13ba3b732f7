"""``gitdist store ls | gc``: what the results directory's store holds, and room in it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from gitdist.cli.console import plain_table, say
from gitdist.disk import disk_errors
from gitdist.errors import StoreError
from gitdist.store.cleaning import DAY_S, clean
from gitdist.store.holds import server_time
from gitdist.store.inventory import Entry, spec_of, take_inventory
from gitdist.store.layout import Layout
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Mirror

_GB = 1e9
_UNITS = ((DAY_S, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_TELLING = ("source", "kind", "network", "loss", "nuisance", "profile", "steps", "lr", "epochs", "version", "seed")


def list_artefacts(results: Path | Mirror, console: Console) -> None:
    """Print the artefacts of a store, the least recently used first, and the size of all.

    Raises:
        StoreError: there is no store.
    """
    layout = _layout(results)
    entries = take_inventory(layout)
    now = server_time(layout.tmp)
    right = ("size", "unused for")
    table = plain_table("kind", "key", *right, "held by", "what it is", right=right)
    for entry in entries:
        told = (_age(now - entry.used_at), ", ".join(sorted(entry.held_by)) or "-", _describe(layout, entry))
        table.add_row(*entry.artefact, decimal(entry.num_bytes), *told)
    if entries:
        console.print(table)
    say(console, f"{_count(len(entries), 'artefact')}, {decimal(sum(entry.num_bytes for entry in entries))}")


def collect_garbage(
    results: Path | Mirror, console: Console, *, max_gb: float | None, unused_days: float | None, dry_run: bool
) -> None:
    """Remove rubbish and, where a bound is given, artefacts that nobody holds; print what and how many bytes.

    Args:
        results: the results directory; of results on an object store, what this machine keeps of them.
        console: where to print.
        max_gb: bound on all artefacts in 10^9 bytes; those unused for longest go first.
        unused_days: artefacts unused for so long go.
        dry_run: only print what would go.

    Raises:
        StoreError: there is no store, or a bound is no number.
        DiskError: the disk is read-only or failing.
    """
    for option, value in (("--max-gb", max_gb), ("--unused-days", unused_days)):
        if value is not None and not math.isfinite(value):
            raise StoreError(f"{option} must be a number, but it is {value}; leave it out for no bound")
    layout = _layout(results)
    with disk_errors(layout.root):
        removals = clean(
            layout,
            max_bytes=None if max_gb is None else int(max_gb * _GB),
            unused_s=None if unused_days is None else unused_days * DAY_S,
            dry_run=dry_run,
        )
    for removal in removals:
        say(console, f"{removal.what} {removal.name}: {decimal(removal.num_bytes)}")
    total = decimal(sum(removal.num_bytes for removal in removals))
    say(console, f"{'would remove' if dry_run else 'removed'} {_count(len(removals), 'item')}, {total}")


def _layout(results: Path | Mirror) -> Layout:
    layout = Layout(StudyPaths.at(results, "").store)
    if not layout.tmp.is_dir():
        raise StoreError(f"no store in {layout.root.parent}; `gitdist run` makes one, --results names another place")
    return layout


def _describe(layout: Layout, entry: Entry) -> str:
    spec = spec_of(layout, entry.artefact)
    if spec is None:
        return "-"
    fields = {**spec.get("trial", {}), **spec}  # a prefix's length is not its trial's
    return ", ".join(filter(None, (_word(fields, name) for name in _TELLING))) or "-"


def _word(spec: Mapping[str, Any], name: str) -> str | None:
    value = spec.get(name)
    if isinstance(value, Mapping):
        value = value.get("kind")
    if isinstance(value, str):
        return value if value != "none" else None
    return None if value is None else f"{name} {value}"


def _age(seconds: float) -> str:
    size_s, unit = next((step for step in _UNITS if seconds >= step[0]), _UNITS[-1])
    return f"{max(0.0, seconds) / size_s:.0f} {unit}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
