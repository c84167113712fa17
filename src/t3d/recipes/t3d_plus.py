"""`t3d_plus`, ours: the image first predicts the terms of its report, then it is aligned.

    t3d train t3d_plus --size demo --cohort COHORT --out RUN

Stage A: from random crops the image encoder predicts which n-grams the report holds
(`report_terms`: no labels, only the text), each weighed by how well the findings section
predicts the impression through it. Stage B: contrast with the report. Contrast alone trains
the image tower badly at this size: the information is in the text long before it is in the
image features.

Without impressions (INSPECT's reversed case, hospitals that write one section) weights are 1;
what that costs is in docs/concepts/recipes.md. Fields from a source: none, it is ours.
"""

from __future__ import annotations

from dataclasses import replace

from t3d.learn.objectives.contrast import Contrast
from t3d.learn.objectives.report_terms import ReportTerms
from t3d.learn.recipe import Recipe, Stage, Term
from t3d.learn.sizes import STEPS, assemble, size

BATCH = {"demo": 32, "phantom": 32, "paper": 64}
QUEUE = 3  # past batches
IMAGE_RATE = 0.3  # of the rate, in stage B


def t3d_plus(size_name: str) -> Recipe:
    """Predict report terms from crops, then align the whole volume with its report."""
    at = size(size_name)
    terms = Stage(
        num_steps=STEPS["t3d_plus/terms"][size_name],
        terms=(Term(objective=ReportTerms(view="crops")),),
        views=(at.crops(1),),
        optim=at.optim,
        batch_size=BATCH[size_name],
        trainable=("image", "objectives"),
    )
    align = Stage(
        num_steps=STEPS["t3d_plus/align"][size_name],
        terms=(
            Term(objective=Contrast(views=("whole",), queue=QUEUE, queue_rows=BATCH[size_name])),
        ),
        views=(at.whole,),
        optim=replace(at.optim, image_lr_scale=IMAGE_RATE),
        batch_size=BATCH[size_name],
    )
    return assemble("t3d_plus", at, (terms, align), source="ours; 0 fields")
