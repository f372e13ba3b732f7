"""Data sets as another package would offer them: good ones, and each mistake that one can make."""

import os
from pathlib import Path
from typing import Any

import numpy as np

SEED, SIDE = 0, 12
not_callable = 3


def arrays(path: Path | None, counts: tuple[int, int, int] = (40, 0, 0), channels: int = 3) -> dict[str, Any]:
    """Return random images of four classes, two of each group; the number of each split, 0 = none."""
    splits: dict[str, Any] = {}
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        images = np.random.default_rng(SEED + count).integers(0, 256, (count, SIDE, SIDE, channels), dtype=np.uint8)
        if count:
            splits[split] = {
                "images": images,
                "labels": np.arange(count) // 2 % 4,
                "groups": [f"{split}{index // 2}" for index in range(count)],
            }
    return splits


def named(path: Path | None, as_objects: bool = False) -> dict[str, Any]:
    """Return the images of ``arrays`` with names as labels, as an array of objects like that of a pandas column."""
    found = arrays(path)
    labels = [("ant", "bee", "cat", "dog")[label] for label in found["train"]["labels"]]
    train = {"images": found["train"]["images"], "labels": np.array(labels, object) if as_objects else labels}
    return {"train": train, "classes": ["dog", "cat", "bee", "ant"]}


def folder(path: Path, absolute: bool = False) -> dict[str, Any]:
    """Return the images in folders of classes by their paths."""
    files = sorted(path.glob("*/*.png"))
    paths = files if absolute else [str(file.relative_to(path)) for file in files]
    return {"train": {"paths": paths, "labels": [file.parent.name for file in files]}}


def fails(path: Path | None, how: str) -> Any:
    """Fail, or return something invalid."""
    found = arrays(path, (40, 0, 8))
    train = found["train"]
    match how:
        case "raise":
            raise RuntimeError("no table\nand more")
        case "leave":
            os._exit(0)
        case "abort":
            os.abort()
        case "list":
            return [1]
        case "no train":
            del found["train"]
        case "key":
            found["valid"] = train
        case "inner key":
            train["label"] = train["labels"]
        case "both":
            train["paths"] = ["a"] * 40
        case "mixed":
            found["test"] = {"paths": ["a"], "labels": [0]}
        case "no paths":
            return {"train": {"paths": [], "labels": []}}
        case "bytes":
            return {"train": {"paths": [b"a", b"b"], "labels": [0, 1]}}
        case "relative":
            return {"train": {"paths": ["a", "b"], "labels": [0, 1]}}
        case "objects":
            train["images"] = np.array([None] * 40)
        case "kind":
            train["images"] = train["images"] / 255
        case "order":
            train["images"] = train["images"].transpose(0, 3, 1, 2)
        case "shapes":
            train["images"] = train["images"][:, :, :8]
        case "labels":
            train["labels"] = train["labels"][1:]
        case "numbers":
            train["labels"] = train["labels"] / 2
        case "gaps":
            train["labels"] = train["labels"] * 2
        case "groups":
            del found["test"]["groups"]
        case "classes":
            found["classes"] = ["a", "b", "b", "c"]
        case "few":
            found["classes"] = ["a", "b"]
    return found
