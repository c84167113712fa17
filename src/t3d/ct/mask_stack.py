"""4-D label maps whose first axis counts findings, the other three being the axes of their CT.

Such a file is a 3-D one whose every voxel holds a row of numbers: it is streamed slice by slice
and one number of each row is kept. Its own matrix speaks of other axes and is not used: the place
in space is that of the CT, which must have the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from t3d.ct import gzipped
from t3d.ct.geometry import Matrix, file_view, reverse_axes, turn_upright
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.limits import MAX_DEFLATE_RATIO
from t3d.ct.nifti import (
    NiftiFile,
    as_labels,
    open_stream,
    read_exactly,
    reading,
    skip,
    volume_id_of,
)
from t3d.ct.nifti_header import NiftiHeader, header_bytes, read_header
from t3d.ct.regrid import regrid_label
from t3d.ct.slices import PIECE_BYTES, Slices, is_upright, oriented_grid
from t3d.types import HeaderOverride, MaskPart, Preparation, Volume

_ORDERS: tuple[tuple[str, Literal["little", "big"]], ...] = (("<", "little"), (">", "big"))
_DIM = {352: (40, "i2"), 544: (16, "i8")}  # where a header holds its sizes, and as what


def read_part(part: MaskPart, like: Slices) -> tuple[NDArray[np.uint8], Matrix]:
    """Read the label map of one finding on the grid of its CT.

    Args:
        part: File and index; the file has the shape (count, I, J, K), or (I, J, K) for one.
        like: The opened CT. Only its header is used.

    Returns:
        uint8 labels (Z, Y, X) to S, P, L (each number is one lesion of the finding), and
        world_from_voxel.

    Raises:
        RefusedFile: Missing, cut off, damaged, or no NIfTI.
        RefusedGrid: Another number of findings, another shape than the CT's, or values that are
            no labels.
    """
    with _opened(part, like) as file:
        shape, matrix = oriented_grid(file)
        labels = np.empty(shape, dtype=np.uint8)
        target = file_view(labels, file.orientation)
        plane = file.header.plane_bytes
        for first, rows in file.slabs(max(1, PIECE_BYTES // plane)):
            stored = rows["findings"][..., part.index]
            target[first : first + len(stored)] = as_labels(stored, file)
        if not is_upright(file):
            labels, matrix = turn_upright(labels, matrix, order=0, outside=0, what=file.name)
    return labels, matrix


def regrid_masks(
    masks: Mapping[str, Path | MaskPart], preparation: Preparation, *, like: Slices
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, tuple[float, float, float]]]:
    """Put the masks of a series on the grid that `regrid` gives its CT: nearest.

    Args:
        masks: By name: a file of its own, or a part of a 4-D one.
        preparation: As for the CT.
        like: The opened CT, in the grid of its file.

    Returns:
        uint8 labels (Z, Y, X) by name, and how deep each part that is not empty lies on the
        grid of the file (`depth_mm`), so that no coarse grid blurs it.

    Raises:
        RefusedFile, RefusedGrid: A mask cannot be read, or lies on another grid.
    """
    prepared, depths = {}, {}
    for name, told in sorted(masks.items()):
        source: Path | Volume
        if isinstance(told, MaskPart):
            labels, matrix = read_part(told, like)
            depth = depth_mm(labels, matrix)
            if depth is not None:
                depths[name] = depth
            voxels = labels.astype(np.int16)
            source = Volume(volume_id=name, voxels=voxels, world_from_voxel=matrix)
        else:
            source = told
        prepared[name] = regrid_label(source, preparation, like=like)
    return prepared, depths


def depth_mm(
    labels: NDArray[np.uint8], world_from_voxel: Matrix
) -> tuple[float, float, float] | None:
    """Say how deep a mask lies, as `Sentence.z_mm` tells it; None for an empty one.

    Args:
        labels: (Z, Y, X), axes along the world's; above 0 = in the mask.
        world_from_voxel: (4, 4), (z, y, x, 1) to LPS mm.

    Returns:
        Centre (mean over the voxels) and the centres of the lowest and highest slice, mm.

    Check: slices 2 mm apart from z = 10, voxels 1 in slice 1 and 3 in slice 3 -> (15, 12, 16).
    """
    per_slice = np.count_nonzero(labels, axis=(1, 2))
    held = np.flatnonzero(per_slice)
    if not len(held):
        return None
    z = world_from_voxel[2, 3] + world_from_voxel[2, 0] * np.arange(len(labels))
    centre = float(np.sum(per_slice * z) / per_slice.sum())
    return centre, float(z[held[0]]), float(z[held[-1]])


@contextmanager
def _opened(part: MaskPart, like: Slices) -> Iterator[NiftiFile]:
    """Open a stack as a file of rows on the grid of its CT, before its first voxel."""
    name = volume_id_of(part.path)
    if not part.path.is_file():
        raise RefusedFile(
            f"{name}: the file of masks is missing",
            expected="a .nii or .nii.gz file",
            fix="download it, or leave the masks out",
            reason="missing_file",
        )
    with ExitStack() as stack:
        stream, stored = open_stream(part.path, name, stack)
        with reading(name):
            start = read_exactly(stream, 352)
            start += read_exactly(stream, header_bytes(start) - len(start))
        header = _header(bytearray(start), part, like, name)
        ratio = MAX_DEFLATE_RATIO if isinstance(stream, gzipped.Unpacked) else 1
        if header.offset_bytes + header.total_bytes > stored * ratio:
            raise RefusedFile(
                f"{name}: too short for what its header says",
                expected=f"{header.total_bytes} bytes of voxels",
                fix="copy or download the file again",
            )
        with reading(name):
            skip(stream, header.offset_bytes - len(start))
        yield NiftiFile(stream, header, name=name)


def _header(start: bytearray, part: MaskPart, like: Slices, name: str) -> NiftiHeader:
    """Read the first bytes as the header of a 3-D file, after its shape was checked."""
    size = header_bytes(bytes(start))
    if len(start) == size and _byte_order(start):
        _drop_first_axis(start, (part.count, *like.shape_kji[::-1]), name)
    elif len(start) < size:
        raise RefusedFile(
            f"{name}: the file ends within its header",
            expected=f"{size} bytes and the voxels",
            fix="copy or download the file again",
        )
    # The CT's matrix stands in for the stack's own.
    place = tuple(tuple(row) for row in reverse_axes(like.world_from_file).tolist())
    header = read_header(
        bytes(start), name=name, override=HeaderOverride(affine=place), labels=True
    )
    if header.detached:
        raise RefusedFile(f"{name}: voxels in a second file", expected="one .nii or .nii.gz file")
    row = np.dtype([("findings", header.dtype, (part.count,))])
    return replace(header, dtype=row)


def _byte_order(start: bytearray) -> str:
    """Tell the byte order of a NIfTI header; "" where it is none."""
    sizes = {sign: int.from_bytes(start[:4], order) for sign, order in _ORDERS}
    return next((sign for sign, size in sizes.items() if size in (348, 540)), "")


def _drop_first_axis(start: bytearray, expected: tuple[int, ...], name: str) -> None:
    """Take the axis of findings out of the sizes of a header, after comparing them."""
    place, kind = _DIM[len(start)]
    dim: NDArray[Any] = np.frombuffer(start, _byte_order(start) + kind, 8, place).copy()
    count = int(dim[0])
    found = tuple(int(n) for n in dim[1 : count + 1]) if 3 <= count <= 7 else ()
    while len(found) > 4 and found[-1] == 1:
        found = found[:-1]
    if len(found) == 3 and expected[0] == 1:
        found = (1, *found)
    if found != expected:
        raise RefusedGrid(
            f"{name}: masks of shape {found}, for {expected[0]} findings on a CT {expected[1:]}",
            expected="(findings, then the axes of the CT's own file)",
            fix="get the file again, or leave the masks out",
        )
    dim[:] = (3, *found[1:], 1, 1, 1, 1)
    start[place : place + dim.nbytes] = dim.tobytes()
