"""Refusals of one file or grid, each with the reason code that cohorts count.

T3DError
|-- SourceError   <- RefusedFile   not readable as what it claims to be
`-- GeometryError <- RefusedGrid   readable, but not a 3-D CT volume with a place in space
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from t3d.ct.limits import (
    BOMB_BYTES,
    BOMB_RATIO,
    MAX_DEFLATE_RATIO,
    MAX_SPACING_MM,
    MIN_AXIS_VOX,
    MIN_SPACING_MM,
)
from t3d.errors import GeometryError, SourceError, T3DError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RefusedFile(SourceError):  # noqa: N818 - named by what happened, as its siblings are not
    """A file that cannot be read as a volume."""

    reason = "unreadable"

    def __init__(
        self, found: str, *, expected: str = "", fix: str = "", reason: str = "unreadable"
    ) -> None:
        super().__init__(found, expected=expected, fix=fix)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (RefusedFile, self.found, self.expected, self.fix, self.reason)


class RefusedGrid(GeometryError):  # noqa: N818
    """A readable file whose grid or values are not those of a CT volume."""

    reason = "bad_affine"

    def __init__(
        self, found: str, *, expected: str = "", fix: str = "", reason: str = "bad_affine"
    ) -> None:
        super().__init__(found, expected=expected, fix=fix)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (RefusedGrid, self.found, self.expected, self.fix, self.reason)


def _again(
    kind: type[RefusedFile] | type[RefusedGrid], found: str, expected: str, fix: str, reason: str
) -> T3DError:
    """Make the refusal again in another process."""
    return kind(found, expected=expected, fix=fix, reason=reason)


def missing_file(what: str, expected: str) -> RefusedFile:
    """Make the refusal of a file that is not there."""
    return RefusedFile(
        f"{what}: the file is missing",
        expected=expected,
        fix="check the folder, or leave the row out",
        reason="missing_file",
    )


def check_bytes(need: int, stored: int, *, packed: bool, what: str, labels: bool = False) -> None:
    """Hold the size that a header promises against the file before anything is allocated.

    Args:
        need: Bytes of the volume, by the header.
        stored: Bytes on disk.
        packed: Whether those are compressed with deflate.
        what: Names the file in the message.
        labels: A label map may pack better than any CT.

    Raises:
        RefusedFile: More is promised than the file can hold, or it unpacks like a bomb.
    """
    bomb = packed and not labels and need > BOMB_BYTES and need > stored * BOMB_RATIO
    if need > (stored * MAX_DEFLATE_RATIO if packed else stored) or bomb:
        raise RefusedFile(
            f"{what}: {stored} bytes on disk for {need} bytes of volume",
            expected="a file as long as its header says",
            fix="copy or download the file again",
        )


def is_ct_spacing(spacing_mm: tuple[float, float, float]) -> bool:
    """Say whether all pitches are those of a CT, with room for float32 headers."""
    low, high = MIN_SPACING_MM - 1e-6, MAX_SPACING_MM + 1e-6
    return all(low <= s <= high for s in spacing_mm)


def check_extent(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, what: str
) -> None:
    """Refuse a grid that is too thin or whose spacing is not that of a CT.

    Args:
        shape: Voxels per axis.
        spacing_mm: In the same order.
        what: Names the volume in the message.

    Raises:
        RefusedGrid: `too_small` or `bad_affine`.
    """
    if min(shape) < MIN_AXIS_VOX:
        raise RefusedGrid(
            f"{what}: {' x '.join(map(str, shape))} voxels (z, y, x)",
            expected=f"at least {MIN_AXIS_VOX} along each axis",
            fix="leave this series out, or choose a reconstruction with more slices",
            reason="too_small",
        )
    if not is_ct_spacing(spacing_mm):
        raise RefusedGrid(
            f"{what}: spacing {' x '.join(f'{s:.4g}' for s in spacing_mm)} mm (z, y, x)",
            expected=f"{MIN_SPACING_MM} to {MAX_SPACING_MM} mm along each axis",
            fix="state the true spacing through a HeaderOverride",
        )


def check_values(sample_hu: NDArray[Any], *, what: str) -> None:
    """Refuse values that cannot be a CT in HU (`plausibility.judge`).

    Args:
        sample_hu: Any subsample of the volume in HU.
        what: Names the volume in the message.

    Raises:
        RefusedGrid: `constant` or `hu_implausible`.
    """
    from t3d.ct.plausibility import judge

    for verdict in judge(sample_hu):
        if verdict.refuse:
            raise RefusedGrid(
                f"{what}: {verdict.found}",
                expected=verdict.expected,
                fix=verdict.fix,
                reason="constant" if verdict.code == "constant" else "hu_implausible",
            )


def reason_of(error: BaseException) -> str:
    """Give the reason code under which a cohort counts an error."""
    told = getattr(error, "reason", None)
    if isinstance(told, str) and isinstance(error, T3DError):
        return told
    if isinstance(error, FileNotFoundError):
        return "missing_file"
    if isinstance(error, GeometryError):
        return "bad_affine"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    return "unreadable"
