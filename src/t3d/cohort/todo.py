"""What a run of prepare has to do: the whole listing is checked, what is finished is left out.

A shard works on its own studies only, but checks the listing as a whole, so that every shard
refuses what one run over everything would refuse, and gives a disputed volume to the same study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from t3d.cohort import engine
from t3d.cohort.book import Book
from t3d.cohort.listing import SetAside
from t3d.cohort.patients import SPLITS
from t3d.cohort.preflight import Preflight, look_ahead, megabytes_of
from t3d.cohort.schema import study_content
from t3d.cohort.shards import Shard
from t3d.cohort.work import Task
from t3d.cohort.writer import CohortWriter
from t3d.ct.limits import MAX_ID_CHARS
from t3d.errors import SourceError, StoreError
from t3d.types import MaskPart, Preparation, Series, Study


def check_listing(listing: Sequence[Study], writer: CohortWriter) -> str:
    """Look through the whole listing before any work.

    Returns:
        A digest of all it says, files aside; its order does not matter.

    Raises:
        SourceError: A patient in two splits, an unknown split, or a study id listed twice.
        StoreError: A recorded study now reads differently.
    """
    known = writer.known_studies()
    split_of = {patient: split for patient, split, _ in known.values()}
    contents: dict[str, str] = {}
    leaks, twice, changed, strange = 0, 0, 0, set()
    for study in listing:
        key = study.study_id
        twice += key in contents
        contents[key] = study_content(study)
        if study.split not in SPLITS:
            strange.add(study.split)
        leaks += split_of.setdefault(study.patient_id, study.split) != study.split
        changed += key in known and known[key][2] != contents[key]
    _refuse_listing(leaks, twice, strange)
    if changed:
        raise StoreError(
            f"{changed} studies read differently now than when they were recorded",
            expected="the same report, labels and facts under the same study id",
            fix="prepare the changed source into a new folder",
        )
    return hashlib.sha256("".join(sorted(contents.values())).encode()).hexdigest()


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


@dataclass(slots=True, kw_only=True)
class Todo:
    """Turns a listing into tasks, leaving out what is finished."""

    listing: Sequence[Study]
    writer: CohortWriter
    preparation: Preparation
    root: Path | None  # of the source
    loss_hu: int = 0  # largest error of a stored voxel
    shard: Shard | None = None  # None = all of it
    retry: bool = False  # also what was set aside
    ours: tuple[Study, ...] = field(init=False)  # of the listing, in its order
    _set_aside: set[tuple[str, str]] = field(init=False)
    _finished: set[tuple[str, str]] = field(init=False)
    _over: set[tuple[str, str]] = field(init=False)  # both
    _owners: dict[str, str] = field(init=False)  # volume -> study
    _megabytes: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        shard, name = self.shard, self.preparation.name
        self.ours = tuple(s for s in self.listing if shard is None or shard.holds(s.patient_id))
        self._set_aside = set() if self.retry else self.writer.set_aside(name) - self._arrived()
        self._finished = self.writer.finished(name)
        # Of studies that claim one volume the recorded one owns it, else the first by its id.
        self._owners = self.writer.owners()
        for study in sorted(self.listing, key=lambda study: study.study_id):
            for series in study.series:
                self._owners.setdefault(series.series_id, study.study_id)
        self._set_aside -= self._cleared()
        self._over = self._finished | self._set_aside

    def _arrived(self) -> set[tuple[str, str]]:
        """Which series lacked a file and have it now: a download comes in portions."""
        missing = self.writer.set_aside(self.preparation.name, reason="missing_file")
        return {
            key
            for study in self.ours
            for series in study.series
            if (key := (study.study_id, series.series_id)) in missing
            and all(path.exists() for path in _all_files(series))
        }

    def _cleared(self) -> set[tuple[str, str]]:
        """Which studies the listing alone had set aside, and no longer does: a table was mended."""
        lost = (self.writer.set_aside(self.preparation.name, reason=why) for why in engine.LOST)
        judged = self._set_aside.difference(*lost)
        return {
            key
            for study in self.ours
            if study.series
            and (key := (study.study_id, "")) in judged
            and self._unfit(study, study.series) is None
        }

    def told_here(self, many: Iterable[SetAside]) -> Iterator[SetAside]:
        """Yield what is recorded in this shard of all that the source set aside."""
        patients = {study.study_id: study.patient_id for study in self.listing}
        for told in many:
            if self.shard is None or self.shard.holds(patients.get(told.key, told.key)):
                yield told

    @property
    def elsewhere(self) -> set[str]:
        """Ids of the studies that other shards work on."""
        return {study.study_id for study in self.listing} - {s.study_id for s in self.ours}

    def look_ahead(self, workers: int | None) -> Preflight:
        """Estimate what is left to do."""
        todo = {study.study_id: left for study in self.ours if (left := self._left(study))}
        self._megabytes = {key: megabytes_of(left) for key, left in todo.items()}
        told = look_ahead(
            tuple(todo.values()),
            tuple(self._megabytes.values()),
            self.preparation,
            self.writer.path,
            workers=workers,
        )
        return replace(told, part=f"shard {self.shard}" if self.shard else "")

    def tasks(self, book: Book) -> Iterator[Task]:
        """Yield one task per study that has something left to do; `look_ahead` comes first."""
        for study in self.ours:
            key, left = study.study_id, self._left(study)
            recorded = tuple(s for s in study.series if (key, s.series_id) in self._finished)
            if not left and (study.series or (key, "") in self._set_aside):
                book.skip(study, recorded)
                continue
            unfit = self._unfit(study, left)
            if unfit:
                book.fail(key, "", *unfit)
                continue
            yield Task(
                study=study,
                series=left,
                recorded=recorded,
                megabytes=self._megabytes[key],
                preparation=self.preparation,
                loss_hu=self.loss_hu,
                out=self.writer.path,
                root=self.root,
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
            owner = self._owners[name]
            if owner != study.study_id:
                return "duplicate_key", f"volume {name} already belongs to study {owner}"
            if not name or len(name.encode()) > MAX_ID_CHARS:
                return "unreadable", f"a volume id has {len(name)} bytes, not 1 to {MAX_ID_CHARS}"
        return None


def _all_files(series: Series) -> Iterator[Path]:
    """Yield what preparing a series will open."""
    yield from series.files
    for mask in series.masks.values():
        yield mask.path if isinstance(mask, MaskPart) else mask
