"""Rules that turn scores into yes and no, ours and published ones, by the name a protocol gives.

A rule is fitted on one set of studies; which set that is (development, or the evaluated studies
as the published rules do) is said by the protocol. `t3d.scores.resample` fits the same rules in
every draw of a bootstrap. Legend: N studies, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.checks import both_classes, scores_and_labels

Floats = NDArray[np.float64]
# (hits, false calls, positives, negatives) -> what the rule wants most of
Gain = Callable[[Floats, Floats, Floats, Floats], Floats]

GRID: Floats = np.linspace(0, 1, 100)
GRID.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a threshold is chosen and which side of it is called positive."""

    name: str
    gain: Gain | None = None  # of a candidate score; the highest of the best scores wins
    floor: float = -np.inf  # a candidate has to gain more than this
    grid: bool = False  # CT-CLIP's grid instead of the scores themselves
    value: float | None = None  # nothing is fitted; or what is taken where no candidate will do
    strict: bool = False  # True: present if score > threshold; False: if score >= threshold

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is fitted."""
        return self.gain is None and not self.grid

    def fallback(self, scores: Floats) -> float:
        """Give the threshold where no candidate will do: without a value of its own, nobody."""
        return float(np.nextafter(scores.max(), np.inf)) if self.value is None else self.value


def _youden(hit: Floats, wrong: Floats, positives: Floats, negatives: Floats) -> Floats:
    """Sensitivity + specificity - 1 in whole numbers, so that equal values are equal."""
    return hit * negatives - wrong * positives


def _youden_divided(hit: Floats, wrong: Floats, positives: Floats, negatives: Floats) -> Floats:
    """Sensitivity - (1 - specificity) as it comes out in float64: rounding decides near-ties."""
    return hit / positives - wrong / negatives


def _f1(hit: Floats, wrong: Floats, positives: Floats, negatives: Floats) -> Floats:
    """Binary F1; equal fractions divide to equal floats."""
    return 2 * hit / (hit + wrong + positives)


def _specific(
    hit: Floats, wrong: Floats, positives: Floats, negatives: Floats, *, least: float
) -> Floats:
    """Hits, where specificity is high enough."""
    return np.where((negatives - wrong) / negatives >= least, hit, 0.0)


def _sensitive(
    hit: Floats, wrong: Floats, positives: Floats, negatives: Floats, *, least: float
) -> Floats:
    """Right negatives, where sensitivity is high enough."""
    return np.where(hit / positives >= least, negatives - wrong, -1.0)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule(name="youden", gain=_youden),
            Rule(name="f1", gain=_f1),
            Rule(name="ctclip_grid", grid=True, strict=True),
            Rule(name="radfinder_youden", gain=_youden_divided, floor=0.0, value=0.5),
        )
    }
)
"""Rules without a number in their name.

youden            ours: largest sensitivity + specificity in exact arithmetic, a score itself
f1                ours: largest binary F1
ctclip_grid       CT-CLIP (also fVLM, HLIP): of linspace(0, 1, 100) the point nearest to the corner
                  of the ROC, the LAST of the best; present if p > threshold
radfinder_youden  RadFinder: first maximum of sensitivity + specificity over descending scores; 0.5
                  where no score is better than none (there scikit-learn's threshold is infinite)
"""

_NUMBERED: Mapping[str, Callable[[float], Rule]] = MappingProxyType(
    {
        "fixed": lambda q: Rule(name=f"fixed:{q:g}", value=q),
        "above": lambda q: Rule(name=f"above:{q:g}", value=q, strict=True),
        "specificity": lambda q: Rule(
            name=f"specificity:{q:g}", gain=partial(_specific, least=q), floor=0.0
        ),
        "sensitivity": lambda q: Rule(
            name=f"sensitivity:{q:g}", gain=partial(_sensitive, least=q), floor=-1.0
        ),
    }
)


def rule_named(name: str) -> Rule:
    """Find a rule by its name.

    Args:
        name: One of `RULES`, or `fixed:0.5` (present if score >= 0.5), `above:0.5` (score > 0.5:
            the larger of two softmax outputs, a tie is absent), `specificity:0.9` (most hits
            with at least that specificity), `sensitivity:0.9` (most right negatives with at
            least that sensitivity).

    Returns:
        The rule.

    Raises:
        ProtocolError: There is no such rule.

    Source:
        `ctclip_grid`: CT-CLIP scripts/zero_shot.py at a2a155c; `radfinder_youden`: RadFinder
        tasks/binary_zs_ctrate_task.py at 7c6ab92; the others: our choice.
    """
    if name in RULES:
        return RULES[name]
    kind, _, number = name.partition(":")
    try:
        return _NUMBERED[kind](float(number))
    except (KeyError, ValueError):
        known = ", ".join((*RULES, *(f"{kind}:NUMBER" for kind in _NUMBERED)))
        raise ProtocolError(
            f"no threshold rule {name!r}", expected=known, fix="use one of these names"
        ) from None


def fit_threshold(scores: ArrayLike, labels: ArrayLike, rule: Rule) -> float:
    """Choose a threshold on these studies.

    Check: scores (.10, .40, .35, .80, .65, .20, .55, .90), labels (0, 0, 1, 1, 0, 0, 1, 1):
    `youden` and `radfinder_youden` give .80, `ctclip_grid` 54/99 = .545454. Scores (.9, .8, .7),
    labels (1, 0, 1): F1 is .667, .5, .8, so `f1` gives .7.

    Args:
        scores: (N,) finite; for the grid probabilities.
        labels: (N,) 0 or 1.
        rule: From `rule_named`.

    Returns:
        The threshold; which side of it is positive is `rule.strict`.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, a class is empty (unless
            nothing is fitted), or the grid meets a score outside 0..1.
    """
    values, truth = scores_and_labels(scores, labels)
    if rule.is_fixed:
        return rule.fallback(values)
    both_classes(truth)
    if rule.gain is not None:
        return _best_score(values, truth, rule, rule.gain)
    cell = grid_cell(values)
    above, below = (np.bincount(cell[side], minlength=101) for side in (truth, ~truth))
    return float(GRID[nearest_corner(above[:, None], below[:, None])[0][0]])


def grid_cell(scores: Floats) -> NDArray[np.intp]:
    """Count for each score the grid points that it is above.

    Args:
        scores: (N,) probabilities.

    Returns:
        (N,) 0 to 100: a score of cell c is called positive at the points 0 to c - 1.

    Raises:
        ProtocolError: A score is below 0 or above 1.
    """
    outside = int(np.count_nonzero((scores < 0) | (scores > 1)))
    if outside:
        raise ProtocolError(
            f"{outside} of {len(scores)} scores are below 0 or above 1",
            expected="probabilities: the grid of thresholds runs from 0 to 1",
            fix="make probabilities of the scores by the protocol's softmax, or use another rule",
        )
    return np.searchsorted(GRID, scores, side="left")


def nearest_corner(positive: ArrayLike, negative: ArrayLike) -> tuple[NDArray[np.intp], Floats]:
    """Find the grid point nearest to the corner of the ROC where all is right; the last of several.

    Args:
        positive: (101, B) mass of the positives in each cell of `grid_cell`, all in all above 0.
        negative: (101, B) the same of the negatives.

    Returns:
        (B,) number of the grid point; (2, B) hits and false calls there.
    """
    calls = []
    for mass in (np.asarray(positive, np.float64), np.asarray(negative, np.float64)):
        total = mass.sum(axis=0)
        calls.append((total - np.cumsum(mass, axis=0)[:-1], total))
    (hit, positives), (wrong, negatives) = calls
    # the same steps in float64 as the released code, so that near-ties fall the same way
    distance = np.sqrt((1 - hit / positives) ** 2 + (wrong / negatives) ** 2)
    last = len(GRID) - 1 - np.argmin(distance[::-1], axis=0)
    pick = last[None]
    found = [np.take_along_axis(table, pick, axis=0)[0] for table in (hit, wrong)]
    return last, np.stack(found)


def _best_score(values: Floats, truth: NDArray[np.bool_], rule: Rule, wanted: Gain) -> float:
    """Highest score of a positive with the largest gain; a negative alone never improves one."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.concatenate((ordered[1:] != ordered[:-1], [True])))
    hit = np.cumsum(truth[order])[last].astype(np.float64)
    wrong = last + 1.0 - hit
    with_positive = np.diff(hit, prepend=0.0) > 0
    hit, wrong, at = hit[with_positive], wrong[with_positive], ordered[last][with_positive]
    positives, negatives = np.float64(truth.sum()), np.float64((~truth).sum())
    gain = wanted(hit, wrong, np.asarray(positives), np.asarray(negatives))
    best = int(np.argmax(gain))
    return float(at[best]) if gain[best] > rule.floor else rule.fallback(values)
