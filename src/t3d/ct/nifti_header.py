"""What a NIfTI header says, checked before it is believed; nibabel parses, we judge.

One place knows that files are RAS (i, j, k) while everything else here is LPS (z, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from t3d.ct.geometry import Matrix, check_matrix, nearest_axes, reverse_axes
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.intensity import Rescale
from t3d.types import HeaderOverride

_DTYPES = "iuf"  # integers and floats; RGB and complex are no densities
_MAX_SLOPE = 1000.0  # real files: 1 to 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiHeader:
    """What a checked header says."""

    shape_kji: tuple[int, int, int]  # slowest axis first
    dtype: np.dtype[Any]  # with the file's byte order
    offset_bytes: int  # where the voxels begin
    rescale: Rescale
    world_from_file: Matrix  # (4, 4), (k, j, i, 1) to LPS mm

    @property
    def plane_bytes(self) -> int:
        """Bytes of one slice along the slowest axis."""
        return self.shape_kji[1] * self.shape_kji[2] * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of all voxels."""
        return self.plane_bytes * self.shape_kji[0]


def read_header(start: bytes, *, name: str, override: HeaderOverride | None = None) -> NiftiHeader:
    """Check the first bytes of a decompressed file.

    Args:
        start: At least 348 (NIfTI-1) or 540 (NIfTI-2) bytes.
        name: Names the file in messages.
        override: What a table says where the header lies.

    Raises:
        RefusedFile: No NIfTI header.
        RefusedGrid: Shape, type, scale or geometry that is no CT volume.
    """
    header = _parsed(start, name)
    shape = _shape(np.asarray(header["dim"]).tolist(), name)
    dtype = _dtype(header, name)
    world = reverse_axes(_affine(header, override, name))
    check_matrix(world, what=name)
    i, j, k = shape
    return NiftiHeader(
        shape_kji=(k, j, i),
        dtype=dtype,
        offset_bytes=_offset(header, name),
        rescale=_rescale(header, override, name),
        world_from_file=world,
    )


def _parsed(start: bytes, name: str) -> Any:
    """Find version and byte order from `sizeof_hdr` and parse with nibabel."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kinds: dict[int, tuple[Any, bytes, int]] = {
        348: (Nifti1Header, b"n+1\x00", 344),
        540: (Nifti2Header, b"n+2\x00", 4),
    }
    for endianness, order in (("<", "little"), (">", "big")):
        size = int.from_bytes(start[:4], cast(Any, order))
        if size not in kinds or len(start) < size:
            continue
        kind, magic, place = kinds[size]
        found = start[place : place + 4]
        if found == magic:
            return kind(start[:size], endianness=endianness, check=False)
        if found[:2] == b"ni":
            raise RefusedFile(
                f"{name}: a header whose voxels lie in a second file (.hdr with .img)",
                expected="one .nii or .nii.gz file",
                fix="convert the pair to one .nii.gz file",
            )
    raise RefusedFile(
        f"{name}: no NIfTI header",
        expected="sizeof_hdr 348 or 540 and the magic word n+1 or n+2",
        fix="check what was downloaded: an error page or a pointer file looks like this",
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


def _dtype(header: Any, name: str) -> np.dtype[Any]:
    """Read the voxel type: integers and floats up to 8 bytes."""
    from nibabel.spatialimages import HeaderDataError

    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError, TypeError) as error:
        raise RefusedGrid(
            f"{name}: datatype code {code} is not in the standard",
            expected="int8 to float64",
            fix="export the file again",
            reason="unreadable",
        ) from error
    if dtype.kind not in _DTYPES or dtype.itemsize not in (1, 2, 4, 8):
        raise RefusedGrid(
            f"{name}: voxels are {_kind_of(dtype)} (datatype code {code})",
            expected="one integer or float per voxel (int8 to float64)",
            fix="leave this file out: colours and complex numbers are no densities",
            reason="unreadable",
        )
    return dtype


def _kind_of(dtype: np.dtype[Any]) -> str:
    """Name a voxel type that we refuse."""
    if dtype.kind == "V" and dtype.names:
        return "colours (" + "".join(dtype.names) + ")"
    return "complex numbers" if dtype.kind == "c" else f"of type {dtype.name}"


def _offset(header: Any, name: str) -> int:
    """Read where the voxels begin; 0 means right after header and extension flag."""
    first = int(header["sizeof_hdr"]) + 4
    told = float(header["vox_offset"])
    if not np.isfinite(told) or told > 1 << 30 or told < 0:
        raise RefusedFile(
            f"{name}: voxels are said to begin at byte {told:g}",
            expected=f"{first} or a little more",
            fix="copy or download the file again",
        )
    return max(first, int(told))


def _rescale(header: Any, override: HeaderOverride | None, name: str) -> Rescale:
    """Read slope and intercept; slope 0 or not-a-number means none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or np.isnan(slope):
        slope, intercept = 1.0, 0.0
    if override is not None:
        slope = slope if override.slope is None else override.slope
        intercept = intercept if override.intercept is None else override.intercept
    if not np.isfinite([slope, intercept]).all() or not 0.0 < slope <= _MAX_SLOPE:
        raise RefusedGrid(
            f"{name}: slope {slope:g}, intercept {intercept:g}",
            expected=f"finite numbers, slope above 0 and at most {_MAX_SLOPE:g}",
            fix="state slope and intercept through a HeaderOverride",
            reason="hu_implausible",
        )
    return Rescale(slope, intercept)


def _affine(header: Any, override: HeaderOverride | None, name: str) -> Matrix:
    """Read the affine (i, j, k, 1) to RAS mm: override, else sform, else qform."""
    from nibabel.spatialimages import HeaderDataError

    if override is not None and override.affine is not None:
        affine = np.array(override.affine, dtype=np.float64)
    elif int(header["sform_code"]) > 0:
        affine = np.array(header.get_sform(), dtype=np.float64)
    elif int(header["qform_code"]) > 0:
        try:
            affine = np.array(header.get_qform(), dtype=np.float64)
        except (HeaderDataError, ValueError) as error:
            raise RefusedGrid(
                f"{name}: the quaternion of the header is no rotation",
                expected="an sform or a valid qform",
                fix="state the affine through a HeaderOverride",
            ) from error
    else:
        raise RefusedGrid(
            f"{name}: the header gives no place in space (sform and qform codes are 0)",
            expected="an sform or a qform",
            fix="state the affine through a HeaderOverride",
        )
    if override is not None and override.spacing_mm is not None:
        affine = _respaced(affine, override, name)
    return _in_mm(header, affine, override)


def _in_mm(header: Any, affine: Matrix, override: HeaderOverride | None) -> Matrix:
    """Convert metres and micrometres; unknown units are mm, as every tool takes them."""
    factor = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    told = override is not None and (override.affine is not None or override.spacing_mm is not None)
    if factor != 1.0 and not told:
        affine = affine.copy()
        affine[:3] *= factor
    return affine


def _respaced(affine: Matrix, override: HeaderOverride, name: str) -> Matrix:
    """Keep directions and origin, replace the pitch of each axis."""
    check_matrix(affine, what=name)
    orientation, _ = nearest_axes(reverse_axes(affine))
    out = affine.copy()
    for axis, pitch in zip(orientation.axes, override.spacing_mm or (), strict=True):
        column = 2 - axis  # (k, j, i) to (i, j, k)
        out[:3, column] *= pitch / np.linalg.norm(affine[:3, column])
    return out
