"""The plain folder as a source: what is listed, what is set aside, what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from made_folder import rows_of, write_table
from t3d.cohort.sources import SOURCES, Folder
from t3d.cohort.table import read_rows
from t3d.errors import SourceError
from t3d.types import Report, Sentence

MakeFolder = Callable[..., Path]


def test_any_folder_may_be_dicom_so_that_source_is_asked_last() -> None:
    kinds = [source.kind for source in SOURCES]
    assert kinds[0] == "folder"
    assert kinds[-1] == "dicom_folder"
    assert len(set(kinds)) == len(kinds)


def test_a_study_holds_everything_its_row_and_files_say(make_folder: MakeFolder) -> None:
    root = make_folder(4)
    study = list(Folder(root).studies())[1]
    assert study.study_id == "p0001"
    assert study.patient_id == "patient1"
    assert study.split == "dev"
    assert dict(study.labels) == {"Lung nodule": 1, "Pleural effusion": 0}
    assert dict(study.facts) == {"sex": "F"}
    text = "Nodule of 1 mm in the right upper lobe. No effusion."
    assert study.reports == (Report(findings=text, impression="Nodule."),)
    (series,) = study.series
    assert series.series_id == "p0001"
    assert series.files == (root / "volumes" / "p0001.nii.gz",)
    assert dict(series.masks) == {"body": root / "masks" / "p0001_body.nii.gz"}
    assert study.sentences == (
        Sentence(
            section="findings", start=0, end=39, finding="Lung nodule", z_mm=(40.0, 30.0, 50.0)
        ),
    )
    assert study.items[0].large
    assert study.items[0].size_mm == 9.5


def test_a_blank_label_is_not_stated_and_not_zero(make_folder: MakeFolder) -> None:
    labels = next(Folder(make_folder(1)).studies()).labels
    assert labels["Pleural effusion"] is None
    assert "Emphysema" not in labels  # the table has no such column


def test_listing_opens_no_voxels_and_is_repeatable(make_folder: MakeFolder) -> None:
    root = make_folder(3)
    for file in (root / "volumes").iterdir():
        file.write_bytes(b"not a volume")
    folder = Folder(root)
    assert list(folder.studies()) == list(folder.studies())


def test_a_listing_reads_the_table_once_and_the_next_one_anew(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(3)
    folder, read = Folder(root), []
    monkeypatch.setattr(
        "t3d.cohort.sources.folder.read_rows", lambda path: read.append(path) or read_rows(path)
    )
    first = list(folder.studies())
    assert folder.set_aside() == ()
    assert len(read) == 1
    kept = (root / "studies.csv").read_text().splitlines(keepends=True)[:-1]
    (root / "studies.csv").write_text("".join(kept))
    assert list(folder.studies()) == first[:-1]
    assert [told.reason for told in folder.set_aside()] == ["unlisted_file"]
    assert len(read) == 2
    assert Folder(root).set_aside() == folder.set_aside()  # though nothing was listed before


def test_the_order_of_rows_does_not_matter(make_folder: MakeFolder) -> None:
    root = make_folder(9)
    before = list(Folder(root).studies())
    rows = rows_of(root)
    random.Random(3).shuffle(rows)
    write_table(root, rows)
    assert list(Folder(root).studies()) == before


def test_terms_are_those_of_the_file_or_not_stated(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    assert Folder(root).terms.licence == "CC0"
    assert Folder(root).terms.synthetic
    (root / "terms.json").unlink()
    assert Folder(root).terms.licence == "not stated"


def test_a_byte_order_mark_quotes_and_line_breaks_are_read(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    text = '\ufeffvolume,findings,impression\r\np0000,"One, ""two""\nthree \u00e9.",\r\n'
    (root / "studies.csv").write_bytes(text.encode())
    (study,) = Folder(root).studies()
    assert study.reports[0].findings == 'One, "two"\nthree \u00e9.'
    assert study.patient_id == "p0000"


@pytest.mark.parametrize("told", ["p0000", "p0000.nii.gz", "volumes/p0000.nii.gz", "p0000.nii"])
def test_a_volume_may_be_named_by_path_or_stem(make_folder: MakeFolder, told: str) -> None:
    root = make_folder(1)
    write_table(root, [{**rows_of(root)[0], "volume": told}])
    (study,) = Folder(root).studies()
    assert study.series[0].files[0].is_file()
    assert study.study_id == "p0000"


def test_one_report_column_is_the_findings(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    write_table(root, [{"volume": "p0000", "report": "All of it."}])
    (study,) = Folder(root).studies()
    assert study.reports == (Report(findings="All of it."),)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("FINDINGS: A.\nIMPRESSION: B.", "", Report(findings="A.", impression="B.")),
        ("Befund: A.\nBeurteilung: Kein B.", "",
         Report(findings="A.", impression="Kein B.", language="de")),
        ("Befund: A.\nBeurteilung: Kein B.", "nl",
         Report(findings="A.", impression="Kein B.", language="nl")),
        ("Wet read: A.", "", Report(findings="A.", status="preliminary")),
        ("Seen by <PERSON>X</PERSON>.\nElectronically signed by J. Doe, MD", "",
         Report(findings="Seen by.")),
    ],
)  # fmt: skip
def test_one_report_column_is_read_as_free_text(
    make_folder: MakeFolder, text: str, language: str, expected: Report
) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    write_table(root, [{"volume": "p0000", "report": text, "language": language}])
    (study,) = Folder(root).studies()
    assert study.reports == (expected,)


def test_told_sections_stay_as_they_stand_and_only_their_language_is_looked_at(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    texts = {"findings": " FINDINGS: der A.  B. ", "impression": "Addendum: kein ___."}
    write_table(root, [{"volume": "p0000", **texts}])
    (study,) = Folder(root).studies()
    assert study.reports == (Report(**texts, language="de"),)


def test_what_became_of_the_parts_of_a_report_is_a_fact_of_its_study(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    text = "Wet read: A.\nFINAL REPORT: B.\nADDENDUM: C."
    write_table(root, [{"volume": "p0000", "report": text, "sex": "F"}])
    (study,) = Folder(root).studies()
    assert study.reports == (Report(findings="B.", impression="Addendum: C."),)
    assert dict(study.facts) == {"sex": "F", "reports_replaced": "1", "report_addenda": "1"}


def test_a_report_of_headings_alone_is_counted_and_not_quoted(
    make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(2)
    (root / "positions.jsonl").unlink()
    rows = [{"volume": f"p000{n}", "report": "INDICATION: Secret cough."} for n in range(2)]
    write_table(root, rows)
    assert [study.reports for study in Folder(root).studies()] == [(), ()]
    assert "studies.csv: 2 x a report with headings" in caplog.text
    assert "Secret" not in caplog.text


def test_positions_hold_in_a_free_text_that_stays_and_are_refused_in_one_that_does_not(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(1)
    good = json.loads((root / "positions.jsonl").read_text())
    text = "Nodule of 1 mm in the right upper lobe. No effusion. \n"
    write_table(root, [{"volume": "p0000", "report": text}])
    (study,) = Folder(root).studies()
    assert study.sentences[0].end == good["end"]
    for changed in (
        f" {text}",
        f"FINDINGS: {text}",
        f"{text}ADDENDUM: B.",
        f"{text} IMPRESSION: B.",
    ):
        write_table(root, [{"volume": "p0000", "report": changed}])
        with pytest.raises(
            SourceError, match=r"positions\.jsonl line 1: it points into a 'report'"
        ):
            list(Folder(root).studies())


def test_a_row_without_text_has_no_report(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    write_table(root, [{"volume": "p0000", "findings": " ", "impression": ""}])
    assert next(Folder(root).studies()).reports == ()


def test_rows_of_one_study_become_its_series(make_folder: MakeFolder) -> None:
    root = make_folder(3)
    rows = rows_of(root)
    shared = {k: rows[1][k] for k in ("patient", "split", "Lung nodule", "Pleural effusion")}
    write_table(root, [{**rows[n], **shared, "study": "s"} for n in (2, 1, 0)])
    (study,) = Folder(root).studies()
    assert study.study_id == "s"
    assert [s.series_id for s in study.series] == ["p0000", "p0001", "p0002"]
    assert len(study.reports) == 3


def test_an_equal_row_twice_is_one_row(make_folder: MakeFolder) -> None:
    root = make_folder(2)
    before = list(Folder(root).studies())
    write_table(root, [*rows_of(root), rows_of(root)[0]])
    assert list(Folder(root).studies()) == before


def test_rows_that_contradict_each_other_are_set_aside_in_any_order(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(2)
    rows = rows_of(root)
    other = {**rows[0], "Lung nodule": "0"}
    for order in ([*rows, other], [other, *rows]):
        write_table(root, order)
        folder = Folder(root)
        assert [s.study_id for s in folder.studies()] == ["p0001"]
        (told,) = folder.set_aside()
        assert (told.key, told.reason) == ("p0000", "duplicate_key")


def test_a_file_without_a_row_is_told_and_a_row_without_a_file_is_listed(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(3)
    (root / "volumes" / "p0001.nii.gz").rename(root / "volumes" / "stranger.nii.gz")
    folder = Folder(root)
    assert [s.study_id for s in folder.studies()] == ["p0000", "p0001", "p0002"]
    (told,) = folder.set_aside()
    assert (told.key, told.reason) == ("stranger", "unlisted_file")


def test_the_longest_volume_name_owns_a_mask(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    (root / "volumes" / "p0000_thin.nii.gz").write_bytes(b"")
    (root / "masks" / "p0000_thin_left_lung.nii.gz").write_bytes(b"")
    write_table(root, [{"volume": "p0000", "report": "a"}, {"volume": "p0000_thin", "report": "b"}])
    first, second = Folder(root).studies()
    assert list(first.series[0].masks) == ["body"]
    assert list(second.series[0].masks) == ["left_lung"]


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("split", "valid", "split 'valid'"),
        ("Lung nodule", "2", "label 'Lung nodule' is '2'"),
        ("Lung nodule", "-1", "label 'Lung nodule' is '-1'"),
        ("volume", "", "'volume' is empty"),
        ("volume", "../elsewhere/p0000", "leaves the folder"),
        ("volume", "/etc/passwd", "leaves the folder"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_line(
    make_folder: MakeFolder, column: str, value: str, word: str
) -> None:
    root = make_folder(2)
    first, second = rows_of(root)
    write_table(root, [first, {**second, column: value}])
    with pytest.raises(SourceError, match=word) as caught:
        list(Folder(root).studies())
    assert "line 3" in str(caught.value)
    assert "patient1" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no column 'volume'"),
        (b"volumes,report\na,b\n", "nearest: 'volumes'"),
        (b"volume,report,Report\na,b,c\n", "occur twice"),
        (b"volume,report\na,b,c\n", "3 fields"),
        (b"volume,report\n", "no rows"),
        (b'volume,report\na,"b\n', "studies.csv"),
        (b"volume,report\na,\xff\xfe\n", "no UTF-8"),
        (b"v\0o\0l\0u\0m\0e\0", "zero bytes"),
        (b"volume,report,findings\na,b,c\n", "both 'report' and 'findings'"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(
    make_folder: MakeFolder, content: bytes, word: str
) -> None:
    root = make_folder(1)
    (root / "studies.csv").write_bytes(content)
    with pytest.raises(SourceError, match=word):
        list(Folder(root).studies())


def test_a_report_longer_than_the_csv_module_allows_is_read(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "positions.jsonl").unlink()
    write_table(root, [{"volume": "p0000", "report": "nodule " * 59_999 + "nodule."}])
    (study,) = Folder(root).studies()
    assert len(study.reports[0].findings) == 420_000


def test_a_folder_without_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"studies\.csv"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"section": "history"},
        {"start": 5, "end": 5},
        {"end": 4000},
        {"start": None},
        {"z_mm": [1.0, 2.0]},
        {"z_mm": "here"},
    ],
)
def test_a_position_outside_its_text_is_an_error_with_its_line(
    make_folder: MakeFolder, change: dict[str, object]
) -> None:
    root = make_folder(1)
    good = json.loads((root / "positions.jsonl").read_text())
    (root / "positions.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}))
    with pytest.raises(SourceError, match=r"positions\.jsonl line 2"):
        list(Folder(root).studies())


@pytest.mark.parametrize("line", ["{", "[1]", '{"volume": "p0000"}'])
def test_an_item_that_cannot_be_read_is_an_error_with_its_line(
    make_folder: MakeFolder, line: str
) -> None:
    root = make_folder(1)
    (root / "items.jsonl").write_text(line + "\n")
    with pytest.raises(SourceError, match=r"items\.jsonl line 1"):
        list(Folder(root).studies())


def test_one_name_in_two_folders_is_an_error(make_folder: MakeFolder) -> None:
    root = make_folder(1)
    (root / "volumes" / "more").mkdir()
    (root / "volumes" / "more" / "p0000.nii.gz").write_bytes(b"")
    with pytest.raises(SourceError, match="occur twice"):
        list(Folder(root).studies())
