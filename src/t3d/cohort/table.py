"""Read `studies.csv`: columns and values checked, every row a typed record.

A `report` is free text: its preliminary and final parts, addenda and sections are told apart
(`text/addenda.py`); without headings it is all findings. `findings` and `impression` stay as they
stand. The column `language` wins over what a text looks like.

Repaired, with a line in the log: semicolons as separators, and the word `nan` (what pandas
writes for an empty cell) as a whole text. Everything else that is not as it should be is an
error (see also `delimited.py`).
"""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t3d.cohort.delimited import (
    ABSENT_IN_OWN_TABLES,
    LABEL_VALUES,
    check_once,
    is_absent,
    read_cells,
)
from t3d.cohort.patients import SPLITS
from t3d.errors import SourceError
from t3d.text.addenda import ResolvedReport, reports_in_row, resolve_reports
from t3d.text.findings import CT_RATE_18
from t3d.types import Report

log = logging.getLogger(__name__)

_TEXTS = ("report", "findings", "impression")
_KNOWN = ("volume", "report", "findings", "impression", "patient", "study", "split", "language")
_LABELS = {name.casefold(): name for name in CT_RATE_18}
_LINE_END = re.compile(r"\r\n?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table; equal rows are one row, wherever they stand."""

    volume: str  # as written: relative path or stem
    report: Report
    patient: str
    study: str
    split: str
    labels: tuple[tuple[str, int | None], ...]
    facts: tuple[tuple[str, str], ...]  # other columns, and what became of parts of the report

    line: int = 0  # for messages only
    placed: bool = True  # places in the texts of the table are the same places in the report

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.sort_key == other.sort_key

    def __hash__(self) -> int:
        return hash(self.sort_key)

    @property
    def sort_key(self) -> tuple[str, ...]:
        """Everything but the line, in one comparable form."""
        report = self.report
        texts = (report.findings, report.impression, report.language, report.status)
        return (
            self.volume,
            *texts,
            self.patient,
            self.study,
            self.split,
            repr(self.labels),
            repr(self.facts),
        )


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read the whole table.

    Raises:
        SourceError: As `read_cells`, no `volume` column, a column twice, one of `findings` and
            `impression` without the other, or a value that is not allowed.
    """
    cells = read_cells(path, separator="")
    _, first = next(cells, (0, []))
    header = _header(first, path.name)
    odd: Counter[str] = Counter()
    rows = tuple(
        _row(header, values, line, path.name, odd) for line, values in cells if any(values)
    )
    for what, count in sorted(odd.items()):
        log.warning("%s: %d x %s", path.name, count, what)
    if not rows:
        raise SourceError(
            f"{path.name}: no rows", expected="one row a volume", fix="fill the table"
        )
    return rows


def _header(names: list[str], table: str) -> tuple[str, ...]:
    """Check the column names."""
    header = tuple(name.strip() for name in names)
    folded = [name.casefold() for name in header]
    if "volume" not in folded:
        near = difflib.get_close_matches("volume", folded, n=1)
        raise SourceError(
            f"{table}: no column 'volume'" + (f"; nearest: {near[0]!r}" if near else ""),
            expected="a column 'volume', and 'report' or 'findings' and 'impression'",
            fix="name the column that holds file names 'volume'",
        )
    if "report" not in folded and ("findings" in folded) != ("impression" in folded):
        there, gone = sorted(("findings", "impression"), key=lambda name: name not in folded)
        near = difflib.get_close_matches(gone, set(folded) - {there}, n=1)
        raise SourceError(
            f"{table}: a column {there!r} but none {gone!r}"
            + (f"; nearest: {near[0]!r}" if near else ""),
            expected="'findings' and 'impression', or 'report'",
            fix=f"name the column {gone!r}, or call the only text 'report'",
        )
    check_once(folded, table)
    return tuple(
        low if low in _KNOWN else _LABELS.get(low, name)
        for low, name in zip(folded, header, strict=True)
    )


def _row(
    header: tuple[str, ...], values: list[str], line: int, table: str, odd: Counter[str]
) -> Row:
    """Turn one line of the table into a record; what was repaired or left out is counted."""
    told = {n: _LINE_END.sub("\n", v) for n, v in zip(header, values, strict=True)}
    texts = {name: _written(told.get(name, ""), odd) for name in _TEXTS}
    if texts["report"].strip() and texts["findings"].strip():
        raise SourceError(
            f"{table} line {line}: both 'report' and 'findings' are filled",
            expected="the text once",
            fix="empty one of them",
        )
    plain = {n: v.strip() for n, v in told.items() if n not in texts}
    if not plain["volume"]:
        raise SourceError(
            f"{table} line {line}: 'volume' is empty", expected="a file name", fix="fill it"
        )
    split = plain.get("split", "")
    if split not in SPLITS:
        raise SourceError(
            f"{table} line {line}: split {split!r}",
            expected="train, dev, test or blank",
            fix="rename it; a validation split is dev or test",
        )
    resolved = _resolved(texts, plain.get("language", ""), odd)
    others = {n: v for n, v in plain.items() if v and n not in _KNOWN and n not in CT_RATE_18}
    return Row(
        volume=plain["volume"],
        report=resolved.report,
        patient=plain.get("patient", ""),
        study=plain.get("study", ""),
        split=split,
        labels=_labels(plain, line, table),
        facts=tuple(sorted({**others, **resolved.facts}.items())),
        line=line,
        placed=_placed(texts, resolved.report),
    )


def _resolved(texts: Mapping[str, str], language: str, odd: Counter[str]) -> ResolvedReport:
    """Make one report of the texts of a row."""
    reports = reports_in_row(texts, language=language)
    if not reports and any(text.strip() for text in texts.values()):
        odd["a report with headings but nothing under one of findings or impression"] += 1
    return resolve_reports(reports)


def _placed(texts: Mapping[str, str], report: Report) -> bool:
    """Say whether a report stands in the table, but for blanks at the end of its findings."""
    told = texts["findings"] if texts["findings"].strip() else texts["report"]
    same_end = report.impression.strip() == texts["impression"].strip()
    return same_end and told.startswith(report.findings) and told.strip() == report.findings.strip()


def _written(text: str, odd: Counter[str]) -> str:
    """Give a text as it stands; "nan" alone was an empty cell."""
    if not text.strip() or not is_absent(text, ABSENT_IN_OWN_TABLES):
        return text
    odd["a text that is the word nan, taken for absent"] += 1
    return ""


def _labels(plain: Mapping[str, str], line: int, table: str) -> tuple[tuple[str, int | None], ...]:
    """Read the label columns that the table has: 0, 1, blank = not stated."""
    labels = []
    for name in CT_RATE_18:
        if name not in plain:
            continue
        if plain[name] not in LABEL_VALUES:
            raise SourceError(
                f"{table} line {line}: label {name!r} is {plain[name]!r}",
                expected="0, 1 or blank",
                fix="blank means: not stated",
            )
        labels.append((name, LABEL_VALUES[plain[name]]))
    return tuple(labels)
