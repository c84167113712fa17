"""HLIP's released evaluation: argmax, the starred keys, and Rad-ChestCT."""

from __future__ import annotations

from dataclasses import replace

from t3d.judge.protocol import Classification, Intervals, Printed, Protocol

CODE = "Zch0414/hlip@fe8d764"
_FITTED = "thresholds fitted on evaluated data"
_NAMED_WRONG = "the key that says balanced accuracy holds plain accuracy"

_ARGMAX = Classification(
    findings="fvlm16",
    scored="fvlm16",
    mapping="",
    prompts="hlip",
    averaging="single",
    score="softmax_pair",
    temperature="learned",
    merge="none",
    unit="volume",
    threshold="above:0.5",
    fitted_on="nowhere",
    compare=">",
    one_class="skip",
    missing="error",
    missing_case="error",
    printed=(
        Printed(key="balanced accuracy", definition="balanced_accuracy"),
        Printed(key="weighted F1", definition="f1_weighted"),
        Printed(key="recall", definition="sensitivity"),
        Printed(key="precision", definition="precision"),
    ),
    decimals=None,
    expected=(("volumes", 3039), ("studies", 1564)),
)
_GRID = replace(
    _ARGMAX,
    threshold="ctclip_grid",
    fitted_on="evaluated",
    one_class="error",
    printed=(
        Printed(key="* AUC", definition="auroc"),
        Printed(key="* balanced accuracy", definition="accuracy"),
    ),
)
_EXTERNAL = (("volumes", 3630), ("studies", 3630), ("patients", 3072))

HLIP = Protocol(
    name="hlip",
    source="HLIP, hlip_test/zeroshot_ct_rate.py; arXiv:2505.21862",
    code=CODE,
    classification=_ARGMAX,
    intervals=Intervals(
        resample="none", num_draws=1, seed=0, refit=False, percentiles="order_statistic"
    ),
    floor="balanced accuracy .5; all-negative answers reach a weighted F1 of .724",
    ceiling="1",
    score_decimals=12,
)
"""16 findings, one pair of prompts, the likelier of the two."""

HLIP_STARRED = replace(
    HLIP,
    name="hlip_starred",
    classification=_GRID,
    floor="AUROC .5; all-negative answers reach an accuracy of .806",
    warnings=(_FITTED, _NAMED_WRONG),
)
"""The starred keys: AUROC, and accuracy at the grid threshold under another name."""

HLIP_EXTERNAL = replace(
    HLIP,
    name="hlip_external",
    source="HLIP, zero-shot evaluation on Rad-ChestCT; arXiv:2505.21862",
    classification=replace(
        _ARGMAX,
        findings="hlip15",
        scored="hlip14",
        mapping="hlip",
        merge="hlip_half",
        expected=_EXTERNAL,
    ),
    floor="balanced accuracy .5; all-negative answers reach a weighted F1 of .642",
    warnings=(
        "both calcifications: the larger score if one is above .5, else the smaller",
        "fibrotic sequela is read from fibrosis, not from scarring",
    ),
)
"""14 findings of Rad-ChestCT."""

HLIP_EXTERNAL_STARRED = replace(
    HLIP_EXTERNAL,
    name="hlip_external_starred",
    classification=replace(
        _GRID,
        findings="hlip15",
        scored="hlip14",
        mapping="hlip",
        merge="hlip_half",
        expected=_EXTERNAL,
    ),
    floor="AUROC .5; all-negative answers reach an accuracy of .731",
    warnings=(_FITTED, _NAMED_WRONG, *HLIP_EXTERNAL.warnings),
)
"""The starred keys on Rad-ChestCT."""
