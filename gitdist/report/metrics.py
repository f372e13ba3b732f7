"""The numbers that a report shows: what each is called, its unit, and under which T invariance was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number of a trial: its name in ``Measures.metrics``, what it is called, and its unit."""

    name: str
    title: str
    unit: str

    def told(self, ekld_under: str) -> str:
        """Return the title; of a measure of invariance under the learned generator with these words.

        Args:
            ekld_under: ``nuisance`` or ``generator``.
        """
        return self.title + marked(ekld_under) if self.name.endswith(_INVARIANCE) else self.title

    def axis(self, ekld_under: str) -> str:
        """Return the title with the unit, for an axis or a column."""
        return f"{self.told(ekld_under)} ({self.unit})"


_INVARIANCE = ("ekld", "consistency")
NATS, SHARE = "nats", "0..1"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("balanced_accuracy", "balanced accuracy", SHARE),
        Metric("many_accuracy", "many-shot accuracy", SHARE),
        Metric("medium_accuracy", "medium-shot accuracy", SHARE),
        Metric("few_accuracy", "few-shot accuracy", SHARE),
        Metric("ekld", "eKLD", NATS),
        Metric("many_ekld", "many-shot eKLD", NATS),
        Metric("few_ekld", "few-shot eKLD", NATS),
        Metric("consistency", "consistency", SHARE),
        Metric("few_consistency", "few-shot consistency", SHARE),
    )
}

OBJECTIVES = ("balanced_accuracy", "few_accuracy", "ekld", "many_ekld", "few_ekld")
"""What methods are compared in, pair by pair."""


def marked(ekld_under: str) -> str:
    """Return what is added to the name of a measure of invariance that is taken under the learned generator."""
    return " under the learned generator" if ekld_under == "generator" else ""
