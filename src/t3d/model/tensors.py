"""What passes between views, model and objectives.

Legend: B studies, V views, W windows, C features, D shared space, L tokens, N texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from t3d.types import Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBlock:
    """Views of one kind for a whole batch.

    A parameter-free stem's cached channels enter as a ViewBlock too (W = channels, float16).
    """

    voxels: Tensor  # (B, V, W, Z, Y, X) in [0, 1], or the stem's channels
    valid: Tensor | None  # (B, V, Z, Y, X) bool, True = inside the scan; None = all valid
    box_mm: Tensor  # (B, V, 2, 3) low and high voxel edges, LPS mm as (z, y, x)
    box_vox: Tensor  # (B, V, 2, 3) int64 low and high in cells of the full grid
    full_vox: Zyx[int]  # size of the full grid in cells
    corrupted: Tensor | None = None  # (B, V, W, Z, Y, X), for restoration


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock:
    """Tokenised texts."""

    ids: Tensor  # (N, L) int64
    mask: Tensor  # (N, L) bool, True = token
    study: Tensor  # (N,) int64 row of the batch, -1 = belongs to none
    segment: Tensor  # (N, L) int64 sentence of each token, -1 = none


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFeatures:
    """What an image encoder gives for each view."""

    pooled: Tensor  # (B, V, C)
    grid: Tensor  # (B, V, C', z, y, x) token map
    levels: tuple[Tensor, ...] = ()  # skips, only when an objective needs them
    embed: Tensor | None = None  # (B, V, D) unit length, from the model's image head


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """What a text encoder gives for each text."""

    pooled: Tensor  # (N, C)
    tokens: Tensor  # (N, L, C)
    mask: Tensor  # (N, L) bool
    segment: Tensor  # (N, L) int64 sentence of each token, -1 = none
    embed: Tensor | None = None  # (N, D) unit length, from the model's text head


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's input: a function of (seed, step, study)."""

    views: Mapping[str, ViewBlock | ImageFeatures]  # frozen features enter as they are
    texts: Mapping[str, TextBlock] = field(default_factory=dict)
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    study_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Each view and text of a batch, encoded once."""

    images: Mapping[str, ImageFeatures]
    texts: Mapping[str, TextFeatures] = field(default_factory=dict)
    teacher: Encoded | None = None  # the EMA copy's view of the same batch


T = TypeVar("T")


def to_device(value: T, device: torch.device) -> T:
    """Move every tensor of a batch, a block or features; other fields stay as they are."""
    if isinstance(value, Tensor):
        return cast("T", value.to(device, non_blocking=True))
    if isinstance(value, Mapping):
        moved = {name: to_device(entry, device) for name, entry in value.items()}
        return cast("T", moved)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: to_device(getattr(value, f.name), device) for f in fields(value)}
        return replace(value, **changed)
    return value
