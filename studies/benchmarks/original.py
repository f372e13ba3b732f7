"""The baseline ("the original way"): plain MUNIT, a DataLoader of PIL images and plain Ray Tune, nothing shared.

    PIL image -> crop -> flip -> RandAugment -> tensor [-> normalise] -> batch [-> generator -> normalise] -> SGD step

- Generator: torch's own layers in float32; content and style are encoded and the whole batch is decoded in every step
  after the switch. With the same weights it is the same function as gitdist's, up to rounding.
- Training and evaluation: float32, contiguous tensors, images of a DataLoader transformed one by one by torchvision
  (the faster of its two sets of transforms on PIL images: the first, except for RandAugment). Network, loss, learning
  rate and samplers are gitdist's.
- Study: ``python original.py JOB.json`` runs a list of trials with Ray Tune, each with its own generator. It writes no
  checkpoints and evaluates nothing on test. The result is written to the same file.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import data

from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import transform as apply_nuisance
from gitdist.device import Compute, set_threads
from gitdist.disk import write_atomic
from gitdist.generator.munit.networks import STYLE_DOWNSAMPLINGS, AutoEncoder, load_auto_encoder
from gitdist.logging import silence_libraries
from gitdist.spec import EvaluationSpec, MunitSpec, Share, TrialSpec
from gitdist.torchvision_cpu import torchvision
from gitdist.trial.checkpoint import fresh_classifier
from gitdist.trial.metrics import balanced_mean, expected_kl, log_probabilities, per_class_mean
from gitdist.trial.mixing import replaced_samples
from gitdist.trial.plan import build_loss, epoch_indices, learning_rate

EPS = 1e-5
EVALUATION_BATCH = 128

v1, v2 = (import_module(f"{torchvision.__name__}.transforms{version}") for version in ("", ".v2"))


def padded(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return reflection padding and a convolution."""
    return nn.Sequential(nn.ReflectionPad2d((kernel - 1) // 2), nn.Conv2d(inputs, outputs, kernel, stride=stride))


def adain(x: Tensor, style: Tensor | None, layer: int) -> Tensor:
    """Return instance norm of ``[N, C, H, W]``, scaled and shifted by ``style`` if there is one."""
    normal = functional.instance_norm(x, eps=EPS)
    return normal if style is None else normal * style[:, layer, 1] + style[:, layer, 0]


class PlainBlock(nn.Module):
    """A residual block with (adaptive) instance norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = padded(channels, channels, 3), padded(channels, channels, 3)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map ``[N, C, H, W]`` to the same shape; ``style`` is ``[N, 2 layers, (shift, scale), C, 1, 1]``."""
        y = functional.relu(adain(self.first(x), style, 0))
        return x + adain(self.second(y), style, 1)


class PlainUpsampling(nn.Module):
    """Nearest upsampling by 2, 5x5 convolution to half the channels, layer norm over the image, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels // 2, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels // 2, 1, 1))
        self.layers = nn.Sequential(nn.Upsample(scale_factor=2), *padded(channels, channels // 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C / 2, 2 * H, 2 * W]``."""
        y = self.layers(x)
        flat = y.flatten(1)
        mean, deviation = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        return functional.relu((y - mean) / (deviation + EPS) * self.gain + self.bias)


class PlainMunit(nn.Module):
    """One auto-encoder; its parameters are in the order of gitdist's ``AutoEncoder``."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        self.spec = spec
        widths = [spec.dim * 2**index for index in range(spec.num_downsample + 1)]
        style_widths = [spec.dim * 2 ** min(index, 2) for index in range(STYLE_DOWNSAMPLINGS + 1)]
        layers: list[nn.Module] = [padded(image_channels, spec.dim, 7), nn.ReLU()]
        for before, after in zip(style_widths, style_widths[1:], strict=False):
            layers += [padded(before, after, 4, 2), nn.ReLU()]
        head = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(style_widths[-1], spec.style_dim, 1), nn.Flatten())
        self.style_encoder = nn.Sequential(*layers, *head)
        layers = [padded(image_channels, spec.dim, 7), nn.InstanceNorm2d(spec.dim), nn.ReLU()]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [padded(before, after, 4, 2), nn.InstanceNorm2d(after), nn.ReLU()]
        self.content_encoder = nn.Sequential(*layers, *(PlainBlock(widths[-1]) for _ in range(spec.num_res)))
        self.blocks = nn.ModuleList(PlainBlock(widths[-1]) for _ in range(spec.num_res))
        self.upsamplings = nn.Sequential(*(PlainUpsampling(width) for width in widths[:0:-1]))
        self.output = padded(spec.dim, image_channels, 7)
        self.mlp = nn.Sequential(
            nn.Linear(spec.style_dim, spec.mlp_dim),
            nn.ReLU(),
            nn.Linear(spec.mlp_dim, spec.mlp_dim),
            nn.ReLU(),
            nn.Linear(spec.mlp_dim, spec.num_res * 4 * widths[-1]),
        )

    def copy_weights(self, auto_encoder: AutoEncoder) -> None:
        """Copy the weights of gitdist's network of the same settings."""
        with torch.no_grad():
            for own, other in zip(self.parameters(), auto_encoder.parameters(), strict=True):
                own.copy_(other)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Map content codes ``[N, C', H', W']`` and styles ``[N, style_dim]`` to images in -1..1 ``[N, C, H, W]``."""
        numbers = self.mlp(style).view(len(style), self.spec.num_res, 2, 2, -1, 1, 1)
        x = content
        for index, block in enumerate(self.blocks):
            x = block(x, numbers[:, index])
        return torch.tanh(self.output(self.upsamplings(x)))

    @torch.no_grad()
    def transform(self, images: Tensor) -> Tensor:
        """Return a fresh draw of each image, float32 ``[N, C, H, W]`` in 0..1: both encoders, a style, the decoder."""
        signed = images * 2 - 1
        content, _ = self.content_encoder(signed), self.style_encoder(signed)
        style = torch.randn(len(images), self.spec.style_dim, device=images.device)
        return (self.decode(content, style) + 1) / 2


def load_plain(spec: MunitSpec, image_channels: int, artifact: Path, device: torch.device) -> PlainMunit:
    """Return the plain network with the weights of the trained generator in the directory ``artifact``."""
    network = PlainMunit(spec, image_channels)
    network.copy_weights(load_auto_encoder(spec, image_channels, artifact))
    return network.to(device).eval()


def pil_image(image: NDArray[np.uint8]) -> Image.Image:
    """Return uint8 ``[C, H, W]`` of one or three channels as a PIL image."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


class PilImages(data.Dataset[tuple[Tensor, int]]):
    """Images that are transformed one at a time when they are asked for, ``times`` times each in succession."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], to_input: Any, nuisance: str = "", times: int = 1
    ) -> None:
        self._images, self._labels, self._to_input = images, labels, to_input
        self._nuisance, self._times = nuisance, times
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._labels) * self._times

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image, float32 ``[C, H, W]``, under a fresh draw of the nuisance if there is one, and its label."""
        index //= self._times
        image = self._images[index]
        if self._nuisance:
            image = apply_nuisance(self._nuisance, image[None], self._rng)[0]
        return self._to_input(pil_image(image)), int(self._labels[index])


def normalisation(dataset: Dataset) -> Any:
    """Return torchvision's normalisation by the training images' statistics."""
    return v1.Normalize(list(dataset.mean), list(dataset.std))


def num_loader_processes(device: torch.device, cpu: float) -> int:
    """Return the processes of a trial's DataLoader: none if it computes on the same cores, else one per CPU."""
    return 0 if device.type == "cpu" else int(cpu)


class OriginalTrainer:
    """Trains a classifier epoch by epoch."""

    def __init__(
        self,
        spec: TrialSpec,
        dataset: Dataset,
        device: torch.device,
        num_workers: int,
        generator: PlainMunit | None = None,
    ) -> None:
        """Make classifier, loader and optimiser.

        Args:
            spec: the trial.
            dataset: its training images are used.
            device: where it trains.
            num_workers: processes of the DataLoader, which live as long as the trainer.
            generator: transforms whole batches after the switch; None = no augmentation.
        """
        self.generated = 0
        self._spec, self._dataset, self._device, self._generator = spec, dataset, device, generator
        self.model = fresh_classifier(spec, dataset).to(device)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        self._indices: list[int] = []  # of the present epoch, in the order of training
        self._loader = data.DataLoader(
            PilImages(dataset.train.images, dataset.train.labels, self._transforms()),
            spec.batch_size,
            sampler=self._indices,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
        )

    def run(self, epoch: int) -> int:
        """Train one epoch, counted from 1; return the number of samples."""
        spec, dataset = self._spec, self._dataset
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(spec, epoch)
        labels, sizes = dataset.train.labels, dataset.class_sizes
        indices = epoch_indices(spec, labels, sizes, epoch)
        self._indices[:] = indices.tolist()
        replaced = torch.from_numpy(replaced_samples(spec, labels[indices], sizes, epoch)).to(self._device)
        loss_of = build_loss(spec, sizes, epoch, self._device)
        for (images, targets), mask in zip(self._loader, torch.split(replaced, spec.batch_size), strict=True):
            images = images.to(self._device, non_blocking=True)
            targets = targets.to(self._device, non_blocking=True)
            if self._generator is not None:
                if epoch > spec.switch_epoch:
                    images = self._augment(images, mask, self._generator)
                images = normalisation(dataset)(images)
            loss = loss_of(self.model(images), targets)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            loss.item()  # a running mean of the loss is kept in every step
        return len(self._indices)

    def _transforms(self) -> Any:
        spec, (_, height, width) = self._spec, self._dataset.image_shape
        steps = [v1.RandomCrop((height, width), padding=spec.crop_padding)] if spec.crop_padding else []
        steps += [v1.RandomHorizontalFlip()] if spec.flip else []
        if spec.randaugment_ops:
            steps.append(v2.RandAugment(spec.randaugment_ops, spec.randaugment_magnitude))
        steps.append(v1.ToTensor())
        steps += [normalisation(self._dataset)] if self._generator is None else []
        return v1.Compose(steps)

    def _augment(self, images: Tensor, mask: Tensor, generator: PlainMunit) -> Tensor:
        """Transform the whole batch, and use the images that Algorithm 1 replaces."""
        drawn = generator.transform(images)
        self.generated += len(images)
        return torch.where(mask[:, None, None, None], drawn, images)


@torch.no_grad()
def evaluate_originally(
    model: nn.Module,
    dataset: Dataset,
    evaluation: EvaluationSpec,
    device: torch.device,
    num_workers: int = 0,
) -> tuple[float, float | None]:
    """Return balanced accuracy and eKLD (nats) on the validation split; None if no nuisance is known."""
    split, num_classes = dataset.validation, dataset.num_classes
    to_input = v1.Compose([v1.ToTensor(), normalisation(dataset)])

    def predict(images: PilImages) -> Tensor:
        loader = data.DataLoader(images, EVALUATION_BATCH, num_workers=num_workers)
        return torch.cat([log_probabilities(model(inputs.to(device))).cpu() for inputs, _ in loader])

    was_training = model.training
    model.eval()
    try:
        log_p = predict(PilImages(split.images, split.labels, to_input))
        correct = (log_p.argmax(1).numpy() == split.labels).astype(np.float64)
        accuracy = balanced_mean(per_class_mean(correct, split.labels, num_classes))
        if dataset.nuisance == "none":
            return accuracy, None
        count, times = evaluation.epoch_images_per_class, evaluation.epoch_transformations
        first = np.concatenate([np.flatnonzero(split.labels == index)[:count] for index in range(num_classes)])
        clean, labels = split.clean[first], split.labels[first]
        log_p = predict(PilImages(clean, labels, to_input))
        transformed = predict(PilImages(clean, labels, to_input, dataset.nuisance, times)).view(len(first), times, -1)
    finally:
        model.train(was_training)
    ekld = per_class_mean(expected_kl(log_p, transformed).numpy(), labels, num_classes)
    return accuracy, balanced_mean(ekld)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The input of a whole study, as JSON values; ``trials`` are trial specs, ``share`` is what one trial takes."""

    dataset: str
    artifact: str
    generator: dict[str, Any]
    trials: list[dict[str, Any]]
    evaluation: dict[str, Any]
    share: dict[str, Any]


def train_trial(config: dict[str, Any]) -> None:
    """Train one classifier and report each epoch to Tune; ``config`` holds ``job`` and the ``index`` of the trial."""
    from ray import tune

    job = Job(**config["job"])
    spec, share = TrialSpec(**job.trials[config["index"]]), Share(**job.share)
    evaluation, munit = EvaluationSpec(**job.evaluation), MunitSpec(**job.generator)
    set_threads(share.cpu)
    dataset, device = Dataset.open(Path(job.dataset)), Compute.resolve("float32", share.device).device
    generator = load_plain(munit, dataset.image_shape[0], Path(job.artifact), device) if spec.fraction else None
    num_workers = num_loader_processes(device, share.cpu)
    trainer = OriginalTrainer(spec, dataset, device, num_workers, generator)
    for epoch in range(1, spec.epochs + 1):
        trainer.run(epoch)
        metrics: dict[str, Any] = {"epoch": epoch, "generated": trainer.generated}
        if epoch % evaluation.every == 0 or epoch == spec.epochs:
            accuracy, ekld = evaluate_originally(trainer.model, dataset, evaluation, device, num_workers)
            metrics |= {"balanced_accuracy": accuracy, "ekld": ekld}
        tune.report(metrics)


def run_study(job: Job, scratch: Path) -> dict[str, int]:
    """Run all trials of a job; return the numbers of epochs trained and images generated.

    Raises:
        RuntimeError: a trial failed.
    """
    import ray
    from ray import tune

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        grid = tune.Tuner(
            tune.with_resources(train_trial, {"cpu": job.share["cpu"], "gpu": job.share["gpu"]}),
            param_space={"index": tune.grid_search(list(range(len(job.trials)))), "job": asdict(job)},
            run_config=tune.RunConfig(name="trials", storage_path=directory, verbose=0),
        ).fit()
    if grid.errors:
        raise RuntimeError(f"{len(grid.errors)} trials failed; the first: {grid.errors[0]}")
    last = [grid[index].metrics or {} for index in range(len(grid))]
    ray.shutdown()
    return {
        "epochs": sum(metrics["epoch"] for metrics in last),
        "generated": sum(metrics["generated"] for metrics in last),
    }


def main(file: Path) -> None:
    """Run the job in a file and write the result to the same file."""
    silence_libraries()
    outcome = run_study(Job(**json.loads(file.read_bytes())), file.parent)
    write_atomic(file, json.dumps(outcome).encode())


if __name__ == "__main__":
    import original  # Ray's workers import it too; they cannot unpickle torchvision's modules of __main__

    original.main(Path(sys.argv[1]))
