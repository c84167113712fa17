"""Supervised classification of findings: the ceiling that other recipes are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from t3d.learn.bce import masked_bce
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded, ImageFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify:
    """Settings."""

    kind: ClassVar[str] = "classify"
    scope: ClassVar[Scope] = "study"
    supervision: ClassVar[Supervision] = "labels"

    view: str = "whole"

    @property
    def needs(self) -> Needs:
        """What it reads."""
        return Needs(views=(self.view,), targets=("labels",))

    def build(self, dims: Dims) -> ClassifyModule:
        """Make the module."""
        return ClassifyModule(self, dims.image, dims.findings)


class ClassifyModule(nn.Module):
    """A linear layer on pooled image features."""

    def __init__(self, config: Classify, image_dim: int, num_findings: int) -> None:
        super().__init__()
        self.view = config.view
        self.linear = nn.Linear(image_dim, num_findings)

    def scores(self, features: ImageFeatures) -> Tensor:
        """Give logits, (B, V, F)."""
        logits: Tensor = self.linear(features.pooled.float())
        return logits

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Cross entropy on stated labels, (B, F) in {1, 0, -1}; -1 is left out."""
        logits = self.scores(encoded.images[self.view])
        target = batch.targets["labels"][:, None].expand_as(logits)
        return {"loss": masked_bce(logits, target)}
