"""Files to series: what lies in a folder, grouped so that each group has one geometry.

A series identifier promises one geometry and does not always keep it: scouts, two kernels, two
fields of view or two phases may share one. Such parts become series of their own. Where a part is
too small to be a reconstruction, it is a stray slice, and the whole series is refused: the slice
it should have been is missing from the rest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from t3d.ct.dicom.headers import Frame, Header, read_header
from t3d.ct.guard import RefusedFile
from t3d.ct.limits import MIN_AXIS_VOX

SAME_DIRECTION = 1e-4  # of a unit vector: 0.05 mm over 500 mm
SAME_POSITION_MM = 0.01
_CT_CLASSES = (  # CT, enhanced CT, legacy converted enhanced CT; "" = left out by a de-identifier
    "",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DERIVED = "derived from other images"
_NOT_CT = {  # what lies beside a CT, said in words
    "SEG": "a segmentation",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTPLAN": "a radiotherapy plan",
    "RTDOSE": "a radiotherapy dose",
    "SR": "a structured report (a dose report, measurements)",
    "PR": "a presentation state",
    "KO": "a key object note",
    "REG": "a registration",
}
_TYPE_WORDS = {  # in the image type, from the third value on
    "LOCALIZER": "a localizer",
    "SCOUT": "a localizer",
    "DOSE_INFO": "a dose report",
    "SCREEN SAVE": "a screen shot",
    "MIP": "a projection",
    "MINIP": "a projection",
    "MAX_IP": "a projection",
    "MIN_IP": "a projection",
    "PERFUSION": "a perfusion map",
    "SUBTRACTION": "a subtraction",
    "CT_SOM5 PROT": "a protocol page",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSeries:
    """One series of one geometry. Identifiers never leave by repr."""

    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    accession: str = field(repr=False)
    description: str = field(repr=False)
    series_number: int | None
    kernel: str
    manufacturer: str
    modality: str
    sop_class: str = field(repr=False)
    image_type: tuple[str, ...]
    contrast: bool  # a contrast agent is named
    phase: str  # "acquisition 2", "time 3" where one identifier covers several; else ""
    damage: str  # why the whole series cannot be trusted; "" = it can
    damage_reason: str  # its reason code
    frames: tuple[Frame, ...] = field(repr=False)

    @property
    def label(self) -> str:
        """Name the series in messages without an identifier."""
        number = "without number" if self.series_number is None else str(self.series_number)
        told = [f"series {number}", *(w for w in (self.kernel, self.phase) if w)]
        return f"{' '.join(told)} ({len(self.frames)} slices)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Files that belong to no series, by reason."""

    count: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a set of files holds."""

    series: tuple[DicomSeries, ...]
    left_out: tuple[LeftOut, ...]


def list_series(files: Iterable[Path]) -> Listing:
    """Read the headers of all files and group them into series of one geometry.

    Args:
        files: Plain files in any order, junk among them.

    Returns:
        Series in a fixed order that depends on their content only, and what was left out.

    Raises:
        RefusedFile: pydicom is not installed.
    """
    by_uid: dict[str, list[tuple[Header, Frame]]] = defaultdict(list)
    left: Counter[tuple[str, str]] = Counter()
    for file in sorted(set(files)):
        try:
            header = read_header(Path(file))
        except RefusedFile as refusal:
            if refusal.reason == "missing_extra":
                raise
            left[(refusal.reason, refusal.found)] += 1
            continue
        if not header.series_uid:
            left[("unreadable", "a file names neither its series nor its frame of reference")] += 1
            continue
        by_uid[header.series_uid].extend((header, frame) for frame in header.frames)
    series = [one for uid in sorted(by_uid) for one in _split(by_uid[uid])]
    left_out = [
        LeftOut(count=n, reason=reason, message=message)
        for (reason, message), n in sorted(left.items())
    ]
    return Listing(series=tuple(series), left_out=tuple(left_out))


def kept_out(series: DicomSeries) -> str:
    """Say why a series is no stack of CT slices by what it claims to be; "" = it may be one."""
    if series.modality != "CT":
        told = series.modality or "no modality"
        return _NOT_CT.get(series.modality, f"not CT ({told})")
    if series.sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture"
    if series.sop_class not in _CT_CLASSES:
        return "no CT image by its class"
    for value in series.image_type[2:]:
        if value.upper() in _TYPE_WORDS:
            return _TYPE_WORDS[value.upper()]
    first, second, third = (*(v.upper() for v in series.image_type), "", "", "")[:3]
    if first == "DERIVED" and (second, third) not in (("PRIMARY", "AXIAL"), ("PRIMARY", "VOLUME")):
        return DERIVED
    return ""


def directions(frame: Frame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Give the unit vectors along a row and along a column, (3,) each."""
    row, column = np.array(frame.orientation, dtype=np.float64).reshape(2, 3)
    return row / np.linalg.norm(row), column / np.linalg.norm(column)


def _split(pairs: Sequence[tuple[Header, Frame]]) -> list[DicomSeries]:
    """Part the frames under one identifier into series of one geometry each."""
    ordered = sorted(pairs, key=lambda pair: _order(pair[1]))
    parts: dict[tuple[Any, ...], list[tuple[Header, Frame]]] = defaultdict(list)
    seen: list[tuple[Any, ...]] = []
    for header, frame in ordered:
        parts[_key(header, frame, seen)].append((header, frame))
    groups = [_by_time(part) for part in parts.values()]
    series = [_series(part, phase) for group in groups for phase, part in group]
    damage = _damage(series, list(parts), ordered)
    return [_with_damage(one, damage) for one in series]


def _order(frame: Frame) -> tuple[Any, ...]:
    """Sort key that depends on content first and on the file's name last."""
    place = frame.position_mm or (-np.inf,) * 3
    numbers = (frame.instance, frame.acquisition, frame.temporal)
    return (place[::-1], *(-1 if n is None else n for n in numbers), frame.index, frame.file)


def _key(header: Header, frame: Frame, seen: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Say what makes one geometry; close numbers fall together with the first one seen."""
    exact = (
        (header.modality, *(v.upper() for v in frame.image_type[:3])),
        frame.kernel,
        (frame.rows, frame.columns),
    )
    key = (*exact, frame.pixel_spacing_mm, frame.orientation)
    for other in seen:
        same = other[:3] == exact and all(
            _close(a, b) for a, b in zip(other[3:], key[3:], strict=True)
        )
        if same:
            return other
    seen.append(key)
    return key


def _close(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    """Say whether two spacings or two orientations are the same."""
    if a is None or b is None:
        return a is b
    return all(abs(x - y) <= SAME_DIRECTION for x, y in zip(a, b, strict=True))


def _by_time(
    part: list[tuple[Header, Frame]],
) -> list[tuple[str, list[tuple[Header, Frame]]]]:
    """Part a group whose positions repeat, where time or acquisition explains the repeats.

    Only where half of all positions are taken more than once: neighbouring acquisitions often
    share a slice, and are one volume for all that.
    """
    places = Counter(_place(frame) for _, frame in part)
    if 2 * sum(n > 1 for n in places.values()) < len(places) or len(places) < MIN_AXIS_VOX:
        return [("", part)]
    ways: tuple[tuple[str, Callable[[Frame], int | None]], ...] = (
        ("time", lambda frame: frame.temporal),
        ("acquisition", lambda frame: frame.acquisition),
    )
    for word, number in ways:
        groups: dict[int, list[tuple[Header, Frame]]] = defaultdict(list)
        for header, frame in part:
            groups[-1 if number(frame) is None else int(number(frame) or 0)].append((header, frame))
        full = sum(len(group) >= MIN_AXIS_VOX for group in groups.values())
        alone = all(
            len({_place(frame) for _, frame in group}) == len(group) for group in groups.values()
        )
        if full > 1 and alone:
            return [(f"{word} {n}", groups[n]) for n in sorted(groups)]
    return [("", part)]


def _place(frame: Frame) -> tuple[int, ...] | None:
    """Round a position so that equal ones are equal."""
    if frame.position_mm is None:
        return None
    return tuple(round(v / SAME_POSITION_MM) for v in frame.position_mm)


def _series(part: Sequence[tuple[Header, Frame]], phase: str) -> DicomSeries:
    """Make a series of one part; facts are those of its first frame."""
    header, first = part[0]
    return DicomSeries(
        patient_id=header.patient_id,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        accession=header.accession,
        description=header.description,
        series_number=header.series_number,
        kernel=first.kernel,
        manufacturer=header.manufacturer,
        modality=header.modality,
        sop_class=header.sop_class,
        image_type=first.image_type,
        contrast=header.contrast,
        phase=phase,
        damage="",
        damage_reason="",
        frames=tuple(frame for _, frame in part),
    )


def _damage(
    series: Sequence[DicomSeries], keys: Sequence[tuple[Any, ...]], pairs: Sequence[Any]
) -> str:
    """Say why nothing under this identifier can be trusted; "" = all is well."""
    for word, count in (
        ("patients", len({header.patient_id for header, _ in pairs})),
        ("studies", len({header.study_uid for header, _ in pairs})),
    ):
        if count > 1:
            return f"one series identifier covers {count} {word}"
    # A scout or a dose page under the same identifier is explained by what it claims to be.
    stacks = [one for one in series if not kept_out(one)]
    sizes = sorted((len(one.frames) for one in stacks), reverse=True)
    if len(sizes) < 2 or sizes[-1] >= MIN_AXIS_VOX or all(one.phase for one in stacks):
        return ""
    names = ("image type", "kernel", "rows x columns", "pixel spacing", "orientation")
    differ = [name for i, name in enumerate(names) if len({repr(key[i]) for key in keys}) > 1]
    parts = " and ".join(map(str, sizes))
    return f"{parts} slices under one series identifier differ in {', '.join(differ)}"


def _with_damage(series: DicomSeries, damage: str) -> DicomSeries:
    """Give the series its damage: that of its identifier, or the problem of its frames."""
    if damage:
        return replace(series, damage=damage, damage_reason="mixed_series")
    told = Counter((frame.problem, frame.reason) for frame in series.frames if frame.problem)
    if not told:
        return series
    (problem, reason), count = told.most_common(1)[0]
    found = f"{problem} in {count} of {len(series.frames)} slices"
    return replace(series, damage=found, damage_reason=reason)
