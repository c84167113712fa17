"""The DICOM door: files in any order to slices in HU, one file in memory at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.dicom.choice import Choice, choose
from t3d.ct.dicom.files import named
from t3d.ct.dicom.listing import Listing, directions, list_series
from t3d.ct.dicom.planes import AIR_HU, is_outside, plane_hu, with_pixels
from t3d.ct.dicom.stacking import Stack, stack
from t3d.ct.geometry import letters, nearest_axes
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.intensity import Rescale
from t3d.ct.limits import MAX_VOXELS

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)


class DicomSlices:
    """One chosen series, sorted and checked, its pixels not read yet (see `slices.Slices`)."""

    def __init__(self, stacked: Stack, choice: Choice, listing: Listing, *, name: str) -> None:
        self.name = name
        self.choice = choice
        self.stacked = stacked
        self.shape_kji = stacked.shape_kji
        self.world_from_file = stacked.world_from_file
        self.orientation, self.tilt_degrees = nearest_axes(stacked.world_from_file)
        self.rescale = Rescale()  # applied here, slice by slice
        self.instances = _instances(stacked)
        self.facts: Mapping[str, str] = _facts(choice)
        self._notes: set[str] = set()
        self._left = sum(left.count for left in listing.left_out if left.reason != "not_dicom")
        whole = all(f.slope.is_integer() and f.intercept.is_integer() for f in stacked.frames)
        self.dtype: type[np.int16] | type[np.float32] = np.int16
        if not whole or stacked.interpolated:
            self.dtype = np.float32

    def __repr__(self) -> str:
        return f"DicomSlices({self.name!r}, {self.shape_kji}, {self.choice.series.label})"

    @property
    def steps(self) -> tuple[str, ...]:
        """What reading did, for `Volume.steps`; what was mended in pixels only after `slabs`."""
        frames = self.stacked.frames
        told = f"read DICOM {len(frames)} slices {letters(self.orientation)}, rescaled per slice"
        several = len(self.choice.others) + 1
        if several > 1:
            told = f"took {self.choice.series.label} of {several} series; {told}"
        steps = [told, f"padding and values below {AIR_HU} HU set to {AIR_HU}"]
        if any(frame.padding and not is_outside(frame) for frame in frames):
            steps.append("a padding value among tissue was not taken for padding")
        if self._left:
            steps.append(f"{self._left} damaged file(s) beside the series left out")
        return (*steps, *self.stacked.steps, *sorted(self._notes))

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first slice, HU (S, J, I)), int16 where all rescales are whole, else float32.

        The array is a reused buffer: use it before the next one. Each file is read once.

        Raises:
            RefusedFile: A file's pixels are missing, short, damaged or of an unknown kind.
        """
        depth, rows, columns = self.shape_kji
        num_slices = max(1, min(num_slices, depth))
        buffer = np.empty((num_slices, rows, columns), dtype=self.dtype)
        planes = self._between() if self.stacked.interpolated else self._planes()
        filled = 0
        for k, plane in enumerate(planes):
            buffer[filled] = plane
            filled += 1
            if filled == num_slices or k == depth - 1:
                yield k + 1 - filled, buffer[:filled]
                filled = 0

    def _planes(self) -> Iterator[NDArray[Any]]:
        """Give the frames in order; a file that holds several is read once for all."""
        held: tuple[Path, Dataset] | None = None
        for frame in self.stacked.frames:
            if held is None or held[0] != frame.file:
                held = (frame.file, with_pixels(frame, self.name))
            plane, notes = plane_hu(held[1], frame, self.name, whole=self.dtype is np.int16)
            self._notes.update(notes)
            yield plane

    def _between(self) -> Iterator[NDArray[Any]]:
        """Resample linearly along the stack to the even grid; two planes in memory."""
        wanted = np.linspace(0.0, self.stacked.offsets_mm[-1], self.stacked.num_slices)
        k = 0
        ends = pairwise(zip(self.stacked.offsets_mm, self._planes(), strict=True))
        for (below, lower), (above, upper) in ends:
            while k < len(wanted) and (wanted[k] <= above or above == self.stacked.offsets_mm[-1]):
                share = np.float32(min(1.0, (wanted[k] - below) / (above - below)))
                yield lower + share * (upper - lower)
                k += 1


@contextmanager
def open_dicom(
    files: Iterable[Path],
    *,
    name: str,
    gaps: str = "refuse",
    kernel: str = "",
    phase: str = "",
    series_number: int | None = None,
) -> Iterator[DicomSlices]:
    """Open the right CT series among files and stand before its first slice.

    Args:
        files: Plain files in any order, other series and junk among them.
        name: Pseudonymous id; the only name that enters messages.
        gaps: "refuse" or "interpolate", see `stacking.stack`.
        kernel: See `choice.choose`.
        phase: See `choice.choose`.
        series_number: See `choice.choose`.

    Raises:
        RefusedFile: No usable series, damaged pixels, or pydicom is missing.
        RefusedGrid: The series is no even stack in HU; the message has the figures in mm.
    """
    listing = list_series(files)
    try:
        choice = choose(listing, kernel=kernel, phase=phase, series_number=series_number)
    except (RefusedFile, RefusedGrid) as refusal:
        raise named(refusal, name) from None
    for line in choice.lines:
        logger.info("%s: %s", name, line)
    for left in listing.left_out:
        logger.info("%s: %d file(s) left out: %s", name, left.count, left.message)
    stacked = stack(choice.series, gaps=gaps, name=name)
    depth, rows, columns = stacked.shape_kji
    if depth * rows * columns > MAX_VOXELS:
        raise RefusedGrid(
            f"{name}: {depth} x {rows} x {columns} voxels",
            expected=f"at most {MAX_VOXELS}",
            fix="leave this series out",
            reason="unreadable",
        )
    yield DicomSlices(stacked, choice, listing, name=name)


def _instances(stacked: Stack) -> tuple[tuple[int, float], ...]:
    """Give (instance number, z of the slice's centre in LPS mm); repeated numbers cite nothing."""
    row, column = directions(stacked.frames[0])
    first = stacked.frames[0]
    between = first.pixel_spacing_mm or (0.0, 0.0)
    centre = column * between[0] * (first.rows - 1) / 2 + row * between[1] * (first.columns - 1) / 2
    numbers = Counter(frame.instance for frame in stacked.frames)
    return tuple(
        (frame.instance, float((frame.position_mm or (0.0,) * 3)[2] + centre[2]))
        for frame in stacked.frames
        if frame.instance is not None and numbers[frame.instance] == 1
    )


def _facts(choice: Choice) -> dict[str, str]:
    """Give the facts a cohort keeps; no identifier among them."""
    series = choice.series
    facts = {
        "kernel": series.kernel,
        "manufacturer": series.manufacturer,
        "phase": series.phase or ("contrast" if series.contrast else ""),
        "series_number": "" if series.series_number is None else str(series.series_number),
    }
    return {key: value for key, value in facts.items() if value}
