"""A run that begins with the image encoder of another one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from t3d.errors import CheckpointError, RecipeError
from t3d.learn import checkpoint
from t3d.learn.grids import StemMaps
from t3d.learn.recipe import Recipe
from t3d.model.model import Model

IMAGE = "model.image."  # names of the image encoder's tensors in a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An image encoder and what it was trained on."""

    tensors: dict[str, Tensor]  # of the encoder alone, heads stay behind
    maps: StemMaps | None  # the encoder's own; other maps would change what it sees
    people: tuple[dict[str, Any], ...]  # keyed hashes of the patients it has seen

    def load_into(self, model: Model) -> None:
        """Put every tensor of the encoder in its place.

        Raises:
            CheckpointError: A tensor is missing, left over, or of another shape.
        """
        try:
            model.image.load_state_dict(self.tensors, strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                "the tensors of the image encoder do not fit the recipe's encoder",
                expected="every tensor, none left over",
                fix="make the recipe from the checkpoint: t3d finetune classify CHECKPOINT",
            ) from error


def digest_of(folder: Path) -> str:
    """Name a checkpoint by its contents: sha256 over the hashes of its files."""
    return hashlib.sha256((folder / checkpoint.HASHES).read_bytes()).hexdigest()


def open_start(recipe: Recipe, where: Path | None) -> Start | None:
    """Read the encoder that a recipe begins with.

    Args:
        recipe: Its `init` is the digest of a checkpoint; "" = begin at random.
        where: A run (its best step) or RUN/checkpoints/step-N.

    Returns:
        The start; None where the recipe begins at random.

    Raises:
        RecipeError: The recipe names a checkpoint and none is given, or the other way round, or
            another one; or its encoder or grid are not the recipe's.
        CheckpointError: The checkpoint is damaged or of an earlier version.
    """
    if not recipe.init and where is None:
        return None
    folder = None if where is None else checkpoint.resolve(where)
    found = "none" if folder is None else digest_of(folder)[:12]
    if folder is None or digest_of(folder) != recipe.init:
        raise RecipeError(
            f"recipe '{recipe.name}' begins with checkpoint {recipe.init[:12] or 'none'}, "
            f"given: {found}",
            expected="the checkpoint that the recipe was made from",
            fix="t3d finetune classify CHECKPOINT makes the recipe and names it",
        )
    checkpoint.verify(folder)
    before = checkpoint.load_recipe(folder)
    for name in ("image", "preparation", "windows_hu"):
        if getattr(before, name) != getattr(recipe, name):
            raise RecipeError(
                f"{name}: '{recipe.name}' has another one than the checkpoint's '{before.name}'",
                expected=str(getattr(before, name)),
                fix="keep the encoder, its windows and its grid as they were trained",
            )
    tensors = {
        name.removeprefix(IMAGE): tensor
        for name, tensor in checkpoint.load_model(folder).items()
        if name.startswith(IMAGE)
    }
    return Start(
        tensors=tensors,
        maps=checkpoint.load_fitted(folder).maps,
        people=checkpoint.load_people(folder),
    )
