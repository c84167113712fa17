"""RadGenome-ChestCT as a source: regions of a report, and masks on the grid of its volumes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_radgenome import REASONS, STUDIES, WHOLE, fabricate, mask, place, rows
from made_tables import write_table
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.radgenome import REGIONS, RadGenome
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation, Sentence, Study

TABLE = Path("radgenome_files", "train_region_report.csv")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree; read only."""
    return fabricate(tmp_path_factory.mktemp("radgenome"))


def words(study: Study, region: str) -> list[str]:
    """What the sentences of a region say, read from the report."""
    text = study.reports[0].findings
    return [text[s.start : s.end] for s in study.sentences if s.origin == f"region:{region}"]


# ---- what is listed ------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(RadGenome(tree))
    assert RadGenome.fits(tree)
    assert not RadGenome.fits(tree / "dataset" / "train_preprocessed")
    assert RadGenome(tree).patients_of == CtRate.kind


def test_every_row_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = RadGenome(tree)
    assert tuple(listed(source)) == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(RadGenome(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "missing_file": 8,  # masks of 1_a_1, 1_a_2, 1_b, 2, 4, 5 and valid_1; the volume of 5
        "unlisted_file": 2,  # a rib cage; the volume 8
        "duplicate_key": 2,  # 4_a_2 is told otherwise; two files of 7
        "bad_affine": 1,  # the mask of 6 lies on another grid
    }
    assert dict(made.failed) == by_hand
    assert made.done == len(STUDIES) - 2  # without 5 and 6
    again = prepare(RadGenome(tree), tmp_path / "cohort", tiny, workers=0)
    assert (again.done, again.skipped) == (0, len(STUDIES))


def test_patient_study_and_volume_are_those_of_ct_rate(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_1_a"]
    assert study.patient_id == "train_1"
    assert [one.series_id for one in study.series] == ["train_1_a_1", "train_1_a_2"]
    top = tree / "dataset"
    assert study.series[0].files == (top / place("train", "train_1_a_1"),)
    (missing,) = listed(RadGenome(tree))["train_5_a"].series
    assert missing.files == (top / place("train", "train_5_a_1"),)


def test_listing_opens_no_volume_and_no_mask(tmp_path: Path) -> None:
    assert_opens_no_volume(RadGenome, fabricate(tmp_path))


def test_the_order_of_rows_and_columns_does_not_matter(tree: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        assert_same_listing(RadGenome(fabricate(tmp_path / str(seed), seed=seed)), RadGenome(tree))


def test_both_namings_of_the_validation_table_are_read(tmp_path: Path) -> None:
    for name in ("validation", "valid"):
        table = tmp_path / name / "radgenome_files" / f"{name}_region_report.csv"
        write_table(table, rows("valid_1_a_1", {"lung": "Clear lungs."}))
        assert [s.split for s in RadGenome(tmp_path / name).studies()] == ["test"]


def test_splits_are_those_of_ct_rate(tmp_path: Path) -> None:
    names = [f"train_{n}_a_1" for n in range(400)]
    told = [row for name in names for row in rows(name, {"lung": "Clear."})]
    write_table(tmp_path / "a" / TABLE, told)
    reports = [
        {"VolumeName": f"{name}.nii.gz", "Findings_EN": "Clear.", "Impressions_EN": ""}
        for name in names
    ]
    write_table(tmp_path / "b" / "radiology_text_reports" / "train_reports.csv", reports)
    ours = {s.study_id: s.split for s in RadGenome(tmp_path / "a").studies()}
    assert ours == {s.study_id: s.split for s in CtRate(tmp_path / "b").studies()}
    assert Counter(ours.values())["dev"] > 0


@pytest.mark.parametrize("name", ["valid_1_a_1", "train_1_a", "lung_001", ""])
def test_a_row_that_names_no_volume_of_its_split_is_an_error(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / TABLE, rows(name, {"lung": "Clear."}))
    with pytest.raises(SourceError, match="line 2: Volumename is no volume of train"):
        list(RadGenome(tmp_path).studies())


def test_a_capital_in_the_name_of_the_key_is_another_table(tmp_path: Path) -> None:
    row = {"VolumeName": "train_1_a_1.nii.gz", "Anatomy": "lung", "Sentence": "Clear."}
    write_table(tmp_path / TABLE, [row])
    with pytest.raises(SourceError, match="no column 'Volumename'"):
        list(RadGenome(tmp_path).studies())


def test_a_folder_without_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no table of regions"):
        RadGenome(tmp_path)


# ---- text ----------------------------------------------------------------------------------


def test_sentences_of_regions_stand_in_the_whole_report(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_1_a"]
    assert study.reports[0].findings == WHOLE
    assert words(study, "trachea and bronchie") == ["Trachea and main bronchi are open."]
    assert words(study, "lung") == [
        "A nodule of 4 mm is seen in the left lung. Emphysema in both lungs."
    ]
    assert words(study, "heart") == ["Heart size is normal."]  # as the report spells it
    assert words(study, "others") == ["No lytic lesion."]
    assert "regions_added" not in study.facts
    assert {s.finding for s in study.sentences} == {""}  # a region is no finding


def test_sentences_are_in_the_order_of_the_report(tree: Path) -> None:
    sentences = listed(RadGenome(tree))["train_1_a"].sentences
    assert [s.start for s in sentences] == sorted(s.start for s in sentences)
    assert len(sentences) == 4


def test_without_a_whole_report_the_regions_are_the_report(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_1_b"]
    assert study.reports[0].findings == "No fracture.\nClear lungs."
    assert words(study, "lung") == ["Clear lungs."]
    assert study.facts["regions_added"] == "bone, lung"


def test_what_the_whole_report_lacks_is_put_behind_it_and_told(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_2_a"]
    assert study.reports[0].findings == "Whole report.\nNo effusion."
    assert words(study, "pleura") == ["No effusion."]
    assert study.facts["regions_added"] == "pleura"


def test_sentinels_are_no_text(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_3_a"]
    assert (study.reports, study.sentences) == ((), ())


def test_sentences_of_a_region_that_stand_apart_are_found_apart(tmp_path: Path) -> None:
    whole = "Nodule on the left. Heart normal. Scar on the right."
    told = {"": whole, "lung": "Scar on the right. Nodule on the left."}
    write_table(tmp_path / TABLE, rows("train_1_a_1", told))
    (study,) = RadGenome(tmp_path).studies()
    assert words(study, "lung") == ["Nodule on the left.", "Scar on the right."]
    assert study.reports[0].findings == whole


def test_several_rows_of_a_region_are_all_kept(tmp_path: Path) -> None:
    told = [
        *rows("train_1_a_1", {"": "Nodule. Scar. Rest.", "lung": "Scar."}),
        *rows("train_1_a_1", {"lung": "Nodule."}),
        *rows("train_1_a_1", {"lung": "Nodule.", "": "Rest."}),
        *rows("train_1_a_1", {"": "A second text without a region."}),
    ]
    write_table(tmp_path / TABLE, told)
    (study,) = RadGenome(tmp_path).studies()
    # The longest text without a region is the report; the other one is kept behind it.
    assert study.reports[0].findings.split("\n")[0] == "A second text without a region."
    assert words(study, "lung") == ["Nodule.", "Scar."]


def test_a_word_is_not_found_inside_another(tmp_path: Path) -> None:
    write_table(tmp_path / TABLE, rows("train_1_a_1", {"": "Abnormal heart", "heart": "normal"}))
    (study,) = RadGenome(tmp_path).studies()
    assert study.reports[0].findings == "Abnormal heart\nnormal"
    assert study.sentences == (
        Sentence(section="findings", start=15, end=21, origin="region:heart"),
    )


def test_a_letter_whose_small_form_is_longer_moves_nothing(tmp_path: Path) -> None:
    whole = "Dr. \u0130nan: heart normal. Lungs clear."
    write_table(tmp_path / TABLE, rows("train_1_a_1", {"": whole, "lung": "Lungs clear."}))
    (study,) = RadGenome(tmp_path).studies()
    assert words(study, "lung") == ["Lungs clear."]


# ---- masks ---------------------------------------------------------------------------------


def test_masks_that_are_there_are_listed_by_region(tree: Path) -> None:
    study = listed(RadGenome(tree))["train_1_a"]
    folder = tree / "dataset" / "train_region_mask" / "seg_train_1_a_1"
    assert study.series[0].masks == {
        "heart": folder / "heart.nii.gz",
        "lung": folder / "lung.nii.gz",
    }
    assert study.series[1].masks == {}
    told = {one.key: one.message for one in RadGenome(tree).set_aside()}
    assert told["train_1_a_1/masks"] == (
        "no mask of trachea and bronchie, of which its report speaks"
    )


def test_the_last_region_is_spelled_as_the_files_are(tmp_path: Path) -> None:
    write_table(tmp_path / TABLE, rows("train_1_a_1", {"trachea and bronchie": "Open."}))
    path = tmp_path / "train_region_mask" / "seg_train_1_a_1" / "trachea and bronchie.nii.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"never opened")
    (study,) = RadGenome(tmp_path).studies()
    assert dict(study.series[0].masks) == {"trachea and bronchie": path}
    assert RadGenome(tmp_path).set_aside() == ()
    assert len(REGIONS) == 10


def test_masks_can_be_left_out(tree: Path) -> None:
    source = RadGenome(tree, masks=False)
    assert all(one.masks == {} for s in source.studies() for one in s.series)
    assert "missing_file" not in {told.reason for told in source.set_aside()}


def test_a_mask_is_prepared_with_its_volume(tree: Path, tmp_path: Path) -> None:
    prepare(RadGenome(tree), tmp_path / "cohort", Preparation(name="whole"), workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    assert cohort.mask_names("train_1_a_1") == ("heart", "lung")
    held = cohort.mask("train_1_a_1", "lung")
    assert held is not None
    assert np.array_equal(held, mask())
    assert cohort.mask_names("train_1_a_2") == ()
