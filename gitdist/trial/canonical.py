"""Which fields of a trial have an effect, and when two trials are the same training.

Trials with equal ``training_key`` on one data set compute the same numbers on a processor, bit for bit: different K
with no class size between them, K that no class lies under and p = 0, or a field that nothing reads.
"""

import numpy as np
from numpy.typing import NDArray

from gitdist.balancing import read_fields
from gitdist.balancing.losses import LOSSES
from gitdist.balancing.samplers import SAMPLERS
from gitdist.networks import NETWORKS
from gitdist.spec import TrialSpec
from gitdist.store import canonical_json
from gitdist.trial.mixing import augmented_classes, replaceable_samples


def unread_fields(spec: TrialSpec, *, switched: bool, augmented: bool) -> set[str]:
    """Return the fields whose value has no effect on a trial's training.

    Args:
        spec: the trial.
        switched: whether any epoch comes after ``switch_epoch``.
        augmented: whether any sample is replaced by a draw.
    """
    unread = {name for rule in (*SAMPLERS.values(), *LOSSES.values()) for name in read_fields(rule)}
    unread -= read_fields(LOSSES[spec.loss])
    if switched:
        unread -= read_fields(SAMPLERS[spec.sampler])
    else:
        unread.add("sampler")
    weights = spec.class_weights if switched or not spec.weights_deferred else "none"
    if weights == "effective-number":
        unread.discard("effective_beta")
    if weights == "none":
        unread |= {"class_weights", "weights_deferred"}
    if not augmented:
        unread |= {"threshold", "threshold_kind", "fraction"}
    if all(milestone >= spec.epochs for milestone in spec.lr_milestones):
        unread.add("lr_decay")
    if spec.network in NETWORKS:
        unread.add("network_options")
    if not spec.randaugment_ops:
        unread.add("randaugment_magnitude")
    return unread


def training_key(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> str:
    """Return a text that is the same for trials which train the same, with ``class_sizes`` training images ``[C]``."""
    augmented = augmented_classes(spec, class_sizes)
    unread = unread_fields(spec, switched=spec.switch_epoch < spec.epochs, augmented=bool(augmented.any()))
    fields = {name: value for name, value in spec.model_dump(mode="json").items() if name not in unread}
    fields["lr_milestones"] = sorted(milestone for milestone in spec.lr_milestones if milestone < spec.epochs)
    fields["lr_warmup_epochs"] = max(1, spec.lr_warmup_epochs)  # a warm-up of one epoch is none
    if spec.switch_epoch == 0:
        fields.pop("weights_deferred", None)  # the weights begin in the first epoch either way
    if augmented.any():
        soft = fields.pop("threshold_kind") == "soft"  # of a hard K only the classes below it count
        replaceable = replaceable_samples(spec, int(class_sizes.sum()))
        fields |= {"threshold": spec.threshold if soft else None, "fraction": replaceable}
    return canonical_json({**fields, "augmented": augmented.tolist()})
