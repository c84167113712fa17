"""One plane in HU: slope and intercept exactly once, what lies outside the scan to air."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.dicom.files import damage, named, pixels_of
from t3d.ct.dicom.headers import Frame
from t3d.ct.dicom.pixels import described_plane
from t3d.ct.guard import RefusedFile
from t3d.ct.intensity import INT16_HU

if TYPE_CHECKING:
    from pydicom import Dataset

AIR_HU = -1024  # what padding becomes: the lower end of CT numbers, and of what is stored
# Padding is only believed where no tissue lies: files exist whose padding value is 0 HU.
TISSUE_HU = (-1000.0, 3071.0)


def with_pixels(frame: Frame, name: str) -> Dataset:
    """Read a frame's file with its pixels.

    Raises:
        RefusedFile: `missing_file` or `unreadable`, the scan's name before it.
    """
    try:
        return pixels_of(frame.source)
    except RefusedFile as refusal:
        raise named(refusal, name) from None


def plane_hu(
    dataset: Dataset, frame: Frame, name: str, *, whole: bool
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Turn one frame into HU; padding and whatever is darker than air become AIR_HU.

    Args:
        dataset: What `with_pixels` gave for this frame's file.
        frame: The frame.
        name: Names the scan in messages.
        whole: Give int16; slope and intercept must be whole numbers.

    Returns:
        (rows, columns) int16, or float32, a new array; and what the header had wrong.

    Raises:
        RefusedFile: The pixels are missing, short, damaged or of an unknown kind.

    Check: stored 24, slope 1, intercept -1024 -> -1000; stored -2000 -> -1024, not -3024.
    """
    what = f"{name}: a slice" if frame.instance is None else f"{name}: slice {frame.instance}"
    try:
        plane = described_plane(dataset, frame.index, what=what)
    except damage() as error:
        raise RefusedFile(
            f"{what}: its pixels cannot be read ({type(error).__name__})",
            expected="a complete slice",
            fix="copy or export the file again",
        ) from None
    stored = plane.values
    if stored.shape != (frame.rows, frame.columns):
        raise RefusedFile(
            f"{what}: {stored.shape[0]} x {stored.shape[1]} pixels decoded",
            expected=f"{frame.rows} x {frame.columns}",
            fix="export the series again",
        )
    hu = _shifted(stored, frame) if whole else _scaled(stored, frame)
    if frame.padding and is_outside(frame):
        hu[(stored >= frame.padding[0]) & (stored <= frame.padding[1])] = AIR_HU
    return hu, plane.notes


def is_outside(frame: Frame) -> bool:
    """Say whether the frame's padding value is no HU that tissue or air has."""
    low, high = (frame.slope * v + frame.intercept for v in frame.padding or (0.0, 0.0))
    return high < TISSUE_HU[0] or low > TISSUE_HU[1]


def _scaled(stored: NDArray[Any], frame: Frame) -> NDArray[np.float32]:
    """Apply any slope and intercept; nothing below air."""
    values = stored.astype(np.float64) * frame.slope + frame.intercept
    return np.maximum(values, AIR_HU, out=values).astype(np.float32)


def _shifted(stored: NDArray[Any], frame: Frame) -> NDArray[np.int16]:
    """Apply a whole slope and intercept; int16 saturates rather than wraps, nothing below air."""
    shift = int(frame.intercept)
    if frame.slope == 1.0 and abs(shift) < 1 << 15:
        # Clipped first, the sum fits in 16 bits, and it is the same with and without a sign.
        held = np.iinfo(stored.dtype)
        low, high = (int(np.clip(v - shift, held.min, held.max)) for v in (AIR_HU, INT16_HU[1]))
        hu: NDArray[np.int16] = np.clip(stored, low, high).view(np.int16)
        hu += np.int16(shift)
        return hu
    wide = stored.astype(np.int64) * int(frame.slope) + shift
    return np.clip(wide, AIR_HU, INT16_HU[1]).astype(np.int16)
