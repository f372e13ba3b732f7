"""Which fields of a trial have an effect, and when two trials are the same training.

Trials with equal ``training_key`` on one data set compute the same numbers on a processor, bit for bit: different K
with no class size between them, K that no class lies under and p = 0, or a field that nothing reads.
"""

import numpy as np
from numpy.typing import NDArray

from gitdist.spec import TrialSpec
from gitdist.store import canonical_json
from gitdist.trial.mixing import eligible_classes


def unread_fields(spec: TrialSpec, *, switched: bool, augmented: bool) -> list[str]:
    """Return the fields whose value has no effect on a trial's training.

    Args:
        spec: the trial.
        switched: whether any epoch comes after ``switch_epoch``.
        augmented: whether any sample is replaced by a draw.
    """
    weights = spec.class_weights if switched or not spec.weights_deferred else "none"
    unread = [] if switched else ["sampler"]
    unread += [] if augmented else ["threshold", "threshold_kind", "fraction"]
    unread += ["class_weights", "weights_deferred"] if weights == "none" else []
    of_sampler = switched and spec.sampler == "effective-number"
    unread += [] if of_sampler or weights == "effective-number" else ["effective_beta"]
    unread += [] if any(milestone < spec.epochs for milestone in spec.lr_milestones) else ["lr_decay"]
    unread += [] if spec.loss == "ldam" else ["ldam_margin", "ldam_scale"]
    unread += [] if spec.loss == "focal" else ["focal_gamma"]
    unread += [] if spec.loss == "logit-adjustment" else ["logit_tau"]
    unread += [] if spec.randaugment_ops else ["randaugment_magnitude"]
    return unread


def augmented_classes(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the classes of which a trial replaces samples by draws, bool ``[C]``.

    Args:
        spec: the trial.
        class_sizes: training images of each class, int64 ``[C]``.
    """
    if spec.switch_epoch >= spec.epochs or not any(_replaceable(spec, class_sizes)):
        return np.zeros(len(class_sizes), np.bool_)
    return eligible_classes(class_sizes, spec.threshold, spec.threshold_kind) & (class_sizes > 0)


def training_key(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> str:
    """Return a text that is the same for trials which train the same.

    Args:
        spec: the trial.
        class_sizes: training images of each class of the data set, int64 ``[C]``.
    """
    augmented = augmented_classes(spec, class_sizes)
    unread = unread_fields(spec, switched=spec.switch_epoch < spec.epochs, augmented=bool(augmented.any()))
    fields = {name: value for name, value in spec.model_dump(mode="json").items() if name not in unread}
    fields["lr_milestones"] = sorted(milestone for milestone in spec.lr_milestones if milestone < spec.epochs)
    fields["lr_warmup_epochs"] = max(1, spec.lr_warmup_epochs)  # a warm-up of one epoch is none
    if spec.switch_epoch == 0:
        fields.pop("weights_deferred", None)  # the weights begin in the first epoch either way
    if augmented.any():
        soft = fields.pop("threshold_kind") == "soft"  # of a hard K only the classes below it count
        fields |= {"threshold": spec.threshold if soft else None, "fraction": _replaceable(spec, class_sizes)}
    return canonical_json({**fields, "augmented": augmented.tolist()})


def _replaceable(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> list[int]:
    """Return how many samples of an epoch's full batches, and of its last one, may become draws (Algorithm 1)."""
    samples = int(class_sizes.sum())
    batches = [min(spec.batch_size, samples), samples % spec.batch_size]
    return [int(spec.fraction * batch) for batch in batches]
