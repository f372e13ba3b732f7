"""The original way of a whole study: plain Ray Tune over a list of configs, nothing shared between trials.

    python -m gitdist.bench.original_study JOB.json      (written by the benchmark; the outcome goes into the same file)

Each trial has its own float32 generator that encodes and decodes a full batch in every step after the switch, a
DataLoader of PIL images, and an evaluation that transforms every image anew. It evaluates nothing on test and writes no
checkpoints.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gitdist.bench.original import load_plain
from gitdist.bench.original_evaluation import evaluate_originally
from gitdist.bench.original_loop import OriginalTrainer, loader_processes
from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.disk import write_atomic
from gitdist.logging import silence_libraries
from gitdist.spec import EvaluationSpec, MunitSpec, Share, TrialSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the original way is given, as JSON values.

    ``trials`` are whole trial specs, one a classifier training; ``share`` is what one trial takes of the machine.
    """

    dataset: str
    artefact: str
    generator: dict[str, Any]
    trials: list[dict[str, Any]]
    evaluation: dict[str, Any]
    share: dict[str, Any]


def train_trial(config: dict[str, Any]) -> None:
    """Train one classifier, reporting each epoch to Tune; ``config`` holds ``job`` and the ``index`` of the trial."""
    from ray import tune

    job = Job(**config["job"])
    spec, share = TrialSpec(**job.trials[config["index"]]), Share(**job.share)
    evaluation, munit = EvaluationSpec(**job.evaluation), MunitSpec(**job.generator)
    set_threads(share.cpu)
    dataset, device = Dataset.open(Path(job.dataset)), Compute.resolve("float32", share.device).device
    generator = load_plain(munit, dataset.image_shape[0], Path(job.artefact), device) if spec.fraction else None
    num_workers = loader_processes(device, share.cpu)
    trainer = OriginalTrainer(spec, dataset, device, num_workers, generator)
    images, transformations = evaluation.epoch_images_per_class, evaluation.epoch_transformations
    for epoch in range(1, spec.epochs + 1):
        trainer.run(epoch)
        figures: dict[str, Any] = {"epoch": epoch, "generated": trainer.generated}
        if epoch % evaluation.every == 0 or epoch == spec.epochs:
            accuracy, ekld = evaluate_originally(trainer.model, dataset, images, transformations, device, num_workers)
            figures |= {"balanced_accuracy": accuracy, "ekld": ekld}
        tune.report(figures)


def run_study(job: Job, scratch: Path) -> dict[str, Any]:
    """Run all trials of a job and return the counts: trials, epochs trained, images generated.

    Args:
        job: the trials.
        scratch: where Tune keeps what it writes.

    Raises:
        RuntimeError: a trial failed.
    """
    import ray
    from ray import tune

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            grid = tune.Tuner(
                tune.with_resources(train_trial, {"cpu": job.share["cpu"], "gpu": job.share["gpu"]}),
                param_space={"index": tune.grid_search(list(range(len(job.trials)))), "job": asdict(job)},
                run_config=tune.RunConfig(name="trials", storage_path=directory, verbose=0),
            ).fit()
        if grid.errors:
            raise RuntimeError(f"{len(grid.errors)} trials of the original way failed; the first: {grid.errors[0]}")
        last = [grid[index].metrics or {} for index in range(len(grid))]
    finally:
        ray.shutdown()
    return {
        "trials": len(last),
        "epochs": sum(metrics["epoch"] for metrics in last),
        "generated": sum(metrics["generated"] for metrics in last),
    }


def main() -> None:
    """Run the job of the file named on the command line."""
    silence_libraries()
    place = Path(sys.argv[1])
    outcome = run_study(Job(**json.loads(place.read_bytes())), place.parent)
    write_atomic(place, json.dumps(outcome).encode())


if __name__ == "__main__":
    main()
