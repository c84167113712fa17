"""`t3d_plus`, ours: the image first predicts the terms of its report, then it is aligned.

    t3d train t3d_plus --size demo --cohort COHORT --out RUN

Stage 1, text only: findings and impression of one report find each other (`text_warmup`), so
that the text tower tells reports apart before an image is aligned with it. Stage 2: from random
crops the image encoder predicts which n-grams the report holds (`report_terms`: no labels, only
the text), each weighed by how well the findings section predicts the impression through it.
Stage 3: contrast of a crop with the report; evaluated on the whole volume. Contrast alone trains
the image tower badly at this size: the information is in the text long before it is in the
image features.

Without impressions (hospitals that write one section) the weights are 1 and stage 1 has nothing
to compare; what that costs is in docs/concepts/recipes.md. Fields from a source: 0, it is ours.
"""

from __future__ import annotations

from dataclasses import replace

from t3d.learn.objectives.contrast import Contrast
from t3d.learn.objectives.report_terms import ReportTerms
from t3d.learn.objectives.text_warmup import TextWarmup
from t3d.learn.recipe import Recipe, Stage, Term
from t3d.learn.sizes import STEPS, Size, assemble, size

BATCH = {"demo": 32, "phantom": 32, "paper": 64}
QUEUE = 3  # past batches
IMAGE_RATE = 0.3  # of the rate, in stage 3


def t3d_plus(size_name: str) -> Recipe:
    """Warm the text tower, predict report terms from crops, then align crops with the report."""
    at = size(size_name)
    stages = (_warm(at), _terms(at), _align(at))
    return assemble("t3d_plus", at, stages, source="ours; 0 fields")


def _warm(at: Size) -> Stage:
    return Stage(
        num_steps=STEPS["t3d_plus/warm"][at.name],
        terms=(Term(objective=TextWarmup()),),
        views=(),
        optim=at.optim,
        batch_size=at.batch_size,
        trainable=("text", "objectives"),
    )


def _terms(at: Size) -> Stage:
    return Stage(
        num_steps=STEPS["t3d_plus/terms"][at.name],
        terms=(Term(objective=ReportTerms(view="crops")),),
        views=(at.crops(1),),
        optim=at.optim,
        batch_size=BATCH[at.name],
        trainable=("image", "objectives"),
    )


def _align(at: Size) -> Stage:
    rows = BATCH[at.name]
    return Stage(
        num_steps=STEPS["t3d_plus/align"][at.name],
        terms=(Term(objective=Contrast(views=("crops",), queue=QUEUE, queue_rows=rows)),),
        views=(at.crops(1),),
        optim=replace(at.optim, image_lr_scale=IMAGE_RATE),
        batch_size=rows,
    )
