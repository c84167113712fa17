"""SPECTRE's released retrieval on CT-RATE and on Merlin."""

from __future__ import annotations

from t3d.judge.protocol import Intervals, Protocol, Retrieval
from t3d.scores.neighbours import SPECTRE as NEIGHBOURS

CODE = "cclaess/SPECTRE@9260676"

SPECTRE = Protocol(
    name="spectre",
    source="SPECTRE, retrieval_ct_rate.py",
    code=CODE,
    retrieval=Retrieval(
        pool="study:first",
        similarity="cosine",
        text="findings and impressions as the model reads a report",
        directions=("t2i",),
        ks=(5, 10, 50, 100),
        credit="own",
        ties="lowest_index",
        median="none",
        expected=(("volumes", 1564),),
    ),
    neighbours=NEIGHBOURS,
    intervals=Intervals(
        resample="none", num_draws=1, seed=0, refit=False, percentiles="order_statistic"
    ),
    floor="R@K = K of the pool; neighbours: the share of volumes with the same labels",
    ceiling="1",
    warnings=(
        "no interval is released: its width here is 0",
        "the release sorts ties as they fall; here the lowest index stands first",
        "the release leaves failed volumes out of the vectors but not out of the labels; here "
        "both are paired by id",
    ),
    score_decimals=None,
)
"""First reconstructions, own index counts; neighbours share all 18 labels."""
