"""What a part of a recipe must be: the contracts of encoders, heads and objectives.

A part is a frozen dataclass whose class carries `kind: ClassVar[str]`; its fields are its
settings and `build(...)` makes the module. `t3d.conformance` checks that a part keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from t3d.model.tensors import Batch, Encoded
from t3d.text.terms import TermTable

Supervision = Literal["reports", "labels", "none"]
Scope = Literal["study", "batch"]  # "batch": the loss compares studies with each other

NUM_UNIFORM = 8  # columns of the target "uniform"

TARGETS: dict[str, str] = {
    "labels": "(B, F) int64: 1, 0, -1 = not stated",
    "terms": "(B, G) float32: 1 = the report holds the term",
    "same_report": "(B,) int64: equal number = identical normalised report",
    "uniform": "(B, 8) float32 in [0, 1): random numbers, a function of (seed, step, study)",
    "sentence_z_mm": "(N, 3) float32: centre, low, high in LPS mm",
    "mask": "(B, V, Z, Y, X) bool",
}
"""Targets a loader can make, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an objective reads from a batch."""

    views: tuple[str, ...] = ()
    levels: bool = False
    texts: tuple[str, ...] = ()  # "report", "findings", "impression"
    targets: tuple[str, ...] = ()  # names in TARGETS
    teacher: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dims:
    """Sizes an objective is built for."""

    image: int  # channels of ImageFeatures.pooled
    grid: int  # channels of ImageFeatures.grid
    text: int  # channels of TextFeatures
    embed: int  # shared space
    findings: int = 0
    terms: TermTable | None = None


class Objective(Protocol):
    """Settings of one loss."""

    kind: ClassVar[str]
    scope: ClassVar[Scope]
    supervision: ClassVar[Supervision]

    @property
    def needs(self) -> Needs:
        """What it reads."""
        ...

    def build(self, dims: Dims) -> nn.Module:
        """Make the module; `forward(batch, encoded)` gives {"loss": scalar, gauges}."""
        ...


class ObjectiveModule(Protocol):
    """What an objective's module answers to."""

    def __call__(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Give {"loss": scalar, gauge name: scalar}."""
        ...


@runtime_checkable
class StepAware(Protocol):
    """An objective that changes with the step (frozen prototypes, a queue that starts late)."""

    def before_step(self, step: int, num_steps: int) -> None:
        """Hear the number of the coming step and of the steps of its stage."""
        ...


class Encoder(Protocol):
    """Settings of an image or text encoder."""

    kind: ClassVar[str]

    def build(self, *args: Any) -> nn.Module:
        """Make the module; its attributes say its sizes (`pooled_dim`, `grid_dim`)."""
        ...
