"""The table of a study's runs in MLflow's UI: its columns, its order, and the link that opens it.

The UI (MLflow 3.17) reads the columns only from a "shared view", a tag of the experiment. The link names that tag:

    SERVER/#/experiments/ID/runs?viewStateShareKey=KEY  -->  tag mlflow.sharedViewState.KEY  -->  columns, order
"""

import json
from collections.abc import Mapping, Sequence

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from gitdist.address import without_secrets
from gitdist.spec import StudySpec

KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
"""A tag of our experiments: MLflow's UI opens them as model training, not as GenAI."""

_TAG = "mlflow.sharedViewState."
_WORKFLOW = "workflowType=machine_learning"  # else the UI's menu is that of GenAI
_KEY_DIGITS = 8  # of a study's identity
_METRICS = ("balanced_accuracy", "few_accuracy", "ekld")  # shown in addition to the objectives
_MAX_SEARCHED = 30  # searched fields that are shown
_CHARACTER_PX, _MARGIN_PX, _MIN_PX = 7, 40, 100  # width of a column
_IDENTITY = "gitdist.identity."  # first part of a tag for each study of an experiment


def table_view(spec: StudySpec) -> str:
    """Return the view of a study's runs as JSON: the best run comes first, objectives and searched fields are shown."""
    objectives = [name.removeprefix("val/") for name in spec.search.objectives]
    others = [name for name in _METRICS if name not in objectives]
    columns = [
        *(f"metrics.`{split}/{name}`" for name in objectives for split in ("val", "test")),
        *(f"params.`{name}`" for name in list(spec.search.space)[:_MAX_SEARCHED]),
        *(f"metrics.`{split}/{name}`" for name in others for split in ("val", "test")),
        "attributes.`Duration`",
    ]
    widths = {column: _width(spec, column.split("`")[1]) for column in columns}
    view = {
        "orderByKey": columns[0],
        "orderByAsc": spec.search.directions[0] == "minimize",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": widths,
    }
    return json.dumps(view)


def store_view(client: MlflowClient, experiment: Experiment, identity: str, view: str) -> None:
    """Store the view of a study's runs with its experiment.

    If other studies use the experiment too, the view has only the runs of this one.
    """
    if sum(name.startswith(_IDENTITY) for name in experiment.tags) > 1:
        view = json.dumps({**json.loads(view), "searchFilter": f"tags.`hash.identity` = '{identity}'"})
    tag = f"{_TAG}{_key(identity)}"
    if experiment.tags.get(tag) != view:
        client.set_experiment_tag(experiment.experiment_id, tag, view)


def table_link(server: str, experiment_id: str, identity: str) -> str | None:
    """Return the address of a study's runs in the UI of a store; None if the store is no server."""
    if not server.startswith(("http://", "https://")):
        return None
    return _address(server, table_page(experiment_id, identity))


def experiments_link(server: str) -> str:
    """Return the address of all experiments in the UI of a server."""
    return _address(server, f"#/experiments?{_WORKFLOW}")


def table_page(experiment_id: str, identity: str) -> str:
    """Return the address of a study's runs within MLflow's UI."""
    return _page(experiment_id, _key(identity))


def table_links(server: str, experiments: Sequence[Experiment]) -> Mapping[str, str]:
    """Return the addresses of the runs of studies, by the name of their experiment; the newest experiment first.

    The experiments of gitdist 0.5 have no identities, so they are known by MLflow's kind of experiment.
    """
    links = {}
    for experiment in sorted(experiments, key=lambda each: -(each.creation_time or 0)):
        keys = [name.removeprefix(_TAG) for name in experiment.tags if name.startswith(_TAG)]
        identities = [name.removeprefix(_IDENTITY) for name in experiment.tags if name.startswith(_IDENTITY)]
        if identities or KIND_TAG.items() <= experiment.tags.items():
            shared = [_key(identity) for identity in identities if _key(identity) in keys]
            links[experiment.name] = _address(server, _page(experiment.experiment_id, shared[-1] if shared else None))
    return links


def _width(spec: StudySpec, name: str) -> int:
    """Return the width of a column in which its name and the names of its values fit."""
    dimension = spec.search.space.get(name)
    texts = [name, *map(str, (dimension and dimension.choice) or ())]
    return max(_MIN_PX, _CHARACTER_PX * max(map(len, texts)) + _MARGIN_PX)


def _page(experiment_id: str, key: str | None) -> str:
    view = f"&viewStateShareKey={key}" if key else ""
    return f"#/experiments/{experiment_id}/runs?{_WORKFLOW}{view}"


def _address(server: str, page: str) -> str:
    return f"{without_secrets(server).rstrip('/')}/{page}"


def _key(identity: str) -> str:
    return identity[:_KEY_DIGITS]
