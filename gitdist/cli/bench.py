"""``gitdist bench``: measure a study's generator, stream, training and evaluation, or whole studies of it."""

from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from gitdist.bench.catalogue import BENCHMARKS, Benchmark, chosen_benchmarks, threads_of
from gitdist.bench.header import describe_machine
from gitdist.bench.report import Verdict, as_json, figure_table, verdict_table, write_result
from gitdist.bench.setting import Setting
from gitdist.errors import SpecError, StudyError
from gitdist.logging import silence_libraries
from gitdist.spec import StudySpec
from gitdist.spec.file import load_study
from gitdist.study.cluster.signals import interruptible

DEFAULT_STUDY = Path("studies/benchmarks/fashion.yaml")


def run_benchmarks(
    name: str | None,
    study: Path | None,
    results: Path,
    overrides: list[str],
    console: Console,
    *,
    repeats: int | None,
    trials: int | None,
) -> None:
    """Run one benchmark, or all but those of whole studies; print each one's table and write it as JSON.

    Args:
        name: of the benchmark; None = all but those of whole studies.
        study: the file of the study to measure; None = the one in the checkout.
        results: the results directory; JSON goes into its ``bench`` folder.
        overrides: of the study's fields.
        console: where tables are printed.
        repeats: figures of each side; None = the benchmark's own number.
        trials: of whole studies, the most of several; None = the benchmark's own number.

    Raises:
        GitdistError: there is no such benchmark or study, or it cannot be measured.
    """
    silence_libraries()
    chosen = chosen_benchmarks(name)
    spec = _load(study, overrides)
    try:
        with interruptible():
            for each, benchmark in chosen.items():
                _run(each, benchmark, spec, results, console, repeats or benchmark.repeats, trials)
    except KeyboardInterrupt:
        console.print("interrupted; of an unfinished benchmark nothing is kept", highlight=False)
        raise typer.Exit(130) from None
    if name is None:
        left = [each for each in BENCHMARKS if each not in chosen]
        console.print(f"left out, for they take long: {', '.join(left)}; run them by name", highlight=False)


def _run(
    name: str,
    benchmark: Benchmark,
    spec: StudySpec,
    results: Path,
    console: Console,
    repeats: int,
    trials: int | None,
) -> None:
    say = partial(_say, console, name)
    setting = Setting.prepare(spec, results, repeats, trials, say)
    header = describe_machine(spec, threads_of(name, spec), repeats)
    measurement = benchmark.measure(setting)
    place = setting.results / "bench" / f"{name}.json"
    write_result(place, as_json(name, header, measurement))
    console.print(figure_table(name, header, measurement))
    if measurement.verdicts:
        console.print(verdict_table(measurement.verdicts))
    for line in (*measurement.notes, f"written to {place}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for verdict in measurement.verdicts:
        _hold(verdict, place)


def _hold(verdict: Verdict, place: Path) -> None:
    if verdict.binding and verdict.met is False:
        raise StudyError(
            f"{verdict.name}: must be {verdict.rule} {verdict.target:g}, but it is {verdict.spread.median:g}; "
            f"mend that before you trust a timing in {place}"
        )


def _load(study: Path | None, overrides: list[str]) -> StudySpec:
    if study is None and not DEFAULT_STUDY.exists():
        raise SpecError(
            f"gitdist bench measures a study, by default {DEFAULT_STUDY}, which is not here; "
            "name one with --study FILE, or start in a checkout of gitdist"
        )
    return load_study(study or DEFAULT_STUDY, overrides)


def _say(console: Console, name: str, text: str) -> None:
    console.print(f"{name}: {text}", style="dim", highlight=False, markup=False, soft_wrap=True)
