"""Mining: citations to mm through series and instance numbers, and every reason not to."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t3d.cohort.listing import Terms
from t3d.cohort.mine import REASONS, MinedRow, MineSummary, mine
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.dicom_folder import DicomFolder
from t3d.cohort.store import TABLES_FILE, Cohort
from t3d.ct import nifti
from t3d.errors import SourceError, StoreError
from t3d.phantom.citations import KINDS, plant_citations
from t3d.phantom.dicom import SeriesStyle, WrittenSeries, write_archive, write_dicom
from t3d.phantom.presets import DEMO
from t3d.text.citations import find_citations, strip_citations
from t3d.types import Preparation, Report, Sentence, Series, Study, Volume, Zyx

pydicom = pytest.importorskip("pydicom")

SMALL = Preparation(name="small", size_vox=Zyx(z=8, y=8, x=8))
PITCH_MM = 3.0
BOTTOM_MM = 40.0  # centre of the lowest slice


# ---- a made source -------------------------------------------------------------------------


def body(*, turn_degrees: float = 0.0, slices: int = 30) -> Volume:
    """A small body in air, turned about the left-right axis."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    plane = np.where(y**2 + x**2 < 0.7, 40, -1000)
    voxels = np.rint(plane[None] + rng.normal(0, 5, (slices, 16, 16))).astype(np.int16)
    turn = np.radians(turn_degrees)
    matrix = np.zeros((4, 4))
    matrix[:3, 0] = PITCH_MM * np.array([0, -np.sin(turn), np.cos(turn)])
    matrix[:3, 1] = 4.0 * np.array([0, np.cos(turn), np.sin(turn)])
    matrix[:3, 2] = 4.0, 0, 0
    matrix[:, 3] = -30.0, -30.0, BOTTOM_MM, 1.0
    return Volume(volume_id="made", voxels=voxels, world_from_voxel=matrix)


class Made:
    """A source of studies that a test put together."""

    kind = "made"
    terms = Terms(licence="made for a test")

    def __init__(self, *studies: Study) -> None:
        self._studies = studies

    def studies(self) -> Iterator[Study]:
        yield from self._studies


def series(folder: Path, name: str = "a", **style: object) -> WrittenSeries:
    made = SeriesStyle(**{"letters": "LPI", "number": 2, "kernel": "B30f", **style})  # type: ignore[arg-type]
    return write_dicom(folder / name, body(), style=made)


def study(written: WrittenSeries, *reports: str | Report, **facts: str) -> Study:
    """One study whose only series has 30 slices: image n lies at 127 - 3 (n - 1) mm."""
    told = tuple(r if isinstance(r, Report) else Report(findings=r) for r in reports)
    one = Series(series_id="volume", files=written.files, facts=facts)
    return Study(study_id="study", patient_id="patient", series=(one,), reports=told)


def z_of(image: int) -> float:
    """Where an image of `series` lies: the first one on top."""
    return BOTTOM_MM + PITCH_MM * (30 - image)


def mined(
    folder: Path, *studies: Study, preparation: Preparation = SMALL
) -> tuple[MineSummary, Cohort]:
    prepare(Made(*studies), folder / "cohort", preparation, workers=0)
    return mine(folder / "cohort"), Cohort.open(folder / "cohort")


@pytest.fixture(scope="module")
def axial(tmp_path_factory: pytest.TempPathFactory) -> WrittenSeries:
    return series(tmp_path_factory.mktemp("axial"))


@pytest.fixture(scope="module")
def prepared(axial: WrittenSeries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of the one axial series, prepared once."""
    out = tmp_path_factory.mktemp("prepared") / "cohort"
    prepare(Made(study(axial, "All is well.")), out, SMALL, workers=0)
    return out


def mined_anew(
    prepared: Path, folder: Path, findings: str, impression: str = ""
) -> tuple[MineSummary, Cohort]:
    """Mine other words in a copy of the prepared cohort: preparing takes a quarter of a second."""
    shutil.copytree(prepared, folder / "cohort")
    tables = sqlite3.connect(folder / "cohort" / TABLES_FILE)
    tables.execute("UPDATE report SET findings = ?, impression = ?", (findings, impression))
    tables.commit()
    tables.close()
    return mine(folder / "cohort"), Cohort.open(folder / "cohort")


# ---- what is kept --------------------------------------------------------------------------


def test_a_cited_slice_becomes_a_sentence_with_its_place_in_mm(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    text = "No mass. A nodule in the left lobe (series 2, image 12). Normal heart."
    summary, cohort = mined(tmp_path, study(axial, text))
    (found,) = cohort.sentences("study")
    assert z_of(12) == 94.0
    assert found.z_mm == (94.0, 92.5, 95.5)
    assert (found.origin, found.section, found.finding) == ("mined", "findings", "")
    report = cohort.report("study")
    assert report is not None
    assert report.findings == "No mass. A nodule in the left lobe. Normal heart."
    assert report.findings[found.start : found.end] == "A nodule in the left lobe."
    assert (summary.studies, summary.citing, summary.kept) == (1, 1, 1)


def test_a_range_is_one_place_and_a_list_is_several(prepared: Path, tmp_path: Path) -> None:
    text = (
        "Thick walls of the bronchi (series 2, images 10-14).\n"
        "Kleine Rundherde beidseits (Serie 2, Bilder 3 und 20)."
    )
    _, cohort = mined_anew(prepared, tmp_path, text)
    assert [s.z_mm for s in cohort.sentences("study")] == [
        (94.0, 86.5, 101.5),
        (121.0, 119.5, 122.5),
        (70.0, 68.5, 71.5),
    ]


def test_instance_numbers_are_looked_up_and_never_counted(tmp_path: Path) -> None:
    written = series(tmp_path, first_instance=101, letters="LPS")  # rising towards the head
    text = "A nodule lies here (series 2, image 101), a cyst lies there (series 2, image 12)."
    summary, cohort = mined(tmp_path, study(written, text))
    assert [s.z_mm for s in cohort.sentences("study")] == [(40.0, 38.5, 41.5)]
    assert summary.outcomes == {"kept": 1, "image_absent": 1}


def test_sentences_that_were_there_follow_their_words(axial: WrittenSeries, tmp_path: Path) -> None:
    text = "A nodule on top (series 2, image 1). A cyst below it (series 2, image 30)."
    spans = [(0, 36), (37, 74)]
    there = tuple(Sentence(section="findings", start=a, end=b, finding="x") for a, b in spans)
    _, cohort = mined(tmp_path, replace(study(axial, text), sentences=there))
    report = cohort.report("study")
    assert report is not None
    words = [report.findings[s.start : s.end] for s in cohort.sentences("study")]
    assert words == 2 * ["A nodule on top.", "A cyst below it."]
    assert [s.origin for s in cohort.sentences("study")] == ["source"] * 2 + ["mined"] * 2


def test_a_sentence_that_was_nothing_but_a_citation_is_gone(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    there = (Sentence(section="findings", start=0, end=19, finding="x", z_mm=(1.0, 0.0, 2.0)),)
    listed = study(axial, "Series 2, image 10. All is well.")
    _, cohort = mined(tmp_path, replace(listed, sentences=there))
    assert cohort.sentences("study") == ()


def test_without_a_series_number_the_only_axial_series_is_meant(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    text = "A nodule in the left lobe (image 12)."
    for number, (told, outcome) in enumerate(
        [({"axial_series": "1"}, "kept"), ({"axial_series": "2"}, "series_not_named")]
    ):
        summary, _ = mined(tmp_path / str(number), study(axial, text, **told))
        assert summary.outcomes == {outcome: 1}


def test_a_bare_number_is_not_trusted_where_the_report_names_another_series(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    text = "A cyst lies here (series 5, image 3). A nodule in the left lobe (image 12)."
    summary, _ = mined(tmp_path, study(axial, text, axial_series="1"))
    assert summary.outcomes == {"series_not_named": 1, "series_absent": 1}


# ---- what is rejected ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A nodule lies there (image 12).", "series_not_named"),
        ("A nodule lies there (series 3, image 12).", "series_absent"),
        ("A nodule lies there (series 2, image 31).", "image_absent"),
        ("A nodule lies there (series 2, image 0).", "image_absent"),
        ("A nodule lies there (series 2, images 5-14).", "range_too_long"),
        ("A nodule lies there (series 2, images 5-40).", "image_absent"),
        ("A nodule, compared with series 2, image 10 of 02/2019.", "prior_study"),
        ("A nodule as in the prior examination (series 2, image 10).", "prior_study"),
        ("A previously seen nodule (series 2, image 10).", "prior_study"),
        ("A nodule lies there (series 2, image 10 on 12.03.2019).", "prior_study"),
        ("A nodule lies there (March 2019, series 2, image 10).", "prior_study"),
        ("A nodule lies there ([**2019-3-2**], series 2, image 10).", "prior_study"),
        ("Rundherd im Vergleich zur Voraufnahme (Serie 2, Bild 10).", "prior_study"),
        ("Rundherd wie in der Voruntersuchung (Serie 2, Bild 10).", "prior_study"),
        ("N\u00f3dulo ya visto en el estudio previo (serie 2, imagen 10).", "prior_study"),
        ("A nodule (series 2, image 10).", "too_short"),
        ("Series 2, image 10.", "too_short"),
        ("No mass. (series 2, image 10) Normal heart and lungs.", "unclear_sentence"),
        ("A nodule lies there (sagittal image 12).", "other_plane"),
        ("Ein Herd liegt dort (koronares Bild 12).", "other_plane"),
    ],
)
def test_each_guard_rejects_with_its_reason_and_strips_all_the_same(
    prepared: Path, tmp_path: Path, text: str, reason: str
) -> None:
    summary, cohort = mined_anew(prepared, tmp_path, text)
    assert summary.outcomes == {reason: 1}
    assert reason in REASONS
    assert cohort.sentences("study") == ()
    report = cohort.report("study")
    assert report is not None
    assert report.findings == strip_citations(text)


@pytest.mark.parametrize(
    "text",
    [
        "A nodule, seen prior to contrast, lies there (series 2, image 10).",
        "A nodule in the anterior segment (series 2, image 10).",
        "A nodule of 3 x 4 mm in segment 4, T12 intact (series 2, image 10).",
        "Nodules lie there (series 2, images 5-13).",  # 24 mm between the centres
    ],
)
def test_a_guard_does_not_reject_what_only_looks_like_its_reason(
    prepared: Path, tmp_path: Path, text: str
) -> None:
    summary, _ = mined_anew(prepared, tmp_path, text)
    assert summary.outcomes == {"kept": 1}


def test_a_second_report_is_stripped_but_not_mined(axial: WrittenSeries, tmp_path: Path) -> None:
    text = "A nodule lies there (series 2, image 12)."
    second = Report(findings=text, status="preliminary")
    summary, cohort = mined(tmp_path, study(axial, "All is well.", second))
    assert summary.outcomes == {"not_first_report": 1}
    assert [r.findings for r in cohort.reports("study")] == [
        "All is well.",
        "A nodule lies there.",
    ]


def test_the_same_words_and_slice_are_kept_once(prepared: Path, tmp_path: Path) -> None:
    text = "A nodule lies there (series 2, image 12)."
    summary, _ = mined_anew(prepared, tmp_path, text, text.replace("series 2,", "Ser. 2"))
    assert summary.outcomes == {"kept": 1, "duplicate": 1}


@pytest.mark.parametrize("letters", ["LIP", "PIL"])
def test_a_series_that_is_not_axial_gives_no_height(tmp_path: Path, letters: str) -> None:
    written = series(tmp_path, letters=letters)
    summary, _ = mined(tmp_path, study(written, "A nodule lies there (series 2, image 12)."))
    assert summary.outcomes == {"not_axial": 1}


@pytest.mark.parametrize(("degrees", "outcome"), [(20.0, "kept"), (30.0, "not_axial")])
def test_a_tilt_of_more_than_25_degrees_gives_no_height(
    tmp_path: Path, degrees: float, outcome: str
) -> None:
    written = write_dicom(tmp_path / "a", body(turn_degrees=degrees), style=SeriesStyle())
    summary, _ = mined(tmp_path, study(written, "A nodule lies there (series 2, image 12)."))
    assert summary.outcomes == {outcome: 1}


def test_a_place_outside_what_was_prepared_is_rejected(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    middle = Preparation(
        name="crop",
        spacing_mm=Zyx(z=PITCH_MM, y=4.0, x=4.0),
        size_vox=Zyx(z=10, y=16, x=16),
        fit="pad_crop",
    )
    text = "A nodule lies high (series 2, image 2), a cyst lies below (series 2, image 15)."
    summary, _ = mined(tmp_path, study(axial, text), preparation=middle)
    assert [(row.first, row.outcome) for row in summary.rows] == [
        (2, "outside_crop"),
        (15, "kept"),
    ]


def test_two_series_of_one_number_and_one_without_a_table_are_rejected(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    one = study(axial, "A nodule lies there (series 2, image 12).")
    other = series(tmp_path, "b", kernel="B60f")
    both = replace(one, series=(*one.series, Series(series_id="other", files=other.files)))
    summary, _ = mined(tmp_path / "both", both)
    assert summary.outcomes == {"series_ambiguous": 1}
    made = body()
    nifti.write(tmp_path / "made.nii.gz", made.voxels, made.world_from_voxel)
    plain = Series(
        series_id="plain", files=(tmp_path / "made.nii.gz",), facts={"series_number": "2"}
    )
    summary, _ = mined(tmp_path / "plain", replace(one, series=(plain,)))
    assert summary.outcomes == {"no_instances": 1}


# ---- a run ---------------------------------------------------------------------------------


def test_a_second_run_finds_nothing_and_loses_nothing(axial: WrittenSeries, tmp_path: Path) -> None:
    listed = study(axial, "A nodule lies there (series 2, image 12).")
    _, cohort = mined(tmp_path, listed)
    before, kept = cohort.digest, cohort.sentences("study")
    again = mine(tmp_path / "cohort")
    assert (again.citing, again.outcomes, again.rows) == (0, {}, ())
    assert (cohort.digest, cohort.sentences("study")) == (before, kept)
    done = prepare(Made(listed), tmp_path / "cohort", SMALL, workers=0)
    assert (done.done, done.skipped) == (0, 1)
    assert cohort.digest == before


def test_a_dry_run_counts_and_changes_nothing(axial: WrittenSeries, tmp_path: Path) -> None:
    listed = study(axial, "A nodule lies there (series 2, image 12).")
    prepare(Made(listed), tmp_path / "cohort", SMALL, workers=0)
    before = Cohort.open(tmp_path / "cohort").digest
    counted = mine(tmp_path / "cohort", dry_run=True)
    assert counted.outcomes == {"kept": 1}
    assert Cohort.open(tmp_path / "cohort").digest == before
    assert mine(tmp_path / "cohort") == counted


def test_the_table_has_a_row_per_cited_image_and_no_words(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    text = "A nodule lies there (series 2, image 12) and there (series 9, images 3-4)."
    prepare(Made(study(axial, text)), tmp_path / "cohort", SMALL, workers=0)
    summary = mine(tmp_path / "cohort", table=tmp_path / "mined.csv")
    with (tmp_path / "mined.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["series"], r["first"], r["last"], r["outcome"], r["z_mm"]) for r in rows] == [
        ("2", "12", "12", "kept", "94.0"),
        ("9", "3", "4", "series_absent", ""),
    ]
    assert len(rows) == len(summary.rows) == sum(summary.outcomes.values())
    assert "nodule" not in (tmp_path / "mined.csv").read_text("utf-8")


def test_a_folder_without_a_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        mine(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_studies_without_citations_keep_their_texts_and_rows(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    there = (Sentence(section="findings", start=0, end=12, finding="x", z_mm=(1.0, 0.0, 2.0)),)
    listed = replace(study(axial, "All is well."), sentences=there)
    prepare(Made(listed), tmp_path / "cohort", SMALL, workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    before = cohort.digest
    assert mine(tmp_path / "cohort").outcomes == {}
    assert cohort.digest == before


def test_a_cohort_lists_what_is_recorded_of_a_studys_volumes(
    axial: WrittenSeries, tmp_path: Path
) -> None:
    first = replace(study(axial, "One.").series[0], series_id="a", facts={"kernel": "B30f"})
    second = replace(first, series_id="b", facts={})
    listed = replace(study(axial, "One."), series=(second, first))
    for size in (8, 6):
        grid = Preparation(name=f"z{size}", size_vox=Zyx(z=size, y=8, x=8))
        prepare(Made(listed), tmp_path / "cohort", grid, workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    volumes = cohort.volumes("study")
    assert [(one.volume_id, one.shape) for one in volumes] == [
        ("a", (6, 8, 8)),
        ("a", (8, 8, 8)),
        ("b", (6, 8, 8)),
        ("b", (8, 8, 8)),
    ]
    held = cohort.volume("a", "z8")
    assert np.array_equal(volumes[1].world_from_voxel, held.world_from_voxel)
    assert volumes[1].steps == held.steps
    assert volumes[1].facts == dict(cohort.volume_facts("a", "z8"))
    assert volumes[1].source == cohort.sources("z8")["a"]
    assert len(volumes[1].sha256) == 64
    assert cohort.volumes("nobody") == ()


# ---- phantoms as DICOM ---------------------------------------------------------------------


@pytest.mark.parametrize(("language", "letters"), [("en", "LPI"), ("mixed", "LPS")])
def test_every_planted_citation_is_found_placed_or_rejected_as_planted(
    tmp_path: Path, language: str, letters: str
) -> None:
    written = write_archive(
        tmp_path / "export",
        DEMO,
        patients=4,
        styles=(SeriesStyle(letters=letters, first_instance=11),),
        localizer=True,
        dose_report=True,
    )
    planted = plant_citations(tmp_path / "export", language=language)
    assert {one.outcome for one in planted} >= {kind for kind in KINDS if kind != "range"}
    source = DicomFolder(
        tmp_path / "export" / "dicom",
        reports=tmp_path / "export" / "reports.csv",
        key=tmp_path / "key",
    )
    prepare(source, tmp_path / "cohort", SMALL, workers=0)
    summary = mine(tmp_path / "cohort", table=tmp_path / "mined.csv")
    assert summary.outcomes == dict(Counter(one.outcome for one in planted))
    asked = sorted((p.series or 0, p.first, p.last, p.outcome) for p in planted)
    assert sorted((r.series or 0, r.first, r.last, r.outcome) for r in summary.rows) == asked
    cohort = Cohort.open(tmp_path / "cohort")
    found = []
    for row in cohort.studies():
        report = cohort.report(row.study_id)
        assert report is not None
        assert not find_citations(report.findings + "\n" + report.impression)
        (volume_id,) = row.volume_ids
        heights = sorted(z for _, z in cohort.slices(volume_id))
        half_mm = (heights[1] - heights[0]) / 2
        for s in cohort.sentences(row.study_id):
            assert s.z_mm is not None
            words = getattr(report, s.section)[s.start : s.end]
            found.append((words, *(round(z, 1) for z in s.z_mm), round(half_mm, 1)))
    kept = [one for one in planted if one.z_mm is not None]
    assert len(kept) >= 8
    for one in kept:
        low, high = one.z_mm or (0.0, 0.0)
        assert any(
            words == one.words
            and centre == pytest.approx((low + high) / 2, abs=0.2)
            and bottom == pytest.approx(low - half_mm, abs=0.2)
            and top == pytest.approx(high + half_mm, abs=0.2)
            for words, centre, bottom, top, half_mm in found
        )
    told = (tmp_path / "mined.csv").read_text("utf-8") + repr(summary)
    assert not any(secret in told for one in written for secret in one.identity.secrets)


def test_the_words_beside_a_planted_citation_are_those_of_the_finding(tmp_path: Path) -> None:
    write_archive(tmp_path / "export", DEMO, patients=2)
    with (tmp_path / "export" / "reports.csv").open(newline="", encoding="utf-8") as file:
        before = {row["accession"]: row for row in csv.DictReader(file)}
    planted = plant_citations(tmp_path / "export", language="de", seed=3)
    again = (tmp_path / "export" / "truth.jsonl").read_text("utf-8")
    with (tmp_path / "export" / "reports.csv").open(newline="", encoding="utf-8") as file:
        after = {row["accession"]: row for row in csv.DictReader(file)}
    for truth in map(json.loads, again.splitlines()):
        old, new = before[truth["accession"]], after[truth["accession"]]
        priors = [c for c in truth["citations"] if c["outcome"] == "prior_study"]
        for section in ("findings", "impression"):
            left = strip_citations(new[section])
            for _ in priors:
                left = left.replace(", im Vergleich zur Voraufnahme", "")
            assert left == old[section]
        for sentence in truth["sentences"]:
            words = new[sentence["section"]][sentence["start"] : sentence["end"]]
            assert words.strip() == words
            assert bool(find_citations(words)) == (sentence["z_mm"] is not None)
    assert sum(len(json.loads(line)["citations"]) for line in again.splitlines()) == len(planted)


def test_planting_refuses_an_unknown_language_and_a_folder_that_is_no_archive(
    tmp_path: Path,
) -> None:
    with pytest.raises(SourceError, match="without truth"):
        plant_citations(tmp_path)
    with pytest.raises(SourceError, match="'fr'"):
        plant_citations(tmp_path, language="fr")


# ---- two real chests -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "half_mm", "num_boxes"),
    [("chest_lungpetctdx_A0001", 2.5, 9), ("chest_lungpetctdx_A0002", 4.0, 10)],
)
def test_made_sentences_about_annotated_boxes_land_on_the_slice_of_their_box(
    real_data: Path, tmp_path: Path, name: str, half_mm: float, num_boxes: int
) -> None:
    folder = real_data / "dicom" / name
    by_uid = {}
    for file in sorted(folder.rglob("*.dcm")):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        by_uid[str(header.SOPInstanceUID)] = header
    boxes = []  # series, image, z in LPS mm: the key is the UID, not a file name
    for file in sorted((folder / "annotations").glob("*.xml")):
        assert ET.parse(file).find("object/bndbox") is not None
        header = by_uid[file.stem]
        height = float(header.ImagePositionPatient[2])
        boxes.append((int(header.SeriesNumber), int(header.InstanceNumber), height))
    assert len(boxes) == num_boxes
    words = [f"Lesion number {n} is seen here" for n in range(num_boxes)]
    cited = [f"{w} (series {s}, image {i})." for w, (s, i, _) in zip(words, boxes, strict=True)]
    other = "A lesion is seen here (series 2, image 15)."  # a reconstruction not prepared
    study_uid = str(header.StudyInstanceUID)
    with (tmp_path / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerows([("study_uid", "report"), (study_uid, " ".join([*cited, other]))])
    source = DicomFolder(folder, reports=tmp_path / "reports.csv", key=tmp_path / "key")
    prepare(source, tmp_path / "cohort", SMALL, workers=0)
    summary = mine(tmp_path / "cohort")
    assert summary.outcomes == {"kept": num_boxes, "series_absent": 1}
    cohort = Cohort.open(tmp_path / "cohort")
    (row,) = (r for r in cohort.studies() if cohort.reports(r.study_id))
    report = cohort.report(row.study_id)
    assert report is not None
    found = {report.findings[s.start : s.end]: s.z_mm for s in cohort.sentences(row.study_id)}
    for word, (_, _, height) in zip(words, boxes, strict=True):
        centre, low, high = found[f"{word}."] or (0.0, 0.0, 0.0)
        assert abs(centre - height) <= half_mm
        assert (low, high) == (centre - half_mm, centre + half_mm)


def test_rows_are_ordered_and_plain(prepared: Path, tmp_path: Path) -> None:
    text = "A nodule lies there (series 2, image 12)."
    summary, _ = mined_anew(prepared, tmp_path, text)
    assert summary.rows == (
        MinedRow(
            study_id="study",
            report=0,
            section="findings",
            start=21,
            end=39,
            series=2,
            first=12,
            last=12,
            outcome="kept",
            volume_id="volume",
            z_mm=94.0,
        ),
    )
