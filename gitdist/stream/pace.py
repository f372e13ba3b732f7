"""How fast servers generate, from what they say of themselves now and said before. No Ray in here."""

from collections.abc import Sequence
from dataclasses import dataclass

from gitdist.stream.server import ServerStats


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a stream does, as seen lately.

    Attributes:
        images_per_s: images that all servers together generate a second.
        utilisation: share of their time that servers generate, 0 to 1; one that does not answer is taken to be idle.
        window_blocks: blocks in the router's window.
        window_capacity: blocks that fit into it.
        num_servers: generator servers.
        num_answering: those of them that have answered lately.
    """

    images_per_s: float
    utilisation: float
    window_blocks: int
    window_capacity: int
    num_servers: int
    num_answering: int


@dataclass(frozen=True)
class Pace:
    """What one server does: images a second, and the share of its time that it generates, 0 to 1."""

    images_per_s: float
    share: float


def pace_of(before: ServerStats | None, now: ServerStats) -> Pace:
    """Return a server's pace between two answers, by its own clock: they may have been long under way.

    Args:
        before: the earlier answer; None, or that of another process: since the server began.
        now: the later one.
    """
    images, generating_s, elapsed_s = now.done.images, now.done.generating_s, now.up_s
    if before is not None and before.pid == now.pid and before.up_s < now.up_s:
        images -= before.done.images
        generating_s -= before.done.generating_s
        elapsed_s -= before.up_s
    if elapsed_s <= 0:
        return Pace(0.0, 0.0)
    return Pace(images / elapsed_s, min(1.0, generating_s / elapsed_s))


def sight(paces: Sequence[Pace | None], window_blocks: int, window_capacity: int) -> Sighting:
    """Return what a stream does.

    Args:
        paces: of each server; None where it does not answer.
        window_blocks: blocks in the router's window.
        window_capacity: blocks that fit into it.
    """
    answering = [pace for pace in paces if pace is not None]
    return Sighting(
        images_per_s=sum(pace.images_per_s for pace in answering),
        utilisation=sum(pace.share for pace in answering) / len(paces),
        window_blocks=window_blocks,
        window_capacity=window_capacity,
        num_servers=len(paces),
        num_answering=len(answering),
    )
