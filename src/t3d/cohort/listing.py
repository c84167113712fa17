"""What a source must give: a listing that opens no voxels, and the terms of its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from t3d.types import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under what terms data may be used; travels with a cohort."""

    licence: str  # a name, or what the user was told
    citation: str = ""  # what to cite
    synthetic: bool = False  # True = generated, shows nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Something in a source that belongs to no study, or to none that can be used."""

    key: str  # study id, or file key where no study is known
    reason: str  # a reason code, e.g. "unlisted_file"
    message: str  # what a person reads; no names, no paths of the machine


LEFT_OUT_ON_PURPOSE = frozenset(
    {"not_ct", "not_chosen", "not_asked_for", "duplicate_text", "empty_text", "short_text"}
)
"""Reasons that are no failure: a localizer is no CT volume, a second kernel was not asked for."""


class Source(Protocol):
    """Lists studies. May also have `root: Path` and `set_aside() -> tuple[SetAside, ...]`."""

    kind: str

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        ...

    def studies(self) -> Iterator[Study]:
        """List every study, repeatably, without opening a voxel."""
        ...
