import random

import pytest

from gitdist.study.ledger.records import TrialRecord, best_of, pareto_of

BOTH = ("maximize", "minimize")


def records(rows: list[tuple[float, ...] | None]) -> list[TrialRecord]:
    return [
        TrialRecord(number, {}, "finished" if row else "failed", objectives=row or ())
        for number, row in enumerate(rows)
    ]


def test_best_is_the_earlier_one_of_equals():
    rows = [(0.3,), None, (0.1,), (0.1,), (0.3,)]
    assert best_of(records(rows), ("minimize",)).number == 2
    assert best_of(records(rows), ("maximize",)).number == 0
    assert best_of(records([None]), ("maximize",)) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_pareto_set_is_what_its_definition_says(seed):
    draw = random.Random(seed)
    rows = [(draw.randrange(6) / 5, draw.randrange(6) / 5) if draw.random() < 0.9 else None for _ in range(30)]
    expected = []
    for number, row in enumerate(rows):
        better = [
            other
            for other in rows
            if row and other and other[0] >= row[0] and other[1] <= row[1] and (other[0] > row[0] or other[1] < row[1])
        ]
        if row and not better:
            expected.append(number)
    assert [record.number for record in pareto_of(records(rows), BOTH)] == expected


def test_the_pareto_set_of_one_objective_is_the_best():
    assert [record.number for record in pareto_of(records([(0.1,), (0.3,), (0.3,)]), ("maximize",))] == [1]
    assert pareto_of(records([None]), ("maximize",)) == []
