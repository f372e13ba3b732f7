"""Run the same studies with two checkouts and compare every number they leave: a refactoring changes none.

    python tests/compare_checkouts.py OLD NEW                      run the studies with both checkouts
    python tests/compare_checkouts.py OLD NEW --resume-stored DIR  resume with NEW the results that OLD began in DIR

    small       the small study of these tests, one trial at a time, by OLD and by NEW
    unshared    the same without sharing
    killed      the small study by NEW, whose driver gets SIGKILL in the second trial, resumed by NEW
    taken-over  the small study by OLD, whose driver gets SIGKILL in the second trial, resumed by NEW
    quickstart  studies/quickstart.yaml of each checkout, two trials at a time

The killed studies must end as the small study of OLD, which nothing interrupted.

Only the command line is used, and results are read without gitdist's modules. Each difference is one line; the exit
code is 0 without differences, else 1. With --work DIR results are kept, and a checkout runs again only if its code
has changed. On two idle cores a checkout takes about six minutes.
"""

import argparse
import ast
import csv
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import optuna
import psutil
import pyarrow.parquet
import yaml
from PIL import Image

# What is not compared: patterns of STUDY/RECORD/..., and why. A "*" also matches "/".
LEFT_OUT = {
    "*_s": "durations in seconds (train_s, waiting_s, wall_s, ...)",
    "*_s/*/value": "the same durations among the metrics in MLflow",
    "*/ended_at": "time of day",
    "*/evaluated_at": "time of day",
    "*/files/drivers/*": "one file of durations per driver; a resumed study has two",
    "*/files/times.jsonl*": "times of day",
    "*/files/watch.jsonl*": "figures of the stream and of the machine, one line per 10 s",
    "*/ledger/owners/*": "leases: host, process, times of day",
    "*/mlflow/study/metrics/stream/*": "figures of the stream",
    "*/mlflow/study/metrics/system/*": "figures of the machine",
    "*/mlflow/study/metrics/*/step": "counts the lines of watch.jsonl",
    "*/mlflow/study/tags/gitdist.last_step": "counts the lines of watch.jsonl",
    "*/mlflow/*/tags/hash.files": "a hash of files that hold times",
    "*/mlflow/*/tags/hash.model": "a random ID",
    "*/mlflow/*/tags/mlflow.note.content": "links with random IDs",
    "*/mlflow/*/tags/mlflow.source.git.commit": "that of the checkout",
    "*/mlflow/experiment/tags/mlflow.sharedViewState.*": "the start of a random ID",
    "*/files/models/*": "MLflow models, with a random ID and a time of day",
    "*/store/prefix/*/checksums/*": "of a checkpoint that holds times; its numbers show in the rows",
    "*/report/costs.csv/*": "durations",
    "killed/*/generated_images*": "what a killed driver had requested is generated again",
    "taken-over/*/generated_images*": "what a killed driver had requested is generated again",
    "stored/*/generated_images*": "what a killed driver had requested is generated again",
    "quickstart/*/generated_images*": "two trials at once: what is requested in vain depends on timing",
    "quickstart/*/trained_by": "two trials at once: which trains the shared prefix depends on timing",
    "quickstart/*/gitdist.prefix_trained_by": "two trials at once: which trains the shared prefix depends on timing",
}
NOT_READ = "start and end of MLflow runs; the contents of checkpoints, drawings, lock files and attempt files"
REPLACED = "the results directory, the study's random identity, the checksum in a checkpoint's name"
ROUNDED = ("*/report/*", 12)  # tables of the report, significant digits: a library may add in another order

QUICKSTART = Path("studies/quickstart.yaml")
QUICKSTART_CHANGES = ("resources.training.cpu=1",)
SMALL = Path(__file__).parent / "study" / "small_study.py"
# TPE after one random trial, each trial suggested from all but the last: results decide, and timing does not.
SMALL_CHANGES = (
    "search.total=4",
    "search.algorithm=tpe",
    "search.startup=1",
    "search.lag=2",
    "resources.max_concurrent=1",
)
UNSHARED_CHANGES = (*SMALL_CHANGES, "sharing.stream=false", "sharing.prefix=false")
COMMAND_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Checkout:
    """A working tree of gitdist, the Python that runs it, and where its results are kept until its code changes."""

    side: str
    path: Path
    python: str
    work: Path

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("GITDIST_", "RAY_", "MLFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**kept, "PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

    def check_import(self) -> None:
        """Print from where this Python imports gitdist; end the program if that is not this checkout."""
        command = [self.python, "-c", "import gitdist; print(gitdist.__file__)"]
        done = subprocess.run(command, env=self.environment, cwd=self.work, stdout=subprocess.PIPE, text=True)
        print(f"{self.side}: {self.python} imports {done.stdout.strip()}")
        if not Path(done.stdout.strip()).is_relative_to(self.path):
            sys.exit(f"{self.side}: this is not the gitdist of {self.path}")

    def folder(self, title: str) -> Path:
        files = [*sorted((self.path / "gitdist").rglob("*.py")), self.path / QUICKSTART, SMALL]
        code = b"".join(file.name.encode() + file.read_bytes() for file in files)
        settings = repr((QUICKSTART_CHANGES, SMALL_CHANGES, UNSHARED_CHANGES)).encode()
        return self.work / f"{self.side}-{hashlib.sha256(code + settings).hexdigest()[:12]}" / title

    def is_done(self, results: Path) -> bool:
        """Whether these results are there from an earlier call; an unfinished rest is removed."""
        print(f"{results.parent.name}: {results.name}", flush=True)
        done = (results / "done").exists()
        if not done:
            shutil.rmtree(results, ignore_errors=True)
        return done

    def start(self, results: Path, *arguments: str) -> subprocess.Popen[bytes]:
        results.mkdir(parents=True, exist_ok=True)
        command = [self.python, "-m", "gitdist", *arguments, "--results", str(results)]
        with (results / "output.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, cwd=results, stdout=log, stderr=log)

    def command(self, results: Path, *arguments: str) -> None:
        """Run a command to its end; end the program if it fails."""
        process = self.start(results, *arguments)
        try:
            process.wait(COMMAND_TIMEOUT_S)
        finally:
            process.kill()
        if process.returncode != 0:
            sys.exit(f"{self.side}: gitdist {arguments[0]} ended with {process.returncode}, see {results}/output.log")

    def finish(self, results: Path, *arguments: str) -> Path:
        """Run or resume a study to its end and write its report."""
        self.command(results, *arguments)
        self.command(results, "report", study_name(results))
        (results / "done").touch()
        return results

    def whole(self, title: str, file: Path, changes: tuple[str, ...] = ()) -> Path:
        """The results of a study that nothing interrupts."""
        results = self.folder(title)
        return results if self.is_done(results) else self.finish(results, "run", str(file), *overrides(changes))

    def killed(self, file: Path, changes: tuple[str, ...]) -> Path:
        """The results of a study whose driver was killed in its second trial."""
        results = self.folder("begun")
        if self.is_done(results):
            return results
        driver = self.start(results, "run", str(file), *overrides(changes))
        rows = results / "small" / "trials" / "0001" / "rows.jsonl"
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        try:
            while not rows.exists() or rows.read_bytes().count(b"\n") < 2:
                if driver.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{self.side}: the study did not reach its second trial, see {results}/output.log")
                time.sleep(0.02)
            descendants = psutil.Process(driver.pid).children(recursive=True)
        finally:
            driver.kill()
            driver.wait()
        _, alive = psutil.wait_procs(descendants, timeout=120)  # they notice that the driver is gone
        if alive:
            sys.exit(f"{self.side}: processes of a killed driver remain: {alive}")
        (results / "done").touch()
        return results

    def resumed(self, title: str, begun: Path) -> Path:
        """The results of a copy of begun results, resumed."""
        results = self.folder(f"{title}-{begun.parent.name}")
        if self.is_done(results):
            return results
        shutil.copytree(begun, results, ignore=shutil.ignore_patterns("done"))
        return self.finish(results, "resume", study_name(results))


def overrides(changes: tuple[str, ...]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def small_file(work: Path) -> Path:
    """Write the small study of the tests as a study file."""
    for node in ast.parse(SMALL.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "SPEC":
            file = work / "small.yaml"
            file.write_text(yaml.safe_dump(ast.literal_eval(node.value)))
            return file
    sys.exit(f"{SMALL} has no SPEC")


def study_name(results: Path) -> str:
    """The name of the one study in a results directory."""
    (file,) = results.glob("*/study.yaml")
    return file.parent.name


def read_results(results: Path) -> dict[str, Any]:
    """All that a study left in its results directory, as nested dictionaries and lists."""
    study = results / study_name(results)
    identity = (study / "identity").read_text()
    found = {
        "files": {str(file.relative_to(study)): read_file(file) for file in study.rglob("*") if is_record(file, study)},
        "ledger": read_ledger(study / "ledger.db", study.name),
        "mlflow": read_mlflow(results / "mlflow.db", study.name),
        "store": {str(file.parent.relative_to(results / "store")): read_file(file) for file in artifacts(results)},
        "report": {file.name: read_file(file) for file in study.glob("report/tables/*.csv")},
    }
    text = json.dumps(found)
    for value, name in ((str(results), "RESULTS"), (identity, "IDENTITY"), (identity[:8], "IDENTITY")):
        text = text.replace(value, name)
    return json.loads(re.sub(r"(epoch-\d+)-[0-9a-f]{32}", r"\1-CHECKSUM", text))


def is_record(file: Path, study: Path) -> bool:
    others = ("ledger.db", "ledger.db-shm", "ledger.db-wal", "identity", "driver.lock")
    return file.is_file() and file.name not in others and not file.is_relative_to(study / "report")


def artifacts(results: Path) -> Iterator[Path]:
    """The description of each artifact in the store: its key's parts and the checksums of its files."""
    return results.glob("store/*/*/artefact.json")


def read_file(file: Path) -> Any:
    """The contents of a file of records; of other files (checkpoints, drawings) only that it exists."""
    match file.suffix:
        case ".json":
            return json.loads(file.read_text())
        case ".jsonl":
            return [json.loads(line) for line in file.read_text().splitlines()]
        case ".yaml":
            return yaml.safe_load(file.read_text())
        case ".csv":
            with file.open(newline="") as lines:
                return list(csv.reader(lines))[1:]  # the first line is a heading for people
        case ".parquet":
            return pyarrow.parquet.read_table(file).to_pylist()
        case ".png" if file.name == "samples.png":
            with Image.open(file) as image:
                return hashlib.sha256(image.tobytes()).hexdigest()
        case _:
            return "exists"


def read_ledger(database: Path, name: str) -> dict[str, Any]:
    """All that any Optuna program reads of the studies in a ledger."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    found = {}
    for study_name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=study_name, storage=storage)
        found["study" if study_name == name else study_name.removeprefix(f"{name}.")] = {
            "directions": [direction.name for direction in study.directions],
            "user_attrs": study.user_attrs,
            "trials": [read_trial(trial) for trial in study.trials],
        }
    storage.remove_session()
    storage.engine.dispose()
    return found


def read_trial(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    names = ("number", "values", "params", "intermediate_values", "user_attrs", "system_attrs")
    distributions = {name: repr(distribution) for name, distribution in trial.distributions.items()}
    return {"state": trial.state.name, "distributions": distributions} | {name: getattr(trial, name) for name in names}


def read_mlflow(database: Path, experiment: str) -> dict[str, Any]:
    """An experiment and its runs by name: status, params, metrics with steps, tags, names of artifact files."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:

        def select(query: str, value: str) -> list[Any]:
            return connection.execute(query, [value]).fetchall()

        ((number, location),) = select(
            "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", experiment
        )
        tags = dict(select("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", number))
        found: dict[str, Any] = {"experiment": {"artifact_location": location, "tags": tags}}
        runs = select(
            "SELECT run_uuid, name, status, lifecycle_stage, artifact_uri FROM runs WHERE experiment_id = ?", number
        )
        names = {run: "study" if name == experiment else name for run, name, *_ in runs}
        for run, _, status, stage, uri in runs:
            tags = dict(select("SELECT key, value FROM tags WHERE run_uuid = ?", run))
            if "mlflow.parentRunId" in tags:
                tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
            metrics = defaultdict(list)
            points = "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY step, timestamp, value"
            for key, step, value, is_nan in select(points, run):
                metrics[key].append({"step": step, "value": "nan" if is_nan else value})
            folder = Path(unquote(uri.removeprefix("file://")))
            name = names[run] if names[run] not in found else f"{names[run]}, second run"
            found[name] = {
                "status": status,
                "lifecycle_stage": stage,
                "tags": tags,
                "params": dict(select("SELECT key, value FROM params WHERE run_uuid = ?", run)),
                "metrics": metrics,
                "artifacts": {str(file.relative_to(folder)): "exists" for file in folder.rglob("*") if file.is_file()},
            }
    return found


def flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries and lists with their paths."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner or not value:
        yield path, value
    for key, each in inner:
        yield from flatten(each, f"{path}/{key}")


def as_text(path: str, value: Any) -> str:
    """A value as it is compared: with all digits, except in the tables of the report."""
    pattern, digits = ROUNDED
    if not fnmatchcase(path, pattern):
        return repr(value)
    try:
        return f"{float(value):.{digits}g}"
    except ValueError:
        return repr(value)


def differences(title: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """One line per value in which the results of a study differ, and how many values were compared."""
    sides = [dict(flatten(results, title)) for results in (old, new)]
    paths = [path for path in sorted(set().union(*sides)) if not any(fnmatchcase(path, each) for each in LEFT_OUT)]
    texts = {path: [as_text(path, side[path]) if path in side else "missing" for side in sides] for path in paths}
    return [f"{path}: {was} -> {now}" for path, (was, now) in texts.items() if was != now], len(paths)


def compare(title: str, old: Path, new: Path) -> int:
    """Print in what two results differ and return the number of differences."""
    lines, compared = differences(title, read_results(old), read_results(new))
    print(*lines, f"{title}: {len(lines)} differences in {compared} values", sep="\n", flush=True)
    return len(lines)


def compare_all(old: Checkout, new: Checkout) -> int:
    """Run all studies with both checkouts and return the number of differences."""
    file = small_file(old.work)
    count = compare("small", *(side.whole("small", file, SMALL_CHANGES) for side in (old, new)))
    count += compare("unshared", *(side.whole("unshared", file, UNSHARED_CHANGES) for side in (old, new)))
    small = old.whole("small", file, SMALL_CHANGES)
    count += compare("killed", small, new.resumed("killed", new.killed(file, SMALL_CHANGES)))
    count += compare("taken-over", small, new.resumed("taken-over", old.killed(file, SMALL_CHANGES)))
    quickstarts = (side.whole("quickstart", side.path / QUICKSTART, QUICKSTART_CHANGES) for side in (old, new))
    return count + compare("quickstart", *quickstarts)


def compare_stored(old: Checkout, new: Checkout, stored: Path) -> int:
    """Run a stored study with OLD from its beginning, resume it with NEW and return the number of differences."""
    study = stored / study_name(stored)
    digest = hashlib.sha256((study / "identity").read_bytes() + (study / "ledger.db").read_bytes()).hexdigest()[:12]
    whole = old.whole(f"whole-{digest}", study / "study.yaml")
    return compare("stored", whole, new.resumed(f"stored-{digest}", stored))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs=2, metavar="CHECKOUT", help="OLD, whose numbers hold, and NEW")
    parser.add_argument("--python", nargs=2, default=[sys.executable] * 2, metavar=("OLD_PYTHON", "NEW_PYTHON"))
    parser.add_argument("--resume-stored", type=Path, metavar="DIR", help="results of a study that OLD began")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep results here (default: a new directory)")
    options = parser.parse_args()
    work = (options.work or Path(tempfile.mkdtemp(prefix="compare-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    print("left out:", *(f"  {pattern}: {why}" for pattern, why in LEFT_OUT.items()), sep="\n")
    print(f"not read: {NOT_READ}\nreplaced: {REPLACED}\nrounded to {ROUNDED[1]} digits: {ROUNDED[0]}")
    old, new = (
        Checkout(side, path.resolve(), python, work)
        for side, path, python in zip(("old", "new"), options.checkouts, options.python, strict=True)
    )
    old.check_import()
    new.check_import()
    stored = options.resume_stored
    count = compare_stored(old, new, stored.resolve()) if stored else compare_all(old, new)
    print(f"{count} differences; results: {work}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
