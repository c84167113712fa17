"""Bring studies into a cohort: parallel, resumable, appendable; what fails is set aside.

A study is recorded after its files are synced, so a killed run leaves a sound cohort, and running
again goes on where it stopped and ends with the same digest. A full disk stops the run; it is not
the fault of the study that met it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from t3d.cohort import engine
from t3d.cohort.listing import Source
from t3d.cohort.preflight import Preflight, Standing, look_ahead, megabytes_of, open_series
from t3d.cohort.schema import Failure, VolumeRecord, compact, study_content
from t3d.cohort.shelf import mask_path, pack, stage, volume_path
from t3d.cohort.writer import CohortWriter
from t3d.ct.limits import MAX_ID_CHARS, WORKER_MEMORY_MB
from t3d.errors import SourceError, StoreError, T3DError
from t3d.types import Preparation, Series, Study

_log = logging.getLogger(__name__)

SPLITS = ("", "train", "dev", "test")
_FINGERPRINT_BYTES = 1 << 16
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSummary:
    """What one run of prepare did."""

    done: int  # studies newly prepared
    skipped: int  # studies that an earlier run had finished or set aside
    failed: Mapping[str, int] = field(default_factory=dict)  # reason -> series or studies
    seconds: float = 0.0
    ahead: Preflight | None = None  # what was estimated before


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One study to prepare; pickled to a worker."""

    study: Study
    series: tuple[Series, ...]  # those still to be done
    megabytes: float  # of their files
    preparation: Preparation
    loss_hu: int
    out: Path
    root: Path | None  # paths are recorded relative to it


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of a task."""

    volumes: tuple[VolumeRecord, ...] = ()
    failures: tuple[tuple[str, str, str], ...] = ()  # (volume_id, reason, message)
    stopped: StoreError | None = None  # the cohort cannot be written


def prepare(
    source: Source,
    out: str | Path,
    preparation: Preparation,
    *,
    workers: int | None = None,
    progress: Callable[[Standing], None] | None = None,
    retry_failed: bool = False,
    loss_hu: int = 0,
    ignore_disk: bool = False,
    memory_mb: int = WORKER_MEMORY_MB,
) -> PrepareSummary:
    """Bring every study of a source into a cohort folder.

    What is there already is left alone, so the call resumes a killed run, appends new studies,
    and adds a second preparation to an existing cohort.

    Args:
        source: Lists studies; listed twice, so its listing must be repeatable.
        out: The cohort folder, made if missing.
        preparation: The target grid.
        workers: Processes of one thread each; None = as many as cores and free memory allow;
            0 = in this process, without ceilings: for files that you trust.
        progress: Called before the first study and after each one.
        retry_failed: Try again what an earlier run set aside.
        loss_hu: Largest error allowed to a stored voxel, HU; 1 = steps of 2 HU, 0 = none.
        ignore_disk: Start even if the disk does not seem to hold the result.
        memory_mb: Ceiling of one worker; a study that needs more is set aside.

    Returns:
        Counts of this run. A study with several series is done when at least one of them is.

    Raises:
        SourceError: A patient is in two splits, or a study id occurs twice with other content.
        StoreError: The cohort is locked, damaged, or holds other content under the same names;
            it cannot be written, or the disk is too small.

    Source:
        Reason codes: our choice (docs/howto/prepare-your-folder.md).
    """
    began = time.monotonic()
    with CohortWriter(out) as writer:
        listing = tuple(source.studies())
        _check_listing(listing, writer)
        writer.add_preparation(preparation, loss_hu=loss_hu)
        writer.set_facts(_facts(source))
        plan = _Planner(
            listing, writer, preparation, root=getattr(source, "root", None), retry=retry_failed
        )
        ahead = plan.look_ahead(workers)
        _log.info("prepare: %s", ahead.line)
        if not ignore_disk:
            ahead.check_disk()
        book = _Book(writer, preparation.name, ahead, len(listing), progress)
        for told in getattr(source, "set_aside", lambda: ())():
            book.fail(told.key, "", told.reason, told.message, counts_as_study=False)
        book.begin()
        outcomes = engine.run(
            prepare_study,
            plan.tasks(book, loss_hu),
            workers=ahead.workers,
            memory_mb=memory_mb,
            seconds=_ceiling_s,
        )
        # Closed at once on the way out, so that no worker writes while the writer tidies up.
        with closing(outcomes):
            for outcome in outcomes:
                book.enter(outcome)
    return PrepareSummary(
        done=book.done,
        skipped=book.skipped,
        failed=MappingProxyType(dict(sorted(book.failed.items()))),
        seconds=time.monotonic() - began,
        ahead=ahead,
    )


def _ceiling_s(task: _Task) -> float:
    """Give a study time by the size of its files."""
    return engine.seconds_for(task.megabytes)


def _facts(source: Source) -> dict[str, str]:
    """What the cohort records of its source."""
    terms = source.terms
    return {
        "source_kind": source.kind,
        "licence": terms.licence,
        "citation": terms.citation,
        "synthetic": "true" if terms.synthetic else "false",
    }


def _check_listing(listing: Sequence[Study], writer: CohortWriter) -> None:
    """Look through the whole listing before any work.

    Raises:
        SourceError: A patient in two splits, an unknown split, or a study id listed twice.
        StoreError: A recorded study now reads differently.
    """
    known = writer.known_studies()
    split_of = {patient: split for patient, split, _ in known.values()}
    seen: set[str] = set()
    leaks, twice, changed, strange = 0, 0, 0, set()
    for study in listing:
        twice += study.study_id in seen
        seen.add(study.study_id)
        if study.split not in SPLITS:
            strange.add(study.split)
        leaks += split_of.setdefault(study.patient_id, study.split) != study.split
        if study.study_id in known:
            changed += known[study.study_id][2] != study_content(study)
    _refuse_listing(leaks, twice, strange)
    if changed:
        raise StoreError(
            f"{changed} studies read differently now than when they were recorded",
            expected="the same report, labels and facts under the same study id",
            fix="prepare the changed source into a new folder",
        )


def _refuse_listing(leaks: int, twice: int, strange: set[str]) -> None:
    """Raise where the listing as a whole cannot be used."""
    if leaks:
        raise SourceError(
            f"split_leak: {leaks} studies belong to a patient who is also in another split",
            expected="each patient in one split",
            fix="correct the split column: all studies of a patient share one value",
        )
    if twice:
        raise SourceError(
            f"duplicate_key: {twice} study ids are listed more than once",
            expected="each study once, with all its series",
            fix="correct the source's listing",
        )
    if strange:
        raise SourceError(
            f"unknown splits: {', '.join(sorted(strange))}",
            expected="train, dev, test or nothing",
            fix="rename them; a validation split is dev or test",
        )


class _Planner:
    """Turns a listing into tasks, leaving out what is finished."""

    def __init__(
        self,
        listing: Sequence[Study],
        writer: CohortWriter,
        preparation: Preparation,
        *,
        root: Path | None,
        retry: bool,
    ) -> None:
        self._listing = listing
        self._preparation = preparation
        self._out = writer.path
        self._root = root
        self._set_aside = set() if retry else writer.set_aside(preparation.name)
        self._over = writer.finished(preparation.name) | self._set_aside
        self._owner_of = writer.owner_of
        self._owners: dict[str, str] = {}
        self._megabytes: dict[str, float] = {}

    def look_ahead(self, workers: int | None) -> Preflight:
        """Estimate what is left to do."""
        todo = {study.study_id: left for study in self._listing if (left := self._left(study))}
        self._megabytes = {key: megabytes_of(left) for key, left in todo.items()}
        return look_ahead(
            tuple(todo.values()),
            tuple(self._megabytes.values()),
            self._preparation,
            self._out,
            workers=workers,
        )

    def tasks(self, book: _Book, loss_hu: int) -> Iterator[_Task]:
        """Yield one task per study that has something left to do."""
        for study in self._listing:
            left = self._left(study)
            if not left and (study.series or (study.study_id, "") in self._set_aside):
                book.skip()
                continue
            unfit = self._unfit(study, left)
            if unfit:
                book.fail(study.study_id, "", *unfit)
                continue
            yield _Task(
                study=study,
                series=left,
                megabytes=self._megabytes[study.study_id],
                preparation=self._preparation,
                loss_hu=loss_hu,
                out=self._out,
                root=self._root,
            )

    def _left(self, study: Study) -> tuple[Series, ...]:
        """Which series no earlier run has finished or set aside."""
        key, over = study.study_id, self._over
        if (key, "") in self._set_aside:
            return ()
        return tuple(s for s in study.series if (key, s.series_id) not in over)

    def _unfit(self, study: Study, left: tuple[Series, ...]) -> tuple[str, str] | None:
        """Say, as reason and message, why a study cannot be worked on at all."""
        if not left:
            return "missing_file", "the study lists no series"
        for series in left:
            name = series.series_id
            owner = self._owners.setdefault(name, self._owner_of(name) or study.study_id)
            if owner != study.study_id:
                return "duplicate_key", f"volume {name} already belongs to study {owner}"
            if not name or len(name.encode()) > MAX_ID_CHARS:
                return "unreadable", f"a volume id has {len(name)} bytes, not 1 to {MAX_ID_CHARS}"
        return None


class _Book:
    """Counts and records outcomes."""

    def __init__(
        self,
        writer: CohortWriter,
        preparation: str,
        ahead: Preflight,
        total: int,
        progress: Callable[[Standing], None] | None,
    ) -> None:
        self._writer = writer
        self._preparation = preparation
        self._ahead = ahead
        self._total = total
        self._progress = progress
        self.done = 0
        self.skipped = 0
        self.failed: Counter[str] = Counter()
        self._finished = 0
        self._worked = 0
        self._megabytes = 0.0
        self._began = time.monotonic()

    def begin(self) -> None:
        """Start the clock and tell what lies ahead."""
        self._began = time.monotonic()
        self._tell()

    def skip(self) -> None:
        """Count a study that an earlier run dealt with."""
        self.skipped += 1
        self._tick()

    def fail(
        self,
        study_id: str,
        volume_id: str,
        reason: str,
        message: str,
        *,
        counts_as_study: bool = True,
    ) -> None:
        """Set something aside."""
        self.failed[reason] += 1
        _log.warning("study %s set aside: %s: %s", study_id, reason, message)
        self._writer.record_failure(
            Failure(
                study_id=study_id,
                volume_id=volume_id,
                preparation=self._preparation,
                reason=reason,
                message=message,
            )
        )
        if counts_as_study and not volume_id:
            self._tick()

    def enter(self, outcome: engine.Done[_Task, _Answer] | engine.Lost[_Task]) -> None:
        """Record what a worker did.

        Raises:
            StoreError: The cohort cannot be written.
        """
        study = outcome.task.study
        self._worked += 1
        self._megabytes += outcome.task.megabytes
        if isinstance(outcome, engine.Lost):
            self.fail(study.study_id, "", outcome.reason, f"{outcome.message}, on this study")
            return
        answer = outcome.value
        if answer.stopped is not None:
            raise answer.stopped
        if answer.volumes:
            self.done += 1
            self._writer.record(study, self._preparation, answer.volumes)
        for volume_id, reason, message in answer.failures:
            self.fail(study.study_id, volume_id, reason, message)
        self._tick()

    def _tick(self) -> None:
        """Count a study that is dealt with."""
        self._finished += 1
        self._tell()

    def _tell(self) -> None:
        """Tell how far we are."""
        if self._progress is not None:
            self._progress(
                Standing(
                    done=self._finished,
                    total=self._total,
                    failed=self.failed.total(),
                    worked=self._worked,
                    megabytes=self._megabytes,
                    total_megabytes=self._ahead.source_mb,
                    seconds=time.monotonic() - self._began,
                    ahead=self._ahead,
                )
            )


def prepare_study(task: _Task) -> _Answer:
    """Prepare the series of one study; runs in a worker."""
    from t3d.ct.guard import reason_of

    volumes, failures = [], []
    for series in task.series:
        try:
            volumes.append(_prepare_series(series, task))
        except StoreError as error:
            return _Answer(stopped=error)
        except engine.READING_ERRORS as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                return _Answer(stopped=_no_room(error))
            told = str(error) if isinstance(error, T3DError) else engine.named(error)
            failures.append((series.series_id, reason_of(error), told))
    return _Answer(tuple(volumes), tuple(failures))


def _no_room(error: OSError) -> StoreError:
    """Say that reading needed room on a disk, e.g. to unpack an archive."""
    return StoreError(
        f"no room for temporary files: {error.strerror}",
        expected="room to unpack a study",
        fix="free some space, or set TMPDIR to a disk with room; running again goes on",
    )


def _prepare_series(series: Series, task: _Task) -> VolumeRecord:
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
        source=_source_of(series.files, task.root),
        instances=instances,
        staged=(*staged, path),
    )


def _instances(told: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Keep the instance numbers that mean one place; a number used twice cites nothing."""
    times = Counter(number for number, _ in told)
    return tuple(sorted((number, z_mm) for number, z_mm in told if times[number] == 1))


def _source_of(files: Sequence[Path], root: Path | None) -> dict[str, str]:
    """Name one file and its fingerprint; of many, their number and a fingerprint of all.

    A source without a root keeps its paths to itself: file names may hold identifiers.
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
