"""The numbers that a report shows: what each is called, its unit, and under which T invariance was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number of a trial: its name in ``Measures.metrics``, what it is called, and its unit."""

    name: str
    title: str
    unit: str

    def told(self, ekld_under: str) -> str:
        """Return the title; of a measure of invariance under anything but the true nuisance with these words.

        Args:
            ekld_under: as ``marked`` takes it.
        """
        return self.title + marked(ekld_under) if self.of_invariance else self.title

    @property
    def of_invariance(self) -> bool:
        """Whether it is taken under a transformation T."""
        return self.name.endswith(("ekld", "consistency"))

    def axis(self, ekld_under: str) -> str:
        """Return the title with the unit, for an axis or a column."""
        return f"{self.told(ekld_under)} ({self.unit})"


SEVERAL = "several"  # studies took their eKLD under different T
_MARKS = {
    "nuisance": "",
    "identity": " under the identity",
    "randaugment": " under RandAugment",
    "plugin": " under the plugin's draws",
    SEVERAL: " under each study's own generator",
}
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
        Metric("few_right_ekld", "few-shot eKLD where right", NATS),
        Metric("consistency", "consistency", SHARE),
        Metric("few_consistency", "few-shot consistency", SHARE),
    )
}

OBJECTIVES = ("balanced_accuracy", "few_accuracy", "ekld", "many_ekld", "few_ekld", "few_right_ekld")
"""What methods are compared in, pair by pair."""


def marked(ekld_under: str) -> str:
    """Return what is added to the name of a measure of invariance: the T that it is taken under.

    Args:
        ekld_under: ``StudySpec.ekld_under``, or ``SEVERAL``.
    """
    return _MARKS.get(ekld_under, " under the learned generator")
