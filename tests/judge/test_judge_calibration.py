"""Calibration: probabilities from dev, measured on test, each number against plain loops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.tasks import calibration
from t3d.judge.tasks.calibration import POINTS, Calibrated
from t3d.judge.units import ScoreTable

F = "Pleural effusion"


def table_of(cohort: Any, split: str, findings: tuple[str, ...], noise: float = 1.0) -> ScoreTable:
    """Labels with noise: a score that knows something, on no scale of probabilities."""
    rows = cohort.studies(split)
    rng = np.random.default_rng(len(rows))
    known = [[3.0 * (row.labels[f] or 0) - 5.0 for f in findings] for row in rows]
    ids = tuple(row.study_id for row in rows)
    return ScoreTable(
        findings=findings,
        volume_ids=ids,
        study_ids=ids,
        order=(0,) * len(ids),
        scores=np.array(known) + 2 * noise * rng.normal(size=(len(rows), len(findings))),
        whole_studies=True,
    )


@pytest.fixture(scope="module")
def tables(cohort: Any, findings: tuple[str, ...]) -> tuple[ScoreTable, ScoreTable]:
    return table_of(cohort, "dev", findings), table_of(cohort, "test", findings)


@pytest.fixture(scope="module")
def found(cohort: Any, quick: Any, tables: tuple[ScoreTable, ScoreTable]) -> Calibrated:
    return calibration.measure(cohort, quick, tables=tables, column="made")


def value(found: Calibrated, name: str) -> float:
    return found.outcome.metric(name).value


def pairs(cohort: Any, split: str, scores: NDArray[np.float64]) -> list[tuple[float, int]]:
    """(score, label) of every study that states the finding."""
    labels = [row.labels[F] for row in cohort.studies(split)]
    return [(float(s), int(y)) for s, y in zip(scores, labels, strict=True) if y is not None]


def column(table: ScoreTable) -> NDArray[np.float64]:
    assert table.scores is not None
    return table.scores[:, table.findings.index(F)]


@pytest.mark.parametrize("fit", ["logistic", "isotonic"])
def test_brier_score_and_calibration_error_are_what_loops_give(
    cohort: Any, found: Calibrated, fit: str
) -> None:
    p = found.outcome.table.columns[f"probability:made:{fit}:{F}"]
    rows = pairs(cohort, "test", p)
    plain = sum((q - y) ** 2 for q, y in rows) / len(rows)
    assert value(found, f"brier:{fit}:{F}") == pytest.approx(plain, abs=1e-12)
    gap = 0.0
    for cell in range(10):
        inside = [(q, y) for q, y in rows if min(int(q * 10 + 1e-12), 9) == cell]
        gap += abs(sum(y for _, y in inside) - sum(q for q, _ in inside))
    assert value(found, f"ece:{fit}:{F}") == pytest.approx(gap / len(rows), abs=1e-12)
    curve = found.curves[fit][F]
    assert sum(cell.num for cell in curve) == len(rows)


def test_temperature_and_bias_minimise_the_log_loss_of_dev(
    cohort: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    rows = pairs(cohort, "dev", column(tables[0]))
    m = sum(y for _, y in rows)
    high, low = (m + 1) / (m + 2), 1 / (len(rows) - m + 2)

    def loss(slope: float, bias: float) -> float:
        total = 0.0
        for score, y in rows:
            p = 1 / (1 + math.exp(-(slope * score + bias)))
            target = high if y else low
            total -= target * math.log(p) + (1 - target) * math.log(1 - p)
        return total

    slope = 1 / value(found, f"temperature:logistic:{F}")
    bias = value(found, f"bias:logistic:{F}")
    here = loss(slope, bias)
    for step in (1e-3, -1e-3):
        assert loss(slope + step, bias) > here
        assert loss(slope, bias + step) > here


@pytest.mark.parametrize("point", POINTS)
def test_an_operating_point_holds_on_dev_and_is_measured_on_test(
    cohort: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable], point: str
) -> None:
    kind, _, wanted = point.partition(":")
    best, threshold = -1.0, math.inf
    dev = pairs(cohort, "dev", column(tables[0]))
    for candidate in sorted({s for s, y in dev if y}, reverse=True):
        sensitivity, specificity = rates(dev, candidate)
        held, gain = specificity, sensitivity
        if kind == "sensitivity":
            held, gain = sensitivity, specificity
        if held >= float(wanted) and gain > best:
            best, threshold = gain, candidate
    at = f"{kind}{wanted}"
    assert value(found, f"threshold@{at}:{F}") == threshold
    expected = rates(pairs(cohort, "test", column(tables[1])), threshold)
    names = (f"sensitivity@{at}:{F}", f"specificity@{at}:{F}")
    assert tuple(value(found, name) for name in names) == pytest.approx(expected, abs=1e-12)


def rates(rows: list[tuple[float, int]], threshold: float) -> tuple[float, float]:
    positive = [s for s, y in rows if y]
    negative = [s for s, y in rows if not y]
    hit = sum(s >= threshold for s in positive) / len(positive)
    return hit, sum(s < threshold for s in negative) / len(negative)


def test_abstention_takes_the_answers_far_from_the_dev_threshold_first(
    cohort: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    dev = pairs(cohort, "dev", column(tables[0]))
    youden = {t: sum(rates(dev, t)) for t in {s for s, y in dev if y}}
    threshold = max(t for t in youden if youden[t] == max(youden.values()))
    rows = pairs(cohort, "test", column(tables[1]))
    ordered = sorted(rows, key=lambda row: -abs(row[0] - threshold))
    wrong = [int((s >= threshold) != bool(y)) for s, y in ordered]
    risks = [sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)]
    assert value(found, f"error_rate:{F}") == pytest.approx(risks[-1], abs=1e-12)
    assert value(found, f"aurc:{F}") == pytest.approx(sum(risks) / len(risks), abs=1e-12)
    half = math.ceil(0.5 * len(wrong))
    assert value(found, f"risk@0.5:{F}") == pytest.approx(risks[half - 1], abs=1e-12)


def test_a_macro_number_is_the_mean_over_findings_with_both_classes(found: Calibrated) -> None:
    names = [m.name for m in found.outcome.result.metrics]
    for measure in ("brier:logistic", "ece:isotonic", "aurc", "sensitivity@specificity0.9"):
        rows = [value(found, n) for n in names if n.startswith(f"{measure}:") and ":macro" not in n]
        assert value(found, f"{measure}:macro") == pytest.approx(np.mean(rows), abs=1e-12)
    assert found.outcome.result.excluded["one class in test: Hiatal hernia"] == 1
    macro = found.outcome.metric("brier:logistic:macro")
    assert macro.low < macro.value < macro.high
    assert macro.value < macro.chance


def test_nothing_of_the_test_labels_enters_a_fit(
    cohort: Any, quick: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    rows = tuple(
        replace(r, labels={k: None if v is None else 1 - v for k, v in r.labels.items()})
        if r.split == "test"
        else r
        for r in cohort.rows
    )
    turned = calibration.measure(replace(cohort, rows=rows), quick, tables=tables, column="made")
    for name in (
        f"temperature:logistic:{F}",
        f"bias:logistic:{F}",
        f"threshold@sensitivity0.9:{F}",
    ):
        assert value(turned, name) == value(found, name)
    for fit in ("logistic", "isotonic"):
        name = f"probability:made:{fit}:{F}"
        first, second = (each.outcome.table.columns[name] for each in (found, turned))
        assert np.array_equal(first, second)
    assert value(turned, f"brier:logistic:{F}") > value(found, f"brier:logistic:{F}")


def test_scores_within_0_and_1_are_measured_as_they_are_too(
    cohort: Any, quick: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    assert f"brier:as_given:{F}" not in found.outcome.draws

    def squeezed(table: ScoreTable) -> ScoreTable:
        assert table.scores is not None
        return replace(table, scores=1 / (1 + np.exp(-table.scores)))

    pair = squeezed(tables[0]), squeezed(tables[1])
    given = calibration.measure(cohort, quick, tables=pair, column="made")
    assert value(given, f"brier:as_given:{F}") > value(given, f"brier:logistic:{F}")
    # a monotone change of the scores moves neither the curve nor the operating points
    assert value(given, f"brier:isotonic:{F}") == pytest.approx(
        value(found, f"brier:isotonic:{F}"), abs=0.02
    )
    name = f"sensitivity@specificity0.9:{F}"
    assert value(given, name) == value(found, name)


def test_the_order_of_rows_changes_no_number(
    cohort: Any, quick: Any, found: Calibrated, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    def mixed(table: ScoreTable) -> ScoreTable:
        assert table.scores is not None
        order = np.random.default_rng(1).permutation(len(table.scores))
        ids = tuple(table.volume_ids[i] for i in order)
        return replace(table, volume_ids=ids, study_ids=ids, scores=table.scores[order])

    pair = mixed(tables[0]), mixed(tables[1])
    again = calibration.measure(cohort, quick, tables=pair, column="made")
    # as text: a bound that is not there is NaN, which equals nothing
    assert repr(again.outcome.result.metrics) == repr(found.outcome.result.metrics)


def test_without_dev_scores_or_with_shared_patients_nothing_is_fitted(
    cohort: Any, quick: Any, tables: tuple[ScoreTable, ScoreTable]
) -> None:
    with pytest.raises(ProtocolError, match="no scores of dev"):
        calibration.measure(cohort, quick, tables=(None, tables[1]), column="made")
    with pytest.raises(ProtocolError, match="patients are in dev and in test"):
        calibration.measure(
            cohort, quick, tables=(tables[1], tables[1]), column="made", splits=("test", "test")
        )


def test_the_task_writes_result_table_and_curves(
    make_cohort: Callable[..., Any], findings: tuple[str, ...], quick: Any, tmp_path: Path
) -> None:
    made = make_cohort({"train": 2, "dev": 40, "test": 40})

    class Scorer:
        """Scores by the labels."""

        findings: tuple[str, ...] = ()

        def score_studies(self, cohort: Any, study_ids: Any) -> NDArray[np.float64]:
            """Rows of the split that has these studies."""
            split = next(r.split for r in cohort.rows if r.study_id == study_ids[0])
            scores = table_of(cohort, split, self.findings).scores
            assert scores is not None
            return scores

    model = Scorer()
    model.findings = findings
    result = calibration.run(model, made, quick, out=tmp_path)
    assert result.task == "calibration"
    assert result.provenance["fitted_on"] == "dev"
    curves = json.loads((tmp_path / "reliability.json").read_text())
    assert set(curves) == {"logistic", "isotonic"}
    assert (tmp_path / "result.json").is_file()
    assert (tmp_path / "per_study.csv").is_file()
