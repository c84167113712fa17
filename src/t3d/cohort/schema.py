"""The tables of a cohort, what a row looks like in Python, and the digest over all of them.

Tables are exported in key order, so the digest does not depend on the order of arrival.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from t3d.types import Preparation, Study, Zyx

VERSION = "2"
SOURCE_LABELS = "source"  # origin of the labels that came with the studies
LABELS_FROM = "labels_from"  # key of `meta`: the origin whose labels a study is listed with

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS study (
    study_id TEXT PRIMARY KEY, patient_id TEXT NOT NULL, split TEXT NOT NULL,
    facts TEXT NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS study_split ON study (split, study_id);
CREATE TABLE IF NOT EXISTS report (
    study_id TEXT, position INTEGER, findings TEXT NOT NULL, impression TEXT NOT NULL,
    language TEXT NOT NULL, status TEXT NOT NULL,
    PRIMARY KEY (study_id, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS volume (
    volume_id TEXT, preparation TEXT, study_id TEXT NOT NULL, sha256 TEXT NOT NULL,
    shape TEXT NOT NULL, world_from_voxel TEXT NOT NULL, steps TEXT NOT NULL,
    masks TEXT NOT NULL, facts TEXT NOT NULL, source TEXT NOT NULL,
    PRIMARY KEY (volume_id, preparation)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS volume_study ON volume (study_id, volume_id);
CREATE TABLE IF NOT EXISTS label (
    study_id TEXT, name TEXT, origin TEXT, value INTEGER, report INTEGER NOT NULL,
    section TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    PRIMARY KEY (study_id, name, origin)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sentence (
    study_id TEXT, position INTEGER, section TEXT NOT NULL, start INTEGER NOT NULL,
    stop INTEGER NOT NULL, finding TEXT NOT NULL, z_centre_mm REAL, z_low_mm REAL,
    z_high_mm REAL, origin TEXT NOT NULL, PRIMARY KEY (study_id, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slice (
    series_id TEXT, instance INTEGER, z_mm REAL NOT NULL,
    PRIMARY KEY (series_id, instance)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item (
    study_id TEXT, position INTEGER, finding TEXT NOT NULL, large INTEGER NOT NULL,
    side TEXT NOT NULL, place TEXT NOT NULL, size_mm REAL NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (study_id, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS box (
    volume_id TEXT, position INTEGER, finding TEXT NOT NULL, low_mm TEXT NOT NULL,
    high_mm TEXT NOT NULL, PRIMARY KEY (volume_id, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twin (
    study_id TEXT PRIMARY KEY, twin_of TEXT NOT NULL, finding TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    study_id TEXT, volume_id TEXT, preparation TEXT, reason TEXT NOT NULL,
    message TEXT NOT NULL, PRIMARY KEY (study_id, volume_id, preparation)) WITHOUT ROWID;
"""

_UPGRADE_FROM_1 = """
ALTER TABLE label RENAME TO label_1;
CREATE TABLE label (
    study_id TEXT, name TEXT, origin TEXT, value INTEGER, report INTEGER NOT NULL,
    section TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    PRIMARY KEY (study_id, name, origin)) WITHOUT ROWID;
INSERT INTO label SELECT study_id, name, 'source', value, 0, '', 0, 0 FROM label_1;
DROP TABLE label_1;
UPDATE meta SET value = '2' WHERE key = 'version';
"""

EXPORTS: Mapping[str, str] = {
    "meta": "SELECT key, value FROM meta ORDER BY key",
    "study": "SELECT study_id, patient_id, split, facts, content FROM study ORDER BY study_id",
    "report": "SELECT * FROM report ORDER BY study_id, position",
    "volume": "SELECT * FROM volume ORDER BY volume_id, preparation",
    "label": "SELECT * FROM label ORDER BY study_id, name, origin",
    "sentence": "SELECT * FROM sentence ORDER BY study_id, position",
    "slice": "SELECT * FROM slice ORDER BY series_id, instance",
    "item": "SELECT * FROM item ORDER BY study_id, position",
    "box": "SELECT * FROM box ORDER BY volume_id, position",
    "twin": "SELECT * FROM twin ORDER BY study_id",
    # The message is for people and may name a system error; the reason is the fact.
    "failure": "SELECT study_id, volume_id, preparation, reason FROM failure "
    "ORDER BY study_id, volume_id, preparation",
}

OF_STUDY = ("study", "volume", "failure", "twin", "item", "sentence", "label", "report")
"""Tables with a column `study_id`."""
OF_VOLUME: Mapping[str, str] = {"slice": "series_id", "box": "volume_id"}
"""Tables by volume, and the column that names it."""

Rows = Mapping[str, tuple[tuple[Any, ...], ...]]  # table -> rows as stored


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study as the cohort knows it."""

    study_id: str
    patient_id: str  # unit of every split and interval
    split: str  # "train", "dev", "test" or ""
    volume_ids: tuple[str, ...]  # ordered; every one is there in at least one preparation
    labels: Mapping[str, int | None]  # 0 / 1 / None = not stated
    facts: Mapping[str, str]  # sex, age and other columns of the source


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """What one origin says of one finding of one study, and the place in a report that says so."""

    study_id: str
    name: str
    value: int | None  # 1 present, 0 denied, None = not stated
    report: int = 0  # which of the study's reports
    section: str = ""  # "findings" or "impression"; "" = no place
    start: int = 0  # first character within the section
    end: int = 0  # one past the last character


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A study, or one of its series, that was set aside."""

    study_id: str
    volume_id: str  # "" = the whole study
    preparation: str
    reason: str  # a reason code, e.g. "missing_file"
    message: str  # what a person reads; no names, no paths


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """What is recorded of one prepared volume after its files are safely on disk."""

    volume_id: str
    sha256: str  # of the .b2nd file
    shape: tuple[int, ...]  # (Z, Y, X)
    world_from_voxel: tuple[tuple[float, ...], ...]  # (4, 4), LPS mm
    steps: tuple[str, ...]
    masks: Mapping[str, str] = field(default_factory=dict)  # name -> sha256
    # Mask of a finding -> centre, lowest and highest slice in LPS mm.
    depths: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)  # file and fingerprint
    instances: tuple[tuple[int, float], ...] = ()  # (DICOM instance number, z in LPS mm)
    staged: tuple[Path, ...] = ()  # its files, written but not published yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was removed from a cohort with one patient."""

    studies: tuple[str, ...]
    volumes: tuple[str, ...]
    files: tuple[str, ...]  # relative to the cohort
    rows: Mapping[str, int]  # table -> how many


def compact(value: object) -> str:
    """Write JSON in one form only, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def study_content(study: Study) -> str:
    """Digest of everything a source says of a study, its files aside."""
    told = [
        study.study_id,
        study.patient_id,
        study.split,
        dict(study.facts),
        dict(study.labels),
        [s.series_id for s in study.series],
        *(
            [[getattr(one, f.name) for f in fields(one)] for one in many]
            for many in (study.reports, study.sentences, study.items)
        ),
    ]
    return hashlib.sha256(compact(told).encode()).hexdigest()


def preparation_json(preparation: Preparation) -> dict[str, Any]:
    """Turn a preparation into what its JSON file holds."""
    told = asdict(preparation)
    for name in ("spacing_mm", "size_vox"):
        triple = getattr(preparation, name)
        told[name] = None if triple is None else triple._asdict()
    return told


def preparation_from_json(told: Mapping[str, Any]) -> Preparation:
    """Read a preparation back from its JSON form."""
    spacing, size = told["spacing_mm"], told["size_vox"]
    low, high = told["store_clip_hu"]
    return Preparation(
        name=told["name"],
        spacing_mm=None if spacing is None else Zyx(**spacing),
        size_vox=None if size is None else Zyx(**size),
        fit=told["fit"],
        filter=told["filter"],
        store_clip_hu=(low, high),
    )


def upgrade(connection: sqlite3.Connection) -> None:
    """Give the labels of a cohort of version 1 their origin; all of it or nothing."""
    run = connection.execute
    if not run("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return
    if run("SELECT value FROM meta WHERE key = 'version'").fetchone() != ("1",):
        return
    run("BEGIN IMMEDIATE")
    for statement in _UPGRADE_FROM_1.split(";"):
        if statement.strip():
            run(statement)
    run("COMMIT")


def rows_of(connection: sqlite3.Connection, study_id: str) -> Rows:
    """Give every row of every table that speaks of one study, as it is stored."""
    told = {
        table: connection.execute(f"SELECT * FROM {table} WHERE study_id = ?", (study_id,))
        for table in OF_STUDY
    }
    of_volumes = "IN (SELECT volume_id FROM volume WHERE study_id = ?)"
    for table, column in OF_VOLUME.items():
        query = f"SELECT * FROM {table} WHERE {column} {of_volumes}"
        told[table] = connection.execute(query, (study_id,))
    return {table: tuple(rows) for table, rows in told.items()}


def export(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield every row of every table as one line of text, in key order."""
    for table, query in EXPORTS.items():
        for row in connection.execute(query):
            yield compact([table, *row])


def digest_of(connection: sqlite3.Connection) -> str:
    """Hash all tables; volume and mask files enter through their sha256 columns."""
    total = hashlib.sha256()
    for line in export(connection):
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()
