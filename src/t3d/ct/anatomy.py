"""Which way up a body lies, from the body itself: spine, lungs, airway, heart, liver, table.

Works on cells of about 6 mm and believes nothing of the header but the pitch. Every piece of
evidence is a signed number: positive speaks for the axes as the file claims them, negative
against. Turned about an axis, the evidence of that axis changes its sign and nothing else, so a
false alarm on an intact scan and a miss on a turned one are the same event.

Source:
    Our own rules; thresholds were set on phantoms and a few real scans (docs/howto/doctor.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import spacing_mm
from t3d.types import Volume, Zyx

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

ROUGH_MM = 6.0
WINDOW_MM = 80.0  # within so much of its length the spine is straight enough
BODY_HU = -350.0
LUNG_HU = -450.0
GAS_HU = -965.0  # a component whose darkest quarter is darker is gas, not lung
BIG_LUNG_ML = 800.0  # more than a bowel holds
MIN_LUNG_ML = 120.0  # less is the edge of a lung, or bowel gas
MIN_LUNG_CM2 = 60.0  # the same for thin stacks, times their length
MIN_BODY_CM2 = 60.0  # in the slice that shows most of it; a child's head has about 100
MIN_CUT_MM = 40.0  # a shorter contact with the end of the field is no matter
MIN_CUT_SLICES = 0.1  # share of all; a contact in fewer is no matter either
MAX_CUT_SHARE = 0.35  # more of the body's rim cut away: its surfaces say nothing
SPINE_HU = 80.0  # smoothed over 8 mm; a vertebra of an old patient has about this
SURE = 1.0  # evidence beyond this decides, ...
MAX_AGAINST = 0.5  # ... unless so much of it contradicts
FITS, FLIPPED, CANNOT_TELL = "fits", "flipped", "cannot tell"
_IN_PLANE = np.array([[[0] * 3] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0] * 3] * 3])
AXES = ("head-foot", "front-back", "left-right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """What the body says of one axis."""

    axis: str  # one of AXES
    verdict: str  # "fits", "flipped" or "cannot tell"
    score: float  # sum of the evidence; beyond SURE it decides
    evidence: Mapping[str, float]  # what was looked at -> signed strength, -2 to 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """Sizes and directions read from one body."""

    directions: tuple[Direction, Direction, Direction]  # in the order of AXES
    width_mm: float  # of the body: 95 % of slices are narrower
    depth_mm: float  # front to back
    cut: tuple[str, ...]  # sides on which the field of view ends within the body
    outlined: bool  # whether enough of the body's surface is seen
    lung_ml: float
    lung_cm2: float  # mean over all slices
    lung_height_mm: float  # from the lowest to the highest slice with lung
    lungs_whole: bool  # whether both ends of the lungs lie inside the volume
    table: str  # claimed side on which the table lies: "front", "back" or "" where none is seen


class _Piece(NamedTuple):
    """The spine in one window along z."""

    z: float  # middle of the window, in slices
    y: float  # cells
    x: float
    share: float  # where it lies in the body: 0 = claimed front, 1 = claimed back


@dataclass(slots=True)
class _Parts:
    """Masks on the rough grid, and what is known of its directions so far."""

    hu: Field  # (Z, Y, X)
    pitch: Zyx[float]
    body: Mask
    lungs: Mask
    spine: tuple[_Piece, ...]  # by window along z, those that were found
    forward: int = -1  # the way along y from the spine to the belly
    up: int = 0  # the way to the head along z; 0 = not known


def read_anatomy(cells: Volume, empty: Mask) -> Anatomy | None:
    """Find body, lungs and spine and judge the directions the file claims.

    Args:
        cells: About 3 mm, int16 HU, axes to S, P, L as the file claims.
        empty: (Y, X) of the cells: outside the scanner's field of view.

    Returns:
        Sizes and directions; None where nothing like a body was found.
    """
    hu, pitch, outside = _rough(cells, empty)
    body = _body(hu, pitch)
    if np.count_nonzero(body, axis=(1, 2)).max() * pitch.y * pitch.x < MIN_BODY_CM2 * 100:
        return None
    parts = _Parts(hu, pitch, body, _lungs(hu, body, pitch), _spine(hu, body, pitch))
    cut, cut_share = _cut(body, outside, pitch)
    outlined = cut_share < MAX_CUT_SHARE and not {"front", "back"} <= set(cut)
    low, high = _lung_slices(parts)
    width, depth = (_size(body, axis) * p for axis, p in ((2, pitch.x), (1, pitch.y)))
    return Anatomy(
        directions=_directions(parts) if outlined else _unknown(),
        width_mm=width,
        depth_mm=depth,
        cut=cut,
        outlined=outlined,
        lung_ml=float(parts.lungs.sum() * np.prod(pitch) / 1000),
        lung_cm2=float(parts.lungs.mean(axis=0).sum() * pitch.y * pitch.x / 100),
        lung_height_mm=(high - low) * pitch.z,
        lungs_whole=low > 1 and high < len(hu) - 1,
        table=_table(parts),
    )


def _directions(parts: _Parts) -> tuple[Direction, Direction, Direction]:
    """Front-back first: it says where the belly is; then head-foot; then left-right."""
    if not parts.spine:
        return _unknown()
    front = _direction(AXES[1], _front_back(parts))
    if front.score < 0:
        parts.forward = 1
    head = _direction(AXES[0], _head_foot(parts))
    if head.verdict != CANNOT_TELL:
        parts.up = 1 if head.score > 0 else -1
    return head, front, _direction(AXES[2], _left_right(parts))


def _direction(axis: str, evidence: Mapping[str, float]) -> Direction:
    """Add up the evidence."""
    score = float(sum(evidence.values()))
    verdict = CANNOT_TELL
    against = sum(abs(v) for v in evidence.values() if v * score < 0)
    if abs(score) >= SURE and against <= MAX_AGAINST:
        verdict = FITS if score > 0 else FLIPPED
    return Direction(axis=axis, verdict=verdict, score=score, evidence=evidence)


def _unknown() -> tuple[Direction, Direction, Direction]:
    """Nothing can be said of any axis."""
    head, front, left = (_direction(axis, {}) for axis in AXES)
    return head, front, left


def _size(body: Mask, axis: int) -> float:
    """Extent of the body along y or x in cells: 95 % of slices have less."""
    seen = np.asarray(body.any(axis=3 - axis))
    spans = [int(np.ptp(np.flatnonzero(row))) + 1 for row in seen if row.any()]
    return float(np.percentile(spans, 95))


def _cut(body: Mask, outside: Mask, pitch: Zyx[float]) -> tuple[tuple[str, ...], float]:
    """Sides where the body meets the end of the field, and the share of its rim that does."""
    from scipy import ndimage

    field = ~outside
    edge = field & ~ndimage.binary_erosion(field, np.ones((3, 3), bool), border_value=0)
    met = body & edge
    y, x = np.mgrid[-1 : 1 : 1j * body.shape[1], -1 : 1 : 1j * body.shape[2]]
    flat = np.abs(x) > np.abs(y)
    sides = {"right": flat & (x < 0), "left": flat & (x > 0)}
    sides |= {"front": ~flat & (y < 0), "back": ~flat & (y > 0)}
    cell_mm = (pitch.y + pitch.x) / 2
    found = []
    for name, side in sides.items():
        length_mm = (met & side).sum(axis=(1, 2)) * cell_mm
        if float((length_mm > MIN_CUT_MM).mean()) > MIN_CUT_SLICES:
            found.append(name)
    rim = body & ~ndimage.binary_erosion(body, np.ones((1, 3, 3), bool), border_value=0)
    return tuple(found), float(met.sum() / max(1, rim.sum()))


def _table(parts: _Parts) -> str:
    """The side on which something solid lies beside the body in most slices."""
    from scipy import ndimage

    beside = (parts.hu > -800) & ~ndimage.binary_dilation(parts.body, np.ones((1, 3, 3), bool))
    rows = np.arange(beside.shape[1])[:, None]
    seen = np.asarray(parts.body.any(axis=0))
    first, last = seen.argmax(axis=0), len(rows) - 1 - seen[::-1].argmax(axis=0)
    under = seen.any(axis=0)
    middle = (first + last) / 2
    mm2 = parts.pitch.y * parts.pitch.x * beside.mean(axis=0)
    front = float((mm2 * ((rows < middle) & under)).sum())
    back = float((mm2 * ((rows > middle) & under)).sum())
    if max(front, back) < 500 or max(front, back) < 3 * min(front, back):
        return ""
    return "front" if front > back else "back"


def _rough(cells: Volume, empty: Mask) -> tuple[Field, Zyx[float], Mask]:
    """Average cells to about 6 mm: HU (Z, Y, X), pitch in mm, and what lies outside the field."""
    pitch = spacing_mm(cells.world_from_voxel)
    hu = np.clip(cells.voxels, -1024, 3071).astype(np.float32)
    outside = empty
    factors = [
        max(1, min(n, int(ROUGH_MM / p + 0.2))) for n, p in zip(hu.shape, pitch, strict=True)
    ]
    for axis, f in enumerate(factors):
        hu = _averaged(hu, axis, f)
        if axis:
            outside = np.asarray(_averaged(outside, axis - 1, f) >= 0.5, dtype=np.bool_)
    return hu, Zyx(*(p * f for p, f in zip(pitch, factors, strict=True))), outside


def _averaged(array: NDArray[Any], axis: int, factor: int) -> NDArray[Any]:
    """Mean of each run of `factor` along an axis; a rest is left out."""
    n = array.shape[axis] // factor
    whole = array.take(range(n * factor), axis=axis)
    shape = (*array.shape[:axis], n, factor, *array.shape[axis + 1 :])
    return np.asarray(whole.reshape(shape).mean(axis=axis + 1))


def _body(hu: Field, pitch: Zyx[float]) -> Mask:
    """Largest solid object, its holes filled slice by slice, without thin things beside it."""
    from scipy import ndimage

    filled = _filled(hu > BODY_HU)
    size = max(1, round(15 / min(pitch.y, pitch.x)))  # a table top is thinner than 15 mm
    kept = ndimage.grey_opening(filled.astype(np.uint8), size=(1, size, size)) > 0
    label, count = ndimage.label(kept)
    if not count:
        return kept
    body: Mask = label == 1 + int(np.bincount(label.ravel())[1:].argmax())
    return body


def _filled(solid: Mask) -> Mask:
    """Fill what each plane of a body (Z, Y, X) encloses, also where its side ends the volume.

    Where the body meets a side twice, what lies between is inside: a lung that was cut open.
    """
    from scipy import ndimage

    walled = np.pad(solid, ((0, 0), (1, 1), (1, 1)))
    for at in (0, -1):
        walled[:, at, 1:-1] = _spans(solid[:, at])
        walled[:, 1:-1, at] = _spans(solid[:, :, at])
    label, _ = ndimage.label(~walled, structure=_IN_PLANE)
    rim = (label[:, 0], label[:, -1], label[:, :, 0], label[:, :, -1])
    outside = np.zeros(int(label.max()) + 1, dtype=np.bool_)
    outside[np.concatenate([side.ravel() for side in rim])] = True
    outside[0] = False  # what is solid
    return np.asarray(~outside[label][:, 1:-1, 1:-1])


def _lungs(hu: Field, filled: Mask, pitch: Zyx[float]) -> Mask:
    """Air inside the body that is lung, by size and darkness; gas in the bowel is not."""
    from scipy import ndimage

    air = filled & (hu < LUNG_HU)
    label, count = ndimage.label(air)
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    ml = sizes * float(np.prod(pitch)) / 1000
    lungs = np.zeros_like(air)
    least = min(MIN_LUNG_ML, MIN_LUNG_CM2 * len(hu) * pitch.z / 10)
    for which in np.flatnonzero(ml[1:] > least) + 1:
        component = label == which
        if ml[which] > BIG_LUNG_ML or np.percentile(hu[component], 25) > GAS_HU:
            lungs |= component
    return lungs


def _spine(hu: Field, body: Mask, pitch: Zyx[float]) -> tuple[_Piece, ...]:
    """Find the column that is bright in most slices, window by window along z."""
    from scipy import ndimage

    bright = np.where(body, np.clip(hu, 0, 300), 0)
    smooth = ndimage.gaussian_filter(bright, (0, 8 / pitch.y, 8 / pitch.x))
    near = ndimage.maximum_filter(smooth, size=(1, 3, 3))  # the spine bends
    count = max(1, round(len(hu) * pitch.z / WINDOW_MM))
    columns = np.arange(hu.shape[2])
    found, z = [], 0
    for part, inside in zip(np.array_split(near, count), np.array_split(body, count), strict=True):
        z += len(part)
        wide = np.flatnonzero(inside.any(axis=(0, 1)))
        rows = np.flatnonzero(inside.mean(axis=(0, 2)) > 0.02)
        if len(wide) < 5 or len(rows) < 5:
            continue
        lasting = np.percentile(part, 25, axis=0)
        middle, half = (wide[0] + wide[-1]) / 2, (wide[-1] - wide[0]) / 2
        lasting[:, np.abs(columns - middle) > 0.3 * half] = 0
        if lasting.max() >= SPINE_HU:
            ys, xs = np.nonzero(lasting > 0.97 * lasting.max())
            y = float(ys.mean())
            share = float((y - rows[0]) / (rows[-1] - rows[0]))
            found.append(_Piece(z - len(part) / 2, y, float(xs.mean()), share))
    return tuple(found)


def _front_back(parts: _Parts) -> dict[str, float]:
    """Evidence along y: where the spine lies between the two surfaces of the body."""
    return {"spine": _held((float(np.median([p.share for p in parts.spine])) - 0.5) / 0.06)}


def _held(value: float) -> float:
    """No single piece of evidence counts for more than 2."""
    return float(np.clip(value, -2.0, 2.0))


def _log_ratio(a: float, b: float) -> float:
    """log2 of a ratio of areas or counts, held."""
    return _held(float(np.log2((a + 1) / (b + 1))))


def _lung_slices(parts: _Parts) -> tuple[int, int]:
    """First slice with more than 15 cm2 of lung, and one past the last; (0, 0) = too few."""
    area = parts.lungs.sum(axis=(1, 2)) * parts.pitch.y * parts.pitch.x
    held = np.flatnonzero(area > 1500)
    if (len(held) - 1) * parts.pitch.z < 60:
        return 0, 0
    return int(held[0]), int(held[-1]) + 1


def _head_foot(parts: _Parts) -> dict[str, float]:
    """Evidence along z, from the lungs, what lies between and beyond them, and the pelvis."""
    told: dict[str, float] = {}
    low, high = _lung_slices(parts)
    depth = len(parts.lungs)
    if high:
        lungs = parts.lungs[low:high]
        filled = np.stack([_spans(plane) for plane in lungs])
        cage = filled.sum(axis=(1, 2)).astype(float)
        between = (filled & ~lungs).sum(axis=(1, 2)).astype(float)
        fifth, third = max(1, len(cage) // 5), max(1, len(cage) // 3)
        inside = (low > 1, high < depth - 1)
        if all(inside):
            told["lungs narrow towards the apex"] = _log_ratio(
                cage[:fifth].mean(), cage[-fifth:].mean()
            )
            told["heart and liver between the lungs"] = _log_ratio(
                between[:third].mean(), between[-third:].mean()
            )
        elif any(inside):
            told["what lies beyond the lungs"] = _beyond(parts, low, high)
        told["windpipe"] = _windpipe(parts, low, high)
    else:
        told["pelvis"] = _pelvis(parts)
    return told


def _spans(plane: Mask) -> Mask:
    """Fill each row from its first to its last true cell."""
    ahead = np.maximum.accumulate(plane, axis=1)
    behind = np.maximum.accumulate(plane[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(ahead & behind, dtype=np.bool_)


def _beyond(parts: _Parts, low: int, high: int) -> float:
    """Lung at one end of the scan only: is the other end a wide belly or a narrow neck?"""
    width = parts.body.any(axis=1).sum(axis=1) * parts.pitch.x
    below = low > 1
    rest = width[:low] if below else width[high:]
    at_lung = float(width[low:high].mean())
    if len(rest) * parts.pitch.z < 50 or not at_lung:
        return 0.0
    share = float(np.median(rest)) / at_lung
    return _held((share - 0.75) / 0.1) * (1.0 if below else -1.0)


def _pelvis(parts: _Parts) -> float:
    """No lungs, a long scan: the end with far more bone in a wide body is the lower one."""
    depth = len(parts.body)
    if depth * parts.pitch.z < 250:
        return 0.0
    fifth = max(1, depth // 5)
    bone = (parts.body & (parts.hu > 180)).sum(axis=(1, 2)) + 20.0
    width = parts.body.any(axis=1).sum(axis=1) * parts.pitch.x
    ratio = _log_ratio(bone[:fifth].mean(), bone[-fifth:].mean())
    end = width[:fifth] if ratio > 0 else width[-fifth:]
    return ratio if float(np.median(end)) > 260 else 0.0  # a head has much bone, and is narrow


def _spine_at(parts: _Parts) -> NDArray[np.float64]:
    """Middle of the spine in each slice: y, x in cells (Z, 2), straight between windows."""
    z = np.arange(len(parts.body)) + 0.5
    at = [piece.z for piece in parts.spine]
    y, x = [piece.y for piece in parts.spine], [piece.x for piece in parts.spine]
    return np.stack([np.interp(z, at, y), np.interp(z, at, x)], axis=1)


def _windpipe(parts: _Parts, low: int, high: int) -> float:
    """Follow a spot of air before the spine inwards from each end of the lungs.

    Gas in a hiatal hernia is such a spot too, but does not reach the lungs' end.
    """
    spine = _spine_at(parts)
    spots = [_spots(parts, k, spine[k]) for k in range(low, high)]
    inwards = (spots[::-1], spots)
    gap = max(1, round(20 / parts.pitch.z))
    lengths = [max(_followed(s, gap), _followed(s[1:], gap)) * parts.pitch.z for s in inwards]
    # Never enough to decide alone: such gas can end a scan that begins in the middle of the chest.
    return float(np.clip((lengths[0] - lengths[1]) / 60, -0.9, 0.9))


def _spots(parts: _Parts, k: int, spine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres (N, 2) in mm from the spine of all air of 0.5 to 8 cm2 that lies before it."""
    from scipy import ndimage

    label, count = ndimage.label(parts.body[k] & (parts.hu[k] < -400))
    mm2 = np.bincount(label.ravel(), minlength=count + 1) * parts.pitch.y * parts.pitch.x
    some = [n for n in range(1, count + 1) if 50 < mm2[n] < 800]
    if not some:
        return np.zeros((0, 2))
    at = np.array(ndimage.center_of_mass(label > 0, label, some)) - spine
    at *= (parts.pitch.y * parts.forward, parts.pitch.x)
    near = (at[:, 0] > 10) & (at[:, 0] < 110) & (np.abs(at[:, 1]) < 30)
    return np.asarray(at[near])


def _followed(spots: list[NDArray[np.float64]], bridged: int) -> int:
    """In how many slices from the first on one spot is seen; gaps of a few are bridged."""
    best = 0
    for start in spots[0] if spots else ():
        at, length = start, 1
        for k, others in enumerate(spots[1:], start=2):
            apart = np.linalg.norm(others - at, axis=1)
            if len(others) and apart.min() < 15:
                at, length = others[apart.argmin()], k
            elif k - length > bridged:
                break
        best = max(best, length)
    return best


def _left_right(parts: _Parts) -> dict[str, float]:
    """Evidence along x: liver and heart.

    Lung sizes, the aorta beside the spine and the arch were tried and left out: on real scans
    with disease they were wrong as often as right.
    """
    spine = _spine_at(parts)
    _, y, x = np.ogrid[: len(parts.body), : parts.body.shape[1], : parts.body.shape[2]]
    dx = (x - spine[:, 1, None, None]) * parts.pitch.x  # > 0 towards the claimed left
    dy = (y - spine[:, 0, None, None]) * parts.pitch.y * parts.forward  # > 0 towards the belly
    told: dict[str, float] = {}
    low, high = _lung_slices(parts)
    if high:
        told["heart"] = _heart(parts, dx, dy, low, high)
    if parts.up or not high:
        told["liver"] = _liver(parts, dx, dy, low, high)
    return told


def _heart(parts: _Parts, dx: Floats, dy: Floats, low: int, high: int) -> float:
    """Where the soft tissue between the lungs lies, in the lower half of the lungs."""
    a, b = (round(share * (high - low)) for share in (0.15, 0.5))
    part = slice(low, high)
    if parts.up:
        part = slice(low + a, low + b) if parts.up > 0 else slice(high - b, high - a)
    lungs = parts.lungs[part]
    between = np.stack([_spans(plane) for plane in lungs]) & ~lungs & (parts.hu[part] > -50)
    heart = between & (dy[part] > 35) & (np.abs(dx[part]) < 110)
    if heart.sum() * float(np.prod(parts.pitch)) < 50_000:
        return 0.0
    shift_mm = float((heart * dx[part]).sum() / heart.sum())
    return float(np.clip(shift_mm / 16, -0.75, 0.75))  # a tumour beside it shifts it as much


def _liver(parts: _Parts, dx: Floats, dy: Floats, low: int, high: int) -> float:
    """Solid organ on the right, fat and gas on the left, in the slices at and below the dome."""
    from scipy import ndimage

    depth = len(parts.body)
    reach, into = round(90 / parts.pitch.z), round(25 / parts.pitch.z)
    if not high:  # no lungs: count from the upper end of the scan, where that is known
        low = high = depth if parts.up > 0 else 0
    zone = slice(max(0, low - reach), low + into)
    if parts.up < 0:
        zone = slice(max(0, high - into), high + reach)
    elif not parts.up:
        zone = slice(0, depth)
    rim = max(1, round(25 / parts.pitch.x))
    size = (1, 2 * rim + 1, 2 * rim + 1)
    body = parts.body[zone].astype(np.uint8)
    inner = ndimage.minimum_filter(body, size=size, mode="constant") > 0
    inner &= ~parts.lungs[zone] & (dy[zone] > -20)
    hu = np.clip(parts.hu[zone], -150, 150)
    right, left = inner & (dx[zone] < -20), inner & (dx[zone] > 20)
    if min(right.sum(), left.sum()) * float(np.prod(parts.pitch)) < 100_000:
        return 0.0
    return _held(float(hu[right].mean() - hu[left].mean()) / 25)
