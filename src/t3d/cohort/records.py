"""What is written into the tables of a cohort, as SQL; whoever calls holds the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace

from t3d.cohort.schema import (
    OF_STUDY,
    OF_VOLUME,
    SOURCE_LABELS,
    LabelRow,
    Rows,
    VolumeRecord,
    compact,
    rows_of,
    study_content,
)
from t3d.errors import StoreError
from t3d.types import Report, Sentence, Study

_AS_ONE = ("study", "report", "sentence", "item", "twin")  # told of a study all at once, or not


def insert_study(
    connection: sqlite3.Connection,
    study: Study,
    depths: Mapping[str, tuple[float, float, float]],
) -> None:
    """Record texts and facts once; a second preparation finds them there.

    Args:
        connection: In a transaction.
        study: As the source lists it.
        depths: Origin of a sentence -> where its mask lies, for sentences without a place.
    """
    key = study.study_id
    fresh = connection.execute(
        "INSERT OR IGNORE INTO study VALUES (?, ?, ?, ?, ?)",
        (key, study.patient_id, study.split, compact(dict(study.facts)), study_content(study)),
    )
    if fresh.rowcount == 0:
        return
    many = connection.executemany
    many(
        "INSERT INTO report VALUES (?, ?, ?, ?, ?, ?)",
        [
            (key, n, r.findings, r.impression, r.language, r.status)
            for n, r in enumerate(study.reports)
        ],
    )
    many(
        "INSERT INTO label VALUES (?, ?, ?, ?, 0, '', 0, 0)",
        [(key, name, SOURCE_LABELS, value) for name, value in study.labels.items()],
    )
    placed = [replace(s, z_mm=s.z_mm or depths.get(s.origin)) for s in study.sentences]
    _insert_sentences(connection, key, placed)
    many(
        "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (key, n, i.finding, int(i.large), i.side, i.place, i.size_mm, i.kind)
            for n, i in enumerate(study.items)
        ],
    )


def _insert_sentences(
    connection: sqlite3.Connection, study_id: str, sentences: Iterable[Sentence]
) -> None:
    """Record sentences in their order."""
    connection.executemany(
        "INSERT INTO sentence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (study_id, n, s.section, s.start, s.end, s.finding)
            + (s.z_mm or (None, None, None))
            + (s.origin,)
            for n, s in enumerate(sentences)
        ],
    )


def insert_volume(
    connection: sqlite3.Connection, study_id: str, preparation: str, volume: VolumeRecord
) -> None:
    """Record one volume; what was said of it as a failure is over."""
    connection.execute(
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
    connection.executemany(
        "INSERT OR REPLACE INTO slice VALUES (?, ?, ?)",
        [(volume.volume_id, number, z_mm) for number, z_mm in volume.instances],
    )
    connection.execute(
        "DELETE FROM failure WHERE study_id = ? AND preparation = ? AND volume_id IN ('', ?)",
        (study_id, preparation, volume.volume_id),
    )


def replace_texts(
    connection: sqlite3.Connection,
    study_id: str,
    reports: Iterable[Report],
    sentences: Iterable[Sentence],
) -> None:
    """Replace the texts of a study's reports, in their order, and all its sentences."""
    connection.executemany(
        "UPDATE report SET findings = ?, impression = ? WHERE study_id = ? AND position = ?",
        [(r.findings, r.impression, study_id, n) for n, r in enumerate(reports)],
    )
    connection.execute("DELETE FROM sentence WHERE study_id = ?", (study_id,))
    _insert_sentences(connection, study_id, sentences)


def replace_labels(
    connection: sqlite3.Connection, origin: str, rows: Iterable[LabelRow], known: set[str]
) -> int:
    """Replace what one origin says; gives the number of rows.

    Raises:
        StoreError: The origin is that of the source, or a row's study is not known.
    """
    if origin in ("", SOURCE_LABELS):
        raise StoreError(
            f"labels of origin {origin!r} cannot be written",
            expected="an origin of their own; labels of the source stay as they came",
            fix="give another origin",
        )
    count = 0
    connection.execute("DELETE FROM label WHERE origin = ?", (origin,))
    for row in rows:
        if row.study_id not in known:
            raise StoreError(
                "labels for a study that is not recorded in the cohort",
                expected="studies as `Cohort.studies` lists them",
                fix="leave out the labels of other studies",
            )
        place = (row.report, row.section, row.start, row.end)
        connection.execute(
            "INSERT INTO label VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row.study_id, row.name, origin, row.value, *place),
        )
        count += 1
    return count


def remove_patient(connection: sqlite3.Connection, patient_id: str) -> dict[str, int]:
    """Delete a patient's rows from every table, those that others hang on last; count them."""
    chosen = "SELECT study_id FROM study WHERE patient_id = ?"
    of_them = f"IN ({chosen})"
    of_volumes = f"IN (SELECT volume_id FROM volume WHERE study_id {of_them})"
    where = {table: f"{column} {of_volumes}" for table, column in OF_VOLUME.items()}
    where |= dict.fromkeys(reversed(OF_STUDY), f"study_id {of_them}")
    where["twin"] += f" OR twin_of {of_them}"
    where["study"] = "patient_id = ?"
    removed = {}
    for table, rule in where.items():
        given = (patient_id,) * rule.count("?")
        removed[table] = connection.execute(f"DELETE FROM {table} WHERE {rule}", given).rowcount
    return {table: count for table, count in removed.items() if count}


def adopt(
    connection: sqlite3.Connection, study_id: str, brought: Rows, preparations: Iterable[str]
) -> bool:
    """Add what another cohort records of a study to what is recorded here.

    Args:
        connection: In a transaction.
        study_id: The study, or what was set aside under its own key.
        brought: `rows_of` the other cohort.
        preparations: Those of the other cohort: what it set aside counts for them.

    Returns:
        Whether anything is new here.

    Raises:
        StoreError: Both speak of the same and say different things.
    """
    held = rows_of(connection, study_id)
    _refuse_clash(connection, study_id, held, brought)
    here = {(row[0], row[1]) for row in (*held["volume"], *brought["volume"])}
    failures = {row for row in brought["failure"] if (row[1], row[2]) not in here}
    before = {row for row in held["failure"] if row[2] in set(preparations)}
    connection.executemany(
        "DELETE FROM failure WHERE study_id = ? AND volume_id = ? AND preparation = ?",
        [row[:3] for row in before - failures],
    )
    new = {table: set(rows) - set(held[table]) for table, rows in brought.items()}
    new["failure"] = failures - before
    for table, rows in new.items():
        for row in rows:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)
    return any(new.values()) or before != failures


def _refuse_clash(connection: sqlite3.Connection, study_id: str, held: Rows, brought: Rows) -> None:
    """Raise where two cohorts say different things of one study, or of one volume."""
    clash = ""
    if held["study"] and brought["study"]:
        clash = next((t for t in _AS_ONE if set(held[t]) != set(brought[t])), "")
    keys = {"volume": 2, "label": 3, "slice": 2, "box": 2}
    for table, count in keys.items():
        told = {row[:count]: row for row in held[table]}
        if any(told.get(row[:count], row) != row for row in brought[table]):
            clash = clash or table
    if clash:
        raise StoreError(
            f"study {study_id} is there already with another {clash}",
            expected="the same words, labels and volumes in both cohorts",
            fix="merge into a new folder; mine, label or remove identifiers after merging",
        )
    for volume_id in sorted({str(row[0]) for row in brought["volume"]}):
        query = "SELECT study_id FROM volume WHERE volume_id = ? AND study_id != ? LIMIT 1"
        owner = connection.execute(query, (volume_id, study_id)).fetchone()
        if owner is not None:
            raise StoreError(
                f"volume {volume_id} of study {study_id} belongs to study {owner[0]} here",
                expected="each volume in one study",
                fix="correct the source, and prepare its shards anew",
            )
