"""Threshold rules by name: the vectors of the published code, and what each does at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

import plain_loops as loops
from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.confusion import confusion
from t3d.scores.resample import Resampled, judged_at, refitted
from t3d.scores.thresholds import RULES, fit_threshold, rule_named

P = (0.10, 0.40, 0.35, 0.80, 0.65, 0.20, 0.55, 0.90)  # project vectors T1
Y = (0, 0, 1, 1, 0, 0, 1, 1)
DISTANCES = (-0.020, -0.012, -0.006, -0.004, -0.002, 0.001, 0.004, 0.010)  # project vectors T2
T2_LABELS = (0, 0, 1, 0, 1, 0, 1, 1)


def once(scores: tuple[float, ...], labels: tuple[int, ...], name: str) -> Resampled:
    """Everything about one finding, each study once."""
    table, told = np.array(scores)[:, None], np.array(labels)[:, None]
    return refitted(table, told, Draws.disabled(len(scores)), rule_named(name))


def test_the_grid_of_ctclip_finds_54_of_99_in_the_project_vector() -> None:
    found = once(P, Y, "ctclip_grid")
    assert found.thresholds[0, 0] == fit_threshold(P, Y, RULES["ctclip_grid"]) == 54 * (1 / 99)
    assert found.auroc[0, 0] == 0.8125
    called = [p > found.thresholds[0, 0] for p in P]
    assert called == [False, False, False, True, True, False, True, True]
    for measure in ("f1_weighted", "accuracy", "precision", "balanced_accuracy"):
        assert getattr(found.answers, measure)[0, 0] == pytest.approx(0.75), measure


def test_of_equal_grid_points_the_last_wins() -> None:
    found = once((0.3, 0.5, 0.5, 0.7), (0, 1, 0, 1), "ctclip_grid")
    assert found.thresholds[0, 0] == pytest.approx(69 / 99)
    assert found.auroc[0, 0] == 0.875
    assert (found.answers.true_positive[0, 0], found.answers.false_positive[0, 0]) == (1, 0)


@pytest.mark.parametrize(
    ("temperature", "threshold", "f1", "accuracy", "precision"),
    [
        (1.0, 1.0, 0.333333, 0.5, 0.0),
        (2.718281828, 0.494949, 0.733333, 0.75, 0.666667),
        (100.0, 0.444444, 0.75, 0.75, 0.75),
    ],
)
def test_a_temperature_moves_answers_on_the_grid_but_not_the_auroc(
    temperature: float, threshold: float, f1: float, accuracy: float, precision: float
) -> None:
    scores = tuple(1 / (1 + math.exp(-d * temperature)) for d in DISTANCES)
    found = once(scores, T2_LABELS, "ctclip_grid")
    assert found.auroc[0, 0] == 0.8125
    assert found.thresholds[0, 0] == pytest.approx(threshold, abs=1e-6)
    assert found.answers.f1_weighted[0, 0] == pytest.approx(f1, abs=1e-6)
    assert found.answers.accuracy[0, 0] == accuracy
    assert found.answers.precision[0, 0] == pytest.approx(precision, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [(P, Y, 0.80), ((0.1, 0.4, 0.35, 0.8, 0.2, 0.7, 0.6, 0.55), (0, 0, 1, 1, 0, 1, 0, 1), 0.7)],
)
def test_the_youden_rule_of_radfinder_gives_the_project_vectors(
    scores: tuple[float, ...], labels: tuple[int, ...], threshold: float
) -> None:
    found = once(scores, labels, "radfinder_youden")
    answers = found.answers
    assert found.auroc[0, 0] == 0.8125
    assert found.thresholds[0, 0] == threshold
    assert (answers.precision[0, 0], answers.sensitivity[0, 0], answers.specificity[0, 0]) == (
        1.0,
        0.5,
        1.0,
    )
    assert answers.f1_weighted[0, 0] == pytest.approx(0.733333, abs=1e-6)
    assert answers.balanced_accuracy[0, 0] == 0.75


def test_where_no_score_beats_silence_radfinder_takes_a_half_and_ours_a_score() -> None:
    scores, labels = (0.9, 0.8, 0.3, 0.2), (0, 0, 1, 1)
    assert fit_threshold(scores, labels, RULES["radfinder_youden"]) == 0.5
    found = once(scores, labels, "radfinder_youden").answers
    assert (found.true_positive[0, 0], found.false_positive[0, 0]) == (0, 2)
    assert fit_threshold(scores, labels, RULES["youden"]) == 0.2


def test_the_youden_rule_of_radfinder_follows_the_roc_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        scores, labels = rng.random(60), rng.random(60) < 0.3
        across, up, thresholds = sk.roc_curve(labels, scores)
        expected = thresholds[np.argmax(up - across)]
        found = fit_threshold(scores, labels, RULES["radfinder_youden"])
        assert found == (expected if np.isfinite(expected) else 0.5)


@pytest.mark.parametrize("name", ["ctclip_grid", "radfinder_youden", "youden", "specificity:0.9"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_rule_that_is_fitted_needs_both_classes(name: str, label: int) -> None:
    with pytest.raises(ProtocolError, match=r"0 positive|0 negative"):
        fit_threshold((0.1, 0.2), (label, label), rule_named(name))


def test_the_grid_refuses_scores_that_are_no_probabilities() -> None:
    with pytest.raises(ProtocolError, match="1 of 2 scores are below 0 or above 1"):
        fit_threshold((-0.2, 0.4), (0, 1), RULES["ctclip_grid"])


def test_fixed_takes_the_threshold_itself_and_above_does_not() -> None:
    scores, labels = (0.5, 0.5, 0.7), (0, 1, 1)
    assert once(scores, labels, "fixed:0.5").answers.true_positive[0, 0] == 2
    assert once(scores, labels, "above:0.5").answers.true_positive[0, 0] == 1


@pytest.mark.parametrize("name", ["nothing", "fixed", "fixed:much", "youden:2", ""])
def test_an_unknown_rule_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(ProtocolError, match="ctclip_grid, radfinder_youden, fixed:NUMBER"):
        rule_named(name)


@pytest.mark.parametrize("kind", ["specificity", "sensitivity"])
def test_an_operating_point_is_the_best_score_that_keeps_its_promise(kind: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        scores = np.round(rng.normal(size=30), 1)
        labels = (rng.random(30) < 0.5).astype(int)
        labels[:2] = 0, 1
        scores += labels
        least = float(rng.choice([0.5, 0.9, 0.95, 1.0]))
        threshold = fit_threshold(scores, labels, rule_named(f"{kind}:{least}"))
        found = []
        for t in (*sorted(set(scores.tolist()), reverse=True), math.inf):
            tp, fp, tn, fn = loops.count(scores.tolist(), labels.tolist(), t)
            pair = tn / (tn + fp), tp / (tp + fn)
            kept, gained = pair if kind == "specificity" else pair[::-1]
            if kept >= least:
                found.append(gained)
        tp, fp, tn, fn = loops.count(scores.tolist(), labels.tolist(), threshold)
        got = tn / (tn + fp), tp / (tp + fn)
        kept, gained = got if kind == "specificity" else got[::-1]
        assert kept >= least
        assert gained == max(found)


def test_a_specificity_that_no_score_reaches_calls_nobody() -> None:
    threshold = fit_threshold((0.9, 0.9, 0.1), (0, 1, 0), rule_named("specificity:0.9"))
    assert 0.9 < threshold < 0.9001


def test_thresholds_from_elsewhere_answer_draws_of_one_class_too() -> None:
    scores, labels = np.array([[0.2], [0.9]]), np.array([[0], [0]])
    found = judged_at(scores, labels, Draws.disabled(2), [0.5])
    assert np.isnan(found.auroc[0, 0])
    assert found.answers.specificity[0, 0] == 0.5
    assert found.answers.f1[0, 0] == 0.0
    assert np.isnan(found.answers.sensitivity[0, 0])


def test_each_draw_can_have_a_threshold_of_its_own_and_none_gives_no_answer() -> None:
    rng = np.random.default_rng(5)
    scores, labels = np.round(rng.random((30, 2)), 1), (rng.random((30, 2)) < 0.4).astype(int)
    ids = [f"p{i // 2}" for i in range(30)]
    draws = Draws.of(ids, num_draws=6, seed=0)
    thresholds = np.round(rng.random((6, 2)), 1)
    thresholds[2, 1] = np.nan
    for strict in (False, True):
        found = judged_at(scores, labels, draws, thresholds, strict=strict).answers
        for b in range(6):
            for f in range(2):
                if np.isnan(thresholds[b, f]):
                    assert np.isnan(found.f1[b, f])
                    assert np.isnan(found.accuracy[b, f])
                    continue
                called = (
                    scores[:, f] > thresholds[b, f] if strict else scores[:, f] >= thresholds[b, f]
                )
                weight = draws.weights[b]
                assert found.true_positive[b, f] == weight[called & (labels[:, f] == 1)].sum()
                assert found.true_negative[b, f] == weight[~called & (labels[:, f] == 0)].sum()


def test_the_plain_path_and_the_walk_count_alike() -> None:
    rng = np.random.default_rng(6)
    scores, labels = rng.random(200), rng.random(200) < 0.3
    draws = Draws.of([f"p{i // 3}" for i in range(200)], num_draws=40, seed=0)
    plain = confusion(scores, labels, 0.6, weights=draws.weights)
    walked = judged_at(scores[:, None], labels[:, None].astype(int), draws, [0.6]).answers
    for name in ("true_positive", "false_positive", "true_negative", "false_negative"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(walked, name)[:, 0])


def test_blocks_of_draws_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    scores, labels = np.round(rng.random((90, 2)), 2), (rng.random((90, 2)) < 0.3).astype(int)
    draws = Draws.of([f"p{i // 2}" for i in range(90)], num_draws=150, seed=0)
    whole = {name: refitted(scores, labels, draws, rule_named(name)) for name in RULES}
    monkeypatch.setattr("t3d.scores.resample._BLOCK_DRAWS", 64)
    for name, one in whole.items():
        other = refitted(scores, labels, draws, rule_named(name))
        np.testing.assert_array_equal(one.thresholds, other.thresholds)
        np.testing.assert_array_equal(one.average_precision, other.average_precision)
        np.testing.assert_array_equal(one.auroc, other.auroc)


def test_nan_scores_strange_labels_and_foreign_draws_are_refused() -> None:
    scores, labels, draws = np.array([[0.1], [0.2]]), np.array([[0], [1]]), Draws.disabled(2)
    rule = RULES["youden"]
    with pytest.raises(ProtocolError, match="1 of 2 scores are not finite"):
        refitted([[0.1], [math.nan]], labels, draws, rule)
    with pytest.raises(ProtocolError, match=r"labels hold \[2\]"):
        refitted(scores, [[0], [2]], draws, rule)
    with pytest.raises(ProtocolError, match="2 rows beside draws of 3"):
        refitted(scores, labels, Draws.disabled(3), rule)
    with pytest.raises(ProtocolError, match=r"thresholds of shape \(2,\)"):
        judged_at(scores, labels, draws, [0.1, 0.2])
