"""The kinds of generators: what is kept of each in the store, and how it is loaded. A new kind is a line in ``KINDS``.

A trained generator is built once per spec and data set. An imported one is copied into the store, where every node
finds it. The other kinds have no artifact.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import SpecError, StoreError
from gitdist.generator.base import Generator, TrainingStep
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.munit.networks import WEIGHTS_FILE, check_geometry, load_auto_encoder
from gitdist.generator.munit.training import train_munit
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator, RandAugmentGenerator
from gitdist.generator.plugin import GeneratorContext, Plugin, describe_plugin, isolated_generator
from gitdist.generator.pretrained import copy_pretrained, load_pretrained, pretrained_digest, read_pretrained
from gitdist.generator.resizing import ResizedGenerator, generated_shape
from gitdist.input_file import expand_home
from gitdist.spec import (
    GeneratorSpec,
    IdentitySpec,
    MunitSpec,
    OracleSpec,
    PluginSpec,
    PretrainedSpec,
    RandAugmentSpec,
    ResizableSpec,
)
from gitdist.store import Store, content_key
from gitdist.store.artifact import MANIFEST, checksum, stamps

GENERATOR_FORMAT = 1

Report = Callable[[TrainingStep], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines an artifact, and ``build(target, scratch, report)`` that makes it."""

    determined_by: Mapping[str, object]
    build: Callable[[Path, Path, Report], None]


@dataclass(frozen=True, kw_only=True)
class GeneratorKind:
    """One kind of generator; the functions get a spec of its class."""

    load: Callable[[Any, Dataset, Path | None, Compute, int | None], Generator]  # arguments as of ``load_generator``
    isolate: Callable[[Any, Dataset, Path | None, Compute], AbstractContextManager[Generator]] | None = None
    recipe: Callable[[Any, Dataset, Compute], Recipe | None] = lambda spec, dataset, compute: None  # None = no artifact
    trains: Callable[[Any], bool] = lambda spec: False
    draw_settings: Callable[[Any], dict[str, object]] = lambda spec: {}
    weights_digest: Callable[[Path], str] = lambda artifact: checksum(artifact / WEIGHTS_FILE)


def needs_training(spec: GeneratorSpec) -> bool:
    """Return whether a generator is trained on the data set; raise SpecError if a plugin cannot be imported."""
    return _kind(spec).trains(spec)


def obtain_artifact(
    spec: GeneratorSpec, dataset: Dataset, store: Store, report: Report, compute: Compute
) -> Path | None:
    """Return the directory of the generator's weights, trained or copied if the store does not have them.

    ``precision: auto`` is resolved for the device of ``compute``. A generator without weights gives None.

    Raises:
        SpecError: the images do not fit the settings, or an imported file or a plugin cannot be read.
        TrialFailedError: training diverged.
    """
    recipe = _kind(spec).recipe(spec, dataset, compute)
    if recipe is None:
        return None
    build = recipe.build
    return store.get_or_build("generator", recipe.determined_by, lambda target, scratch: build(target, scratch, report))


def find_artifact(spec: GeneratorSpec, dataset: Dataset, store: Store, compute: Compute) -> Path | None:
    """Return what ``obtain_artifact`` would if it is in the store already, else None."""
    recipe = _kind(spec).recipe(spec, dataset, compute)
    return None if recipe is None else store.find("generator", recipe.determined_by)


def load_generator(
    spec: GeneratorSpec,
    dataset: Dataset,
    artifact: Path | None,
    compute: Compute,
    compiled_batch: int | None = None,
) -> Generator:
    """Return a generator that is ready to draw.

    Args:
        spec: of the generator.
        dataset: of the images to draw from.
        artifact: returned by ``obtain_artifact``.
        compute: device and precision of drawing; may differ from those of training.
        compiled_batch: draws per call of a compiled MUNIT; None = not compiled.

    Raises:
        SpecError: an oracle of a data set without nuisance, an imported network of other images, or a plugin that
            returns no generator.
        StoreError: the artifact is missing or has other settings.
    """
    return at_data_size(spec, _kind(spec).load(spec, dataset, artifact, compute, compiled_batch), dataset)


@contextmanager
def open_generator(
    spec: GeneratorSpec, dataset: Dataset, artifact: Path | None, compute: Compute
) -> Iterator[Generator]:
    """Yield a generator that is ready to draw; see ``load_generator``. A plugin runs in a child process."""
    kind = _kind(spec)
    if kind.isolate is None:
        yield load_generator(spec, dataset, artifact, compute)
        return
    with kind.isolate(spec, dataset, artifact, compute) as generator:
        yield at_data_size(spec, generator, dataset)


def at_data_size(spec: GeneratorSpec, generator: Generator, dataset: Dataset) -> Generator:
    """Return a generator of images of the data set's size; ``generator`` draws them at ``spec.image_size``, if set."""
    drawn_shape = _drawn_shape(spec, dataset)
    if drawn_shape == dataset.image_shape:
        return generator
    return ResizedGenerator(generator, drawn_shape, dataset.image_shape)


def draw_settings(spec: GeneratorSpec) -> dict[str, object]:
    """Return what determines a generator's draws besides its kind and weights, as JSON values."""
    size = _image_size(spec)
    return {**_kind(spec).draw_settings(spec), **({} if size is None else {"image_size": size})}


def generator_name(spec: GeneratorSpec, artifact: Path | None) -> str:
    """Return the name of a generator: its artifact's, or its kind and a hash of its other settings."""
    if artifact:
        return artifact.name
    settings = draw_settings(spec)
    return f"{spec.kind}-{content_key('draws', settings)}" if settings else spec.kind


def pretrained_name(spec: PretrainedSpec, dataset: Dataset) -> str:
    """Return the name of an imported generator's artifact; raise SpecError if its file cannot be read."""
    return content_key("generator", _pretrained_recipe(spec, dataset, None).determined_by)


def weights_digest(spec: GeneratorSpec, artifact: Path) -> str:
    """Return the hash of a generator's weights, which can differ between two trainings; raise OSError if unreadable."""
    return _kind(spec).weights_digest(artifact)


def munit_artifact_spec(spec: MunitSpec, fingerprint: str, compute: Compute) -> dict[str, object]:
    """Return everything that determines a trained MUNIT; ``precision`` is that of ``compute``.

    Settings that are off are left out, so that generators of versions without these settings are found.
    """
    without = {"checkpoint_every"}
    without |= set() if spec.randaugment_ops else {"randaugment_ops", "randaugment_magnitude"}
    without |= set() if spec.mixup_alpha else {"mixup_alpha"}
    without |= set() if spec.image_size else {"image_size"}
    settings = spec.model_dump(mode="json", exclude=without)
    return {"format": GENERATOR_FORMAT, "data": fingerprint, **settings, "precision": compute.precision}


def _munit_recipe(spec: MunitSpec, dataset: Dataset, compute: Compute) -> Recipe:
    check_geometry(spec, _drawn_shape(spec, dataset))
    resolved = Compute.resolve(spec.precision, compute.device)
    return Recipe(
        munit_artifact_spec(spec, dataset.fingerprint, resolved),
        lambda target, scratch, report: train_munit(spec, dataset, target, scratch, report, resolved),
    )


def _load_munit(
    spec: MunitSpec, dataset: Dataset, artifact: Path | None, compute: Compute, compiled_batch: int | None
) -> Generator:
    auto_encoder = load_auto_encoder(spec, dataset.image_shape[0], _required(spec, artifact))
    return MunitGenerator(auto_encoder, spec.style_dim, compute, compiled_batch)


def _pretrained_recipe(spec: PretrainedSpec, dataset: Dataset, compute: Compute | None) -> Recipe:
    path = expand_home(spec.path)
    digest = pretrained_digest(path)
    read_pretrained(path, _drawn_shape(spec, dataset))

    def build(target: Path, scratch: Path, report: Report) -> None:
        copy_pretrained(path, digest, target / WEIGHTS_FILE)

    return Recipe({"format": GENERATOR_FORMAT, "pretrained": digest}, build)


def _load_pretrained(
    spec: PretrainedSpec, dataset: Dataset, artifact: Path | None, compute: Compute, compiled_batch: int | None
) -> Generator:
    file, shape = _required(spec, artifact) / WEIGHTS_FILE, _drawn_shape(spec, dataset)
    return load_pretrained(file, shape, compute, compiled_batch)


def _plugin_recipe(spec: PluginSpec, dataset: Dataset, compute: Compute) -> Recipe | None:
    description = describe_plugin(spec.target)
    if not description.trains:
        return None
    if spec.image_size is not None:
        raise SpecError(
            f"generator.image_size is for plugins that do not train, but '{spec.target}' trains on the data set's own "
            "images; leave it out, and resize in the plugin"
        )
    resolved = Compute.resolve(device=compute.device)

    def build(target: Path, scratch: Path, report: Report) -> None:
        def report_step(step: int, total: int, losses: Mapping[str, float]) -> None:
            report(TrainingStep(step=step, total=total, losses=dict(losses), elapsed_s=0.0))

        Plugin(spec).train(dataset, target, report_step, resolved)

    determined_by = {"format": GENERATOR_FORMAT, "data": dataset.fingerprint, **description.settings(spec)}
    return Recipe({**determined_by, "precision": resolved.precision}, build)


def _load_plugin(
    spec: PluginSpec, dataset: Dataset, artifact: Path | None, compute: Compute, compiled_batch: int | None
) -> Generator:
    return Plugin(spec).build(_plugin_context(spec, dataset, artifact, compute))


def _isolate_plugin(
    spec: PluginSpec, dataset: Dataset, artifact: Path | None, compute: Compute
) -> AbstractContextManager[Generator]:
    return isolated_generator(spec, _plugin_context(spec, dataset, artifact, compute))


def _plugin_context(spec: PluginSpec, dataset: Dataset, artifact: Path | None, compute: Compute) -> GeneratorContext:
    return GeneratorContext(
        image_shape=_drawn_shape(spec, dataset),
        class_names=dataset.class_names,
        nuisance=dataset.nuisance,
        compute=compute,
        artifact=artifact,
    )


def _image_size(spec: GeneratorSpec) -> int | None:
    return spec.image_size if isinstance(spec, ResizableSpec) else None


def _drawn_shape(spec: GeneratorSpec, dataset: Dataset) -> tuple[int, int, int]:
    return generated_shape(_image_size(spec), dataset.image_shape)


def _hash_all_files(artifact: Path) -> str:
    names = [name for name in stamps(artifact) if name != MANIFEST]
    return content_key("weights", {name: checksum(artifact / name) for name in names})


def _required(spec: MunitSpec | PretrainedSpec, artifact: Path | None) -> Path:
    if artifact is None:
        raise StoreError(f"a {spec.kind} generator is loaded from its artifact, but none was given; build it first")
    return artifact


KINDS: dict[type, GeneratorKind] = {  # by the class of the spec, which GeneratorSpec lists
    MunitSpec: GeneratorKind(load=_load_munit, recipe=_munit_recipe, trains=lambda spec: True),
    OracleSpec: GeneratorKind(load=lambda spec, dataset, *_: OracleGenerator(dataset.nuisance)),
    IdentitySpec: GeneratorKind(load=lambda *_: IdentityGenerator()),
    RandAugmentSpec: GeneratorKind(
        load=lambda spec, dataset, *_: RandAugmentGenerator(spec.ops, spec.magnitude, dataset.image_shape),
        draw_settings=lambda spec: {"ops": spec.ops, "magnitude": spec.magnitude},
    ),
    PretrainedSpec: GeneratorKind(load=_load_pretrained, recipe=_pretrained_recipe),
    PluginSpec: GeneratorKind(
        load=_load_plugin,
        isolate=_isolate_plugin,
        recipe=_plugin_recipe,
        trains=lambda spec: describe_plugin(spec.target).trains,
        draw_settings=lambda spec: describe_plugin(spec.target).settings(spec),
        weights_digest=_hash_all_files,
    ),
}


def _kind(spec: GeneratorSpec) -> GeneratorKind:
    if type(spec) not in KINDS:
        raise SpecError(f"generator.kind '{spec.kind}' is not in gitdist.generator.kinds.KINDS")
    return KINDS[type(spec)]
