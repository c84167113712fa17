"""The image predicts which terms (n-grams) its report holds. Ours; no label is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from t3d.learn.bce import weighted_bce
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded

LOSS_SCALE = 20.0  # the sum over terms is divided by this (docs/concepts/recipes.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTerms:
    """Settings: which terms are predicted and how they are weighed.

    `weighted` asks how well the findings section predicts the impression and weighs a term
    by its part in that; without impressions all weights are 1.
    """

    kind: ClassVar[str] = "report_terms"
    scope: ClassVar[Scope] = "study"
    supervision: ClassVar[Supervision] = "reports"

    view: str = "whole"
    min_share: float = 20 / 3000  # of the training reports that hold a term
    max_share: float = 2600 / 3000
    weighted: bool = True

    @property
    def needs(self) -> Needs:
        """What it reads."""
        return Needs(views=(self.view,), targets=("terms",))

    def build(self, dims: Dims) -> ReportTermsModule:
        """Make the module; `dims.terms` was fitted on the training reports."""
        assert dims.terms is not None
        prevalence = torch.as_tensor(dims.terms.prevalence, dtype=torch.float32)
        weight = torch.as_tensor(dims.terms.weight, dtype=torch.float32)
        return ReportTermsModule(self, dims.image, prevalence, weight)


class ReportTermsModule(nn.Module):
    """A linear layer on pooled image features whose bias starts at the prevalence."""

    weight: Tensor

    def __init__(
        self, config: ReportTerms, image_dim: int, prevalence: Tensor, weight: Tensor
    ) -> None:
        super().__init__()
        self.view = config.view
        self.linear = nn.Linear(image_dim, len(prevalence))
        with torch.no_grad():
            self.linear.bias.copy_(torch.logit(prevalence))
        self.register_buffer("weight", weight)

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Predict the terms from every view of the kind.

        Args:
            batch: `terms` (B, G) in {0, 1}.
            encoded: pooled (B, V, C) of the view named.

        Returns:
            loss: sum over terms / 20, mean over views and studies; and the mean per term.
        """
        logits = self.linear(encoded.images[self.view].pooled.float())  # (B, V, G)
        target = batch.targets["terms"][:, None].expand_as(logits)
        per_term = weighted_bce(logits, target, weight_G=self.weight)
        return {
            "loss": per_term * logits.shape[-1] / LOSS_SCALE,
            "per_term": per_term.detach(),
        }
