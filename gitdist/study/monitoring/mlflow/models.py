"""MLflow models: saves a trained classifier as a directory, logs that directory to a run, registers it.

    save_model --> MLmodel, data/model.pt2, ... --log_model--> a logged model of the run --register_model--> a version

The directory loads by ``mlflow.pytorch.load_model`` and ``torch.export.load`` as it is. Logging and registering resume
where they were interrupted: a logged model is READY once all of its files are there.
"""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import __version__ as mlflow_version
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from gitdist.disk import disk_errors
from gitdist.errors import SpecError, first_line
from gitdist.export.model import TrainedModel

_NAME = "model"  # of each logged model: runs:/RUN_ID/model
_MLMODEL = "MLmodel"


def save_model(model: TrainedModel, directory: Path) -> None:
    """Save a model as an MLflow model in a new ``directory``, which appears when it is complete.

    Raises:
        SpecError: MLflow cannot save the network, for instance because torch.export cannot trace it.
        DiskError: the disk does not take it.
    """
    if find_spec("pytorch_lightning"):  # which mlflow.pytorch imports then, and that torchvision
        import gitdist.torchvision_cpu  # noqa: F401
    import mlflow.pytorch  # slow to import

    # MLflow warns of its own type hints.
    with disk_errors(directory), warnings.catch_warnings(action="ignore"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch = directory.with_name(f".{directory.name}")
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed process
        try:
            mlflow.pytorch.save_model(
                model.module,
                scratch,
                signature=_signature(model),
                input_example=model.example.numpy(),
                pip_requirements=[f"mlflow=={mlflow_version}", f"torch=={torch.__version__.partition('+')[0]}"],
                metadata=model.metadata,
                serialization_format="pt2",
            )
            scratch.rename(directory)
        except OSError:
            raise
        except Exception as error:  # the network's own code, while it is traced, may raise anything
            raise SpecError(
                f"MLflow must be able to save trial.network {model.spec.network}, but cannot: {first_line(error)}; "
                "set tracking.models to false, or change the network's code"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def log_model(client: MlflowClient, run_id: str, directory: Path, tags: Mapping[str, str]) -> str:
    """Log the model in a directory to a run unless the run has it, and return its id."""
    run = client.get_run(run_id)
    found = _logged_models(client, run.info.experiment_id, run_id)
    logged = found[0] if found else client.create_logged_model(run.info.experiment_id, _NAME, run_id, dict(tags))
    model_id = str(logged.model_id)
    if not is_logged(client, model_id):
        outputs = run.outputs.model_outputs if run.outputs else []
        if all(output.model_id != model_id for output in outputs):
            client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        client.log_model_artifacts(model_id, str(directory))
        with tempfile.TemporaryDirectory(prefix="gitdist-mlflow-") as scratch:
            described = Model.load(directory)  # it was saved before the run was known
            described.run_id, described.model_id, described.model_uuid = run_id, model_id, model_id
            described.artifact_path = logged.artifact_location
            file = Path(scratch) / _MLMODEL
            described.save(file)
            client.log_model_artifact(model_id, str(file))
        client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    return model_id


def is_logged(client: MlflowClient, model_id: str) -> bool:
    """Return whether a model that was logged still has its files."""
    try:
        logged = client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False
    files = client.list_logged_model_artifacts(model_id) if logged.status == LoggedModelStatus.READY else []
    return any(file.path == _MLMODEL for file in files)


def register_model(client: MlflowClient, name: str, run_id: str, model_id: str) -> None:
    """Register a logged model as a version of the registered model ``name`` unless one is of the same run."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        client.create_registered_model(name)
    if all(version.name != name for version in client.search_model_versions(f"run_id = '{run_id}'")):
        source = client.get_logged_model(model_id).artifact_location
        client.create_model_version(name, source, run_id, model_id=model_id)


def _logged_models(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """Return the logged models of a run, the complete ones first."""
    query = f"source_run_id = '{run_id}' AND name = '{_NAME}'"
    found = client.search_logged_models([experiment_id], query)
    return sorted(found, key=lambda model: (model.status != LoggedModelStatus.READY, model.creation_timestamp))


def _signature(model: TrainedModel) -> ModelSignature:
    images: Any = TensorSpec(np.dtype(np.uint8), (-1, *model.image_shape))
    probabilities: Any = TensorSpec(np.dtype(np.float32), (-1, len(model.class_names)))
    return ModelSignature(inputs=Schema([images]), outputs=Schema([probabilities]))
