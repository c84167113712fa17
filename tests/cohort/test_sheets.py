"""Tables as .csv, .tsv and .xlsx give the same rows; damaged and hostile ones are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from made_tables import write_parts, write_table, write_workbook
from t3d.cohort.sheets import read_sheet
from t3d.errors import SourceError

ROWS = [
    {"id": "0012", "text": 'A, B\nand "C" & <D>', "note": ""},
    {"id": "AC1", "text": "  spaced  \t tab", "note": "x"},
]
CELLS = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx"])
def test_every_form_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = write_table(tmp_path / f"table.{ending}", ROWS)
    assert [row for _, row in read_sheet(path, needs=("id", "text"))] == ROWS


def test_inline_texts_are_read_like_shared_ones(tmp_path: Path) -> None:
    write_workbook(tmp_path / "table.xlsx", CELLS, inline=True)
    assert [row for _, row in read_sheet(tmp_path / "table.xlsx")] == ROWS


def sheet(path: Path, rows: str, shared: str = "") -> list[dict[str, str]]:
    write_parts(path / "t.xlsx", f"<sheetData>{rows}</sheetData>", shared)
    return [row for _, row in read_sheet(path / "t.xlsx")]


def test_runs_are_joined_and_coded_characters_are_read(tmp_path: Path) -> None:
    shared = (
        "<si><t>id</t></si>"
        "<si><r><rPr/><t>bold</t></r><r><t xml:space='preserve'> plain</t></r>"
        "<rPh sb='0' eb='1'><t>spoken</t></rPh></si>"
        "<si><t>line_x000A_two</t></si>"
    )
    rows = "".join(f'<row r="{n + 1}"><c r="A{n + 1}" t="s"><v>{n}</v></c></row>' for n in range(3))
    assert sheet(tmp_path, rows, shared) == [{"id": "bold plain"}, {"id": "line\ntwo"}]


def test_cells_that_are_left_out_are_empty_and_errors_are_too(tmp_path: Path) -> None:
    rows = (
        '<row r="1"><c r="A1" t="str"><v>a</v></c><c r="B1" t="str"><v>b</v></c>'
        '<c r="C1" t="str"><v>c</v></c></row>'
        '<row r="3"><c r="C3"><v>4241012</v></c></row>'
        '<row r="4"/>'
        '<row r="5"><c r="A5" t="e"><v>#N/A</v></c><c r="B5" t="b"><v>1</v></c></row>'
    )
    assert sheet(tmp_path, rows) == [
        {"a": "", "b": "", "c": "4241012"},
        {"a": "", "b": "1", "c": ""},
    ]


def test_the_first_sheet_is_the_one_the_workbook_names_first(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    write_workbook(path, CELLS)
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    # What a reader that guesses names would take.
    parts["xl/worksheets/other.xml"] = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = b"<worksheet><sheetData/></worksheet>"
    links = parts["xl/_rels/workbook.xml.rels"].replace(b"worksheets/sheet1", b"worksheets/other")
    parts["xl/_rels/workbook.xml.rels"] = links
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)
    assert [row for _, row in read_sheet(path)] == ROWS


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx"])
def test_a_missing_column_and_one_that_is_there_twice_are_errors(
    tmp_path: Path, ending: str
) -> None:
    path = write_table(tmp_path / f"table.{ending}", ROWS)
    with pytest.raises(SourceError, match="no column 'split'"):
        list(read_sheet(path, needs=("id", "split")))


@pytest.mark.parametrize("ending", ["tsv", "xlsx"])
def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    if ending == "tsv":
        path.write_text("id\tid\n1\t2\n")
    else:
        write_workbook(path, [["id", "id"], ["1", "2"]])
    with pytest.raises(SourceError, match="columns id occur twice"):
        list(read_sheet(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"no zip", b"PK\x03\x04 cut off", b"PK\x05\x06" + b"\0" * 18],
    ids=["empty", "text", "cut", "no parts"],
)
def test_what_is_no_workbook_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.xlsx"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"t\.xlsx: no readable"):
        list(read_sheet(path))


def test_a_doctype_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    write_parts(tmp_path / "t.xlsx", "<sheetData/>", prolog=bomb)
    with pytest.raises(SourceError, match="no readable"):
        list(read_sheet(tmp_path / "t.xlsx"))


@pytest.mark.parametrize(
    "row",
    [
        '<row r="2"><c r="B2"><v>1</v></c><c r="A2"><v>2</v></c></row>',
        '<row r="2"><c r="XFE2"><v>1</v></c></row>',
        '<row r="2"><c r="A2" t="s"><v>7</v></c></row>',
        '<row r="x"><c><v>1</v></c></row>',
        '<row r="2"><c r="A2"><v>1</v></row>',
    ],
    ids=["out of order", "too far", "no such text", "no number", "not well formed"],
)
def test_a_sheet_that_contradicts_itself_is_an_error(tmp_path: Path, row: str) -> None:
    head = '<row r="1"><c r="A1" t="str"><v>a</v></c></row>'
    with pytest.raises(SourceError, match=r"t\.xlsx"):
        sheet(tmp_path, head + row)


def test_a_value_beyond_the_last_column_is_an_error(tmp_path: Path) -> None:
    write_workbook(tmp_path / "t.xlsx", [["a"], ["1", "2"]])
    with pytest.raises(SourceError, match="row 2: a value beyond the last column"):
        list(read_sheet(tmp_path / "t.xlsx"))


def test_a_part_larger_than_the_ceiling_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_workbook(tmp_path / "t.xlsx", CELLS)
    monkeypatch.setattr("t3d.cohort.sheets.MAX_TABLE_BYTES", 200)
    with pytest.raises(SourceError, match="no readable"):
        list(read_sheet(tmp_path / "t.xlsx"))


def test_tabs_of_another_encoding_or_another_length_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes("id\ttext\n1\tB\xe4r\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"t\.tsv: byte 11 is no UTF-8"):
        list(read_sheet(path))
    path.write_text("id\ttext\n1\ta\tb\n")
    with pytest.raises(SourceError, match="line 2: 3 fields"):
        list(read_sheet(path))


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\ttext\n\n\t\n")
    assert list(read_sheet(tmp_path / "t.tsv", needs=("id",))) == []
