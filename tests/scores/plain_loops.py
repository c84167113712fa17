"""Second implementations for tests: one row, one pair, one threshold at a time, from the prose.

Nothing here comes from `t3d`. A draw is a list of row numbers, repeated as often as drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

Rows = Sequence[int]
NAN = float("nan")


def area(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Share of (positive, negative) pairs in order; a tie is half a pair."""
    won, pairs = 0.0, 0
    for s, y in zip(scores, labels, strict=True):
        for t, z in zip(scores, labels, strict=True):
            if y == 1 and z == 0:
                pairs += 1
                won += 1.0 if s > t else 0.5 if s == t else 0.0
    return won / pairs if pairs else NAN


def precision_area(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Sum over falling thresholds of the gain in recall times the precision there."""
    if len(set(labels)) < 2:
        return NAN
    total, recall, out = sum(labels), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        out += (sum(called) / total - recall) * sum(called) / len(called)
        recall = sum(called) / total
    return out


def count(
    scores: Sequence[float], labels: Sequence[int], threshold: float, *, strict: bool = False
) -> tuple[int, int, int, int]:
    """TP, FP, TN, FN."""
    tp = fp = tn = fn = 0
    for s, y in zip(scores, labels, strict=True):
        called = s > threshold if strict else s >= threshold
        if called and y == 1:
            tp += 1
        elif called:
            fp += 1
        elif y == 1:
            fn += 1
        else:
            tn += 1
    return tp, fp, tn, fn


def corner(scores: Sequence[float], labels: Sequence[int]) -> float:
    """CT-CLIP: of 100 points from 0 to 1 the one nearest to the corner, the last of equal ones."""
    best, chosen = math.inf, NAN
    for k in range(100):
        threshold = 1.0 if k == 99 else k * (1 / 99)  # numpy.linspace multiplies by the step
        tp, fp, tn, fn = count(scores, labels, threshold, strict=True)
        away = math.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if away <= best:
            best, chosen = away, threshold
    return chosen


def first_youden(scores: Sequence[float], labels: Sequence[int]) -> float:
    """RadFinder: from nothing called downwards, the first maximum of hit rate - false rate."""
    best, chosen = 0.0, math.inf
    for threshold in sorted(set(scores), reverse=True):
        tp, fp, tn, fn = count(scores, labels, threshold)
        if tp / (tp + fn) - fp / (fp + tn) > best:
            best, chosen = tp / (tp + fn) - fp / (fp + tn), threshold
    return chosen if math.isfinite(chosen) else 0.5


def exact_best(scores: Sequence[float], labels: Sequence[int], what: str) -> float:
    """Ours: highest score with the largest sensitivity + specificity, or F1, as a fraction."""
    best, chosen = Fraction(-9), NAN
    for threshold in sorted(set(scores), reverse=True):
        tp, fp, tn, fn = count(scores, labels, threshold)
        youden = Fraction(tp, tp + fn) + Fraction(tn, tn + fp)
        gain = youden if what == "youden" else Fraction(2 * tp, 2 * tp + fp + fn)
        if gain > best:
            best, chosen = gain, threshold
    return chosen


def measures(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    """Yes/no measures; an empty ratio is 0, or NaN where a class is missing from the truth."""
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
    f1_negative = 2 * tn / (2 * tn + fp + fn) if tn + fp + fn else 0.0
    sensitivity = tp / (tp + fn) if tp + fn else NAN
    specificity = tn / (tn + fp) if tn + fp else NAN
    every = tp + fp + tn + fn
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "f1": f1,
        "f1_macro": (f1 + f1_negative) / 2,
        "f1_weighted": ((tp + fn) * f1 + (tn + fp) * f1_negative) / every if every else NAN,
        "accuracy": (tp + tn) / every if every else NAN,
        "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def crg_score(tp: int, fp: int, tn: int, fn: int) -> float:
    """CRG as the paper writes it."""
    x, a = tp + fp + tn + fn, tp + fn
    if not a:
        return NAN
    r, u = (x - a) / (2 * a), (x - a) / 2
    s = r * tp - r * fn - fp
    return u / (2 * u - s) if 2 * u - s else 0.0


def placements(
    scores: Sequence[float], labels: Sequence[int]
) -> tuple[dict[int, float], dict[int, float]]:
    """Row -> share of the other class on its right side, for positives and for negatives."""
    positive = [r for r, y in enumerate(labels) if y == 1]
    negative = [r for r, y in enumerate(labels) if y == 0]
    kernel = {
        (i, j): 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
        for i in positive
        for j in negative
    }
    above = {i: sum(kernel[i, j] for j in negative) / len(negative) for i in positive}
    below = {j: sum(kernel[i, j] for i in positive) / len(positive) for j in negative}
    return above, below


def obuchowski(
    first: Sequence[float], second: Sequence[float], labels: Sequence[int], patients: Sequence[str]
) -> float:
    """Covariance of two AUROCs on the same rows, from sums of placements by cluster."""
    one, two = placements(first, labels), placements(second, labels)
    m, n = len(one[0]), len(one[1])
    theta = [sum(above.values()) / m for above, _ in (one, two)]
    clusters = sorted(set(patients))
    with_positive = {patients[r] for r in one[0]}
    with_negative = {patients[r] for r in one[1]}
    if min(len(with_positive), len(with_negative)) < 2:
        return NAN
    s10 = s01 = s11 = 0.0
    for cluster in clusters:
        off = []
        for (above, below), mean in zip((one, two), theta, strict=True):
            x = sum(v - mean for r, v in above.items() if patients[r] == cluster)
            y = sum(v - mean for r, v in below.items() if patients[r] == cluster)
            off.append((x, y))
        s10 += off[0][0] * off[1][0]
        s01 += off[0][1] * off[1][1]
        s11 += off[0][0] * off[1][1] + off[0][1] * off[1][0]
    i10, i01, i = len(with_positive), len(with_negative), len(clusters)
    s10 *= i10 / ((i10 - 1) * m)
    s01 *= i01 / ((i01 - 1) * n)
    s11 *= i / (i - 1)
    return s10 / m + s01 / n + s11 / (m * n)


def matched(rows: Sequence[tuple[float, int, float, str]], width: float, *, by_case: bool) -> float:
    """AUROC over pairs of one sex and about one age; a row is (score, label, age, sex)."""
    shares, won, pairs = [], 0.0, 0
    for score, label, age, sex in rows:
        if label != 1:
            continue
        kernel = [
            1.0 if score > other else 0.5 if score == other else 0.0
            for other, z, years, word in rows
            if z == 0 and word == sex and abs(years - age) <= width
        ]
        won, pairs = won + sum(kernel), pairs + len(kernel)
        if kernel:
            shares.append(sum(kernel) / len(kernel))
    if not pairs:
        return NAN
    return sum(shares) / len(shares) if by_case else won / pairs
