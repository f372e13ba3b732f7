"""What commands that compute nothing do not import: libraries that take seconds to load."""

import subprocess
import sys

import pytest

SLOW = {"torch", "ray", "mlflow", "scipy", "matplotlib", "pandas", "sklearn", "torchvision", "timm"}


@pytest.mark.parametrize(
    ("modules", "others"),
    [
        ("gitdist", {"numpy", "optuna", "pydantic", "pyarrow"}),
        ("gitdist.cli", {"numpy", "optuna", "pydantic", "pyarrow"}),
        ("gitdist.spec, gitdist.spec.file", {"optuna", "pyarrow", "PIL"}),
        ("gitdist.cli.sources", {"optuna"}),
        ("gitdist.cli.status, gitdist.cli.listing", {"pyarrow"}),
        ("gitdist.cli, gitdist.cli.completion", {"optuna", "pyarrow"}),
    ],
)
def test_slow_libraries_are_not_imported(modules, others):
    program = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not (SLOW | others) & set(loaded)
