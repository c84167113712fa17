"""Hits and misses: the rule that picks them, and what is said of each."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import fabricated
from t3d.errors import SourceError
from t3d.show.cases import Scores, build, pick, placed, read_scores
from t3d.types import Volume


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    path = tmp_path_factory.mktemp("results") / "t3d_plus" / "per_study.csv"
    fabricated.write_scores(path)
    return read_scores(path)


def slow_placed(score: float, others: list[float]) -> float:
    total = 0.0
    for other in others:
        if other < score:
            total += 1
        elif other == score:
            total += 0.5
    return total / len(others)


@given(st.integers(-3, 3), st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_placing_equals_its_slow_twin(score: int, others: list[int]) -> None:
    fast = placed(float(score), np.array(others, float))
    assert fast == pytest.approx(slow_placed(float(score), [float(o) for o in others]))


def test_placing_by_hand() -> None:
    assert placed(3.0, np.array([1.0, 3.0, 5.0, 7.0])) == 0.375
    assert math.isnan(placed(3.0, np.array([])))


def test_the_mean_placing_of_the_positives_is_the_auroc(scores: Scores) -> None:
    values, labels = scores.scores["bank"]["Emphysema"], scores.labels["Emphysema"]
    mean = np.mean([placed(float(v), values[labels == 0]) for v in values[labels == 1]])
    assert mean == pytest.approx(roc_auc_score(labels, values))


def test_the_table_is_read_by_prompt_set_and_an_empty_field_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "per_study.csv"
    path.write_text(
        "study_id,patient_id,score:bank:A: b,label:A: b,rank:t2i,seconds\ns1,p1,0.5,,3,9\n"
    )
    read = read_scores(path)
    assert read.scores["bank"]["A: b"].tolist() == [0.5]
    assert math.isnan(read.labels["A: b"][0])
    assert read.ranks["t2i"].tolist() == [3.0]


def test_a_missing_or_foreign_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is missing"):
        read_scores(tmp_path / "per_study.csv")
    (tmp_path / "per_study.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="columns a, b"):
        read_scores(tmp_path / "per_study.csv")


def test_the_rule_gives_the_extremes_and_never_a_patient_twice(scores: Scores) -> None:
    chosen = pick(scores, "bank")
    kinds = [c.kind for c in chosen]
    assert kinds == ["hit"] * 3 + ["miss"] * 3 + ["false alarm"] * 2 + ["drawn"] * 2
    assert len({c.row for c in chosen}) == len(chosen)
    every = [
        placed(float(v[row]), v[scores.labels[f] == 0])
        for f, v in scores.scores["bank"].items()
        for row in np.flatnonzero(scores.labels[f] == 1)
    ]
    assert chosen[0].placed == max(every)
    hits, misses, alarms = chosen[:3], chosen[3:6], chosen[6:8]
    assert max(m.placed for m in misses) < 0.2 < 0.9 < min(h.placed for h in hits)
    assert [c.truth for c in alarms] == [0, 0]
    for group in (hits, misses, alarms):
        assert len({c.finding for c in group}) == len(group)
    assert pick(scores, "bank") == chosen


def test_drawn_patients_do_not_depend_on_their_scores(scores: Scores) -> None:
    flat = {f: np.zeros_like(v) for f, v in scores.scores["bank"].items()}
    other = Scores(
        study_ids=scores.study_ids, scores={"bank": flat}, labels=scores.labels, ranks={}
    )
    first = min(scores.study_ids, key=lambda s: hashlib.sha256(s.encode()).hexdigest())
    for table in (scores, other):
        by_score = {c.row for c in pick(table, "bank")[:-2]}
        drawn = [table.study_ids[c.row] for c in pick(table, "bank") if c.kind == "drawn"]
        assert drawn[0] == first or table.study_ids.index(first) in by_score


def test_a_prompt_set_that_was_not_scored_gives_no_case(scores: Scores) -> None:
    assert pick(scores, "other") == ()


def test_a_case_tells_finding_sentence_score_rank_and_slice(scores: Scores) -> None:
    shown = build(scores, "bank", fabricated.FakeCohort())
    other = next(c for c in shown if c.finding != "Lung nodule")
    assert other.sentence == ""
    assert "middle slice" in other.pictures[0].caption
    row = scores.study_ids.index(other.study_id)
    assert f"its report finds it at rank {row % 12 + 1} of 40" in other.retrieval
    assert other.lines[0].finding == other.finding
    assert other.lines[0].score == f"{scores.scores['bank'][other.finding][row]:.3f}"
    true = {f for f, v in scores.labels.items() if v[row] == 1}
    assert true <= {line.finding for line in other.lines if line.truth == "yes"}


def test_a_finding_with_a_mask_is_shown_where_most_of_it_lies_and_outlined(scores: Scores) -> None:
    only = {"Lung nodule": scores.scores["bank"]["Lung nodule"]}
    few = Scores(study_ids=scores.study_ids, scores={"bank": only}, labels=scores.labels, ranks={})
    shown = build(few, "bank", fabricated.FakeCohort())
    assert {c.finding for c in shown} == {"Lung nodule"}
    for case in shown:
        assert case.sentence == "A nodule of 14 mm lies in the left lung."
        assert "Lung nodule outlined" in case.pictures[0].alt
        assert "z -120 mm, as the model saw it; largest section" in case.pictures[0].caption


def test_verdicts_say_which_side_a_patient_is_on(scores: Scores) -> None:
    by_kind = {c.kind: c for c in build(scores, "bank", fabricated.FakeCohort())}
    assert by_kind["hit"].verdict.startswith(f"Has {by_kind['hit'].finding} and scores above 100 %")
    alarm = by_kind["false alarm"]
    assert alarm.verdict.startswith(f"Has no {alarm.finding} and scores above")
    assert alarm.verdict.endswith("of the patients who have it")


def test_a_study_without_volume_or_report_is_shown_without_them(scores: Scores) -> None:
    class Bare(fabricated.FakeCohort):
        def report(self, study_id: str) -> None:
            return None

    shown = build(scores, "bank", Bare(studies_by_split={"test": []}))
    assert shown[0].pictures == ()
    assert shown[0].report == ""


def test_a_finer_drawing_is_put_beside_what_the_model_saw(scores: Scores) -> None:
    asked: list[tuple[str, float]] = []

    def fine(study_id: str, volume: Volume, z_mm: float) -> Volume | None:
        asked.append((volume.volume_id, z_mm))
        return fabricated.chest(shape=(1, 128, 128)) if len(asked) == 1 else None

    shown = build(scores, "bank", fabricated.FakeCohort(), fine=fine)
    assert [len(c.pictures) for c in shown] == [4] + [2] * (len(shown) - 1)
    assert "drawn finely" in shown[0].pictures[2].caption
    assert [volume_id for volume_id, _ in asked] == [f"{c.study_id}_v" for c in shown]
