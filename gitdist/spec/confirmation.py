"""A confirmation: a campaign that trains a setting that a search selected, and the baseline, on fresh seeds.

Every pair of trainings shares its seeds and differs in the setting alone. With fresh training seeds only, all pairs are
trials of one study, which shares the generator and its draws; otherwise each pair is a study.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gitdist.errors import SpecError
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import parse_plan
from gitdist.spec.search import METHOD, SEED
from gitdist.spec.study import StudySpec

Source = Literal["training", "generator", "data"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""The sources of variance that a confirmation can vary."""

BASELINE = "baseline"
_AXIS = "replicate"


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What is confirmed: a study, the number of one of its trials, the trial's fields, and every seed of its trials."""

    spec: StudySpec
    trial: int
    fields: Mapping[str, Any]
    seeds: frozenset[int]

    @property
    def label(self) -> str:
        """The name of the setting among the methods of the confirmation."""
        return f"trial {self.trial}"

    @property
    def setting(self) -> dict[str, Any]:
        """The fields without the seed."""
        return {name: value for name, value in self.fields.items() if name != SEED}

    def default_name(self, varied: Sequence[Source]) -> str:
        """Return the name of the campaign: the study, the trial, and what is varied beside the training."""
        beside = "-all" if len(varied) == len(SOURCES) else "".join(f"-{source}" for source in varied)
        more = "" if list(varied) == ["training"] else beside
        return f"{self.spec.name}.confirm-trial{self.trial}{more}"


def check_varied(spec: StudySpec, varied: Iterable[str]) -> list[Source]:
    """Return the sources of variance in their usual order.

    Raises:
        SpecError: there is none, one is unknown, or the generator has no training that could be varied.
    """
    names = list(varied)
    unknown = [name for name in names if name not in SOURCES]
    if unknown or not names:
        raise SpecError(f"what is varied must be one or more of {', '.join(SOURCES)}, but it is {', '.join(names)!r}")
    if "generator" in names and spec.generator.kind != "munit":
        raise SpecError(
            f"a generator can be varied if the study trains it, but generator.kind is {spec.generator.kind}; vary "
            "training or data"
        )
    return [name for name in SOURCES if name in names]


def plan_confirmation(
    selected: Selected, num_seeds: int, varied: Sequence[Source], name: str, earlier: Campaign | None = None
) -> Campaign:
    """Return the campaign that confirms a setting.

    Args:
        selected: the setting and its study.
        num_seeds: pairs of trainings in all.
        varied: what differs between pairs; the rest is as in the study.
        name: the campaign's name.
        earlier: this confirmation as it was started before, whose pairs are kept.

    Raises:
        SpecError: ``earlier`` is another campaign.
    """
    values, in_one_study = _values(selected, name), varied == ["training"]
    for member in earlier.members if earlier else ():
        if member.spec.methods != values["methods"] or (SEED in member.spec.search.space) != in_one_study:
            raise SpecError(f"'{name}' is a campaign of other trainings, so this confirmation needs another name")
    if in_one_study:
        pairs = _batches(selected, num_seeds, earlier)
    else:
        num_pairs = max(num_seeds, len(earlier.members) if earlier else 0)
        pairs = {f"r{index}": _changes(selected, index, varied) for index in range(1, num_pairs + 1)}
    plan = parse_plan({**values, "matrix": {_AXIS: pairs}}, f"confirmation '{name}'")
    assert isinstance(plan, Campaign), "it has a matrix"
    return plan


def _values(selected: Selected, name: str) -> dict[str, Any]:
    spec, values = selected.spec, selected.spec.model_dump(mode="json", by_alias=True)
    methods = {BASELINE: {"fraction": 0.0}, selected.label: selected.setting}
    search = {"algorithm": "grid", "total": len(methods), "space": {METHOD: {"choice": list(methods)}}}
    kept = {field: values["search"][field] for field in ("objective", "seed")}
    return {
        **values,
        "name": name,
        "title": f"Confirmation of {spec.title or spec.name}, trial {selected.trial}",
        "methods": methods,
        "baseline": False,
        "search": {**kept, **search},
        "evaluation": {**values["evaluation"], "test": "all"},
        "tracking": {**values["tracking"], "models": False, "register": None},
    }


def _batches(selected: Selected, num_seeds: int, earlier: Campaign | None) -> dict[str, dict[str, Any]]:
    """Return one study for all training seeds; a confirmation that gets more seeds has one more study of them."""
    members = earlier.members if earlier else ()
    batches = [[int(str(seed)) for seed in member.spec.search.space[SEED].extremes] for member in members]
    missing = num_seeds - sum(map(len, batches))
    if missing > 0:
        batches.append(_fresh_seeds(selected.seeds.union(*batches), missing))
    return {
        f"seed{seeds[0]}-{seeds[-1]}": {f"search.space.{SEED}": {"choice": seeds}, "search.total": 2 * len(seeds)}
        for seeds in batches
    }


def _changes(selected: Selected, index: int, varied: Sequence[Source]) -> dict[str, int]:
    spec, changes = selected.spec, dict[str, int]()
    if "training" in varied:
        changes["trial.seed"] = _fresh_seeds(selected.seeds, index)[-1]
    if "generator" in varied and spec.generator.kind == "munit":
        changes |= {"generator.seed": spec.generator.seed + index, "stream.seed": spec.stream.seed + index}
    if "data" in varied:
        changes["data.version"] = spec.data.version + index
    return changes


def _fresh_seeds(used: Collection[int], number: int) -> list[int]:
    """Return the smallest seeds that are not used."""
    return list(itertools.islice((seed for seed in itertools.count() if seed not in used), number))
