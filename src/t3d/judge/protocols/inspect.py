"""INSPECT's released evaluation of prognosis and pulmonary embolism."""

from __future__ import annotations

from t3d.judge.protocol import Classification, Intervals, Printed, Protocol

INSPECT = Protocol(
    name="inspect",
    source="INSPECT, get_model_performance.py; arXiv:2311.10798",
    code="som-shahlab/INSPECT_public@01f5830",
    classification=Classification(
        findings="inspect8",
        scored="inspect8",
        mapping="",
        prompts="",
        averaging="none",
        score="given",
        temperature="",
        merge="none",
        unit="volume",
        threshold="fixed:0.5",
        fitted_on="nowhere",
        compare=">=",
        one_class="error",
        missing="error",
        missing_case="error",
        printed=(
            Printed(key="AUROC", definition="auroc"),
            Printed(key="AUPRC", definition="average_precision"),
            Printed(key="ECE", definition="ece9"),
        ),
        decimals=None,
    ),
    intervals=Intervals(resample="rows", num_draws=1000, seed=0, refit=False, percentiles="linear"),
    floor="AUROC .5, AUPRC = prevalence",
    ceiling="1",
    warnings=(
        "intervals resample rows, not patients; the release sets no seed, ours is 0",
        "a probability of exactly 1 falls outside the last bin of the released ECE",
    ),
    score_decimals=12,
)
"""8 tasks; censored studies are not stated and leave the task they are censored for."""
