"""One table of scores under every protocol: published vectors, units, what is missing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from made_score_tables import columns_of, quickly, table, truth_beside
from t3d.errors import ProtocolError
from t3d.judge.classification import classify
from t3d.judge.data.classes import ARTERIAL, CORONARY
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.ctclip import CTCLIP, CTCLIP_EXTERNAL
from t3d.judge.protocols.fvlm import FVLM
from t3d.judge.protocols.hlip import HLIP, HLIP_EXTERNAL, HLIP_STARRED
from t3d.judge.protocols.inspect import INSPECT
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER, RADFINDER_DUP
from t3d.judge.protocols.vlm3d import VLM3D
from t3d.judge.rules import values_of
from t3d.judge.truth import Truth
from t3d.judge.units import ScoreTable, rows_of, scores_of


@pytest.fixture(autouse=True)
def few_random_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The floors of random models are tested elsewhere."""
    monkeypatch.setattr("t3d.judge.rules.NUM_RANDOM", 2)


P = [0.10, 0.40, 0.35, 0.80, 0.65, 0.20, 0.55, 0.90]
Y = [0, 0, 1, 1, 0, 0, 1, 1]
# T2: cosine differences crowd .5 as probabilities
D = [-0.020, -0.012, -0.006, -0.004, -0.002, 0.001, 0.004, 0.010]
Y2 = [0, 0, 1, 0, 1, 0, 1, 1]


def judged(protocol: Protocol, scores: ScoreTable, labels: Any) -> dict[str, float]:
    """Every metric of a protocol as it ships, by name."""
    test = rows_of(scores, truth_beside(protocol, labels), protocol)
    outcome = classify(None, test, quickly(protocol), task="t", column="c", provenance={})
    return {metric.name: metric.value for metric in outcome.result.metrics}


# ---- published vectors, through the instances -----------------------------------------------


@pytest.mark.parametrize("protocol", [CTCLIP, FVLM, HLIP_STARRED], ids=lambda p: p.name)
def test_the_grid_rule_gives_the_published_vector(protocol: Protocol) -> None:
    found = judged(protocol, table(protocol, P), Y)
    assert found["threshold:Emphysema"] == pytest.approx(54 / 99, abs=1e-15)
    assert found["auroc:macro"] == 0.8125
    for measure in ("f1_weighted", "accuracy", "precision", "balanced_accuracy"):
        assert found[f"{measure}:macro"] == pytest.approx(0.75)
    tied = judged(protocol, table(protocol, [0.3, 0.5, 0.5, 0.7]), [0, 1, 0, 1])
    assert tied["threshold:Emphysema"] == pytest.approx(69 / 99, abs=1e-15)
    assert tied["auroc:macro"] == 0.875
    assert tied["sensitivity:macro"] == 0.5


def test_what_ctclip_prints_is_rounded_and_has_no_interval() -> None:
    found = judged(CTCLIP, table(CTCLIP, P), Y)
    printed = {name: value for name, value in found.items() if name.startswith("printed:")}
    assert printed == {
        **{"printed:AUROC": 0.8125, "printed:F1": 0.75},
        **{"printed:Accuracy": 0.75, "printed:Precision": 0.75},
    }


def test_hlip_prints_plain_accuracy_under_a_key_that_says_balanced() -> None:
    scores, labels = [0.1, 0.2, 0.3, 0.9, 0.25], [0, 0, 0, 1, 1]
    found = judged(HLIP_STARRED, table(HLIP_STARRED, scores), labels)
    assert found["printed:* balanced accuracy"] == found["accuracy:macro"]
    assert found["accuracy:macro"] != found["balanced_accuracy:macro"]
    plain = judged(HLIP, table(HLIP, scores), labels)
    assert plain["printed:balanced accuracy"] == plain["balanced_accuracy:macro"] == 0.75


@pytest.mark.parametrize("labels", [[0] * 8, [1] * 8])
def test_one_class_is_an_error_where_the_release_fails(labels: list[int]) -> None:
    for protocol in (CTCLIP, FVLM, HLIP_STARRED, INSPECT):
        with pytest.raises(ProtocolError, match="no finding has both"):
            judged(protocol, table(protocol, P), labels)


def test_radfinder_gives_the_published_vectors_of_youden() -> None:
    found = judged(RADFINDER, table(RADFINDER, P), Y)
    assert found["threshold:Emphysema"] == 0.8
    assert found["precision:macro"] == 1.0
    assert found["sensitivity:macro"] == 0.5
    assert found["specificity:macro"] == 1.0
    assert found["printed:F1"] == pytest.approx(0.733333, abs=5e-7)
    assert found["printed:ACC"] == found["balanced_accuracy:macro"] == 0.75
    other = judged(
        RADFINDER,
        table(RADFINDER, [0.1, 0.4, 0.35, 0.8, 0.2, 0.7, 0.6, 0.55]),
        [0, 0, 1, 1, 0, 1, 0, 1],
    )
    assert other["auroc:macro"] == 0.8125
    assert other["threshold:Emphysema"] == 0.7
    assert other["f1_weighted:macro"] == pytest.approx(0.73333, abs=5e-6)


@pytest.mark.parametrize(
    ("factor", "threshold", "f1", "accuracy", "precision"),
    [
        (1.0, 1.0, 0.333333, 0.5, 0.0),
        (2.718281828, 0.494949, 0.733333, 0.75, 0.666667),
        (100.0, 0.444444, 0.75, 0.75, 0.75),
    ],
)
def test_the_temperature_moves_yes_and_no_but_not_auroc(
    factor: float, threshold: float, f1: float, accuracy: float, precision: float
) -> None:
    cosines = table(CTCLIP, D, negative=[0.0] * 8, logit_scale=factor)
    fixed = CTCLIP.at_temperature(factor)
    bare = table(fixed, D, negative=[0.0] * 8)
    for protocol, given in ((CTCLIP, cosines), (fixed, bare)):
        found = judged(protocol, given, Y2)
        assert found["auroc:macro"] == 0.8125
        assert found["threshold:Emphysema"] == pytest.approx(threshold, abs=1e-6)
        assert found["f1_weighted:macro"] == pytest.approx(f1, abs=1e-6)
        assert found["accuracy:macro"] == pytest.approx(accuracy, abs=1e-6)
        assert found["precision:macro"] == pytest.approx(precision, abs=1e-6)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1.0, 0.512497), (math.e, 0.533926), (1 / 0.07, 0.671347), (100.0, 0.993307)],
)
def test_a_softmax_of_two_cosines_is_known(factor: float, expected: float) -> None:
    given = table(CTCLIP, [0.30], negative=[0.25], logit_scale=factor)
    assert scores_of(given, CTCLIP)[0] == pytest.approx(expected, abs=5e-7)
    none = scores_of(given, RADFINDER)[0]  # ignores the model's factor
    assert none == pytest.approx(0.512497, abs=5e-7)
    assert scores_of(given, PLAIN)[0] == pytest.approx(0.05, abs=1e-12)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [(CTCLIP_EXTERNAL, [0.6, 0.4, 0.45]), (HLIP_EXTERNAL, [0.6, 0.2, 0.3])],
)
def test_both_calcifications_are_merged_as_published(
    protocol: Protocol, expected: list[float]
) -> None:
    asked, scores = columns_of(protocol, [0.5, 0.5, 0.5])
    scores[:, asked.index(ARTERIAL)] = [0.6, 0.2, 0.45]
    scores[:, asked.index(CORONARY)] = [0.1, 0.4, 0.3]
    given = replace(table(protocol, [0.5] * 3), scores=scores)
    found, _ = scores_of(given, protocol)
    truth = truth_beside(protocol, [0, 1, 1])
    assert found[:, truth.findings.index(ARTERIAL)].tolist() == expected
    assert CORONARY not in truth.findings


def test_crg_of_a_challenge_table_is_known_and_blind_answers_get_a_third() -> None:
    # three exams, four labels; the other labels of the list are absent and called absent
    asked = columns_of(VLM3D, [0.0])[0]
    scores, labels = np.zeros((3, 18)), np.zeros((3, 18), dtype=np.int8)
    for exam, finding in ((0, 0), (1, 2), (2, 3)):
        scores[exam, finding] = 0.9
    for exam, finding in ((0, 0), (0, 1), (1, 2)):
        labels[exam, finding] = 1
    narrow = VLM3D.variant("four", classification__findings="", classification__scored="")
    given = replace(table(VLM3D, [0.0] * 3), findings=asked[:4], scores=scores[:, :4])
    truth = replace(
        truth_beside(VLM3D, [0, 0, 0]),
        findings=asked[:4],
        labels=labels[:, :4],
        large=np.full((3, 4), -1, dtype=np.int8),
    )
    outcome = classify(
        None, rows_of(given, truth, narrow), quickly(narrow), task="t", column="c", provenance={}
    )
    assert outcome.metric("crg").value == pytest.approx(0.5294117647, abs=1e-10)
    assert outcome.metric("crg").floor == pytest.approx(1 / 3)
    assert outcome.metric("perfect:crg").value == 1.0
    assert outcome.metric("blind:constant:crg").value == pytest.approx(1 / 3)
    # a finding without a positive counts with F1 0 there, and has no AUROC
    assert outcome.result.excluded == {
        f"one class ({form}): {name}": 1
        for form in ("all", "large", "small")
        for name in (asked[:4] if form != "all" else asked[3:4])
    }
    assert outcome.metric(f"f1:{asked[3]}").value == 0.0


def test_a_label_that_a_challenge_entry_lacks_counts_as_zero_and_is_said() -> None:
    whole = table(VLM3D, P)
    short = replace(whole, findings=whole.findings[:17], scores=P17)
    test = rows_of(short, truth_beside(VLM3D, Y), VLM3D)
    assert (test.scores[:, 17] == 0.0).all()
    assert test.notes == {f"no scores, counted as 0: {whole.findings[17]}": 8}
    with pytest.raises(ProtocolError, match=f"no scores for {whole.findings[17]}"):
        scores_of(short, CTCLIP)


P17 = np.tile(np.array(P)[:, None], (1, 17))


def test_inspect_leaves_a_probability_of_one_out_of_every_cell() -> None:
    found = judged(INSPECT, table(INSPECT, [0.2, 0.4, 1.0, 1.0]), [0, 1, 1, 0])
    # cells of width 1/9: |0 - .2| and |1 - .4| over 4 rows; both ones are in no cell
    assert found["printed:ECE"] == pytest.approx((0.2 + 0.6) / 4)


def test_censored_rows_leave_their_task_only() -> None:
    labels = truth_beside(INSPECT, [0, 1, 1, 0])
    told = labels.labels.copy()
    told[2, 0] = -1
    truth = replace(labels, labels=told)
    test = rows_of(table(INSPECT, [0.1, 0.9, 0.05, 0.2]), truth, INSPECT)
    values = values_of(None, test, INSPECT)
    assert values.table["auroc"].tolist() == [1.0] + [0.5] * 7


# ---- units ----------------------------------------------------------------------------------


def siblings() -> tuple[ScoreTable, Truth]:
    """Three studies with 2, 1 and 3 reconstructions, rows shuffled."""
    rows = [
        ("c2", "c", 1),
        ("a1", "a", 0),
        ("b1", "b", 0),
        ("c1", "c", 0),
        ("a2", "a", 1),
        ("c3", "c", 2),
    ]
    value = {"a1": 0.1, "a2": 0.3, "b1": 0.9, "c1": 0.4, "c2": 0.6, "c3": 0.8}
    given = ScoreTable(
        findings=("Emphysema",),
        volume_ids=tuple(r[0] for r in rows),
        study_ids=tuple(r[1] for r in rows),
        order=tuple(r[2] for r in rows),
        scores=np.array([[value[r[0]]] for r in rows]),
        patient_ids=tuple({"a": "p", "b": "q", "c": "p"}[r[1]] for r in rows),
    )
    truth = Truth(
        study_ids=("a", "b", "c"),
        patient_ids=("p", "q", "p"),
        findings=("Emphysema",),
        labels=np.int8([[0], [1], [1]]),
        large=np.full((3, 1), -1, dtype=np.int8),
        volumes=(("a1", "a2"), ("b1",), ("c1", "c2", "c3")),
    )
    return given, truth


def unit(name: str, **more: Any) -> Protocol:
    """The plain rules with another unit."""
    return PLAIN.variant(name, classification__unit=name, **more)


def test_rows_are_volumes_first_reconstructions_or_means_of_a_study() -> None:
    given, truth = siblings()
    volumes = rows_of(given, truth, unit("volume"))
    assert volumes.truth.row_ids == ("a1", "a2", "b1", "c1", "c2", "c3")
    assert volumes.scores[:, 0].tolist() == [0.1, 0.3, 0.9, 0.4, 0.6, 0.8]
    assert volumes.truth.labels[:, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert volumes.truth.patient_ids == ("p", "p", "q", "p", "p", "p")
    first = rows_of(given, truth, unit("study:first"))
    assert first.truth.row_ids == ("a", "b", "c")
    assert first.scores[:, 0].tolist() == [0.1, 0.9, 0.4]
    mean = rows_of(given, truth, unit("study:mean"))
    assert mean.scores[:, 0].tolist() == pytest.approx([0.2, 0.9, 0.6])


def test_a_missing_first_reconstruction_is_said_and_the_next_one_taken() -> None:
    given, truth = siblings()
    kept = [i for i, name in enumerate(given.volume_ids) if name != "c1"]
    fewer = ScoreTable(
        findings=given.findings,
        volume_ids=tuple(given.volume_ids[i] for i in kept),
        study_ids=tuple(given.study_ids[i] for i in kept),
        order=tuple(given.order[i] for i in kept),
        scores=given.scores[kept] if given.scores is not None else None,
    )
    first = rows_of(fewer, truth, unit("study:first"))
    assert first.scores[:, 0].tolist() == [0.1, 0.9, 0.6]
    assert first.notes == {"first reconstruction missing, a later one taken": 1}
    with pytest.raises(ProtocolError, match="1 of 6 volumes have no row, the first: c1"):
        rows_of(fewer, truth, unit("volume"))
    left = unit("volume").variant("out", classification__missing_case="left_out")
    found = rows_of(fewer, truth, left)
    assert found.excluded == {"without any score": 1}
    assert found.truth.row_ids == ("a1", "a2", "b1", "c2", "c3")
    loose = rows_of(fewer, truth, unit("volume").allowing_missing())
    # the study is positive: nothing could be worse than a score below all others
    assert loose.truth.row_ids == ("a1", "a2", "b1", "c1", "c2", "c3")
    assert loose.scores[3, 0] < 0.1
    assert loose.notes == {"score missing: Emphysema": 1}


def test_a_missing_score_is_an_error_zero_or_the_worst_as_the_protocol_says() -> None:
    holes = [*P[:3], math.nan, *P[4:]]
    with pytest.raises(ProtocolError, match=r"1 of 8 studies have a score that is not finite.*v3"):
        rows_of(table(CTCLIP, holes), truth_beside(CTCLIP, Y), CTCLIP)
    zero = rows_of(table(FVLM, holes), truth_beside(FVLM, Y), FVLM)
    assert (zero.scores[3] == 0.0).all()
    assert zero.notes["score missing: Emphysema"] == 1
    worst = rows_of(table(CTCLIP, holes), truth_beside(CTCLIP, Y), CTCLIP.allowing_missing())
    assert (worst.scores[3] == 0.0).all()  # the row is positive
    negative = [math.nan, *P[1:]]
    other = rows_of(table(CTCLIP, negative), truth_beside(CTCLIP, Y), CTCLIP.allowing_missing())
    assert (other.scores[0] == 1.0).all()  # this one is not


def test_what_is_filled_and_left_out_stands_in_the_result() -> None:
    holes = [*P[:3], math.nan, *P[4:]]
    whole = table(FVLM, holes)
    assert whole.scores is not None
    more = replace(
        whole,
        volume_ids=(*whole.volume_ids, "x"),
        study_ids=(*whole.study_ids, "elsewhere"),
        order=(*whole.order, 0),
        scores=np.concatenate((whole.scores, whole.scores[:1])),
    )
    test = rows_of(more, truth_beside(FVLM, Y), FVLM)
    outcome = classify(None, test, quickly(FVLM), task="t", column="c", provenance={})
    assert outcome.result.counts["score missing: Emphysema"] == 1
    assert outcome.result.excluded["volumes of studies outside the split"] == 1
    assert outcome.result.counts["volumes"] == 8
    assert outcome.table.study_ids == tuple(f"v{i}" for i in range(8))


def test_whole_studies_stand_in_for_volumes_and_say_so() -> None:
    given, truth = siblings()
    ids = ("b", "a", "c")
    whole = ScoreTable(
        findings=given.findings,
        volume_ids=ids,
        study_ids=ids,
        order=(0, 0, 0),
        scores=np.array([[0.9], [0.1], [0.4]]),
        whole_studies=True,
    )
    found = rows_of(whole, truth, unit("volume"))
    assert found.truth.row_ids == ("a", "b", "c")
    assert found.truth.volume_ids == ()
    assert found.notes == {"studies scored whole, the model embeds no single volume": 3}


# ---- what is refused ------------------------------------------------------------------------


def test_a_temperature_that_is_not_known_is_asked_for() -> None:
    given = table(CTCLIP, D, negative=[0.0] * 8)
    with pytest.raises(ProtocolError, match=r"not known[\s\S]*at_temperature"):
        scores_of(given, CTCLIP)
    scores_of(given, RADFINDER_DUP)  # needs none


def test_scores_that_are_no_probabilities_are_refused_where_probabilities_are_judged() -> None:
    given = table(CTCLIP, [*P[:7], 1.5])
    for protocol in (CTCLIP, VLM3D, RADFINDER):
        with pytest.raises(ProtocolError, match="18 of 144 scores are below 0 or above 1"):
            scores_of(given, protocol)
    scores_of(given, PLAIN)


def test_patients_that_differ_from_the_labels_are_refused() -> None:
    given, truth = siblings()
    other = replace(given, patient_ids=("z", *given.patient_ids[1:]))
    with pytest.raises(ProtocolError, match=r"1 volumes belong to another patient.*c2"):
        rows_of(other, truth, unit("volume"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "one side of the cosines, or without any score"),
        ({"positive": np.zeros((6, 1))}, "one side of the cosines"),
        ({"volume_ids": ("a1",) * 6}, "1 volumes have two rows, the first: a1"),
        ({"order": (0,)}, "for 6 volumes"),
        ({"scores": np.zeros((6, 2))}, r"scores of shape \(6, 2\) for 6 volumes"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(change: dict[str, Any], message: str) -> None:
    given, _ = siblings()
    with pytest.raises(ProtocolError, match=message):
        replace(given, **change)
