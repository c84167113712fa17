"""One study in a worker: its series read, put on the target grid, packed and staged.

What a file does wrong becomes the failure of its series; only a cohort that cannot be written ends
the run. Nothing here records anything: that is the one writer's work (`book.py`).
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t3d.cohort import engine
from t3d.cohort.preflight import open_series
from t3d.cohort.schema import VolumeRecord, compact
from t3d.cohort.shelf import mask_path, pack, stage, volume_path
from t3d.errors import StoreError, T3DError
from t3d.types import Preparation, Series, Study

_FINGERPRINT_BYTES = 1 << 16
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One study to prepare; pickled to a worker."""

    study: Study
    series: tuple[Series, ...]  # those still to be done
    recorded: tuple[Series, ...]  # those that an earlier run has done
    megabytes: float  # of the files still to be read
    preparation: Preparation
    loss_hu: int
    out: Path
    root: Path | None  # paths are recorded relative to it


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task."""

    volumes: tuple[VolumeRecord, ...] = ()
    failures: tuple[tuple[str, str, str], ...] = ()  # (volume_id, reason, message)
    stopped: StoreError | None = None  # the cohort cannot be written


def prepare_study(task: Task) -> Answer:
    """Prepare the series of one study; runs in a worker."""
    from t3d.ct.guard import reason_of

    volumes, failures = [], []
    for series in task.series:
        try:
            volumes.append(_prepare_series(series, task))
        except StoreError as error:
            return Answer(stopped=error)
        except engine.READING_ERRORS as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                return Answer(stopped=_no_room(error))
            told = str(error) if isinstance(error, T3DError) else engine.named(error)
            failures.append((series.series_id, reason_of(error), told))
    return Answer(tuple(volumes), tuple(failures))


def _no_room(error: OSError) -> StoreError:
    """Say that reading needed room on a disk, e.g. to unpack an archive."""
    return StoreError(
        f"no room for temporary files: {error.strerror}",
        expected="room to unpack a study",
        fix="free some space, or set TMPDIR to a disk with room; running again goes on",
    )


def _prepare_series(series: Series, task: Task) -> VolumeRecord:
    """Read, regrid and stage one series with its masks."""
    from t3d.ct.mask_stack import regrid_masks
    from t3d.ct.regrid import regrid

    preparation = task.preparation
    with open_series(series) as file:
        volume = regrid(file, preparation, check=True)
        masks, depths = regrid_masks(series.masks, preparation, like=file)
        facts = dict(getattr(file, "facts", {})) | dict(series.facts)
        instances = _instances(file.instances)
    steps, loss = volume.steps, task.loss_hu
    if loss:
        steps += (f"kept in steps of {2 * loss} HU, error at most {loss} HU",)
    geometry = volume.world_from_voxel.tolist()
    notes = {"world_from_voxel": compact(geometry), "steps": compact(steps)}
    key, name = series.series_id, preparation.name
    staged, of_masks = [], {}
    for mask, labels in masks.items():
        path, of_masks[mask] = stage(mask_path(task.out, name, key, mask), pack(labels, notes))
        staged.append(path)
    packed = pack(volume.voxels, notes, loss_hu=loss)
    path, sha256 = stage(volume_path(task.out, name, key), packed)
    z, y, x = volume.voxels.shape
    return VolumeRecord(
        volume_id=key,
        sha256=sha256,
        shape=(z, y, x),
        world_from_voxel=tuple(tuple(row) for row in geometry),
        steps=steps,
        masks=of_masks,
        depths=depths,
        facts=facts,
        source=source_of(series.files, task.root),
        instances=instances,
        staged=(*staged, path),
    )


def _instances(told: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Keep the instance numbers that mean one place; a number used twice cites nothing."""
    times = Counter(number for number, _ in told)
    return tuple(sorted((number, z_mm) for number, z_mm in told if times[number] == 1))


def source_of(files: Sequence[Path], root: Path | None) -> dict[str, str]:
    """Name one file and its fingerprint; of many, their number and a fingerprint of all.

    A source without a root (None) keeps its paths to itself: file names may hold identifiers.

    Raises:
        OSError: A file cannot be read.
    """
    if len(files) == 1 and root is not None:
        return {"file": _shown(files[0], root), "fingerprint": fingerprint(files[0])}
    total = hashlib.sha256("".join(fingerprint(file) for file in files).encode())
    return {"files": str(len(files)), "fingerprint": total.hexdigest()}


def _shown(path: Path, root: Path) -> str:
    """Give a path relative to the source, so that a cohort names no machine."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.name


def fingerprint(path: Path) -> str:
    """Hash a file's size and both its ends; a gzip file ends in the checksum of all its content.

    A full hash would double the cost of preparing a volume.
    """
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        total.update(file.read(_FINGERPRINT_BYTES))
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        total.update(file.read(_FINGERPRINT_BYTES))
    return total.hexdigest()
