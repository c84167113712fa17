"""Read a table whatever it was saved as: .csv, .tsv or the first sheet of an .xlsx.

An .xlsx is a zip of XML parts; two of them hold a table of texts, so the standard library reads it.
Formulas, dates and formats are not understood: a cell is the text or number that the file stores,
numbers as written there. Nothing unpacks beyond `MAX_TABLE_BYTES`; XML with a DOCTYPE is refused.
"""

from __future__ import annotations

import json
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from t3d.cohort.delimited import by_column, read_delimited
from t3d.ct.limits import MAX_TABLE_BYTES
from t3d.errors import SourceError

SHEET_ENDINGS = (".tsv", ".csv", ".xlsx")
_MAX_COLUMNS = 16_384  # of a sheet, by the format
_CODED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # how a sheet writes what XML cannot hold
# RuntimeError: a part is encrypted.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, ParseError, EOFError, RuntimeError, NotImplementedError),
    *(KeyError, IndexError, ValueError),
)


def read_sheet(path: Path, *, needs: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: value}) for every row that is not empty.

    Args:
        path: Ends in .csv (see `read_delimited`), .tsv (the same with tabs) or .xlsx (its first
            sheet; cells without a value are "", columns without a name are left out).
        needs: Columns that must be there.

    Raises:
        SourceError: Damaged, not UTF-8, a column missing or twice, or a row of another length.
    """
    if path.suffix == ".xlsx":
        return by_column(_rows_of_xlsx(path), path.name, needs)
    return read_delimited(path, needs=needs, separator="\t" if path.suffix == ".tsv" else ",")


def digest_of_rows(rows: Mapping[str, object]) -> str:
    """Name what a table says, whatever the order of its rows and columns.

    Args:
        rows: What was kept of each row, by its key.

    Returns:
        The first 16 hex digits of a sha256.
    """
    return sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def _rows_of_xlsx(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values) of the first sheet, of the columns that its first row names."""
    try:
        with zipfile.ZipFile(path) as book:
            shared = _shared_texts(book)
            sheet = _first_sheet(book)
            header: list[str] | None = None
            for row in _elements(book, sheet, "row"):
                values = _values(row, shared)
                header = values if header is None else header
                width = len(header)
                if any(values[width:]):
                    raise SourceError(
                        f"{path.name} row {row.get('r', '?')}: a value beyond the last column",
                        expected=f"{width} columns, as in the first row",
                        fix="give every column a name",
                    )
                padded = [*values, *[""] * (width - len(values))]
                told = [v for v, name in zip(padded, header, strict=False) if name.strip()]
                yield int(row.get("r", "0")), told
    except _DAMAGE as error:
        raise SourceError(
            f"{path.name}: no readable .xlsx ({type(error).__name__})",
            expected="a workbook whose first sheet holds the table",
            fix="get the file again, or save its sheet as CSV",
        ) from error


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    """Read the texts that cells refer to by number."""
    part = "xl/sharedStrings.xml"
    return [_text(one) for one in _elements(book, part, "si")] if part in book.namelist() else []


def _first_sheet(book: zipfile.ZipFile) -> str:
    """Name the part that holds the first sheet of the workbook."""
    sheets = list(_elements(book, "xl/workbook.xml", "sheet"))
    key = {_local(name): value for name, value in sheets[0].attrib.items()}["id"]
    for link in _elements(book, "xl/_rels/workbook.xml.rels", "Relationship"):
        if link.get("Id") == key:
            return posixpath.join("/xl", link.get("Target", "")).lstrip("/")
    raise KeyError(key)


def _elements(book: zipfile.ZipFile, part: str, wanted: str) -> Iterator[Element]:
    """Yield the elements of one name, each thrown away after use."""
    info = book.getinfo(part)
    if info.file_size > MAX_TABLE_BYTES:
        raise ValueError(f"{info.file_size} bytes")
    builder = _Builder(wanted)
    parser = XMLParser(target=builder)
    left = MAX_TABLE_BYTES
    with book.open(info) as stream:
        while piece := stream.read(1 << 16):
            left -= len(piece)
            if left < 0:
                raise ValueError("more than its size says")
            parser.feed(piece)
            yield from builder.take()
    parser.close()
    yield from builder.take()


class _Builder:
    """Builds the wanted elements only, so that a large sheet is never held whole."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._inner: TreeBuilder | None = None
        self._depth = 0
        self._done: list[Element] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        if self._inner is None and _local(tag) == self._wanted:
            self._inner = TreeBuilder()
        if self._inner is not None:
            self._depth += 1
            self._inner.start(_local(tag), attributes)

    def end(self, tag: str) -> None:
        """End an element; a wanted one is kept until it is taken."""
        if self._inner is None:
            return
        self._depth -= 1
        self._inner.end(_local(tag))
        if not self._depth:
            self._done.append(self._inner.close())
            self._inner = None

    def data(self, text: str) -> None:
        """Add text to the open element."""
        if self._inner is not None:
            self._inner.data(text)

    def doctype(self, *_: str | None) -> None:
        """Refuse what could define entities."""
        raise ValueError("a DOCTYPE")

    def close(self) -> None:
        """End the document."""

    def take(self) -> list[Element]:
        """Give what is finished, once."""
        done, self._done = self._done, []
        return done


def _local(name: str) -> str:
    """Strip the namespace of a tag or attribute."""
    return name.rpartition("}")[2]


def _text(element: Element) -> str:
    """Join the runs of a text; how a word is pronounced (`rPh`) is left out."""
    runs = (*element.findall("t"), *element.findall("r/t"))
    return _CODED.sub(lambda m: chr(int(m[1], 16)), "".join(run.text or "" for run in runs))


def _values(row: Element, shared: Sequence[str]) -> list[str]:
    """Give the cells of a row; those that the file leaves out are ""."""
    values: list[str] = []
    for cell in row.findall("c"):
        column = _column(cell.get("r", "")) or len(values) + 1
        if not len(values) < column <= _MAX_COLUMNS:
            raise ValueError("columns out of order")
        values += [""] * (column - len(values) - 1)
        values.append(_value(cell, shared))
    return values


def _column(reference: str) -> int:
    """Count the column of a cell such as "AB12" from 1; 0 = not stated."""
    number = 0
    for letter in reference.rstrip("0123456789"):
        number = 26 * number + ord(letter.upper()) - ord("A") + 1
    return number


def _value(cell: Element, shared: Sequence[str]) -> str:
    """Give one cell as text."""
    kind = cell.get("t", "n")
    inline = cell.find("is")
    if kind == "inlineStr":
        return "" if inline is None else _text(inline)
    told = cell.findtext("v") or ""
    if kind == "s":
        return shared[int(told)] if told else ""
    if kind == "e":
        return ""  # an error such as #N/A is no text
    return _CODED.sub(lambda m: chr(int(m[1], 16)), told) if kind == "str" else told
