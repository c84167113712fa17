"""fVLM's released evaluation on CT-RATE."""

from __future__ import annotations

from t3d.judge.protocol import Classification, Intervals, Printed, Protocol

FVLM = Protocol(
    name="fvlm",
    source="fVLM, eval.py and calc_metrics.py",
    code="alibaba-damo-academy/fvlm@d768ec1",
    classification=Classification(
        findings="fvlm16",
        scored="fvlm16",
        mapping="",
        prompts="fvlm",
        averaging="single",
        score="softmax_pair",
        temperature="learned",
        merge="none",
        unit="volume",
        threshold="ctclip_grid",
        fitted_on="evaluated",
        compare=">",
        one_class="error",
        missing="zero",
        missing_case="left_out",
        printed=(
            Printed(key="AUC", definition="auroc"),
            Printed(key="ACC", definition="accuracy"),
            Printed(key="Spec", definition="specificity"),
            Printed(key="Sens", definition="sensitivity"),
            Printed(key="F1", definition="f1_weighted"),
            Printed(key="Prec", definition="precision"),
        ),
        decimals=3,
        expected=(("volumes", 3039), ("studies", 1564)),
    ),
    intervals=Intervals(
        resample="none", num_draws=1, seed=0, refit=False, percentiles="order_statistic"
    ),
    floor=(
        "AUROC .5; all-negative answers reach a weighted F1 of .724 and an accuracy of .806 on "
        "the 3,039 validation volumes of CT-RATE"
    ),
    ceiling="1",
    warnings=(
        "thresholds fitted on evaluated data",
        "a missing score counts as probability 0",
        "the image side is masked by organ: judge scores from a file; a model of whole volumes "
        "gets this protocol's numbers but not its method",
    ),
    score_decimals=12,
)
"""16 findings, one pair of prompts, the image token of the finding's organ."""
