"""Every ceiling of the rooms below `model/`, with its reason: the one place where they live.

The constants are plain numbers, imported where they hold; `limits()` lists them for a person
(`t3d info limits`). They are no tuning knobs: what lies beyond one is refused by name. Sources:
our choice, from what real files have; the reason stands beside each. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

# any volume
MAX_VOXELS = 2**29
MAX_AXIS_VOX = 4096
MAX_UPRIGHT_RATIO = 16
MIN_AXIS_VOX = 8
MIN_SPACING_MM = 0.2
MAX_SPACING_MM = 10.0
MAX_SLOPE = 1000.0
MAX_INTERCEPT = 100_000.0

# compressed streams
MAX_DEFLATE_RATIO = 1100
BOMB_BYTES = 256 << 20
BOMB_RATIO = 200

# NIfTI
MAX_VOXEL_OFFSET_BYTES = 1 << 30
MAX_TRAILING_BYTES = 64 << 20

# NRRD and MetaImage
MAX_HEADER_BYTES = 1 << 20

# DICOM
MAX_FRAMES = 1 << 16
MAX_PLANE_PIXELS = 1 << 24
MAX_INFLATED_BYTES = 1 << 30
MAX_BRIDGED_MM = 20.0

# archives
MAX_ENTRIES = 20_000
MAX_EMPTY_ENTRIES = 1_000
MAX_UNPACKED_BYTES = 16 << 30
MAX_UNPACKED_RATIO = 100
FREE_UNPACKED_BYTES = 32 << 20
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4096
MAX_TAR_HEADER_BYTES = 1 << 20

# tables
MAX_TABLE_BYTES = 512 << 20
MAX_FIELD_CHARS = 1 << 20
MAX_ID_CHARS = 180

# workers
WORKER_MEMORY_MB = 4096
TASK_SECONDS = 300.0
TASK_SECONDS_PER_MB = 2.0
START_SECONDS = 300.0
MAX_LOST_IN_A_ROW = 64

# stores and audits
MAX_LOSS_HU = 8
MAX_CELLS = 1 << 22
MAX_COMPARED = 20_000

# phantoms
MAX_PHANTOM_VOXELS = 1 << 28


@dataclass(frozen=True, slots=True)
class Limit:
    """One ceiling: where it holds, how high it is, and why there."""

    group: str  # "DICOM", "tables", ...
    name: str  # the constant's name
    value: int | float
    unit: str
    why: str


_LIMITS = (
    Limit(
        "any volume",
        "MAX_VOXELS",
        MAX_VOXELS,
        "voxels",
        "512 x 512 x 2048, 1 GiB as int16; the largest CT-RATE scan has 0.79 GiB",
    ),
    Limit(
        "any volume",
        "MAX_AXIS_VOX",
        MAX_AXIS_VOX,
        "voxels",
        "along one axis of a prepared grid; the largest CT matrix sold is 2048",
    ),
    Limit(
        "any volume",
        "MAX_UPRIGHT_RATIO",
        MAX_UPRIGHT_RATIO,
        "voxels out a voxel in",
        "when an oblique scan is turned upright: a cube turned in space needs 5.2",
    ),
    Limit(
        "any volume",
        "MIN_AXIS_VOX",
        MIN_AXIS_VOX,
        "voxels",
        "thinner stacks cannot be regridded to anything useful",
    ),
    Limit(
        "any volume",
        "MIN_SPACING_MM",
        MIN_SPACING_MM,
        "mm",
        "finer than a clinical CT resolves: the header's unit is wrong",
    ),
    Limit(
        "any volume",
        "MAX_SPACING_MM",
        MAX_SPACING_MM,
        "mm",
        "coarser than a diagnostic series: a scout, or the header's unit is wrong",
    ),
    Limit("any volume", "MAX_SLOPE", MAX_SLOPE, "HU a stored step", "the test data has 1 to 32.2"),
    Limit(
        "any volume",
        "MAX_INTERCEPT",
        MAX_INTERCEPT,
        "HU",
        "either way; real files have -8192 to 0, unsigned 16 bits would need -32768",
    ),
    Limit(
        "compressed streams",
        "MAX_DEFLATE_RATIO",
        MAX_DEFLATE_RATIO,
        "bytes out a byte in",
        "deflate packs at most 1032 bytes into one: a header that promises more lies",
    ),
    Limit(
        "compressed streams",
        "BOMB_BYTES",
        BOMB_BYTES,
        "bytes",
        "from this size on a packed CT must not unpack like a bomb (BOMB_RATIO)",
    ),
    Limit(
        "compressed streams",
        "BOMB_RATIO",
        BOMB_RATIO,
        "bytes out a byte in",
        "real CT unpacks 1.7 to 4 times; label maps, which pack better, are exempt",
    ),
    Limit(
        "NIfTI",
        "MAX_VOXEL_OFFSET_BYTES",
        MAX_VOXEL_OFFSET_BYTES,
        "bytes",
        "where a header may say that its voxels begin; extensions seen are below 1 MB",
    ),
    Limit(
        "NIfTI",
        "MAX_TRAILING_BYTES",
        MAX_TRAILING_BYTES,
        "bytes",
        "read after the last voxel to reach the checksum; more is another file or a bomb",
    ),
    Limit(
        "NRRD and MetaImage",
        "MAX_HEADER_BYTES",
        MAX_HEADER_BYTES,
        "bytes",
        "a segmentation of 100 organs needs 60 kB",
    ),
    Limit("DICOM", "MAX_FRAMES", MAX_FRAMES, "frames", "of one file; above every CT there is"),
    Limit(
        "DICOM",
        "MAX_PLANE_PIXELS",
        MAX_PLANE_PIXELS,
        "pixels",
        "of one frame, 4096 x 4096; the largest CT matrix sold is 2048",
    ),
    Limit(
        "DICOM",
        "MAX_INFLATED_BYTES",
        MAX_INFLATED_BYTES,
        "bytes",
        "what a deflated file may unpack to: 2000 slices of 512 x 512",
    ),
    Limit(
        "DICOM",
        "MAX_BRIDGED_MM",
        MAX_BRIDGED_MM,
        "mm",
        "a wider gap is never filled: twice the widest pitch of a CT",
    ),
    Limit(
        "archives",
        "MAX_ENTRIES",
        MAX_ENTRIES,
        "entries",
        "an examination with every reconstruction has some thousands",
    ),
    Limit(
        "archives",
        "MAX_EMPTY_ENTRIES",
        MAX_EMPTY_ENTRIES,
        "entries",
        "no export has so many files of 0 bytes",
    ),
    Limit(
        "archives", "MAX_UNPACKED_BYTES", MAX_UNPACKED_BYTES, "bytes", "32 000 slices of 512 x 512"
    ),
    Limit(
        "archives",
        "MAX_UNPACKED_RATIO",
        MAX_UNPACKED_RATIO,
        "bytes out a byte in",
        "a CT packs 2 to 4 times, an empty one some 200 times",
    ),
    Limit(
        "archives",
        "FREE_UNPACKED_BYTES",
        FREE_UNPACKED_BYTES,
        "bytes",
        "so much may unpack at any ratio",
    ),
    Limit(
        "archives",
        "MAX_NAME_BYTES",
        MAX_NAME_BYTES,
        "bytes",
        "of a name between two slashes, as file systems have it",
    ),
    Limit("archives", "MAX_PATH_BYTES", MAX_PATH_BYTES, "bytes", "of a member's path"),
    Limit(
        "archives",
        "MAX_TAR_HEADER_BYTES",
        MAX_TAR_HEADER_BYTES,
        "bytes",
        "between two members of a tar: long names and pax records",
    ),
    Limit(
        "tables",
        "MAX_TABLE_BYTES",
        MAX_TABLE_BYTES,
        "bytes",
        "a table is read whole, at two to four times its size; 25 000 reports have 60 MB",
    ),
    Limit(
        "tables",
        "MAX_FIELD_CHARS",
        MAX_FIELD_CHARS,
        "characters",
        "the longest report seen has 20 000",
    ),
    Limit(
        "tables",
        "MAX_ID_CHARS",
        MAX_ID_CHARS,
        "bytes",
        "of a volume id: with mask name and suffix a file name stays below 255",
    ),
    Limit(
        "workers",
        "WORKER_MEMORY_MB",
        WORKER_MEMORY_MB,
        "MB",
        "of one worker; the largest volume allowed takes 1 GiB, turned upright 3",
    ),
    Limit(
        "workers",
        "TASK_SECONDS",
        TASK_SECONDS,
        "s",
        "for one task whatever its size; no CT of the test data takes 10",
    ),
    Limit(
        "workers",
        "TASK_SECONDS_PER_MB",
        TASK_SECONDS_PER_MB,
        "s",
        "in addition: twelve times JPEG 2000, 300 times .nii.gz",
    ),
    Limit(
        "workers",
        "START_SECONDS",
        START_SECONDS,
        "s",
        "until a worker is ready: Python from a busy network disk",
    ),
    Limit(
        "workers",
        "MAX_LOST_IN_A_ROW",
        MAX_LOST_IN_A_ROW,
        "tasks",
        "then the fault is not in the tasks and the run stops",
    ),
    Limit(
        "stores and audits",
        "MAX_LOSS_HU",
        MAX_LOSS_HU,
        "HU",
        "the largest error a bounded-loss store may be told: half the noise of a chest CT",
    ),
    Limit(
        "stores and audits",
        "MAX_CELLS",
        MAX_CELLS,
        "cells",
        "of about 3 mm that the doctor keeps of one scan",
    ),
    Limit(
        "stores and audits",
        "MAX_COMPARED",
        MAX_COMPARED,
        "scans",
        "compared each with each; beyond, only exact copies are found",
    ),
    Limit(
        "phantoms",
        "MAX_PHANTOM_VOXELS",
        MAX_PHANTOM_VOXELS,
        "voxels",
        "of a synthetic patient: ten float32 copies of more do not fit a usual machine",
    ),
)


def limits() -> tuple[Limit, ...]:
    """List every limit, group by group."""
    return _LIMITS
