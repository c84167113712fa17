"""Every table of the malformed corpus through the plain folder: read with its texts, or refused.

The corpus names its columns as one public data set does; here only the header line is renamed.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from t3d.cohort.delimited import read_delimited
from t3d.cohort.sources.folder import Folder
from t3d.cohort.table import Row, read_rows
from t3d.ct.limits import MAX_FIELD_CHARS, MAX_TABLE_BYTES
from t3d.errors import SourceError
from t3d.types import Report

RENAMED = (("AccessionNo", "volume"), ("Findings_EN", "findings"), ("Impressions_EN", "impression"))

DIFFERENCES = {
    "latin1.csv": (
        "refused",
        "any bytes at all are valid Latin-1, so a guess cannot be checked; wrong letters in a "
        "report leave no trace, saving the table as UTF-8 does",
    ),
    "nul.csv": (
        "refused",
        "what stood in place of the zero byte is unknown; dropping it would join two words",
    ),
}
REFUSED = {  # what the message must name
    "open_quote.csv": "unexpected end of data",
    "missing_column.csv": "a column 'findings' but none 'impression'",
    "extra_field.csv": "line 2: 5 fields",
    "duplicate_id.csv": "two different rows name the same volume",
    "traversal_id.csv": "line 2: a volume path leaves the folder",
    "header_only.csv": "no rows",
    "empty.csv": "no column 'volume'",
    "latin1.csv": "byte 36 is no UTF-8",
    "utf16.csv": "a zero byte in every other place",
    "nul.csv": "line 2: a zero byte",
}
READ = {  # the last row's texts; None = a row of the control
    "ok_reference.csv": None,
    "bom.csv": None,
    "crlf.csv": None,
    "semicolon.csv": ("a", "b"),
    "newline_in_field.csv": ("line 1\nline 2", "x"),
    "empty_text.csv": (" ", ""),
    "nan_word.csv": ("NA", "None"),
    "markup.csv": ("<script>alert(1)</script> lungs clear", "ok"),
    "formula.csv": ("=1+1", "ok"),
    "long_text.csv": ("nodule " * 60000, "x"),
    "emoji_combining.csv": ("na\u0308chst \u2265 5 mm \U0001f600", "x"),
}
LOGGED = {"semicolon.csv": "semicolons", "empty_text.csv": "the word nan"}


@pytest.fixture(scope="module")
def expected(malformed: Path) -> dict[str, str]:
    """What the manifest proposes, by case."""
    told = json.loads((malformed / "manifest.json").read_text("utf-8"))
    return {c["path"][6:]: c["expect"] for c in told if c["path"].startswith("table/")}


def folder_with(malformed: Path, case: str, tmp_path: Path) -> Path:
    """Put a case where a folder's table belongs, its header renamed and nothing else."""
    content = (malformed / "table" / case).read_bytes()
    for theirs, ours in RENAMED:
        for encoding in ("utf-8", "utf-16-le"):
            content = content.replace(theirs.encode(encoding), ours.encode(encoding), 1)
    (tmp_path / "studies.csv").write_bytes(content)
    return tmp_path


def rows_of(malformed: Path, case: str, tmp_path: Path) -> tuple[Row, ...]:
    return read_rows(folder_with(malformed, case, tmp_path) / "studies.csv")


@pytest.mark.real
def test_every_case_of_the_manifest_has_an_end_here(expected: dict[str, str]) -> None:
    assert {*READ, *REFUSED} == set(expected)
    assert len(READ) + len(REFUSED) == 21
    theirs = {case for case, end in expected.items() if end == "reject"}
    assert theirs ^ set(REFUSED) == set(DIFFERENCES)


@pytest.mark.real
@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_with_every_character_of_its_texts(
    malformed: Path, tmp_path: Path, case: str
) -> None:
    rows = rows_of(malformed, case, tmp_path)
    told = READ[case]
    if told is None:
        (tmp_path / "control").mkdir()
        assert rows == rows_of(malformed, "ok_reference.csv", tmp_path / "control")
        assert len(rows) == 6
        assert all(row.report.findings and row.report.impression for row in rows)
    else:
        assert rows[-1].report == Report(
            findings=told[0] if told[0].strip() else "", impression=told[1]
        )
    assert len(list(Folder(tmp_path).studies())) == len(rows)


@pytest.mark.real
@pytest.mark.parametrize("case", LOGGED)
def test_a_repair_leaves_a_line_in_the_log(
    malformed: Path, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        rows_of(malformed, case, tmp_path)
    assert LOGGED[case] in caplog.text


@pytest.mark.real
@pytest.mark.parametrize("case", REFUSED)
def test_a_table_is_refused_by_line_value_rule_and_way_out(
    malformed: Path, tmp_path: Path, case: str
) -> None:
    if case == "duplicate_id.csv":  # the table can be read; the study cannot be trusted
        source = Folder(folder_with(malformed, case, tmp_path))
        assert list(source.studies()) == []
        (told,) = source.set_aside()
        assert (told.reason, told.message) == ("duplicate_key", REFUSED[case])
        return
    with pytest.raises(SourceError) as caught:
        list(Folder(folder_with(malformed, case, tmp_path)).studies())
    assert REFUSED[case] in caught.value.found
    assert "studies.csv" in caught.value.found
    assert caught.value.expected
    assert caught.value.fix


def test_a_misspelt_text_column_is_an_error_and_not_a_fact(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("volume,findings,impressions\na,b,c\n")
    with pytest.raises(SourceError, match="none 'impression'; nearest: 'impressions'"):
        read_rows(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("volume,impression\na,b\n")
    with pytest.raises(SourceError, match="none 'findings'"):
        read_rows(tmp_path / "t.csv")


def test_a_semicolon_inside_a_comma_table_stays_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("volume,report,note;s\na,b; c,d\n")
    (row,) = read_rows(tmp_path / "t.csv")
    assert row.report.findings == "b; c"
    assert row.facts == (("note;s", "d"),)


def test_a_table_too_long_to_be_read_whole_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.truncate(MAX_TABLE_BYTES + 1)  # sparse: takes no room
    with pytest.raises(SourceError, match="split the cohort"):
        read_rows(path)
    with pytest.raises(SourceError, match=f"at most {MAX_TABLE_BYTES}"):
        next(read_delimited(path))


def test_lines_end_where_files_end_them_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for end in ("\n", "\r\n", "\r"):
        told = ["volume,report", f'a,"1{end}2"', "b,3\x0b4\x855\u20286", "", "c,7"]
        path.write_bytes(end.join(told).encode())
        rows = [(line, row["report"]) for line, row in read_delimited(path)]
        assert rows == [(3, f"1{end}2"), (4, "3\x0b4\x855\u20286"), (6, "7")]
        texts = [row.report.findings for row in read_rows(path)]
        assert texts == ["1\n2", "3\x0b4\x855\u20286", "7"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a,b\n1,2\n3,\x00\n", "line 3: a zero byte"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1: a zero byte in every other place"),
        (b"a,b\n1,\xe4\n", "byte 6 is no UTF-8"),
        (b'a,b\n1,2\n3,"4', "after line 2: unexpected end of data"),
        (b"a,b\n1,2,3\n", "line 2: 3 fields"),
        (b"a,b\n1," + b"x" * (MAX_FIELD_CHARS + 1), "field larger than field limit"),
    ],
)
def test_a_table_of_a_corpus_is_checked_like_that_of_a_folder(
    tmp_path: Path, content: bytes, match: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(SourceError, match=f"^the table.*{match}"):
        list(read_delimited(tmp_path / "t.csv", called="the table"))
