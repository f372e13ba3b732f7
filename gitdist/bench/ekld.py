"""Evaluation after an epoch: shared transformed images and large inference-mode batches against the original way."""

from functools import partial

from gitdist.bench.original_evaluation import evaluate_originally
from gitdist.bench.original_loop import loader_processes
from gitdist.bench.report import Figure, Measurement, Verdict
from gitdist.bench.setting import Setting
from gitdist.bench.timing import alternate, quotients, rate, spread
from gitdist.device import set_threads
from gitdist.networks.classifier import to_device
from gitdist.trial.evaluation import EkldRequest, EkldSet, ekld_set, evaluate
from gitdist.trial.training import fresh_classifier

OWN, ORIGINAL = "shared images, large batches", "original way"


def measure(setting: Setting) -> Measurement:
    """Compare the forward passes per second of an evaluation on the validation split: accuracies and eKLD."""
    set_threads(setting.spec.resources.trial.cpu)
    dataset, compute, evaluation = setting.dataset, setting.training, setting.spec.evaluation
    spec, pairs = setting.spec.trial, _pairs(setting)
    own = to_device(fresh_classifier(spec, dataset), compute.device)
    original = fresh_classifier(spec, dataset).to(compute.device)
    passes = len(dataset.validation.labels) + (
        0 if pairs is None else len(pairs.labels) * (1 + pairs.transformed.shape[1])
    )

    def shared() -> int:
        evaluate(own, dataset.validation, pairs, dataset, compute)
        return passes

    images, transformations = evaluation.epoch_images_per_class, evaluation.epoch_transformations
    num_workers = loader_processes(compute.device, setting.spec.resources.trial.cpu)
    again = partial(evaluate_originally, original, dataset, images, transformations, compute.device, num_workers)

    def afresh() -> int:
        again()
        return passes

    setting.say(f"evaluating with {passes:,} forward passes")
    rates = alternate({OWN: rate(shared, compute.device), ORIGINAL: rate(afresh, compute.device)}, setting.repeats)
    figures = [Figure(name=name, spread=spread(values), unit="forward passes/s") for name, values in rates.items()]
    figures += [
        Figure(name=f"one evaluation: {name}", spread=spread(passes / value for value in values), unit="s")
        for name, values in rates.items()
    ]
    ratio = Verdict(name=f"{OWN} / {ORIGINAL}", spread=spread(quotients(*rates.values())), rule=">=", target=None)
    note = "no nuisance is known here: accuracies alone are measured, not eKLD"
    return Measurement(figures=tuple(figures), verdicts=(ratio,), notes=() if pairs is not None else (note,))


def _pairs(setting: Setting) -> EkldSet | None:
    evaluation = setting.spec.evaluation
    if setting.dataset.nuisance == "none":
        return None
    request = EkldRequest(
        split="validation",
        images_per_class=evaluation.epoch_images_per_class,
        transformations=evaluation.epoch_transformations,
        seed=evaluation.seed,
    )
    return ekld_set(setting.dataset, request, setting.store)
