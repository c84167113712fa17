"""Read a table of comma-separated values row by row: encoding, quoting and columns checked."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from t3d.errors import SourceError

LABEL_VALUES: Mapping[str, int | None] = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""What a cell of a label column may hold; blank = not stated."""

_MAX_FIELD_CHARS = 1 << 20  # the longest report we have seen has 2e4


def read_delimited(
    path: Path, *, needs: Sequence[str] = (), called: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: value}) for every row that is not empty.

    The order of columns does not matter. Messages name the table, the line and the column, never
    a value.

    Args:
        path: UTF-8, with or without a byte order mark.
        needs: Columns that must be there.
        called: Names the table in messages; "" = its file name.

    Raises:
        SourceError: Not UTF-8, broken quoting, a column missing or twice, a row of another length.
    """
    called = called or path.name
    before = csv.field_size_limit(_MAX_FIELD_CHARS)
    line = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _header(next(reader, []), called, needs)
            for values in reader:
                line = reader.line_num
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise SourceError(
                        f"{called} line {line}: {len(values)} fields",
                        expected=f"{len(header)}, as in the first line",
                        fix="quote texts that hold commas",
                    )
                yield line, dict(zip(header, values, strict=True))
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{called}: no UTF-8 after line {line}",
            expected="UTF-8, with or without a byte order mark",
            fix="save the table as UTF-8",
        ) from error
    except csv.Error as error:
        raise SourceError(
            f"{called} after line {line}: {error}",
            expected="comma-separated values, texts with line breaks or commas in quotes",
            fix="export the table again with quoting",
        ) from error
    finally:
        csv.field_size_limit(before)


def _header(names: list[str], table: str, needs: Sequence[str]) -> tuple[str, ...]:
    """Check the column names."""
    header = tuple(name.strip() for name in names)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SourceError(
            f"{table}: columns {', '.join(twice)} occur twice",
            expected="each column once",
            fix="remove one of each",
        )
    missing = [name for name in needs if name not in header]
    if missing:
        raise SourceError(
            f"{table}: no column {', '.join(map(repr, missing))}",
            expected=f"columns {', '.join(needs)}",
            fix="check that this is the right table, and that its first line names the columns",
        )
    return header
