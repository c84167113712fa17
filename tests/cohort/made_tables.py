"""Tables for fabricated corpora: with commas, with tabs, and as a workbook."""

from __future__ import annotations

import csv
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

Rows = Sequence[dict[str, str]]
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def write_table(path: Path, rows: Rows, *, seed: int | None = None) -> Path:
    """Write a table in the form that its ending names.

    Args:
        path: .csv, .tsv or .xlsx; its folder is made.
        rows: Not empty; the first names the columns.
        seed: Shuffle rows and columns by it; None = as they are.
    """
    rows, names = list(rows), list(rows[0])
    if seed is not None:
        random.Random(seed).shuffle(rows)
        random.Random(seed).shuffle(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        write_workbook(path, [names, *([row[name] for name in names] for row in rows)])
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_workbook(path: Path, cells: Sequence[Sequence[str]], *, inline: bool = False) -> None:
    """Write texts as a workbook, shared or inline; blank cells are left out."""
    texts = list(dict.fromkeys(text for row in cells for text in row if text))
    lines = []
    for number, row in enumerate(cells, start=1):
        told = ""
        for column, text in enumerate(row):
            place = f"{chr(ord('A') + column)}{number}"
            if text and inline:
                told += f'<c r="{place}" t="inlineStr"><is><t>{escape(text)}</t></is></c>'
            elif text:
                told += f'<c r="{place}" t="s"><v>{texts.index(text)}</v></c>'
        lines.append(f'<row r="{number}">{told}</row>')
    shared = "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in texts)
    write_parts(path, f"<sheetData>{''.join(lines)}</sheetData>", shared)


def write_parts(path: Path, sheet: str, shared: str = "", *, prolog: str = "") -> None:
    """Write a workbook of one sheet from the XML inside its parts."""
    head = f'<?xml version="1.0" encoding="UTF-8"?>{prolog}'
    parts = {
        "xl/workbook.xml": f'{head}<workbook xmlns="{_MAIN}" xmlns:r="{_LINKS}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId7"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{head}<Relationships xmlns="{_PACKAGE}"><Relationship '
        f'Id="rId7" Type={quoteattr(_LINKS)} Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'{head}<worksheet xmlns="{_MAIN}">{sheet}</worksheet>',
        "xl/sharedStrings.xml": f'{head}<sst xmlns="{_MAIN}">{shared}</sst>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in parts.items():
            book.writestr(name, content)
