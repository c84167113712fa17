"""The specification curve: one file under many rules, and models that change places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from made_aged import FINDINGS, AgedCohort, aged, noise, oracle, table_of
from t3d.cohort.schema import StudyRow
from t3d.judge import curve as curve_module
from t3d.judge import rules
from t3d.judge.curve import Curve, kendall, specification_curve
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.hlip import HLIP
from t3d.judge.protocols.merlin_pools import MERLIN_POOLS_SPECTRE
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.protocols.vlm3d import VLM3D


def of_five(protocol: Protocol) -> Protocol:
    rules = replace(protocol.classes, findings="", scored="")
    return replace(protocol, classification=rules)


PROTOCOLS = (of_five(RADFINDER), of_five(VLM3D), of_five(HLIP), PLAIN, MERLIN_POOLS_SPECTRE)


def ranked(study: StudyRow, finding: str) -> float:
    """Ranks better than the other, and never says yes at .5."""
    return 0.45 * oracle(study, finding)


def halved(study: StudyRow, finding: str) -> float:
    """Ranks worse, with .5 in the right place."""
    return (
        0.5 + 0.5 * ((study.labels[finding] or 0) - 0.5) + 0.62 * (noise(study, finding, 1) - 0.5)
    )


@pytest.fixture(scope="module", autouse=True)
def _one_random_model() -> Iterator[None]:
    """Floors are not looked at here, and 20 random models cost most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "NUM_RANDOM", 1)
        yield


@pytest.fixture(scope="module")
def cohort() -> AgedCohort:
    return aged({"test": 150})


@pytest.fixture(scope="module")
def curve(cohort: AgedCohort) -> Curve:
    models = {
        name: (None, table_of(cohort, "test", lambda s, f, m=model: float(np.clip(m(s, f), 0, 1))))
        for name, model in (("ranked", ranked), ("halved", halved))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve_module, "NUM_DRAWS", 100)
        return specification_curve(cohort, models, protocols=PROTOCOLS)


def test_each_protocol_serves_or_says_why_not(curve: Curve) -> None:
    held = {one.protocol: one for one in curve.specifications}
    assert "no dev scores" in held["plain"].refused["ranked"]
    assert "no rules for classification" in held["merlin_pools_spectre"].refused["ranked"]
    assert set(held["radfinder"].values) == {"ranked", "halved"}
    assert held["radfinder"].digest == PROTOCOLS[0].digest()


def test_what_differs_between_protocols_is_shown_and_what_does_not_is_not(curve: Curve) -> None:
    held = {one.protocol: one for one in curve.specifications}
    assert held["vlm3d"].differs["classification.threshold"] == "fixed:0.5"
    assert held["radfinder"].differs["classification.threshold"] == "radfinder_youden"
    assert "classification.findings" not in held["vlm3d"].differs  # the same here


def test_a_model_that_ranks_better_and_answers_worse_changes_places(curve: Curve) -> None:
    found = [r for r in curve.reversals if set(r.protocols) == {"radfinder", "vlm3d"}]
    reversal = next(r for r in found if r.metric == "balanced_accuracy:macro")
    assert reversal.models == ("ranked", "halved")
    first, second = reversal.differences
    assert first.value > 0 > second.value
    assert reversal.certain == (first.low > 0 > second.high)
    assert reversal.certain
    taus = {(a.metric, a.protocols): a.tau for a in curve.agreements}
    assert taus["balanced_accuracy:macro", ("radfinder", "vlm3d")] == -1.0
    assert taus["auroc:macro", ("radfinder", "vlm3d")] == 1.0
    assert not [r for r in curve.reversals if r.metric == "auroc:macro"]


def test_points_for_a_plot_are_ordered_by_their_mean(curve: Curve) -> None:
    points = list(curve.points("balanced_accuracy:macro"))
    order = list(dict.fromkeys(protocol for protocol, _, _ in points))
    means = [np.mean([m.value for p, _, m in points if p == name]) for name in order]
    assert means == sorted(means)
    assert {model for _, model, _ in points} == {"ranked", "halved"}


def test_values_are_the_protocols_own_and_intervals_are_by_patient(curve: Curve) -> None:
    held = {one.protocol: one for one in curve.specifications}
    metric = held["hlip"].values["ranked"]["accuracy:macro"]
    assert metric.unit == "patients"
    assert metric.low < metric.value < metric.high  # the release resamples nothing
    assert held["hlip"].counts["volumes"] == 225


def in_pairs(first: Sequence[float], second: Sequence[float]) -> float:
    """Tau-b by walking over all pairs."""
    agree = apart = ties_first = ties_second = 0
    for i, j in combinations(range(len(first)), 2):
        a, b = first[i] - first[j], second[i] - second[j]
        agree += a * b > 0
        apart += a * b < 0
        ties_first += a == 0
        ties_second += b == 0
    num = len(first) * (len(first) - 1) / 2
    return (agree - apart) / float(np.sqrt((num - ties_first) * (num - ties_second)))


def test_tau_equals_a_walk_over_pairs() -> None:
    assert kendall((1, 2, 3), (1, 3, 2)) == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = rng.integers(0, 5, (2, 7)).tolist()
        if len(set(first)) > 1 and len(set(second)) > 1:
            assert kendall(first, second) == pytest.approx(in_pairs(first, second), abs=1e-12)
    assert np.isnan(kendall((1,), (2,)))
    assert np.isnan(kendall((1, 1), (2, 3)))


def test_one_model_alone_has_no_agreement_and_no_reversal(cohort: AgedCohort) -> None:
    models = {"only": (None, table_of(cohort, "test", ranked))}
    found = specification_curve(cohort, models, protocols=PROTOCOLS[1:3])
    assert found.agreements == ()
    assert found.reversals == ()
    assert FINDINGS[0] not in found.specifications[0].differs
