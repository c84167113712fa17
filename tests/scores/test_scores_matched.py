"""Matched AUROC: age alone gets a half, what an oracle sees stays, nobody is lost in silence."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.scores.auroc import auroc
from t3d.scores.bootstrap import Draws, interval
from t3d.scores.matched import matched_auroc

Facts = tuple[NDArray[np.float64], list[str], NDArray[np.int64], list[str]]


def by_age_alone(seed: int, *, patients: int = 1200) -> Facts:
    """Ages in whole years, sexes, findings that depend on age only, and patients of two rows."""
    rng = np.random.default_rng(seed)
    years = rng.integers(20, 90, patients).astype(float)
    chance = 1 / (1 + np.exp(-(years - 60) / 8))
    labels = (rng.random(patients) < chance).astype(np.int64)
    sexes = rng.choice(["F", "M"], patients)
    rows = np.repeat(np.arange(patients), 2)
    return years[rows], sexes[rows].tolist(), labels[rows], [f"p{r:04}" for r in rows]


def test_two_pairs_match_where_four_would_be_compared() -> None:
    told = {"age_years": [50, 70, 51, 71], "sex": ["F"] * 4}
    scores, labels = np.array([[1.0], [3.0], [2.0], [4.0]]), np.array([[0], [0], [1], [1]])
    found = matched_auroc(scores, labels, Draws.disabled(4), **told)  # type: ignore[arg-type]
    assert auroc(scores[:, 0], labels[:, 0]) == 0.75
    assert found.values[0] == 1.0
    assert found.pairs[0] == 2


def test_age_ranks_what_depends_on_age_but_not_among_patients_of_one_age() -> None:
    ages, sexes, labels, ids = by_age_alone(0)
    draws = Draws.of(ids, num_draws=300, seed=0)
    rng = np.random.default_rng(1)
    noise = np.repeat(rng.normal(size=len(labels) // 2), 2)
    scores = np.stack([ages, ages + 3 * noise, labels + 0.3 * noise], axis=1)
    told = np.stack([labels] * 3, axis=1)
    assert auroc(ages, labels) > 0.85
    same_year = matched_auroc(scores, told, draws, age_years=ages, sex=sexes, width_years=0)
    assert same_year.values[0] == 0.5
    assert (same_year.draws[:, 0] == 0.5).all()
    about = matched_auroc(scores, told, draws, age_years=ages, sex=sexes)
    for found in (same_year, about):
        for finding in (0, 1):
            spread = interval(found.draws[:, finding])
            assert abs(found.values[finding] - 0.5) < 0.06
            assert spread.low - 0.04 <= 0.5 <= spread.high
        assert found.values[2] > 0.95
    blurred = interval(same_year.draws[:, 1])
    assert blurred.low <= 0.5 <= blurred.high


def test_a_positive_without_a_partner_and_unknown_facts_are_counted() -> None:
    scores = np.arange(6.0)[:, None]
    labels = np.array([[0], [0], [1], [1], [1], [-1]])
    found = matched_auroc(
        scores,
        labels,
        Draws.disabled(6),
        age_years=[50, math.nan, 51, 90, 50, 50],
        sex=["F", "F", "F", "F", "M", ""],
    )
    assert found.values[0] == 1.0
    assert (found.pairs[0], found.unmatched[0], found.unknown) == (1, 2, 2)


def test_without_any_pair_there_is_no_value() -> None:
    found = matched_auroc(
        np.array([[0.1], [0.2]]),
        np.array([[0], [1]]),
        Draws.disabled(2, num_draws=3),
        age_years=[20, 80],
        sex=["F", "F"],
    )
    assert np.isnan(found.values).all()
    assert np.isnan(found.draws).all()
    assert found.unmatched[0] == 1


def test_cases_weigh_alike_however_many_partners_they_have() -> None:
    # one positive beats its three partners, the other loses to its only one
    found = [
        matched_auroc(
            np.array([[9.0], [1.0], [1.0], [1.0], [0.0], [5.0]]),
            np.array([[1], [0], [0], [0], [1], [0]]),
            Draws.disabled(6),
            age_years=[30, 30, 30, 30, 60, 60],
            sex=["M"] * 6,
            weighting=weighting,
        ).values[0]
        for weighting in ("pairs", "cases")
    ]
    assert found == [0.75, 0.5]


def test_facts_of_other_rows_and_a_negative_width_are_refused() -> None:
    scores, labels, draws = np.zeros((2, 1)), np.array([[0], [1]]), Draws.disabled(2)
    with pytest.raises(ProtocolError, match=r"\(3, 2, 2\) rows beside 2 scores"):
        matched_auroc(scores, labels, draws, age_years=[1, 2, 3], sex=["F", "M"])
    with pytest.raises(ProtocolError, match="width -1"):
        matched_auroc(scores, labels, draws, age_years=[1, 2], sex=["F", "M"], width_years=-1)


def test_eighteen_findings_of_3000_rows_and_200_draws_take_seconds() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(1300), 2)
    ages, sexes = rng.integers(18, 90, 1300)[rows], rng.choice(["F", "M"], 1300)[rows]
    scores, labels = rng.normal(size=(2600, 18)), (rng.random((2600, 18)) < 0.2).astype(int)
    draws = Draws.of([f"p{r}" for r in rows], num_draws=200, seed=0)
    start = time.process_time()
    matched_auroc(scores, labels, draws, age_years=ages, sex=sexes.tolist())
    assert time.process_time() - start < 5.0
