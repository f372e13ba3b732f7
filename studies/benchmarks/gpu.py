"""All that a GPU has to show, in one run: each part with its own time limit, under eight minutes in all.

    gpu.py --> for each part: gpu.py --part NAME (a process that is killed at its limit) --> figures --> one JSON file

The file is written after every part. A part whose packages are missing, that fails or that takes too long is in it with
the reason and the figures that it had until then. Without a GPU everything runs on the CPU, to see that it runs:

    python studies/benchmarks/gpu.py [--study FILE] [--set FIELD=VALUE] [--out FILE] [--toy]
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPEATS = 3
IMAGE = (3, 32, 32)
CORE = ("torch", "torchvision", "numpy", "pyarrow", "scipy", "sklearn", "pydantic")
WITH_RAY = (*CORE, "ray", "optuna", "mlflow")

Figures = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """What the command line says: the study of the parts with Ray, its overrides, and whether sizes are tiny."""

    study: Path
    overrides: tuple[str, ...]
    toy: bool


@dataclass(frozen=True)
class Part:
    """One part of the run."""

    limit_s: float
    packages: tuple[str, ...]
    measure: Callable[[Options], Figures]


def environment(options: Options) -> Figures:
    """Measure the memory of the GPU; the header of the file has the rest."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield _figure("memory, free", [free / 1e9], "GB")
        yield _figure("memory", [total / 1e9], "GB")


def decoding(options: Options) -> Figures:
    """Measure images/s of the decoder, by precision and execution, of the content encoder, and the authors' way."""
    import torch
    from original import PlainMunit

    from gitdist.generator.munit.generator import MunitGenerator
    from gitdist.generator.munit.networks import AutoEncoder, initialise

    spec = _munit(options)
    device, rng = _device(), torch.Generator().manual_seed(0)
    batches = (4,) if options.toy else (64, 256, 1024, 4096)
    for precision in ("float32", "TF32", "bf16"):
        torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "TF32"
        network = AutoEncoder(spec, IMAGE[0])
        initialise(network, None, torch.Generator().manual_seed(0))
        generator = MunitGenerator(network, spec.style_dim, _compute(precision))
        for batch in batches:
            images = torch.randint(0, 256, (batch, *IMAGE), dtype=torch.uint8, generator=rng)
            with torch.inference_mode():
                codes = generator.encode(images, images).contiguous(memory_format=torch.channels_last)
                styles = torch.randn(batch, spec.style_dim, generator=rng).to(device)
                encode = functools.partial(generator.encode, images, images)
                yield _rate(f"content encoder, {precision}, batch {batch}", encode, batch, "images/s")
                compiles = not options.toy and batch == 1024  # a compilation takes tens of seconds
                for name, decode in _ways(network.decode, (codes, styles), compiles).items():
                    yield _rate(f"decoder, {precision}, {name}, batch {batch}", decode, batch, "images/s")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    plain = PlainMunit(spec, IMAGE[0])
    network = AutoEncoder(spec, IMAGE[0])
    initialise(network, None, torch.Generator().manual_seed(0))
    plain.copy_weights(network)
    plain.to(device).eval()
    batch = batches[0] * 2  # 128
    inputs = torch.rand(batch, *IMAGE, generator=rng).to(device)
    original = functools.partial(plain.transform, inputs)
    yield _rate(f"authors' way, float32, batch {batch}", original, batch, "images/s")


def munit_steps(options: Options) -> Figures:
    """Measure training steps/s of MUNIT."""
    import itertools

    import numpy as np
    import torch

    from gitdist.generator.munit.batches import BalancedBatches
    from gitdist.generator.munit.training import MunitTrainer

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (1000, *IMAGE), np.uint8), np.arange(1000) % 10
    compute = _compute("bf16")
    for batch in (1, 8):
        spec = _munit(options).model_copy(update={"batch_size": batch})
        for compiled in (False,) if options.toy else (False, True):
            trainer, steps = (
                MunitTrainer(spec, BalancedBatches(images, labels, spec, compute), 3, compute),
                itertools.count(),
            )
            if compiled:
                for network in (*trainer.auto_encoders, *trainer.discriminators):
                    network.compile(dynamic=False)

            def step(trainer: Any = trainer, steps: Any = steps) -> Any:
                return trainer.step(next(steps))

            name = f"MUNIT step, batch {batch}, {'compiled' if compiled else 'eager'}"
            yield _rate(name, step, 1, "steps/s")
            torch._dynamo.reset()


def trial(options: Options) -> Figures:
    """Measure samples/s of a trial: the loop and the bare step, and several processes on one GPU."""
    return _script("training.py", options)


def stream(options: Options) -> Figures:
    """Measure images/s of a server, read by 1 to 8 trials, against the bare decode loop."""
    return _script("generation.py", options)


def study(options: Options) -> Figures:
    """Run the study; measure test metrics of each group of trials that differ in seeds only, with 95 % intervals."""
    from scipy.stats import t

    with tempfile.TemporaryDirectory() as results:
        sets = [part for override in options.overrides for part in ("--set", override)]
        command = ["run", str(options.study), "--results", results, "--yes", *sets]
        started = time.monotonic()
        _call([sys.executable, "-m", "gitdist", *command])
        yield _figure("study, wall time", [time.monotonic() - started], "s")
        groups: dict[tuple[str, str], list[float]] = {}
        for file in sorted(Path(results).glob("*/trials/*/test.json")):
            params = json.loads((file.parent / "trial.json").read_text())["spec"]
            group = f"K {params['threshold']}, p {params['fraction']}"
            for name in ("balanced_accuracy", "ekld"):
                groups.setdefault((group, name), []).append(json.loads(file.read_text())["metrics"][f"test/{name}"])
    for (group, name), values in groups.items():
        figure = _figure(f"test {name}, {group}", values, "")
        if len(values) > 1:
            half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
            figure |= {"mean": statistics.mean(values), "half_interval": half}
        yield figure


PARTS = {
    "environment": Part(20, ("torch",), environment),
    "decoding": Part(100, CORE, decoding),
    "munit steps": Part(50, CORE, munit_steps),
    "trial": Part(70, WITH_RAY, trial),
    "stream": Part(90, WITH_RAY, stream),
    "study": Part(140, WITH_RAY, study),
}


def run_part(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a part in a process with its limit; return its figures, or the reason why there are none."""
    part, started = PARTS[name], time.monotonic()
    if missing := [package for package in part.packages if importlib.util.find_spec(package) is None]:
        return {"left_out": f"not installed: {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--part", name, "--out", str(file), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        reason = None
        try:
            printed = process.communicate(timeout=part.limit_s)[0].decode(errors="replace").splitlines()
            if process.returncode:
                reason = next((line for line in reversed(printed) if line.strip()), f"exit code {process.returncode}")
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.communicate()
            reason = f"took more than {part.limit_s:g} s"
        result = {"elapsed_s": time.monotonic() - started, "figures": []}
        with suppress(OSError, ValueError):  # killed before the first figure, or while it wrote one
            result["figures"] = json.loads(file.read_text())
        return result if reason is None else {**result, "left_out": reason}


def describe_machine() -> dict[str, Any]:
    """Return card, driver, clock and versions, as JSON values."""
    header: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
    }
    with suppress(ImportError):
        import torch

        header |= {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": None}
        if torch.cuda.is_available():
            header["gpu"] = torch.cuda.get_device_name()
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,memory.used", "--format=csv"]
        header["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    return header


def main() -> None:
    """Run all parts, or the one that ``--part`` names."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--study", type=Path, default=HERE / "gpu.yaml", metavar="FILE", help="study of the last parts"
    )
    options.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a study field")
    options.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="FILE", help="where the figures go")
    options.add_argument("--toy", action="store_true", help="tiny networks, to see that everything runs")
    options.add_argument("--only", action="append", choices=PARTS, help="a part to run; may be repeated")
    options.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.part:
        figures = []
        for figure in PARTS[given.part].measure(Options(given.study, tuple(given.set), given.toy)):
            figures.append(figure)
            given.out.write_text(json.dumps(figures))
        return
    arguments = ["--study", str(given.study), *(["--toy"] if given.toy else [])]
    arguments += [part for override in given.set for part in ("--set", override)]
    report: dict[str, Any] = {"header": describe_machine(), "toy": given.toy, "parts": {}}
    for name in given.only or PARTS:
        report["parts"][name] = run_part(name, arguments)
        report["memory_after"] = describe_machine().get("nvidia-smi")
        given.out.write_text(json.dumps(report, indent=2) + "\n")
        print(name, report["parts"][name].get("left_out") or f"{report['parts'][name]['elapsed_s']:.0f} s", flush=True)


def _munit(options: Options) -> Any:
    from gitdist.spec import MunitSpec

    return MunitSpec(dim=4, mlp_dim=8, num_res=1, discriminator_dim=4) if options.toy else MunitSpec(dim=64)


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _compute(precision: str) -> Any:
    from gitdist.device import Compute

    return Compute.resolve("bf16" if precision == "bf16" else "float32", _device())


def _ways(decode: Callable[..., Any], inputs: tuple[Any, ...], compiles: bool) -> dict[str, Callable[[], Any]]:
    """Return calls of ``decode``: eager, on a GPU as a CUDA graph and, if wanted, compiled."""
    import torch

    ways: dict[str, Callable[[], Any]] = {"eager": functools.partial(decode, *inputs)}
    if compiles:
        ways["compiled"] = functools.partial(torch.compile(decode, dynamic=False), *inputs)
    if _device().type == "cuda":
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                decode(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            decode(*inputs)
        ways["CUDA graph"] = graph.replay
    return ways


def _rate(name: str, work: Callable[[], Any], amount: int, unit: str) -> dict[str, Any]:
    """Return ``amount`` per second of ``work``, repeated for some tenths of a second after a warm-up."""
    import torch

    def seconds(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(2)
    times = max(1, min(1000, int(0.2 / seconds(1))))
    return _figure(name, [amount * times / seconds(times) for _ in range(REPEATS)], unit)


def _figure(name: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    spread = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {"name": name, **spread, "unit": unit, "values": list(values)}


def _script(script: str, options: Options) -> Figures:
    """Run another benchmark of this folder and return its figures."""
    with tempfile.TemporaryDirectory() as results:
        sets = [part for override in options.overrides for part in ("--set", override)]
        repeats = "1" if options.toy else str(REPEATS)
        arguments = ["--study", str(options.study), "--results", results, "--repeats", repeats, *sets]
        _call([sys.executable, str(HERE / script), *arguments])
        figures: Figures = json.loads((Path(results) / "benchmarks" / f"{Path(script).stem}.json").read_text())[
            "figures"
        ]
        return figures


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1])


if __name__ == "__main__":
    main()
