"""Modules from a recipe: towers, heads and objectives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from t3d.learn import codec
from t3d.learn.fitted import Fitted
from t3d.learn.parts import Dims, Objective
from t3d.learn.recipe import Recipe
from t3d.model.encoders.bag_of_ngrams import BagOfNGrams
from t3d.model.model import Model
from t3d.text.findings import CT_RATE_18


def build_model(recipe: Recipe, fitted: Fitted, folder: Path | None = None) -> Model:
    """Make towers and heads; weights are drawn from the recipe's seed.

    `folder` is a checkpoint that keeps a text encoder's configuration; None = its own source.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        image = recipe.image.build()
        text = _build_text(recipe, fitted, folder)
        return Model(
            image=image.to(memory_format=torch.channels_last_3d),
            image_head=recipe.image_head.build(image.pooled_dim) if recipe.image_head else None,
            text=text,
            text_head=recipe.text_head.build(text.pooled_dim)
            if text and recipe.text_head
            else None,
        )


def build_objectives(recipe: Recipe, model: Model, fitted: Fitted) -> nn.ModuleDict:
    """Make every objective once; equal settings in two stages share one module."""
    dims = Dims(
        image=_dim(model.image, "pooled_dim"),
        grid=_dim(model.image, "grid_dim"),
        text=_dim(model.text, "pooled_dim") if model.text is not None else 0,
        embed=recipe.image_head.dim if recipe.image_head else 0,
        findings=len(CT_RATE_18),
        terms=fitted.terms,
    )
    modules = nn.ModuleDict()
    for stage in recipe.stages:
        for term in stage.terms:
            name = objective_name(term.objective)
            if name not in modules:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(recipe.seed + 1)
                    modules[name] = term.objective.build(dims)
    return modules


def objective_name(objective: Objective) -> str:
    """Name an objective by its kind and settings."""
    kind = objective.kind.rpartition(":")[2]
    return f"{kind}-{codec.digest(objective)[:8]}"


def _build_text(recipe: Recipe, fitted: Fitted, folder: Path | None) -> nn.Module | None:
    if recipe.text is None:
        return None
    if isinstance(recipe.text, BagOfNGrams):
        assert fitted.vocabulary is not None
        return recipe.text.build(len(fitted.vocabulary))
    built = recipe.text.build(folder)
    assert isinstance(built, nn.Module)
    return built


def _dim(module: nn.Module | None, name: str) -> int:
    value = getattr(module, name)
    assert isinstance(value, int), (name, value)
    return value
