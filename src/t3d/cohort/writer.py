"""The one process that may change a cohort: a lock, batched transactions, nothing half done.

Workers only stage files; this process publishes and records them. So a worker whose parent was
killed can leave a stray temporary file behind, but never change what a later run has written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from t3d.cohort import records
from t3d.cohort.schema import (
    LABELS_FROM,
    SCHEMA,
    VERSION,
    Failure,
    Forgotten,
    LabelRow,
    Rows,
    VolumeRecord,
    compact,
    preparation_from_json,
    preparation_json,
    upgrade,
)
from t3d.cohort.shards import LISTED, SHARD, Shard
from t3d.cohort.shelf import (
    STAGED,
    mask_path,
    publish,
    share,
    sync_folder,
    volume_path,
    write_file,
    writing,
)
from t3d.cohort.store import TABLES_FILE
from t3d.errors import StoreError
from t3d.types import Preparation, Report, Sentence, Study

CACHE_FOLDER = "cache"  # what others computed from the volumes; made again when asked for

_BATCH = 256  # studies per transaction: each one costs two syncs


class CohortWriter:
    """Opens or creates a cohort for writing; a context manager.

    Records are committed in batches, after the files they speak of are on disk. Leaving the
    block commits what is left, whatever the reason for leaving.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._waiting = 0

    def __enter__(self) -> CohortWriter:
        with writing(f"cohort {self.path.name}"):
            self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # whatever goes wrong in here, the lock is given back
            self._lock = opened.enter_context(locked(self.path))
            tables = self.path / TABLES_FILE
            self._connection = opened.enter_context(
                closing(sqlite3.connect(tables, isolation_level=None, timeout=60.0))
            )
            try:
                self._set_up()
            except sqlite3.DatabaseError as error:
                raise StoreError(
                    f"cohort {self.path.name}: its tables cannot be opened ({error})",
                    expected="a SQLite file written by prepare",
                    fix="prepare into a new folder",
                ) from error
            self._clean_up()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._opened:
            try:
                self.commit()
            finally:
                self._clean_up()

    def _set_up(self) -> None:
        """Make the tables, or check that they are ours."""
        run = self._connection.execute
        run("PRAGMA journal_mode = DELETE")  # not WAL: cohorts lie on network disks
        run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = ON")
        upgrade(self._connection)
        for statement in SCHEMA.split(";"):
            if statement.strip():
                run(statement)
        run("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (VERSION,))
        (found,) = run("SELECT value FROM meta WHERE key = 'version'").fetchone()
        if found != VERSION:
            raise StoreError(
                f"cohort {self.path.name} has version {found}",
                expected=f"version {VERSION}",
                fix="prepare into a new folder",
            )

    def _clean_up(self) -> None:
        """Remove files that an interrupted run wrote but did not record; they will come again."""
        rows = self._connection.execute("SELECT volume_id, preparation, masks FROM volume")
        recorded = {path for row in rows for path in files_of(self.path, *row)}
        for folder in ("volumes", "masks"):
            for path in (self.path / folder).glob("*/*"):
                if path.suffix in (".b2nd", STAGED) and path not in recorded:
                    path.unlink(missing_ok=True)

    def agree_on(self, facts: Mapping[str, str]) -> None:
        """Record what holds for the whole cohort, which must be what it says already.

        Raises:
            StoreError: It says something else.
        """
        for key, value in facts.items():
            found = self._fact(key)
            if found not in (None, value):
                raise StoreError(
                    f"cohort {self.path.name} has another {key} than what is merged into it",
                    expected="cohorts of one source, labelled alike",
                    fix="merge into a new folder",
                )
        self.set_facts(facts)

    def set_facts(self, facts: Mapping[str, str]) -> None:
        """Record what holds for the whole cohort; what is there already stays."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)", sorted(facts.items())
        )

    def be_shard(self, shard: Shard | None) -> None:
        """Let this cohort be one shard of a source, or none, as it has been from its beginning.

        Raises:
            StoreError: It has been another.
        """
        found = self._fact(SHARD)
        asked = "" if shard is None else str(shard)
        if found is None and (shard is None or not self.known_studies()):
            if shard is not None:
                self.set_facts({SHARD: asked})
        elif found != asked:
            raise StoreError(
                f"cohort {self.path.name} is {f'shard {found}' if found else 'no shard'}",
                expected=f"shard {asked}" if asked else "a cohort that is no shard",
                fix="prepare into another folder, or ask for the shard that it is",
            )

    def finish_listing(self, preparation: str, listed: str) -> None:
        """Record of a shard that it was worked through to its end, and what the listing was."""
        with self._whole():
            self._set_meta(LISTED + preparation, listed)
        self.commit()

    def _fact(self, key: str) -> str | None:
        """Give one fact of the cohort."""
        query = "SELECT value FROM meta WHERE key = ?"
        row = self._connection.execute(query, (key,)).fetchone()
        return None if row is None else str(row[0])

    def add_preparation(self, preparation: Preparation, *, loss_hu: int = 0) -> None:
        """Record a preparation under its name, and how exactly its volumes are kept.

        Raises:
            StoreError: The name is taken by another one.
        """
        path = self.path / "preparations" / f"{preparation.name}.json"
        told = preparation_json(preparation) | ({"loss_hu": loss_hu} if loss_hu else {})
        if not path.is_file():
            write_file(path, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
            return
        there = json.loads(path.read_text("utf-8"))
        held = there | preparation_json(preparation_from_json(there))
        if compact(held) != compact(told):
            raise StoreError(
                f"cohort {self.path.name}: {preparation.name!r} is there with other settings: "
                f"{compact(held)}",
                expected=f"the same settings: {compact(told)}",
                fix="give the new preparation another name",
            )

    def known_studies(self) -> dict[str, tuple[str, str, str]]:
        """Give study_id -> (patient_id, split, content digest) of all recorded studies."""
        rows = self._connection.execute("SELECT study_id, patient_id, split, content FROM study")
        return {study_id: (patient, split, content) for study_id, patient, split, content in rows}

    def finished(self, preparation: str) -> set[tuple[str, str]]:
        """Give (study_id, volume_id) of all volumes prepared this way whose files are there."""
        rows = self._connection.execute(
            "SELECT study_id, volume_id, masks FROM volume WHERE preparation = ?", (preparation,)
        )
        return {
            (study_id, volume_id)
            for study_id, volume_id, masks in rows
            if all(path.is_file() for path in files_of(self.path, volume_id, preparation, masks))
        }

    def set_aside(self, preparation: str, *, reason: str = "") -> set[tuple[str, str]]:
        """Give (study_id, volume_id) of failures, all or of one reason; "" = the whole study."""
        rows = self._connection.execute(
            "SELECT study_id, volume_id FROM failure WHERE preparation = ? AND ? IN ('', reason)",
            (preparation, reason),
        )
        return set(rows)

    def owners(self) -> dict[str, str]:
        """Say which study each recorded volume belongs to."""
        return dict(self._connection.execute("SELECT DISTINCT volume_id, study_id FROM volume"))

    def record(self, study: Study, preparation: str, volumes: Iterable[VolumeRecord]) -> None:
        """Publish the files of prepared volumes and record them with their study."""
        volumes = tuple(volumes)
        depths = {f"mask:{name}": z for one in volumes for name, z in one.depths.items()}
        with self._whole():
            records.insert_study(self._connection, study, depths)
            for volume in volumes:
                for staged in volume.staged:
                    publish(staged)
                records.insert_volume(self._connection, study.study_id, preparation, volume)
        self._count()

    def record_failure(self, failure: Failure) -> None:
        """Record what was set aside and why; of a series, so that its study is no longer, whole."""
        told = (failure.study_id, failure.volume_id, failure.preparation)
        with self._whole():
            if failure.volume_id:
                self._connection.execute(
                    "DELETE FROM failure WHERE study_id = ? AND preparation = ? AND volume_id = ''",
                    (failure.study_id, failure.preparation),
                )
            self._connection.execute(
                "INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)",
                (*told, failure.reason, failure.message),
            )
        self._count()

    def adopt(self, study_id: str, brought: Rows, preparations: Iterable[str], where: Path) -> bool:
        """Take over all that another cohort has of a study: its rows, and its files checked.

        Args:
            study_id: The study, or the key of what was set aside.
            brought: `rows_of` the other cohort.
            preparations: Those of the other cohort.
            where: Its folder.

        Returns:
            Whether anything is new here.

        Raises:
            StoreError: The two contradict each other, or a file there is lost or damaged.
        """
        with self._whole():
            new = records.adopt(self._connection, study_id, brought, preparations)
            for volume_id, preparation, _, sha256, *_, masks, _, _ in brought["volume"]:
                digests = (sha256, *json.loads(masks).values())
                there = files_of(where, volume_id, preparation, masks)
                here = files_of(self.path, volume_id, preparation, masks)
                for file, path, digest in zip(there, here, digests, strict=True):
                    if not path.is_file():
                        share(file, path, digest)
                        new = True
        self._count()
        return new

    def forget_failures(self, preparation: str, keys: Set[str]) -> None:
        """Take back what was set aside under some keys, if anything was."""
        found = {told for told in self.set_aside(preparation) if told[0] in keys}
        with self._whole():
            self._connection.executemany(
                "DELETE FROM failure WHERE study_id = ? AND volume_id = ? AND preparation = ?",
                [(*told, preparation) for told in found],
            )

    def restate(
        self, study_id: str, reports: Iterable[Report], sentences: Iterable[Sentence]
    ) -> None:
        """Replace the texts of a study's reports and all its sentences, or change nothing.

        What the source said stays the study's content, so that preparing from it goes on.

        Args:
            study_id: Recorded here.
            reports: As many as were recorded, in their order.
            sentences: In their order.
        """
        with self._whole():
            records.replace_texts(self._connection, study_id, reports, sentences)
        self._count()

    def put_labels(self, origin: str, rows: Iterable[LabelRow], *, told: str = "") -> int:
        """Record what one origin says of the studies; what it said before is replaced.

        Args:
            origin: Who says so, e.g. "rule/ct_rate18"; never that of the source's own labels.
            rows: At most one for each study and finding; studies must be recorded here.
            told: How the labels were made; kept among the cohort's facts.

        Returns:
            How many rows were recorded.

        Raises:
            StoreError: The origin is that of the source, or a row's study is not here.
        """
        known = set(self.known_studies())
        with self._whole():
            count = records.replace_labels(self._connection, origin, rows, known)
            self._set_meta(f"labels/{origin}", told)
        self.commit()
        return count

    def list_labels_of(self, origin: str) -> None:
        """Let studies be listed, and models be trained, with the labels of one origin."""
        with self._whole():
            self._set_meta(LABELS_FROM, origin)
        self.commit()

    def _set_meta(self, key: str, value: str) -> None:
        """Record a fact of the cohort, or replace it."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def forget_patient(self, patient_id: str) -> Forgotten:
        """Remove a patient: rows (overwritten in the file), volumes, masks, and all caches.

        Rows go first, in one transaction; files that a crash leaves are removed when the cohort
        is next opened for writing. Preparing the same source again brings the patient back. Of
        studies that were only set aside no patient is on record: their rows of `failure` stay.

        Args:
            patient_id: As listed in `StudyRow.patient_id`.

        Returns:
            What was removed.

        Raises:
            StoreError: No study of that patient is here.
        """
        self.commit()
        chosen = "SELECT study_id FROM study WHERE patient_id = ?"
        studies = self._column(chosen, patient_id)
        if not studies:
            raise StoreError(
                f"cohort {self.path.name}: no study of the patient named",
                expected="a patient_id as `Cohort.studies` lists it",
                fix="check the id; a patient whose studies were all set aside is not recorded",
            )
        of_them = f"WHERE study_id IN ({chosen})"
        volumes = self._column(f"SELECT DISTINCT volume_id FROM volume {of_them}", patient_id)
        query = f"SELECT volume_id, preparation, masks FROM volume {of_them}"
        held = self._connection.execute(query, (patient_id,)).fetchall()
        files = [path for row in held for path in files_of(self.path, *row)]
        with self._whole():
            rows = records.remove_patient(self._connection, patient_id)
        self.commit()
        for path in files:
            path.unlink(missing_ok=True)
        if (self.path / CACHE_FOLDER).is_dir():
            shutil.rmtree(self.path / CACHE_FOLDER)
            files.append(self.path / CACHE_FOLDER)
        names = sorted(path.relative_to(self.path).as_posix() for path in files)
        return Forgotten(studies=studies, volumes=volumes, files=tuple(names), rows=rows)

    def _column(self, query: str, *given: str) -> tuple[str, ...]:
        """Read one sorted column."""
        return tuple(sorted(str(value) for (value,) in self._connection.execute(query, given)))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Let everything inside become part of the open transaction, or nothing of it."""
        with self._told():
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("SAVEPOINT one")
            whole = False
            try:
                yield
                whole = True
            finally:
                # Also on Ctrl-C: the batch is committed on the way out, without half a study.
                # A full disk may have ended the transaction, and the savepoint with it.
                if not whole and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO one")
                if self._connection.in_transaction:
                    self._connection.execute("RELEASE one")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite says against writing into an error that says how to go on."""
        try:
            yield
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StoreError(
                f"cohort {self.path.name}: its tables cannot be written ({error})",
                expected="a disk with room, and permission to write",
                fix="free some space, then run again: it goes on where it was",
            ) from error

    def _count(self) -> None:
        """Commit every so many records."""
        self._waiting += 1
        if self._waiting >= _BATCH:
            self.commit()

    def commit(self) -> None:
        """Make everything recorded so far last; renames of the files first."""
        if not self._connection.in_transaction:
            return
        for folder in ("volumes", "masks"):
            if (self.path / folder).is_dir():
                for entry in os.scandir(self.path / folder):
                    sync_folder(Path(entry.path))
        with self._told():
            self._connection.execute("COMMIT")
        self._waiting = 0


def files_of(cohort: Path, volume_id: str, preparation: str, masks: str) -> Iterator[Path]:
    """Say where the files of one row of `volume` lie: the volume, then its masks."""
    yield volume_path(cohort, preparation, volume_id)
    for name in json.loads(masks):
        yield mask_path(cohort, preparation, volume_id, name)


def locked(path: Path) -> IO[bytes]:
    """Take the writer's lock; the system gives it back when this process ends, however."""
    with writing(f"cohort {path.name}"):
        file = open(path / "cohort.lock", "ab")  # noqa: SIM115 - held as long as the writer lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise StoreError(
                f"cohort {path.name} cannot be locked: {error.strerror}",
                expected="a file system that knows locks: two writers would damage a cohort",
                fix="prepare on a local disk and copy the cohort",
            ) from error
        raise StoreError(
            f"cohort {path.name} is being written by another process",
            expected="one writer at a time",
            fix="wait for it to finish, or prepare a shard into its own folder",
        ) from error
    return file
