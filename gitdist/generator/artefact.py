"""The generators of all kinds: what the store keeps of them, and how they are loaded.

A trained generator is made once for a spec and a data set; an imported one is copied into the store, where every node
finds it; the other kinds keep nothing.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, StoreError
from gitdist.generator.base import Generator
from gitdist.generator.finite import non_finite
from gitdist.generator.munit import AutoEncoder, check_geometry
from gitdist.generator.munit_generator import MunitGenerator
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator
from gitdist.generator.plugin import GeneratorContext, Plugin
from gitdist.generator.pretrained import load_pretrained, read_pretrained
from gitdist.generator.randaugment import RandAugmentGenerator
from gitdist.generator.training import WEIGHTS_FILE, TrainingStep, train_munit
from gitdist.spec import (
    GeneratorSpec,
    IdentitySpec,
    MunitSpec,
    OracleSpec,
    PluginSpec,
    PretrainedSpec,
    RandAugmentSpec,
)
from gitdist.store import Store, content_key
from gitdist.store.artefact import MANIFEST, checksum, stamps

GENERATOR_FORMAT = 1

Report = Callable[[TrainingStep], None]


@dataclass(frozen=True)
class _Recipe:
    """What determines an artefact, and ``build(target, scratch, report)`` that makes it."""

    determined_by: Mapping[str, object]
    build: Callable[[Path, Path, Report], None]


def trains(spec: GeneratorSpec) -> bool:
    """Tell whether a generator is trained on the data set; the others are at hand.

    Raises:
        SpecError: a plugin cannot be imported.
    """
    return isinstance(spec, MunitSpec) or (isinstance(spec, PluginSpec) and Plugin(spec).trains)


def generator_artefact(
    spec: GeneratorSpec, dataset: Dataset, store: Store, report: Report, compute: Compute
) -> Path | None:
    """Return the directory of the generator's weights, which are trained or copied if the store does not have them.

    Args:
        spec: what generator; ``precision: auto`` is resolved for the device of ``compute``.
        dataset: what it learns from.
        store: where generators are kept.
        report: called during training.
        compute: where training runs.

    Returns:
        None for a generator without weights.

    Raises:
        SpecError: the images' form does not go with the settings, or an imported file or a plugin cannot be read.
        TrialFailedError: training diverged.
    """
    recipe = _recipe(spec, dataset, compute)
    if recipe is None:
        return None
    build = recipe.build
    return store.get_or_build("generator", recipe.determined_by, lambda target, scratch: build(target, scratch, report))


def find_generator(spec: GeneratorSpec, dataset: Dataset, store: Store, compute: Compute) -> Path | None:
    """Return the directory of the generator's weights if the store has them, else None.

    Args:
        spec: what generator.
        dataset: what it learnt from.
        store: where generators are kept.
        compute: where training would run; resolves ``precision: auto``.

    Raises:
        SpecError: as ``generator_artefact``.
    """
    recipe = _recipe(spec, dataset, compute)
    return None if recipe is None else store.find("generator", recipe.determined_by)


def _recipe(spec: GeneratorSpec, dataset: Dataset, compute: Compute) -> _Recipe | None:
    if isinstance(spec, MunitSpec):
        return _munit_recipe(spec, dataset, Compute.resolve(spec.precision, compute.device))
    if isinstance(spec, PretrainedSpec):
        return _pretrained_recipe(spec, dataset)
    if isinstance(spec, PluginSpec):
        return _plugin_recipe(Plugin(spec), dataset, Compute.resolve(device=compute.device))
    return None


def _munit_recipe(spec: MunitSpec, dataset: Dataset, compute: Compute) -> _Recipe:
    check_geometry(spec, dataset.image_shape)

    def build(target: Path, scratch: Path, report: Report) -> None:
        train_munit(spec, dataset, target, scratch, report, compute)

    return _Recipe(artefact_spec(spec, dataset.fingerprint, compute), build)


def _pretrained_recipe(spec: PretrainedSpec, dataset: Dataset) -> _Recipe:
    path = Path(os.path.expanduser(spec.path))  # Path's own raises where there is no such user
    try:
        digest = _digest(path)
    except OSError as error:
        raise SpecError(
            f"generator.path must name a file that `gitdist generator import` wrote, but {path} cannot be read "
            f"({error.strerror}); give its whole path"
        ) from None
    read_pretrained(path, dataset.image_shape)

    def build(target: Path, scratch: Path, report: Report) -> None:
        write_atomic(target / WEIGHTS_FILE, path.read_bytes())
        if _digest(target / WEIGHTS_FILE) != digest:
            raise SpecError(f"generator.path must stay as it is while it is copied, but {path} changed; run again")

    return _Recipe({"format": GENERATOR_FORMAT, "pretrained": digest}, build)


def pretrained_name(spec: PretrainedSpec, dataset: Dataset) -> str:
    """Return the name of the artefact that an imported generator's file makes; it follows from the content alone.

    Raises:
        SpecError: the file cannot be read, or is of images of another form.
    """
    return content_key("generator", _pretrained_recipe(spec, dataset).determined_by)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _plugin_recipe(plugin: Plugin, dataset: Dataset, compute: Compute) -> _Recipe | None:
    if not plugin.trains:
        return None

    def build(target: Path, scratch: Path, report: Report) -> None:
        def tell(step: int, total: int, losses: Mapping[str, float]) -> None:
            report(TrainingStep(step=step, total=total, losses=dict(losses), elapsed_s=0.0))

        plugin.train(dataset, target, tell, compute)

    determined_by = {"format": GENERATOR_FORMAT, "data": dataset.fingerprint, **plugin.settings}
    return _Recipe({**determined_by, "precision": compute.precision}, build)


def draw_settings(spec: GeneratorSpec) -> dict[str, object]:
    """Return what determines a generator's draws besides its kind and weights, as JSON values."""
    if isinstance(spec, RandAugmentSpec):
        return {"ops": spec.ops, "magnitude": spec.magnitude}
    return Plugin(spec).settings if isinstance(spec, PluginSpec) else {}


def generator_name(spec: GeneratorSpec, artefact: Path | None) -> str:
    """Return what a generator is called: its artefact's name, or its kind and what else determines its draws."""
    if artefact:
        return artefact.name
    settings = draw_settings(spec)
    return f"{spec.kind}-{content_key('draws', settings)}" if settings else spec.kind


def weights_digest(spec: GeneratorSpec, artefact: Path) -> str:
    """Return the hash of a generator's weights: two trainings of one spec may end with different ones.

    Raises:
        OSError: they cannot be read.
    """
    if not isinstance(spec, PluginSpec):
        return checksum(artefact / WEIGHTS_FILE)
    names = [name for name in stamps(artefact) if name != MANIFEST]
    return content_key("weights", {name: checksum(artefact / name) for name in names})


def artefact_spec(spec: MunitSpec, fingerprint: str, compute: Compute) -> dict[str, object]:
    """Return everything that determines a trained generator; how often checkpoints are taken does not.

    What is switched off is left out, so generators from before there were these settings are found.

    Args:
        spec: settings of networks and training.
        fingerprint: the data set's.
        compute: whose precision stands in the place of ``auto``.
    """
    without = {"checkpoint_every"}
    without |= set() if spec.randaugment_ops else {"randaugment_ops", "randaugment_magnitude"}
    without |= set() if spec.mixup_alpha else {"mixup_alpha"}
    settings = spec.model_dump(mode="json", exclude=without)
    return {"format": GENERATOR_FORMAT, "data": fingerprint, **settings, "precision": compute.precision}


def load_generator(
    spec: GeneratorSpec,
    dataset: Dataset,
    artefact: Path | None,
    compute: Compute,
    compiled_batch: int | None = None,
) -> Generator:
    """Return a generator that is ready to draw.

    Args:
        spec: what generator.
        dataset: whose images it draws from.
        artefact: what ``generator_artefact`` returned.
        compute: device and precision of drawing; need not be those of training.
        compiled_batch: draws computed at once by a compiled MUNIT; None = none is compiled.

    Raises:
        SpecError: an oracle of a data set without nuisance, an imported network of images of another form, or a plugin
            that gives no generator.
        StoreError: the artefact is missing or not of these settings.
    """
    if isinstance(spec, OracleSpec):
        return OracleGenerator(dataset.nuisance)
    if isinstance(spec, IdentitySpec):
        return IdentityGenerator()
    if isinstance(spec, RandAugmentSpec):
        return RandAugmentGenerator(spec.ops, spec.magnitude, dataset.image_shape)
    if isinstance(spec, PluginSpec):
        return Plugin(spec).build(_context(dataset, artefact, compute))
    if artefact is None:
        raise StoreError(f"a {spec.kind} generator is loaded from its artefact, but none was given; make it first")
    if isinstance(spec, PretrainedSpec):
        return load_pretrained(artefact / WEIGHTS_FILE, dataset.image_shape, compute, compiled_batch)
    auto_encoder = load_auto_encoder(spec, dataset.image_shape[0], artefact)
    return MunitGenerator(auto_encoder, spec.style_dim, compute, compiled_batch)


def _context(dataset: Dataset, artefact: Path | None, compute: Compute) -> GeneratorContext:
    return GeneratorContext(
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        nuisance=dataset.nuisance,
        compute=compute,
        artefact=artefact,
    )


def load_auto_encoder(spec: MunitSpec, image_channels: int, artefact: Path) -> AutoEncoder:
    """Return the trained network of a MUNIT generator, on the CPU.

    Args:
        spec: its settings.
        image_channels: 1 or 3.
        artefact: what ``generator_artefact`` returned.

    Raises:
        StoreError: the artefact is missing, not of these settings, or has weights that are not finite.
    """
    auto_encoder = AutoEncoder(spec, image_channels)
    try:
        weights = load_file(artefact / WEIGHTS_FILE)
        if broken := non_finite(weights):
            raise ValueError(f"{broken} holds NaN or infinite values")
        auto_encoder.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(
            f"a trained generator must hold the weights its settings name, but {artefact / WEIGHTS_FILE} does not "
            f"({reason}); remove the directory to train it again"
        ) from error
    return auto_encoder
