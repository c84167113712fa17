"""Rad-ChestCT as a source: every trap of its layout on a fabricated tree."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_rad_chestct import OWN, REASONS, STUDIES, array, fabricate, label_rows
from made_tables import write_table
from t3d.cohort.preflight import open_series
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.rad_chestct import AFFINE, MAPPINGS, PUBLISHED, RadChestCt
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.ct.geometry import spacing_mm
from t3d.ct.npz import open_npz
from t3d.ct.slices import read_whole
from t3d.errors import SourceError
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Study

TRAIN = "imgtrain_Abnormality_and_Location_Labels.csv"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree; read only."""
    return fabricate(tmp_path_factory.mktemp("rad"))


def positives(study: Study) -> set[str]:
    return {name for name, value in study.labels.items() if value == 1}


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    for splits in ("own", "all_test"):
        check_source(RadChestCt(tree, splits=splits))


def test_every_file_and_row_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = RadChestCt(tree)
    assert {key: study.split for key, study in listed(source).items()} == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(RadChestCt(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "split_leak": 1,
        "duplicate_key": 1,
        "unlisted_file": 1,
        "missing_file": 1,
        "unreadable": 1,  # no array of that name
    }
    assert dict(made.failed) == by_hand
    assert made.done == len(STUDIES) - 2
    splits = Counter(row.split for row in Cohort.open(tmp_path / "cohort").studies())
    assert splits == {"train": 2, "dev": 1, "test": 2}


def test_the_head_end_comes_last_and_spacing_is_eight_tenths(tree: Path) -> None:
    series = listed(RadChestCt(tree))["trn00001"].series[0]
    with open_npz(series.files[0], series.header, name="a") as file:
        volume = read_whole(file)
    stored = array("trn00001")
    assert (stored[0] == 900).any()  # superior first in the file
    assert np.array_equal(volume.voxels, stored[::-1])
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((0.8, 0.8, 0.8))
    assert np.all(np.diag(volume.world_from_voxel[:3, [2, 1, 0]]) > 0)  # L, P, S
    assert "LPI" in volume.steps[0]  # of the fastest axis, the middle one, the slowest


def test_the_stated_affine_is_minus_eight_tenths_on_each_crossed_axis() -> None:
    assert [AFFINE[n][n] for n in range(3)] == [-0.8, -0.8, -0.8]


def test_the_door_opens_it_with_what_the_source_states(tree: Path) -> None:
    series = listed(RadChestCt(tree))["val00001"].series[0]
    with open_series(series) as file:
        assert (file.name, file.shape_kji) == ("val00001", (20, 20, 20))


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(RadChestCt, fabricate(tmp_path))


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    plain = fabricate(tmp_path / "plain", volumes=False)
    for seed in (1, 2, 3):
        root = fabricate(tmp_path / str(seed), seed=seed, volumes=False)
        assert_same_listing(RadChestCt(root), RadChestCt(plain))


def test_a_scan_has_a_finding_if_any_place_has_it(tree: Path) -> None:
    study = listed(RadChestCt(tree, mapping="none"))["trn00001"]
    assert positives(study) == {"nodulegr1cm", "calcification"}
    assert set(study.labels) == set(OWN)
    assert set(study.labels.values()) == {0, 1}


@pytest.mark.parametrize(
    ("mapping", "scan", "names"),
    [
        (
            "standard",
            "trn00001",
            {"Lung nodule", "Arterial wall calcification", "Coronary artery wall calcification"},
        ),
        ("extended", "trn00001", {"Lung nodule"}),
        ("standard", "trn00002", set()),
        ("extended", "trn00002", {"Pulmonary fibrotic sequela"}),
        ("standard", "val00001", {"Emphysema"}),
        ("extended", "val00001", {"Emphysema", "Medical material"}),
        ("standard", "tst00002", {"Cardiomegaly", "Hiatal hernia"}),
    ],
)
def test_both_mappings_give_ct_rates_names(
    tree: Path, mapping: str, scan: str, names: set[str]
) -> None:
    study = listed(RadChestCt(tree, mapping=mapping))[scan]
    assert positives(study) & set(CT_RATE_18) == names
    assert study.facts["labels_mapping"] == mapping


def test_the_standard_mapping_has_17_names_and_the_extended_one_18() -> None:
    assert set(CT_RATE_18) - set(MAPPINGS["standard"]) == {"Mosaic attenuation pattern"}
    assert set(MAPPINGS["extended"]) == set(CT_RATE_18)
    assert len(PUBLISHED) == 2 + 16  # the literature leaves out one of two equal calcifications


def test_a_class_without_a_mapping_is_not_stated(tree: Path) -> None:
    assert "Mosaic attenuation pattern" not in listed(RadChestCt(tree))["trn00001"].labels


def test_a_blank_label_is_not_stated_and_never_absent(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [
        {k: "" if k.startswith("emphysema*") else v for k, v in row.items()}
        for row in label_rows(["trn00001"])
    ]
    write_table(root / TRAIN, rows)
    study = listed(RadChestCt(root))["trn00001"]
    assert study.labels["emphysema"] is None
    assert study.labels["Emphysema"] is None
    assert study.labels["Cardiomegaly"] == 0


def test_patients_come_from_the_summary_and_never_sit_in_two_splits(tree: Path) -> None:
    studies = listed(RadChestCt(tree))
    assert studies["trn00001"].patient_id == studies["trn00002"].patient_id == "d1"
    assert studies["tst00001"].patient_id == "d4"
    assert studies["tst00002"].facts["subset"] == "imgtest_d"


def test_all_scans_may_be_test_and_then_nothing_leaks(tree: Path) -> None:
    source = RadChestCt(tree, splits="all_test")
    assert {study.split for study in source.studies()} == {"test"}
    assert "trn00004" in listed(source)
    assert "split_leak" not in {told.reason for told in source.set_aside()}


def test_without_a_summary_each_scan_is_a_patient_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fabricate(tmp_path, volumes=False)
    (root / "Summary_3630.csv").unlink()
    with caplog.at_level(logging.WARNING):
        studies = listed(RadChestCt(root))
    assert studies["trn00004"].patient_id == "trn00004"
    assert "no Summary" in caplog.text


def test_a_copy_is_compared_with_the_published_counts(tree: Path) -> None:
    told = RadChestCt(tree, mapping="extended", splits="all_test").differences()
    assert "scans: 7, published 3630" in told
    assert "patients: 6, published 3072" in told
    assert "Emphysema: 1, published 992" in told
    assert "Lung opacity: 0, published 1955" in told
    assert len(told) == len(PUBLISHED)


def test_there_are_no_reports(tree: Path) -> None:
    assert all(study.reports == () for study in RadChestCt(tree).studies())


def test_strange_labels_settings_and_folders_are_errors(tmp_path: Path, tree: Path) -> None:
    root = fabricate(tmp_path / "a", volumes=False)
    write_table(root / TRAIN, [{"NoteAcc_DEID": "trn00001", "nodule*left_lung": "-1"}])
    with pytest.raises(SourceError, match="line 2: a label is neither 0, 1 nor blank"):
        list(RadChestCt(root).studies())
    with pytest.raises(SourceError, match="mapping is 'both'"):
        RadChestCt(tree, mapping="both")
    with pytest.raises(SourceError, match="splits is 'train'"):
        RadChestCt(tree, splits="train")
    assert RadChestCt.fits(tree)
    assert not RadChestCt.fits(tmp_path)
    with pytest.raises(SourceError, match="no table of labels"):
        RadChestCt(tmp_path)
