"""Many series, one CT: which one is taken, and a printed reason for every other.

The rule, in this order: what is no stack of CT slices is out (localizers, derived images, secondary
captures, dose reports, segmentations, plans, reports, other modalities, series whose slices
contradict each other, single slices), and what was not asked for is out (kernel, phase, series
number). Among the rest, each line decides only where the ones above are equal:

1. at least 8 slices; 2. even gaps; 3. axial slices; 4. original before derived; 5. at least 80 % of
the largest height and field of view, so that a thin piece does not beat a whole chest; 6. soft
kernel before unknown before sharp, since reports of most findings, HU and phantoms are about soft
tissue, and sharp kernels add noise and overshoot; 7. finer pitch; 8. more slices; 9. lower series
number, phase and identifier, so that the order of files never matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t3d.ct.dicom.listing import DicomSeries, Listing, kept_out
from t3d.ct.dicom.stacking import lay_out
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.limits import MIN_AXIS_VOX

COVERS = 0.8  # of the largest extent; our choice
AXIAL_COSINE = 0.7  # normals within 45 degrees of the body's axis
SHARP_FROM = 50  # Siemens: B, H, I, Br, Bl, ... below 50 soft, from 50 on sharp
_SOFT_NAMES = ("STANDARD", "STND", "STD", "SOFT", "SOFT TISSUE", "A", "B", "C", "YA", "YB", "SA")
_SHARP_NAMES = ("LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "CHST", "DETAIL", "L", "D", "E", "YC")
_SIEMENS = re.compile(r"[A-Z][A-Z]?(\d\d)[A-Z]?$")
_CANON = re.compile(r"FC(\d\d)")
_CANON_SHARP_FROM = 30  # FC30 bone, FC50 lung, FC80 high resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class NotChosen:
    """A series that was not taken."""

    series: DicomSeries
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The series to take, and why no other."""

    series: DicomSeries
    others: tuple[NotChosen, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per series, without identifiers."""
        rest = (f"{other.series.label}: {other.reason}" for other in self.others)
        return (f"{self.series.label}: taken", *rest)


@dataclass(frozen=True, slots=True)
class _Merit:
    """What a usable series has to offer, in mm."""

    slices: int
    even: bool
    axial: bool
    original: bool
    height_mm: float
    field_mm: float
    sharpness: int
    pitch_mm: float


def choose(
    listing: Listing, *, kernel: str = "", phase: str = "", series_number: int | None = None
) -> Choice:
    """Choose the CT series of a listing by the rule at the top of this module.

    Args:
        listing: What `list_series` found.
        kernel: Take only this reconstruction kernel ("B40f"), or "soft" or "sharp"; "" = the rule.
        phase: Take only this phase: "contrast", "plain", a phase's name ("acquisition 2"), or a
            part of the series description; "" = the rule.
        series_number: Take only series of this number, derived ones too.

    Raises:
        RefusedFile: Usable series of several studies (`mixed_series`), or none at all: the
            message names each one's reason, and the code is the series' own where all share one.
        RefusedGrid: None at all, where the shared code is one of geometry or of HU.
    """
    usable: list[tuple[DicomSeries, _Merit]] = []
    out: list[NotChosen] = []
    codes: list[str] = []
    wanted = (kernel, phase, series_number)
    for series in sorted(listing.series, key=_fixed_order):
        code, reason = _against(series, wanted)
        merit = None if reason else _merit(series)
        if merit is None:
            code, reason = (code, reason) if reason else ("too_small", "one slice is no volume")
            out.append(NotChosen(series=series, reason=reason))
            codes.append(code)
        else:
            usable.append((series, merit))
    if not usable:
        raise _nothing(listing, out, codes)
    _check_one_study([series for series, _ in usable])
    height = max(m.height_mm for _, m in usable)
    field = max(m.field_mm for _, m in usable)
    scores = [_score(m, height, field) for _, m in usable]
    best = min(range(len(usable)), key=lambda i: (scores[i], i))
    for i, (series, _) in enumerate(usable):
        if i != best:
            reason = _behind(usable[i], usable[best], (scores[i], scores[best]))
            out.append(NotChosen(series=series, reason=reason))
    others = sorted(out, key=lambda other: _fixed_order(other.series))
    return Choice(series=usable[best][0], others=tuple(others))


def sharpness(kernel: str) -> int:
    """Sort a kernel's name: 0 soft, 1 unknown, 2 sharp.

    Check: B40f, Br38f, STANDARD, B, FC13 -> 0; B70f, LUNG, L, FC51 -> 2; "" -> 1.

    Source:
        Vendors' names as they appear in public CT collections; our reading.
    """
    name = kernel.upper().rstrip("+").strip()
    for pattern, limit in ((_CANON, _CANON_SHARP_FROM), (_SIEMENS, SHARP_FROM)):
        found = pattern.match(name)
        if found:
            return 2 if int(found.group(1)) >= limit else 0
    if name in _SOFT_NAMES:
        return 0
    return 2 if name in _SHARP_NAMES else 1


def _fixed_order(series: DicomSeries) -> tuple[object, ...]:
    """Sort key without regard to files: number, phase, kernel, identifier."""
    number = 1 << 31 if series.series_number is None else series.series_number
    parts = re.split(r"(\d+)", series.phase)
    phase = tuple(int(p) if p.isdigit() else 0 for p in parts)
    return (number, phase, series.kernel, series.series_uid, len(series.frames))


def _against(series: DicomSeries, wanted: tuple[str, str, int | None]) -> tuple[str, str]:
    """Give the reason code and the reason why a series cannot be taken; "" = it can."""
    kernel, phase, number = wanted
    kind = kept_out(series)
    if kind and not (kind.startswith("derived") and number == series.series_number is not None):
        return "not_ct", kind
    if number is not None and number != series.series_number:
        return "not_asked_for", f"another series number than {number}"
    if kernel and not _has_kernel(series, kernel):
        return "not_asked_for", f"another kernel than {kernel}"
    if phase and not _has_phase(series, phase):
        return "not_asked_for", f"another phase than {phase}"
    if series.damage:
        return series.damage_reason, series.damage
    return "", ""


def _has_kernel(series: DicomSeries, wanted: str) -> bool:
    """Say whether a series has the kernel asked for."""
    kinds = {"soft": 0, "sharp": 2}
    if wanted.casefold() in kinds:
        return sharpness(series.kernel) == kinds[wanted.casefold()]
    return series.kernel.casefold() == wanted.strip().casefold()


def _has_phase(series: DicomSeries, wanted: str) -> bool:
    """Say whether a series is of the phase asked for."""
    asked = wanted.strip().casefold()
    if asked in ("contrast", "plain"):
        return series.contrast == (asked == "contrast")
    return asked == series.phase.casefold() or asked in series.description.casefold()


def _merit(series: DicomSeries) -> _Merit | None:
    """Measure what a series offers; None where it has but one position."""
    layout = lay_out(series.frames)
    first = series.frames[0]
    if len(layout.slices) < 2 and len(series.frames) < 2:
        return None
    row, column = np.array(first.orientation).reshape(2, 3)
    spacing = first.pixel_spacing_mm or (0.0, 0.0)
    return _Merit(
        slices=len(layout.slices),
        even=layout.is_even and len(layout.slices) > 1,
        axial=bool(abs(np.cross(row, column)[2]) >= AXIAL_COSINE),
        original=(*series.image_type, "")[0].upper() != "DERIVED",
        height_mm=float(layout.offsets_mm[-1]) + layout.pitch_mm,
        field_mm=min(first.rows * spacing[0], first.columns * spacing[1]),
        sharpness=sharpness(series.kernel),
        pitch_mm=layout.pitch_mm,
    )


def _score(merit: _Merit, height: float, field: float) -> tuple[float, ...]:
    """Rank a series, the lowest first, by the lines of the rule."""
    covers = merit.height_mm >= COVERS * height and merit.field_mm >= COVERS * field
    return (
        merit.slices < MIN_AXIS_VOX,
        not merit.even,
        not merit.axial,
        not merit.original,
        not covers,
        merit.sharpness,
        round(merit.pitch_mm, 2),
        -merit.slices,
    )


def _behind(
    loser: tuple[DicomSeries, _Merit],
    winner: tuple[DicomSeries, _Merit],
    scores: tuple[tuple[float, ...], tuple[float, ...]],
) -> str:
    """Say on which line of the rule a usable series lost."""
    mine, best = loser[1], winner[1]
    words = (
        f"too few slices ({mine.slices}, at least {MIN_AXIS_VOX})",
        "slice gaps are uneven",
        "not axial",
        "derived, where an original is at hand",
        f"covers less: {mine.height_mm:.0f} x {mine.field_mm:.0f} mm (height x field of view), "
        f"taken {best.height_mm:.0f} x {best.field_mm:.0f}",
        f"other kernel: {loser[0].kernel or 'not named'}, taken {winner[0].kernel or 'not named'}",
        f"thicker: {mine.pitch_mm:.2f} mm apart, taken {best.pitch_mm:.2f}",
        f"fewer slices: {mine.slices}, taken {best.slices}",
    )
    for word, a, b in zip(words, *scores, strict=True):
        if a != b:
            return word
    return "equal to the one taken, later by number or phase"


def _check_one_study(usable: Sequence[DicomSeries]) -> None:
    """Refuse to choose between examinations: each has its own report."""
    studies = {(series.patient_id, series.study_uid) for series in usable}
    if len(studies) > 1:
        raise RefusedFile(
            f"usable CT series of {len(studies)} studies: "
            + "; ".join(series.label for series in usable),
            expected="the files of one study",
            fix="pass the files of one study at a time, or name the series number",
            reason="mixed_series",
        )


def _nothing(
    listing: Listing, out: Sequence[NotChosen], codes: Sequence[str]
) -> RefusedFile | RefusedGrid:
    """Make the refusal of a listing without a usable series."""
    told = [f"{one.series.label}: {one.reason}" for one in out]
    told += [f"{left.count} file(s): {left.message}" for left in listing.left_out]
    found = "no CT series can be taken: " + "; ".join(told or ["no files"])
    kinds = set(codes) or {left.reason for left in listing.left_out} or {"missing_file"}
    reason = kinds.pop() if len(kinds) == 1 else "not_ct"
    expected = "at least one CT series of two or more slices"
    fix = "see each reason; choose by kernel, phase or series number, or leave this study out"
    if reason in ("bad_affine", "mixed_series", "hu_implausible", "too_small"):
        return RefusedGrid(found, expected=expected, fix=fix, reason=reason)
    return RefusedFile(found, expected=expected, fix=fix, reason=reason)
