"""``gitdist status``: finished, running and failed trials, why they failed, the best so far and the time left."""

import json
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gitdist.api.reading import reading
from gitdist.cli.console import plain_table, print_line, print_table
from gitdist.cli.errors import remedy_text
from gitdist.cli.studies import stored_name
from gitdist.durations import format_duration
from gitdist.report.metrics import metric_of
from gitdist.spec.campaign import Campaign
from gitdist.study.campaign import load_campaign
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.records import list_trials
from gitdist.study.monitoring.latest import describe_stream
from gitdist.study.status import StudyStatus, read_status
from gitdist.study.study import Study
from gitdist.study.trial_status import STATUS_METRICS, format_value, short_name


def show_status(study: str, results: Results, console: Console, as_json: bool) -> None:
    """Print the status of a study, or of the studies of a campaign."""
    name = stored_name(study)
    campaign = load_campaign(results, name)
    if campaign is not None:
        _show_members(campaign, results, console, as_json)
        return
    with reading(StudyPaths.at(results, name)) as opened:
        status, fields = read_status(opened), opened.spec.search.fields
    if as_json:
        console.print_json(json.dumps(status.as_json()), indent=2)
        return
    print_table(console, _table(status, list(fields), space=2 if console.width > 100 else 1))
    for line in _lines(status, results):
        print_line(console, line)


def _show_members(campaign: Campaign, results: Results, console: Console, as_json: bool) -> None:
    statuses = {member.spec.name: status_of(member.spec.name, results) for member in campaign.members}
    if as_json:
        values = [
            status.as_json() if status else {"study": name, "state": "not started"} for name, status in statuses.items()
        ]
        console.print_json(json.dumps(values), indent=2)
        return
    table = plain_table("study", "state", "trials", "best", "time left")
    for name, status in statuses.items():
        if status is None:
            table.add_row(name, "not started", "-", "-", "-")
            continue
        best = best_value(status)
        left = format_duration(status.time_left_s) if status.time_left_s and status.state != "finished" else "-"
        table.add_row(name, status.state, _counts(status) or "-", best, left)
    print_table(console, table)
    for name, status in statuses.items():
        for line in status.notes if status else ():
            print_line(console, f"{name}: {line}")
    if any(status is None or status.state == "interrupted" for status in statuses.values()):
        print_line(console, f"resume with: gitdist resume {campaign.name} --results {results}")


def status_of(name: str, results: Results) -> StudyStatus | None:
    """Return the status of a study or of a member of a campaign; None = it has not started."""
    paths = StudyPaths.at(results, name)
    paths.pull()
    paths.check_readable()
    if not paths.spec.exists():
        return None
    stored = load_stored_spec(paths)
    if not Ledger.exists(paths, stored):
        return None
    with Study.open(paths, stored) as opened:
        return read_status(opened)


def best_value(status: StudyStatus) -> str:
    """Return the objectives of the best trial so far as text."""
    if not status.best:
        return "-"
    pairs = zip(status.objectives, status.best[0]["objectives"], strict=True)
    return ", ".join(f"{objective.removeprefix('val/')} {value:.4f}" for objective, value in pairs)


def _counts(status: StudyStatus) -> str:
    return ", ".join(f"{count} {state}" for state, count in status.counts.items())


def _lines(status: StudyStatus, results: Results) -> list[str]:
    lines = [f"{sum(status.counts.values())} of {status.total} trials: {_counts(status) or 'none started'}"]
    for best in status.best[:10]:
        pairs = zip(status.objectives, best["objectives"], strict=True)
        kind = "best so far" if len(status.objectives) == 1 else "Pareto front on validation"
        mean = "mean " if "replicates" in best else ""
        values = ", ".join(f"{name} {value:.4f}" for name, value in pairs)
        lines.append(f"{kind}: {list_trials(best.get('replicates', [best['trial']]))}, {mean}{values}")
    lines += [gap.sentence(metric_of(gap.metric).title) for gap in status.gaps]
    owner = status.owner
    if owner is not None:
        since = owner.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        heartbeat = "" if owner.state == "live" else f", last heartbeat at {owner.last_heartbeat.astimezone():%H:%M:%S}"
        lines.append(f"run by pid {owner.pid} on {owner.host} since {since}{heartbeat}")
    elif status.state == "interrupted" and status.resumable:
        lines.append(f"interrupted; resume with: gitdist resume {status.study} --results {results}")
    elif status.state == "interrupted":
        spec = StudyPaths.at(results, status.study).spec
        lines.append(remedy_text("fork_stored", spec=spec, results=results))
    elif status.state == "failed":
        retry = remedy_text("retry", name=status.study, results=results)
        pruned = "all were pruned; raise search.pruner.min_epochs in a new study (--fork)"
        lines.append(f"no trial finished; {retry if status.counts.get('failed') else pruned}")
    if status.stream and (text := describe_stream(status.stream)):
        lines.append(f"stream, {format_duration(time.time() - status.stream['at'])} ago: {text}")
    if status.time_left_s and status.resumable and status.state != "finished":
        about = "at most about" if status.may_stop else "about"
        lines.append(f"{about} {format_duration(status.time_left_s)} of training left")
    return [*lines, *status.notes]


def _table(status: StudyStatus, fields: list[str], space: int) -> Table:
    metric_headers = ("balanced\naccuracy", "few-shot\naccuracy", "eKLD\n(nats)")
    whole = ("trial", "epoch", *metric_headers)
    headers = map(short_name, fields)
    table = plain_table("trial", *headers, "epoch", *metric_headers, "state", whole=whole, space=space)
    table.columns[-1].min_width = max(len(line.state) for line in status.trials) if status.trials else None
    for line in status.trials:
        metrics = [f"{line.metrics[name]:.4f}" if name in line.metrics else "-" for name in STATUS_METRICS]
        values = [escape(format_value(line.params[name])) if name in line.params else "-" for name in fields]
        state = f"{line.state}: {line.reason}" if line.reason else line.state
        state += f" (result of trial {line.repeat_of})" if line.repeat_of is not None else ""
        state += f" (replicate of trial {line.replicate_of})" if line.replicate_of is not None else ""
        table.add_row(line.trial, *values, f"{line.epoch}/{line.epochs}", *metrics, Text(state))
    return table
