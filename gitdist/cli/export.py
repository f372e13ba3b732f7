"""``gitdist export | predict``: write a trained classifier to a file, or let it answer for image files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from gitdist.cli.console import print_line
from gitdist.cli.outputs import check_output
from gitdist.cli.studies import stored_study
from gitdist.data.dataset import Dataset
from gitdist.device import set_threads
from gitdist.errors import SpecError
from gitdist.export.files import check_format, model_files, write_model
from gitdist.export.model import TrainedModel
from gitdist.export.predict import Prediction, list_images, predict_files
from gitdist.input_file import expand_home
from gitdist.spec import StudySpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.models import choose_model, load_model, open_dataset
from gitdist.study.study import Study


def export_model(
    study: str, results: Results, console: Console, *, out: Path, trial: int | None, baseline: bool
) -> None:
    """Write the model of a trial to a file, and print how much bf16 changes its probabilities."""
    check_format(out)
    if baseline and trial is not None:
        raise SpecError(f"--trial {trial} and --baseline name two models; pass one of them")
    paths, spec = stored_study(study, results)
    for file in model_files(out):
        check_output("--out", file, paths.spec, spec)
    model, dataset = _open_model(paths, spec, trial, baseline=baseline)
    write_model(model, out)
    difference, count = model.bf16_difference(dataset)
    files = " and ".join(str(file) for file in model_files(out))
    print_line(
        console,
        f"{files}: {_title(model)}, {model.spec.network}, {len(model.class_names)} classes, images "
        f"{list(model.image_shape)} uint8; float32 probabilities differ by at most {difference:.1e} from those "
        f"of a bf16 evaluation ({count} validation images)",
    )


def predict_images(
    study: str, images: Sequence[str], results: Results, console: Console, *, trial: int | None, as_json: bool
) -> None:
    """Print the class of each image file, and its probability; as JSON the probabilities of all classes."""
    if "" in images:  # an unset variable of the shell; as a path it is the working directory
        raise SpecError("IMAGE must be a file or a folder, but it is empty; name one, or write . for this folder")
    files = list_images([expand_home(image) for image in images])
    model, _ = _open_model(*stored_study(study, results), trial)
    predictions = list(predict_files(model, files))
    if as_json:
        answers = [_as_json(prediction) for prediction in predictions]
        console.print_json(data={"study": model.study, "trial": model.trial, "images": answers})
        return
    for prediction in predictions:
        name, probability = prediction.best
        print_line(console, f"{prediction.file}  {name}  {probability:.4f}")


def _open_model(
    paths: StudyPaths, spec: StudySpec, trial: int | None, *, baseline: bool = False
) -> tuple[TrainedModel, Dataset]:
    set_threads(torch.get_num_threads())  # no more than this process may use
    with Study.open(paths, spec) as opened:
        job = choose_model(opened, "baseline" if baseline else trial)
        dataset = open_dataset(opened)
        return load_model(opened, job, dataset), dataset


def _title(model: TrainedModel) -> str:
    return f"{model.trial if model.trial == 'baseline' else f'trial {model.trial}'} of study '{model.study}'"


def _as_json(prediction: Prediction) -> dict[str, object]:
    name, probability = prediction.best
    probabilities = dict(zip(prediction.class_names, prediction.probabilities.tolist(), strict=True))
    return {
        "image": str(prediction.file),
        "class": name,
        "probability": probability,
        "probabilities": probabilities,
    }
