import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "studies" / "from_python.ipynb"
FACTS = """
import json

changed = (mixed != batch).flatten(1).any(1)
small = torch.from_numpy(sizes)[targets] < 40
first = torch.arange(len(batch)) < len(batch) // 2
print(json.dumps({
    "replaced": changed.tolist(),
    "replaceable": (small & first).tolist(),
    "ekld": [measured.value, measured.standard_error, *measured.per_class.tolist()],
    "trials": len(study.trials()),
    "artifacts": sorted(path.name for path in (dataset.prepared.directory.parents[1] / "generator").iterdir()),
}))
"""


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_has_fewer_than_40_lines_of_code(notebook):
    lines = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines) < 40


def test_its_outputs_are_stripped(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Jupyter's libraries
@pytest.mark.usefixtures("shared_ray")
def test_it_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    run = nbformat.from_dict({**notebook, "cells": [*notebook.cells, nbformat.v4.new_code_cell(FACTS)]})

    NotebookClient(run, kernel_name="python3", timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()

    facts = json.loads(run.cells[-1].outputs[0].text)
    assert facts["replaced"] == facts["replaceable"] and any(facts["replaced"])
    assert all(0 < value < 10 for value in facts["ekld"]) and len(facts["ekld"]) == 2 + 10
    assert facts["trials"] == 3  # the baseline and two trials
    assert len(facts["artifacts"]) == 1  # the study has found the generator of the notebook
    preview = next(cell for cell in run.cells if "preview" in cell.source)
    assert any("image/png" in output.get("data", {}) for output in preview.outputs)
