"""Contrast between the findings and the impression of one report: warms a text tower up.

Reading: from scratch, image-text contrast can stand at chance for epochs; a text tower that has
first told reports apart gives the image tower something to aim at. Uses no label and no image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from t3d.errors import RecipeError
from t3d.learn.losses import info_nce_multi_positive
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded, TextBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWarmup:
    """Settings; `text_plan.drop = 0.5` of the recipe leaves a random half to all sentences.

    Source:
        Our choice; 240 steps of batch 64 at scale 14 on phantom reports took the loss from
        4.16 to 2.06 (one run).
    """

    kind: ClassVar[str] = "text_warmup"
    scope: ClassVar[Scope] = "batch"
    supervision: ClassVar[Supervision] = "reports"

    scale: float = 14.0  # inverse temperature, fixed

    @property
    def needs(self) -> Needs:
        """Both sections, as texts of their own."""
        return Needs(texts=("findings", "impression"))

    def build(self, dims: Dims) -> nn.Module:
        """Make the module; it has no parameters."""
        return TextWarmupNet(self)


class TextWarmupNet(nn.Module):
    """InfoNCE of the sections, studies that lack one skipped."""

    def __init__(self, config: TextWarmup) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Pick each findings' impression and back.

        Returns:
            "loss" (0 when no study has both sections) and "chance" (log of the pairs).
            Equal impressions are all right answers.
        """
        findings, impression = batch.texts["findings"], batch.texts["impression"]
        row_f, row_i = _studies_with_both(findings, impression)
        x, y = encoded.texts["findings"].embed, encoded.texts["impression"].embed
        if x is None or y is None:
            raise RecipeError(
                "text_warmup: the texts were not projected",
                expected="a text head, whose unit vectors are compared",
                fix="set text_head in the recipe",
            )
        _, group = torch.unique(
            torch.where(impression.mask, impression.ids, -1)[row_i], dim=0, return_inverse=True
        )
        loss = info_nce_multi_positive(
            x[row_f].float(), y[row_i].float(), scale=self.config.scale, group_N=group
        )
        return {"loss": loss, "chance": loss.new_tensor(math.log(max(len(row_f), 1)))}


def _studies_with_both(findings: TextBlock, impression: TextBlock) -> tuple[Tensor, Tensor]:
    """Rows of the two blocks that belong to one study and hold words."""
    same = findings.study[:, None] == impression.study[None, :]
    known = (findings.study >= 0) & (findings.segment >= 0).any(dim=1)
    said = (impression.segment >= 0).any(dim=1)
    rows = (same & known[:, None] & said[None, :]).nonzero()
    return rows[:, 0], rows[:, 1]
