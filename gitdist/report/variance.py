"""What an interval over replicates is an interval of: which sources of variance its replicates differ in."""

from gitdist.report.findings import listed
from gitdist.report.grouping import Panel, Replicate

_DATA_VERSION, _GENERATOR_SEED = "data version", "generator seed"
_SOURCES = {  # by the field of a replicate's key
    "trial_seed": "training seed",
    "data_version": _DATA_VERSION,
    "generator_seed": _GENERATOR_SEED,
    "stream_seed": "stream seed",
}


def variance_sources(panel: Panel) -> str:
    """Return a line that says which sources of variance a panel's intervals contain, and which they do not."""
    most = max(len(line.replicates) for line in panel.lines)
    replicates = [each for line in panel.lines for each in line.replicates]
    counts = {name: _num_values(replicates, field) for field, name in _SOURCES.items()}
    varied = {name: count for name, count in counts.items() if count > 1}
    if most == 1 or not varied:
        return "One replicate per setting, so no interval."
    fixed = [name for name, count in counts.items() if count == 1]
    sentence = f"Intervals contain the variance of {listed([f'{name} ({count})' for name, count in varied.items()])}"
    sentence += f", not of {' or '.join(fixed)}." if fixed else "."
    if any(each.trial.augmented and each.study.spec.stream.per_seed for each in replicates):
        sentence += " Each training seed has its own stream."
    if _DATA_VERSION in varied and counts[_GENERATOR_SEED]:
        sentence += " Each data version has its own generator."
    if most > min(varied.values()):
        sentence += " Replicates that share one of these values count as independent."
    return sentence


def _num_values(replicates: list[Replicate], field: str) -> int:
    return len({value for each in replicates if (value := getattr(each.key, field)) is not None})
