"""``gitdist status``: the trials of a study as ledger and rows files have them."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.spec.file import load_study
from gitdist.study.display import format_value
from gitdist.study.driver import is_driven, load_stored_spec
from gitdist.study.ledger import Ledger, TrialRecord
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.rows import read_rows

_SHOWN = ("val/balanced_accuracy", "val/few_accuracy", "val/ekld")


def show_status(study: str, results: Path, console: Console) -> None:
    """Print a study's trials.

    Args:
        study: its name, or the path of its file.
        results: the results directory.
        console: where to print.

    Raises:
        StudyError: there is no such study.
    """
    name = load_study(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    paths = StudyPaths(results, name)
    spec = load_stored_spec(paths)
    if not paths.ledger.exists():
        raise StudyError(f"study '{name}' in {results} has not started any trial yet; `gitdist run` goes on with it")
    ledger = Ledger(paths.ledger, name, spec.search)
    records, best = ledger.trials(), ledger.best()
    driven = is_driven(paths)
    records = [record if driven else _as_left(record) for record in records]
    console.print(_table(paths, spec, records))
    states = [record.state for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none started"
    console.print(f"{len(records)} of {ledger.total} trials: {counts}", highlight=False)
    if best and best.value is not None:
        console.print(f"best so far: trial {best.number}, {spec.search.objective} {best.value:.4f}", highlight=False)
    ledger.close()


def _as_left(record: TrialRecord) -> TrialRecord:
    """Return the record as it is without a driver: what the ledger has as running was interrupted."""
    return replace(record, state="interrupted") if record.state == "running" else record


def _table(paths: StudyPaths, spec: StudySpec, records: list[TrialRecord]) -> Table:
    fields = list(spec.search.space)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("trial", *fields, "epoch", "balanced acc.", "few-shot acc.", "eKLD (nats)", "state"):
        table.add_column(header)
    lines = [(BASELINE, {}, "", None), *((TrialId("trial", r.number), r.params, r.state, r.reason) for r in records)]
    for trial, params, state, reason in lines:
        rows = read_rows(paths.rows(trial))
        evaluated = [row for row in rows if _SHOWN[0] in row]
        metrics = [f"{evaluated[-1][name]:.4f}" if evaluated and name in evaluated[-1] else "-" for name in _SHOWN]
        values = [format_value(params[name]) if name in params else "-" for name in fields]
        table.add_row(str(trial), *values, f"{len(rows)}/{spec.trial.epochs}", *metrics, reason or state)
    return table
