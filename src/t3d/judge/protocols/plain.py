"""The protocol `plain`: no temperature, no fitting on evaluated data."""

from __future__ import annotations

from t3d.judge.protocol import (
    Classification,
    Intervals,
    Localization,
    Printed,
    Protocol,
    Retrieval,
)
from t3d.scores.neighbours import NeighbourRules
from t3d.scores.pools import PoolRules

PLAIN_NEIGHBOURS = NeighbourRules(
    name="plain_v2v",
    source="ours: nobody of the query's patient in the pool, chance order of ties",
    ks=(1, 5, 10),
    queries="all",
    pool="all",
    left_out="patient",
    relevance="same_labels",
    value="ap",
    ap_over="positives",
    skip_without_positive=True,
)
"""First reconstructions; a volume is right if every finding is as in the query."""

PLAIN_POOLS = PoolRules(
    name="plain_pools",
    source="ours: mean over all partitions in closed form, intervals by patient",
    short_pool="drop",
    num_repeats=0,
)
"""No repeats: the closed form needs none."""

PLAIN_DEPTH = Localization(
    target="mm",
    cell_mm=None,
    per_scan="every sentence with a place",
    within_mm=(12.0, 24.0),
    baseline_seed=42,
)

PLAIN = Protocol(
    name="plain",
    source="ours; what each rule avoids is listed in the evaluation notes of the documentation",
    code="",
    classification=Classification(
        findings="",
        scored="",
        mapping="",
        prompts="",
        averaging="unit_mean_unit",
        score="cosine_difference",
        temperature="none",
        merge="none",
        unit="study:first",
        threshold="youden",
        fitted_on="dev",
        compare=">=",
        one_class="skip",
        missing="error",
        missing_case="error",
        printed=(
            Printed(key="auroc", definition="auroc"),
            Printed(key="average_precision", definition="average_precision"),
            Printed(key="balanced_accuracy", definition="balanced_accuracy"),
            Printed(key="f1", definition="f1"),
        ),
        decimals=None,
    ),
    retrieval=Retrieval(
        pool="split",
        similarity="cosine",
        text="as the model reads a report",
        directions=("t2i", "i2t"),
        ks=(5, 10),
        credit="study",
        ties="expected",
        median="expected_rank",
    ),
    neighbours=PLAIN_NEIGHBOURS,
    pools=PLAIN_POOLS,
    localization=PLAIN_DEPTH,
    intervals=Intervals(
        resample="patients", num_draws=1000, seed=0, refit=False, percentiles="linear"
    ),
    floor=(
        "constant scores: AUROC and balanced accuracy .5, average precision = prevalence, "
        "R@K = K of the pool; yes/no scores: the better of all-negative and all-positive"
    ),
    ceiling="1 for every score, studies with identical reports credited",
)
"""Cosine difference, thresholds from dev, study-level credit, patient-clustered intervals."""
