"""Room on the cluster: reserved for what is to run there, and waited for as long as it takes."""

import time
from collections.abc import Callable

from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from gitdist.spec import Share

LOOK_S = 5.0  # between two looks at what is waited for
_TELL_S = 60.0


class Rhythm:
    """When a wait is told of: after five seconds, then every minute."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        """Begin to wait; ``tell`` is given the seconds since."""
        self._tell = tell
        self._started = time.monotonic()
        self._next_s = LOOK_S

    def beat(self) -> None:
        """Tell if it is time; call it every few seconds."""
        waited_s = time.monotonic() - self._started
        if waited_s >= self._next_s:
            self._next_s = waited_s + _TELL_S
            self._tell(waited_s)


def reserve(share: Share, num_processes: int, on_wait: Callable[[float], None]) -> PlacementGroup:
    """Return a placement group of a bundle for each process, over as many nodes as there are, once it has its room.

    Args:
        share: what each process takes.
        num_processes: how many there are.
        on_wait: told now and then for how many seconds there has been no room; what it raises ends the wait.
    """
    bundle = {"CPU": share.cpu, **({"GPU": share.gpu} if share.gpu else {})}
    places: PlacementGroup = placement_group([bundle] * num_processes, strategy="SPREAD")
    rhythm = Rhythm(on_wait)
    try:
        while not places.wait(LOOK_S):
            rhythm.beat()
    except BaseException:
        remove_placement_group(places)
        raise
    return places
