"""A plain folder of CTs with one table.

    ROOT/studies.csv            volume, report or findings + impression, and more (below)
    ROOT/volumes/**             .nii or .nii.gz
    ROOT/masks/<volume>_<name>.nii.gz
    ROOT/positions.jsonl        {volume, section, start, end, finding, z_mm: [centre, low, high]}
    ROOT/items.jsonl            {volume, finding, large, side, place, size_mm, kind}
    ROOT/terms.json             {licence, citation, synthetic}; optional

Columns of the table: `volume` (relative path or stem), texts (`table.py`), optional `patient`,
`study`, `split`, `language`; label columns by the names of `CT_RATE_18` (0, 1, blank = not stated);
everything else becomes a fact. The order of rows does not matter. Listing opens no voxels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.table import Row, read_rows
from t3d.errors import SourceError
from t3d.types import Item, Report, Sentence, Series, Study

TABLE = "studies.csv"
_SUFFIXES = (".nii.gz", ".nii")


class Folder(ReadAtOnce):
    """A plain folder as a source.

    A row whose file is missing is listed all the same: preparing it gives the reason. Files without
    a row and rows that contradict each other are set aside.

    Example:
        >>> for study in Folder("my_cts").studies():  # doctest: +SKIP
        ...     print(study.study_id, study.split)
    """

    kind = "folder"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way."""
        return (root / TABLE).is_file()

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / TABLE).is_file():
            raise SourceError(
                f"no {TABLE} in {self.root.name or self.root}",
                expected=f"a folder with {TABLE} and volumes/",
                fix="check the path, or write the table",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation from `terms.json`; "not stated" without it."""
        path = self.root / "terms.json"
        if not path.is_file():
            return Terms(licence="not stated")
        told = _parsed(path.read_text("utf-8-sig"), path.name, 1)
        return Terms(
            licence=str(told.get("licence", "not stated")),
            citation=str(told.get("citation", "")),
            synthetic=bool(told.get("synthetic", False)),
        )

    def _listed(self) -> tuple[tuple[Study, ...], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of their ids."""
        files = _Files(self.root)
        rows = read_rows(self.root / TABLE)
        positions = _by_volume(self.root / "positions.jsonl", files)
        items = _by_volume(self.root / "items.jsonl", files)
        grouped: dict[str, list[tuple[str, Row]]] = defaultdict(list)
        for row in rows:
            key = files.key(row.volume, row.line)
            grouped[row.study or key].append((key, row))
        studies, problems = [], []
        used: set[str] = set()
        for study_id in sorted(grouped):
            members = sorted(set(grouped[study_id]), key=lambda m: (m[0], m[1].sort_key))
            used.update(key for key, _ in members)
            conflict = _conflict(members)
            if conflict:
                problems.append(SetAside(key=study_id, reason="duplicate_key", message=conflict))
                continue
            studies.append(_study(study_id, members, files, positions, items))
        for key in sorted(set(files.volumes) - used):
            message = f"a file in volumes/ that no row of {TABLE} names"
            problems.append(SetAside(key=key, reason="unlisted_file", message=message))
        return tuple(studies), tuple(problems)


class _Files:
    """What lies in volumes/ and masks/, by stem."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.volumes: dict[str, Path] = {}
        self.twice: set[str] = set()
        for path in sorted((root / "volumes").rglob("*")):
            stem = _stem(path.name)
            if stem is None or path.name.startswith(".") or not path.is_file():
                continue
            if stem in self.volumes:
                self.twice.add(stem)
            self.volumes.setdefault(stem, path)
        if self.twice:
            raise SourceError(
                f"{len(self.twice)} file names occur twice below volumes/: "
                f"{', '.join(sorted(self.twice)[:3])}",
                expected="each name once, whatever its folder: it is the volume's id",
                fix="rename the files, e.g. with their folder's name in front",
            )
        self.masks = self._masks()

    def _masks(self) -> Mapping[str, Mapping[str, Path]]:
        """Match <volume>_<name> with the longest volume id that fits."""
        found: dict[str, dict[str, Path]] = defaultdict(dict)
        for path in sorted((self.root / "masks").glob("*.nii*")):
            stem = _stem(path.name) or ""
            cuts = [n for n, c in enumerate(stem) if c == "_" and stem[:n] in self.volumes]
            if cuts and stem[cuts[-1] + 1 :]:
                found[stem[: cuts[-1]]][stem[cuts[-1] + 1 :]] = path
        return found

    def key(self, told: str, line: int) -> str:
        """Turn what the table calls a volume (path or stem) into its id."""
        path = Path(told)
        if path.is_absolute() or ".." in path.parts:
            raise SourceError(
                f"{TABLE} line {line}: a volume path leaves the folder",
                expected="a path relative to the folder, or the file's name",
                fix="move the file below volumes/",
            )
        return _stem(path.name) or path.name

    def path(self, key: str) -> Path:
        """Say where a volume lies, or should lie."""
        return self.volumes.get(key, self.root / "volumes" / f"{key}.nii.gz")


def _stem(name: str) -> str | None:
    """Strip a NIfTI suffix explicitly; None for other files."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def _conflict(members: list[tuple[str, Row]]) -> str:
    """Say how the rows of one study contradict each other; "" if they do not."""
    keys = [key for key, _ in members]
    if len(set(keys)) < len(keys):
        return "two different rows name the same volume"
    first = members[0][1]
    for _, row in members[1:]:
        if (row.patient, row.split) != (first.patient, first.split):
            return "its rows name different patients or splits"
        if row.labels != first.labels:
            return "its rows give different labels"
    return ""


def _study(
    study_id: str,
    members: list[tuple[str, Row]],
    files: _Files,
    positions: Mapping[str, list[tuple[int, dict[str, Any]]]],
    items: Mapping[str, list[tuple[int, dict[str, Any]]]],
) -> Study:
    """Put the rows of one study together."""
    rows = [row for _, row in members]
    texts: dict[Report, None] = {}
    for row in rows:
        if row.report.findings or row.report.impression:
            texts.setdefault(row.report)
    facts: dict[str, str] = {}
    for row in reversed(rows):
        facts.update(row.facts)
    return Study(
        study_id=study_id,
        patient_id=rows[0].patient or study_id,
        series=tuple(
            Series(series_id=key, files=(files.path(key),), masks=dict(files.masks.get(key, {})))
            for key, _ in members
        ),
        reports=tuple(texts),
        labels=dict(rows[0].labels),
        facts=facts,
        split=rows[0].split,
        sentences=tuple(
            _sentence(told, line, row)
            for key, row in members
            for line, told in positions.get(key, ())
        ),
        items=tuple(_item(told, line) for key, _ in members for line, told in items.get(key, ())),
    )


def _by_volume(path: Path, files: _Files) -> Mapping[str, list[tuple[int, dict[str, Any]]]]:
    """Read a .jsonl file as (line number, row) by volume; empty where there is no file."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    if not path.is_file():
        return found
    with open(path, encoding="utf-8-sig") as lines:
        for line, text in enumerate(lines, start=1):
            if text.strip():
                told = _parsed(text, path.name, line)
                found[files.key(str(told.get("volume", "")), line)].append((line, told))
    return found


def _parsed(text: str, name: str, line: int) -> dict[str, Any]:
    """Parse one JSON object."""
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{name} line {line}: no JSON ({error.msg})",
            expected="one JSON object a line",
            fix="correct the line",
        ) from error
    if not isinstance(told, dict):
        raise SourceError(f"{name} line {line}: no object", expected="{...}", fix="correct it")
    return told


def _sentence(told: Mapping[str, Any], line: int, row: Row) -> Sentence:
    """Check one row of positions.jsonl against the report it points into."""
    section = told.get("section")
    if not row.placed:
        raise SourceError(
            f"positions.jsonl line {line}: it points into a 'report' that has headings or marks",
            expected="places in texts that stay as they stand",
            fix="write the columns 'findings' and 'impression', and the positions for them",
        )
    texts = {"findings": row.report.findings, "impression": row.report.impression}
    text = texts.get(str(section))
    start, end, z_mm = told.get("start"), told.get("end"), told.get("z_mm")
    placed = isinstance(start, int) and isinstance(end, int)
    if text is None or not placed or not 0 <= int(start or 0) < int(end or 0) <= len(text):
        raise SourceError(
            f"positions.jsonl line {line}: section {section!r}, characters {start} to {end}",
            expected="findings or impression, and a range inside that text",
            fix="write the positions for the texts of the table as they stand there",
        )
    if z_mm is not None:
        try:
            centre, low, high = (float(v) for v in z_mm)
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"positions.jsonl line {line}: z_mm {z_mm!r}",
                expected="[centre, low, high] in LPS mm, or null",
                fix="correct the line",
            ) from error
        z_mm = (centre, low, high)
    return Sentence(
        section=str(section),
        start=int(start or 0),
        end=int(end or 0),
        finding=str(told.get("finding") or ""),
        z_mm=z_mm,
    )


def _item(told: Mapping[str, Any], line: int) -> Item:
    """Check one row of items.jsonl."""
    try:
        return Item(
            finding=str(told["finding"]),
            large=bool(told["large"]),
            side=str(told.get("side") or ""),
            place=str(told.get("place") or ""),
            size_mm=float(told.get("size_mm") or 0.0),
            kind=str(told.get("kind") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"items.jsonl line {line}: {type(error).__name__} {error}",
            expected="finding, large, and optionally side, place, size_mm, kind",
            fix="correct the line",
        ) from error
