import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from gitdist import __version__
from tests.cluster.templates import CLUSTER, document, is_pinned

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile in order, each on one line, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def with_arguments(value: str, found: list[Instruction]) -> str:
    """``value`` with the defaults of the build's arguments."""
    defaults = dict(rest.split("=", 1) for word, rest in found if word == "ARG" and "=" in rest)
    return re.sub(r"\$\{?(\w+)\}?", lambda match: defaults.get(match[1], ""), value)


def complaints(text: str) -> list[str]:
    found = instructions(text)
    images = [rest.split()[0] for word, rest in found if word == "FROM"]
    users = [with_arguments(rest, found) for word, rest in found if word == "USER"]
    runs = [rest for word, rest in found if word == "RUN"]
    named = [rest for word, rest in found if word in ("ARG", "ENV")]
    rules = {
        "base not pinned": bool(images) and all(is_pinned(image) for image in images),
        "ends as root": bool(users) and users[-1].isdigit() and int(users[-1]) > 0,
        "ADD": not any(word == "ADD" for word, _ in found),
        "runs what it downloads": not any(re.search(r"\b(curl|wget)\b[^&;]*(\||https?:)", run) for run in runs),
        "a secret in the image": not any(
            re.search(r"(?i)(password|auth_token|api_key|secret\w*)\s*=", one) for one in named
        ),
        "packages not pinned": all("--constraint" in run for run in runs if "pip install" in run),
        "copies everything": not any(word == "COPY" and rest.split()[0] == "." for word, rest in found),
    }
    return [rule for rule, holds in rules.items() if not holds]


DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def test_the_image_keeps_its_rules() -> None:
    assert complaints(DOCKERFILE) == []
    environment = " ".join(rest for word, rest in instructions(DOCKERFILE) if word == "ENV")
    assert "RAY_AUTH_MODE=token" in environment and "HOME=/home/gitdist" in environment


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("base not pinned", "python:3.11.14-slim-bookworm\n\n", "python:latest\n\n"),
        ("ends as root", "USER $UID", "USER root"),
        ("ends as root", "ARG UID=1000", "ARG UID=0"),
        ("ADD", "COPY studies studies", "ADD https://example.org/studies.tar studies"),
        ("runs what it downloads", "COPY studies studies", "RUN wget -O- https://example.org/install | sh"),
        ("a secret in the image", "ARG UID=1000", "ARG UID=1000\nENV RAY_AUTH_TOKEN=changeme"),
        ("packages not pinned", " --constraint cluster/constraints.txt '.", " '."),
        ("copies everything", "COPY gitdist gitdist", "COPY . ."),
    ],
)
def test_an_image_that_breaks_a_rule_is_told(rule: str, old: str, new: str) -> None:
    spoilt = DOCKERFILE.replace(old, new)
    assert spoilt != DOCKERFILE and complaints(spoilt) == [rule]


def test_what_is_copied_is_what_the_build_may_see() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore
    seen = {line[1:] for line in ignore if line.startswith("!")}
    sources = [rest.split()[:-1] for word, rest in instructions(DOCKERFILE) if word == "COPY"]
    copied = {source for group in sources for source in group}
    assert copied == seen
    assert all((CLUSTER.parent / source).exists() for source in copied)


def test_every_dependency_has_one_version_that_the_project_accepts() -> None:
    lines = [line for line in (CLUSTER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines)
    project = tomllib.loads((CLUSTER.parent / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["postgresql"]
    wanted += [
        line.split("#")[0] for line in (CLUSTER / "requirements.txt").read_text().splitlines() if line[:1] != "#"
    ]
    for requirement in map(Requirement, wanted):
        assert Version(pinned[requirement.name]) in requirement.specifier, requirement


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "kuberay/cluster.yaml", "kuberay/job.yaml"])
def test_the_templates_run_the_image_of_this_version(name: str) -> None:
    images = re.findall(r"image: (\S+/gitdist:\S+)", (CLUSTER / name).read_text())
    assert images and all(image.endswith(f":{__version__}") for image in images)
    assert document(name)
