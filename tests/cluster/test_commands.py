"""The commands that run a study on a shared disk, as the README and the job have them."""

import re
import shlex

import pytest

from gitdist.spec.file import load_study
from gitdist.study.checks import mlflow_scheme
from tests.cluster.templates import CLUSTER, document

README = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
COMMANDS = [
    *re.findall(r"gitdist run \S+ --results /results.*", README),
    document("kuberay/job.yaml")["spec"]["entrypoint"],
]


def test_each_way_to_a_cluster_has_its_command() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_shared_disk_nothing_is_kept_in_sqlite(command: str) -> None:
    words = shlex.split(command)
    overrides = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    study = load_study(CLUSTER.parent / "studies" / "cifar10_lt.yaml", overrides)
    assert study.ledger == "journal" and mlflow_scheme(study.tracking.uri or "") == "http"
    assert study.resources.autoscaling and study.resources.max_concurrent == 16
