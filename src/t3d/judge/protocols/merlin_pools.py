"""Retrieval in random pools on Merlin, as SPECTRE and as RadFinder cut them."""

from __future__ import annotations

from dataclasses import replace

from t3d.judge.protocol import Intervals, Protocol
from t3d.scores.pools import RADFINDER_POOLS, SPECTRE_POOLS

_SPREAD = "an interval over repeats is spread over partitions, not sampling error"
_TEXT = (
    "cosine of an image with the findings, the impression and the whole report, each on its own; "
    "studies without the section are left out"
)

MERLIN_POOLS_SPECTRE = Protocol(
    name="merlin_pools_spectre",
    source=SPECTRE_POOLS.source,
    code="cclaess/SPECTRE@9260676",
    pools=SPECTRE_POOLS,
    intervals=Intervals(resample="none", num_draws=1, seed=0, refit=False, percentiles="linear"),
    floor="R@K = K of the pool size",
    ceiling="1",
    warnings=(_SPREAD, _TEXT),
    score_decimals=None,
)
"""The last pool stays even where it is too short."""

MERLIN_POOLS_RADFINDER = replace(
    MERLIN_POOLS_SPECTRE,
    name="merlin_pools_radfinder",
    source=RADFINDER_POOLS.source,
    code="lmb-freiburg/radfinder@7c6ab92",
    pools=RADFINDER_POOLS,
    warnings=(_SPREAD, _TEXT, "the release keeps such studies in and asks with a blank"),
)
"""The last short pool is dropped."""
