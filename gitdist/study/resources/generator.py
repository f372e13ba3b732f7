"""The generator of a study: obtained, recorded, and held to the one that the study was started with."""

from functools import partial

from ray.exceptions import RayTaskError

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, Precision
from gitdist.errors import DiskError, GitdistError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.generator.kinds import generator_name, load_generator, munit_artifact_spec, pretrained_name
from gitdist.spec import GeneratorSpec, MunitSpec, PretrainedSpec
from gitdist.store import content_key
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.resources.generator_training import TrainedGenerator, obtain_generator
from gitdist.study.running_study import RunningStudy
from gitdist.study.study import GENERATOR, Study

_DRAWS_PER_IMAGE = 8  # in the picture of samples


def train_study_generator(running: RunningStudy) -> TrainedGenerator:
    """Obtain the generator of a study, record it in the ledger and MLflow, and draw samples of it."""
    study, spec, tracker = running.study, running.spec.generator, running.tracker
    known = study.ledger.get_attr(GENERATOR)
    if known is None:  # else an earlier driver obtained it
        running.times.started("generator")
    tracker.generator_started(spec.model_dump())

    def on_step(step: TrainingStep) -> None:
        running.lease.check()
        running.display.training_step(step)
        tracker.generator_stepped([step])

    try:
        spec = resolve_precision(spec, running.dataset.fingerprint, known)
        on_wait = partial(running.report_wait, "training the generator")
        generator = obtain_generator(spec, running.dataset, running.store, running.spec.resources, on_step, on_wait)
        name = generator_name(spec, generator.artifact)
        check_same_generator(spec, name, known)
        _draw_samples(running, generator)
    except DiskError:
        raise
    except (GitdistError, RayTaskError):
        if known is None:
            running.times.ended("generator")
        tracker.generator_failed()
        raise
    if known is None:
        running.times.ended("generator")
    study.ledger.set_attr(GENERATOR, name)
    tracker.generator_ended(name, generator.past_steps)
    return generator


def _draw_samples(running: RunningStudy, generator: TrainedGenerator) -> None:
    dataset, spec, samples = running.dataset, running.spec, running.study.paths.samples
    compute = Compute.resolve(spec.stream.precision, "cpu")
    loaded = load_generator(spec.generator, dataset, generator.artifact, compute)
    save_grid(sample_grid(loaded, dataset, 1, _DRAWS_PER_IMAGE, spec.stream.seed), samples)
    running.study.paths.push(samples)


def resolve_precision(spec: GeneratorSpec, fingerprint: str, known: str | None) -> GeneratorSpec:
    """Return the generator's spec with ``precision: auto`` as the first run resolved it, on whatever machine this is.

    Raises:
        StudyError: it is another one now, in whichever precision it is trained.
    """
    if not isinstance(spec, MunitSpec) or known is None:
        return spec
    precisions: list[Precision] = ["bf16", "float32"] if spec.precision == "auto" else [spec.precision]
    for precision in precisions:
        settings = munit_artifact_spec(spec, fingerprint, Compute.resolve(precision, "cpu"))
        name = content_key("generator", settings)
        if name == known:
            return spec.model_copy(update={"precision": precision})
    raise _another(spec, name, known)


def check_same_generator(spec: GeneratorSpec, name: str, known: str | None) -> None:
    """Accept a generator only as it was at the first run: trials that are compared share one.

    Raises:
        StudyError: it is another one now.
    """
    if known not in (None, name):
        raise _another(spec, name, known)


def check_moved_generator(study: Study, dataset: Dataset) -> None:
    """Accept another file of an imported generator only if it has the same content."""
    known, generator = study.ledger.get_attr(GENERATOR), study.spec.generator
    if known is None or not isinstance(generator, PretrainedSpec) or not study.paths.spec.exists():
        return
    if load_stored_spec(study.paths).generator != generator:
        check_same_generator(generator, pretrained_name(generator, dataset), known)


def _another(spec: GeneratorSpec, name: str, known: str | None) -> StudyError:
    now = "file, target, version and precision" if spec.from_outside else "settings and this version of gitdist"
    return StudyError(
        f"the study was started with another generator.kind '{spec.kind}' ({known}) than its {now} now give ({name}); "
        "put that one back, or start another study with --fork NAME"
    )
