"""The nouns that cross rooms. Arrays are (z, y, x); world coordinates are LPS millimetres.

This module reaches neither numpy nor torch when it is imported: array types are names here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from numpy import float64, int16
    from numpy.typing import NDArray

T = TypeVar("T", int, float)


class Zyx(NamedTuple, Generic[T]):
    """A triple named by axis: `Zyx(z=4.0, y=1.0, x=1.0)`."""

    z: T
    y: T
    x: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Free text of one examination; an empty string means the section is absent."""

    findings: str = ""
    impression: str = ""
    language: str = "en"  # ISO 639-1
    status: str = "final"  # "final" or "preliminary"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderOverride:
    """What a table says where the file's own header lies (CT-RATE v1); None = trust the file."""

    spacing_mm: Zyx[float] | None = None
    slope: float | None = None
    intercept: float | None = None  # HU
    affine: tuple[tuple[float, ...], ...] | None = None  # 4 x 4, RAS mm from file (i, j, k)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPart:
    """One label map of a 4-D file whose first axis counts them; it lies where its CT lies."""

    path: Path
    index: int  # along the first axis
    count: int  # label maps that the file must hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of a study, as files that have not been opened yet."""

    series_id: str
    files: tuple[Path, ...]
    header: HeaderOverride | None = None
    masks: Mapping[str, Path | MaskPart] = field(
        default_factory=dict
    )  # mask name -> label map on the same grid
    facts: Mapping[str, str] = field(default_factory=dict)  # kernel, manufacturer, phase
    options: Mapping[str, str] = field(default_factory=dict)  # how to open it: gaps, kernel, phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A piece of a report and, where known, the depth it speaks of."""

    section: str  # "findings" or "impression"
    start: int  # first character within the section
    end: int  # one past the last character
    finding: str = ""  # "" = not stated
    z_mm: tuple[float, float, float] | None = None  # centre, low, high; LPS world
    # Who says so: "source", "mined", "rule", "region:<mask>"; "mask:<mask>" = that mask shows it,
    # and its depth becomes z_mm when the study is prepared.
    origin: str = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One occurrence of a finding, known where the truth is known (phantoms, annotations)."""

    finding: str
    large: bool
    side: str = ""  # "left", "right", "bilateral" or ""
    place: str = ""  # lobe (RUL RML RLL LUL LLL), station or vessel
    size_mm: float = 0.0
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One examination with its report(s), listed by a source without opening a voxel."""

    study_id: str
    patient_id: str  # unit of every split and interval
    series: tuple[Series, ...]
    reports: tuple[Report, ...] = ()
    labels: Mapping[str, int | None] = field(default_factory=dict)  # 0 / 1 / None = not stated
    facts: Mapping[str, str] = field(default_factory=dict)  # sex, age, date shift
    split: str = ""  # "train", "dev", "test" or ""
    sentences: tuple[Sentence, ...] = ()
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One 3-D array in HU with geometry; axes run to Superior, Posterior, Left."""

    volume_id: str
    voxels: NDArray[int16]  # (Z, Y, X) HU
    world_from_voxel: NDArray[float64]  # (4, 4): (z, y, x, 1) -> (L, P, S, 1) mm
    steps: tuple[str, ...] = ()  # what was done, oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How voxels become the grid a model eats; belongs to a model, has a name and a digest."""

    name: str
    spacing_mm: Zyx[float] | None = None  # None = keep the file's
    size_vox: Zyx[int] | None = None  # None = whatever the spacing gives
    fit: str = "resize"  # "resize" (aspect is not kept) or "pad_crop" (mm are kept)
    filter: str = "area"  # "area", "linear", "triangle", "monai" or "ctclip"
    store_clip_hu: tuple[int, int] = (-1024, 3071)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number and what it is worth: 95 % interval, chance, floor and ceiling of its rule."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    unit: str = ""  # what is counted and resampled: "patients"
    chance: float = float("nan")
    floor: float = float("nan")  # what a blind model gets under this rule
    ceiling: float = float("nan")  # what a perfect model gets under this rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one task found under one protocol."""

    task: str
    protocol: str
    metrics: tuple[Metric, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)  # reason -> how many
    per_study: Path | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
