"""The one process that may change a cohort: a lock, batched transactions, nothing half done."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from t3d.cohort.schema import (
    SCHEMA,
    VERSION,
    Failure,
    VolumeRecord,
    compact,
    preparation_from_json,
    preparation_json,
    study_content,
)
from t3d.cohort.shelf import mask_path, sync_folder, volume_path, write_file
from t3d.cohort.store import TABLES_FILE
from t3d.errors import StoreError
from t3d.types import Preparation, Study

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
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # whatever goes wrong in here, the lock is given back
            self._lock = opened.enter_context(_locked(self.path))
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
        try:
            self.commit()
            if error is not None:
                self._clean_up()
        finally:
            self._opened.close()

    def _set_up(self) -> None:
        """Make the tables, or check that they are ours."""
        run = self._connection.execute
        run("PRAGMA journal_mode = DELETE")  # not WAL: cohorts lie on network disks
        run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = ON")
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
        recorded: set[Path] = set()
        rows = self._connection.execute("SELECT volume_id, preparation, masks FROM volume")
        for volume_id, preparation, masks in rows:
            recorded.add(volume_path(self.path, preparation, volume_id))
            for name in json.loads(masks):
                recorded.add(mask_path(self.path, preparation, volume_id, name))
        for folder in ("volumes", "masks"):
            for path in (self.path / folder).glob("*/*"):
                if path.suffix in (".b2nd", ".tmp") and path not in recorded:
                    # A worker that outlived its killed parent may be renaming it just now.
                    path.unlink(missing_ok=True)

    def set_facts(self, facts: Mapping[str, str]) -> None:
        """Record what holds for the whole cohort; what is there already stays."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)", sorted(facts.items())
        )

    def add_preparation(self, preparation: Preparation) -> None:
        """Record a preparation under its name.

        Raises:
            StoreError: The name is taken by another one.
        """
        path = self.path / "preparations" / f"{preparation.name}.json"
        if path.is_file():
            held = preparation_from_json(json.loads(path.read_text("utf-8")))
            if held != preparation:
                raise StoreError(
                    f"cohort {self.path.name}: {preparation.name!r} is there with other settings: "
                    f"{compact(preparation_json(held))}",
                    expected=f"the same settings: {compact(preparation_json(preparation))}",
                    fix="give the new preparation another name",
                )
            return
        told = json.dumps(preparation_json(preparation), indent=1, sort_keys=True) + "\n"
        write_file(path, told.encode())

    def known_studies(self) -> dict[str, tuple[str, str, str]]:
        """Give study_id -> (patient_id, split, content digest) of all recorded studies."""
        rows = self._connection.execute("SELECT study_id, patient_id, split, content FROM study")
        return {study_id: (patient, split, content) for study_id, patient, split, content in rows}

    def finished(self, preparation: str) -> set[tuple[str, str]]:
        """Give (study_id, volume_id) of all volumes prepared this way."""
        rows = self._connection.execute(
            "SELECT study_id, volume_id FROM volume WHERE preparation = ?", (preparation,)
        )
        return set(rows)

    def set_aside(self, preparation: str) -> set[tuple[str, str]]:
        """Give (study_id, volume_id) of all failures; volume_id "" = the whole study."""
        rows = self._connection.execute(
            "SELECT study_id, volume_id FROM failure WHERE preparation = ?", (preparation,)
        )
        return set(rows)

    def owner_of(self, volume_id: str) -> str | None:
        """Say which study a volume id already belongs to."""
        row = self._connection.execute(
            "SELECT study_id FROM volume WHERE volume_id = ? LIMIT 1", (volume_id,)
        ).fetchone()
        return None if row is None else str(row[0])

    def record(self, study: Study, preparation: str, volumes: Iterable[VolumeRecord]) -> None:
        """Record a study and its prepared volumes, whose files are on disk already."""
        with self._whole():
            self._record_study(study)
            for volume in volumes:
                self._record_volume(study.study_id, preparation, volume)
        self._count()

    def _record_volume(self, study_id: str, preparation: str, volume: VolumeRecord) -> None:
        """Record one volume; what was said of it as a failure is over."""
        self._connection.execute(
            "INSERT OR REPLACE INTO volume VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                volume.volume_id,
                preparation,
                study_id,
                volume.sha256,
                compact(volume.shape),
                compact(volume.world_from_voxel),
                compact(volume.steps),
                compact(dict(volume.masks)),
                compact(dict(volume.facts)),
                compact(dict(volume.source)),
            ),
        )
        self._connection.execute(
            "DELETE FROM failure WHERE study_id = ? AND preparation = ? AND volume_id IN ('', ?)",
            (study_id, preparation, volume.volume_id),
        )

    def record_failure(self, failure: Failure) -> None:
        """Record what was set aside and why."""
        told = (failure.study_id, failure.volume_id, failure.preparation)
        with self._whole():
            self._connection.execute(
                "INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)",
                (*told, failure.reason, failure.message),
            )
        self._count()

    def _record_study(self, study: Study) -> None:
        """Record texts and facts once; a second preparation finds them there."""
        run, key = self._connection.execute, study.study_id
        fresh = run(
            "INSERT OR IGNORE INTO study VALUES (?, ?, ?, ?, ?)",
            (key, study.patient_id, study.split, compact(dict(study.facts)), study_content(study)),
        )
        if fresh.rowcount == 0:
            return
        many = self._connection.executemany
        many(
            "INSERT INTO report VALUES (?, ?, ?, ?, ?, ?)",
            [
                (key, n, r.findings, r.impression, r.language, r.status)
                for n, r in enumerate(study.reports)
            ],
        )
        many(
            "INSERT INTO label VALUES (?, ?, ?)",
            [(key, name, value) for name, value in study.labels.items()],
        )
        many(
            "INSERT INTO sentence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (key, n, s.section, s.start, s.end, s.finding, *(s.z_mm or (None,) * 3), s.origin)
                for n, s in enumerate(study.sentences)
            ],
        )
        many(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (key, n, i.finding, int(i.large), i.side, i.place, i.size_mm, i.kind)
                for n, i in enumerate(study.items)
            ],
        )

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Let everything inside become part of the open transaction, or nothing of it."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("SAVEPOINT one")
        whole = False
        try:
            yield
            whole = True
        finally:
            # Also on Ctrl-C: the batch is committed on the way out, without half a study.
            if not whole:
                self._connection.execute("ROLLBACK TO one")
            self._connection.execute("RELEASE one")

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
        self._connection.execute("COMMIT")
        self._waiting = 0


def _locked(path: Path) -> IO[bytes]:
    """Take the writer's lock; the system gives it back when this process ends, however."""
    file = open(path / "cohort.lock", "ab")  # noqa: SIM115 - held as long as the writer lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreError(
            f"cohort {path.name} is being written by another process",
            expected="one writer at a time",
            fix="wait for it to finish, or prepare a shard into its own folder",
        ) from error
    return file
