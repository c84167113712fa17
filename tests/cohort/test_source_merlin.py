"""Merlin's abdominal CTs as a source: every trap of their layout on a fabricated tree."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_merlin import FOLDER, LABELS, REASONS, REPORTS, TEXTS, fabricate
from made_tables import write_table
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.merlin import Merlin, split_report
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation, Report


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree; read only."""
    return fabricate(tmp_path_factory.mktemp("merlin"))


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(Merlin(tree))
    assert "non-commercial" in Merlin(tree).terms.licence


def test_every_file_and_row_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = Merlin(tree)
    assert set(listed(source)) == set(TEXTS)
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(Merlin(tree), tmp_path / "cohort", tiny, workers=0)
    assert dict(made.failed) == {"duplicate_key": 1, "unlisted_file": 1, "missing_file": 1}
    assert made.done == len(TEXTS) - 1


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(Merlin, fabricate(tmp_path))


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    plain = fabricate(tmp_path / "plain", volumes=False)
    for seed in (1, 2, 3):
        root = fabricate(tmp_path / str(seed), seed=seed, volumes=False)
        assert_same_listing(Merlin(root), Merlin(plain))


def test_splits_are_theirs_and_val_is_dev(tree: Path) -> None:
    splits = {key: study.split for key, study in listed(Merlin(tree)).items()}
    assert splits["AC0000001"] == "train"
    assert splits["AC0000003"] == "dev"
    assert splits["AC0000005"] == "test"


def test_the_id_is_a_text_and_both_endings_are_read(tree: Path) -> None:
    studies = listed(Merlin(tree))
    assert studies["0004241"].series[0].files[0].name == "0004241.nii.gz"
    assert studies["AC0000008"].series[0].files[0].name == "AC0000008.nii"
    assert all(
        study.series[0].files[0].is_file() for key, study in studies.items() if key != "AC0000006"
    )


@pytest.mark.parametrize(
    ("text", "findings", "impression", "found_by"),
    [
        (TEXTS["AC0000001"], "Liver normal.", "1. No acute disease.", "heading"),
        (TEXTS["AC0000002"], "Gallstones.", "1. Cholelithiasis.\n2. No obstruction.", "heading"),
        (
            TEXTS["AC0000003"],
            "Liver: fatty.\nKidneys: normal.",
            "1. Steatosis.\n2. Stones & sand <5 mm.",
            "list",
        ),
        (TEXTS["AC0000004"], "Liver normal. Spleen normal.", "", ""),
        ("FINDINGS: A.\nImpressions : B.", "A.", "B.", "heading"),
        ("FINDINGS: No impression of mass effect.", "No impression of mass effect.", "", ""),
        ("Liver: fatty.\nPelvis: normal.", "Liver: fatty.\nPelvis: normal.", "", ""),
        ("Liver normal.\n1. One alone.", "Liver normal.\n1. One alone.", "", ""),
        ("A 3 cm cyst, 1. 5 mm.", "A 3 cm cyst, 1. 5 mm.", "", ""),
        ("Lesions:\n1. Seg 4.\n2. Seg 7.\nBowel normal.\n1. Metastases.\n2. No obstruction.",
         "Lesions:\n1. Seg 4.\n2. Seg 7.\nBowel normal.", "1. Metastases.\n2. No obstruction.",
         "list"),
        ("IMPRESSION: Only this.", "", "Only this.", "heading"),
        ("  ", "", "", ""),
        ("nan", "", "", ""),
    ],
)  # fmt: skip
def test_findings_and_impression_are_told_apart(
    text: str, findings: str, impression: str, found_by: str
) -> None:
    report = Report(findings=findings, impression=impression)
    told, by = split_report(text)
    assert (told.report, by) == (report, found_by)
    assert not told.facts


def test_an_addendum_is_no_impression_of_its_own_and_is_counted() -> None:
    told, by = split_report("Liver normal.\nADDENDUM: Seen again, no change.")
    assert told.report == Report(
        findings="Liver normal.", impression="Addendum: Seen again, no change."
    )
    assert (by, dict(told.facts)) == ("", {"report_addenda": "1"})
    told, by = split_report("Liver normal.\n1. No mass.\n2. Cyst.\nADDENDUM: Stable.")
    assert told.report.impression == "1. No mass.\n2. Cyst.\n\nAddendum: Stable."
    assert by == "list"


def test_a_mark_of_deidentification_is_no_text() -> None:
    told, _ = split_report("Liver seen by <PERSON>X</PERSON>. IMPRESSION: 1. Stable since ___.")
    assert told.report == Report(findings="Liver seen by.", impression="1. Stable since.")


def test_each_study_says_how_its_impression_was_found(tree: Path) -> None:
    studies = listed(Merlin(tree))
    assert studies["AC0000001"].facts["impression_by"] == "heading"
    assert studies["AC0000003"].facts["impression_by"] == "list"
    assert "impression_by" not in studies["AC0000004"].facts
    assert studies["AC0000005"].reports == ()


def test_not_mentioned_is_a_third_state(tree: Path) -> None:
    studies = listed(Merlin(tree))
    assert dict(studies["AC0000001"].labels) == {"ascites": 0, "gallstones": None, "fracture": 1}
    assert dict(studies["AC0000002"].labels) == {"ascites": None, "gallstones": 1, "fracture": None}
    assert dict(studies["AC0000003"].labels) == {}
    assert studies["AC0000001"].facts["labels_file"] == "zero_shot_findings_disease_cls.csv"


def test_what_is_known_of_patient_and_scan_is_kept_and_no_more(tree: Path) -> None:
    study = listed(Merlin(tree))["AC0000001"]
    assert {k: study.facts[k] for k in ("sex", "age")} == {"sex": "F", "age": "63"}
    assert dict(study.series[0].facts) == {
        "hu_source": "header",
        "manufacturer": "M",
        "contrast": "iv",
        "phase": "venous",
    }
    assert "not kept" not in repr(study)
    assert listed(Merlin(tree))["AC0000004"].facts["few_shot"] == "1"


def test_without_a_patient_column_each_study_is_a_patient_and_a_warning(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        studies = listed(Merlin(tree))
    assert all(study.patient_id == key for key, study in studies.items())
    assert "no table names patients" in caplog.text


@pytest.mark.parametrize("column", ["patient_id", "Patient ID", "person_id"])
def test_a_patient_column_is_used_and_splits_are_checked_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [
        {"study id": key, column: who}
        for key, who in (("AC0000001", "7"), ("AC0000002", "8"), ("AC0000003", "7"))
    ]
    write_table(root / FOLDER / "metadata.csv", rows)
    with caplog.at_level(logging.WARNING):
        studies = listed(Merlin(root))
    assert studies["AC0000002"].patient_id == "8"
    assert studies["AC0000003"].patient_id == "7"  # dev keeps the patient, train gives way
    assert "AC0000001" not in studies
    assert {p.key: p.reason for p in Merlin(root).set_aside()}["AC0000001"] == "split_leak"
    assert "no table names patients" not in caplog.text


def test_optional_tables_may_be_missing_and_the_reports_may_be_csv(tmp_path: Path) -> None:
    write_table(tmp_path / "reports_final.csv", REPORTS[:2])
    assert set(listed(Merlin(tmp_path))) == {"AC0000001", "AC0000002"}


def test_a_table_with_another_first_column_names_studies_by_it(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [{"case_id": row["study id"], "ascites": row["ascites"]} for row in LABELS]
    write_table(root / FOLDER / "zero_shot_findings_disease_cls.csv", rows)
    assert dict(listed(Merlin(root))["AC0000001"].labels) == {"ascites": 0}


def test_strange_labels_and_splits_are_errors(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    labels = root / FOLDER / "zero_shot_findings_disease_cls.csv"
    write_table(labels, [{**LABELS[0], "ascites": "2"}])
    with pytest.raises(SourceError, match="line 2: ascites is none of 1, 0, -1"):
        list(Merlin(root).studies())
    labels.unlink()
    write_table(root / FOLDER / "reports_final.xlsx", [{**REPORTS[0], "Split": "holdout"}])
    with pytest.raises(SourceError, match="line 2: no split of Merlin"):
        list(Merlin(root).studies())


def test_what_is_no_such_folder_is_an_error(tmp_path: Path, tree: Path) -> None:
    assert Merlin.fits(tree)
    assert Merlin.fits(tree / FOLDER)
    assert not Merlin.fits(tmp_path)
    with pytest.raises(SourceError, match="no reports_final"):
        Merlin(tmp_path)
