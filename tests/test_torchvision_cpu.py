import subprocess
import sys

SCRIPT = """
from gitdist.torchvision_cpu import torchvision
from torchvision.transforms import v2
import torch
image = v2.functional.hflip(torch.arange(3)[None, None])
assert image.tolist() == [[[2, 1, 0]]]
"""


def test_torchvision_imports_in_a_fresh_process_beside_any_torch() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
