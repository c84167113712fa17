"""What a size of a recipe fixes: grid, towers, heads, crops and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from t3d.ct.preparations import named_preparation
from t3d.errors import RecipeError
from t3d.learn.recipe import Augment, Optim, Recipe, Stage, View
from t3d.model.encoders.bag_of_ngrams import BagOfNGrams
from t3d.model.encoders.hf_text import HFText
from t3d.model.encoders.resnet import ResNet3d
from t3d.model.encoders.statstem import StatStem
from t3d.model.heads import LinearHead, MlpHead, NormHead
from t3d.types import Preparation, Zyx

STEPS: dict[str, dict[str, int]] = {
    "clip": {"demo": 210, "phantom": 600, "paper": 8000},
    "clip_crops": {"demo": 270, "phantom": 300, "paper": 8000},
    "t3d_v3": {"demo": 195, "phantom": 300, "paper": 8000},
    "t3d_v3_match": {"demo": 106, "phantom": 300, "paper": 8000},
    "t3d_plus/warm": {"demo": 200, "phantom": 200, "paper": 500},
    "t3d_plus/terms": {"demo": 800, "phantom": 600, "paper": 8000},
    "t3d_plus/align": {"demo": 300, "phantom": 300, "paper": 4000},
    "supervised": {"demo": 700, "phantom": 600, "paper": 8000},
    "finetune": {"demo": 700, "phantom": 600, "paper": 4000},
}
"""Optimiser steps. At demo size they are set so that recipes cost equal core-seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Parts that all recipes of a size share."""

    name: str
    preparation: Preparation
    image: Any
    image_head: Any
    text: Any
    text_head: Any
    crop: Zyx[int]  # in cells of the encoder's grid
    min_body: float
    augment: Augment
    optim: Optim
    batch_size: int
    prototypes: int
    windows_hu: tuple[tuple[int, int], ...]
    whole_with_crops: bool  # the whole volume is aligned beside its crops

    @property
    def whole(self) -> View:
        """The whole grid."""
        return View(name="whole")

    def crops(self, count: int = 2) -> View:
        """Boxes at random places."""
        return View(name="crops", size=self.crop, count=count, min_body=self.min_body)

    @property
    def aligned(self) -> tuple[View, ...]:
        """Views the report is aligned with where a recipe uses crops."""
        return (self.whole, self.crops()) if self.whole_with_crops else (self.crops(),)


def size(name: str) -> Size:
    """Give a size by name.

    Raises:
        RecipeError: There is none of that name.
    """
    if name not in SIZES:
        raise RecipeError(
            f"size '{name}' is unknown", expected=f"one of {', '.join(SIZES)}", fix="--size demo"
        )
    return SIZES[name]


SIZES: dict[str, Size] = {
    "demo": Size(
        name="demo",
        preparation=named_preparation("demo"),
        image=StatStem(),
        image_head=LinearHead(dim=128),
        text=BagOfNGrams(dim=128),
        text_head=NormHead(dim=128),
        crop=Zyx(z=12, y=12, x=12),
        min_body=0.0,
        augment=Augment(gain=0.1, offset=0.1),
        optim=Optim(lr=6e-3, warmup=0.15),
        batch_size=64,
        prototypes=32,
        windows_hu=StatStem().windows_hu,
        whole_with_crops=False,
    ),
    "phantom": Size(
        name="phantom",
        preparation=named_preparation("phantom"),
        image=ResNet3d(
            depth=10, width=0.25, num_windows=3, stem_stride=Zyx(z=2, y=2, x=2), grid_stage=2
        ),
        image_head=MlpHead(hidden=512, dim=128),
        text=BagOfNGrams(dim=128),
        text_head=NormHead(dim=128),
        crop=Zyx(z=24, y=48, x=48),
        min_body=0.5,
        augment=Augment(gain=0.1, offset=0.1, noise=0.02),
        optim=Optim(lr=1e-3),
        batch_size=32,
        prototypes=32,
        windows_hu=((-1000, -300), (-150, 250), (200, 1500)),
        whole_with_crops=True,
    ),
    "paper": Size(
        name="paper",
        preparation=named_preparation("paper_direct"),
        image=ResNet3d(depth=50),
        image_head=MlpHead(hidden=2048, dim=512),
        text=HFText(),
        text_head=MlpHead(hidden=2048, dim=512),
        crop=Zyx(z=64, y=128, x=128),
        min_body=0.5,
        augment=Augment(gain=0.1, offset=0.1, noise=0.02, gamma=0.22),
        optim=Optim(lr=1e-4),
        batch_size=64,
        prototypes=512,
        windows_hu=((-1000, 1000),),
        whole_with_crops=True,
    ),
}


def assemble(name: str, at: Size, stages: tuple[Stage, ...], *, source: str) -> Recipe:
    """Put a size's parts and a recipe's stages together."""
    return Recipe(
        name=name,
        source=source,
        preparation=at.preparation,
        image=at.image,
        image_head=at.image_head,
        text=at.text,
        text_head=at.text_head,
        windows_hu=at.windows_hu,
        augment=at.augment,
        stages=stages,
    )
