"""Named preparations; a recipe's size picks one, `t3d prepare --preparation NAME` makes it."""

from __future__ import annotations

from t3d.errors import RecipeError
from t3d.types import Preparation, Zyx

_PAPER_VOX = Zyx(z=128, y=256, x=256)

PREPARATIONS: tuple[Preparation, ...] = (
    Preparation(name="demo", size_vox=Zyx(z=32, y=64, x=64)),
    Preparation(name="phantom", size_vox=Zyx(z=48, y=96, x=96)),
    # T3D: 1 x 1 x 4 mm (x, y, z), then 256 x 256 x 128; interpolation: MONAI's rule, our reading
    Preparation(
        name="paper", spacing_mm=Zyx(z=4.0, y=1.0, x=1.0), size_vox=_PAPER_VOX, filter="monai"
    ),
    Preparation(name="paper_direct", size_vox=_PAPER_VOX),
    Preparation(name="fine", spacing_mm=Zyx(z=2.0, y=1.0, x=1.0)),
    # CT-CLIP's loader repeated: clip first, spacing by a resize, then the middle in air
    Preparation(
        name="ctclip",
        spacing_mm=Zyx(z=1.5, y=0.75, x=0.75),
        size_vox=Zyx(z=240, y=480, x=480),
        fit="pad_crop",
        filter="ctclip",
        store_clip_hu=(-1000, 1000),
    ),
)
"""`paper_direct` gives `paper`'s grid in one area step and is our default for that size."""


def named_preparation(name: str) -> Preparation:
    """Give a preparation by name.

    Raises:
        RecipeError: There is none of that name.
    """
    for preparation in PREPARATIONS:
        if preparation.name == name:
            return preparation
    raise RecipeError(
        f"preparation '{name}' is unknown",
        expected=f"one of {', '.join(p.name for p in PREPARATIONS)}",
    )
