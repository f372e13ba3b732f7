"""Evaluation after an epoch: shared transformed images in large batches against the original way.

The original way transforms every image anew and predicts batches of 128 of a DataLoader. Both compute balanced accuracy
and, if the nuisance is known, eKLD on the validation split.

    python studies/benchmarks/evaluation.py [--study FILE] [--set FIELD=VALUE] [--repeats N]
"""

from collections.abc import Callable

from harness import Figure, Setting, alternate, figures_of, parser, quotients, rate, run, say
from original import evaluate_originally, num_loader_processes

from gitdist.device import set_threads
from gitdist.networks.classifier import to_device
from gitdist.trial.checkpoint import fresh_classifier
from gitdist.trial.ekld import EkldRequest, ekld_set
from gitdist.trial.evaluation import evaluate

OWN, ORIGINAL = "gitdist", "original way"


def measure(setting: Setting) -> list[Figure]:
    """Compare the forward passes per second of an evaluation."""
    share = setting.spec.resources.trial
    set_threads(share.cpu)
    dataset, compute, evaluation = setting.dataset, setting.training, setting.spec.evaluation
    pairs = None
    passes = len(dataset.validation.labels)
    if dataset.nuisance != "none":
        request = EkldRequest(
            split="validation",
            images_per_class=evaluation.epoch_images_per_class,
            transformations=evaluation.epoch_transformations,
            seed=evaluation.seed,
        )
        pairs = ekld_set(dataset, request, setting.store)
        passes += len(pairs.labels) * (1 + pairs.transformations)
    own = to_device(fresh_classifier(setting.spec.trial, dataset), compute.device)
    original = fresh_classifier(setting.spec.trial, dataset).to(compute.device)
    num_workers = num_loader_processes(compute.device, share.cpu)

    def evaluate_shared() -> int:
        evaluate(own, dataset.validation, pairs, dataset, compute)
        return passes

    def evaluate_anew() -> int:
        evaluate_originally(original, dataset, evaluation, compute.device, num_workers)
        return passes

    say(f"evaluating with {passes:,} forward passes" + ("" if pairs else "; no nuisance, so accuracies only"))
    sides: dict[str, Callable[[], float]] = {
        OWN: rate(evaluate_shared, compute.device),
        ORIGINAL: rate(evaluate_anew, compute.device),
    }
    rates = alternate(sides, setting.repeats)
    durations = {f"one evaluation, {name}": [passes / value for value in values] for name, values in rates.items()}
    ratio = Figure(name=f"{OWN} / {ORIGINAL}", values=quotients(rates[OWN], rates[ORIGINAL]))
    return [*figures_of(rates, "forward passes/s"), *figures_of(durations, "s"), ratio]


if __name__ == "__main__":
    run(parser(__doc__, repeats=3).parse_args(), measure)
