"""YAML in which nothing is dropped or misread in silence: keys are unique, and what looks like a number is one.

It differs from PyYAML's YAML 1.1 in these points:

- a key that occurs twice in a mapping is an error; there, the last one counts;
- ``1e-3`` is a number; there, it is text, because it has no point;
- ``0123`` (octal), ``1:30`` (sexagesimal), ``0b1`` and ``2024-01-31`` are errors, since programs differ on them;
- tags, except ``!!str``, are errors;
- the size of the text, its depth and what its aliases expand to are limited.
"""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

MAX_BYTES = 500_000
MAX_DEPTH = 50
MAX_NODES = 20_000  # keys and values, with every alias expanded
_MAX_DIGITS = 100

_BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*|[1-9][0-9_]*|0)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_AMBIGUOUS = re.compile(
    r"^(?:[-+]?0[0-9_]+|[-+]?0b[01_]+|[-+]?0o[0-7_]+"  # octal or decimal? and what YAML 1.1 and 1.2 read differently
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"  # a time, or a number with the base 60
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}.*)?)$"  # a date
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_AMBIGUOUS_TAG = "!ambiguous"
_RESOLVERS = (
    ("tag:yaml.org,2002:bool", _BOOL, "yYnNtTfFoO"),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+0123456789."),
    (_AMBIGUOUS_TAG, _AMBIGUOUS, "-+0123456789"),
    (_MERGE, re.compile(r"^<<$"), "<"),
    (_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)


class YamlError(ValueError):
    """A text is not YAML, or would be misread; the message begins with the line."""


def load_yaml(text: str) -> Any:
    """Return the value of one YAML document.

    Raises:
        YamlError: the text is not one, or breaks a rule of this module.
    """
    try:
        return _Loader(text).value()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "unreadable"
        if "'\\t'" in problem:
            problem = "it has a tab; use spaces"
        raise YamlError(f"{_line(mark)}not valid YAML ({problem})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"line {line}: not valid YAML (it has the character {_code(error.character)})") from None


def dump_yaml(values: Any) -> str:
    """Return values as YAML that ``load_yaml`` and other readers of YAML read alike."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._num_nodes = 0
        self._extents: dict[int, tuple[int, int]] = {}  # of checked nodes: how many nodes they have, and their depth

    def value(self) -> Any:
        try:
            node = self.get_single_node()
            if node is None:
                return None
            self._check(node, ())
            return self.construct_document(node)
        finally:
            self.dispose()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!", _TEXT):
            raise YamlError(f"{_line(event.start_mark)}the tag {event.tag} is not supported; remove it")
        self._depth += 1
        self._num_nodes += 1
        self._limit(self._num_nodes, self._depth, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _check(self, node: Node, above: tuple[int, ...]) -> tuple[int, int]:
        """Return how many nodes there are, and how deep they lie, with aliases expanded."""
        if id(node) in above:
            raise YamlError(f"{_line(node.start_mark)}an alias must not be part of what it repeats")
        size, depth = self._extents.get(id(node), (1, 1))
        self._limit(size, len(above) + depth, node.start_mark)
        if id(node) in self._extents:
            return size, depth
        children: list[Node] = []
        if isinstance(node, ScalarNode):
            self._check_scalar(node)
        elif isinstance(node, MappingNode):
            self._check_keys(node)
            children = [part for pair in node.value for part in pair]
        else:
            children = node.value
        extents = [self._check(child, (*above, id(node))) for child in children]
        size, depth = 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)
        self._limit(size, depth, node.start_mark)
        self._extents[id(node)] = size, depth
        return size, depth

    def _check_scalar(self, node: ScalarNode) -> None:
        line, text = _line(node.start_mark), node.value
        if node.tag == _AMBIGUOUS_TAG:
            raise YamlError(
                f"{line}some programs read {text} as a number or date, others as text; quote it, or write a number"
            )
        if node.tag in _NUMBERS and len(text) > _MAX_DIGITS:
            raise YamlError(f"{line}a number must have at most {_MAX_DIGITS} characters, but one has {len(text):,}")
        found = _CONTROL.search(text)
        if found:
            raise YamlError(f"{line}text must not contain the character {_code(found[0])}")

    def _check_keys(self, node: MappingNode) -> None:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line = _line(key.start_mark)
            if not isinstance(key, ScalarNode) or key.tag == _NULL:
                raise YamlError(f"{line}a key must be text, but it is {'empty' if key.tag == _NULL else key.id}")
            self._check_scalar(key)
            value = key.value if key.tag == _MERGE else self.construct_object(key)
            if value in lines:
                raise YamlError(
                    f"{line}a key must be unique, but '{key.value}' is in line {lines[value]} too; remove one"
                )
            lines[value] = key.start_mark.line + 1

    def _limit(self, size: int, depth: int, mark: Any) -> None:
        if size > MAX_NODES:
            raise YamlError(f"{_line(mark)}there must be at most {MAX_NODES:,} keys and values, with aliases expanded")
        if depth > MAX_DEPTH:
            raise YamlError(f"{_line(mark)}values must be nested at most {MAX_DEPTH} deep")


class _Dumper(yaml.SafeDumper):
    """Quotes text that this module or YAML 1.1 would read as something else."""


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    if _tag in (_AMBIGUOUS_TAG, "tag:yaml.org,2002:float"):
        _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""


def _code(character: str | int) -> str:
    return f"U+{character if isinstance(character, int) else ord(character):04X}"
