"""Reserving CPUs and GPUs of the cluster, and reporting how long that takes."""

import time
from collections.abc import Callable

from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from gitdist.spec import Share

POLL_S = 5.0  # between two looks at what is awaited
_REPORT_S = 60.0


class WaitReporter:
    """Reports a wait after five seconds, then every minute."""

    def __init__(self, report: Callable[[float], None]) -> None:
        """Begin to wait; ``report`` receives the seconds since."""
        self._report = report
        self._started = time.monotonic()
        self._next_s = POLL_S

    def poll(self) -> None:
        """Report if it is time; call it every few seconds."""
        waited_s = time.monotonic() - self._started
        if waited_s >= self._next_s:
            self._next_s = waited_s + _REPORT_S
            self._report(waited_s)


def reserve(share: Share, num_processes: int, on_wait: Callable[[float], None]) -> PlacementGroup:
    """Return a placement group with one bundle per process, spread over the nodes, once its resources are free.

    Args:
        share: what each process takes.
        num_processes: how many there are.
        on_wait: receives the seconds waited so far, now and then; an exception from it ends the wait.
    """
    bundle = {"CPU": share.cpu, **({"GPU": share.num_gpus} if share.num_gpus else {})}
    placement: PlacementGroup = placement_group([bundle] * num_processes, strategy="SPREAD")
    reporter = WaitReporter(on_wait)
    try:
        while not placement.wait(POLL_S):
            reporter.poll()
    except BaseException:
        remove_placement_group(placement)
        raise
    return placement
