"""Fine-tuning: a trained image encoder learns the findings from labels.

    t3d finetune classify CHECKPOINT --cohort COHORT --out RUN --labels 0.1

The whole encoder moves, its first layers least; a linear head on pooled features is new. The run
ends when the macro AUROC on dev patients has not risen for some time. Views are those of
`supervised`, so that the two differ in where they begin. Without a checkpoint
(`t3d train finetune`) the encoder begins at random: the control for what the checkpoint brings.

Fields from a source: 0 of all; layer-wise rates are arXiv:1801.06146 (discriminative
fine-tuning); the numbers are our choice, not searched for.
"""

from __future__ import annotations

from dataclasses import replace

from t3d.errors import RecipeError
from t3d.learn.objectives.classify import Classify
from t3d.learn.recipe import EarlyStop, LabelShare, Recipe, Stage, Term
from t3d.learn.sizes import SIZES, STEPS, Size, assemble, size

BATCH = {"demo": 32, "phantom": 32, "paper": 64}
RATE = {"demo": 3e-3, "phantom": 5e-4, "paper": 5e-5}  # of the head; half of the size's own
LAYER_DECAY = 0.7
EVALUATIONS = 10  # dev scores over all steps
PATIENCE = 3


def finetune(size_name: str) -> Recipe:
    """Classify the 18 findings from labels with rates by layer, stopped on dev."""
    at = size(size_name)
    num_steps = STEPS["finetune"][size_name]
    stage = Stage(
        num_steps=num_steps,
        terms=(Term(objective=Classify(view="crops")),),
        views=(at.crops(1),),
        optim=replace(at.optim, lr=RATE[size_name], layer_decay=LAYER_DECAY),
        batch_size=BATCH[size_name],
        trainable=("image", "objectives"),
    )
    made = assemble("finetune", at, (stage,), source="ours; 0 fields")
    stop = EarlyStop(every=num_steps // EVALUATIONS, patience=PATIENCE)
    return replace(made, text=None, text_head=None, image_head=None, early_stop=stop)


def finetune_from(
    before: Recipe,
    digest: str,
    *,
    size_name: str = "",
    labels: LabelShare | None = None,
    frozen: bool = False,
) -> Recipe:
    """Make the recipe that begins with a checkpoint's image encoder.

    Args:
        before: The checkpoint's recipe: gives encoder, grid, windows and augmentation.
        digest: Of the checkpoint, from `t3d.learn.start.digest_of`.
        size_name: Gives steps, rates and crops; "" = the size that has the checkpoint's grid.
        labels: Share of the training patients whose labels are read; None = all.
        frozen: Train the head alone.

    Returns:
        A recipe for `t3d.learn.train.train`, with the checkpoint as its `init`.

    Raises:
        RecipeError: No size has this grid and none is named.
    """
    made = finetune(size_name or _size_of(before).name)
    stages = made.stages
    if frozen:
        stages = tuple(replace(stage, trainable=("objectives",)) for stage in stages)
    return replace(
        made,
        name=f"finetune_{before.name}",
        preparation=before.preparation,
        image=before.image,
        windows_hu=before.windows_hu,
        augment=before.augment,
        stages=stages,
        init=digest,
        labels=labels or LabelShare(),
    )


def _size_of(before: Recipe) -> Size:
    """Find the size with the grid of a recipe."""
    for at in SIZES.values():
        if at.preparation == before.preparation:
            return at
    raise RecipeError(
        f"no size has the grid '{before.preparation.name}' of recipe '{before.name}'",
        expected=f"one of {', '.join(SIZES)}",
        fix="--size says which steps, rates and crops to take",
    )
