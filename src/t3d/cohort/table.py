"""Read `studies.csv`: encoding, quoting and values checked, every row a typed record.

Repaired, with a line in the log: semicolons as separators, and the word `nan` (what pandas
writes for an empty cell) as a whole text. Everything else that is not as it should be is an
error: a guessed encoding or a dropped byte would change reports without a trace.
"""

from __future__ import annotations

import csv
import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t3d.ct.limits import MAX_FIELD_CHARS, MAX_TABLE_BYTES
from t3d.errors import SourceError
from t3d.text.findings import CT_RATE_18
from t3d.types import Report

log = logging.getLogger(__name__)

_TEXTS = ("report", "findings", "impression")
_KNOWN = ("volume", "report", "findings", "impression", "patient", "study", "split", "language")
_LABELS = {name.casefold(): name for name in CT_RATE_18}
_VALUES: Mapping[str, int | None] = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
_SPLITS = ("", "train", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table; equal rows are one row, wherever they stand."""

    volume: str  # as written: relative path or stem
    report: Report
    patient: str
    study: str
    split: str
    labels: tuple[tuple[str, int | None], ...]
    facts: tuple[tuple[str, str], ...]

    line: int = 0  # for messages only

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.sort_key == other.sort_key

    def __hash__(self) -> int:
        return hash(self.sort_key)

    @property
    def sort_key(self) -> tuple[str, ...]:
        """Everything but the line, in one comparable form."""
        texts = (self.report.findings, self.report.impression, self.report.language)
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
        SourceError: Not UTF-8, no `volume` column, a column twice, one of `findings` and
            `impression` without the other, a row of another length, or a value that is not
            allowed.
    """
    text = _text(path)
    before = csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        lines = text.splitlines(keepends=True)
        separator = _separator(lines[0] if lines else "", path.name)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        header = _header(next(reader, []), path.name)
        rows = tuple(
            _row(header, values, reader.line_num, path.name) for values in reader if any(values)
        )
    except csv.Error as error:
        raise SourceError(
            f"{path.name}: {error}",
            expected=f"comma-separated values, texts with line breaks or commas in quotes, at "
            f"most {MAX_FIELD_CHARS} characters a field",
            fix="export the table again with quoting",
        ) from error
    finally:
        csv.field_size_limit(before)
    if not rows:
        raise SourceError(
            f"{path.name}: no rows", expected="one row a volume", fix="fill the table"
        )
    return rows


def _text(path: Path) -> str:
    """Read the file as text, or say which byte is none."""
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise SourceError(
            f"{path.name}: {size} bytes",
            expected=f"at most {MAX_TABLE_BYTES} (it is read whole)",
            fix="split the cohort into several folders",
        )
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path.name}: byte {error.start} is no UTF-8",
            expected="UTF-8, with or without a byte order mark",
            fix="save the table as UTF-8; any bytes at all are valid Latin-1, so we do not guess",
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        wide = text.count("\0") * 3 >= len(text)
        raise SourceError(
            f"{path.name} line {line}: a zero byte" + (" in every other place" if wide else ""),
            expected="text without zero bytes",
            fix="save the table as UTF-8" + (", this looks like UTF-16" if wide else ""),
        )
    return text


def _separator(first_line: str, table: str) -> str:
    """Find what separates the columns: a comma, or a semicolon where there is no comma."""
    if ";" not in first_line or "," in first_line:
        return ","
    log.warning("%s: columns are separated by semicolons", table)
    return ";"


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
    if len(set(folded)) < len(folded):
        twice = sorted({n for n in folded if folded.count(n) > 1})
        raise SourceError(
            f"{table}: columns {', '.join(twice)} occur twice",
            expected="each column once",
            fix="remove one of each",
        )
    return tuple(
        low if low in _KNOWN else _LABELS.get(low, name)
        for low, name in zip(folded, header, strict=True)
    )


def _row(header: tuple[str, ...], values: list[str], line: int, table: str) -> Row:
    """Turn one line of the table into a record."""
    if len(values) != len(header):
        raise SourceError(
            f"{table} line {line}: {len(values)} fields",
            expected=f"{len(header)}, as in the first line",
            fix="quote texts that hold commas",
        )
    told = dict(zip(header, values, strict=True))
    texts = {name: _written(told.get(name, ""), line, table) for name in _TEXTS}
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
    if split not in _SPLITS:
        raise SourceError(
            f"{table} line {line}: split {split!r}",
            expected="train, dev, test or blank",
            fix="rename it; a validation split is dev or test",
        )
    return Row(
        volume=plain["volume"],
        report=Report(
            findings=texts["findings"] if texts["findings"].strip() else texts["report"],
            impression=texts["impression"],
            language=plain.get("language") or "en",
        ),
        patient=plain.get("patient", ""),
        study=plain.get("study", ""),
        split=split,
        labels=_labels(plain, line, table),
        facts=tuple(
            sorted(
                (n, v) for n, v in plain.items() if v and n not in _KNOWN and n not in CT_RATE_18
            )
        ),
        line=line,
    )


def _written(text: str, line: int, table: str) -> str:
    """Give a text as it stands; "nan" alone was an empty cell."""
    if text.strip().casefold() != "nan":
        return text
    log.warning("%s line %d: a text that is the word nan is taken for absent", table, line)
    return ""


def _labels(plain: Mapping[str, str], line: int, table: str) -> tuple[tuple[str, int | None], ...]:
    """Read the label columns that the table has: 0, 1, blank = not stated."""
    labels = []
    for name in CT_RATE_18:
        if name not in plain:
            continue
        if plain[name] not in _VALUES:
            raise SourceError(
                f"{table} line {line}: label {name!r} is {plain[name]!r}",
                expected="0, 1 or blank",
                fix="blank means: not stated",
            )
        labels.append((name, _VALUES[plain[name]]))
    return tuple(labels)
