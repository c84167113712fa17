"""CT-CLIP's released evaluation, internal (CT-RATE) and external (Rad-ChestCT)."""

from __future__ import annotations

from dataclasses import replace

from t3d.judge.protocol import Classification, Intervals, Printed, Protocol, Retrieval
from t3d.scores.neighbours import CTCLIP as NEIGHBOURS
from t3d.scores.neighbours import CTCLIP_AS_RELEASED

CODE = "ibrahimethemhamamci/CT-CLIP@a2a155c"
FITTED = "thresholds fitted on evaluated data"
NO_DRAWS = "the released bootstrap does not resample: its interval has width 0"
FLOOR = (
    "AUROC .5; all-negative answers reach a weighted F1 of .725 and an accuracy of .807 on the "
    "3,039 validation volumes of CT-RATE"
)

_CLASSES = Classification(
    findings="ct_rate18",
    scored="ct_rate18",
    mapping="",
    prompts="ctclip",
    averaging="single",
    score="softmax_pair",
    temperature="learned",
    merge="none",
    unit="volume",
    threshold="ctclip_grid",
    fitted_on="evaluated",
    compare=">",
    one_class="error",
    missing="error",
    missing_case="error",
    printed=(
        Printed(key="AUROC", definition="auroc"),
        Printed(key="F1", definition="f1_weighted"),
        Printed(key="Accuracy", definition="accuracy"),
        Printed(key="Precision", definition="precision"),
    ),
    decimals=4,
    expected=(("volumes", 3039), ("studies", 1564), ("patients", 1304)),
)

CTCLIP = Protocol(
    name="ctclip",
    source="CT-CLIP, scripts/zero_shot.py and bootstrap_values.py; arXiv:2403.17834",
    code=CODE,
    classification=_CLASSES,
    retrieval=Retrieval(
        pool="volume",
        similarity="dot",
        text="findings and impressions joined without a space, quotes and brackets removed",
        directions=("t2i",),
        ks=(5, 10, 50, 100),
        credit="own",
        ties="lowest_index",
        median="none",
        expected=(("volumes", 3039),),
    ),
    intervals=Intervals(
        resample="none", num_draws=1000, seed=0, refit=False, percentiles="order_statistic"
    ),
    floor=FLOOR,
    ceiling="1; R@K strictly below 1 where reconstructions of a study cannot be told apart",
    warnings=(
        FITTED,
        NO_DRAWS,
        "volumes and texts are paired by id here; the release pairs two unsorted listings",
    ),
    score_decimals=12,
)
"""18 findings on every volume, grid threshold, one pair of prompts."""

CTCLIP_EXTERNAL = Protocol(
    name="ctclip_external",
    source="CT-CLIP, eval.py evaluate_external; arXiv:2403.17834",
    code=CODE,
    classification=replace(
        _CLASSES,
        scored="rad_chestct16",
        mapping="standard",
        merge="ctclip_max",
        expected=(("volumes", 3630), ("studies", 3630), ("patients", 3072)),
    ),
    intervals=CTCLIP.intervals,
    floor=(
        "AUROC .5; all-negative answers reach a weighted F1 of .636 and an accuracy of .729 on "
        "the 3,630 volumes of Rad-ChestCT"
    ),
    ceiling="1",
    warnings=(
        FITTED,
        NO_DRAWS,
        "CT-CLIP ships no mapping of labels; the standard one of the literature stands in",
    ),
    score_decimals=12,
)
"""16 findings of Rad-ChestCT; the larger of both calcification scores stands for arterial."""

CTCLIP_V2V = Protocol(
    name="ctclip_v2v",
    source="CT-CLIP, volume_to_volume_new.py, corrected: self and siblings out, one number a K",
    code=CODE,
    neighbours=NEIGHBOURS,
    intervals=Intervals(
        resample="patients", num_draws=1000, seed=0, refit=False, percentiles="linear"
    ),
    floor="mean Jaccard index of two volumes of different studies, about .17 on CT-RATE",
    ceiling="mean Jaccard index of the K most alike volumes of other studies",
    score_decimals=12,
)
"""Mean Jaccard index of the labels of the nearest volumes of other studies."""

CTCLIP_V2V_ASRELEASED = Protocol(
    name="ctclip_v2v_asreleased",
    source="CT-CLIP, volume_to_volume_new.py, as released",
    code=CODE,
    neighbours=CTCLIP_AS_RELEASED,
    intervals=CTCLIP.intervals,
    floor="random embeddings print .886, .592, .469, .393 on CT-RATE's 3,039 volumes",
    ceiling="1",
    warnings=(
        "every volume finds itself first: at K = 1 any model gets the share of volumes with a "
        "finding, .886 on CT-RATE",
        "the value at a K is the mean over this and all smaller K",
        "siblings stay in the pool",
    ),
    on_request=True,
    score_decimals=12,
)
"""Printed as MAP@K; says nothing at K = 1."""
