"""Trained generators in the store: one spec and data set, one training."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from gitdist.compute import Compute
from gitdist.data.dataset import Dataset
from gitdist.errors import StoreError
from gitdist.generator.base import Generator
from gitdist.generator.munit import AutoEncoder, check_geometry
from gitdist.generator.munit_generator import MunitGenerator
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator
from gitdist.generator.training import WEIGHTS_FILE, TrainingStep, train_munit
from gitdist.spec import GeneratorSpec, IdentitySpec, MunitSpec, OracleSpec
from gitdist.store import Store

GENERATOR_FORMAT = 1


def generator_artefact(
    spec: GeneratorSpec,
    dataset: Dataset,
    store: Store,
    report: Callable[[TrainingStep], None],
    compute: Compute,
) -> Path | None:
    """Return the directory of the trained generator, training it if the store does not have it.

    Args:
        spec: what generator; ``precision: auto`` is resolved for the device of ``compute``.
        dataset: what it learns from.
        store: where trained generators are kept.
        report: called during training.
        compute: where training runs.

    Returns:
        None for a generator that needs no training.

    Raises:
        SpecError: the images' size does not go with the settings.
        TrialFailure: training diverged.
    """
    if not isinstance(spec, MunitSpec):
        return None
    check_geometry(spec, dataset.image_shape)
    resolved = Compute.resolve(spec.precision, compute.device)

    def build(target: Path, scratch: Path) -> None:
        train_munit(spec, dataset, target, scratch, report, resolved)

    return store.get_or_build("generator", artefact_spec(spec, dataset.fingerprint, resolved), build)


def find_generator(spec: GeneratorSpec, dataset: Dataset, store: Store, compute: Compute) -> Path | None:
    """Return the directory of the trained generator if the store has it, else None.

    Args:
        spec: what generator.
        dataset: what it learnt from.
        store: where trained generators are kept.
        compute: where training would run; resolves ``precision: auto``.
    """
    if not isinstance(spec, MunitSpec):
        return None
    resolved = Compute.resolve(spec.precision, compute.device)
    return store.find("generator", artefact_spec(spec, dataset.fingerprint, resolved))


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
    dataset_nuisance: str,
    image_shape: tuple[int, int, int],
    artefact: Path | None,
    compute: Compute,
    compiled_batch: int | None = None,
) -> Generator:
    """Return a generator that is ready to draw.

    Args:
        spec: what generator.
        dataset_nuisance: the data set's nuisance, for the oracle.
        image_shape: ``(C, H, W)``.
        artefact: what ``generator_artefact`` returned.
        compute: device and precision of drawing; need not be those of training.
        compiled_batch: draws computed at once by a compiled network; None = none is compiled.

    Raises:
        SpecError: an oracle of a data set without nuisance.
        StoreError: the artefact is missing or not of these settings.
    """
    if isinstance(spec, OracleSpec):
        return OracleGenerator(dataset_nuisance)
    if isinstance(spec, IdentitySpec):
        return IdentityGenerator()
    if artefact is None:
        raise StoreError("a munit generator is loaded from its artefact, but none was given; train it first")
    return MunitGenerator(load_auto_encoder(spec, image_shape[0], artefact), spec.style_dim, compute, compiled_batch)


def load_auto_encoder(spec: MunitSpec, image_channels: int, artefact: Path) -> AutoEncoder:
    """Return the trained network of a MUNIT generator, on the CPU.

    Args:
        spec: its settings.
        image_channels: 1 or 3.
        artefact: what ``generator_artefact`` returned.

    Raises:
        StoreError: the artefact is missing or not of these settings.
    """
    auto_encoder = AutoEncoder(spec, image_channels)
    try:
        auto_encoder.load_state_dict(load_file(artefact / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(
            f"a trained generator must hold the weights its settings name, but {artefact / WEIGHTS_FILE} does not "
            f"({reason}); remove the directory to train it again"
        ) from error
    return auto_encoder
