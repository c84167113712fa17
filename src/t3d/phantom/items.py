"""What the voxel side of a phantom tells the report side, and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from t3d.types import Item, Report, Sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedItem:
    """One item of a finding and where its mask lies."""

    item: Item
    z_mm: tuple[float, float, float]  # centre, low, high of its mask; LPS world
    count: int = 1  # how many alike it stands for: nodules, spots, tubes
    extra: Mapping[str, float] = field(default_factory=dict)  # "cardiothoracic_ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """A report and where each of its sentences about a positive finding lies."""

    report: Report
    sentences: tuple[Sentence, ...]  # z_mm is set for sentences about positive findings
