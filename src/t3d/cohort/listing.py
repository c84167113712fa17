"""What a source must give: a listing that opens no voxels, and the terms of its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
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
"""Reasons that are no failure: no CT (a localizer, MR), a series that is not the one wanted, and
what settings or rules leave out."""


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


def members_of(source: Source) -> tuple[Source, ...]:
    """Give the members of a union, and of unions in it, or the source itself."""
    members = getattr(source, "members", None)
    if members is None:
        return (source,)
    return tuple(one for member in members.values() for one in members_of(member))


def roots_of(source: Source) -> tuple[Path, ...]:
    """Say below which folders the files of a source lie, as far as it tells."""
    found = (getattr(one, n, None) for one in members_of(source) for n in ("root", "volumes"))
    return tuple(path for path in dict.fromkeys(found) if isinstance(path, Path))


class ReadAtOnce(ABC):
    """A source that finds its studies, and what belongs to none, in one reading."""

    _left: tuple[SetAside, ...] | None = None

    @abstractmethod
    def _listed(self) -> tuple[Iterable[Study], tuple[SetAside, ...]]:
        """Read everything but voxels."""

    def studies(self) -> Iterator[Study]:
        """List every study, read anew, in an order of the source's own.

        Raises:
            SourceError: A table or list cannot be read, or holds what it may not.
        """
        studies, self._left = self._listed()
        yield from studies

    def set_aside(self) -> tuple[SetAside, ...]:
        """List what the last reading found that belongs to no study, or to none of use."""
        if self._left is None:
            _, self._left = self._listed()
        return self._left
