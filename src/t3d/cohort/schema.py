"""The tables of a cohort, what a row looks like in Python, and the digest over all of them.

Tables are exported in key order, so the digest does not depend on the order of arrival.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from t3d.types import Preparation, Study, Zyx

VERSION = "1"

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
    study_id TEXT, name TEXT, value INTEGER, PRIMARY KEY (study_id, name)) WITHOUT ROWID;
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

EXPORTS: Mapping[str, str] = {
    "meta": "SELECT key, value FROM meta ORDER BY key",
    "study": "SELECT study_id, patient_id, split, facts, content FROM study ORDER BY study_id",
    "report": "SELECT * FROM report ORDER BY study_id, position",
    "volume": "SELECT * FROM volume ORDER BY volume_id, preparation",
    "label": "SELECT * FROM label ORDER BY study_id, name",
    "sentence": "SELECT * FROM sentence ORDER BY study_id, position",
    "slice": "SELECT * FROM slice ORDER BY series_id, instance",
    "item": "SELECT * FROM item ORDER BY study_id, position",
    "box": "SELECT * FROM box ORDER BY volume_id, position",
    "twin": "SELECT * FROM twin ORDER BY study_id",
    # The message is for people and may name a system error; the reason is the fact.
    "failure": "SELECT study_id, volume_id, preparation, reason FROM failure "
    "ORDER BY study_id, volume_id, preparation",
}


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
    facts: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)  # file and fingerprint


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
