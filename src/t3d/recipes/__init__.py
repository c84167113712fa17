"""Named trainings; a new one is a function `recipe(size) -> Recipe` and a name in this tuple."""

from __future__ import annotations

from collections.abc import Callable

from t3d.errors import RecipeError
from t3d.learn import codec
from t3d.learn.recipe import Recipe, check
from t3d.recipes.clip import clip, clip_crops, clip_crops_equal_steps
from t3d.recipes.finetune import finetune
from t3d.recipes.supervised import supervised
from t3d.recipes.t3d_plus import t3d_plus
from t3d.recipes.t3d_v3 import t3d_v3, t3d_v3_match

RECIPES: tuple[Callable[[str], Recipe], ...] = (
    clip,
    clip_crops,
    t3d_v3,
    t3d_v3_match,
    clip_crops_equal_steps,
    t3d_plus,
    supervised,
    finetune,
)


def recipe(name: str, size: str = "demo") -> Recipe:
    """Give a named recipe, or somebody else's: "path/to/file.py:function".

    Raises:
        RecipeError: There is none of that name or size, or it cannot run.
    """
    known = {function.__name__: function for function in RECIPES}
    found = known.get(name) or codec.load_attribute(name)
    if not callable(found):
        raise RecipeError(
            f"recipe '{name}' is unknown{codec.nearest(name, known)}",
            expected=f"one of {', '.join(known)}, or FILE.py:FUNCTION",
            fix="t3d info recipes lists them",
        )
    made = found(size)
    if not isinstance(made, Recipe):
        raise RecipeError(f"{name} gave a {type(made).__name__}", expected="a t3d Recipe")
    check(made)
    return made
