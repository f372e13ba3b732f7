"""The generator of a study must stay the one that the study was started with: trials that are compared share it."""

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, Precision
from gitdist.errors import StudyError
from gitdist.generator.kinds import munit_artifact_spec, pretrained_name
from gitdist.spec import GeneratorSpec, MunitSpec, PretrainedSpec
from gitdist.store import content_key
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.study import GENERATOR, Study


def keep_precision(spec: GeneratorSpec, fingerprint: str, known: str | None) -> GeneratorSpec:
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


def settle_generator(spec: GeneratorSpec, name: str, known: str | None) -> None:
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
        settle_generator(generator, pretrained_name(generator, dataset), known)


def _another(spec: GeneratorSpec, name: str, known: str | None) -> StudyError:
    now = "file, target, version and precision" if spec.from_outside else "settings and this version of gitdist"
    return StudyError(
        f"the study was started with another generator.kind '{spec.kind}' ({known}) than its {now} now give ({name}); "
        "put that one back, or start another study with --fork NAME"
    )
