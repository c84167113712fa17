"""The one way in: find out what a file is by its first bytes, and open it as slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from t3d.ct.guard import RefusedFile
from t3d.ct.nifti import open_nifti
from t3d.ct.slices import Slices, read_whole
from t3d.types import HeaderOverride, Volume


@contextmanager
def open_scan(
    files: Sequence[Path], *, name: str = "", override: HeaderOverride | None = None
) -> Iterator[Slices]:
    """Open the files of one series, whatever their format, and stand before the first voxel.

    Args:
        files: One NIfTI file.
        name: Pseudonymous id that replaces the file's own name everywhere; "" = file name.
        override: What a table says where the header lies; NIfTI only.

    Raises:
        RefusedFile: Missing, damaged, of no known format, or a format whose extra is missing.
        RefusedGrid: Readable, but not one 3-D CT volume with a place in space.
    """
    if len(files) != 1:
        raise RefusedFile(
            f"{name or 'a series'} has {len(files)} files",
            expected="one NIfTI file",
            fix="prepare DICOM series through a DICOM source",
        )
    with open_nifti(files[0], override) as file:
        if name:
            file.name = name
        yield file


def read(path: str | Path, override: HeaderOverride | None = None) -> Volume:
    """Read a whole CT at its own grid: int16 HU, axes to Superior, Posterior, Left.

    Raises:
        RefusedFile: Missing, damaged, or of no known format.
        RefusedGrid: Not one CT volume with a place in space.
    """
    with open_scan((Path(path),), override=override) as slices:
        return read_whole(slices)
