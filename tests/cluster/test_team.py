import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.templates import CLUSTER, document, is_pinned
from tests.postgresql import PostgresqlServer, postgresql_server

TEAM = CLUSTER / "team"
FIELDS = {  # of a service, those of the Compose specification that the stack may use
    "cap_drop",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "restart",
    "secrets",
    "security_opt",
    "volumes",
}
Stack = dict[str, Any]


def image_is_named(image: str) -> bool:
    """Whether an image is pinned, or must be given by who starts the stack."""
    return is_pinned(image) or bool(re.fullmatch(r"\$\{\w+:\?[^}]+\}", image))


def complaints(stack: Stack) -> list[str]:
    services = stack["services"].values()
    named = {volume.split(":")[0] for service in services for volume in service["volumes"]}
    used = {secret for service in services for secret in service.get("secrets", [])}
    rules = {
        "unknown field": set(stack) == {"name", "services", "secrets", "volumes"}
        and all(set(service) <= FIELDS for service in services),
        "image not pinned": all(image_is_named(service["image"]) for service in services),
        "open to the network": all(
            port.startswith("${TEAM_ADDRESS:-127.0.0.1}:") for service in services for port in service["ports"]
        ),
        "a password in the file": not any(
            re.search(r"(?i)password", key) and not str(value).startswith("/run/secrets/")
            for service in services
            for key, value in service.get("environment", {}).items()
        ),
        "secrets are not files of the user": used == set(stack["secrets"])
        and all(
            set(secret) == {"file"} and secret["file"].startswith("./secrets/") for secret in stack["secrets"].values()
        ),
        "health unknown": all(service.get("healthcheck", {}).get("test") for service in services),
        "data goes with the container": {name for name in named if not name.startswith("./")} == set(stack["volumes"]),
        "gains privileges": all("no-new-privileges:true" in service.get("security_opt", []) for service in services),
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_the_stack_keeps_its_rules() -> None:
    assert complaints(document("team/compose.yaml")) == []
    assert "cluster/team/secrets/" in (CLUSTER.parent / ".gitignore").read_text().splitlines()


BREAKS: dict[str, Callable[[Stack], object]] = {
    "unknown field": lambda stack: stack["services"]["mlflow"].update(healtcheck={}),
    "image not pinned": lambda stack: stack["services"]["postgres"].update(image="postgres:latest"),
    "open to the network": lambda stack: stack["services"]["mlflow"].update(ports=["5000:5000"]),
    "a password in the file": lambda stack: stack["services"]["postgres"]["environment"].update(POSTGRES_PASSWORD="x"),
    "secrets are not files of the user": lambda stack: stack["secrets"].update(ledger_password={"environment": "PW"}),
    "health unknown": lambda stack: stack["services"]["mlflow"].pop("healthcheck"),
    "data goes with the container": lambda stack: stack["volumes"].pop("postgres"),
    "gains privileges": lambda stack: stack["services"]["postgres"].pop("security_opt"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_stack_that_breaks_a_rule_is_told(rule: str) -> None:
    stack = document("team/compose.yaml")
    BREAKS[rule](stack)
    assert complaints(stack) == [rule]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_compose_accepts_the_stack_and_asks_for_the_image() -> None:
    command = ["docker-compose", "--file", str(TEAM / "compose.yaml"), "config", "--quiet"]
    named = os.environ | {"GITDIST_IMAGE": "registry/gitdist:0.5.0"}
    assert subprocess.run(command, env=named).returncode == 0
    missing = {key: value for key, value in os.environ.items() if key != "GITDIST_IMAGE"}
    assert subprocess.run(command, env=missing, capture_output=True).returncode != 0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with postgresql_server(host_auth="scram-sha-256") as server:
        yield server


def make_databases(server: PostgresqlServer, secrets: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as the image's entrypoint does: on the socket, where the superuser is trusted."""
    place = {
        "PGHOST": str(server.directory),
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "SECRETS": str(secrets),
    }
    return subprocess.run([TEAM / "databases.sh"], env=os.environ | place, capture_output=True, text=True)


def test_no_database_is_made_without_its_password(server: PostgresqlServer, tmp_path: Path) -> None:
    (tmp_path / "ledger_password").touch()
    made = make_databases(server, tmp_path)
    assert made.returncode == 1 and "ledger_password must be a file that is not empty" in made.stderr


def test_each_database_opens_to_its_user_with_the_password_alone(server: PostgresqlServer, tmp_path: Path) -> None:
    import psycopg

    passwords = {"ledger": 'it\'s; DROP \\ "quoted" $HOME', "mlflow": "another"}
    for name, password in passwords.items():
        (tmp_path / f"{name}_password").write_text(password + "\n")
    made = make_databases(server, tmp_path)
    assert made.returncode == 0, made.stderr

    def opens(user: str, database: str, password: str) -> bool:
        place = {"host": "127.0.0.1", "port": server.port, "connect_timeout": 10}
        try:
            with psycopg.connect(user=user, dbname=database, password=password, **place) as connection:
                connection.execute("CREATE TABLE mine (x int)")
                connection.rollback()
        except psycopg.OperationalError:
            return False
        return True

    assert opens("ledger", "ledger", passwords["ledger"]) and opens("mlflow", "mlflow", passwords["mlflow"])
    assert not opens("ledger", "ledger", "wrong") and not opens("ledger", "mlflow", passwords["ledger"])
