"""Count what keeps gitdist readable: lines, modules, imports between them, names that are used twice.

    python tests/count_structure.py [CHECKOUT]

Only the syntax of the files is read. ``test_architecture.py`` tests the limits.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

# Modules that one table lists: each has one importer and is still a module, as one member of a family.
FAMILIES = {
    "commands": ("gitdist.cli.*",),
    "data sources": ("gitdist.data.sources.*",),
    "figures of the report": ("gitdist.report.figures.*",),
    "losses": ("gitdist.trial.losses", "gitdist.balancing.losses"),
    "generators": (
        "gitdist.generator.munit",
        "gitdist.generator.munit_generator",
        "gitdist.generator.munit.generator",
        "gitdist.generator.oracle",
        "gitdist.generator.pretrained",
        "gitdist.generator.plugin",
    ),
}
# How many modules of ours a module may import.
IMPORT_LIMIT = 15
ENTRY_POINT_LIMIT = 20  # of those that put all parts together
ENTRY_POINTS = ("gitdist.cli", "gitdist.cli.*", "gitdist.study.run")
# The public surface is named as its users see it; names within it differ from each other.
PUBLIC = ("gitdist.api.*",)
# Public functions of one name that implement one interface: the modules that may have one, by name.
INTERFACES = {
    "find": ("gitdist.data.sources.*",),
    "read": ("gitdist.data.sources.*",),
    "where": ("gitdist.data.sources.*",),
}


@dataclass(frozen=True)
class Structure:
    """The syntax trees of all modules of a checkout, by module name."""

    trees: dict[str, ast.Module]
    lines: int

    @classmethod
    def read(cls, checkout: Path) -> "Structure":
        trees, lines = {}, 0
        for file in sorted((checkout / "gitdist").rglob("*.py")):
            text = file.read_text()
            name = ".".join(file.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
            trees[name], lines = ast.parse(text), lines + len(text.splitlines())
        return cls(trees, lines)

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules of ours that each module imports, at its top or within a function."""
        found = {}
        for name, tree in self.trees.items():
            found[name] = {module for node in imports_at_run_time(tree) for module in self._imported(node)} - {name}
        return found

    def _imported(self, node: ast.Import | ast.ImportFrom) -> set[str]:
        if isinstance(node, ast.Import):
            return {alias.name for alias in node.names} & self.trees.keys()
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        return {name if name in self.trees else str(node.module) for name in whole} & self.trees.keys()

    def with_one_importer(self) -> dict[str, str]:
        """The modules that exactly one other imports, each with that one."""
        importers = defaultdict(list)
        for name, imported in self.imports.items():
            for module in imported:
                importers[module].append(name)
        return {module: names[0] for module, names in sorted(importers.items()) if len(names) == 1}

    def circles(self) -> list[list[str]]:
        """Modules that import each other, directly or through others; imports within functions count."""
        reached: dict[str, set[str]] = {}
        for name in self.trees:
            reached[name], waiting = set(), [name]
            while waiting:
                new = self.imports[waiting.pop()] - reached[name]
                reached[name] |= new
                waiting += new
        groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in self.trees}
        return sorted(list(group) for group in groups if group)

    def too_many_imports(self) -> dict[str, int]:
        """The modules that import more modules of ours than they may."""
        return {
            name: len(imported)
            for name, imported in sorted(self.imports.items())
            if len(imported) > (ENTRY_POINT_LIMIT if matches(name, ENTRY_POINTS) else IMPORT_LIMIT)
        }

    def classes_of_one_name(self) -> dict[str, list[str]]:
        """Class names that several modules use."""
        return self._shared(
            (node.name, module)
            for module, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and not matches(module, PUBLIC)
        )

    def functions_of_one_name(self) -> dict[str, list[str]]:
        """Names of public functions that several modules use, without those of one interface."""
        return self._shared(
            (node.name, module)
            for module, tree in self.trees.items()
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and not matches(module, PUBLIC)
            and not matches(module, INTERFACES.get(node.name, ()))
        )

    @staticmethod
    def _shared(names_and_modules: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        modules = defaultdict(set)
        for name, module in names_and_modules:
            modules[name].add(module)
        return {name: sorted(where) for name, where in sorted(modules.items()) if len(where) > 1}


def imports_at_run_time(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements, without those for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imports_at_run_time(node)


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def family_of(module: str) -> str | None:
    return next((family for family, patterns in FAMILIES.items() if matches(module, patterns)), None)


def report(structure: Structure) -> Iterator[str]:
    """The counts as lines, each followed by what was counted."""
    one = structure.with_one_importer()
    alone = [f"{module} <- {importer}" for module, importer in one.items() if family_of(module) is None]
    many = sorted(structure.too_many_imports().items(), key=lambda each: -each[1])
    counted = {
        f"modules with exactly one importer: {len(one)}; without members of families": alone,
        f"modules that import more than {IMPORT_LIMIT} of ours (entry points: {ENTRY_POINT_LIMIT})": [
            f"{module}: {count}" for module, count in many
        ],
        "circles of imports": [", ".join(group) for group in structure.circles()],
        "class names in several modules": listed(structure.classes_of_one_name()),
        "names of public functions in several modules": listed(structure.functions_of_one_name()),
    }
    yield f"lines: {structure.lines}"
    yield f"modules: {len(structure.trees)}"
    for title, found in counted.items():
        yield f"{title}: {len(found)}"
        yield from (f"  {line}" for line in found)


def listed(modules: dict[str, list[str]]) -> list[str]:
    return [f"{name}: {', '.join(where)}" for name, where in modules.items()]


if __name__ == "__main__":
    print(*report(Structure.read(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]))), sep="\n")
