"""What a run of prepare will need, looked at before it starts, and how far it is.

A few series are opened, for their headers and a few slices, in a worker under the same ceilings
as later; from the largest need among them follows how many workers fit into memory. Figures are
estimates and the line says so; only the disk can stop a run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.cohort import engine
from t3d.errors import StoreError
from t3d.types import Preparation, Series

if TYPE_CHECKING:
    from t3d.ct.slices import Slices

MB = 1e6

# Measured in fresh processes on 100 to 600 slices of 512 x 512 and 120 of 1024 x 1024, upright
# and tilted, lossless and not: peaks were 51 to 90 % of what these give.
WORKER_BASE_MB = 150.0  # Python, numpy, Blosc2, a reader (SimpleITK the largest), gunzip buffers
BYTES_A_PLANE_VOX = 60.0  # slices read at a time, as stored and as float32, and open sums
BYTES_AN_OUTPUT_VOX = 8.0  # int16, rounded and packed copies, the array read back
BYTES_A_TURNED_VOX = 5.0  # a tilted scan is read whole and turned: both grids
BYTES_A_MASK_VOX = 4.0  # a mask is read whole
FREE_SHARE = 0.8  # of the memory free at the start; the rest is for the parent and the page cache

STORED_SHARE = 0.55  # of int16: real chests take 0.33 to 0.46 (the largest measured, plus a fifth)
# Measured on one core; what decoding costs is timed on a few slices of the sample instead.
SECONDS_A_STUDY = 0.02
SECONDS_A_VOX = 2e-9  # of the input, regridded
SECONDS_A_TURNED_VOX = 70e-9
SECONDS_AN_OUTPUT_VOX = 5e-9  # packed and written
SECONDS_A_MB = 0.01  # of .nii.gz in all; used where nothing of the sample could be read

_LOOK_SECONDS = 60.0  # our choice; a header that takes longer tells nothing
_TIMED_SLICES = 4
_SAMPLE = 8  # series opened: the largest files, and some spread over the listing
_STATED_FILES = 8  # files of a series whose size is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What a run will need."""

    studies: int  # left to do
    source_mb: float  # their files
    workers: int
    need_mb: float  # memory of one worker, estimated
    free_mb: float  # memory free now
    stored_mb: float  # disk the cohort will grow by, estimated
    disk_free_mb: float
    seconds: float  # estimated; the progress measures its own rates
    part: str = ""  # which shard this is of, in words; the figures are those of the shard

    @property
    def line(self) -> str:
        """One line for a person."""
        part = f"{self.part}: " if self.part else ""
        if not self.studies:
            return f"{part}nothing left to do"
        return (
            f"{part}{self.studies} studies, {_size(self.source_mb)}: about "
            f"{duration(self.seconds)} on {self.workers or 1} "
            f"{'cores' if self.workers > 1 else 'core'}; memory "
            f"{_size(self.need_mb)} a worker of {_size(self.free_mb)} free; disk "
            f"{_size(self.stored_mb)} of {_size(self.disk_free_mb)} free"
        )

    def check_disk(self) -> None:
        """Refuse to start where the disk cannot hold the result.

        Raises:
            StoreError: It cannot.
        """
        if self.stored_mb > self.disk_free_mb:
            raise StoreError(
                f"{self.studies} studies would take about {_size(self.stored_mb)}, and the disk "
                f"has {_size(self.disk_free_mb)} free",
                expected="room for the whole cohort",
                fix="free some space or choose another disk; ignore_disk starts all the same",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run is; what the progress callback gets."""

    done: int  # studies dealt with: prepared, there already, or set aside
    total: int
    failed: int  # series and studies set aside in this run
    worked: int  # studies that this run really worked on
    megabytes: float  # of files read
    total_megabytes: float
    seconds: float  # since the first task
    ahead: Preflight

    @property
    def studies_per_s(self) -> float:
        """Studies worked on a second; 0 before the first."""
        return self.worked / self.seconds if self.seconds > 0 else 0.0

    @property
    def mb_per_s(self) -> float:
        """MB of files read a second; 0 before the first."""
        return self.megabytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining_s(self) -> float:
        """Time left at the rate so far, by bytes; before anything is measured, as stated."""
        if self.worked and self.megabytes:
            left = max(0.0, self.total_megabytes - self.megabytes)
            return self.seconds * left / self.megabytes
        return self.ahead.seconds

    @property
    def note(self) -> str:
        """MB/s, failures and time left in few words."""
        told = [f"{self.mb_per_s:.1f} MB/s"] if self.worked else []
        if self.failed:
            told.append(f"{self.failed} set aside")
        if self.done < self.total:
            told.append(f"{duration(self.remaining_s)} left")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the header of one series says a worker will need."""

    need_mb: float
    stored_mb: float
    seconds: float


def open_series(series: Series) -> AbstractContextManager[Slices]:
    """Open a series through the one door, under its own id, with its own options.

    Raises:
        RefusedFile, RefusedGrid: As `ct/door.py` says.
    """
    from t3d.ct.door import open_scan

    options: dict[str, Any] = dict(series.options)
    return open_scan(series.files, name=series.series_id, override=series.header, **options)


def megabytes_of(series: Sequence[Series]) -> float:
    """Give the size of the files of some series, of many files by a few spread over them."""
    total = 0.0
    for one in series:
        asked = one.files[:: max(1, len(one.files) // _STATED_FILES)]
        sizes = [path.stat().st_size for path in asked if path.is_file()]
        total += sum(sizes) * len(one.files) / max(1, len(asked))
    return total / MB


def look_ahead(
    todo: Sequence[tuple[Series, ...]],
    megabytes: Sequence[float],
    preparation: Preparation,
    out: Path,
    *,
    workers: int | None = None,
) -> Preflight:
    """Estimate what preparing will need.

    Args:
        todo: The series of each study that has any left.
        megabytes: The size of each study's files.
        preparation: The target grid.
        out: The cohort folder, or where it will be.
        workers: As asked for; None = as many as cores and memory allow.
    """
    sample = _sample(todo, megabytes)
    looks = dict(_looks(sample, preparation, in_process=workers == 0))
    need = max((look.need_mb for look in looks.values()), default=WORKER_BASE_MB)
    stored = sum(look.stored_mb for look in looks.values()) / max(1, len(looks))
    source_mb = sum(megabytes)
    looked_mb = megabytes_of([series for series in sample if series.series_id in looks])
    rate = sum(look.seconds for look in looks.values()) / looked_mb if looked_mb else SECONDS_A_MB
    free_mb = free_memory_mb()
    fitting = pool_size(engine.available_cores(), free_mb, need)
    chosen = min(fitting, max(1, len(todo))) if workers is None else workers
    work_s = source_mb * rate + len(todo) * SECONDS_A_STUDY
    return Preflight(
        studies=len(todo),
        source_mb=source_mb,
        workers=chosen,
        need_mb=need,
        free_mb=free_mb,
        stored_mb=stored * sum(len(series) for series in todo),
        disk_free_mb=_disk_free_mb(out),
        seconds=work_s / max(1, chosen),
    )


def pool_size(cores: int, free_mb: float, need_mb: float) -> int:
    """Say how many workers fit: min(cores, free share // need), at least one.

    Check: 8 cores, 4,000 MB free, 1,000 MB each -> 3; 2 cores -> 2; 100 MB free -> 1.
    """
    return max(1, min(cores, int(FREE_SHARE * free_mb // need_mb)))


def free_memory_mb() -> float:
    """Give the memory that can still be taken: the machine's, or this control group's if less."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        told = next(line for line in lines if line.startswith("MemAvailable"))
        free = int(told.split()[1]) * 1024 / MB
    except (OSError, StopIteration):  # not Linux: assume half of what is built in
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 / MB
    return max(
        0.0, min((free, *_left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))
    )


def _left_in_groups(membership: Path, mount: Path) -> Iterator[float]:
    """Yield what each control group of this process leaves, in MB; version 1 and 2."""
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root = mount / kinds
        limit, used, idle = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if kinds
            else ("memory.max", "memory.current", "inactive_file")
        )
        place = root / name.lstrip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(root):
                break
            try:
                most = int((folder / limit).read_text("ascii"))
                stat = dict(
                    row.split() for row in (folder / "memory.stat").read_text("ascii").splitlines()
                )
                taken = int((folder / used).read_text("ascii")) - int(stat.get(idle, 0))
            except (OSError, ValueError):  # not there (a container sees its own root), or "max"
                continue
            yield (most - taken) / MB


def _disk_free_mb(path: Path) -> float:
    """Give the free room where a folder is or will be."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free / MB


def _sample(todo: Sequence[tuple[Series, ...]], megabytes: Sequence[float]) -> list[Series]:
    """Choose series to open: half of them the largest, half spread over the listing."""
    by_size = sorted(range(len(todo)), key=lambda n: (-megabytes[n], n))[: _SAMPLE // 2]
    spread = range(0, len(todo), max(1, len(todo) // (_SAMPLE // 2)))
    return [todo[n][0] for n in dict.fromkeys([*by_size, *spread])][:_SAMPLE]


def _looks(
    sample: Sequence[Series], preparation: Preparation, *, in_process: bool
) -> Iterator[tuple[str, _Look]]:
    """Open the sample, give looks by series; what cannot be opened the run itself will name."""
    tasks = [(replace(series, facts={}), preparation) for series in sample]
    workers = 0 if in_process or not tasks else 1
    for outcome in engine.run(_look, tasks, workers=workers, seconds=_LOOK_SECONDS):
        if isinstance(outcome, engine.Done) and outcome.value is not None:
            yield outcome.task[0].series_id, outcome.value


def _look(task: tuple[Series, Preparation]) -> _Look | None:
    """Read the header and a few slices of one series; runs in a worker."""
    from t3d.ct.geometry import oriented_matrix
    from t3d.ct.regrid import plan_grid
    from t3d.ct.slices import is_upright

    series, preparation = task
    try:
        with open_series(series) as file:
            z, y, x = (file.shape_kji[axis] for axis in file.orientation.axes)
            matrix = oriented_matrix(file.world_from_file, file.shape_kji, file.orientation)
            turned = not is_upright(file)
            plane = file.shape_kji[1] * file.shape_kji[2]
            seconds = _decoding_s(file)
        made = plan_grid((z, y, x), matrix, preparation).shape
    except engine.READING_ERRORS:
        return None
    out = float(made[0] * made[1] * made[2])
    whole = float(z * y * x)
    need = (
        BYTES_A_PLANE_VOX * plane
        + BYTES_AN_OUTPUT_VOX * out
        + BYTES_A_TURNED_VOX * whole * turned
        + BYTES_A_MASK_VOX * whole * bool(series.masks)
    )
    seconds += whole * (SECONDS_A_VOX + SECONDS_A_TURNED_VOX * turned) + out * SECONDS_AN_OUTPUT_VOX
    return _Look(WORKER_BASE_MB + need / MB, 2 * out * STORED_SHARE / MB, seconds)


def _decoding_s(file: Slices) -> float:
    """Time the second slab: the first one pays for imports and for what a reader reads ahead."""
    slabs = file.slabs(_TIMED_SLICES)
    next(slabs, None)
    began = time.monotonic()
    _, stored = next(slabs, (0, ()))
    return (time.monotonic() - began) / max(1, len(stored)) * file.shape_kji[0]


def duration(seconds: float) -> str:
    """Give a time in words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(megabytes: float) -> str:
    """Give a size in words: 40 MB, 1.2 GB."""
    if megabytes < 1000:
        return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"
    return f"{megabytes / 1000:.1f} GB"
