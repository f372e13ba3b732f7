"""Reads the figures of a running study from ``watch.jsonl``, which the monitor writes. No Ray in here.

    step    counts the lines of the file, over all drivers, from 1
    at      seconds since 1970
    stream/images_per_s         images generated per second
    stream/window_blocks        blocks in the router's window, of ``stream/window_capacity``
    stream/server_utilisation   share of their time that servers generate, 0..1
    stream/servers, stream/servers_answering
    stream/waiting_s            seconds that all trials have waited for the stream
    system/...                  CPU, memory and GPUs of the driver's machine, named as MLflow does

If trials share no stream, or while none runs, the stream's figures are missing.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TAIL_BYTES = 8192  # many times a line
_FRESH_S = 300.0  # an older line is out of date


def describe_stream(figures: Mapping[str, Any]) -> str:
    """Return the stream's figures as one line of text; empty if there are none."""
    if "stream/images_per_s" not in figures:
        return ""
    num_servers, num_answering = figures["stream/servers"], figures["stream/servers_answering"]
    silent = "" if num_answering == num_servers else f" ({num_answering} of {num_servers} servers answer)"
    return (
        f"{figures['stream/images_per_s']:,.0f} images/s{silent}, "
        f"{figures['stream/window_blocks']:,} of {figures['stream/window_capacity']:,} blocks in the window, "
        f"servers generate {100 * figures['stream/server_utilisation']:.0f} % of the time, "
        f"trials waited {figures['stream/waiting_s']:.1f} s in all"
    )


def newest_line(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of the file, unless it is old; None if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue  # incomplete: its writer was killed, or reading began within it
        return found if isinstance(found, dict) and time.time() - found.get("at", 0.0) < _FRESH_S else None
    return None
