"""The logistic baseline: simple features of the voxels and one linear model a finding.

An honesty bar: a network that does not pass it has learned nothing that block averages do not
show. It is told the labels of the training split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from t3d.errors import ProtocolError
from t3d.judge.truth import truth_of
from t3d.scores.auroc import auroc
from t3d.types import Volume

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Floats = NDArray[np.float64]

WINDOWS_HU: tuple[tuple[int, int], ...] = ((-1000, -300), (-150, 250), (200, 1500))
"""Lung, soft tissue, bone and metal: low and high HU (the demo's three windows)."""
PATCHES = 16  # per axis: patches whose mean and max are taken
CELLS = 4  # per axis: patches are averaged to so many cells
PERCENTILES = (10, 50, 90, 99)  # of the voxels inside a window
STRENGTHS = (0.001, 0.01, 0.1)  # C of scikit-learn, weakest fit first; chosen on dev


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogisticScores:
    """What the baseline says about the studies it was not fitted on."""

    findings: tuple[str, ...]
    dev: Floats  # (N, F) log odds
    test: Floats  # (N, F) log odds
    strength: Mapping[str, float]  # finding -> C chosen on dev; a skipped finding has none

    @property
    def skipped(self) -> tuple[str, ...]:
        """Findings with one class in training: all their scores are 0."""
        return tuple(name for name in self.findings if name not in self.strength)


def logistic_baseline(
    cohort: Cohort,
    findings: Sequence[str],
    *,
    splits: tuple[str, str, str] = ("train", "dev", "test"),
    preparation: str | None = None,
) -> LogisticScores:
    """Fit the baseline on a cohort's training split.

    Args:
        cohort: An open cohort.
        findings: F names.
        splits: Names of train, dev and test.
        preparation: Grid to read; None = the only one.

    Returns:
        Scores of dev and test, rows as `cohort.studies(split)`.

    Raises:
        ProtocolError: A split is empty, a study has no volume, or a grid has fewer than 16
            voxels along an axis.
    """
    truths = [truth_of(cohort, split, findings) for split in splits]
    features = [_split_features(cohort, split, preparation) for split in splits]
    return fit_scores(
        (features[0], features[1], features[2]),
        (truths[0].labels, truths[1].labels),
        findings,
    )


def fit_scores(
    features: tuple[Floats, Floats, Floats],
    labels: tuple[NDArray[np.int8], NDArray[np.int8]],
    findings: Sequence[str],
    *,
    strengths: Sequence[float] = STRENGTHS,
    balanced: bool = False,
    tol: float = 1e-3,
    solver: str = "lbfgs",
) -> LogisticScores:
    """Fit one L2 logistic regression a finding and score dev and test.

    Features are standardised by mean and SD of the training rows. C is the strength with the best
    AUROC on dev, the first of several.

    Args:
        features: (N, D) of train, dev and test.
        labels: (N, F) of train and dev: 1, 0, -1 = not stated, left out.
        findings: F names.
        strengths: C of scikit-learn, weakest fit first; one = nothing is chosen.
        balanced: Positives and negatives weigh the same in all.
        tol: Of scikit-learn's solver.
        solver: Its name there.

    Returns:
        The scores.
    """
    mean, spread = features[0].mean(axis=0), features[0].std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    train, dev, test = ((rows - mean) / scale for rows in features)
    out = np.zeros((len(dev), len(findings))), np.zeros((len(test), len(findings)))
    strength: dict[str, float] = {}
    for f, finding in enumerate(findings):
        known = labels[0][:, f] >= 0
        target = labels[0][known, f]
        if len(np.unique(target)) < 2:
            continue
        best = -1.0
        # warm starts: each stronger fit begins where the weaker one ended
        weight = "balanced" if balanced else None
        model = LogisticRegression(
            max_iter=2000, tol=tol, warm_start=True, class_weight=weight, solver=solver
        )
        for c in strengths:
            model.set_params(C=c).fit(train[known], target)
            on_dev = model.decision_function(dev)
            score = _dev_auroc(on_dev, labels[1][:, f])
            if score > best:
                best, strength[finding] = score, c
                out[0][:, f], out[1][:, f] = on_dev, model.decision_function(test)
    return LogisticScores(findings=tuple(findings), dev=out[0], test=out[1], strength=strength)


def volume_features(volume: Volume) -> Floats:
    """Describe a volume by block averages, block maxima and percentiles.

    Per window: means of 16 x 16 x 16 patches averaged to 4 x 4 x 4 cells, maxima of the same
    patches averaged likewise, and the 10th, 50th, 90th and 99th percentile of the voxels
    inside the window; all on the window's scale of 0 to 1.

    Args:
        volume: int16 HU, axes (z, y, x), at least 16 voxels along each.

    Returns:
        (396,): 3 windows of 64 means, 64 maxima, 4 percentiles.

    Raises:
        ProtocolError: An axis is too short.
    """
    if min(volume.voxels.shape) < PATCHES:
        raise ProtocolError(
            f"volume {volume.volume_id}: {volume.voxels.shape} voxels",
            expected=f"at least {PATCHES} along each axis",
            fix="judge the baseline on a finer preparation",
        )
    voxels = volume.voxels
    highest = _maxima(voxels)
    lowest = int(voxels.min())
    reached = np.cumsum(np.bincount((voxels.astype(np.int32) - lowest).ravel()))
    parts: list[Floats] = []
    for low, high in WINDOWS_HU:
        mean = _means(np.clip(voxels, low, high).astype(np.float32), PATCHES)
        # the maximum of clamped values is the clamped maximum
        for patches in (mean, np.clip(highest, low, high)):
            scaled = (patches.astype(np.float64) - low) / (high - low)
            parts.append(_means(scaled, CELLS).ravel().astype(np.float64))
        inside = _percentiles(reached, lowest, (low, high))
        parts.append((inside - low) / (high - low))
    return np.concatenate(parts)


def _split_features(cohort: Cohort, split: str, preparation: str | None) -> Floats:
    """(N, 396) features of the first volume of every study."""
    rows = []
    for study in cohort.studies(split):
        if not study.volume_ids:
            raise ProtocolError(
                f"study {study.study_id} has no volume",
                expected="a volume for every judged study",
                fix="prepare the cohort again, or leave the study out",
            )
        rows.append(volume_features(cohort.volume(study.volume_ids[0], preparation)))
    return np.stack(rows)


def _dev_auroc(scores: Floats, labels: NDArray[np.int8]) -> float:
    """AUROC on the stated dev studies; .5 where dev has one class, so the weakest fit stays."""
    known = labels >= 0
    if len(np.unique(labels[known])) < 2:
        return 0.5
    return auroc(scores[known], labels[known])


def _edges(length: int, blocks: int) -> NDArray[np.intp]:
    """First index of each of `blocks` nearly equal pieces."""
    return (np.arange(blocks) * length) // blocks


def _maxima(voxels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Maximum of every patch."""
    for axis in range(3):
        starts = _edges(voxels.shape[axis], PATCHES)
        voxels = np.maximum.reduceat(voxels, starts, axis=axis)
    return voxels


def _means(array: NDArray[np.floating], blocks: int) -> NDArray[np.floating]:
    """Mean of every block, `blocks` of them along every axis; one small product an axis."""
    for _ in range(3):
        length = array.shape[-1]
        starts = np.append(_edges(length, blocks), length)
        owner = np.searchsorted(starts, np.arange(length), side="right") - 1
        share = (owner[:, None] == np.arange(blocks)) / np.diff(starts)
        # the last axis is averaged and goes to the front: after three turns all are done
        array = np.moveaxis(array @ share.astype(array.dtype), -1, 0)
    return array


def _percentiles(reached: NDArray[np.int64], lowest: int, window: tuple[int, int]) -> Floats:
    """Percentiles of the voxels inside a window, from cumulative counts a HU; low if none."""
    low, high = window
    below = _count_to(reached, low - 1 - lowest)
    total = _count_to(reached, high - lowest) - below
    if total == 0:
        return np.full(len(PERCENTILES), float(low))
    wanted = below + np.ceil(np.array(PERCENTILES) / 100 * total)
    return np.searchsorted(reached, wanted).astype(np.float64) + lowest


def _count_to(reached: NDArray[np.int64], index: int) -> int:
    """Voxels up to a place of the cumulative counts, which may lie outside them."""
    return 0 if index < 0 else int(reached[min(index, len(reached) - 1)])
