"""VLM3D challenge, abnormality classification."""

from __future__ import annotations

from t3d.judge.protocol import Classification, Intervals, Printed, Protocol

VLM3D = Protocol(
    name="vlm3d",
    source="VLM3D challenge, abnormality classification: calc_scores.py, crg_score.py",
    code="forithmus/VLM3D-Dockers",
    classification=Classification(
        findings="ct_rate18",
        scored="ct_rate18",
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
        one_class="nan",
        missing="zero",
        missing_case="error",
        printed=(
            Printed(key="F1", definition="f1"),
            Printed(key="Precision", definition="precision"),
            Printed(key="Recall", definition="sensitivity"),
            Printed(key="Accuracy", definition="accuracy"),
            Printed(key="AUROC", definition="auroc"),
            Printed(key="CRG", definition="crg", average="pooled"),
        ),
        decimals=None,
    ),
    intervals=Intervals(
        resample="none", num_draws=1, seed=0, refit=False, percentiles="order_statistic"
    ),
    floor=(
        "AUROC .5; CRG 1/3 for all-negative, all-positive and any answer that does not depend "
        "on the labels; F1 of all-positive answers"
    ),
    ceiling="1",
    warnings=("judged at probability .5: submit calibrated probabilities",),
    score_decimals=12,
)
"""18 submitted probabilities, fixed threshold."""
