"""``gitdist run --dry-run``: what a run would do, what it would cost, and whether it would be refused."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from gitdist.cli.console import print_line
from gitdist.cli.errors import error_message
from gitdist.durations import format_duration
from gitdist.errors import GitdistError, SpecError, StudyError
from gitdist.logging import silence_libraries
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.study.campaign import check_campaign
from gitdist.study.compatibility import fork
from gitdist.study.dry_run import DryRun, dry_run
from gitdist.study.files.results import Results

_NOTHING = "nothing was written or started; without --dry-run, this command runs it"


def show_dry_run(
    plan: StudySpec | Campaign,
    results: Results,
    console: Console,
    *,
    address: str | None,
    take_over: bool,
    fork_name: str | None,
) -> None:
    """Print what a run of a study or a campaign would do and cost; write and start nothing.

    Raises:
        GitdistError: the run would be refused, or a study of the campaign.
    """
    silence_libraries()
    if isinstance(plan, Campaign):
        if fork_name is not None:
            raise SpecError(f"--fork takes one study, but '{plan.name}' has {len(plan.members)}")
        _show_campaign(plan, results, console, address, take_over)
    else:
        spec = fork(plan, fork_name) if fork_name is not None else plan
        for line in _describe(spec, dry_run(spec, results, address, take_over=take_over), set()):
            print_line(console, line)
    print_line(console, _NOTHING, style="dim")


def _show_campaign(
    campaign: Campaign, results: Results, console: Console, address: str | None, take_over: bool
) -> None:
    check_campaign(results, campaign)
    runs: list[DryRun] = []
    refused: list[str] = []
    trained: set[str] = set()
    for number, member in enumerate(campaign.members, 1):
        console.rule(f"{number} of {len(campaign.members)}: {member.spec.name}", align="left")
        try:
            run = dry_run(member.spec, results, address, take_over=take_over)
        except GitdistError as error:
            refused.append(member.spec.name)
            print_line(console, f"refused: {error_message(error)}")
            continue
        for line in _describe(member.spec, run, trained):
            print_line(console, line)
        runs.append(run)
        trained.add(run.generator)
    console.rule(campaign.name, align="left")
    for line in _describe_total(runs):
        print_line(console, line)
    if refused:
        raise StudyError(f"{len(refused)} of {len(campaign.members)} studies would be refused: {', '.join(refused)}")


def _describe(spec: StudySpec, run: DryRun, trained: set[str]) -> Iterator[str]:
    """Yield lines about one study; ``trained`` are the generators of the campaign's studies before it."""
    yield from run.lines
    if run.num_ended is None:
        yield "the study is finished; there is nothing to do"
        return
    search = spec.search
    if search.total:
        searched = ", ".join(search.space) or "nothing"
        yield (
            f"search: {search.total} points{f' x {search.replicates} seeds' if search.replicates > 1 else ''} by "
            f"{search.resolved_algorithm} over {searched}{', and a baseline' if spec.baseline else ''}"
        )
        yield f"objective: {', '.join(search.objectives)}"
    if run.num_ended:
        yield f"{run.num_ended} trials have ended; the study is resumed"
    if run.generator:
        found = run.has_generator or run.generator in trained
        yield f"generator {spec.generator.kind}: {'reused' if found else 'to be trained'}"
    else:
        yield f"generator {spec.generator.kind}: needs no training"
    if run.duration and run.duration.prefix_epochs:
        yield f"epochs 1 to {run.duration.prefix_epochs}: trained once for all trials that agree on them"
    yield run.duration.describe() if run.duration else "how long the study takes cannot be measured"
    free = "" if run.free_bytes is None else f", of which {_gigabytes(run.free_bytes)} are free"
    yield f"disk: about {_gigabytes(run.disk_bytes)}{free}"


def _describe_total(runs: Sequence[DryRun]) -> Iterator[str]:
    """Yield lines about all studies of a campaign; a generator that several of them have is trained once."""
    generators = {run.generator: run for run in runs if run.generator and not run.has_generator}
    durations = [run.duration for run in runs if run.duration]
    once = sum(run.duration.generator_s for run in generators.values() if run.duration)
    total_s = once + sum(duration.trials_s for duration in durations)
    finished = sum(run.num_ended is None for run in runs)
    yield f"{len(runs)} studies, {finished} of them finished; generators to be trained: {len(generators)}"
    yield f"one driver takes about {format_duration(total_s)} for all"
    yield f"disk: about {_gigabytes(sum(run.disk_bytes for run in runs))}"


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.0f} MB"
