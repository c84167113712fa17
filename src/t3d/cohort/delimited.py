"""Read a table of separated values: size, encoding, quoting and columns checked.

Semicolons are taken where a table may have them, with a line in the log. Everything else that is
not as it should be is an error: a guessed encoding or a dropped byte would change reports without a
trace.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from t3d.ct.limits import MAX_FIELD_CHARS, MAX_TABLE_BYTES
from t3d.errors import SourceError

_log = logging.getLogger(__name__)

LABEL_VALUES: Mapping[str, int | None] = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""What a cell of a label column may hold; blank = not stated."""

SIGNED_LABEL_VALUES: Mapping[str, int | None] = {**LABEL_VALUES, "-1": None, "-1.0": None}
"""The same where -1 also means: not stated."""

ABSENT = frozenset({"", "nan", "none", "null", "na", "n/a", "-", ".", "not given", "not given."})
"""Words that stand for an empty cell in the texts of public corpora, in small letters."""

ABSENT_IN_OWN_TABLES = frozenset({"", "nan"})
"""The same in a user's own table, where "NA" or "None" may be what somebody wrote."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def is_absent(text: str, absent: Collection[str] = ABSENT) -> bool:
    """Say whether a cell only says that there is no text, whatever its case and blanks."""
    return " ".join(text.casefold().split()) in absent


def read_delimited(
    path: Path, *, needs: Sequence[str] = (), called: str = "", separator: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: value}) for every row that is not empty.

    The order of columns does not matter. Messages name the table, the line and the column, never
    a value.

    Args:
        path: UTF-8, with or without a byte order mark.
        needs: Columns that must be there.
        called: Names the table in messages; "" = its file name.
        separator: As for `read_cells`.

    Raises:
        SourceError: As `read_cells`, or a column missing or twice.
    """
    called = called or path.name
    return by_column(read_cells(path, called=called, separator=separator), called, needs)


def by_column(
    rows: Iterator[tuple[int, list[str]]], called: str, needs: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: value}) for every row after the first that is not empty.

    Args:
        rows: (line, values), all as long as the first, which names the columns.
        called: Names the table in messages.
        needs: Columns that must be there.

    Raises:
        SourceError: A column missing or twice.
    """
    _, first = next(rows, (0, []))
    header = tuple(name.strip() for name in first)
    check_once(header, called)
    missing = [name for name in needs if name not in header]
    if missing:
        raise SourceError(
            f"{called}: no column {', '.join(map(repr, missing))}",
            expected=f"columns {', '.join(needs)}",
            fix="check that this is the right table, and that its first line names the columns",
        )
    for line, values in rows:
        if any(values):
            yield line, dict(zip(header, values, strict=True))


def check_once(names: Sequence[str], called: str) -> None:
    """Refuse a table that names a column twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(
            f"{called}: columns {', '.join(twice)} occur twice",
            expected="each column once",
            fix="remove one of each",
        )


def read_cells(
    path: Path, *, called: str = "", separator: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values) for every line; empty ones may be shorter than the first.

    Args:
        path: UTF-8, with or without a byte order mark.
        called: Names the table in messages; "" = its file name.
        separator: Between two columns; "" = commas, or semicolons where the first line has no
            comma.

    Raises:
        SourceError: Too large, not UTF-8, a zero byte, broken quoting, a field that is too long,
            or a row of another length.
    """
    called = called or path.name
    lines = io.TextIOWrapper(io.BytesIO(_checked(path, called)), "utf-8-sig", newline="")
    separator = separator or _separator(lines.readline(), called)
    lines.seek(0)
    before = csv.field_size_limit(MAX_FIELD_CHARS)
    line = width = 0
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        for values in reader:
            width = len(values) if line == 0 else width
            line = reader.line_num
            if any(values) and len(values) != width:
                raise SourceError(
                    f"{called} line {line}: {len(values)} fields",
                    expected=f"{width}, as in the first line",
                    fix=f"quote texts that hold {_SEPARATORS[separator]}",
                )
            yield line, values
    except csv.Error as error:
        raise SourceError(
            f"{called} after line {line}: {error}",
            expected=f"{_SEPARATORS[separator]} between values, texts with these or line breaks in "
            f"quotes, at most {MAX_FIELD_CHARS} characters a field",
            fix="export the table again with quoting",
        ) from error
    finally:
        csv.field_size_limit(before)


def _checked(path: Path, called: str) -> bytes:
    """Read the file, or say which of its bytes is no text."""
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise SourceError(
            f"{called}: {size} bytes",
            expected=f"at most {MAX_TABLE_BYTES} (it is read whole)",
            fix="check which file this is, or split the cohort into several folders",
        )
    content = path.read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{called}: byte {error.start} is no UTF-8",
            expected="UTF-8, with or without a byte order mark",
            fix="save the table as UTF-8; any bytes at all are valid Latin-1, so we do not guess",
        ) from error
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        wide = content.count(b"\0") * 3 >= len(content)
        raise SourceError(
            f"{called} line {line}: a zero byte" + (" in every other place" if wide else ""),
            expected="text without zero bytes",
            fix="save the table as UTF-8" + (", this looks like UTF-16" if wide else ""),
        )
    return content


def _separator(first_line: str, called: str) -> str:
    """Find what separates the columns: a comma, or a semicolon where there is no comma."""
    if ";" not in first_line or "," in first_line:
        return ","
    _log.warning("%s: columns are separated by semicolons", called)
    return ";"
