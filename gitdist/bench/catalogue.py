"""The benchmarks by name."""

from collections.abc import Callable
from dataclasses import dataclass

from gitdist.bench import ekld, generator, scale, stream, study, trial
from gitdist.bench.report import Measurement
from gitdist.bench.setting import Setting
from gitdist.device import set_threads
from gitdist.errors import SpecError
from gitdist.spec import StudySpec, unknown_name


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        measure: measures a setting.
        repeats: figures of each side where the user wants no other number.
        whole: whether it runs whole studies, for minutes to hours; these are run by name alone.
    """

    measure: Callable[[Setting], Measurement]
    repeats: int = 3
    whole: bool = False


BENCHMARKS = {
    "generator": Benchmark(measure=generator.measure),
    "stream": Benchmark(measure=stream.measure, repeats=5),
    "trial": Benchmark(measure=trial.measure),
    "ekld": Benchmark(measure=ekld.measure),
    "study": Benchmark(measure=study.measure, repeats=1, whole=True),
    "scale": Benchmark(measure=scale.measure, repeats=1, whole=True),
}


def chosen_benchmarks(name: str | None) -> dict[str, Benchmark]:
    """Return the named benchmark, or all but those of whole studies.

    Raises:
        SpecError: there is no benchmark of that name.
    """
    if name is None:
        return {name: each for name, each in BENCHMARKS.items() if not each.whole}
    if name not in BENCHMARKS:
        raise SpecError(unknown_name("benchmark", name, list(BENCHMARKS)))
    return {name: BENCHMARKS[name]}


def threads_of(name: str, spec: StudySpec) -> int:
    """Return the torch threads of every process that computes in a benchmark: those of a server, or of a trial."""
    share = spec.resources.server if name in ("generator", "stream") else spec.resources.trial
    return set_threads(share.cpu)
