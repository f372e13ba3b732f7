import inspect
import subprocess
import sys

import pytest

import gitdist

NAMES = [
    "GIT",
    "Dataset",
    "Generator",
    "GitdistError",
    "ekld",
    "load_study",
    "loss",
    "run",
    "sampler",
    "train_generator",
]
# Parameters and defaults of each public function and constructor. A change here is a change for users.
SIGNATURES = {
    "Dataset": "(spec, *, results='results')",
    "Dataset.from_arrays": "(images, labels, test_images=None, test_labels=None, *, class_names=None, groups=None, "
    "test_groups=None, test_share=0.2, results='results', **fields)",
    "Dataset.from_folder": "(path, *, results='results', **fields)",
    "Dataset.from_torch": "(train, test=None, *, class_names=None, groups=None, test_groups=None, test_share=0.2, "
    "results='results', **fields)",
    "GIT": "(generator, class_sizes, threshold=None, fraction=0.5, seed=0, *, threshold_kind='hard')",
    "GIT.__call__": "(self, images, labels)",
    "GIT.collate": "(self, samples)",
    "Generator": "(drawing, image_shape, *, write=None)",
    "Generator.draw": "(self, images, seed=0, *, num_draws=None)",
    "Generator.load": "(path, image_shape, *, image_size=None, device=None)",
    "Generator.preview": "(self, images, *, num_draws=8, seed=0, names=None)",
    "Generator.save": "(self, path)",
    "ekld": "(model, images, transform, labels=None, *, transformations=10, batch_size=256, seed=0, groups=None)",
    "load_study": "(path)",
    "loss": "(kind, class_sizes, *, sampler='instance', class_weights='none', **options)",
    "run": "(spec, *, results='results', scale=None, callbacks=(), progress=True, address=None, retry_failed=False, "
    "take_over=False)",
    "sampler": "(labels, kind, *, num_samples=None, epochs=None, seed=0, **options)",
    "train_generator": "(dataset, *, kind='munit', steps=None, device=None, progress=None, **options)",
}
SLOW_LIBRARIES = {"torch", "ray", "optuna", "mlflow", "pandas", "pydantic", "numpy"}


def test_the_public_names_are_frozen():
    assert gitdist.__all__ == NAMES
    assert set(NAMES) <= set(dir(gitdist))


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(gitdist, "no_such_name")


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_and_defaults_are_frozen(name):
    value = gitdist
    for part in name.split("."):
        value = getattr(value, part)
    parameters = inspect.signature(value).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(plain)) == SIGNATURES[name]


def test_the_import_is_quick():
    code = "import sys, gitdist; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "gitdist" in imported
    assert not imported & SLOW_LIBRARIES
