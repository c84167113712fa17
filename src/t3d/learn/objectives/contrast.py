"""Global alignment of volume and report: InfoNCE over the batch and a queue of past batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from t3d.learn.losses import contrast_one_way
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded

MAX_SCALE = 100.0  # exp(logit scale) is capped here (CLIP, arXiv:2103.00020)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Settings; the report is aligned with every view named, mean over them.

    Identical normalised reports are positives of each other, not negatives.
    """

    kind: ClassVar[str] = "contrast"
    scope: ClassVar[Scope] = "batch"
    supervision: ClassVar[Supervision] = "reports"

    views: tuple[str, ...] = ("whole",)
    temperature: float = 0.07  # at the start
    learned: bool = True
    queue: int = 0  # past batches kept as further negatives, detached
    queue_rows: int = 0  # studies a past batch holds; needed with a queue
    queue_views: int = 1  # views a study has over all views named; needed with a queue

    @property
    def needs(self) -> Needs:
        """What it reads."""
        return Needs(views=self.views, texts=("report",), targets=("same_report",))

    def build(self, dims: Dims) -> ContrastModule:
        """Make the module."""
        return ContrastModule(self, dims.embed)


class ContrastModule(nn.Module):
    """Both directions, mean; per-direction losses are gauges."""

    queue_image: Tensor  # (queue, views, rows, D)
    queue_text: Tensor  # (queue, rows, D)
    queue_group: Tensor  # (queue, rows) int64, -1 = empty
    cursor: Tensor  # () int64

    def __init__(self, config: Contrast, embed: int) -> None:
        super().__init__()
        self.config = config
        start = torch.tensor(math.log(1.0 / config.temperature))
        if config.learned:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)
        depth, rows = config.queue, config.queue_rows
        self.register_buffer("queue_image", torch.zeros(depth, config.queue_views, rows, embed))
        self.register_buffer("queue_text", torch.zeros(depth, rows, embed))
        self.register_buffer("queue_group", torch.full((depth, rows), -1))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Align views with reports.

        Args:
            batch: `same_report` (B,) group of each study.
            encoded: `embed` (B, V, D) of each view named and (B, D) of the reports.

        Returns:
            loss, its two directions, and the scale.
        """
        text = _embed(encoded.texts["report"].embed)
        group = batch.targets["same_report"]
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        views = [view for name in self.config.views for view in _views(encoded, name)]
        image_to_text, text_to_image = [], []
        for number, image in enumerate(views):
            keys_text, keys_image, positive = self._keys(text, image, group, number)
            image_to_text.append(
                contrast_one_way(image, keys_text, scale=scale, positive_NM=positive)
            )
            text_to_image.append(
                contrast_one_way(text, keys_image, scale=scale, positive_NM=positive)
            )
        if self.training and self.config.queue:
            self._remember(torch.stack(views), text, group)
        forth, back = torch.stack(image_to_text).mean(), torch.stack(text_to_image).mean()
        gauges = {"i2t": forth.detach(), "t2i": back.detach(), "scale": scale.detach()}
        return {"loss": (forth + back) / 2, **gauges}

    def _keys(
        self, text: Tensor, image: Tensor, group: Tensor, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add the queue's rows to both sides; empty rows are left out."""
        if not (self.training and self.config.queue):
            return text, image, group[:, None] == group[None, :]
        kept = self.queue_group.flatten() >= 0
        old_text = self.queue_text.flatten(0, 1)[kept]
        old_image = self.queue_image[:, number].flatten(0, 1)[kept]
        groups = torch.cat([group, self.queue_group.flatten()[kept]])
        positive = group[:, None] == groups[None, :]
        return torch.cat([text, old_text]), torch.cat([image, old_image]), positive

    @torch.no_grad()
    def _remember(self, views: Tensor, text: Tensor, group: Tensor) -> None:
        slot, rows = int(self.cursor) % self.config.queue, len(text)
        self.queue_group[slot] = -1
        self.queue_image[slot, :, :rows] = views.detach()
        self.queue_text[slot, :rows] = text.detach()
        self.queue_group[slot, :rows] = group
        self.cursor += 1


def _embed(embed: Tensor | None) -> Tensor:
    assert embed is not None, "the recipe has no head for this side"
    return embed.float()


def _views(encoded: Encoded, name: str) -> tuple[Tensor, ...]:
    return _embed(encoded.images[name].embed).unbind(1)
