"""Wall time of ``import gitdist`` and of commands that compute nothing.

python studies/benchmarks/startup.py [--study NAME --results DIR] [--repeats N]

``--study`` names a study that has been run; without it, commands that need one are left out.
"""

import argparse
import subprocess
import sys
import time
from functools import partial

from harness import Figure, alternate, table
from rich.console import Console

COMMANDS = {
    "import gitdist": ["-c", "import gitdist"],
    "gitdist --help": ["-m", "gitdist", "--help"],
    "gitdist data ls": ["-m", "gitdist", "data", "ls"],
}
STATUS = "gitdist status"
TARGETS_S = {"import gitdist": 0.3, "gitdist --help": 0.3, "gitdist data ls": 1.0, STATUS: 1.0}


def wall_s(arguments: list[str]) -> float:
    """Return the seconds of Python with some arguments."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(repeats: int, study: str | None, results: str) -> list[Figure]:
    """Time all commands."""
    status = {STATUS: ["-m", "gitdist", "status", study, "--results", results]} if study else {}
    timed = {name: partial(wall_s, arguments) for name, arguments in (COMMANDS | status).items()}
    return [
        Figure(name=name, values=values, unit="s", rule="<=", target=TARGETS_S[name])
        for name, values in alternate(timed, repeats).items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements per command")
    parser.add_argument("--study", metavar="NAME", help="a study that has been run")
    parser.add_argument("--results", default="results", metavar="DIR", help="its results directory")
    given = parser.parse_args()
    Console().print(table("startup", measure(given.repeats, given.study, given.results)))
