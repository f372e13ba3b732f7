"""``gitdist status``: what is done, what runs, what failed and why, the best so far and the time left."""

import json
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gitdist.cli.studies import stored_name, stored_study
from gitdist.report.metrics import METRICS
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.study.campaign import load_campaign
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.display import format_value
from gitdist.study.monitoring.latest import describe_stream
from gitdist.study.status import SHOWN, StudyStatus, read_status
from gitdist.study.study import Study


def show_status(study: str, results: Results, console: Console, as_json: bool) -> None:
    """Print how a study stands, or the studies of a campaign.

    Args:
        study: the name, or the path of the file.
        results: the results directory, or the results on an object store.
        console: where to print.
        as_json: one JSON object (of a campaign, a list of them) instead of a table.

    Raises:
        StudyError: there is no such study, or it has not started any trial yet.
    """
    campaign = load_campaign(results, stored_name(study))
    if campaign is not None:
        _show_members(campaign, results, console, as_json)
        return
    paths, spec = stored_study(study, results)
    with Study.open(paths, spec) as opened:
        standing = read_status(opened)
    if as_json:
        console.print_json(json.dumps(standing.as_json()), indent=2)
        return
    console.print(_table(standing, list(spec.search.space)))
    for line in _lines(standing, results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time for reading: 40 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _show_members(campaign: Campaign, results: Results, console: Console, as_json: bool) -> None:
    standings = {member.spec.name: _standing_of(member.spec, results) for member in campaign.members}
    if as_json:
        values = [
            standing.as_json() if standing else {"study": name, "state": "not started"}
            for name, standing in standings.items()
        ]
        console.print_json(json.dumps(values), indent=2)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("study", "state", "trials", "best", "time left"):
        table.add_column(header, overflow="fold")
    for name, standing in standings.items():
        if standing is None:
            table.add_row(name, "not started", "-", "-", "-")
            continue
        counts = ", ".join(f"{count} {state}" for state, count in standing.counts.items()) or "-"
        best = "-"
        if standing.best:
            pairs = zip(standing.objectives, standing.best[0]["objectives"], strict=True)
            best = ", ".join(f"{objective.removeprefix('val/')} {value:.4f}" for objective, value in pairs)
        left = duration(standing.time_left_s) if standing.time_left_s and standing.state != "finished" else "-"
        table.add_row(name, standing.state, counts, best, left)
    console.print(table)
    for name, standing in standings.items():
        for line in standing.notes if standing else ():
            console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)
    if any(standing is None or standing.state == "interrupted" for standing in standings.values()):
        told = f"go on with it by: gitdist resume {campaign.name} --results {results}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _standing_of(spec: StudySpec, results: Results) -> StudyStatus | None:
    """Return how a member stands; None where it has not started."""
    paths = StudyPaths.at(results, spec.name)
    paths.pull()
    if not paths.spec.exists():
        return None
    stored = load_stored_spec(paths)
    if not Ledger.exists(paths, stored):
        return None
    with Study.open(paths, stored) as study:
        return read_status(study)


def _lines(standing: StudyStatus, results: Results) -> list[str]:
    num_trials = sum(standing.counts.values())
    counts = ", ".join(f"{count} {state}" for state, count in standing.counts.items()) or "none started"
    lines = [f"{num_trials} of {standing.total} trials: {counts}"]
    for best in standing.best[:10]:
        values = ", ".join(
            f"{name} {value:.4f}" for name, value in zip(standing.objectives, best["objectives"], strict=True)
        )
        kind = "best so far" if len(standing.objectives) == 1 else "no other is better than"
        lines.append(f"{kind}: trial {best['trial']}, {values}")
    lines += [gap.sentence(METRICS[gap.metric].title) for gap in standing.gaps]
    owner = standing.owner
    if owner is not None:
        since = owner.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        seen = "" if owner.state == "live" else f", last heard of {owner.last_heartbeat.astimezone():%H:%M:%S}"
        lines.append(f"driven by pid {owner.pid} on {owner.host} since {since}{seen}")
    elif standing.state == "interrupted" and standing.resumable:
        lines.append(f"interrupted; go on with it by: gitdist resume {standing.study} --results {results}")
    elif standing.state == "failed":
        retry = f"mend the cause, then: gitdist retry {standing.study} --failed --results {results}"
        pruned = "all were pruned; raise search.pruner.min_epochs in another study (--fork)"
        lines.append(f"no trial finished; {retry if standing.counts.get('failed') else pruned}")
    if standing.stream and (told := describe_stream(standing.stream)):
        lines.append(f"stream, {duration(time.time() - standing.stream['at'])} ago: {told}")
    if standing.time_left_s and standing.resumable and standing.state != "finished":
        lines.append(f"about {duration(standing.time_left_s)} of training left")
    return [*lines, *standing.notes]


def _table(standing: StudyStatus, fields: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("trial", *fields, "epoch", "balanced acc.", "few-shot acc.", "eKLD (nats)", "state"):
        table.add_column(header)
    for line in standing.trials:
        metrics = [f"{line.metrics[name]:.4f}" if name in line.metrics else "-" for name in SHOWN]
        values = [escape(format_value(line.params[name])) if name in line.params else "-" for name in fields]
        state = f"{line.state}: {line.reason}" if line.reason else line.state
        state += f" (result of trial {line.repeat_of})" if line.repeat_of is not None else ""
        state += f" (replicate of trial {line.replicate_of})" if line.replicate_of is not None else ""
        table.add_row(line.trial, *values, f"{line.epoch}/{line.epochs}", *metrics, Text(state))
    return table
