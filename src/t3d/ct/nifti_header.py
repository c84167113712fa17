"""What a NIfTI header says, checked before it is believed; numpy parses, we judge.

One place knows that files are RAS (i, j, k) while everything else here is LPS (z, y, x). What
was read otherwise than the header says is told in `notes`, which end up in `Volume.steps`.

A header is read as one numpy record: importing nibabel's header classes brings pydicom with all
its decoders where that is installed, 50 MB and half a second in every worker. The tests hold
fields, types and matrices against nibabel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import Matrix, check_matrix, nearest_axes, reverse_axes, same_grid
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.intensity import Rescale
from t3d.ct.limits import MAX_INTERCEPT, MAX_SLOPE, MAX_VOXEL_OFFSET_BYTES
from t3d.types import HeaderOverride

# The fields that are read, with type and first byte: nifti1.h and nifti2.h of the standard.
_FIELDS: dict[int, dict[str, tuple[str, int, int]]] = {  # by sizeof_hdr: type, how many, where
    348: {
        "dim": ("i2", 8, 40),
        "intent_code": ("i2", 1, 68),
        "datatype": ("i2", 1, 70),
        "bitpix": ("i2", 1, 72),
        "pixdim": ("f4", 8, 76),
        "vox_offset": ("f4", 1, 108),
        "scl_slope": ("f4", 1, 112),
        "scl_inter": ("f4", 1, 116),
        "xyzt_units": ("u1", 1, 123),
        "qform_code": ("i2", 1, 252),
        "sform_code": ("i2", 1, 254),
        "quatern": ("f4", 3, 256),
        "qoffset": ("f4", 3, 268),
        "srow": ("f4", 12, 280),
        "magic": ("S4", 1, 344),
    },
    540: {
        "magic": ("S4", 1, 4),
        "datatype": ("i2", 1, 12),
        "bitpix": ("i2", 1, 14),
        "dim": ("i8", 8, 16),
        "pixdim": ("f8", 8, 104),
        "vox_offset": ("i8", 1, 168),
        "scl_slope": ("f8", 1, 176),
        "scl_inter": ("f8", 1, 184),
        "qform_code": ("i4", 1, 344),
        "sform_code": ("i4", 1, 348),
        "quatern": ("f8", 3, 352),
        "qoffset": ("f8", 3, 376),
        "srow": ("f8", 12, 400),
        "xyzt_units": ("i4", 1, 500),
        "intent_code": ("i4", 1, 504),
    },
}
_MAGIC = {348: (b"n+1", b"ni1"), 540: (b"n+2", b"ni2")}  # voxels behind it, voxels apart
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_DTYPES |= {1024: "i8", 1280: "u8"}
_NO_DENSITY = {
    0: "of no stated type",
    1: "single bits",
    32: "complex numbers",
    128: "colours (RGB)",
    1536: "floats of 16 bytes",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colours (RGBA)",
}
_LABEL_INTENTS = (1002, 1003)
# What the standard's intent codes say a file is instead of densities; others say nothing.
_INTENTS = (
    (2, 24, "a statistical map", "hu_implausible"),
    (1002, 1003, "a label map", "hu_implausible"),
    (1004, 1010, "a matrix or vector field", "hu_implausible"),
    (2001, 2001, "a time series", "not_3d"),
    (2002, 2005, "a surface or colours", "hu_implausible"),
    (3000, 3099, "a CIFTI matrix", "not_3d"),
)
_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
_SAME_PLACE_MM = 1.0  # sform and qform further apart than this are told


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiHeader:
    """What a checked header says."""

    shape_kji: tuple[int, int, int]  # slowest axis first
    dtype: np.dtype[Any]  # with the file's byte order
    offset_bytes: int  # where the voxels begin, in the file that holds them
    detached: bool  # the voxels lie in a second file
    rescale: Rescale
    world_from_file: Matrix  # (4, 4), (k, j, i, 1) to LPS mm
    notes: tuple[str, ...] = ()  # what was not taken at its word

    @property
    def plane_bytes(self) -> int:
        """Bytes of one slice along the slowest axis."""
        return self.shape_kji[1] * self.shape_kji[2] * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of all voxels."""
        return self.plane_bytes * self.shape_kji[0]


def header_bytes(start: bytes) -> int:
    """Say how long header and extension flag are: 352, or 544 where NIfTI-2 says so."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    return 544 if 540 in sizes else 352


def read_header(
    start: bytes, *, name: str, override: HeaderOverride | None = None, labels: bool = False
) -> NiftiHeader:
    """Check the first bytes of a decompressed file.

    Args:
        start: At least 348 (NIfTI-1) or 540 (NIfTI-2) bytes.
        name: Names the file in messages.
        override: What a table says where the header lies.
        labels: The file is meant as a label map: the intent code may say so.

    Raises:
        RefusedFile: No NIfTI header.
        RefusedGrid: Shape, type, scale or geometry that is no CT volume.
    """
    header, detached = _parsed(start, name)
    _check_intent(int(header["intent_code"]), name, labels=labels)
    shape = _shape(np.asarray(header["dim"]).tolist(), name)
    dtype, notes = _dtype(header, name)
    i, j, k = shape
    affine, place_notes = _affine(header, override, (k, j, i), name)
    world = reverse_axes(affine)
    check_matrix(world, what=name)
    rescale, scale_notes = _rescale(header, override, name)
    return NiftiHeader(
        shape_kji=(k, j, i),
        dtype=dtype,
        offset_bytes=_offset(header, name, detached=detached),
        detached=detached,
        rescale=rescale,
        world_from_file=world,
        notes=(*notes, *place_notes, *scale_notes),
    )


def _parsed(start: bytes, name: str) -> tuple[Any, bool]:
    """Find version and byte order from `sizeof_hdr`; parse, and say whether voxels lie apart."""
    for sign, order in (("<", "little"), (">", "big")):
        size = int.from_bytes(start[:4], cast(Any, order))
        if size not in _FIELDS or len(start) < size:
            continue
        header: Any = np.frombuffer(start[:size], dtype=_record(size, sign))[0]
        if header["magic"] in _MAGIC[size]:
            return header, header["magic"] == _MAGIC[size][1]
    raise RefusedFile(
        f"{name}: no NIfTI header",
        expected="sizeof_hdr 348 or 540 and the magic word n+1, n+2, ni1 or ni2",
        fix="check what was downloaded: an error page or a pointer file looks like this",
    )


def _record(size: int, sign: str) -> np.dtype[Any]:
    """The layout of a header of that size in one byte order."""
    fields = _FIELDS[size]
    formats = [(sign + kind, (count,) if count > 1 else ()) for kind, count, _ in fields.values()]
    return np.dtype(
        {
            "names": list(fields),
            "formats": formats,
            "offsets": [place for _, _, place in fields.values()],
            "itemsize": size,
        }
    )


def _check_intent(code: int, name: str, *, labels: bool) -> None:
    """Refuse what the header itself says is no density."""
    for low, high, what, reason in _INTENTS:
        if low <= code <= high and not (labels and code in _LABEL_INTENTS):
            raise RefusedGrid(
                f"{name}: the intent code {code} says {what}",
                expected="label map" if labels else "one CT volume (intent code 0)",
                fix="give the CT itself, or set the code to 0 if these are HU after all",
                reason=reason,
            )


def _shape(dim: list[int], name: str) -> tuple[int, int, int]:
    """Read (i, j, k); more axes are allowed where each has one entry."""
    count = dim[0]
    sizes = dim[1 : count + 1] if 1 <= count <= 7 else []
    if len(sizes) < 3 or min(sizes[:3]) < 1 or any(n != 1 for n in sizes[3:]):
        raise RefusedGrid(
            f"{name}: dim = {dim[: max(1, min(count, 7) + 1)]}",
            expected="three axes, each at least 1; further axes of length 1",
            fix="split a time series into volumes, or leave this file out",
            reason="not_3d",
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Any, name: str) -> tuple[np.dtype[Any], tuple[str, ...]]:
    """Read the voxel type: integers and floats up to 8 bytes."""
    code = int(header["datatype"])
    if code not in _DTYPES:
        what = _NO_DENSITY.get(code, "of a type that is not in the standard")
        raise RefusedGrid(
            f"{name}: voxels are {what} (datatype code {code})",
            expected="one integer or float per voxel (int8 to float64)",
            fix="leave this file out: colours and complex numbers are no densities"
            if code in _NO_DENSITY
            else "export the file again",
            reason="unreadable",
        )
    dtype = np.dtype(_DTYPES[code]).newbyteorder(header.dtype["dim"].base.byteorder)
    bits = int(header["bitpix"])
    if bits != 8 * dtype.itemsize:
        return dtype, (f"bitpix says {bits}, the datatype {8 * dtype.itemsize}",)
    return dtype, ()


def _offset(header: Any, name: str, *, detached: bool) -> int:
    """Read where the voxels begin; 0 means right after header and extension flag."""
    first = 0 if detached else header.dtype.itemsize + 4
    told = float(header["vox_offset"])  # 0 means: right behind the header
    if not np.isfinite(told) or not 0 <= told <= MAX_VOXEL_OFFSET_BYTES:
        raise RefusedFile(
            f"{name}: voxels are said to begin at byte {told:g}",
            expected=f"{first} or a little more",
            fix="copy or download the file again",
        )
    return max(first, int(told))


def _rescale(
    header: Any, override: HeaderOverride | None, name: str
) -> tuple[Rescale, tuple[str, ...]]:
    """Read slope and intercept; slope 0 or not-a-number means none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    notes: tuple[str, ...] = ()
    if slope == 0.0 or np.isnan(slope):
        if np.isnan(slope) or intercept not in (0.0, 1.0):
            notes = (f"slope {slope:g} with intercept {intercept:g} taken for not scaled",)
        slope, intercept = 1.0, 0.0
    if override is not None:
        slope = slope if override.slope is None else override.slope
        intercept = intercept if override.intercept is None else override.intercept
    if not 0.0 < slope <= MAX_SLOPE or not abs(intercept) <= MAX_INTERCEPT:
        raise RefusedGrid(
            f"{name}: slope {slope:g}, intercept {intercept:g}",
            expected=f"slope above 0 and at most {MAX_SLOPE:g}, intercept within "
            f"{MAX_INTERCEPT:g} of 0",
            fix="state slope and intercept through a HeaderOverride",
            reason="hu_implausible",
        )
    return Rescale(slope, intercept), notes


def _affine(
    header: Any, override: HeaderOverride | None, shape_kji: tuple[int, int, int], name: str
) -> tuple[Matrix, tuple[str, ...]]:
    """Read the affine (i, j, k, 1) to RAS mm: override, else sform, else qform."""
    told = override is not None and (override.affine is not None or override.spacing_mm is not None)
    unit, factor = _UNITS.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    notes: tuple[str, ...] = ()
    if override is not None and override.affine is not None:
        affine = np.array(override.affine, dtype=np.float64)
    else:
        affine, notes = _own_affine(header, shape_kji, 1.0 if told else factor, name)
    if override is not None and override.spacing_mm is not None:
        affine = _respaced(affine, override, name)
    if factor != 1.0 and not told:
        affine = affine.copy()
        affine[:3] *= factor
        notes = (*notes, f"lengths are in {unit}, taken to mm")
    return affine, notes


def _own_affine(
    header: Any, shape_kji: tuple[int, int, int], factor: float, name: str
) -> tuple[Matrix, tuple[str, ...]]:
    """Choose between the header's two matrices, and say where they contradict each other.

    The sform wins, as in every tool. One that was never filled in (zeros) or has collapsed into
    a plane gives way to a whole qform; one with infinities or not-a-numbers does not, because
    such a header was damaged and its other fields are no better known.
    """
    quatern = _qform(header) if int(header["qform_code"]) > 0 else None
    if int(header["sform_code"]) > 0:
        affine = _ijk_matrix(header["srow"].reshape(3, 4))
        if not np.isfinite(affine).all() or _spans(affine) or quatern is None:
            return affine, _contradictions(header, affine, quatern, (shape_kji, factor))
        return quatern, ("the sform spans no space, the qform is used",)
    if quatern is None and int(header["qform_code"]) > 0:
        raise RefusedGrid(
            f"{name}: the quaternion or pixdim of the header gives no axes",
            expected="an sform or a valid qform",
            fix="state the affine through a HeaderOverride",
        )
    if quatern is None:
        raise RefusedGrid(
            f"{name}: the header gives no place in space (sform and qform codes are 0)",
            expected="an sform or a qform; pixdim alone does not say which side is left",
            fix="state the affine through a HeaderOverride",
        )
    negative = [f"{v:g}" for v in _pixdim(header) if v < 0]
    if negative:
        return quatern, (f"pixdim {' '.join(negative)} taken for its absolute value",)
    return quatern, ()


def _pixdim(header: Any) -> list[float]:
    """The pitch of i, j, k as `pixdim` says."""
    return [float(v) for v in header["pixdim"][1:4]]


def _ijk_matrix(rows: NDArray[Any]) -> Matrix:
    """Put (3, 4) rows on top of (0, 0, 0, 1); what no float32 holds is no length."""
    with np.errstate(invalid="ignore"):  # a signalling not-a-number
        held = rows.astype(np.float64)
    held[np.abs(held) > np.finfo(np.float32).max] = np.inf
    return np.concatenate([held, [[0.0, 0.0, 0.0, 1.0]]])


def _qform(header: Any) -> Matrix | None:
    """Read the qform; None where quaternion or pixdim give no axes.

    Formula: method 2 of the standard. The sign of a pixdim means nothing there; only that of
    `pixdim[0]` mirrors, and 0 counts as 1.
    Check: quaternion (0, 0, 1), pixdim 2, 3, 4 -> axes (-2, 0, 0), (0, -3, 0), (0, 0, 4).
    """
    b, c, d = (float(v) for v in header["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    pitch = np.abs(np.array(_pixdim(header)))
    if not rest > -1e-3 or not np.isfinite(pitch).all():
        return None
    a = max(rest, 0.0) ** 0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    ) / (a * a + b * b + c * c + d * d)
    pitch[2] *= -1.0 if header["pixdim"][0] < 0 else 1.0
    offset = np.asarray(header["qoffset"], dtype=np.float64)[:, None]
    affine = _ijk_matrix(np.concatenate([rotation * pitch, offset], axis=1))
    return affine if np.isfinite(affine).all() and _spans(affine) else None


def _spans(affine: Matrix) -> bool:
    """Say whether three finite axes have lengths and do not lie in one plane."""
    try:
        check_matrix(reverse_axes(affine), what="")
    except RefusedGrid:
        # A pitch or an origin beyond all bounds is a number that was filled in: another error.
        norms = np.linalg.norm(affine[:3, :3], axis=0)
        return bool(norms.min() > 0 and abs(np.linalg.det(affine[:3, :3] / norms)) >= 0.1)
    return True


def _contradictions(
    header: Any,
    affine: Matrix,
    quatern: Matrix | None,
    grid: tuple[tuple[int, int, int], float],
) -> tuple[str, ...]:
    """Say where pixdim or qform place the voxels elsewhere than the sform that is used."""
    shape, factor = grid
    if not np.isfinite(affine).all():
        return ()
    found = np.linalg.norm(affine[:3, :3], axis=0)
    pixdim = _pixdim(header)
    notes: list[str] = []
    if not np.allclose(pixdim, found, rtol=1e-2):
        told, used = (" x ".join(f"{v * factor:.4g}" for v in pair) for pair in (pixdim, found))
        notes.append(f"pixdim says {told} mm, the sform {used} mm is used")
    elif quatern is not None and not same_grid(
        reverse_axes(affine), reverse_axes(quatern), shape, tolerance_mm=_SAME_PLACE_MM / factor
    ):
        notes.append("the qform places the voxels elsewhere, the sform is used")
    return tuple(notes)


def _respaced(affine: Matrix, override: HeaderOverride, name: str) -> Matrix:
    """Keep directions and origin, replace the pitch of each axis."""
    check_matrix(affine, what=name)
    orientation, _ = nearest_axes(reverse_axes(affine))
    out = affine.copy()
    for axis, pitch in zip(orientation.axes, override.spacing_mm or (), strict=True):
        column = 2 - axis  # (k, j, i) to (i, j, k)
        out[:3, column] *= pitch / np.linalg.norm(affine[:3, column])
    return out
