"""The two towers and their projections: views and texts in, `Encoded` out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn

from t3d.model.tensors import (
    Batch,
    Encoded,
    ImageFeatures,
    TextBlock,
    TextFeatures,
    ViewBlock,
    to_device,
)


class Model(nn.Module):
    """An image encoder, a text encoder (absent in image-only recipes) and two heads.

    `encode_image` takes no text: what evaluation calls cannot be told the report.
    """

    def __init__(
        self,
        *,
        image: nn.Module,
        image_head: nn.Module | None,
        text: nn.Module | None = None,
        text_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.image = image
        self.image_head = image_head
        self.text = text
        self.text_head = text_head

    @property
    def device(self) -> torch.device:
        """Where its parameters lie."""
        return next(self.parameters()).device

    def encode_image(self, block: ViewBlock | ImageFeatures) -> ImageFeatures:
        """Encode views; frozen features pass through. `embed` is set where there is a head."""
        block = to_device(block, self.device)
        features = block if isinstance(block, ImageFeatures) else self.image(block)
        assert isinstance(features, ImageFeatures)
        if self.image_head is None:
            return features
        return replace(features, embed=self.image_head(features.pooled.float()))

    def encode_text(self, block: TextBlock) -> TextFeatures:
        """Encode texts; `embed` is set where there is a head."""
        assert self.text is not None
        features = self.text(to_device(block, self.device))
        assert isinstance(features, TextFeatures)
        if self.text_head is None:
            return features
        return replace(features, embed=self.text_head(features.pooled.float()))

    def forward(self, batch: Batch, views: Collection[str], texts: Collection[str]) -> Encoded:
        """Encode each named view and text of a batch once."""
        return Encoded(
            images={name: self.encode_image(batch.views[name]) for name in views},
            texts={name: self.encode_text(batch.texts[name]) for name in texts},
        )
