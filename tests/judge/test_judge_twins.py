"""Whole protocols against a second writing of their prose, in plain loops that share no code.

A hundred random tables with ties, siblings, unstated labels, findings of one class and missing
scores go through every classification protocol, from raw cosines to the numbers it prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from made_score_tables import quickly
from t3d.errors import ProtocolError
from t3d.judge.classification import classify
from t3d.judge.protocol import Protocol
from t3d.judge.protocols import PROTOCOLS
from t3d.judge.rules import Scored, values_of
from t3d.judge.truth import Truth
from t3d.judge.units import ScoreTable, asked_of, rows_of, scored_of


@pytest.fixture(autouse=True)
def few_random_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The floors of random models are tested elsewhere."""
    monkeypatch.setattr("t3d.judge.rules.NUM_RANDOM", 2)


CLASSIFYING = tuple(p for p in PROTOCOLS if p.classification is not None)
OWN = ("a", "b", "c", "d")  # findings of protocols that have no list of their own


@dataclass(frozen=True, kw_only=True)
class Made:
    """A random table; cosines and labels by name, NaN = missing, None = not stated."""

    rows: tuple[tuple[str, str, int], ...]  # volume, study, order
    positive: Mapping[tuple[str, str], float]  # (volume, finding)
    negative: Mapping[tuple[str, str], float]
    labels: Mapping[tuple[str, str], int | None]  # (study, finding)
    scale: float
    flat: str  # a finding that no study has; "" = none
    holes: int  # missing scores


def made(seed: int, protocol: Protocol) -> Made:
    """Draw a table for the findings that a protocol asks for."""
    rng = np.random.default_rng(seed)
    rules = protocol.classes
    asked, scored = asked_of(rules, OWN), scored_of(rules, OWN)
    studies = [f"s{i:02}" for i in range(int(rng.integers(8, 20)))]
    rows = [
        (f"{s}_{k + 1}", s, k)
        for s in studies
        for k in range(int(rng.choice([1, 2, 3], p=(0.3, 0.6, 0.1))))
    ]
    cells = [(row[0], name) for row in rows for name in asked]
    positive = {cell: round(float(rng.normal(0.2, 0.05)), 2) for cell in cells}
    negative = {cell: round(float(rng.normal(0.2, 0.05)), 2) for cell in cells}
    holes = 3 if seed % 5 == 4 else 0
    for i in rng.permutation(len(cells))[:holes]:
        positive[cells[i]] = math.nan
    labels: dict[tuple[str, str], int | None] = {}
    for i, s in enumerate(studies):
        for name in scored:
            labels[s, name] = i if i < 2 else int(rng.random() < 0.4)  # both classes are there
            if i > 1 and rng.random() < 0.08:
                labels[s, name] = None
    flat = scored[seed % len(scored)] if seed % 4 == 3 else ""
    if flat:
        labels |= {(s, flat): 0 for s in studies}
    scale = (1.0, math.e, 1 / 0.07, 100.0)[seed % 4]
    return Made(
        rows=tuple(rows[i] for i in rng.permutation(len(rows))),
        positive=positive,
        negative=negative,
        labels=labels,
        scale=scale,
        flat=flat,
        holes=holes,
    )


def given(told: Made, protocol: Protocol) -> tuple[ScoreTable, Truth]:
    """The table as the judge takes it."""
    asked, scored = asked_of(protocol.classes, OWN), scored_of(protocol.classes, OWN)
    studies = sorted({study for _, study, _ in told.rows})

    def grid(side: Mapping[tuple[str, str], float]) -> Any:
        return np.array([[side[volume, name] for name in asked] for volume, _, _ in told.rows])

    labels = [[told.labels[s, name] for name in scored] for s in studies]
    coded = np.array([[-1 if v is None else v for v in row] for row in labels], dtype=np.int8)
    table = ScoreTable(
        findings=asked,
        volume_ids=tuple(volume for volume, _, _ in told.rows),
        study_ids=tuple(study for _, study, _ in told.rows),
        order=tuple(order for _, _, order in told.rows),
        positive=grid(told.positive),
        negative=grid(told.negative),
        logit_scale=told.scale,
    )
    truth = Truth(
        study_ids=tuple(studies),
        patient_ids=tuple(f"p{int(s[1:]) // 2}" for s in studies),
        findings=scored,
        labels=coded,
        large=np.full(coded.shape, -1, dtype=np.int8),
        volumes=tuple(tuple(sorted(v for v, o, _ in told.rows if o == s)) for s in studies),
    )
    return table, truth


# ---- the second writing ---------------------------------------------------------------------


def softmax_first(a: float, b: float, factor: float) -> float:
    top = max(a * factor, b * factor)
    one, two = math.exp(a * factor - top), math.exp(b * factor - top)
    return one / (one + two)


def difference(a: float, b: float, digits: int) -> float:
    return round(round(a, digits) - round(b, digits), digits)


def by_pairs(scores: list[float], labels: list[int]) -> float:
    won = 0.0
    positives = [s for s, y in zip(scores, labels, strict=True) if y == 1]
    negatives = [s for s, y in zip(scores, labels, strict=True) if y == 0]
    for p in positives:
        for n in negatives:
            won += 1.0 if p > n else 0.5 if p == n else 0.0
    return won / (len(positives) * len(negatives))


def precision_steps(scores: list[float], labels: list[int]) -> float:
    area, found = 0.0, 0
    for level in sorted(set(scores), reverse=True):
        called = [y for s, y in zip(scores, labels, strict=True) if s >= level]
        area += (sum(called) - found) / sum(labels) * (sum(called) / len(called))
        found = sum(called)
    return area


def rates(scores: list[float], labels: list[int], called: Callable[[float], bool]) -> Any:
    tp = sum(1 for s, y in zip(scores, labels, strict=True) if called(s) and y == 1)
    fp = sum(1 for s, y in zip(scores, labels, strict=True) if called(s) and y == 0)
    fn = sum(1 for s, y in zip(scores, labels, strict=True) if not called(s) and y == 1)
    tn = sum(1 for s, y in zip(scores, labels, strict=True) if not called(s) and y == 0)
    return tp, fp, fn, tn


def grid_rule(scores: list[float], labels: list[int]) -> Callable[[float], bool]:
    best, chosen = math.inf, 0.0
    for threshold in np.linspace(0, 1, 100).tolist():
        tp, fp, fn, tn = rates(scores, labels, lambda s, t=threshold: s > t)  # type: ignore[misc]
        distance = math.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if distance <= best:
            best, chosen = distance, threshold
    return lambda s: s > chosen


def youden_rule(scores: list[float], labels: list[int], *, none: float) -> Callable[[float], bool]:
    best, chosen = 0.0, none  # calling nobody positive has J = 0 and comes first
    for threshold in sorted(set(scores), reverse=True):
        tp, fp, fn, tn = rates(scores, labels, lambda s, t=threshold: s >= t)  # type: ignore[misc]
        gain = tp / (tp + fn) - fp / (fp + tn)
        if gain > best:
            best, chosen = gain, threshold
    return lambda s: s >= chosen


def own_youden(scores: list[float], labels: list[int]) -> Callable[[float], bool]:
    best, chosen = -math.inf, math.inf
    for threshold in sorted(set(scores), reverse=True):
        tp, fp, fn, tn = rates(scores, labels, lambda s, t=threshold: s >= t)  # type: ignore[misc]
        gain = tp * (fp + tn) - fp * (tp + fn)
        if gain > best:
            best, chosen = gain, threshold
    return lambda s: s >= chosen


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def measures(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    f1, f0 = share(2 * tp, 2 * tp + fp + fn), share(2 * tn, 2 * tn + fp + fn)
    num = tp + fp + fn + tn
    sensitivity, specificity = share(tp, tp + fn), share(tn, tn + fp)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": share(tp, tp + fp),
        "accuracy": (tp + tn) / num,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": f1,
        "f1_weighted": ((tp + fn) * f1 + (tn + fp) * f0) / num,
    }


def nine_cells(scores: list[float], labels: list[int]) -> float:
    gap = 0.0
    for cell in range(9):
        inside = [
            (s, y)
            for s, y in zip(scores, labels, strict=True)
            if cell <= 9 * s < cell + 1 and s < 1
        ]
        gap += abs(sum(y for _, y in inside) - sum(s for s, _ in inside))
    return gap / len(scores)


class RefusedError(Exception):
    """What the prose calls an error."""


SKIPS = ("plain", "hlip", "hlip_external", "radfinder", "radfinder_dup", "radfinder_external")
GRID = ("ctclip", "ctclip_external", "fvlm", "hlip_starred", "hlip_external_starred")
YOUDEN = ("radfinder", "radfinder_dup", "radfinder_external")
FIRST = ("plain", "radfinder")


def prose(told: Made, protocol: Protocol, dev: Made | None) -> dict[str, float]:
    """What the protocol gives, by measure."""
    name = protocol.name
    table = {f: column(told, name, f) for f in scored_of(protocol.classes, OWN)}
    kept: dict[str, list[float]] = {}
    totals = [0, 0, 0, 0]
    for finding, (scores, labels) in table.items():
        one_class = len(set(labels)) < 2
        if one_class and name in SKIPS:
            continue
        if one_class and name != "vlm3d":
            raise RefusedError
        if not one_class:
            kept.setdefault("auroc", []).append(by_pairs(scores, labels))
            kept.setdefault("average_precision", []).append(precision_steps(scores, labels))
            kept.setdefault("ece9", []).append(
                nine_cells(scores, labels) if name == "inspect" else 0.0
            )
        called = rule_of(name, scores, labels, None if dev is None else column(dev, name, finding))
        if called is None:
            continue
        counts = rates(scores, labels, called)
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        for measure, value in measures(*counts).items():
            kept.setdefault(measure, []).append(value)
    out = {measure: sum(values) / len(values) for measure, values in kept.items()}
    tp, fp, fn = totals[:3]
    answers, positives = sum(totals), tp + fn
    r, u = (answers - positives) / (2 * positives), (answers - positives) / 2
    out["crg"] = u / (2 * u - (r * tp - r * fn - fp))
    return out


def rule_of(
    name: str, scores: list[float], labels: list[int], dev: tuple[list[float], list[int]] | None
) -> Callable[[float], bool] | None:
    """Who is called positive; None = no threshold can be had."""
    if name in GRID:
        return grid_rule(scores, labels)
    if name in YOUDEN:
        return youden_rule(scores, labels, none=0.5)
    if dev is not None:
        return own_youden(*dev) if len(set(dev[1])) == 2 else None
    if name in ("vlm3d", "inspect"):
        return lambda s: s >= 0.5
    return lambda s: s > 0.5


def column(told: Made, name: str, finding: str) -> tuple[list[float], list[int]]:
    """Scores and labels of one finding's rows."""
    scores, labels = [], []
    for volume, study, order in sorted(told.rows):
        if name in FIRST and order > 0:
            continue
        if math.isnan(score := one_score(told, name, volume, finding)):
            if name not in ("fvlm", "vlm3d"):
                raise RefusedError
            score = 0.0
        label = told.labels[study, finding]
        if label is not None:
            scores.append(score)
            labels.append(label)
    return scores, labels


def one_score(told: Made, name: str, volume: str, finding: str) -> float:
    """Score of one volume and finding, calcifications merged."""
    own = bare_score(told, name, volume, finding)
    if finding != "Arterial wall calcification" or "external" not in name:
        return own
    other = bare_score(told, name, volume, "Coronary artery wall calcification")
    if math.isnan(own) or math.isnan(other):
        return math.nan
    if name.startswith("hlip") and not (own > 0.5 or other > 0.5):
        return min(own, other)
    return max(own, other)


def bare_score(told: Made, name: str, volume: str, finding: str) -> float:
    a, b = told.positive[volume, finding], told.negative[volume, finding]
    if math.isnan(a):
        return math.nan
    if name == "plain":
        return difference(a, b, 6)
    # equal differences of cosines are ties, whatever float64 makes of them
    apart = difference(a, b, 12)
    return softmax_first(apart, 0.0, 1.0 if name in YOUDEN else told.scale)


def judged(told: Made, protocol: Protocol, dev: Made | None) -> dict[str, float]:
    """What the judge gives, by measure."""
    test = rows_of(*given(told, protocol), protocol)
    other = None if dev is None else rows_of(*given(dev, protocol), protocol)
    return values_of(other, test, protocol).macro()


# ---- comparison -----------------------------------------------------------------------------


def compare(protocol: Protocol, seeds: range) -> tuple[int, int]:
    """Compare both writings on tables; how many gave numbers, how many both refuse."""
    compared, refused = 0, 0
    for seed in seeds:
        told = made(seed, protocol)
        needs_dev = protocol.classes.fitted_on == "dev"
        # dev tables have no holes and both classes: the plain rule is about test there
        dev = made(1000 + 4 * 5 * seed, protocol) if needs_dev else None
        try:
            expected = prose(told, protocol, dev)
        except RefusedError:
            with pytest.raises(ProtocolError):
                judged(told, protocol, dev)
            refused += 1
            continue
        found = judged(told, protocol, dev)
        wanted = [row.definition for row in protocol.classes.printed]
        for measure in {"auroc", "average_precision", "accuracy", "f1_weighted", *wanted}:
            assert found[measure] == pytest.approx(expected[measure], abs=1e-12), (seed, measure)
        compared += 1
    return compared, refused


@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_a_protocol_gives_what_its_prose_says_on_random_tables(protocol: Protocol) -> None:
    compared, refused = compare(protocol, range(8))
    assert compared >= 4
    assert refused > 0 or protocol.name == "vlm3d"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_a_protocol_gives_what_its_prose_says_on_many_more_tables(protocol: Protocol) -> None:
    compared, _ = compare(protocol, range(8, 100))
    assert compared >= 54


@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_a_result_holds_these_values_and_the_originals_keys(protocol: Protocol) -> None:
    told = made(1, protocol)
    table, truth = given(told, protocol)
    dev = apart(made(1000, protocol), protocol) if protocol.classes.fitted_on == "dev" else None
    test = rows_of(table, truth, protocol)
    outcome = classify(dev, test, quickly(protocol), task="t", column="c", provenance={})
    values = values_of(dev, test, protocol).macro()
    found = {m.name: m for m in outcome.result.metrics}
    for measure, value in values.items():
        name = measure if measure == "crg" else f"{measure}:macro"
        assert found[name].value == pytest.approx(value, abs=1e-12), name
    decimals = protocol.classes.decimals
    for row in protocol.classes.printed:
        shown = found[f"printed:{row.key}"].value
        assert shown == pytest.approx(values[row.definition], abs=1e-12 if decimals is None else 1)
        if decimals is not None:
            assert shown == round(found[f"{row.definition}:macro"].value, decimals)
    if protocol.intervals.resample == "none":
        drawn = [m for m in outcome.result.metrics if m.name in outcome.draws]
        assert all(m.low == m.high == pytest.approx(m.value, abs=1e-12) for m in drawn)
    unit = {m.unit for m in outcome.result.metrics if m.name in outcome.draws}
    assert unit == {"patients" if protocol.intervals.resample == "patients" else "rows"}


def apart(told: Made, protocol: Protocol) -> Scored:
    """A table of other patients."""
    table, truth = given(told, protocol)
    other = tuple(f"dev-{p}" for p in truth.patient_ids)
    return rows_of(table, replace(truth, patient_ids=other), protocol)


@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_the_order_of_rows_changes_no_bit_of_any_number(protocol: Protocol) -> None:
    told = made(1, protocol)
    table, truth = given(told, protocol)
    rng = np.random.default_rng(0)
    found = []
    for turn in range(2):
        rows = rng.permutation(len(table.volume_ids)) if turn else range(len(table.volume_ids))
        moved = ScoreTable(
            findings=table.findings,
            volume_ids=tuple(table.volume_ids[i] for i in rows),
            study_ids=tuple(table.study_ids[i] for i in rows),
            order=tuple(table.order[i] for i in rows),
            positive=None if table.positive is None else table.positive[list(rows)],
            negative=None if table.negative is None else table.negative[list(rows)],
            logit_scale=table.logit_scale,
        )
        test = rows_of(moved, truth, protocol)
        needs = protocol.classes.fitted_on == "dev"
        dev = apart(made(1000, protocol), protocol) if needs else None
        outcome = classify(dev, test, quickly(protocol), task="t", column="c", provenance={})
        drawn = {name: values.tobytes() for name, values in outcome.draws.items()}
        found.append((repr(outcome.result), drawn, outcome.table.study_ids))
    assert found[0] == found[1]
