"""``gitdist confirm``: train a selected setting and the baseline on fresh seeds, and write how they differ."""

import json
from dataclasses import dataclass

from rich.console import Console

from gitdist.cli.console import plain_table, print_line
from gitdist.cli.report import read_stored
from gitdist.cli.run import CommandOptions, run_plan
from gitdist.cli.studies import stored_study
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, StudyError
from gitdist.report.comparison import setting_label
from gitdist.report.confirmation import Confirmation, read_confirmation
from gitdist.report.findings import baseline_notes
from gitdist.report.metrics import metric_of
from gitdist.report.statistics import Interval
from gitdist.report.tables import format_cell
from gitdist.spec.confirmation import check_varied, plan_confirmation
from gitdist.spec.study import check_name
from gitdist.study.campaign import load_campaign
from gitdist.study.confirmation import check_data_varies, select_trial
from gitdist.study.files.results import Results
from gitdist.study.study import Study


@dataclass(frozen=True, kw_only=True)
class ConfirmOptions:
    """The options of the command."""

    num_seeds: int
    vary: str
    trial: int | None = None
    name: str | None = None
    address: str | None = None
    take_over: bool = False
    asks: bool = True

    def arguments(self, study: str, trial: int, results: Results) -> list[str]:
        """Return the command that resumes the confirmation of a trial."""
        given = {"--name": self.name, "--address": self.address}
        more = [part for option, value in given.items() if value is not None for part in (option, value)]
        numbers = ["--seeds", str(self.num_seeds), "--vary", self.vary, "--trial", str(trial)]
        return ["confirm", study, *numbers, "--results", str(results), *more]


def confirm_study(study: str, results: Results, console: Console, options: ConfirmOptions) -> None:
    """Train pairs of the selected setting and the baseline on fresh seeds; print and write their differences.

    Raises:
        StudyError: a training failed, so that pairs are missing; the others are written.
    """
    paths, spec = stored_study(study, results)
    varied = check_varied(spec, [part.strip() for part in options.vary.split(",")])
    with Study.open(paths, spec) as opened:
        selected, record = select_trial(opened, options.trial)
        check_data_varies(opened, varied)
    name = _checked(options.name or selected.default_name(varied))
    campaign = plan_confirmation(selected, options.num_seeds, varied, name, load_campaign(results, name))
    setting = setting_label(selected.setting)
    print_line(console, f"{campaign.title}: {setting}; against the study's training without augmentation")
    resume = options.arguments(spec.name, selected.trial, results)
    run_options = CommandOptions(
        address=options.address, take_over=options.take_over, asks=options.asks, resume=resume, compares=False
    )
    run_plan(campaign, results, console, run_options)

    studies = [read_stored(member, results)[1] for member in campaign.members]
    found = read_confirmation(selected, record.objectives, varied, studies)
    if found.num_pairs < 2:
        raise StudyError(
            f"a confirmation needs two pairs of finished trainings, but '{name}' has {found.num_pairs} of "
            f"{found.num_planned}; `gitdist status` of its studies says why the others failed"
        )
    file = paths.confirmations / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, json.dumps(found.to_json(), indent=2).encode())
    paths.push(file)
    _print(found, console)
    print_line(console, f"all numbers: {results.describe(str(file))}", style="dim")
    if found.num_pairs < found.num_planned:
        missing = found.num_planned - found.num_pairs
        raise StudyError(f"{missing} of {found.num_planned} pairs of '{name}' are missing: a training has failed")


def _print(found: Confirmation, console: Console) -> None:
    label, under = found.selected.label, found.ekld_under
    header = ("baseline", label, "difference")
    table = plain_table(f"on test, {found.num_pairs} pairs", *header, right=header, whole=header)
    for each in found.metrics:
        if each.split == "test":
            cells = (format_cell(each.baseline), format_cell(each.selected), _signed(each.difference))
            table.add_row(metric_of(each.metric).label(under), *cells)
    console.print(table)
    print_line(console, f"mean ± half of the 95 % interval; difference = {label} - baseline, pair by pair", style="dim")
    for line in (found.answer, *baseline_notes(found.selected.spec, found.selected.setting), found.scope):
        print_line(console, line)
    for optimism in found.optimism:
        print_line(
            console,
            f"optimism of the search: its {metric_of(optimism.objective).title_under(under)} on validation was "
            f"{format_cell(optimism.searched)}, over fresh seeds it is {format_cell(optimism.fresh)}: "
            f"{_signed(optimism.difference)}",
        )


def _signed(value: float | Interval) -> str:
    mean = value.mean if isinstance(value, Interval) else value
    return ("+" if mean > 0 else "") + format_cell(value)


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise SpecError(f"{error}, but the confirmation's is '{name}'; choose one with --name") from None
