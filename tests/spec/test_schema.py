"""The JSON schema of study files accepts what ``load_plan`` accepts, and refuses what is misspelt."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gitdist.errors import SpecError
from gitdist.spec.base import Spec
from gitdist.spec.file import read_plan
from gitdist.spec.schema import study_file_schema
from gitdist.spec.strict_yaml import load_yaml

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("studies/**/*.yaml"))
SCHEMA = study_file_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def errors(values: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(values)]


def models(base: type[Spec] = Spec) -> list[type[Spec]]:
    own = [base] if base.__module__.startswith("gitdist.spec") else []
    return [*own, *(model for derived in base.__subclasses__() for model in models(derived))]


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    json.dumps(SCHEMA, allow_nan=False)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_study_files_are_accepted(file):
    assert not errors(load_yaml(file.read_text()))


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_field_has_a_description(model):
    for name, field in model.model_fields.items():
        assert field.description and len(field.description) < 500, name


ACCEPTED = [
    "matrix: null",
    "scale: null",
    "trial: {lr_milestones: null, lr: 1}",
    "data: {profile: {kind: zipf, exponent: null}}",
    "data: {source: images, path: x, exclude: [a, 3], groups: {many: 30}}",
    "search: {objective: ekld}",
    "search: {objective: [val/ekld, {metric: balanced_accuracy, direction: maximize}]}",
    "search: {objective: {ekld: minimize}, constraints: [few_accuracy >= 0.5, {metric: ekld, bound: <=, limit: 2}]}",
    "search: {algorithm: 'optuna.samplers:CmaEsSampler', pruner: {kind: 'optuna.pruners:NopPruner'}}",
    "ledger: postgresql://me@host/db",
    "trial: {epochs: 10.0, network: 'timm:vit_tiny', network_options: {a: [1, {b: null}]}}",
    "search: {space: {sampler: {choice: [instance, class-balanced]}, seed: {int: [0, 9], when: {sampler: instance}}}}",
    "search: {space: {fraction: {float: [0, 1]}}, try_first: [{fraction: 0.5}]}",
    "{methods: {a: {fraction: 0}, b: {threshold: 9}}, search: {try_first: [{method: a}]}}",
    "matrix: {data.nuisance: [background, rotation], draws: {a: {}, b: {generator: {kind: oracle}, trial.lr: 0.2}}}",
    "matrix: {replicate: {r0: {}, r1: {trial.seed: 1, data.version: 1}}}",
    "scale: {small: {trial.epochs: 3, data: {source: gtsrb}, search.space.threshold: {int: [1, 9]}}}",
    "scale: {small: {methods.a.lr: 0.1, matrix: {data.version: [0]}, generator: {kind: munit}, generator.steps: 9}}",
]
REFUSED = [
    "trials: 3",
    "trial: {epoch: 3}",
    "trial: {loss: focall}",
    "trial: {sampler: squareroot}",
    "trial: {epochs: '3'}",
    "trial: {epochs: 0}",
    "data: {source: digit}",
    "data: {profile: {kind: exponentional}}",
    "generator: {steps: 3}",
    "generator: {kind: oracle, steps: 3}",
    "generator: {kind: munitt}",
    "search: {objective: accuracy}",
    "search: {objective: {ekld: minimise}}",
    "search: {constraints: [few_accuracy > 0.5]}",
    "search: {constraints: [few >= 0.5]}",
    "search: {algorithm: tpee}",
    "search: {pruner: {kind: medium}}",
    "search: {space: {tresholds: {int: [1, 9]}}}",
    "search: {space: {threshold: {ints: [1, 9]}}}",
    "search: {space: {threshold: {int: [1, 9], when: {samplr: instance}}}}",
    "search: {try_first: [{fractoin: 0.5}]}",
    "methods: {a: {fractoin: 0}}",
    "ledger: mysql://host/db",
    "scale: {small: {trial.epoch: 3}}",
    "scale: {small: {trial.loss: focall}}",
    "matrix: {data.nuisances: [none]}",
    "matrix: {data.nuisance: [rotations]}",
    "matrix: {draws: {a: {trial.epoch: 3}}}",
    "matrix: {search.space.threshold: [{int: [1, 9]}]}",
    "matrix: {}",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_forms_of_a_file_are_accepted(text):
    values = {"name": "a", **load_yaml(text)}
    read_plan(values, Path("/"), "file")
    assert not errors(values)


@pytest.mark.parametrize("text", REFUSED)
def test_mistakes_are_refused(text):
    values = {"name": "a", **load_yaml(text)}
    with pytest.raises(SpecError):
        read_plan(values, Path("/"), "file")
    assert errors(values)
