"""A trial that runs on a thread and waits at each report until the next one is asked for, as Tune's workers do."""

import queue
import threading
from typing import Any

from gitdist.study.files.layout import TrialId
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.study.worker.trial_task import run_trial

_END = object()
_LIMIT_S = 200


class TrialThread:
    """An iterator over a trial's reports, without the first one that says that it has begun."""

    def __init__(self, context: TrialContext, trial: TrialId, **fields: Any) -> None:
        self._context, self._job = context, TrialJob.create(context.spec, trial, {}, **fields)
        self._reports: queue.Queue[Any] = queue.Queue()
        self._orders: queue.Queue[BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._state = "new"

    def __iter__(self) -> "TrialThread":
        return self

    def __next__(self) -> dict[str, Any]:
        if self._state == "new":
            self._state = "running"
            self._thread.start()
            return self._receive()
        return self._order(None)

    def throw(self, error: BaseException) -> dict[str, Any]:
        """Let the last report raise ``error`` in the trial; return its next report."""
        return self._order(error)

    def close(self) -> None:
        """Stop the trial at its last report, as Tune does."""
        if self._state == "running":
            self._orders.put(SystemExit())
            self._thread.join(_LIMIT_S)
            self._state = "ended"

    def _order(self, error: BaseException | None) -> dict[str, Any]:
        if self._state == "ended":
            raise StopIteration
        self._orders.put(error)
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        item = self._reports.get(timeout=_LIMIT_S)
        if isinstance(item, dict):
            return item
        self._state = "ended"
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    def _run(self) -> None:
        end: Any = _END
        try:
            run_trial(self._context, self._job, self._report)
        except SystemExit:
            pass
        except Exception as error:
            end = error
        finally:
            self._reports.put(end)

    def _report(self, report: dict[str, Any]) -> None:
        if "begun" in report:
            return
        self._reports.put(report)
        error = self._orders.get(timeout=_LIMIT_S)
        if error is not None:
            raise error
