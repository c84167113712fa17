"""RadFinder's released evaluation: first reconstructions, every volume, Rad-ChestCT, depth."""

from __future__ import annotations

from dataclasses import replace

from t3d.judge.protocol import (
    Classification,
    Intervals,
    Localization,
    Printed,
    Protocol,
    Retrieval,
)
from t3d.scores.neighbours import RADFINDER as NEIGHBOURS

CODE = "lmb-freiburg/radfinder@7c6ab92"
_WARNINGS = (
    "thresholds fitted on evaluated data",
    "intervals resample rows, not patients: too narrow where a patient has several",
    "the release sorts ties as they fall; here the lowest index stands first",
)

_CLASSES = Classification(
    findings="ct_rate18",
    scored="ct_rate18",
    mapping="",
    prompts="radfinder",
    averaging="unit_mean_unit",
    score="softmax_pair",
    temperature="none",
    merge="none",
    unit="study:first",
    threshold="radfinder_youden",
    fitted_on="evaluated",
    compare=">=",
    one_class="skip",
    missing="error",
    missing_case="error",
    printed=(
        Printed(key="AUC", definition="auroc"),
        Printed(key="F1", definition="f1_weighted"),
        Printed(key="ACC", definition="balanced_accuracy"),
        Printed(key="Prec", definition="precision"),
        Printed(key="Sens", definition="sensitivity"),
        Printed(key="Spec", definition="specificity"),
    ),
    decimals=None,
    expected=(("volumes", 1564), ("studies", 1564), ("patients", 1304)),
)
_PAIRS = Retrieval(
    pool="study:first",
    similarity="cosine",
    text="'Findings: ...' and 'Impressions: ...' on two lines",
    directions=("t2i", "i2t"),
    ks=(1, 5, 10, 50, 100),
    credit="own",
    ties="lowest_index",
    median="floor_plus_1",
    expected=(("volumes", 1564),),
)

RADFINDER = Protocol(
    name="radfinder",
    source="RadFinder, binary_zs_ctrate_task.py, retrieval_task.py, localization_task.py with "
    "their default configuration (first reconstruction); arXiv:2603.02026",
    code=CODE,
    classification=_CLASSES,
    retrieval=_PAIRS,
    neighbours=NEIGHBOURS,
    localization=Localization(
        target="cells",
        cell_mm=12.0,
        per_scan="the first slice by name of every scan",
        within_mm=(12.0, 24.0),
        baseline_seed=42,
    ),
    intervals=Intervals(
        resample="rows", num_draws=10_000, seed=42, refit=True, percentiles="linear"
    ),
    floor="AUROC and balanced accuracy .5; R@K = K of the pool; depth: a random valid cell",
    ceiling="1; 0 mm",
    warnings=_WARNINGS,
    score_decimals=12,
)
"""18 findings on 1,564 first reconstructions, mean of 7 pairs of prompts, no temperature."""

RADFINDER_DUP = replace(
    RADFINDER,
    name="radfinder_dup",
    source="RadFinder as its README says the paper ran: every volume, reports repeated",
    classification=replace(
        _CLASSES,
        unit="volume",
        expected=(("volumes", 3039), ("studies", 1564), ("patients", 1304)),
    ),
    retrieval=replace(_PAIRS, pool="volume", expected=(("volumes", 3039),)),
    neighbours=None,
    localization=None,
    floor="AUROC and balanced accuracy .5; R@K = K of the pool",
    ceiling="1; R@1 about .515 for a model that embeds the reconstructions of a study alike",
)
"""The same on all 3,039 volumes."""

RADFINDER_EXTERNAL = replace(
    RADFINDER,
    name="radfinder_external",
    source="RadFinder on Rad-ChestCT with radchestct_standard",
    classification=replace(
        _CLASSES,
        scored="rad_chestct16",
        mapping="standard",
        merge="ctclip_max",
        unit="volume",
        expected=(("volumes", 3630), ("studies", 3630), ("patients", 3072)),
    ),
    retrieval=None,
    neighbours=None,
    localization=None,
    floor="AUROC and balanced accuracy .5; all-negative answers reach a weighted F1 of .636",
    ceiling="1",
)
"""16 findings of Rad-ChestCT."""
