from dataclasses import replace

import pytest
import yaml

from gitdist.report.answer import answers
from gitdist.report.comparison import Report
from gitdist.spec.file import parse_study
from tests.report.studies import study, trial

SPACE = {"threshold": {"int": [5, 100]}, "fraction": {"float": [0.1, 0.9]}}
POINT = {"threshold": 15, "fraction": 0.19}
ONLY_A_GENERATOR = replace(
    study(),
    spec=parse_study(
        {"name": "s", "data": {"source": "digits"}, "baseline": False, "search": {"total": 0, "space": {}}}, "test"
    ),
)


def with_error(one, error=0.02):
    """Return a trial whose balanced accuracy has a standard error on both splits."""
    splits = {
        name: replace(split, metrics={**split.metrics, "balanced_accuracy_se": error})
        for name, split in one.splits.items()
    }
    return replace(one, splits=splits)


def searched(best=0.6, baseline=0.5, error=0.02, test=True, **changes):
    """A finished search with one trial and a baseline."""
    trials = [with_error(trial(3, POINT, accuracy=best, slope=0.05, test=test), error)]
    reference = with_error(trial(None, accuracy=baseline, augmented=False), error) if baseline else None
    return replace(
        study(name="s", space=SPACE, trials=trials, baseline=reference, best=(3,)), **{"summary": {"x": 1}, **changes}
    )


def first(*studies):
    return answers(Report(studies))[0].sentences[0]


def methods(accuracies, seeds=(0,), **values):
    """A study of methods with an accuracy per method and seed."""
    fields = {"CE": {"fraction": 0}, "GIT": {"threshold": 40}, "oracle": {"fraction": 0, "true_nuisance": True}}
    names = list(fields)[: len(accuracies)]
    trials = [
        trial(len(seeds) * n + i, {"method": name, "seed": seed}, accuracy=accuracies[n][i], augmented=name == "GIT")
        for n, name in enumerate(names)
        for i, seed in enumerate(seeds)
    ]
    space = {"method": {"choice": names}, "seed": {"choice": list(seeds)}}
    record = study(space=space, trials=trials, methods={name: fields[name] for name in names}, **values)
    return replace(record, summary={"x": 1})


def test_one_seed_states_setting_numbers_and_what_the_gap_is_worth():
    (answer,) = answers(Report([searched()]))
    (sentence,) = answer.sentences
    assert sentence.startswith(
        "K = 15, p = 0.19 (trial 3) against the baseline: balanced accuracy 0.500 → 0.600, eKLD "
    )
    assert "(−50 %) on test, one seed" in sentence and "3.5 standard errors" in sentence
    assert sentence.endswith("`gitdist confirm s`.")
    assert yaml.safe_load(answer.setting) == {"trial": POINT}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"best": 0.51}, "smaller than its standard error (0.028); confirm"),
        ({"best": 0.5}, "one seed: no gain in balanced accuracy."),
        ({"best": 0.4}, "0.500 → 0.400"),
        ({"error": 0.0}, "is unknown; confirm"),
        ({"test": False}, "on validation, where it was chosen"),
        ({"baseline": None}, "one seed: there is no baseline to compare it with."),
        ({"summary": None}, "So far, of 1 finished trial: K = 15"),
        ({"best": 0.5, "best_trials": ()}, "No finished trial meets the constraints"),
    ],
)
def test_the_words_fit_the_evidence(changes, words):
    changes = {"best" if name == "best_trials" else name: value for name, value in changes.items()}
    record = searched(**{name: value for name, value in changes.items() if value != ()})
    if () in changes.values():
        record = replace(record, best=())
    assert words in first(record)


def test_a_baseline_that_failed_is_named():
    record = replace(searched(), baseline=trial(None, state="failed"))
    assert first(record).endswith("there is nothing to compare it with: the baseline is failed.")


def test_eKLD_under_the_generator_is_not_called_invariance_to_a_nuisance():
    spec = parse_study({"name": "s", "data": {"source": "digits"}, "search": {"space": SPACE}}, "test")
    (answer,) = answers(Report([replace(searched(), spec=spec)]))
    assert "eKLD under the learned generator" in answer.sentences[0]
    assert "No nuisance is known" in answer.sentences[1]


def test_several_objectives_have_a_front():
    search = {"space": SPACE, "objective": ["val/balanced_accuracy", "val/ekld"]}
    spec = parse_study({"name": "s", "data": {"source": "digits", "nuisance": "background"}, "search": search}, "test")
    trials = [trial(1, {**POINT, "threshold": 9}, accuracy=0.55, slope=0.01), trial(3, POINT, accuracy=0.6)]
    (answer,) = answers(Report([replace(searched(), spec=spec, trials=tuple(trials), best=(1, 3))]))
    assert "trial 3" in answer.sentences[0] and "trial 1 and trial 3" in answer.sentences[1]


def test_methods_of_one_seed_may_differ_by_chance():
    sentence = first(methods([[0.5], [0.6], [0.9]]))
    assert sentence.startswith("GIT against CE: ") and "may be chance" in sentence and "confirm" not in sentence


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [((0.1, 0.12, 0.09), "GIT is better in balanced accuracy than CE"), ((0.1, -0.12, 0.01), "is not shown to be")],
)
def test_replicates_give_the_clearest_paired_difference(gains, verdict):
    base = [0.5, 0.55, 0.6]
    record = methods([base, [b + g for b, g in zip(base, gains, strict=True)], [0.9, 0.9, 0.9]], seeds=(0, 1, 2))
    (answer,) = answers(Report([record]))
    assert verdict in answer.sentences[0] and "oracle" not in answer.sentences[0]
    assert "3 pairs" in answer.sentences[1] and "training seed (3)" in answer.sentences[2]
    assert yaml.safe_load(answer.setting) == {"trial": {"threshold": 40}}


def test_the_clearest_of_several_differences_is_corrected_for_their_number():
    base, seeds = [0.5, 0.55, 0.6, 0.65], (0, 1, 2, 3)
    clear = [b + g for b, g in zip(base, (0.05, 0.1, 0.15, 0.2), strict=True)]  # 0.125 +- 0.103, corrected for 2: 0.135
    alone = answers(Report([methods([base, clear], seeds=seeds)]))[0]
    assert "GIT is better in balanced accuracy than CE" in alone.sentences[0]
    fields = {"CE": {"fraction": 0}, "GIT": {"threshold": 40}, "GIT 2": {"threshold": 9}}
    values = dict(zip(fields, (base, clear, base), strict=True))
    trials = [
        trial(4 * n + i, {"method": name, "seed": i}, accuracy=values[name][i], augmented=name != "CE")
        for n, name in enumerate(fields)
        for i in seeds
    ]
    space = {"method": {"choice": list(fields)}, "seed": {"choice": list(seeds)}}
    (among_two,) = answers(Report([study(space=space, trials=trials, methods=fields)]))
    assert "GIT is not shown to be better in balanced accuracy than CE" in among_two.sentences[0]
    assert "corrected for 2 (Bonferroni) contains 0" in among_two.sentences[1]


def test_other_fields_that_the_baseline_lacks_are_named():
    point = {**POINT, "sampler": "square-root"}
    record = searched()
    spec = parse_study(
        {
            "name": "s",
            "data": {"source": "digits", "nuisance": "background"},
            "search": {"space": {**SPACE, "sampler": {"choice": ["class-balanced", "square-root"]}}},
        },
        "test",
    )
    (answer,) = answers(Report([replace(record, spec=spec, trials=(replace(record.trials[0], params=point),))]))
    assert "The baseline has sampler class-balanced, so not all of the difference" in answer.sentences[1]


def test_a_confirmation_is_the_answer():
    interval = {"mean": 0.03, "half_width": 0.01, "n": 5, "limits": None}
    metric = {"metric": "ekld", "split": "test", "baseline": interval, "selected": interval, "difference": interval}
    found = {
        "trial": 3,
        "setting": POINT,
        "answer": "trial 3, 5 pairs: better than the baseline",
        "scope": "varied: training seed",
        "ekld_under": "nuisance",
        "metrics": [metric],
        "optimism": [{"objective": "balanced_accuracy", "searched": 0.6, "fresh": interval}],
    }
    (answer,) = answers(Report([searched(confirmations=(found,))]))
    assert answer.sentences[0] == "K = 15, p = 0.19, on fresh seeds: trial 3, 5 pairs: better than the baseline."
    assert answer.sentences[-1] == "Varied: training seed." and yaml.safe_load(answer.setting) == {"trial": POINT}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (study(), "No trial has started"),
        (study(trials=[trial(0, state="failed"), trial(1, state="running")]), "1 failed, 1 running"),
        (ONLY_A_GENERATOR, "A generator without trials"),
    ],
)
def test_without_a_finished_trial_the_states_are_said(record, words):
    assert words in first(record)
