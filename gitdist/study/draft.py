"""Chooses the settings of a first study for a data set, and writes them as a study file with comments.

Pure functions: what is known of data and machine goes in, text comes out. The choices are those of the studies that
come with gitdist, at the size of the data: enough to see whether augmentation helps, in hours without a GPU.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gitdist.data.longtail import class_sizes, floor
from gitdist.spec import DataSpec
from gitdist.spec.study import check_name

IMAGE_SIZES = (16, 24, 32, 48, 64)  # pixels
_LARGEST_ON_CPU = 32
_SHARES = (0.2, 0.25, 0.3)  # of a class that become validation or test images
_WANTED = 5  # validation images of the smallest class
_MOST_TRAINING_IMAGES = {False: 1000, True: 5000}  # of the largest class of a published data set, without and with GPU
_FEWEST_TRAINING_IMAGES = 10
_UPDATES = {False: 2000, True: 8000}  # of the weights in a training, without and with GPU
_MIRRORED = ("images", "npz", "cifar-10", "cifar-100")  # sources whose images keep their class when mirrored
_NUISANCES = {name: "background" for name in ("digits", "fashion-mnist", "kuzushiji-mnist", "kuzushiji-49")}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a study may use here."""

    num_cpus: int
    num_gpus: int

    def __str__(self) -> str:
        cpus = f"{self.num_cpus} CPU{'s' if self.num_cpus > 1 else ''}"
        return f"{cpus} and {self.num_gpus} GPU{'s' if self.num_gpus > 1 else ''}" if self.num_gpus else cpus


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """The user's own images: a folder of classes, or of arrays.

    ``counts`` has the images of each class from which missing splits are taken; ``sides`` the smallest, median and
    largest shorter side in pixels, None for arrays, whose size stays.
    """

    source: str
    path: str  # as the study file names it
    counts: Mapping[str, int]
    given: Sequence[str]  # the splits that are there, such as test
    sides: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """A public data set; ``counts`` has the official training images of each class."""

    source: str
    counts: Mapping[str, int]


def study_name(text: str) -> str:
    """Return a study's name that resembles ``text``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:50].rstrip("._-") or "study"
    try:
        return check_name(name)
    except ValueError:  # a reserved one
        return f"{name.replace('.', '-')}-study"


def too_small(data: OwnData) -> list[str]:
    """Return the classes with fewer images than splits that are made of them; a study must leave them out."""
    needed = 1 + sum(split not in data.given for split in ("validation", "test"))
    return [name for name, count in data.counts.items() if count < needed]


def draft_data(data: OwnData | PublishedData, machine: Machine) -> dict[str, tuple[object, str]]:
    """Return the fields of ``data`` with values and comments."""
    if isinstance(data, PublishedData):
        return _published_fields(data, machine)
    excluded = too_small(data)
    smallest = min(count for name, count in data.counts.items() if name not in excluded)
    fields: dict[str, tuple[object, str]] = {
        "source": (data.source, ""),
        "path": (data.path, "" if data.path.startswith("/") else "relative to this file"),
    }
    if excluded:
        fields["exclude"] = (excluded, "too few images for training, validation and test")
    if data.sides is not None:
        fields["image_size"] = _image_size(data.sides, machine)
    share = next((share for share in _SHARES if smallest * share >= _WANTED), _SHARES[-1])
    if "test" not in data.given and data.source == "images":
        fields["test_share"] = (share, "of each class; a folder test/ would be used as it is")
    if "validation" not in data.given:
        fields["validation"] = (share, "of the rest: the search sees these images alone")
    fields["profile"] = ({"kind": "none"}, "your class sizes as they are")
    return fields


def training_sizes(data: OwnData | PublishedData, machine: Machine) -> list[int]:
    """Return the training images of each class in a study with the fields of ``draft_data``."""
    spec = DataSpec.model_validate({field: value for field, (value, _) in draft_data(data, machine).items()})
    test_share = spec.test_share if isinstance(data, OwnData) and "test" not in data.given else 0.0
    validation_share = 0.0 if isinstance(data, OwnData) and "validation" in data.given else spec.validation_share
    available = []
    for name, count in data.counts.items():
        if name not in spec.exclude:
            rest = count - (max(1, floor(test_share * count)) if test_share else 0)
            held_out = max(1, floor(validation_share * rest)) if validation_share else 0
            available.append(rest - min(held_out, spec.validation_per_class or held_out))
    return class_sizes(spec.profile, available, spec.version)


def _image_size(sides: tuple[int, int, int], machine: Machine) -> tuple[object, str]:
    smallest, median, largest = sides
    size = max((size for size in IMAGE_SIZES if size <= median), default=IMAGE_SIZES[0])
    found = f"the shorter sides have {smallest}" + (f" to {largest}" if largest > smallest else "") + " pixels"
    if machine.num_gpus or size <= _LARGEST_ON_CPU:
        return size, found
    return _LARGEST_ON_CPU, f"{found}; 64 shows more and takes 4 times as long"


def _published_fields(data: PublishedData, machine: Machine) -> dict[str, tuple[object, str]]:
    nuisance = _NUISANCES.get(data.source, "none")
    why = "applied once to each image: what the classifier must become invariant to"
    fields: dict[str, tuple[object, str]] = {
        "source": (data.source, ""),
        "nuisance": (nuisance, why if nuisance != "none" else "eKLD is measured under the generator's draws"),
    }
    fewest, most = min(data.counts.values()), max(data.counts.values())
    if most >= 4 * fewest:  # a long tail already
        fields["profile"] = ({"kind": "none"}, f"its own long tail: {most:,} to {fewest:,} images per class")
        return fields
    largest = min(_MOST_TRAINING_IMAGES[machine.num_gpus > 0], math.floor(0.8 * fewest))
    factor = max(0.01, math.ceil(100 * _FEWEST_TRAINING_IMAGES / largest) / 100)
    profile = {"kind": "exponential", "largest": largest, "factor": factor}
    fields["profile"] = (profile, f"a long tail: {largest:,} down to {math.floor(largest * factor)} images")
    return fields


def describe_sizes(data: OwnData | PublishedData, machine: Machine) -> str:
    """Return how many classes and training images a study with the fields of ``draft_data`` has."""
    sizes = training_sizes(data, machine)
    return f"{len(sizes)} classes of {max(sizes):,} to {min(sizes):,} training images"


def draft_study(
    name: str,
    data: OwnData | PublishedData,
    side: int,
    network: str,
    machine: Machine,
) -> str:
    """Return the text of a study file.

    Args:
        name: of the study.
        data: the data set.
        side: of the study's images, in pixels.
        network: the classifier's.
        machine: that the study shall run on.
    """
    sizes, has_gpu = training_sizes(data, machine), machine.num_gpus > 0
    total = sum(sizes)
    mirrored = data.source in _MIRRORED
    lines = [
        f"# {describe_sizes(data, machine)}, {side}x{side} pixels; made for {machine}.",
        "# Change what you like: `gitdist schema` describes all fields, `gitdist run FILE --dry-run` checks them and",
        "# shows how long the study takes.",
        f"name: {_scalar(name)}",
        "data:",
        *(_line(field, value, comment) for field, (value, comment) in draft_data(data, machine).items()),
    ]
    if isinstance(data, OwnData) and data.source == "images":
        lines.append("  # group: folder  # if CLASS/OBJECT/ has several images of one object: they stay in one split")
    lines += ["generator:", *_generator(total, side, mirrored, has_gpu)]
    lines += ["trial:", *_trial(total, side, network, mirrored, has_gpu)]
    lines += ["search:", *_search(sizes, has_gpu)]
    if not has_gpu:
        lines.append("evaluation: {every: 5, final_transformations: 20}  # eKLD is slow without a GPU")
        if machine.num_cpus <= 2:
            lines.append("resources: {server: {cpu: 0.5}, trial: {cpu: 0.75}}  # two trials at once on two CPUs")
    return "\n".join(lines) + "\n"


def _generator(num_images: int, side: int, mirrored: bool, has_gpu: bool) -> list[str]:
    layers = 2 if side < 16 else 3 if side <= 32 else 4
    halvings = 2 if side % 4 == 0 else 1 if side % 2 == 0 else 0
    if has_gpu:
        widths = {"dim": 64, "num_res": 4, "discriminator_dim": 64}
        steps, rate, why = 20_000, 1e-4, "it has the published size"
    else:
        widths = {"dim": 16, "num_res": 1 if side < 16 else 2, "discriminator_dim": 32}
        steps, rate, why = 2000 if num_images >= 1000 else 1000, 5e-4, "it is small, for a machine without a GPU"
    fields = {
        "kind": "munit",
        **widths,
        "discriminator_layers": layers,
        **({} if halvings == 2 else {"num_downsample": halvings}),
        "steps": steps,
        "batch_size": 8,
        "lr": rate,
        "flip": mirrored,
    }
    return [
        f"  # Learns without labels how images vary; {why}. More steps give better draws;",
        "  # `gitdist generator preview FILE` shows them.",
        f"  {_mapping(fields)}",
    ]


def _trial(num_images: int, side: int, network: str, mirrored: bool, has_gpu: bool) -> list[str]:
    batch_size = 32 if num_images < 2000 else 64 if num_images < 20_000 else 128
    epochs = min(60, max(15, 5 * round(_UPDATES[has_gpu] * batch_size / num_images / 5)))
    switch = round(0.6 * epochs)
    fields = [
        _line("network", network, "for images of this size"),
        _line("epochs", epochs, f"{math.ceil(num_images / batch_size):,} batches each"),
        _line("switch_epoch", switch, "until here all trials train alike, once: no augmentation, no balancing"),
        _line("sampler", "class-balanced", "after that epoch; searched below"),
        _line("batch_size", batch_size, ""),
        _line("lr_warmup_epochs", 2, ""),
        _line("lr_decay", 0.1, "of lr after 60 % and 80 % of the epochs; lr_milestones names others"),
    ]
    if mirrored:
        fields.append(_line("flip", True, "false if mirrored images are of another class"))
    if side >= 28:
        fields.append(_line("crop_padding", max(2, side // 8), ""))
    return fields


def _search(sizes: Sequence[int], has_gpu: bool) -> list[str]:
    low, high = min(sizes) + 1, max(sizes) + 1
    is_tailed = high > low + 1
    fields = [
        _line("total", 16 if has_gpu else 12 if is_tailed else 8, "trials, and a baseline without augmentation"),
        _line("objective", "val/balanced_accuracy", "or [val/balanced_accuracy, val/ekld]: accuracy and invariance"),
        "  space:",
    ]
    if is_tailed:
        log = {"log": True} if high >= 4 * low else {}
        comment = f"K, from the smallest class alone to all ({high})"
        fields.append(_line("threshold", {"int": [low, high], **log}, comment, indent=4))
    else:
        fields.append("    # K is not searched: the classes are equally large, so all are augmented")
    samplers = ["class-balanced", "square-root", "effective-number"]
    fields.append(_line("fraction", {"float": [0.1, 0.9]}, "p, the share of each batch that may be draws", indent=4))
    return [*fields, _line("sampler", {"choice": samplers}, "", indent=4)] if is_tailed else fields


def _line(field: str, value: object, comment: str, indent: int = 2) -> str:
    return f"{' ' * indent}{field}: {_mapping(value)}" + (f"  # {comment}" if comment else "")


def _mapping(value: object) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_mapping(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_mapping, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if value < 0.01 else f"{value:g}" if value != int(value) else f"{value:.1f}"
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value)
    is_word = is_plain and str(value).lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return str(value) if is_word else json.dumps(value)
