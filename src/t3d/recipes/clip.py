"""Global alignment of volume and report alone, and its control with crops.

    t3d train clip --size demo --cohort COHORT --out RUN
    t3d train clip_crops --size demo --cohort COHORT --out RUN

`clip` is the baseline every other recipe is held against. `clip_crops` sees the same views
and as many volumes per second as `t3d_v3`, without its fusion with text: the difference
between the two is what text-informed alignment itself brings.

Cost at demo size: docs/results/demo_summary.json ("core_seconds"). Fields from a source: 0 of
all; InfoNCE is arXiv:1807.03748 as in CLIP, arXiv:2103.00020; the numbers are our choice.
"""

from __future__ import annotations

from dataclasses import replace

from t3d.learn.objectives.contrast import Contrast
from t3d.learn.recipe import Recipe, Stage, Term
from t3d.learn.sizes import STEPS, assemble, size


def clip(size_name: str) -> Recipe:
    """Align the whole volume with its report."""
    at = size(size_name)
    stage = Stage(
        num_steps=STEPS["clip"][size_name],
        terms=(Term(objective=Contrast(views=("whole",))),),
        views=(at.whole,),
        optim=at.optim,
        batch_size=at.batch_size,
    )
    return assemble("clip", at, (stage,), source="ours: CLIP's loss on volumes; 0 fields")


def clip_crops(size_name: str) -> Recipe:
    """Align two random crops (and the whole volume, except at demo size) with the report."""
    at = size(size_name)
    stage = Stage(
        num_steps=STEPS["clip_crops"][size_name],
        terms=(Term(objective=Contrast(views=tuple(view.name for view in at.aligned))),),
        views=at.aligned,
        optim=at.optim,
        batch_size=at.batch_size,
    )
    return assemble("clip_crops", at, (stage,), source="ours: control of t3d_v3; 0 fields")


def clip_crops_equal_steps(size_name: str) -> Recipe:
    """The control with as many steps as `t3d_v3` instead of as many core-seconds."""
    made = clip_crops(size_name)
    stages = (replace(made.stages[0], num_steps=STEPS["t3d_v3"][size_name]),)
    return replace(made, name="clip_crops_equal_steps", stages=stages)
