"""The metrics that a report shows: title, unit, and the transformation T under which invariance was measured."""

from dataclasses import dataclass

from gitdist.spec.objective import standard_error_name

NATS, SHARE = "nats", "0..1"
SEVERAL = "several"  # the studies measured eKLD under different T

_UNDER = {  # by ``StudySpec.ekld_under``
    "nuisance": "",
    "identity": " under the identity",
    "randaugment": " under RandAugment",
    "munit": " under the learned generator",
    "pretrained": " under the learned generator",
    "plugin": " under the plugin's draws",
    SEVERAL: " under each study's own generator",
}


@dataclass(frozen=True)
class Metric:
    """A metric of a trial: its name without the split, its title and its unit."""

    name: str
    title: str
    unit: str

    @property
    def of_invariance(self) -> bool:
        """Whether it is measured under a transformation T."""
        return self.name.endswith(("ekld", "consistency"))

    def title_under(self, ekld_under: str) -> str:
        """Return the title; for a metric of invariance followed by T, unless that is the true nuisance.

        Args:
            ekld_under: ``StudySpec.ekld_under``, or ``SEVERAL``.
        """
        return self.title + _UNDER[ekld_under] if self.of_invariance else self.title

    def label(self, ekld_under: str) -> str:
        """Return ``title_under`` with the unit, for an axis or a column."""
        return f"{self.title_under(ekld_under)} ({self.unit})"


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


def metric_of(name: str) -> Metric:
    """Return a metric of ``METRICS``, or the standard error of one, which has its unit."""
    metric = next((each for each in METRICS.values() if standard_error_name(each.name) == name), None)
    return METRICS[name] if metric is None else Metric(name, f"standard error of {metric.title}", metric.unit)


COMPARED = ("balanced_accuracy", "few_accuracy", "ekld", "many_ekld", "few_ekld", "few_right_ekld")
"""The metrics in which settings are compared pair by pair."""
