"""The pool of COLIPRI: CT-RATE without head scans and without repeated findings."""

from __future__ import annotations

from t3d.judge.protocol import Intervals, Protocol, Retrieval

COLIPRI = Protocol(
    name="colipri",
    source="microsoft/colipri, discussion 6: 1,564 studies, 1,551 without the no-chest list, "
    "1,493 without repeated findings",
    code="",
    retrieval=Retrieval(
        pool="study:first",
        similarity="cosine",
        text="findings only; of studies with the same findings the first stays",
        directions=("t2i", "i2t"),
        ks=(1, 5, 10, 50, 100),
        credit="own",
        ties="expected",
        median="expected_rank",
        needs=("no_chest",),
        expected=(("studies", 1493),),
    ),
    intervals=Intervals(
        resample="patients", num_draws=1000, seed=0, refit=False, percentiles="linear"
    ),
    floor="R@K = K of the pool",
    ceiling="1",
    warnings=("an outside re-implementation was about 10 points lower at R@10",),
)
"""Needs no_chest_valid.txt of CT-RATE."""
