"""Tables for tests of whole protocols, and the counts of public label files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from t3d.judge.protocol import Protocol
from t3d.judge.truth import Truth
from t3d.judge.units import ScoreTable, scored_of
from t3d.text.findings import CT_RATE_18

# positives of CT-RATE's validation split, volumes and studies, in the order of its label files
VALID_POSITIVES = (
    *((313, 158), (867, 435), (325, 164), (226, 110), (765, 388), (417, 218)),
    *((789, 398), (600, 305), (713, 364), (1361, 704), (1184, 606), (831, 427)),
    *((376, 189), (253, 126), (355, 175), (581, 298), (330, 169), (249, 124)),
)
RECONSTRUCTIONS = {1: 132, 2: 1415, 3: 4, 4: 1, 5: 11, 6: 1}  # studies by number of volumes

# positives of Rad-ChestCT's 3,630 volumes, classes `rad_chestct16` under the standard mapping
EXTERNAL_POSITIVES = (
    *(1155, 2562, 394, 563, 425, 598, 992, 1082),
    *(2874, 1955, 786, 727, 308, 505, 575, 252),
)
EXTERNAL_FIBROSIS = 478  # under the mapping of HLIP, in place of 786 with scarring


def valid_truth(*, volumes: bool) -> Truth:
    """A table with the structure and the counts of CT-RATE's validation split, nothing else of it.

    Every class has its number of positive studies and volumes; which studies is drawn, so classes
    are independent here. One patient a study.
    """
    sizes = np.repeat(list(RECONSTRUCTIONS), list(RECONSTRUCTIONS.values()))
    labels = np.zeros((len(sizes), 18), dtype=np.int8)
    rng = np.random.default_rng(0)
    for f, (rows, studies) in enumerate(VALID_POSITIVES):
        fives = max(0, -(-(rows - 2 * studies) // 3))  # where twos alone hold too few volumes
        twos = rows - studies - 4 * fives
        for size, number in ((5, fives), (2, twos), (1, studies - twos - fives)):
            labels[rng.permutation(np.flatnonzero(sizes == size))[:number], f] = 1
    taken = np.repeat(np.arange(len(sizes)), sizes) if volumes else np.arange(len(sizes))
    ids = tuple(f"s{i:04}" for i in taken)
    return Truth(
        study_ids=ids,
        patient_ids=ids,
        findings=CT_RATE_18,
        labels=labels[taken],
        large=np.full((len(taken), 18), -1, dtype=np.int8),
        volume_ids=tuple(f"v{i:04}" for i in range(len(taken))) if volumes else (),
    )


def of_counts(positives: tuple[int, ...], num: int) -> Truth:
    """A truth with so many positives of each finding."""
    labels = np.stack([np.arange(num) < n for n in positives], axis=1).astype(np.int8)
    ids = tuple(f"s{i:04}" for i in range(num))
    return Truth(
        study_ids=ids,
        patient_ids=ids,
        findings=tuple(f"f{i}" for i in range(len(positives))),
        labels=labels,
        large=np.full(labels.shape, -1, dtype=np.int8),
    )


def columns_of(protocol: Protocol, column: Any) -> tuple[str, Any]:
    """The findings a protocol asks for, and one column repeated for each of them."""
    from t3d.judge.units import asked_of

    asked = asked_of(protocol.classes, ("Lung nodule",))
    return asked, np.tile(np.asarray(column, dtype=np.float64)[:, None], (1, len(asked)))


def table(protocol: Protocol, column: Any, **more: Any) -> ScoreTable:
    """Eight or so volumes with the same score for every finding."""
    asked, scores = columns_of(protocol, column)
    names = tuple(f"v{i}" for i in range(len(scores)))
    given = {"scores": scores} if "negative" not in more else {}
    if "negative" in more:
        more = dict(more)
        more["positive"] = scores
        more["negative"] = columns_of(protocol, more["negative"])[1]
    return ScoreTable(
        findings=asked,
        volume_ids=names,
        study_ids=names,
        order=(0,) * len(names),
        **given,
        **more,
    )


def truth_beside(protocol: Protocol, labels: Any) -> Truth:
    """The truth of `table`: every finding has these labels."""
    scored = scored_of(protocol.classes, ("Lung nodule",))
    names = tuple(f"v{i}" for i in range(len(labels)))
    told = np.tile(np.asarray(labels, dtype=np.int8)[:, None], (1, len(scored)))
    return Truth(
        study_ids=names,
        patient_ids=names,
        findings=scored,
        labels=told,
        large=np.full(told.shape, -1, dtype=np.int8),
        volumes=tuple((name,) for name in names),
    )


def quickly(protocol: Protocol) -> Protocol:
    """The protocol with few draws and permutations; values do not depend on them."""
    draws = min(protocol.intervals.num_draws, 20)
    short = replace(protocol.intervals, num_draws=draws)
    return replace(protocol, intervals=short, num_permutations=3)
