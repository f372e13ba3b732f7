import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from gitdist.spec.file import load_study
from tests.cluster.templates import CLUSTER, document, is_pinned

TEMPLATES = ["aws.yaml", "gcp.yaml"]
Config = dict[str, Any]


def commands(config: Config) -> str:
    return "\n".join([*config["head_start_ray_commands"], *config["worker_start_ray_commands"]])


def public_addresses(config: Config) -> bool:
    interfaces = [
        interface
        for kind in config["available_node_types"].values()
        for interface in kind["node_config"].get("networkInterfaces", [])
    ]
    return not config["provider"].get("use_internal_ips") or any("accessConfigs" in one for one in interfaces)


def on_spot(node_config: Config) -> bool:
    return "spot" in (
        node_config.get("InstanceMarketOptions", {}).get("MarketType"),
        node_config.get("scheduling", {}).get("provisioningModel", "").lower(),
    )


def rules(config: Config) -> dict[str, bool]:
    """Whether each of the rules that Ray itself does not have holds."""
    options, starts = config["docker"]["run_options"], config["head_start_ray_commands"]
    head, workers = config["available_node_types"]["head"], config["available_node_types"]["gpu-spot"]
    return {
        "token authentication": "--env RAY_AUTH_MODE=token" in options,
        "the token is the user's file": "--env RAY_AUTH_TOKEN_PATH=/home/gitdist/secrets/auth_token" in options
        and not any("RAY_AUTH_TOKEN=" in one for one in options)
        and set(config["file_mounts"]) == {"~/secrets"},
        "dashboard on loopback": "--dashboard-host=127.0.0.1" in starts[-1] and "0.0.0.0" not in json.dumps(config),
        "no public addresses": not public_addresses(config),
        "no trial on the head": head["resources"] == {"CPU": 0} and "--num-cpus=0" in starts[-1],
        "head on demand": not on_spot(head["node_config"]),
        "workers on spot": on_spot(workers["node_config"]),
        "nothing idle but the head": workers["min_workers"] == 0 and config["idle_timeout_minutes"] <= 15,
        "a pinned image": is_pinned(config["docker"]["image"]),
        "few privileges": "--cap-drop ALL" in options and "--security-opt no-new-privileges" in options,
        "shared results": any(one.endswith(":/results") for one in options),
    }


def complaints(config: Config) -> list[str]:
    """What breaks the rules."""
    return [rule for rule, holds in rules(config).items() if not holds]


@pytest.mark.parametrize("name", TEMPLATES)
def test_ray_accepts_the_template(name: str) -> None:
    config = prepare_config(document(name))
    validate_config(config)
    assert config["setup_commands"] == config["head_setup_commands"] == config["worker_setup_commands"] == []
    assert config["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_ray_would_refuse_a_misspelt_field(name: str) -> None:
    config = document(name)
    config["idle_timeout"] = config.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_keeps_its_own_rules(name: str) -> None:
    assert complaints(document(name)) == []


BREAKS: dict[str, Callable[[Config], object]] = {
    "token authentication": lambda c: c["docker"]["run_options"].remove("--env RAY_AUTH_MODE=token"),
    "the token is the user's file": lambda c: c["docker"]["run_options"].append("--env RAY_AUTH_TOKEN=changeme"),
    "dashboard on loopback": lambda c: c["head_start_ray_commands"].append("ray start --dashboard-host=0.0.0.0"),
    "no public addresses": lambda c: c["provider"].pop("use_internal_ips"),
    "no trial on the head": lambda c: c["available_node_types"]["head"].update(resources={"CPU": 2}),
    "head on demand": lambda c: c["available_node_types"]["head"]["node_config"].update(
        InstanceMarketOptions={"MarketType": "spot"}, scheduling={"provisioningModel": "SPOT"}
    ),
    "workers on spot": lambda c: [
        c["available_node_types"]["gpu-spot"]["node_config"].pop(key, None)
        for key in ("InstanceMarketOptions", "scheduling")
    ],
    "nothing idle but the head": lambda c: c["available_node_types"]["gpu-spot"].update(min_workers=1),
    "a pinned image": lambda c: c["docker"].update(image="registry/gitdist:latest"),
    "few privileges": lambda c: c["docker"]["run_options"].remove("--cap-drop ALL"),
    "shared results": lambda c: c["docker"]["run_options"].remove("--volume /mnt/gitdist/results:/results"),
}


def test_each_rule_is_broken_once() -> None:
    assert set(BREAKS) == set(rules(document("aws.yaml")))


@pytest.mark.parametrize("rule", BREAKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_breaks_a_rule_is_told(name: str, rule: str) -> None:
    config = document(name)
    BREAKS[rule](config)
    assert rule in complaints(config)


def test_both_templates_start_ray_alike() -> None:
    aws, gcp = (document(name) for name in TEMPLATES)
    assert commands(aws) == commands(gcp)
    assert aws["docker"]["run_options"] == gcp["docker"]["run_options"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_worker_has_room_for_what_the_gpu_study_takes(name: str) -> None:
    overrides = ["resources.autoscaling=true", "resources.max_concurrent=8"]
    resources = load_study(CLUSTER.parent / "studies" / "cifar10_lt.yaml", overrides).resources
    offered = document(name)["available_node_types"]["gpu-spot"]["resources"]
    for share in (resources.server, resources.trial, resources.training):
        assert share.cpu <= offered["CPU"] and share.num_gpus <= offered["GPU"]
