"""Study files, Python and links in README and guide."""

import ast
import importlib
import re
import shutil
import sys

import pytest
import yaml

import gitdist
from gitdist.spec.file import load_plan
from gitdist.spec.search import SearchSpec
from tests.guide.pages import GUIDE, PAGES, README, Block, blocks, inline_code, name

LANGUAGES = {"bash", "yaml", "python", "text"}
NEEDS_RAY = "gitdist.run("  # its names are checked, and tests/api runs studies


def test_the_readme_is_short_and_begins_with_the_two_commands():
    assert len(README.read_text().splitlines()) <= 150
    first, second = [block.text for block in blocks("bash") if block.page == "README.md"][:2]
    assert first == "pip install -e . && gitdist run studies/quickstart.yaml\n"
    assert second == "pip install -e '.[test]' && pytest\n"


def test_each_block_has_a_language_whose_content_is_tested():
    unknown = [f"{block.place} {block.language}" for block in blocks() if block.language not in LANGUAGES]
    assert [each for each in unknown if "{" not in each] == []


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_a_study_file_is_valid(block: Block, tmp_path):
    values = yaml.safe_load(block.text)
    file = tmp_path / "study.yaml"
    file.write_text(("" if "name" in values else "name: part\n") + block.text)
    for scale in values.get("scale", [None]):
        load_plan(file, scale=scale)


def test_fields_in_the_text_exist():
    sys.path.insert(0, str(GUIDE))
    try:
        generated = importlib.import_module("generated")
    finally:
        sys.path.remove(str(GUIDE))
    known = {line.strip("`") for line in generated.fields() if re.fullmatch(r"`[\w.]+`", line)}
    parts = {field.partition(".")[0] for field in known if "." in field}
    assert {"data", "search", "trial"} <= parts and set(SearchSpec.model_fields) <= {
        field.removeprefix("search.") for field in known
    }
    part = rf"(?:{'|'.join(sorted(parts))})\.[\w.]+"
    named = {
        (page, found[0])
        for page, span in inline_code()
        if (found := re.match(part, span)) and not found[0].endswith((".yaml", ".json", ".db"))
    }
    assert sorted((page, field) for page, field in named if field not in known) == []


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_names_in_python_exist(block: Block):
    tree = ast.parse(block.text)
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: importlib.import_module(each.name) for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {each.asname or each.name: _imported(node.module, each.name) for each in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)


def _imported(module: str, name: str) -> object:
    value = importlib.import_module(module)
    return getattr(value, name) if hasattr(value, name) else importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize(
    "block", [block for block in blocks("python") if NEEDS_RAY not in block.text], ids=lambda block: block.place
)
def test_python_runs(block: Block, guide_results, tmp_path, monkeypatch):
    shutil.copytree(guide_results, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text.replace("from-python", "ended"), block.place, "exec"), {})


def test_the_citation_names_version_and_paper():
    citation = yaml.safe_load((README.parent / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", gitdist.__version__)
    (paper,) = citation["references"]
    assert paper["url"] in README.read_text() and len(paper["authors"]) == 7


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text()), f"{target}#{anchor}"


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
