"""Every part that ships keeps the promises of its kind, and the checks notice a broken one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from t3d.conformance import (
    ConformanceError,
    check_encoder,
    check_model,
    check_objective,
    check_recipe,
    example,
    example_dims,
)
from t3d.learn.objectives import OBJECTIVES
from t3d.learn.objectives.classify import Classify
from t3d.learn.parts import Needs
from t3d.learn.sizes import SIZES
from t3d.model.encoders.bag_of_ngrams import BagOfNGrams, tokenise
from t3d.model.encoders.statstem import StatStem
from t3d.model.tensors import ViewBlock
from t3d.recipes import RECIPES
from t3d.text.ngrams import NGramVocabulary
from t3d.types import Zyx

REPORTS = [("a nodule in the left lung", "no effusion"), ("no nodule", "no effusion"), ("clear",)]


@pytest.mark.parametrize("kind", OBJECTIVES, ids=lambda kind: kind.kind)
def test_objective_keeps_its_promises(kind: Any) -> None:
    check_objective(kind())


@pytest.mark.parametrize("kind", OBJECTIVES, ids=lambda kind: kind.kind)
def test_an_objective_without_what_it_needs_raises(kind: Any) -> None:
    batch, encoded = example(kind())
    module = kind().build(example_dims())
    with pytest.raises(KeyError):
        module(batch, replace(encoded, images={}, texts={}))


def test_statstem_keeps_its_promises() -> None:
    rng = torch.Generator().manual_seed(0)
    low = torch.tensor([[[0, 0, 0]], [[4, 2, 1]]])
    box = torch.stack([low, low + 6], dim=2)
    block = ViewBlock(
        voxels=torch.randn(2, 1, 11, 6, 6, 6, generator=rng),
        valid=None,
        box_mm=box.float(),
        box_vox=box,
        full_vox=Zyx(z=16, y=16, x=16),
    )
    check_encoder(StatStem(), block)


def test_bag_of_ngrams_keeps_its_promises() -> None:
    vocabulary = NGramVocabulary.fit(REPORTS, min_reports=1)
    check_encoder(BagOfNGrams(), tokenise(REPORTS, vocabulary), len(vocabulary))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", RECIPES, ids=lambda function: function.__name__)
def test_recipe_keeps_its_promises(function: Any, size: str) -> None:
    check_recipe(function(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedLoss:
    """Broken on purpose: the first study counts more."""

    kind: ClassVar[str] = "ordered"
    scope: ClassVar[str] = "study"
    supervision: ClassVar[str] = "none"

    @property
    def needs(self) -> Needs:
        return Needs(views=("whole",))

    def build(self, dims: Any) -> nn.Module:
        class Module(nn.Module):
            def forward(self, batch: Any, encoded: Any) -> dict[str, torch.Tensor]:
                rows = encoded.images["whole"].pooled.square().mean((1, 2))
                return {"loss": rows[0] + 0.1 * rows.mean()}

        return Module()


def test_a_loss_that_depends_on_the_order_of_studies_is_refused() -> None:
    with pytest.raises(ConformanceError, match="permuting the studies"):
        check_objective(OrderedLoss())  # type: ignore[arg-type]


def test_a_model_whose_texts_lie_in_another_space_is_refused() -> None:
    class Odd:
        preparation = None

        def embed_volume(self, volume: object) -> list[float]:
            return [1.0, 0.0]

        def embed_text(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, 0.0, 0.0] for _ in texts]

    with pytest.raises(ConformanceError, match="the same D"):
        check_model(Odd(), None)


def test_supervision_of_the_classifier_is_labels() -> None:
    assert Classify().supervision == "labels"
