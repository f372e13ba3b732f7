"""Relative paths of a study file: of the file's directory, or of the shell's in an override."""

import os
from pathlib import Path

import pytest
import yaml

from gitdist.errors import SpecError
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import load_plan, load_study, override_plan

STUDY = {
    "name": "paths",
    "data": {"source": "npz", "path": "arrays", "nuisance": "none"},
    "generator": {"kind": "pretrained", "path": "../munit.safetensors"},
    "store": {"uri": "shared/store"},
    "tracking": {"uri": "sqlite:///mlflow/runs.db?timeout=3"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """The study file's directory; the shell is in another one."""
    folder, shell = tmp_path / "files" / "studies", tmp_path / "shell"
    folder.mkdir(parents=True)
    shell.mkdir()
    monkeypatch.chdir(shell)
    return folder


def write(folder: Path, **fields) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **fields}))
    return file


PRETRAINED = {
    "trial": {"network": "timm:test_vit", "pretrained": "vit.pth"},
    "methods": {"scratch": {"pretrained": False}, "tuned": {"pretrained": "other.pth"}},
    "search": {
        "space": {"pretrained": {"choice": [False, "third.pth"]}},
        "try_first": [{"pretrained": "third.pth"}],
    },
}


def pretrained_of(spec) -> list[bool | str]:
    search = spec.search
    return [
        spec.trial.pretrained,
        *(fields["pretrained"] for fields in spec.methods.values()),
        *search.space["pretrained"].choice,
        *(point["pretrained"] for point in search.try_first),
    ]


def test_paths_of_pretrained_weights_are_absolute_wherever_they_are_named(folder):
    own, shell = f"{folder}/", f"{Path.cwd()}/"
    names = ["vit.pth", False, "other.pth", False, "third.pth", "third.pth"]
    wanted = [name and own + name for name in names]
    spec = load_study(write(folder, **PRETRAINED))
    assert pretrained_of(spec) == wanted
    assert pretrained_of(override_plan(spec, ["title=again"])) == wanted
    overridden = [
        "trial.pretrained=~/home.pth",
        "methods.tuned.pretrained=other.pth",
        "search={space: {pretrained: {choice: [third.pth]}}, try_first: [{pretrained: third.pth}]}",
    ]
    wanted = [os.path.expanduser("~/home.pth"), False, *(shell + name for name in names[2:] if name)]
    assert pretrained_of(load_study(write(folder, **PRETRAINED), overridden)) == wanted
    plan = load_plan(write(folder, **PRETRAINED, matrix={"trial.pretrained": ["a.pth", "b.pth"]}))
    assert isinstance(plan, Campaign)
    assert [member.spec.trial.pretrained for member in plan.members] == [f"{own}a.pth", f"{own}b.pth"]
    assert [member.spec.name for member in plan.members] == ["paths.a-pth", "paths.b-pth"]


def test_a_field_can_depend_on_a_file_of_pretrained_weights(folder):
    frozen = {"choice": [0, 1], "when": {"pretrained": "vit.pth"}}
    space = {"pretrained": {"choice": [False, "vit.pth"]}, "freeze_backbone_epochs": frozen}
    found = load_study(write(folder, search={"space": space})).search.space
    assert found["freeze_backbone_epochs"].when == {"pretrained": (f"{folder}/vit.pth",)}


def paths_of(spec) -> list[str | None]:
    return [spec.data.path, spec.generator.path, spec.store.uri, spec.tracking.uri]


def test_relative_paths_in_a_study_file_are_relative_to_the_file(folder):
    wanted = [
        f"{folder}/arrays",
        f"{folder.parent}/munit.safetensors",
        f"{folder}/shared/store",
        f"sqlite:///{folder}/mlflow/runs.db?timeout=3",
    ]
    file = write(folder)
    assert paths_of(load_study(file)) == wanted
    assert paths_of(load_study(Path(os.path.relpath(file)))) == wanted


def test_relative_paths_of_set_are_relative_to_the_shell(folder):
    shell = Path.cwd()
    overrides = ["data.path=arrays", "generator={kind: pretrained, path: ./m.st}", "store={uri: shared}"]
    overrides += ["tracking.uri=sqlite:///m.db"]
    wanted = [f"{shell}/arrays", f"{shell}/m.st", f"{shell}/shared", f"sqlite:///{shell}/m.db"]
    assert paths_of(load_study(write(folder), overrides)) == wanted
    assert paths_of(override_plan(load_study(write(folder)), overrides)) == wanted


def test_absolute_paths_uris_and_the_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    file = write(
        folder,
        data={"source": "npz", "path": "~/arrays"},
        generator={"kind": "pretrained", "path": "/data/munit.safetensors"},
        store={"uri": "s3://bucket/store"},
        tracking={"uri": "http://127.0.0.1:5000"},
    )
    wanted = ["/home/somebody/arrays", "/data/munit.safetensors", "s3://bucket/store", "http://127.0.0.1:5000"]
    assert paths_of(load_study(file)) == wanted
    file = write(folder, data={}, tracking={"uri": "sqlite:////data/m.db"}, store={"uri": "file:///data/store"})
    spec = load_study(file)
    assert (spec.data.path, spec.tracking.uri, spec.store.uri) == (
        None,
        "sqlite:////data/m.db",
        "file:///data/store",
    )
    with pytest.raises(SpecError, match=r"data\.path.*~nobody-here"):
        load_study(write(folder, data={"source": "npz", "path": "~nobody-here/x"}))


def test_paths_in_scales_and_matrices_are_relative_to_the_file_and_names_stay(folder):
    file = write(
        folder,
        matrix={"data.path": ["one", "sub/two"], "draws": {"mine": {"generator.path": "mine.st"}, "other": {}}},
        scale={"small": {"store.uri": "small-store"}, "paper": {"store": {"uri": "paper-store"}}},
    )
    plan = load_plan(file, scale="paper")
    assert isinstance(plan, Campaign)
    found = {member.spec.name: (member.spec.data.path, member.spec.generator.path) for member in plan.members}
    mine, other = f"{folder}/mine.st", f"{folder.parent}/munit.safetensors"
    assert found == {
        "paths-paper.one.mine": (f"{folder}/one", mine),
        "paths-paper.one.other": (f"{folder}/one", other),
        "paths-paper.sub-two.mine": (f"{folder}/sub/two", mine),
        "paths-paper.sub-two.other": (f"{folder}/sub/two", other),
    }
    assert {member.labels["data.path"] for member in plan.members} == {"one", "sub/two"}
    assert {member.spec.store.uri for member in plan.members} == {f"{folder}/paper-store"}
    one = load_plan(file, [f"data.path={os.path.relpath(folder / 'one')}", "draws=mine"], scale="small")
    assert [member.spec.name for member in one.members] == ["paths-small.one.mine"]
    assert one.members[0].spec.data.path == f"{folder}/one"


def test_lists_and_tables_are_relative_to_the_file_too(folder):
    lists = {"train": "a.txt", "validation": "../b.txt", "test": "/c.txt", "classes": "~/d.txt"}
    data = load_study(write(folder, data={"source": "list", "path": ".", **lists})).data
    found = (data.path, data.train, data.validation, data.test, data.classes)
    assert found == (
        str(folder),
        f"{folder}/a.txt",
        f"{folder.parent}/b.txt",
        "/c.txt",
        str(Path("~/d.txt").expanduser()),
    )
    assert load_study(write(folder, data={"source": "csv", "table": "t.csv"})).data.table == f"{folder}/t.csv"
    assert load_study(write(folder, data={"validation": 0.3})).data.validation == 0.3
