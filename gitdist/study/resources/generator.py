"""Obtains and records a study's generator, and checks that it is the one that the study was started with."""

from functools import partial

from ray.exceptions import RayTaskError

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import DiskError, GitdistError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.generator.grid import DRAWS_PER_IMAGE, sample_grid, save_grid
from gitdist.generator.kinds import generator_name, munit_artifact_spec, open_generator, pretrained_name
from gitdist.spec import GeneratorSpec, MunitSpec, PretrainedSpec
from gitdist.store import content_key
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.resources.generator_training import TrainedGenerator, obtain_generator
from gitdist.study.running_study import RunningStudy
from gitdist.study.study import GENERATOR, Study


def train_study_generator(running: RunningStudy) -> TrainedGenerator:
    """Obtain a study's generator, record it in the ledger and MLflow, and draw sample images."""
    study, spec, tracker = running.study, running.spec.generator, running.tracker
    recorded = study.ledger.get_attr(GENERATOR)
    if recorded is None:  # else an earlier driver obtained it
        running.times.started("generator")
    tracker.generator_started()

    def on_step(step: TrainingStep) -> None:
        running.lease.check()
        running.display.training_step(step)
        tracker.generator_stepped([step])

    try:
        spec = resolve_precision(spec, running.dataset.fingerprint, recorded)
        on_wait = partial(running.report_wait, "training the generator")
        generator = obtain_generator(spec, running.dataset, running.store, running.spec.resources, on_step, on_wait)
        name = generator_name(spec, generator.artifact)
        check_same_generator(spec, name, recorded)
        _draw_samples(running, generator)
    except DiskError:
        raise
    except (GitdistError, RayTaskError):
        if recorded is None:
            running.times.ended("generator")
        tracker.generator_failed()
        raise
    if recorded is None:
        running.times.ended("generator")
    study.ledger.set_attr(GENERATOR, name)
    tracker.generator_ended(name, generator.past_steps)
    return generator


def _draw_samples(running: RunningStudy, generator: TrainedGenerator) -> None:
    dataset, spec, samples = running.dataset, running.spec, running.study.paths.samples
    compute = Compute.resolve(spec.stream.precision, "cpu")
    with open_generator(spec.generator, dataset, generator.artifact, compute) as loaded:
        grid = sample_grid(loaded, dataset, 1, DRAWS_PER_IMAGE, spec.stream.seed)
    save_grid(grid, samples)
    running.study.paths.push(samples)


def resolve_precision(spec: GeneratorSpec, fingerprint: str, recorded: str | None) -> GeneratorSpec:
    """Return the generator's spec with the precision that ``auto`` meant in the first run, on any machine.

    Raises:
        StudyError: the generator has changed, whatever its precision.
    """
    if not isinstance(spec, MunitSpec) or recorded is None:
        return spec
    precisions = ["bf16", "float32"] if spec.precision == "auto" else [spec.precision]
    for precision in precisions:
        settings = munit_artifact_spec(spec, fingerprint, Compute.resolve(precision, "cpu"))
        name = content_key("generator", settings)
        if name == recorded:
            return spec.model_copy(update={"precision": precision})
    raise _changed_error(spec, name, recorded)


def check_same_generator(spec: GeneratorSpec, name: str, recorded: str | None) -> None:
    """Refuse another generator than in the first run, since the trials of a study must share one.

    Raises:
        StudyError: the generator has changed.
    """
    if recorded not in (None, name):
        raise _changed_error(spec, name, recorded)


def check_moved_generator(study: Study, dataset: Dataset) -> None:
    """Refuse another file of an imported generator unless it has the same content."""
    recorded, generator = study.ledger.get_attr(GENERATOR), study.spec.generator
    if recorded is None or not isinstance(generator, PretrainedSpec) or not study.paths.spec.exists():
        return
    if load_stored_spec(study.paths).generator != generator:
        check_same_generator(generator, pretrained_name(generator, dataset), recorded)


def _changed_error(spec: GeneratorSpec, name: str, recorded: str | None) -> StudyError:
    what = "file, target, version and precision" if spec.from_outside else "settings and this version of gitdist"
    return StudyError(
        f"generator.kind '{spec.kind}': the study was started with {recorded}, but its {what} now give {name}; "
        "restore the former one, or start another study",
        remedy="fork",
    )
