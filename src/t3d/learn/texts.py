"""Sentences to `TextBlock`, by the text encoder a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from t3d.errors import RecipeError
from t3d.learn.fitted import Fitted
from t3d.learn.recipe import Recipe
from t3d.model.encoders import bag_of_ngrams
from t3d.model.encoders.bag_of_ngrams import BagOfNGrams
from t3d.model.encoders.hf_text import HFText
from t3d.model.tensors import TextBlock

Sections = tuple[Sequence[str], Sequence[str]]  # sentences of findings, of impression
TextReader = Callable[[Sequence[Sections]], TextBlock]


def text_reader(recipe: Recipe, fitted: Fitted, folder: Path | None = None) -> TextReader:
    """Give the function that turns N texts into one TextBlock.

    Args:
        recipe: Names the text encoder.
        fitted: Holds the vocabulary of the bag-of-n-grams tower.
        folder: Where a checkpoint keeps tokenizer files; None = the encoder's own source.

    Raises:
        RecipeError: The text encoder is unknown here.
    """
    config = recipe.text
    if isinstance(config, BagOfNGrams):
        vocabulary = fitted.vocabulary
        assert vocabulary is not None
        return lambda texts: bag_of_ngrams.tokenise([(*a, *b) for a, b in texts], vocabulary)
    if isinstance(config, HFText):
        return config.reader(folder)
    raise RecipeError(
        f"text encoder '{getattr(config, 'kind', config)}' has no reader",
        expected="bag_of_ngrams or hf_text",
    )
