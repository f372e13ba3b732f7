"""Every remedy that a message about a study file names is applied here, and the file is then accepted."""

from pathlib import Path

import pytest

from gitdist.cli.errors import error_message
from gitdist.errors import SpecError
from gitdist.spec.file import load_plan, load_study

ONE_CHOICE = "search: {space: {loss: {choice: [cross-entropy, ldam]}, ldam_scale: {int: [10, 30], when: {loss: %s}}}}"
BIG_GRID = (
    "search: {algorithm: %s, space: {fraction: {float: [0, 1], points: %s}, lr: {float: [0.1, 1], points: 1000}}}"
)
POINT = "search: {space: {loss: {choice: [ldam, focal]}, lr: {float: [0.1, 1], when: {loss: ldam}}}, try_first: [%s]}"

CASES = [
    # file, words of the message, the file after the remedy
    ("trail: {epochs: 3}", "did you mean 'trial'", "trial: {epochs: 3}"),
    ("trial: {epohcs: 3}", "did you mean 'epochs'", "trial: {epochs: 3}"),
    ("search: {space: {lrr: {float: [0.1, 1]}}}", "did you mean 'lr'", "search: {space: {lr: {float: [0.1, 1]}}}"),
    ("search: {objective: val/ekdl}", "did you mean 'ekld'", "search: {objective: val/ekld}"),
    ("search: {space: {method: {choice: [a]}}}", "there is none; remove it", "search: {space: {}}"),
    ("search: {try_first: [{lr: 1}]}", "there is none; remove it", "search: {try_first: [{}]}"),
    ("title: 5", "quote it", 'title: "5"'),
    ("title: yes", "quote it", 'title: "yes"'),
    ("title: 2024-13-45", "quote it", 'title: "2024-13-45"'),
    ("data: {version: 010}", "write a number", "data: {version: 10}"),
    ("data: {exclude: [08]}", "quote it", 'data: {exclude: ["08"]}'),
    ("methods: {no: {}, b: {}}", "quote it", 'methods: {"no": {}, b: {}}'),
    ("trial: {lr: 1}\ntrial: {epochs: 9}", "remove one", "trial: {epochs: 9}"),
    ("title: !mine a", "remove it", "title: a"),
    ("trial:\n\tepochs: 9", "use spaces", "trial:\n  epochs: 9"),
    ("trial: {lr_milestones: [30, 10, 10]}", "sort them, each once", "trial: {lr_milestones: [10, 30]}"),
    ("methods: {a: {lr_milestones: [9, 3]}}", "sort them", "methods: {a: {lr_milestones: [3, 9]}}"),
    (
        "trial: {class_weights: inverse, switch_epoch: 50}",
        "lower it",
        "trial: {class_weights: inverse, switch_epoch: 49}",
    ),
    (
        "trial: {class_weights: inverse, switch_epoch: 50}",
        "weights_deferred to false",
        "trial: {class_weights: inverse, switch_epoch: 50, weights_deferred: false}",
    ),
    ("trial: {class_weights: inverse, switch_epoch: 50}", "class_weights to none", "trial: {switch_epoch: 50}"),
    (
        "data: {profile: {kind: zipf, largest: 3}}",
        "lower smallest",
        "data: {profile: {kind: zipf, largest: 3, smallest: 1}}",
    ),
    (
        "data: {test_share: 0.5}",
        "applies only to the source images and list",
        "data: {test_share: 0.5, source: images}",
    ),
    ("data: {group: folder}", "omitted", "data: {}"),
    (
        "data: {source: images, group: '('}",
        "folder, none or a regular expression",
        "data: {source: images, group: '[(]'}",
    ),
    ("generator: {kind: oracle}", "name the nuisance there", "generator: {kind: oracle}\ndata: {nuisance: rotation}"),
    ("generator: {kind: oracle}", "choose another generator", "generator: {kind: identity}"),
    ("generator: {dim: 8}", "kind is required", "generator: {kind: munit, dim: 8}"),
    ("trial: {true_nuisance: true}", "name the nuisance", "trial: {true_nuisance: true}\ndata: {nuisance: rotation}"),
    ("trial: {true_nuisance: true}", "set true_nuisance to false", "trial: {true_nuisance: false}"),
    ("search: {total: 0}", "requires baseline: false", "search: {total: 0}\nbaseline: false"),
    ("resources: {autoscaling: true}", "needs max_concurrent", "resources: {autoscaling: true, max_concurrent: 4}"),
    (
        "search: {objective: [val/ekld, val/few_accuracy], pruner: {kind: median}}",
        "remove the pruner",
        "search: {objective: [val/ekld, val/few_accuracy]}",
    ),
    (
        "search: {objective: [val/ekld, val/few_accuracy], pruner: {kind: median}}",
        "name one objective",
        "search: {objective: val/ekld, pruner: {kind: median}}",
    ),
    (
        "search: {pruner: {kind: median}, space: {epochs: {int: [20, 50]}}}",
        "remove it from the space",
        "search: {pruner: {kind: median}, space: {}}",
    ),
    (
        "search: {pruner: {kind: median}, space: {epochs: {int: [20, 50]}}}",
        "search.pruner.kind to none",
        "search: {pruner: {kind: none}, space: {epochs: {int: [20, 50]}}}",
    ),
    (
        "search: {pruner: {kind: median, min_epochs: 50}}",
        "below the 50",
        "search: {pruner: {kind: median, min_epochs: 49}}",
    ),
    ("search: {try_first: [{}, {}], total: 1}", "raise total", "search: {try_first: [{}, {}], total: 2}"),
    (POINT % "{loss: focal, lr: 1}", "remove it from the point", POINT % "{loss: focal}"),
    (POINT % "{lr: 2}", "lie in the searched range", POINT % "{lr: 1}"),
    (ONE_CHOICE % "focal", "must be among", ONE_CHOICE % "ldam"),
    (BIG_GRID % ("grid", 1000), "lower the points", BIG_GRID % ("grid", 100)),
    (BIG_GRID % ("grid", 1000), "search.algorithm to random", BIG_GRID % ("random", 1000)),
    (
        "search: {algorithm: grid, space: {threshold: {int: [1, 1000000], step: 1}}}",
        "raise the steps",
        "search: {algorithm: grid, space: {threshold: {int: [1, 1000000], step: 100}}}",
    ),
    ("ledger: postgresql://me:pw@h/db", "PGPASSWORD", "ledger: postgresql://me@h/db"),
    ("tracking: {uri: 'http://me:pw@h'}", "leave it out", "tracking: {}"),
    ("store: {uri: 's3://key:pw@bucket'}", "environment", "store: {uri: 's3://bucket'}"),
    ("matrix: {}", "remove", ""),
    ("matrix: {}", "fill it", "matrix: {data.version: [0]}"),
    ("matrix: {data: [{version: 1}]}", "map labels to changes", "matrix: {data: {a: {data.version: 1}}}"),
    ("matrix: {data.version: 1}", "must be a list of values", "matrix: {data.version: [1]}"),
    (
        f"matrix: {{data.version: {list(range(1001))}}}",
        "shorten its lists",
        f"matrix: {{data.version: {list(range(1000))}}}",
    ),
    ("matrix: {1: {a: {}}}", "quote it", 'matrix: {"1": {a: {}}}'),
    ("data: digits\nmatrix: {data.version: [1]}", "make it one", "data: {source: digits}\nmatrix: {data.version: [1]}"),
    ("scale: {1: {}}", "quote it", 'scale: {"1": {}}'),
]


def read(folder: Path, text: str, *overrides: str):
    file = folder / "study.yaml"
    file.write_text(text if "name:" in text.split("\n")[0] else f"name: a\n{text}\n")
    return load_plan(file, overrides)


@pytest.mark.parametrize(("text", "words", "better"), CASES)
def test_the_remedy_in_a_message_works(tmp_path, text, words, better):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    assert words in error_message(caught.value)
    read(tmp_path, better)


@pytest.mark.parametrize("name", ["a.yaml", "a.YML", "mlflow.db", "a.owners", ".a", "a" * 65, "", "a/b", "é"])
def test_a_name_that_is_another_entry_or_a_file_is_refused(tmp_path, name):
    with pytest.raises(SpecError, match="a study's name is a folder"):
        read(tmp_path, f"name: '{name}'")


@pytest.mark.parametrize("override", ["name=5", "title=5", "title=yes"])
def test_the_remedy_of_an_override_is_for_the_shell(tmp_path, override):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, "", override)
    field, _, value = override.partition("=")
    assert "--set 'FIELD=\"VALUE\"'" in error_message(caught.value)
    read(tmp_path, "", f'{field}="{value}"')


def test_one_study_of_a_matrix_is_chosen_with_overrides(tmp_path):
    read(tmp_path, "matrix: {data.nuisance: [rotation, background], draws: {a: {}, b: {trial.lr: 1}}}")
    with pytest.raises(SpecError, match="matrix=null, name=NAME and the fields that the matrix varies"):
        load_study(tmp_path / "study.yaml")
    overrides = ["matrix=null", "name=one", "data.nuisance=rotation", "trial.lr=1"]
    assert load_study(tmp_path / "study.yaml", overrides).data.nuisance == "rotation"


@pytest.mark.parametrize(
    ("text", "overrides", "origin"),
    [
        ("trial: {epochs: -1}", ["trial.lr=0.5"], "study.yaml: trial.epochs"),
        ("trial: {epochs: -1}", ["trial.lr=-0.5"], "study.yaml: trial.epochs"),
        ("trial: {epochs: 9}", ["trial.lr=0.5", "trial.epochs=-1"], "override trial.epochs: "),
        (
            "trial: {epochs: 9}",
            ["trial.switch_epoch=8", "trial.epochs=5"],
            "override trial.epochs: trial: switch_epoch",
        ),
        ("trial: {epochs: 9}", ["trial.switch_epoch=20", "data.version=1"], "override trial.switch_epoch: "),
        ("matrix: {data.version: [0, 1]}", ["data.nuisance=no"], "override data.nuisance, a.version0: "),
        ("matrix: {data.version: [0, x]}", ["data.nuisance=rotation"], "study.yaml, a.x: data.version"),
        ("", ["trial=[1, 2"], "override trial, line 1: "),
        ("", ["trial={lr: 1, lr: 2}"], "override trial, line 1: "),
        ("", ["a." * 100 + "b=1"], "override a."),
        ("matrix: {draws: {a: {draws: 1}}}", ["draws=[1]"], "override draws: "),
    ],
)
def test_a_mistake_is_of_the_override_with_which_it_came(tmp_path, text, overrides, origin):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text, *overrides)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(origin), caught.value
