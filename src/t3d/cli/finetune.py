"""The verb that teaches a trained encoder the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from t3d.cli.app import app, pairs, print_out
from t3d.cli.models import run_on_board
from t3d.errors import RecipeError


@app.command
def finetune(
    task: str,
    checkpoint: Path,
    *,
    cohort: Path,
    out: Path,
    labels: float = 1.0,
    labels_seed: int = 0,
    frozen: bool = False,
    size: str = "",
    changes: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
) -> int:
    """Fine-tune the image encoder of a checkpoint on labels; again, it continues where it stopped.

    Args:
        task: "classify", the one there is.
        checkpoint: A run (its best step) or RUN/checkpoints/step-N.
        cohort: With train and dev patients, on the checkpoint's grid.
        out: Folder of the run: checkpoints, log.jsonl, TensorBoard, report.html.
        labels: Share of the training patients whose labels are read: 0.01, 0.1 or 1.
        labels_seed: Chooses them; one seed means the same patients for every model.
        frozen: Train the head alone.
        size: demo, phantom or paper; default: the size of the checkpoint's grid.
        changes: Fields to change, as optim.layer_decay=0.8; may be given several times.
    """
    from t3d.cohort.store import Cohort
    from t3d.learn import checkpoint as checkpoints
    from t3d.learn.recipe import LabelShare, override
    from t3d.learn.start import digest_of
    from t3d.recipes.finetune import finetune_from

    if task != "classify":
        raise RecipeError(f"task '{task}' is unknown", expected="classify")
    start = checkpoints.resolve(checkpoint)
    made = finetune_from(
        checkpoints.load_recipe(start),
        digest_of(start),
        size_name=size,
        labels=LabelShare(share=labels, seed=labels_seed),
        frozen=frozen,
    )
    made = override(made, pairs(changes, "--set", "optim.layer_decay=0.8"))
    opened = Cohort.open(cohort)
    print_out(
        f"{made.name}, labels of {labels:.0%} of the patients, at most {made.num_steps} steps, "
        f"cohort {opened.digest[:12]}"
    )
    run_on_board(made, opened, out, init=start)
    return 0
