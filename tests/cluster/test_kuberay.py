import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gitdist.spec.file import load_study
from tests.cluster.templates import CLUSTER, document, documents, is_pinned

KUBERNETES = "1.33"
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay.schema.yaml").read_text())
Manifest = dict[str, Any]


def cluster_spec() -> Manifest:
    return document("kuberay/cluster.yaml")["spec"]


def pods(cluster: Manifest) -> dict[str, Manifest]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    templates = [group["template"]["spec"] for group in groups]
    return {pod["containers"][0]["name"]: pod for pod in templates}


def all_pods() -> dict[str, Manifest]:
    job = document("kuberay/job.yaml")["spec"]
    return pods(cluster_spec()) | pods(
        {"headGroupSpec": {"template": job["submitterPodTemplate"]}, "workerGroupSpecs": []}
    )


def pod_complaints(pod: Manifest) -> list[str]:
    """What breaks the restricted pod security standard, or our rules of resources and images."""
    whole = pod.get("securityContext", {})
    found = []
    if not whole.get("runAsNonRoot") or not whole.get("runAsUser"):
        found.append("runs as root")
    if whole.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("no seccomp profile")
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("shares the host's namespaces")
    for container in pod["containers"]:
        found += container_complaints(container)
    return found


def container_complaints(container: Manifest) -> list[str]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    rules = {
        "gains privileges": context.get("allowPrivilegeEscalation") is False and not context.get("privileged"),
        "keeps capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "requests are not limits": bool(resources.get("requests"))
        and resources.get("requests") == resources.get("limits"),
        "image not pinned": is_pinned(container["image"]),
        "a secret in the open": all("value" not in one for one in container.get("env", []) if "TOKEN" in one["name"]),
    }
    return [rule for rule, holds in rules.items() if not holds]


@pytest.mark.parametrize("manifest", documents("kuberay/base.yaml"), ids=lambda manifest: manifest["kind"])
def test_kubernetes_accepts_what_the_cluster_stands_on(manifest: Manifest) -> None:
    assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES


@pytest.mark.parametrize("name", ["kuberay/cluster.yaml", "kuberay/job.yaml"])
def test_kuberay_accepts_the_fields(name: str) -> None:
    jsonschema.validate(document(name), SCHEMA)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(enableInTreeAutoscalling=True),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),  # KubeRay wants text
        lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda spec: spec["authOptions"].update(mode="password"),
    ],
)
def test_kuberay_would_refuse_other_fields(spoil: Callable[[Manifest], object]) -> None:
    manifest = document("kuberay/cluster.yaml")
    spoil(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "ray-job-submitter"])
def test_each_pod_is_valid_and_unprivileged(name: str) -> None:
    pod = all_pods()[name]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
    assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES
    assert pod_complaints(pod) == []


BREAKS: dict[str, Callable[[Manifest, Manifest], object]] = {
    "runs as root": lambda pod, container: pod["securityContext"].pop("runAsNonRoot"),
    "no seccomp profile": lambda pod, container: pod["securityContext"].pop("seccompProfile"),
    "shares the host's namespaces": lambda pod, container: pod.update(hostNetwork=True),
    "gains privileges": lambda pod, container: container.pop("securityContext"),
    "keeps capabilities": lambda pod, container: container["securityContext"].pop("capabilities"),
    "requests are not limits": lambda pod, container: container["resources"]["limits"].pop("memory"),
    "image not pinned": lambda pod, container: container.update(image="registry:5000/gitdist"),
    "a secret in the open": lambda pod, container: container.update(env=[{"name": "RAY_AUTH_TOKEN", "value": "x"}]),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_pod_that_breaks_a_rule_is_told(rule: str) -> None:
    pod = all_pods()["ray-worker"]
    BREAKS[rule](pod, pod["containers"][0])
    assert rule in pod_complaints(pod)


def test_the_cluster_is_guarded_and_grows_from_nothing() -> None:
    spec = cluster_spec()
    assert (
        spec["authOptions"] == {"mode": "token"}
        and f"ray=={spec['rayVersion']}" in (CLUSTER / "constraints.txt").read_text().splitlines()
    )
    assert spec["enableInTreeAutoscaling"] and spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP" and "0.0.0.0" not in json.dumps(spec)
    assert container_complaints({"image": "autoscaler:1.0", **spec["autoscalerOptions"]}) == []
    (group,) = spec["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_a_job_has_the_cluster_of_its_own_that_the_other_file_describes() -> None:
    assert document("kuberay/job.yaml")["spec"]["rayClusterSpec"] == cluster_spec()


def test_results_and_ports_are_the_namespaces_own() -> None:
    namespace, claim, policy = documents("kuberay/base.yaml")
    manifests = [claim, policy, document("kuberay/cluster.yaml"), document("kuberay/job.yaml")]
    assert {one["metadata"]["namespace"] for one in manifests} == {namespace["metadata"]["name"]}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("ray-head", "ray-worker"):
        pod = all_pods()[name]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "results"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {"name": "results", "mountPath": "/results"} in pod["containers"][0]["volumeMounts"]
    own, operator = policy["spec"]["ingress"]
    assert policy["spec"]["podSelector"] == {} and own == {"from": [{"podSelector": {}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}] and "namespaceSelector" in operator["from"][0]


def test_the_job_runs_a_command_that_gitdist_understands() -> None:
    words = shlex.split(document("kuberay/job.yaml")["spec"]["entrypoint"])
    assert words[:5] == ["gitdist", "run", "/studies/study.yaml", "--results", "/results"]
    overrides = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    study = load_study(CLUSTER.parent / "studies" / "cifar10_lt.yaml", overrides)
    assert study.resources.autoscaling and study.resources.max_concurrent == 16
    worker = all_pods()["ray-worker"]["containers"][0]["resources"]["limits"]
    for share in (study.resources.server, study.resources.trial, study.resources.training):
        assert share.cpu <= float(worker["cpu"]) and share.num_gpus <= float(worker["nvidia.com/gpu"])
