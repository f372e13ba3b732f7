"""Wall time of ``import gitdist`` and of commands that compute nothing.

python studies/benchmarks/startup.py [--repeats N]
"""

import argparse
import subprocess
import sys
import time
from functools import partial

from harness import Figure, alternate, table
from rich.console import Console

COMMANDS = {"import gitdist": ["-c", "import gitdist"], "gitdist --help": ["-m", "gitdist", "--help"]}


def wall_s(arguments: list[str]) -> float:
    """Return the seconds of Python with some arguments."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(repeats: int) -> list[Figure]:
    """Time all commands."""
    times = alternate({name: partial(wall_s, arguments) for name, arguments in COMMANDS.items()}, repeats)
    return [Figure(name=name, values=values, unit="s", rule="<=", target=0.3) for name, values in times.items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements per command")
    Console().print(table("startup", measure(parser.parse_args().repeats)))
