from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gitdist.errors import DataError
from gitdist.export.predict import list_images, predict_files


def test_images_are_decoded_to_the_shape_of_the_classifier(model, digits, tmp_path):
    images = digits.test.images[:3]
    for index, image in enumerate(images):
        Image.fromarray(image[0]).save(tmp_path / f"{index}.png")
    colour = Image.fromarray(images[0, 0]).convert("RGB").resize((24, 16), Image.Resampling.NEAREST)
    colour.save(tmp_path / "wide.png")
    predictions = list(predict_files(model, list_images([tmp_path])))
    assert [prediction.file.name for prediction in predictions] == ["0.png", "1.png", "2.png", "wide.png"]
    found = np.stack([prediction.probabilities for prediction in predictions])
    assert found.shape == (4, 10) and np.allclose(found[:3], model.probabilities(images), atol=1e-6)
    name, probability = predictions[1].best
    assert probability == found[1].max() and name == model.class_names[found[1].argmax()]


def test_files_and_folders_are_listed_in_order_without_what_is_no_image(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "b/c/3.bmp", "b/notes.txt", "b/.hidden.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_images([tmp_path / "b", tmp_path / "a.png"])
    assert [str(file.relative_to(tmp_path)) for file in found] == ["b/1.png", "b/2.JPG", "b/c/3.bmp", "a.png"]


def test_a_damaged_or_missing_image_and_an_empty_folder_are_named(model, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for file in (tmp_path / "damaged.png", tmp_path / "none.png"):
        with pytest.raises(DataError, match=file.name):
            list(predict_files(model, list_images([file])))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        list_images([tmp_path / "empty"])
    (tmp_path / "empty" / "film.gif").touch()
    with pytest.raises(DataError, match="film.gif"):
        list_images([tmp_path / "empty"])


def test_a_classifier_of_other_arrays_takes_no_image_files(model, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    for shape in ((1, 8, 9), (2, 8, 8)):
        with pytest.raises(DataError, match=r"\[\d, 8, \d\]"):
            list(predict_files(replace(model, image_shape=shape), [tmp_path / "0.png"]))
