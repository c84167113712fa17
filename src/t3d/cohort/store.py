"""A cohort on disk, read only: studies, reports and prepared volumes.

    NAME/cohort.sqlite                      every table (`schema.py`)
    NAME/volumes/<preparation>/<id>.b2nd    int16 HU, Blosc2
    NAME/masks/<preparation>/<id>.<name>.b2nd
    NAME/preparations/<name>.json

A `Cohort` is only a path: it pickles, and each thread of each process opens the tables anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from t3d.cohort.schema import (
    EXPORTS,
    LABELS_FROM,
    SOURCE_LABELS,
    VERSION,
    Failure,
    LabelRow,
    Rows,
    StudyRow,
    VolumeRecord,
    digest_of,
    preparation_from_json,
    rows_of,
)
from t3d.cohort.shelf import mask_path, read_array, read_box, volume_path
from t3d.errors import StoreError
from t3d.types import Item, Preparation, Report, Sentence, Volume, Zyx

if TYPE_CHECKING:
    from numpy import float64, int16, uint8
    from numpy.typing import NDArray

TABLES_FILE = "cohort.sqlite"


class Cohort:
    """Studies with reports and labels on disk, prepared in one or more ways.

    Example:
        >>> cohort = Cohort.open("demo/cohort")  # doctest: +SKIP
        >>> cohort.volume(cohort.studies("test")[0].volume_ids[0])  # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    @classmethod
    def open(cls, path: str | Path) -> Cohort:
        """Open a cohort folder for reading.

        Raises:
            StoreError: The folder holds no cohort, or one of another version.
        """
        folder = Path(path)
        if not (folder / TABLES_FILE).is_file():
            raise StoreError(
                f"no cohort at {folder}: {TABLES_FILE} is missing",
                expected="a folder written by prepare",
                fix="run `t3d prepare` first, or check the path",
            )
        cohort = cls(folder)
        version = cohort.facts.get("version", "")
        if version != VERSION:
            raise StoreError(
                f"cohort {folder.name} has version {version or 'unknown'}",
                expected=f"version {VERSION}",
                fix="prepare it again with this release",
            )
        return cohort

    def __reduce__(self) -> tuple[object, ...]:
        return Cohort, (self.path,)

    def __repr__(self) -> str:
        return f"Cohort({str(self.path)!r})"

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one query on this thread's own read-only connection."""
        held = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            held = (os.getpid(), _connect(self.path / TABLES_FILE))
            self._local.held = held
        try:
            return list(held[1].execute(query, values))
        except sqlite3.Error as error:
            raise StoreError(
                f"cohort {self.path.name}: its tables cannot be read ({error})",
                expected="a readable SQLite file, with no half-written change beside it",
                fix="run prepare on it again: opening it for writing repairs a cut-off change",
            ) from error

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        held = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            held[1].close()
        self._local.held = None

    @property
    def facts(self) -> Mapping[str, str]:
        """What holds for the whole cohort: version, source kind, licence, citation."""
        return MappingProxyType(dict(self._rows(EXPORTS["meta"])))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many rows each table has."""
        return MappingProxyType(
            {name: self._rows(f"SELECT COUNT(*) FROM {name}")[0][0] for name in EXPORTS}
        )

    @property
    def digest(self) -> str:
        """sha256 over volume files and tables in key order.

        Files enter through the sha256 taken when they were written; `verify` reads them again.
        """
        self._rows("SELECT 1")
        return digest_of(self._local.held[1])

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """The preparations this cohort holds, by name."""
        files = sorted((self.path / "preparations").glob("*.json"))
        found = (preparation_from_json(json.loads(f.read_text("utf-8"))) for f in files)
        return MappingProxyType({p.name: p for p in found})

    def studies(self, split: str | None = None, *, labels_of: str = "") -> tuple[StudyRow, ...]:
        """List the studies that have at least one volume, ordered by study_id.

        Args:
            split: "train", "dev", "test", "" (no split given), or None for all.
            labels_of: Whose labels to list; "" = those the cohort was set to, which are the
                source's unless `t3d label` was told otherwise.
        """
        origin = labels_of or self.facts.get(LABELS_FROM, SOURCE_LABELS)
        where = "" if split is None else " WHERE split = ?"
        given = () if split is None else (split,)
        volumes: dict[str, list[str]] = {}
        for study_id, volume_id in self._rows(
            "SELECT DISTINCT study_id, volume_id FROM volume ORDER BY volume_id"
        ):
            volumes.setdefault(study_id, []).append(volume_id)
        labels: dict[str, dict[str, int | None]] = {}
        listed = "SELECT study_id, name, value FROM label WHERE origin = ?"
        for study_id, name, value in self._rows(listed, origin):
            labels.setdefault(study_id, {})[name] = value
        query = f"SELECT study_id, patient_id, split, facts FROM study{where} ORDER BY study_id"
        return tuple(
            StudyRow(
                study_id=study_id,
                patient_id=patient_id,
                split=of_split,
                volume_ids=tuple(volumes.get(study_id, ())),
                labels=labels.get(study_id, {}),
                facts=json.loads(facts),
            )
            for study_id, patient_id, of_split, facts in self._rows(query, *given)
        )

    def labels(self, origin: str) -> tuple[LabelRow, ...]:
        """Give what one origin says, by study and finding; () = nothing."""
        rows = self._rows(
            "SELECT study_id, name, value, report, section, start, stop FROM label "
            "WHERE origin = ? ORDER BY study_id, name",
            origin,
        )
        return tuple(
            LabelRow(
                study_id=study_id,
                name=name,
                value=value,
                report=report,
                section=section,
                start=start,
                end=stop,
            )
            for study_id, name, value, report, section, start, stop in rows
        )

    @property
    def label_origins(self) -> tuple[str, ...]:
        """Who has said anything of the findings; sorted."""
        return tuple(sorted(o for (o,) in self._rows("SELECT DISTINCT origin FROM label")))

    def _preparation(self, name: str | None) -> str:
        """Name the preparation meant, where only one can be meant."""
        known = sorted(p.stem for p in (self.path / "preparations").glob("*.json"))
        if name is None and len(known) == 1:
            return known[0]
        if name in known:
            return str(name)
        raise StoreError(
            f"cohort {self.path.name}: no preparation named"
            if name is None
            else f"cohort {self.path.name}: no preparation {name!r}",
            expected=f"one of {', '.join(known) or 'none at all'}",
            fix="name one of them, or add it with `t3d prepare --preparation`",
        )

    def _volume_row(self, volume_id: str, preparation: str, what: str) -> tuple[Any, ...]:
        """Read columns of one prepared volume."""
        rows = self._rows(
            f"SELECT {what} FROM volume WHERE volume_id = ? AND preparation = ?",
            volume_id,
            preparation,
        )
        if not rows:
            raise StoreError(
                f"cohort {self.path.name}: volume {volume_id} is not there as {preparation!r}",
                expected="a volume listed by studies() and prepared this way",
                fix="see failures() for why it was set aside, or prepare it",
            )
        return rows[0]

    def volume(self, volume_id: str, preparation: str | None = None) -> Volume:
        """Read one prepared volume whole.

        Args:
            volume_id: As listed in `StudyRow.volume_ids`.
            preparation: Its name; None where the cohort has only one.

        Returns:
            int16 HU, axes (z, y, x) to Superior, Posterior, Left.

        Raises:
            StoreError: No such volume or preparation, or its file is damaged.
        """
        import numpy as np

        name = self._preparation(preparation)
        matrix, steps, shape = self._volume_row(volume_id, name, "world_from_voxel, steps, shape")
        return Volume(
            volume_id=volume_id,
            voxels=read_array(volume_path(self.path, name, volume_id), json.loads(shape)),
            world_from_voxel=np.array(json.loads(matrix), dtype=np.float64),
            steps=tuple(json.loads(steps)),
        )

    def crop(
        self,
        volume_id: str,
        low: Zyx[int],
        high: Zyx[int],
        preparation: str | None = None,
    ) -> NDArray[int16]:
        """Read a box of a prepared volume and decompress little else.

        Args:
            volume_id: As listed in `StudyRow.volume_ids`.
            low: First voxel of the box, inside the volume.
            high: One past its last voxel.
            preparation: Its name; None where the cohort has only one.

        Returns:
            int16 HU of shape high - low.

        Raises:
            StoreError: The box is empty or leaves the volume, or as for `volume`.
        """
        name = self._preparation(preparation)
        (told,) = self._volume_row(volume_id, name, "shape")
        shape = json.loads(told)
        if not all(0 <= a < b <= n for a, b, n in zip(low, high, shape, strict=True)):
            raise StoreError(
                f"volume {volume_id}: box {tuple(low)} to {tuple(high)} leaves the volume",
                expected=f"0 <= low < high <= {tuple(shape)} on each axis (z, y, x)",
                fix="cut the box to the volume first",
            )
        path = volume_path(self.path, name, volume_id)
        box: NDArray[int16] = read_box(path, low, high, shape)
        return box

    def world_from_voxel(self, volume_id: str, preparation: str | None = None) -> NDArray[float64]:
        """Give a prepared volume's (4, 4) matrix, (z, y, x, 1) to LPS mm, without opening it."""
        import numpy as np

        name = self._preparation(preparation)
        (matrix,) = self._volume_row(volume_id, name, "world_from_voxel")
        return np.array(json.loads(matrix), dtype=np.float64)

    def shape(self, volume_id: str, preparation: str | None = None) -> Zyx[int]:
        """Give the size of a prepared volume in voxels without opening it."""
        (told,) = self._volume_row(volume_id, self._preparation(preparation), "shape")
        return Zyx(*json.loads(told))

    def mask_names(self, volume_id: str, preparation: str | None = None) -> tuple[str, ...]:
        """List the masks a prepared volume has."""
        (told,) = self._volume_row(volume_id, self._preparation(preparation), "masks")
        return tuple(json.loads(told))

    def mask(
        self, volume_id: str, name: str, preparation: str | None = None
    ) -> NDArray[uint8] | None:
        """Read one mask on the volume's grid; None if the volume has no such mask.

        Returns:
            uint8 labels (Z, Y, X), 0 = nothing.
        """
        held = self._preparation(preparation)
        if name not in self.mask_names(volume_id, held):
            return None
        path = mask_path(self.path, held, volume_id, name)
        labels: NDArray[uint8] = read_array(path, self.shape(volume_id, held))
        return labels

    def report(self, study_id: str) -> Report | None:
        """Give the study's first report, or None if it has none."""
        reports = self.reports(study_id)
        return reports[0] if reports else None

    def reports(self, study_id: str) -> tuple[Report, ...]:
        """Give all reports of a study in the source's order."""
        rows = self._rows(
            "SELECT findings, impression, language, status FROM report "
            "WHERE study_id = ? ORDER BY position",
            study_id,
        )
        return tuple(
            Report(findings=findings, impression=impression, language=language, status=status)
            for findings, impression, language, status in rows
        )

    def sentences(self, study_id: str) -> tuple[Sentence, ...]:
        """Give the sentences whose place is known, in the source's order."""
        rows = self._rows(
            "SELECT section, start, stop, finding, z_centre_mm, z_low_mm, z_high_mm, origin "
            "FROM sentence WHERE study_id = ? ORDER BY position",
            study_id,
        )
        return tuple(
            Sentence(
                section=section,
                start=start,
                end=stop,
                finding=finding,
                z_mm=None if centre is None else (centre, low, high),
                origin=origin,
            )
            for section, start, stop, finding, centre, low, high, origin in rows
        )

    def slices(self, series_id: str) -> tuple[tuple[int, float], ...]:
        """Give (instance number, z in LPS mm) of a DICOM series, by number; () = none known."""
        query = "SELECT instance, z_mm FROM slice WHERE series_id = ? ORDER BY instance"
        return tuple((number, z_mm) for number, z_mm in self._rows(query, series_id))

    def volume_facts(self, volume_id: str, preparation: str | None = None) -> Mapping[str, str]:
        """Give what its files and its source say of a volume: kernel, manufacturer, phase."""
        (told,) = self._volume_row(volume_id, self._preparation(preparation), "facts")
        return MappingProxyType(json.loads(told))

    def volumes(self, study_id: str) -> tuple[VolumeRecord, ...]:
        """Give what is recorded of a study's prepared volumes, by volume, then preparation."""
        rows = self._rows(
            "SELECT volume_id, sha256, shape, world_from_voxel, steps, masks, facts, source "
            "FROM volume WHERE study_id = ? ORDER BY volume_id, preparation",
            study_id,
        )
        return tuple(_record(name, sha256, *map(json.loads, told)) for name, sha256, *told in rows)

    def items(self, study_id: str) -> tuple[Item, ...]:
        """Give the known occurrences of findings (phantoms, annotations)."""
        rows = self._rows(
            "SELECT finding, large, side, place, size_mm, kind FROM item "
            "WHERE study_id = ? ORDER BY position",
            study_id,
        )
        return tuple(
            Item(
                finding=finding,
                large=bool(large),
                side=side,
                place=place,
                size_mm=size_mm,
                kind=kind,
            )
            for finding, large, side, place, size_mm, kind in rows
        )

    def rows(self, study_id: str) -> Rows:
        """Give every row that speaks of one study, as it is stored, by table."""
        self._rows("SELECT 1")
        return rows_of(self._local.held[1], study_id)

    def failures(self) -> tuple[Failure, ...]:
        """List what was set aside, in key order."""
        rows = self._rows(
            "SELECT study_id, volume_id, preparation, reason, message FROM failure "
            "ORDER BY study_id, volume_id, preparation"
        )
        return tuple(
            Failure(study_id=s, volume_id=v, preparation=p, reason=r, message=m)
            for s, v, p, r, m in rows
        )

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Yield every recorded file with the sha256 it should have."""
        rows = self._rows("SELECT volume_id, preparation, sha256, masks FROM volume")
        for volume_id, preparation, sha256, masks in rows:
            yield volume_path(self.path, preparation, volume_id), sha256
            for name, of_mask in json.loads(masks).items():
                yield mask_path(self.path, preparation, volume_id, name), of_mask

    def sources(self, preparation: str | None = None) -> Mapping[str, Mapping[str, str]]:
        """Give each volume's source file (relative) and its fingerprint."""
        rows = self._rows(
            "SELECT volume_id, source FROM volume WHERE preparation = ? ORDER BY volume_id",
            self._preparation(preparation),
        )
        return MappingProxyType({volume_id: json.loads(told) for volume_id, told in rows})

    def verify(self) -> tuple[str, ...]:
        """Read everything again and list what is wrong; an empty tuple means sound.

        Looks for lost, changed and unrecorded files, volumes without a study and damage of the
        tables themselves.
        """
        problems = [f"tables: {row[0]}" for row in self._rows("PRAGMA integrity_check")]
        problems = [p for p in problems if p != "tables: ok"]
        seen: set[Path] = set()
        for path, sha256 in self._files():
            seen.add(path)
            shown = path.relative_to(self.path)
            if not path.is_file():
                problems.append(f"{shown}: lost")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                problems.append(f"{shown}: changed since it was written")
        for folder in ("volumes", "masks"):
            for path in (self.path / folder).glob("*/*"):
                if path not in seen:
                    problems.append(f"{path.relative_to(self.path)}: not recorded")
        for (volume_id,) in self._rows(
            "SELECT volume_id FROM volume WHERE study_id NOT IN (SELECT study_id FROM study)"
        ):
            problems.append(f"volume {volume_id}: belongs to no study")
        return tuple(sorted(problems))


def _record(volume_id: str, sha256: str, *told: Any) -> VolumeRecord:
    """Put a volume's row together, its columns of JSON already read."""
    shape, matrix, steps, masks, facts, source = told
    return VolumeRecord(
        volume_id=volume_id,
        sha256=sha256,
        shape=tuple(shape),
        world_from_voxel=tuple(map(tuple, matrix)),
        steps=tuple(steps),
        masks=masks,
        facts=facts,
        source=source,
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open the tables read-only; a writer at work makes us wait, not fail."""
    from urllib.parse import quote

    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        return sqlite3.connect(uri, uri=True, timeout=60.0, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(
            f"cohort {path.parent.name}: {path.name} cannot be opened ({error})",
            expected="a readable SQLite file",
            fix="check the folder's permissions",
        ) from error
