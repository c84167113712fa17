"""DICOM trees as a source: what becomes a study, who gets which report, what never leaks."""

from __future__ import annotations

import csv
import logging
import random
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.cohort.prepare import prepare
from t3d.cohort.pseudonyms import open_pseudonyms
from t3d.cohort.sources.dicom_folder import DicomFolder
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.errors import SourceError, T3DError
from t3d.phantom.dicom import write_archive
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO
from t3d.types import Preparation, Report, Study

pydicom = pytest.importorskip("pydicom")

ROOT = Path(__file__).resolve().parents[2]
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
LITTLE = "1.2.840.10008.1.2.1"
BASE = "1.2.826.0.1.3680043.8.498"


def body(seed: int, slices: int = 10) -> Any:
    """Stored values of a small body in air; HU = stored - 1024."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    plane = np.where(y**2 + x**2 < 0.7, 1064, 24)
    return np.rint(plane[None] + rng.normal(0, 5, (slices, 16, 16))).astype(np.uint16)


def header(study: int, series: int, patient: str, **more: Any) -> Any:
    """A data set with what every file of a series has."""
    made = pydicom.Dataset()
    made.SOPClassUID = CT_CLASS
    made.StudyInstanceUID = f"{BASE}.{study}"
    made.SeriesInstanceUID = f"{BASE}.{study}.{series}"
    made.FrameOfReferenceUID = f"{BASE}.{study}.9"
    made.PatientID = patient
    made.PatientSex, made.PatientAge = "F", "061Y"
    made.AccessionNumber = f"ACC{study}"
    made.StudyDate = f"202401{study:02d}"
    made.Modality, made.Manufacturer = "CT", "SIEMENS"
    made.ConvolutionKernel, made.SeriesNumber = "B40f", series
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.Rows = made.Columns = 16
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.SamplesPerPixel, made.PixelRepresentation = 1, 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.RescaleSlope, made.RescaleIntercept = 1, -1024
    made.PixelSpacing = [2.0, 2.0]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for name, value in more.items():
        setattr(made, name, value)
    return made


def save(made: Any, path: Path) -> None:
    """Write one file with its meta header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = LITTLE
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path, study: int, series: int, patient: str, *, gap_after: int = 0, **more: Any
) -> None:
    """Write a series slice by slice, 3 mm apart; `gap_after` leaves the next one out."""
    stored = body(100 * study + series)
    for number, plane in enumerate(stored, start=1):
        if gap_after and number == gap_after + 1:
            continue
        made = header(study, series, patient, **more)
        made.SOPInstanceUID = f"{made.SeriesInstanceUID}.{number}"
        made.InstanceNumber = number
        made.ImagePositionPatient = [-15.0, -15.0, 40.0 + 3.0 * number]
        made.PixelData = plane.tobytes()
        save(made, folder / f"{made.SOPInstanceUID}.dcm")


def write_multiframe(path: Path, study: int, patient: str, **more: Any) -> None:
    """Write one enhanced file that holds a whole volume."""
    stored = body(study)
    made = header(study, 1, patient, SOPClassUID=ENHANCED_CT, **more)
    made.SOPInstanceUID, made.NumberOfFrames = f"{BASE}.{study}.1.1", len(stored)
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = [pydicom.Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [2.0, 2.0]
    shared.PlaneOrientationSequence = [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelValueTransformationSequence = [pydicom.Dataset()]
    shared.PixelValueTransformationSequence[0].RescaleIntercept = -1024
    shared.PixelValueTransformationSequence[0].RescaleSlope = 1
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for number in range(len(stored)):
        item = pydicom.Dataset()
        item.PlanePositionSequence = [pydicom.Dataset()]
        item.PlanePositionSequence[0].ImagePositionPatient = [-15.0, -15.0, 3.0 * number]
        made.PerFrameFunctionalGroupsSequence.append(item)
    for name in ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImageOrientationPatient"):
        delattr(made, name)
    made.PixelData = stored.tobytes()
    save(made, path)


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write a CSV with the columns of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    open_pseudonyms(path)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies of two patients, read only."""
    root = tmp_path_factory.mktemp("tree")
    write_series(root / "a", 1, 1, "P1")
    write_series(root / "a", 1, 2, "P1", ConvolutionKernel="B70f")
    write_series(root / "b", 2, 1, "P1", PatientAge="093Y")
    write_series(root / "c", 3, 1, "P2", PatientSex="M")
    return root


@pytest.fixture
def pairing(tree: Path, key: Path, tmp_path: Path) -> Any:
    """List the tree with a table of these rows."""

    def pair(*rows: Mapping[str, str]) -> tuple[dict[int, Study], Counter[str]]:
        columns = {name: "" for row in rows for name in row}
        table = write_table(tmp_path / "reports.csv", [{**columns, **row} for row in rows])
        source = DicomFolder(tree, reports=table, key=key)
        ids = {open_pseudonyms(key).of("study", f"{BASE}.{n}"): n for n in (1, 2, 3)}
        told = Counter(one.reason for one in source.set_aside())
        return {ids[study.study_id]: study for study in source.studies()}, told

    return pair


# ---- what is listed ------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_source(tree: Path, key: Path) -> None:
    check_source(DicomFolder(tree, key=key))
    assert list(DicomFolder(tree, key=key).studies()) == list(DicomFolder(tree, key=key).studies())


def test_ids_are_keyed_hashes_and_patients_keep_theirs_across_studies(
    tree: Path, key: Path, tmp_path: Path
) -> None:
    studies = {s.study_id: s for s in DicomFolder(tree, key=key).studies()}
    secret = open_pseudonyms(key)
    assert set(studies) == {secret.of("study", f"{BASE}.{n}") for n in (1, 2, 3)}
    patients = Counter(study.patient_id for study in studies.values())
    assert patients == {secret.of("patient", "P1"): 2, secret.of("patient", "P2"): 1}
    assert all(
        re.fullmatch(r"se[0-9a-f]{20}", one.series_id) for s in studies.values() for one in s.series
    )
    others = {s.study_id for s in DicomFolder(tree, key=tmp_path / "other").studies()}
    assert not others & set(studies)


def test_one_series_of_a_study_is_taken_and_the_others_have_a_reason(tree: Path, key: Path) -> None:
    source = DicomFolder(tree, key=key)
    kernels = [one.facts["kernel"] for study in source.studies() for one in study.series]
    assert kernels == ["B40f", "B40f", "B40f"]
    (told,) = source.set_aside()
    assert told.reason == "not_chosen"
    assert "B70f" in told.message


def test_another_kernel_can_be_asked_for(tree: Path, key: Path) -> None:
    source = DicomFolder(tree, key=key, kernel="B70f")
    (study,) = source.studies()
    assert study.series[0].facts["kernel"] == "B70f"
    assert Counter(one.reason for one in source.set_aside()) == {
        "not_chosen": 1,
        "not_asked_for": 2,
    }


def test_facts_hold_device_sex_and_age_and_no_date(tree: Path, key: Path) -> None:
    studies = list(DicomFolder(tree, key=key).studies())
    assert sorted((s.facts["sex"], s.facts["age"]) for s in studies) == [
        *(("F", "61"), ("F", "90"), ("M", "61")),
    ]
    told = [dict(study.series[0].facts) for study in studies]
    # One study has a second kernel: what "image 38" means there is not settled.
    assert sorted(facts.pop("axial_series") for facts in told) == ["1", "1", "2"]
    assert told[0] == {"kernel": "B40f", "manufacturer": "SIEMENS", "series_number": "1"}
    assert "2024" not in repr([(s.facts, s.labels, s.reports) for s in studies])


@pytest.mark.parametrize(
    ("born", "seen", "age"),
    [("19600201", "20240131", "63"), ("19600131", "20240131", "64"), ("", "20240131", None)],
)
def test_a_missing_age_comes_from_the_dates(
    tmp_path: Path, key: Path, born: str, seen: str, age: str | None
) -> None:
    write_series(tmp_path / "t", 1, 1, "P1", PatientAge="", PatientBirthDate=born, StudyDate=seen)
    (study,) = DicomFolder(tmp_path / "t", key=key).studies()
    assert study.facts.get("age") == age


def test_listing_reads_no_pixels_and_minds_no_order_of_files(
    tree: Path, key: Path, tmp_path: Path
) -> None:
    copied = sorted(tree.rglob("*.dcm"))
    random.Random(1).shuffle(copied)
    for number, path in enumerate(copied):
        made = pydicom.dcmread(path)
        del made.PixelData
        save(made, tmp_path / "t" / str(number % 5) / f"{number}")
    told = [
        [
            (s.study_id, s.patient_id, s.facts, [(o.series_id, o.facts) for o in s.series])
            for s in DicomFolder(root, key=key).studies()
        ]
        for root in (tree, tmp_path / "t")
    ]
    assert told[0] == told[1]


def test_a_study_under_two_patients_is_set_aside(tmp_path: Path, key: Path) -> None:
    write_series(tmp_path / "t", 1, 1, "P1")
    write_series(tmp_path / "t", 1, 2, "P2")
    source = DicomFolder(tmp_path / "t", key=key)
    assert list(source.studies()) == []
    assert [one.reason for one in source.set_aside()] == ["mixed_patients"]


def test_blank_patients_are_not_one_patient(
    tmp_path: Path, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for study in (1, 2):
        write_series(tmp_path / "t", study, 1, "")
    with caplog.at_level(logging.WARNING):
        studies = list(DicomFolder(tmp_path / "t", key=key).studies())
    assert len({study.patient_id for study in studies}) == 2
    assert "2 studies name no patient" in caplog.text


def test_series_without_a_study_are_studies_of_their_own(tmp_path: Path, key: Path) -> None:
    for series in (1, 2):
        write_series(tmp_path / "t", 1, series, "P1", StudyInstanceUID="")
    studies = list(DicomFolder(tmp_path / "t", key=key).studies())
    assert len({study.study_id for study in studies}) == 2
    assert len({study.patient_id for study in studies}) == 1


def test_what_is_no_ct_is_set_aside_with_its_kind(tmp_path: Path, key: Path) -> None:
    write_series(tmp_path / "t", 1, 1, "P1")
    write_series(tmp_path / "t", 1, 2, "P1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    report = header(1, 99, "P1", Modality="SR", SOPClassUID=DOSE_REPORT)
    report.SOPInstanceUID = f"{BASE}.1.99.1"
    save(report, tmp_path / "t" / "dose")
    (tmp_path / "t" / "readme.txt").write_text("burnt by a viewer\n" * 20)
    source = DicomFolder(tmp_path / "t", key=key)
    assert len(list(source.studies())) == 1
    told = source.set_aside()
    assert Counter(one.reason for one in told) == {"not_ct": 2, "not_dicom": 1}
    assert {
        word for one in told for word in ("localizer", "dose report") if word in one.message
    } == {
        *("localizer", "dose report"),
    }


def test_an_archive_lists_the_same_and_leaves_nothing_behind(
    tree: Path, key: Path, tmp_path: Path, tiny: Preparation
) -> None:
    packed = tmp_path / "export.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(tree.rglob("*.dcm")):
            archive.write(path, f"DOE^JANE/{path.name}")
    with DicomFolder(packed, key=key) as source:
        ids = [study.study_id for study in source.studies()]
        files = [path for s in source.studies() for one in s.series for path in one.files]
        assert all(path.is_file() for path in files)
        assert prepare(source, tmp_path / "c", tiny, workers=0).done == 3
    assert ids == [study.study_id for study in DicomFolder(tree, key=key).studies()]
    assert not any(path.exists() for path in files)


def test_gaps_are_refused_in_mm_or_interpolated_as_asked(
    tmp_path: Path, key: Path, tiny: Preparation
) -> None:
    write_series(tmp_path / "t", 1, 1, "P1", gap_after=5)
    refused = prepare(DicomFolder(tmp_path / "t", key=key), tmp_path / "c", tiny, workers=0)
    assert (refused.done, dict(refused.failed)) == (0, {"uneven_slices": 1})
    source = DicomFolder(tmp_path / "t", key=key, gaps="interpolate")
    assert prepare(source, tmp_path / "d", tiny, workers=0).done == 1
    volume = Cohort.open(tmp_path / "d").volume(next(source.studies()).series[0].series_id)
    assert any("interpolat" in step or "resampled" in step for step in volume.steps)


def test_a_prepared_study_is_the_one_that_was_written(
    tree: Path, key: Path, tmp_path: Path
) -> None:
    grid = Preparation(name="own")
    source = DicomFolder(tree, key=key)
    prepare(source, tmp_path / "c", grid, workers=0)
    secret, cohort = open_pseudonyms(key), Cohort.open(tmp_path / "c")
    for study in (1, 2, 3):
        series = secret.of("series", f"{BASE}.{study}.1", "B40f", "")
        volume = cohort.volume(series)
        expected = body(100 * study + 1).astype(np.int16) - 1024
        assert np.array_equal(volume.voxels, expected)
        assert volume.world_from_voxel[2, 3] == pytest.approx(43.0)


# ---- pairing -------------------------------------------------------------------------------

BY_UID = {"study_uid": f"{BASE}.1", "findings": "One."}
BY_ACCESSION = {"accession": "ACC2", "findings": "Two."}
BY_VISIT = {"patient": "P2", "date": "2024-01-03", "findings": "Three."}


def test_reports_find_their_study_by_each_kind_of_identifier(pairing: Any) -> None:
    studies, told = pairing(BY_UID, BY_ACCESSION, BY_VISIT)
    found = {number: study.reports for number, study in studies.items()}
    assert found == {
        1: (Report(findings="One."),),
        2: (Report(findings="Two."),),
        3: (Report(findings="Three."),),
    }
    assert told == {"not_chosen": 1}


def test_a_study_without_a_row_is_listed_without_a_report(pairing: Any) -> None:
    studies, _ = pairing(BY_UID)
    assert studies[2].reports == ()


def test_the_order_of_rows_pairs_nothing(pairing: Any) -> None:
    rows = [BY_UID, BY_ACCESSION, BY_VISIT]
    assert pairing(*rows) == pairing(*reversed(rows))


def test_dicom_names_of_columns_are_understood(pairing: Any) -> None:
    studies, _ = pairing(
        {"StudyInstanceUID": f"{BASE}.1", "AccessionNumber": "", "Report": "One."},
        {"StudyInstanceUID": "", "AccessionNumber": "ACC2", "Report": "Two."},
    )
    assert studies[1].reports == (Report(findings="One."),)
    assert studies[2].reports == (Report(findings="Two."),)


def test_split_labels_and_language_come_along_and_other_columns_do_not(pairing: Any) -> None:
    row = {**BY_UID, "split": "dev", "Emphysema": "1", "Cardiomegaly": "", "language": "de"}
    studies, _ = pairing({**row, "physician": "Dr Who"})
    assert studies[1].split == "dev"
    assert dict(studies[1].labels) == {"Cardiomegaly": None, "Emphysema": 1}
    assert studies[1].reports[0].language == "de"
    assert "Who" not in repr(studies[1])


def test_several_keys_must_name_one_study(pairing: Any) -> None:
    row = {**BY_UID, "accession": "ACC1", "patient": "P1", "date": "20240101"}
    studies, told = pairing(row)
    assert studies[1].reports == (Report(findings="One."),)
    assert told == {"not_chosen": 1}


@pytest.mark.parametrize(
    ("change", "hit"),
    [
        ({"accession": "ACC2"}, {1, 2}),  # one key names study 1, the other study 2
        ({"patient": "P2"}, {1}),  # the study's own patient is P1
        ({"date": "20230101"}, {1}),
        ({"patient": "P2", "date": "20240103"}, {1, 3}),
    ],
)
def test_keys_that_contradict_set_row_and_studies_aside(
    pairing: Any, change: dict[str, str], hit: set[int]
) -> None:
    studies, told = pairing({**BY_UID, **change})
    assert set(studies) == {1, 2, 3} - hit
    # The row and each study; the second kernel of study 1 is no longer looked at.
    assert told["ambiguous_report"] == 1 + len(hit)
    assert all(study.reports == () for study in studies.values())


def test_a_key_that_this_tree_does_not_know_says_nothing(tmp_path: Path, key: Path) -> None:
    write_series(tmp_path / "t", 1, 1, "P1", AccessionNumber="")
    table = write_table(tmp_path / "r.csv", [{**BY_UID, "accession": "A77", "patient": "P1"}])
    (study,) = DicomFolder(tmp_path / "t", reports=table, key=key).studies()
    assert study.reports == (Report(findings="One."),)


@pytest.mark.parametrize(
    "row",
    [
        {"accession": "A77", "findings": "Text."},
        {"study_uid": f"{BASE}.77", "findings": "Text."},
        {"patient": "P1", "date": "20230101", "findings": "Text."},
    ],
)
def test_a_row_whose_study_is_not_here_is_told(pairing: Any, row: dict[str, str]) -> None:
    studies, told = pairing(row)
    assert len(studies) == 3
    assert told == {"not_chosen": 1, "no_study": 1}


@pytest.mark.parametrize("row", [{"patient": "P2"}, {"date": "20240103"}, {"accession": " "}])
def test_half_an_identifier_pairs_nothing(pairing: Any, row: dict[str, str]) -> None:
    studies, told = pairing({**row, "findings": "Text."})
    assert all(study.reports == () for study in studies.values())
    assert told == {"not_chosen": 1, "no_identifier": 1}


def test_an_accession_of_two_studies_is_ambiguous(tmp_path: Path, key: Path) -> None:
    for study in (1, 2, 3):
        accession = "SAME" if study < 3 else "OTHER"
        write_series(tmp_path / "t", study, 1, f"P{study}", AccessionNumber=accession)
    rows = [{"accession": "SAME", "patient": "", "findings": "Whose?"}]
    table = write_table(tmp_path / "r.csv", rows)
    source = DicomFolder(tmp_path / "t", reports=table, key=key)
    secret = open_pseudonyms(key)
    assert [s.study_id for s in source.studies()] == [secret.of("study", f"{BASE}.3")]
    assert Counter(one.reason for one in source.set_aside()) == {"ambiguous_report": 3}
    # With the patient beside it, the same accession is clear.
    table = write_table(tmp_path / "r.csv", [{**rows[0], "patient": "P2"}])
    studies = {s.study_id: s for s in DicomFolder(tmp_path / "t", reports=table, key=key).studies()}
    assert studies[secret.of("study", f"{BASE}.2")].reports == (Report(findings="Whose?"),)
    assert len(studies) == 3


def test_two_visits_of_a_patient_on_one_day_are_ambiguous(tmp_path: Path, key: Path) -> None:
    for study in (1, 2):
        write_series(tmp_path / "t", study, 1, "P1", StudyDate="20240105")
    row = {"patient": "P1", "date": "20240105", "findings": "Which?"}
    table = write_table(tmp_path / "r.csv", [row])
    source = DicomFolder(tmp_path / "t", reports=table, key=key)
    assert list(source.studies()) == []
    assert Counter(one.reason for one in source.set_aside()) == {"ambiguous_report": 3}


def test_two_final_reports_of_one_study_are_ambiguous_and_equal_ones_are_one(pairing: Any) -> None:
    studies, _ = pairing(BY_UID, {"accession": "ACC1", "findings": "One."})
    assert studies[1].reports == (Report(findings="One."),)
    studies, told = pairing(BY_UID, {"accession": "ACC1", "findings": "Else."})
    assert 1 not in studies
    assert told["ambiguous_report"] == 1


EARLY = {"findings": "Not yet.", "status": "Preliminary"}
LATE = {"report": "Seen again.", "findings": "", "status": "ADDENDUM"}


def test_a_final_report_replaces_a_preliminary_one_and_that_is_counted(pairing: Any) -> None:
    studies, _ = pairing(BY_UID, {**BY_UID, **EARLY})
    assert studies[1].reports == (Report(findings="One."),)
    assert studies[1].facts["reports_replaced"] == "1"
    studies, _ = pairing({**BY_UID, **EARLY})
    assert studies[1].reports == (Report(findings="Not yet.", status="preliminary"),)
    assert "reports_replaced" not in studies[1].facts


def test_addenda_are_added_to_their_report_in_an_order_of_their_own(pairing: Any) -> None:
    rows = [BY_UID, {**BY_UID, **LATE}, {**BY_UID, **LATE, "report": "And once more."}]
    studies, told = pairing(*rows)
    (report,) = studies[1].reports
    assert report.findings == "One."
    assert report.impression == "Addendum: And once more.\n\nAddendum: Seen again."
    assert studies[1].facts["report_addenda"] == "2"
    assert pairing(*reversed(rows))[0][1] == studies[1]
    assert told == pairing(*reversed(rows))[1]


def test_an_addendum_without_split_and_labels_does_not_contradict_its_report(pairing: Any) -> None:
    labels = {"Emphysema": "1", "split": "test"}
    studies, _ = pairing({**BY_UID, **labels}, {**BY_UID, **LATE, "Emphysema": "", "split": ""})
    assert studies[1].split == "test"
    assert dict(studies[1].labels) == {"Emphysema": 1}
    assert "report_addenda" in studies[1].facts


def test_an_addendum_by_its_own_words_alone_is_no_second_final_report(pairing: Any) -> None:
    late = {**BY_UID, "findings": "", "report": "ADDENDUM: Seen again."}
    studies, _ = pairing(BY_UID, late)
    assert studies[1].reports == (Report(findings="One.", impression="Addendum: Seen again."),)
    assert studies[1].facts["report_addenda"] == "1"


def test_two_preliminary_reports_are_ambiguous_until_a_final_one_is_there(pairing: Any) -> None:
    early = [{**BY_UID, **EARLY}, {**BY_UID, **EARLY, "findings": "Nor yet."}]
    studies, told = pairing(*early)
    assert 1 not in studies
    assert told["ambiguous_report"] == 1
    studies, _ = pairing(*early, BY_UID)
    assert studies[1].reports == (Report(findings="One."),)
    assert studies[1].facts["reports_replaced"] == "2"


def test_a_free_text_falls_into_parts_and_sections_and_tells_its_own_status(pairing: Any) -> None:
    text = "Befund: Kein Erguss.\nBeurteilung: Normal.\nNachtrag: Der Text."
    studies, _ = pairing({**BY_UID, "findings": "", "report": text})
    assert studies[1].reports == (
        Report(findings="Kein Erguss.", impression="Normal.\n\nNachtrag: Der Text.", language="de"),
    )
    studies, _ = pairing({**BY_UID, "findings": "", "report": "Wet read: A."}, BY_UID)
    assert studies[1].reports == (Report(findings="One."),)


def test_rows_of_one_study_with_different_splits_set_it_aside(pairing: Any) -> None:
    studies, told = pairing({**BY_UID, "split": "dev"}, {**BY_UID, "split": "test"})
    assert 1 not in studies
    assert told["duplicate_key"] == 1


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"date": "31.01.2024"}, "date"),
        ({"status": "signed"}, "status"),
        ({"split": "valid"}, "split"),
        ({"Emphysema": "yes"}, "a label"),
        ({"report": "Both.", "findings": "Both."}, "report and findings"),
        ({"patientid": "P1", "patient": "P1"}, "two columns mean patient"),
    ],
)
def test_a_row_that_is_not_understood_is_an_error_without_its_values(
    pairing: Any, row: dict[str, str], word: str
) -> None:
    with pytest.raises(SourceError, match=word) as caught:
        pairing({**BY_UID, **row})
    assert not any(value in str(caught.value) for value in (BASE, "31.01.2024", "P1"))


@pytest.mark.parametrize("what", ["root", "reports"])
def test_a_missing_path_is_an_error_that_does_not_name_it(
    tree: Path, key: Path, tmp_path: Path, what: str
) -> None:
    paths: dict[str, Any] = {"root": tree, "reports": None, what: tmp_path / "DOE_JANE"}
    with pytest.raises(SourceError) as caught:
        DicomFolder(paths["root"], reports=paths["reports"], key=key)
    assert "DOE" not in str(caught.value)


# ---- nothing leaks -------------------------------------------------------------------------

SECRETS = {
    "PatientName": "Zweistein^Albertine",
    "PatientID": "MRN5550123",
    "OtherPatientIDs": "OLDMRN777",
    "PatientBirthDate": "19320704",
    "PatientAddress": "Kirchgasse 5",
    "AccessionNumber": "ACCN9981",
    "StudyDate": "20231130",
    "SeriesDate": "20231129",
    "StudyDescription": "Thorax von Frau Zweistein",
    "SeriesDescription": "Lunge Albertine",
    "ProtocolName": "Protokoll Zweistein",
    "InstitutionName": "Spital am See",
    "InstitutionAddress": "Seestrasse 12",
    "ReferringPhysicianName": "Doktor^Frankenstein",
    "OperatorsName": "Igorson",
    "StationName": "CTRAUM3X",
    "StudyID": "SID8812",
}
TABLE_SECRETS = {"physician": "Doktor Caligari", "phone": "0445550199"}
ODD_UID = "3680043.8.QQX"
NAMES_ON_DISK = ("ZWEISTEIN_ALBERTINE", "OnceSecret", "berichte_zweistein")
WORDS = {
    *(word for value in SECRETS.values() for word in re.split(r"[\^ ]", value) if len(word) > 3),
    *(word for value in TABLE_SECRETS.values() for word in value.split()),
    *NAMES_ON_DISK,
    BASE,
    ODD_UID,
}
# "von" and "Frau" are too short or too common to look for; "Thorax" is anatomy.
WORDS -= {"Thorax", "Frau", "Lunge", "Protokoll", "Doktor"}

RUN = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.dicom_folder import DicomFolder
from t3d.cohort.store import Cohort
from t3d.types import Preparation, Zyx
if __name__ == "__main__":
    root, table, key, out, workers = sys.argv[1:]
    source = DicomFolder(root, reports=table, key=key)
    made = prepare(
        source, out, Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=10)), workers=int(workers)
    )
    print(made, source, source.set_aside(), source.terms)
    cohort = Cohort.open(out)
    print(cohort.facts, cohort.sources(), cohort.failures() if hasattr(cohort, "failures") else "")
    for study in source.studies():
        print(study.study_id, study.patient_id, study.reports, study.facts, study.labels)
    for broken in (root + "/nothing", key):
        try:
            list(DicomFolder(broken, reports=table, key=key).studies())
        except Exception:
            traceback.print_exc()
    open(table, "ab").write(b"a,b\\n")
    try:
        list(DicomFolder(root, reports=table, key=key).studies())
    except Exception:
        traceback.print_exc()
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree full of identifiers: in headers, names of files and folders, and the table."""
    root = tmp_path_factory.mktemp("planted")
    folder = root / NAMES_ON_DISK[0]
    write_series(folder, 1, 1, "", **SECRETS)
    write_series(folder, 1, 2, "", **SECRETS, gap_after=3, ConvolutionKernel="B70f")
    once = {**SECRETS, "PatientID": "MRN5550124", "AccessionNumber": "ACCN9982"}
    write_multiframe(folder / f"{NAMES_ON_DISK[1]}.dcm", 2, "", **once)
    gap = {**SECRETS, "PatientID": "MRN5550125", "AccessionNumber": "ACCN9983"}
    write_series(folder / "gap", 3, 1, "", gap_after=4, **gap)
    cut = sorted(folder.glob(f"{BASE}.1.1.*"))[-1]
    short = {**SECRETS, "PatientID": "MRN5550126", "AccessionNumber": "ACCN9984"}
    write_series(folder / "short", 4, 1, "", **short)
    broken = sorted((folder / "short").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:-200])  # its pixels end early
    odd = {**SECRETS, "PatientID": "MRN5550127", "AccessionNumber": "ACCN9985"}
    write_series(folder / "odd", 5, 1, "", **odd)
    for path in (folder / "odd").iterdir():  # no valid UIDs: pydicom warns and quotes them
        path.write_bytes(path.read_bytes().replace(b"3680043.8.498", ODD_UID.encode()))
    (folder / "half.dcm").write_bytes(cut.read_bytes()[:300])  # ends inside the header
    rows = [
        {
            "accession": f"ACCN998{n}",
            "patient": f"MRN555012{n + 2}",
            **TABLE_SECRETS,
            "findings": text,
        }
        for n, text in ((1, "Clear."), (2, "Nodule."), (3, "Cyst."), (4, "Scar."), (7, "Nobody."))
    ]
    write_table(root / f"{NAMES_ON_DISK[2]}.csv", rows)
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_no_identifier_is_in_any_file_line_or_message(
    planted: Path, key: Path, tmp_path: Path, workers: int
) -> None:
    script, table = tmp_path / "run.py", tmp_path / f"{NAMES_ON_DISK[2]}.csv"
    script.write_text(RUN)
    table.write_bytes((planted / table.name).read_bytes())
    out = tmp_path / "cohort"
    command = [sys.executable, script, planted / NAMES_ON_DISK[0], table, key, out, str(workers)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    # The run did what it should: three volumes, two refusals, one row too many, a broken table.
    for word in ("done=3", "uneven_slices", "unreadable", "no_study", "not_chosen", "fields"):
        assert word in told, word
    kept = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    assert len([name for name in kept if name.endswith(".b2nd")]) == 3
    leaks = {
        (place, word)
        for place, content in {**kept, "output": told.encode()}.items()
        for word in WORDS
        if word.casefold().encode() in content.lower() + place.lower().encode()
    }
    # Tracebacks name the script's own arguments only where the interpreter itself failed.
    assert leaks == set()


def test_the_planted_identifiers_are_really_there(planted: Path, key: Path) -> None:
    content = b"".join(
        path.read_bytes() + str(path.relative_to(planted)).encode()
        for path in planted.rglob("*")
        if path.is_file()
    )
    assert {word for word in WORDS if word.encode() not in content} == set()


def test_errors_and_reprs_hold_no_identifier(planted: Path, key: Path) -> None:
    source = DicomFolder(planted / NAMES_ON_DISK[0], key=key)
    shown = repr(source) + str(vars(source).keys()) + repr(source.set_aside())
    shown += repr([(s.study_id, s.patient_id, s.facts) for s in source.studies()])
    key_text = key.read_text().strip()
    assert [word for word in (*WORDS, key_text) if word in shown] == []


def test_fields_left_in_by_a_publisher_stay_behind(
    malformed: Path, key: Path, tmp_path: Path, tiny: Preparation
) -> None:
    root = malformed / "dicom" / "phi_left_in"
    summary = prepare(DicomFolder(root, key=key), tmp_path / "c", tiny, workers=0)
    assert summary.done == 1
    kept = b"".join(path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file())
    for word in (b"Doe", b"Jane", b"19500101", b"Some Hospital"):
        assert word not in kept


# ---- phantoms ------------------------------------------------------------------------------


def test_phantoms_written_as_an_export_come_back_with_their_own_reports(
    key: Path, tmp_path: Path
) -> None:
    written = write_archive(
        tmp_path / "t", DEMO, patients=3, second_kernel=True, localizer=True, dose_report=True
    )
    source = DicomFolder(tmp_path / "t" / "dicom", reports=tmp_path / "t" / "reports.csv", key=key)
    studies, secret = {s.study_id: s for s in source.studies()}, open_pseudonyms(key)
    assert len(studies) == 3
    # Of each patient the other kernel, a scout and a dose report.
    told = Counter(one.reason for one in source.set_aside())
    assert told == {"not_chosen": 3, "not_ct": 6}
    prepare(source, tmp_path / "c", Preparation(name="own"), workers=0)
    cohort = Cohort.open(tmp_path / "c")
    compared = 0
    for one in written:
        made, study = (
            patient(one.seed, preset=DEMO),
            studies[secret.of("study", one.identity.study_uid)],
        )
        expected = made.report.report
        assert [(r.findings, r.impression) for r in study.reports] == [
            (expected.findings, expected.impression),
        ]
        assert study.facts["sex"] == one.identity.sex
        (series,) = study.series
        if series.facts["kernel"] != one.series[0].style.kernel:
            continue  # the soft one of two was the second
        volume = cohort.volume(series.series_id)
        assert np.array_equal(volume.voxels, made.volume.voxels)
        assert np.allclose(volume.world_from_voxel, made.volume.world_from_voxel, atol=1e-3)
        compared += 1
    assert compared >= 1


# ---- real files ----------------------------------------------------------------------------


def test_the_real_tree_gives_its_chests_and_a_reason_for_all_else(
    real_data: Path, key: Path, tmp_path: Path, tiny: Preparation
) -> None:
    source = DicomFolder(real_data / "dicom", key=key)
    summary = prepare(source, tmp_path / "c", tiny, workers=0)
    cohort = Cohort.open(tmp_path / "c")
    facts = Counter(
        (one.facts.get("kernel", ""), len(one.files))
        for study in source.studies()
        if study.series[0].series_id in cohort.sources()
        for one in study.series
    )
    # Both whole chests and the abdomen; of every other series there is too little or too much.
    assert facts == {("B", 64): 1, ("B40f", 30): 1, ("Br38f", 20): 1}
    assert summary.done == 3
    told = Counter(one.reason for one in source.set_aside())
    assert set(told) == {
        "not_ct",
        "not_chosen",
        "too_small",
        "mixed_series",
        "not_dicom",
        "unreadable",
    }
    failed = dict(summary.failed)
    # Head with a tilt and three gaps; four slices with one missing; a DICOMDIR series in pieces.
    assert failed["uneven_slices"] >= 1
    messages = " ".join(one.message for one in source.set_aside())
    for word in (
        "localizer",
        "segmentation",
        "structured report",
        "radiotherapy dose",
        "not CT (MR)",
    ):
        assert word in messages


def test_real_series_pair_with_reports_by_accession_or_uid(
    real_data: Path, key: Path, tmp_path: Path
) -> None:
    file = real_data / "dicom" / "chest_lungpetctdx_A0002" / "series3_B40f_deflated" / "1-01.dcm"
    told = pydicom.dcmread(file, stop_before_pixels=True)
    rows = [{"study_uid": told.StudyInstanceUID, "findings": "A mass on the right."}]
    table = write_table(tmp_path / "r.csv", rows)
    source = DicomFolder(real_data / "dicom", reports=table, key=key)
    paired = [s for s in source.studies() if s.reports]
    assert [len(s.series[0].files) for s in paired] == [30]
    assert str(told.StudyInstanceUID) not in repr([(s.study_id, s.facts) for s in paired])


def test_an_error_of_the_dicom_door_is_one_of_ours(tmp_path: Path, key: Path) -> None:
    (tmp_path / "t").mkdir()
    with pytest.raises(T3DError):
        list(DicomFolder(tmp_path / "t", key=key).studies())
