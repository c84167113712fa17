"""The supervised ceiling: the same encoder, told the labels.

    t3d train supervised --size demo --cohort COHORT --out RUN

It is no vision-language recipe and no competitor: it says how much of the images the encoder
can use at all. Trained on one random crop a step, evaluated on the whole volume.
"""

from __future__ import annotations

from dataclasses import replace

from t3d.learn.objectives.classify import Classify
from t3d.learn.recipe import Recipe, Stage, Term
from t3d.learn.sizes import STEPS, assemble, size

BATCH = {"demo": 32, "phantom": 32, "paper": 64}


def supervised(size_name: str) -> Recipe:
    """Classify the 18 findings from labels."""
    at = size(size_name)
    stage = Stage(
        num_steps=STEPS["supervised"][size_name],
        terms=(Term(objective=Classify(view="crops")),),
        views=(at.crops(1),),
        optim=at.optim,
        batch_size=BATCH[size_name],
        trainable=("image", "objectives"),
    )
    made = assemble("supervised", at, (stage,), source="ours: ceiling of the encoder; 0 fields")
    return replace(made, text=None, text_head=None, image_head=None)
