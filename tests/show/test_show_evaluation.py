"""The page of an evaluation: numbers beside their nulls, pictures of who was wrong, gaps named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.outcome import Outcome, StudyTable
from t3d.judge.results import write_results
from t3d.show.cases import Scores
from t3d.show.evaluation import evaluation_page
from t3d.show.evaluation_charts import reliability_charts, roc_charts, roc_points, strips
from t3d.show.evaluation_tables import headline_table, left_out_table, not_run, published_table
from t3d.show.page import MAX_BYTES
from t3d.types import Metric, Result
from test_show_page import check, words

FINDINGS = ("Emphysema", "Cardiomegaly", "Lung nodule", "Hiatal hernia")


def metric(name: str, value: float, **more: Any) -> Metric:
    """A metric with an interval of .02 to either side, of 40 patients."""
    told = {"low": value - 0.02, "high": value + 0.02, "n": 40, "unit": "patients"}
    return Metric(name=name, value=value, **(told | more))


def classification(**provenance: str) -> Result:
    half = {"chance": 0.5, "ceiling": 1.0}
    return Result(
        task="zero_shot",
        protocol="plain",
        metrics=(
            metric("auroc:macro", 0.8123, **half),
            metric("matched_auroc:macro", 0.7345, **half),
            metric("null:age:auroc:macro", 0.6011),
            metric("over_null:age:auroc:macro", 0.2112),
            metric("null:other_findings:auroc:macro", 0.8044),
            metric("over_null:other_findings:auroc:macro", 0.0079),
            *(metric(f"auroc:{f}", 0.7 + 0.01 * k, **half) for k, f in enumerate(FINDINGS[:3])),
        ),
        counts={
            "studies": 40,
            **{f"positive:{f}": 10 for f in FINDINGS},
            **{f"negative:{f}": 30 for f in FINDINGS},
        },
        excluded={"one class (all): Hiatal hernia": 1},
        provenance={
            "prompts": "bank",
            "cohort": "feedc0ffee",
            "nulls_fit": "train",
            "nulls_not_beaten": "other_findings",
            **provenance,
        },
    )


def skipped(task: str, why: str) -> Result:
    return Result(task=task, protocol="plain", metrics=(), excluded={f"not run: {why}": 1})


def stratum() -> Result:
    return Result(
        task="strata:sex",
        protocol="plain",
        metrics=(
            metric("auroc:macro|sex=F", 0.77, chance=0.5),
            metric("auroc:macro|sex=M", 0.83, chance=0.5),
            metric("auroc:macro|sex=F minus M", -0.06, chance=0.0),
        ),
        counts={"rows|sex=F": 18, "rows|sex=M": 22},
        provenance={"by": "sex", "prompts": "bank", "smallest_class": "10"},
    )


def table() -> StudyTable:
    rng = np.random.default_rng(0)
    ids = tuple(f"s{i:03}" for i in range(40))
    columns = {}
    for finding in FINDINGS[:3]:
        labels = (np.arange(40) % 4 == 0).astype(np.float64)
        columns[f"label:{finding}"] = labels
        columns[f"score:bank:{finding}"] = labels + rng.normal(size=40)
    return StudyTable(study_ids=ids, patient_ids=ids, columns=columns)


CELL = {"low": 0.0, "high": 1.0, "by_patient": [None, None]}
CURVES = {
    "logistic": {
        "Emphysema": [
            CELL | {"num": 30, "predicted": 0.2, "observed": 0.25, "wilson": [0.1, 0.4]},
            CELL | {"num": 10, "predicted": 0.7, "observed": 0.6, "wilson": [0.3, 0.8]},
        ],
        "Cardiomegaly": [
            CELL | {"num": 20, "predicted": 0.1, "observed": 0.6, "wilson": [0.4, 0.8]},
            CELL | {"num": 20, "predicted": 0.9, "observed": 0.9, "wilson": [0.7, 1.0]},
        ],
    }
}


def place(study: str, guess: float, flat: float = 0.01) -> dict[str, Any]:
    """A sentence at 50 mm in a scan of ten cells from 0 to 100 mm."""
    return {
        "study_id": study,
        "volume_id": f"{study}-v",
        "finding": "Emphysema",
        "key": "findings:000000:000009",
        "z_mm": [50.0, 45.0, 55.0],
        "centres_mm": [5.0 + 10 * k for k in range(10)],
        "curve": [0.1 * (k == guess // 10) for k in range(10)],
        "guess_mm": guess,
        "interval_50_mm": [guess - 5, guess + 5],
        "interval_90_mm": [0.0, 100.0],
        "flat_p": flat,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = (
        classification(),
        stratum(),
        skipped("probe", "split 'train' has no study with a volume"),
    )
    outcomes = [Outcome(result=r, table=table(), draws={}) for r in results]
    write_results(tmp_path, outcomes)
    (tmp_path / "reliability.json").write_text(json.dumps(CURVES))
    places = [place("s001", 55.0), place("s002", 95.0, flat=0.4)]
    (tmp_path / "localization.json").write_text(json.dumps(places))
    return tmp_path


def test_each_number_stands_beside_the_strongest_thing_that_needs_no_image(folder: Path) -> None:
    text = words(evaluation_page(folder))
    assert "zero-shot, prompts bank: macro AUROC 0.812 [0.792, 0.832] 0.804 other findings" in text
    assert "+0.008 [-0.012, +0.028]" in text or "+0.008 [-0.012, 0.028]" in text
    assert "not told from what sees no image: other findings" in text
    assert "0.735" in text  # among patients of one age and sex
    assert "For research; not for clinical use" in text


def test_what_could_not_be_measured_is_named_with_its_reason(folder: Path) -> None:
    text = words(evaluation_page(folder))
    assert "probe, plain : split 'train' has no study with a volume" in text
    assert "one class (all): Hiatal hernia" in text
    assert "Hiatal hernia not measured" in text
    assert "feedc0ffee" in text


def test_the_page_carries_everything_and_runs_nothing(folder: Path) -> None:
    path = evaluation_page(folder)
    checker = check(path)
    assert path.stat().st_size < MAX_BYTES
    assert not {"script", "link", "iframe", "object"} & set(checker.tags)
    assert all(link.startswith(("data:image/", "#")) for link in checker.links)
    assert {link[1:] for link in checker.links if link.startswith("#")} <= set(checker.ids)
    assert len(checker.charts) == 3 + 2 + 2  # ROC, reliability, strips
    assert all(c["role"] == "img" and c["aria-label"] for c in checker.charts)
    assert checker.tags.count("caption") == checker.tags.count("table")


def test_a_folder_without_any_extra_still_gives_a_page(tmp_path: Path) -> None:
    empty = StudyTable(study_ids=(), patient_ids=(), columns={})
    write_results(tmp_path, [Outcome(result=skipped("pools", "none"), table=empty, draws={})])
    assert "pools, plain : none" in words(evaluation_page(tmp_path))


def test_a_suite_shows_all_its_protocols_and_plain_first(tmp_path: Path) -> None:
    for name in ("ctclip", "plain"):
        result = classification()
        renamed = Result(
            task=result.task,
            protocol=name,
            metrics=result.metrics,
            counts=result.counts,
            provenance=result.provenance,
        )
        write_results(tmp_path / name, [Outcome(result=renamed, table=table(), draws={})])
    (tmp_path / "suite.json").write_text(json.dumps({"notes": ["3 of 4 volumes are scored"]}))
    text = words(evaluation_page(tmp_path))
    assert "Evaluation under plain, ctclip" in text
    assert "protocol ctclip: " in text  # its warnings
    assert "The same model, other rules" in text


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"result\.json"):
        evaluation_page(tmp_path)


def test_published_figures_stand_beside_nothing_but_their_own_protocol_and_sample() -> None:
    assert published_table([classification()], "ct_rate") is None
    whole = Result(
        task="zero_shot",
        protocol="ctclip",
        metrics=(metric("auroc:macro", 0.7),),
        counts={"volumes": 3039, "studies": 1564},
    )
    shown = published_table([whole], "ct_rate")
    assert shown is not None
    assert all(row.cells[1].text == "0.700" for row in shown.rows)
    assert published_table([whole], "folder") is None


def test_a_roc_keeps_corners_and_its_area() -> None:
    steps, rates = roc_points(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0]))
    assert list(zip(steps, rates, strict=True)) == [(0, 0), (0, 0.5), (1, 0.5), (1, 1)]
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.integers(0, 6, 30).astype(float)  # ties
        labels = (rng.random(30) < 0.4).astype(float)
        if len(set(labels)) < 2:
            continue
        steps, rates = roc_points(scores, labels)
        area = sum(
            (x2 - x1) * (y1 + y2) / 2
            for x1, x2, y1, y2 in zip(steps, steps[1:], rates, rates[1:], strict=False)
        )
        wins = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
        assert area == pytest.approx(float(np.mean(wins)), abs=1e-12)


def test_roc_charts_are_of_findings_with_both_classes_best_first() -> None:
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    scores = Scores(
        study_ids=("a", "b", "c", "d"),
        scores={
            "bank": {
                "one": np.array([1.0, 2.0, 3.0, 4.0]),
                "two": np.array([1.0, 3.0, 2.0, 4.0]),
                "gone": np.array([1.0, 2.0, math.nan, math.nan]),
            }
        },
        labels={"one": labels, "two": labels, "gone": np.zeros(4)},
        ranks={},
    )
    assert [c.title for c in roc_charts(scores, "bank")] == ["two: 1.000", "one: 0.750"]


def test_reliability_is_drawn_from_the_largest_error_down() -> None:
    charts = reliability_charts(CURVES["logistic"])
    # (30 x .05 + 10 x .1) / 40 and (20 x .5 + 0) / 40
    assert [c.title for c in charts] == ["Cardiomegaly: error 0.250", "Emphysema: error 0.062"]


def test_a_strip_places_truth_guess_and_intervals_along_the_scan() -> None:
    near, far = (strip for _, strip in strips([place("s2", 95.0, 0.4), place("s1", 55.0)], 8))
    assert near.title == "Emphysema, s1: +5 mm"
    # 0 mm is px 8, 100 mm is px 332
    assert near.truth == (170.0, 153.8, 32.4)
    assert near.guess == pytest.approx(186.2)
    assert near.wide == (8.0, 324.0)
    assert near.narrow == (170.0, 32.4)
    assert near.note == ""
    assert far.note == "cannot be localized: flat"


def test_tables_say_nothing_where_there_is_nothing() -> None:
    lost = [skipped("retrieval", "the model embeds no reports")]
    assert headline_table(lost).rows == ()
    assert left_out_table(lost).rows == ()
    assert not_run(lost) == [("retrieval, plain", "the model embeds no reports")]
