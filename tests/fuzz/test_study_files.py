"""Study files made from the schema of a study, and then changed at random: accepted, or refused in one plain line.

What is accepted is checked against the domains below, which do not come from the schema, and against the file as plain
YAML: no key is there twice, and nothing that looks like a number is read as text or as true or false.
"""

import datetime
import math
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from gitdist.spec import StudySpec
from gitdist.spec.file import dump_study, load_study, parse_study
from gitdist.spec.strict_yaml import load_yaml
from tests.fuzz.commands import check_command, check_inputs

# Domains of the numbers of a study, by field: (lowest, highest, whether it is whole, what it must not be).
WHOLE, REAL = True, False
SEED = (-(2**63), 2**63 - 1, WHOLE)
DOMAINS: dict[str, tuple[float, float, bool] | tuple[float, float, bool, float]] = {
    "seed": SEED,
    "data.profile.largest": (1, 1e9, WHOLE),
    "data.profile.smallest": (1, 1e9, WHOLE),
    "data.profile.exponent": (0, 20, REAL, 0),
    "data.profile.factor": (0, 1, REAL, 0),
    "data.profile.minority": (0, 1, REAL),
    "data.image_size": (8, 4096, WHOLE),
    "data.test_share": (0, 0.9999999999, REAL, 0),
    "data.version": (0, 2**63 - 1, WHOLE),
    "data.validation": (0, 0.9999999999, REAL, 0),
    "data.validation_per_class": (1, 1e9, WHOLE),
    "data.groups.many": (0, 1e9, WHOLE),
    "data.groups.few": (0, 1e9, WHOLE),
    "generator.image_size": (8, 4096, WHOLE),
    "generator.dim": (1, 8192, WHOLE),
    "generator.mlp_dim": (1, 8192, WHOLE),
    "generator.style_dim": (1, 8192, WHOLE),
    "generator.num_downsample": (0, 10, WHOLE),
    "generator.num_res": (1, 100, WHOLE),
    "generator.discriminator_dim": (1, 8192, WHOLE),
    "generator.discriminator_layers": (1, 10, WHOLE),
    "generator.steps": (1, 1e9, WHOLE),
    "generator.batch_size": (1, 65536, WHOLE),
    "generator.lr": (0, 3.4e38, REAL, 0),
    "generator.lr_halved_every": (1, 1e9, WHOLE),
    "generator.weight_decay": (0, 100, REAL),
    "generator.gan_weight": (0, 1e6, REAL),
    "generator.image_weight": (0, 1e6, REAL),
    "generator.style_weight": (0, 1e6, REAL),
    "generator.content_weight": (0, 1e6, REAL),
    "generator.randaugment_ops": (0, 100, WHOLE),
    "generator.randaugment_magnitude": (0, 30, WHOLE),
    "generator.mixup_alpha": (0, 1000, REAL),
    "generator.checkpoint_every": (1, 1e9, WHOLE),
    "generator.seed": SEED,
    "generator.ops": (1, 100, WHOLE),
    "generator.magnitude": (0, 30, WHOLE),
    "stream.block_size": (1, 65536, WHOLE),
    "stream.lookahead": (1, 1000, WHOLE),
    "stream.window_mb": (1, 1e7, WHOLE),
    "stream.seed": SEED,
    "trial.normalize.mean.*": (0, 1, REAL),
    "trial.normalize.std.*": (1e-6, 1, REAL),
    "trial.threshold": (0, 1e9, REAL, 0),
    "trial.fraction": (0, 1, REAL),
    "trial.epochs": (1, 1e6, WHOLE),
    "trial.switch_epoch": (0, 1e6, WHOLE),
    "trial.batch_size": (1, 1048576, WHOLE),
    "trial.accumulate": (1, 1048576, WHOLE),
    "trial.lr": (0, 3.4e38, REAL, 0),
    "trial.head_lr": (0, 10_000, REAL, 0),
    "trial.lr_warmup_epochs": (0, 1e6, WHOLE),
    "trial.lr_milestones.*": (1, 1e6, WHOLE),
    "trial.lr_decay": (0, 1, REAL, 0),
    "trial.momentum": (0, 1, REAL),
    "trial.weight_decay": (0, 100, REAL),
    "trial.clip_norm": (0, 1e9, REAL),
    "trial.lora_rank": (1, 8192, WHOLE),
    "trial.lora_alpha": (0, 10_000, REAL, 0),
    "trial.freeze_backbone_epochs": (0, 1e6, WHOLE),
    "trial.label_smoothing": (0, 0.99999999999, REAL),
    "trial.ldam_margin": (0, 1000, REAL, 0),
    "trial.ldam_scale": (0, 10_000, REAL, 0),
    "trial.focal_gamma": (0, 100, REAL),
    "trial.logit_tau": (0, 100, REAL),
    "trial.effective_beta": (0, 0.99999999999, REAL, 0),
    "trial.crop_padding": (0, 1024, WHOLE),
    "trial.random_resized_crop": (0, 1, REAL),
    "trial.color_jitter": (0, 1, REAL),
    "trial.randaugment_ops": (0, 100, WHOLE),
    "trial.randaugment_magnitude": (0, 30, WHOLE),
    "trial.mixup_alpha": (0, 1000, REAL),
    "trial.cutmix_alpha": (0, 1000, REAL),
    "trial.ema_decay": (0, 0.99999999999, REAL),
    "trial.seed": SEED,
    "search.total": (0, 1e5, WHOLE),
    "search.replicates": (1, 100, WHOLE),
    "search.startup": (1, 1e5, WHOLE),
    "search.constraints.*.limit": (0, 1e9, REAL),
    "search.max_hours": (0, 1e6, REAL, 0),
    "search.patience": (1, 1e5, WHOLE),
    "search.target": (0, 1e9, REAL),
    "search.space.*.step": (0, 2**63, REAL, 0),
    "search.space.*.points": (1, 10_000, WHOLE),
    "search.pruner.min_epochs": (1, 1e6, WHOLE),
    "search.pruner.reduction_factor": (2, 1000, WHOLE),
    "search.pruner.startup": (1, 1e5, WHOLE),
    "search.pruner.percentile": (0, 100, REAL),
    "search.pruner.patience": (0, 1e6, WHOLE),
    "search.pruner.lower": (-1e9, 1e9, REAL),
    "search.pruner.upper": (-1e9, 1e9, REAL),
    "search.lag": (1, 1e5, WHOLE),
    "search.seed": SEED,
    "evaluation.epoch_images_per_class": (1, 1e5, WHOLE),
    "evaluation.epoch_transformations": (1, 1e5, WHOLE),
    "evaluation.final_images_per_class": (1, 1e5, WHOLE),
    "evaluation.final_transformations": (1, 1e5, WHOLE),
    "evaluation.every": (1, 1e6, WHOLE),
    "evaluation.seed": SEED,
    "store.max_gb": (0, 1e9, REAL, 0),
    "resources.servers": (1, 1000, WHOLE),
    "resources.*.cpu": (0.0001, 10_000, REAL),
    "resources.*.gpu": (0, 1000, REAL),
    "resources.trial.dataset_gb": (0, 1_000_000, REAL),
    "resources.max_concurrent": (1, 10_000, WHOLE),
}
SCHEMA = StudySpec.model_json_schema()
SOURCES = ["digits", "images", "npz", "list", "csv"]  # the others are downloaded, or large
TEXTS = [
    "",
    "a",
    "none",
    "auto",
    "yes",
    "1e-3",
    "0x10",
    "5",
    "a b",
    "é",
    "a\nb",
    "a\tb",
    "~",
    ".inf",
    "folder",
    "x" * 300,
]
WEIRD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    -0.0,
    1,
    3.5,
    1e-320,
    1e308,
    10**30,
    2**63,
    [],
    {},
    [[]],
    [1, 1],
    {"a": 1},
]
WEIRD += [math.nan, math.inf, -math.inf, "\0", "\ud800", datetime.date(2024, 1, 31), b"\xff", {1: 2}, {True: None}]
TOKENS = [
    "1e-3",
    "010",
    "1:30",
    "0x1F",
    "1_000",
    "2024-13-45",
    "yes",
    ".inf",
    "-.nan",
    "1e999",
    "9" * 5000,
    "!!python/none",
]
TOKENS += [
    "&a [*a]",
    "*b",
    "{<<: 5}",
    "[" * 200,
    "{a: 1, a: 2}",
    '"\\0"',
    "? [a]",
    "\t",
    "\x00",
    "\x85",
    "\ufeff",
    "---",
    "...",
]
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class StudyFile:
    """What is in a file, and the overrides of the command."""

    content: bytes
    overrides: tuple[str, ...]


def schema_values(schema: dict[str, Any], name: str = "") -> st.SearchStrategy[Any]:
    """Return values that a schema allows, though not always a whole study."""
    if "$ref" in schema:
        return schema_values(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], name)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return st.one_of([schema_values(each, name) for each in schema[union]])
    if name == "source":
        return st.sampled_from(SOURCES)
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "integer":
            low, high = schema.get("minimum", -(10**6)), schema.get("maximum", 10**6)
            return st.integers(low, min(high, low + 60)) | st.sampled_from([low, high]) | st.integers(low, high)
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            high = schema.get("maximum", schema.get("exclusiveMaximum", 10))
            return st.floats(low, high) | st.sampled_from([low, high, (low + high) / 2])
        case "string":
            return st.sampled_from(TEXTS)
        case "array" if "prefixItems" in schema:
            return st.tuples(*(schema_values(each) for each in schema["prefixItems"])).map(list)
        case "array":
            return st.lists(schema_values(schema["items"]), max_size=3)
        case "object" if "properties" in schema:
            parts = {key: schema_values(each, key) for key, each in schema["properties"].items()}
            return st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True).flatmap(
                lambda keys: st.fixed_dictionaries({key: parts[key] for key in keys})
            )
        case "object":
            keys = st.sampled_from([*SCHEMA["$defs"]["TrialSpec"]["properties"], "method", "a"])
            inner = schema.get("additionalProperties", True)
            return st.dictionaries(keys, schema_values(inner if isinstance(inner, dict) else {}), max_size=2)
        case _:
            return st.sampled_from([*TEXTS, *WEIRD])


STUDIES = schema_values(SCHEMA)


@st.composite
def study_files(draw: st.DrawFn) -> StudyFile:
    """Return a study file with at most a few mistakes."""
    values = {**deepcopy(draw(STUDIES)), "name": "fuzz"}
    for _ in range(draw(st.integers(0, 2))):
        _change(draw, values)
    text = yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True, default_flow_style=draw(st.sampled_from([None, True]))
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        text = _change_text(draw, text)
    content = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 30)) == 0:
        content = draw(st.sampled_from([b"\xef\xbb\xbf" + content, content + b"\xff", text[:99].encode("utf-16"), b""]))
    fields = draw(st.lists(st.sampled_from(sorted(DOMAINS)), max_size=draw(st.sampled_from([0, 0, 2]))))
    tokens = [draw(st.sampled_from([*TOKENS, "1", "2.5", "a", ""])) for _ in fields]
    overrides = tuple(f"{field.replace('*', 'trial')}={token}" for field, token in zip(fields, tokens, strict=True))
    return StudyFile(content, tuple(each for each in overrides if "\0" not in each))


def _change(draw: st.DrawFn, values: dict[str, Any]) -> None:
    """Change one value, or the name of one, somewhere in the values."""
    parents = [part for part in _parts(values) if part]
    parent = draw(st.sampled_from(parents))
    key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
    if isinstance(parent, dict) and draw(st.booleans()):
        new = draw(
            st.sampled_from([f"{key}s", str(key).upper(), str(key)[1:], "", 1, None, True, 1.5, "a.b", "\u2028"])
        )
        parent[new] = parent.pop(key)
    else:
        parent[key] = deepcopy(draw(st.sampled_from([*WEIRD, *TEXTS])))


def _parts(values: Any) -> Iterator[Any]:
    """Yield all mappings and lists in the values."""
    if isinstance(values, dict | list):
        yield values
        for inner in values.values() if isinstance(values, dict) else values:
            yield from _parts(inner)


def _change_text(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True)
    line = draw(st.integers(0, len(lines) - 1)) if lines else 0
    spot = draw(st.integers(0, len(text)))
    match draw(st.sampled_from(["repeat", "replace", "insert", "cut", "tab", "append"])):
        case "repeat":
            return "".join([*lines, *lines[line : line + 1]])
        case "replace":
            scalars = list(re.finditer(r"[\w.]+", text)) or [re.match("", text)]
            found = draw(st.sampled_from(scalars))
            return text[: found.start()] + draw(st.sampled_from(TOKENS)) + text[found.end() :]
        case "insert":
            return (
                text[:spot]
                + draw(st.sampled_from([*TOKENS, ":", "-", "{", "]", '"', "'", "#", "&", "|\n"]))
                + text[spot:]
            )
        case "cut":
            return text[:spot] + text[spot + draw(st.integers(1, 20)) :]
        case "tab":
            return "".join([*lines[:line], "\t", *lines[line:]])
        case _:
            return text + draw(
                st.sampled_from(["---\na: 1\n", "...\nb", "a: &a {b: 1}\nc: {<<: *a}\n", "trial: {}\n", "- a\n"])
            )


def domain_of(path: tuple[str, ...]) -> str | None:
    """Return the entry of the table for a field."""
    for name in DOMAINS:
        parts = name.split(".")
        if len(parts) == len(path) and all(part in ("*", own) for part, own in zip(parts, path, strict=True)):
            return name
    return None


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path."""
    if isinstance(values, dict):
        for name, inner in values.items():
            yield from leaves(inner, (*path, str(name)))
    elif isinstance(values, list):
        for inner in values:
            yield from leaves(inner, (*path, "*"))
    else:
        yield path, values


def check_domains(values: Any) -> None:
    """Raise AssertionError if a number of a study is outside its domain."""
    for path, value in leaves(values):
        if isinstance(value, float):
            assert math.isfinite(value), f"{path} is {value}"
        name = domain_of(path)
        if name is None or value in (None, "auto"):
            continue
        low, high, is_whole, *others = DOMAINS[name]
        assert isinstance(value, int | float) and not isinstance(value, bool), f"{path} is {value!r}"
        assert low <= value <= high and value not in others, f"{path} is {value!r}"
        assert not is_whole or value == int(value), f"{path} is {value!r}"


def check_text(content: bytes) -> None:
    """Raise AssertionError if an accepted file has a key twice, or a number that is not read as one."""
    values = load_yaml(content.decode("utf-8-sig"))
    texts = {value for _, value in leaves(values) if isinstance(value, str)}
    quoted: set[str] = set()
    for token in yaml.scan(content.decode("utf-8-sig")):
        if isinstance(token, yaml.ScalarToken):
            if token.plain:
                assert not NUMBER.fullmatch(token.value) or token.value not in texts - quoted, token.value
            else:
                quoted.add(token.value)
    nodes = [yaml.compose(content.decode("utf-8-sig"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(set(keys)) == len(keys), keys
            nodes += [inner for _, inner in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def test_a_study_file_is_accepted_or_refused_in_one_line(folder):
    accepted = 0

    def check(study: StudyFile) -> None:
        nonlocal accepted
        (folder / "study.yaml").write_bytes(study.content)
        sets = [part for override in study.overrides for part in ("--set", override)]
        done = check_command("data", "stats", "study.yaml", *sets, cwd=folder)
        if done.code == 0:
            accepted += 1
            spec = load_study(folder / "study.yaml", study.overrides)
            check_domains(spec.model_dump(mode="json", by_alias=True))
            check_text(study.content)
            assert parse_study(load_yaml(dump_study(spec)), "copy") == spec

    check_inputs(study_files(), check, number=100)
    print(f"{accepted} accepted")
    assert accepted > 10


def test_every_number_of_a_study_has_a_domain():
    numbers = set()

    def walk(schema: dict[str, Any], path: tuple[str, ...]) -> None:
        if "$ref" in schema:
            walk(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
        for union in ("anyOf", "oneOf"):
            for each in schema.get(union, ()):
                walk(each, path)
        for name, each in schema.get("properties", {}).items():
            walk(each, (*path, name))
        for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ())):
            if isinstance(inner, dict):
                walk(inner, (*path, "*"))
        bounds = {"minimum", "exclusiveMinimum"} & set(schema), {"maximum", "exclusiveMaximum"} & set(schema)
        if schema.get("type") in ("integer", "number") and path[-2:-1] not in (("choice",), ("int",), ("float",)):
            numbers.add(domain_of(path) or ".".join(path))
            assert all(bounds) or path[-1] in ("step", "*"), f"{path} has no bounds: {schema}"

    walk(SCHEMA, ())
    not_ranges = {
        "data.exclude.*",
        "search.space.*.when.*",
        "search.space.*.when.*.*",
    }  # names of classes, values of other fields
    assert numbers - not_ranges == set(DOMAINS)
