import math

import pytest
import yaml

from gitdist.spec.strict_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, YamlError, dump_yaml, load_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGE_BOMB = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1e-3, 1E5, +1e3, -.5e3, .5, 5., 0.5]", [1e-3, 1e5, 1e3, -500.0, 0.5, 5.0, 0.5]),
        ("[0, -0, 7, 1_000, 0x1F, 1_0.5]", [0, 0, 7, 1000, 31, 10.5]),
        ("[.inf, -.inf, 1e999]", [math.inf, -math.inf, math.inf]),
        ("[yes, No, on, OFF, true, null, ~, ]", [True, False, True, False, True, None, None]),
        ("['1e-3', \"010\", !!str 5]", ["1e-3", "010", "5"]),
        ("[1e, e5, 1-2, ., -, 1.2.3, 2024-01-31 and later, =]", ["1e", "e5", "1-2", ".", "-", "1.2.3"]),
        ("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("", None),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_what_looks_like_a_number_is_one(text, value):
    found = load_yaml(text)
    if isinstance(value, list):
        found = found[: len(value)]
    assert found == value
    assert repr(found) == repr(value)  # True is no 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", ["line 3", "'a'", "line 1"]),
        ("t: {lr: 1, e: 2, lr: 3}", ["line 1", "'lr'"]),
        ("a:\n  - b: 1\n    b: 1", ["line 3", "'b'"]),
        ('"a": 1\na: 1', ["line 2", "'a'"]),
        ("1: a\ntrue: b", ["line 2"]),
        ("a: {<<: {b: 1}, <<: {c: 1}}", ["'<<'"]),
        ("a: 010", ["line 1", "010", "quote"]),
        ("a: 1:30", ["1:30", "quote"]),
        ("a: 0b1", ["0b1", "quote"]),
        ("a: 08", ["08", "quote"]),
        ("a: 2024-13-45", ["2024-13-45", "quote"]),
        ("a: 2024-01-31 10:00:00", ["quote"]),
        ("? [a]\n: 1", ["a key must be text"]),
        ("~: 1", ["a key must be text"]),
        ("a: !!python/object/apply:os.getcwd []", ["python/object", "remove"]),
        ("a: !!int x", ["!!int".replace("!!", "tag:yaml.org,2002:"), "remove"]),
        ("a: !!binary aGk=", ["binary", "remove"]),
        ("a: !mine {b: 1}", ["!mine", "remove"]),
        ("a: 1\n---\nb: 2", ["line 2", "another document"]),
        ("a:\n\tb: 1", ["line 2", "tab", "spaces"]),
        ("a: 1\t# b", ["line 1", "tab", "spaces"]),
        ("a: \x00", ["line 1", "U+0000"]),
        ("b: 1\na: \x1b[2J", ["line 2", "U+001B"]),
        ('a: "\\0"', ["line 1", "U+0000"]),
        ('a: "\\ud800"', ["line 1", "U+D800"]),
        ("a: 1\n\ufeffb: 2", ["line 2", "U+FEFF"]),
        (f"a: {'9' * 5000}", ["100 characters", "5,000"]),
        (f"a: 0x{'f' * 5000}", ["100 characters"]),
        ("[" * 1000, [f"{MAX_DEPTH} deep"]),
        ("{a: " * 1000, [f"{MAX_DEPTH} deep"]),
        ("- " * 1000, [f"{MAX_DEPTH} deep"]),
        (CHAIN, [f"{MAX_DEPTH} deep"]),
        (BOMB, [f"{MAX_NODES:,}", "aliases"]),
        (MERGE_BOMB, [f"{MAX_NODES:,}", "aliases"]),
        ("a: &a [*a]", ["line 1", "alias"]),
        ("a: &a {<<: *a}", ["line 1", "alias"]),
        ("a: *b", ["line 1", "alias 'b'"]),
        ("a: {<<: 5}", ["line 1"]),
        ("a: [", ["line 1"]),
        ("a: b: c", ["line 1"]),
    ],
)
def test_what_would_be_misread_is_an_error_with_its_line(text, words):
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    message = str(caught.value)
    assert message.startswith("line ") and message.isprintable() and len(message) < 300
    assert all(word in message for word in words), message


def test_the_largest_file_is_read_or_refused_soon():
    with pytest.raises(YamlError, match=f"{MAX_NODES:,}"):
        load_yaml("- 1\n" * (MAX_BYTES // 4))


TEXTS = [
    "1e-3",
    "08",
    "010",
    "1:30",
    "2024-01-31",
    "yes",
    "5",
    ".5e3",
    "0x10",
    "1_000",
    "null",
    "~",
    "",
    "<<",
    "=",
    "a",
]


@pytest.mark.parametrize("load", [load_yaml, yaml.safe_load])
def test_what_is_written_is_read_alike_here_and_elsewhere(load):
    numbers = [1e-5, 3.0e-4, 1e22, 1e300, 5e-324, -0.0, 1.0, 10**20, True, None]
    values = {"texts": TEXTS, "numbers": numbers, **{text: "key" for text in TEXTS}}
    assert repr(load(dump_yaml(values))) == repr(values)
