"""Reads the newest statistics of a running study from ``watch.jsonl``, which the monitor writes; does not use Ray.

    step    number of the line in the file, over all drivers, from 1
    at      seconds since 1970
    stream/images_per_s         images generated per second
    stream/window_blocks        blocks in the router's window, of ``stream/window_capacity``
    stream/server_utilisation   share of time in which servers generate, 0..1
    stream/servers, stream/servers_answering
    stream/waiting_s            seconds that all trials have waited for the stream
    system/...                  CPU, memory and GPUs of the driver's machine, named as MLflow does

If trials share no stream, or while no stream runs, the stream's statistics are missing.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHOWN = (
    "stream/images_per_s",
    "stream/servers",
    "stream/servers_answering",
    "stream/window_blocks",
    "stream/window_capacity",
    "stream/server_utilisation",
    "stream/waiting_s",
)
_TAIL_BYTES = 8192  # enough for many lines
_FRESH_S = 300.0  # an older line is outdated


def describe_stream(stats: Mapping[str, Any]) -> str:
    """Return the stream's statistics as one line of text; empty if some are missing or no numbers."""
    if not all(isinstance(stats.get(name), int | float) for name in _SHOWN):
        return ""
    num_servers, num_answering = stats["stream/servers"], stats["stream/servers_answering"]
    answering = "" if num_answering == num_servers else f" ({num_answering} of {num_servers} servers answer)"
    return (
        f"{stats['stream/images_per_s']:,.0f} images/s{answering}, "
        f"{stats['stream/window_blocks']:,} of {stats['stream/window_capacity']:,} blocks in the window, "
        f"servers generate {100 * stats['stream/server_utilisation']:.0f} % of the time, "
        f"trials waited {stats['stream/waiting_s']:.1f} s in total"
    )


def newest_line(path: Path) -> dict[str, Any] | None:
    """Return the last complete line of the file; None if it is missing or outdated."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue  # incomplete: its writer was killed, or the read began inside it
        at = values.get("at") if isinstance(values, dict) else None
        return values if isinstance(at, int | float) and time.time() - at < _FRESH_S else None
    return None
