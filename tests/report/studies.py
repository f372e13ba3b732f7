"""Records of studies, made without training: what a trial reached follows from simple rules."""

import numpy as np

from gitdist.data.longtail import size_groups
from gitdist.report.records import PER_CLASS, ClassInfo, ReportedStudy, ReportedTrial, split_metrics
from gitdist.spec.file import parse_study
from gitdist.study.files.layout import BASELINE, TrialId

SIZES = (200, 100, 50, 20, 5)


def study(name="s", space=None, trials=(), labels=None, baseline=None, best=(), **values) -> ReportedStudy:
    """Return a study of ``trials``, numbered in their order."""
    values = {"data": {"source": "digits", "nuisance": "background"}, "search": {"space": space or {}}, **values}
    spec = parse_study({"name": name, **values}, "test")
    return ReportedStudy(
        spec=spec, labels=labels or {"study": name}, trials=tuple(trials), baseline=baseline, best=best
    )


def trial(
    number, params=None, sizes=SIZES, accuracy=0.5, slope=0.1, test=True, state="finished", **more
) -> ReportedTrial:
    """Return a trial whose eKLD is ``slope / sqrt(class size)`` and whose accuracy is the same on every class.

    ``number`` None is the baseline.
    """
    params = params or {}
    array = np.array(sizes)
    classes = ClassInfo(tuple(f"c{index}" for index in range(len(sizes))), array, size_groups(sizes, "auto"))
    ekld = slope / np.sqrt(array)
    per_class = dict(
        zip(PER_CLASS, ([accuracy] * len(sizes), ekld.tolist(), ekld.tolist(), (1 - ekld).tolist()), strict=True)
    )
    splits = {}
    for split, prefix in (("validation", "val/"), ("test", "test/"))[: 2 if test else 1]:
        metrics = {f"{prefix}balanced_accuracy": accuracy, f"{prefix}ekld": float(ekld.mean())}
        metrics[f"{prefix}consistency"] = float(1 - ekld.mean())
        splits[split] = split_metrics(metrics, per_class, prefix, classes.groups)
    return ReportedTrial(
        trial=BASELINE if number is None else TrialId("trial", number),
        state=state,
        params=params,
        seed=params.get("seed", 0),
        classes=classes,
        splits=splits,
        **more,
    )
