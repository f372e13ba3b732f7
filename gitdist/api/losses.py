"""The losses of a study as modules for a training loop of the user."""

from torch import nn

from gitdist.api.arguments import Labels, check_names, check_settings, read_class_sizes
from gitdist.api.samplers import changes_over_epochs
from gitdist.balancing import read_fields
from gitdist.balancing.losses import LOSSES
from gitdist.balancing.samplers import SAMPLERS
from gitdist.errors import SpecError
from gitdist.spec import TrialSpec
from gitdist.trial.plan import build_loss


def loss(
    kind: str, class_sizes: Labels, *, sampler: str = "instance", class_weights: str = "none", **options: float
) -> nn.Module:
    """Return a loss of a long-tailed training set: a module ``loss(logits [n, C], labels [n]) -> mean over the batch``.

    Its tensors are buffers: ``.to(device)`` moves them. What a loss adds to the logits it adds in training alone; the
    classifier's answer is the softmax of its own logits.

    Args:
        kind: ``cross-entropy``; ``ldam`` (Cao et al. 2019, arXiv 1906.07413), for logits that are ``ldam_scale`` times
            the cosine of features and class; ``focal`` (Lin et al. 2017, arXiv 1708.02002); ``balanced-softmax`` (Ren
            et al. 2020, arXiv 2007.10740); ``logit-adjustment`` (Menon et al. 2021, arXiv 2007.07314).
        class_sizes: training images of each class, ``[C]``.
        sampler: how batches are drawn, see ``gitdist.sampler``: with ``class_weights`` it determines the priors of
            ``balanced-softmax`` and ``logit-adjustment``.
        class_weights: ``none``, ``inverse`` (proportional to 1 / n_c) or ``effective-number`` (Cui et al. 2019, arXiv
            1901.05555), with the sum C.
        options: those of the loss: ``label_smoothing``, ``ldam_margin`` (0.5), ``ldam_scale`` (30), ``focal_gamma``
            (1), ``logit_tau`` (1); ``effective_beta`` (0.9999) of weights or sampler.

    Raises:
        SpecError: a kind or an option that does not exist, or a value out of range.
    """
    check_names("loss", "loss", [kind], LOSSES)
    check_names("loss", "sampler", [sampler], SAMPLERS)
    known = read_fields(LOSSES[kind]) | read_fields(SAMPLERS[sampler])
    known |= {"effective_beta"} if class_weights == "effective-number" else set()
    check_names(f"loss {kind}", "option", options, known)
    sizes = read_class_sizes("loss", class_sizes)
    settings = {"loss": kind, "sampler": sampler, "class_weights": class_weights, "weights_deferred": False}
    spec: TrialSpec = check_settings("loss", TrialSpec, **settings, **options)
    if changes_over_epochs(spec, sizes):
        raise SpecError(f"loss: sampler must draw all epochs alike, but {sampler} does not; name another one")
    return build_loss(spec, sizes, epoch=1)
