"""The Decathlon as a source: every trap of its layout on a fabricated tree; fold files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_cases import write_image, write_list
from made_msd import REASONS, STUDIES, TUMOUR, fabricate, pair
from t3d.cohort.labelled import Folds, fold_text
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.amos import Amos
from t3d.cohort.sources.msd import MASK, Msd
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree; read only."""
    return fabricate(tmp_path_factory.mktemp("msd") / "Task06_Lung")


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(Msd(tree))
    assert Msd.fits(tree)
    assert not Amos.fits(tree)
    assert Msd(tree).terms.licence == "CC-BY-SA 4.0"
    assert Msd(tree).label_names() == {0: "background", 1: "cancer"}


def test_every_entry_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = Msd(tree)
    assert tuple(listed(source)) == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(Msd(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "not_asked_for": 1,  # 002: a string in `test`
        "duplicate_key": 1,  # 009: two label files
        "unlisted_file": 1,  # 007; shadows are no files
        "missing_file": 1,  # 004: no label
        "not_3d": 1,  # 005
        "unreadable": 1,  # 006: fractions are no labels
    }
    assert dict(made.failed) == by_hand
    assert made.done == 2  # 001 and 003


def test_a_tumour_of_one_voxel_is_still_there_on_its_own_grid(tree: Path, tmp_path: Path) -> None:
    prepare(Msd(tree), tmp_path / "cohort", Preparation(name="whole"), workers=0)
    held = Cohort.open(tmp_path / "cohort").mask("lung_001", MASK)
    assert held is not None
    # RAS (i, j, k) to Superior, Posterior, Left (z, y, x).
    assert np.array_equal(held, TUMOUR.T[:, ::-1, ::-1])
    assert int(held.sum()) == 1


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(Msd, fabricate(tmp_path))


def test_the_order_of_entries_does_not_matter(tree: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        assert_same_listing(Msd(fabricate(tmp_path / str(seed), seed=seed)), Msd(tree))


def test_images_without_labels_can_be_listed_in_no_split(tree: Path) -> None:
    study = listed(Msd(tree, unlabelled=True))["lung_002"]
    assert study.split == ""
    assert study.series[0].masks == {}
    assert study.series[0].files == (tree / "imagesTs" / "lung_002.nii.gz",)


@pytest.mark.parametrize(
    "modality", [{"0": "MRI"}, {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, {}, None]
)
def test_a_task_of_another_modality_is_no_ct(tmp_path: Path, modality: Any) -> None:
    write_list(tmp_path, {"training": [pair("BRATS_001")], "modality": modality})
    source = Msd(tmp_path)
    assert list(source.studies()) == []
    assert [told.reason for told in source.set_aside()] == ["not_ct"]


def test_other_tasks_and_longer_names_are_read(tmp_path: Path) -> None:
    told = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [pair("liver_0"), pair("liver_10"), pair("liver.v2_2")],
    }
    write_list(tmp_path, told)
    write_image(tmp_path / "imagesTr" / "liver_0.nii.gz")
    assert tuple(listed(Msd(tmp_path))) == ("liver.v2_2", "liver_0", "liver_10")


# ---- splits --------------------------------------------------------------------------------


def many(root: Path, count: int) -> Path:
    training = [pair(f"lung_{n:03d}") for n in range(count)]
    write_list(root, {"modality": {"0": "CT"}, "training": training})
    return root


def test_cases_are_drawn_and_the_draw_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few = {k: s.split for k, s in listed(Msd(many(tmp_path / "a", 100))).items()}
    more = {k: s.split for k, s in listed(Msd(many(tmp_path / "b", 600))).items()}
    assert few == {key: more[key] for key in few}
    counts = Counter(more.values())
    # 600 draws at 20 %: mean 120, standard deviation 9.8; 40 is four of them.
    assert abs(counts["test"] - 120) < 40
    assert counts["dev"] == 0


def test_the_folds_that_were_used_can_be_kept_and_read_back(tmp_path: Path) -> None:
    root = many(tmp_path / "a", 60)
    drawn = Msd(root, dev_share=0.1, seed=3)
    path = tmp_path / "folds.json"
    path.write_text(fold_text(drawn.studies()))
    assert {s.split for s in drawn.studies()} == {"train", "dev", "test"}
    again = listed(Msd(root, folds=str(path)))
    assert {k: s.split for k, s in again.items()} == {s.study_id: s.split for s in drawn.studies()}
    assert again["lung_000"].facts["split_by"].startswith("folds.json fold 0 sha256 ")
    assert listed(drawn)["lung_000"].facts["split_by"] == "drawn, dev 0.1, test 0.2, seed 3"


MONAI = {
    "training": [{"image": "imagesTr/lung_001.nii.gz", "label": "x"}],
    "validation": [{"image": "imagesTr/lung_003.nii.gz", "label": "x"}],
}
NNUNET = [{"train": ["a"], "val": ["b"]}, {"train": ["lung_003"], "val": ["lung_001"]}]


@pytest.mark.parametrize(
    ("told", "fold", "splits"),
    [
        (MONAI, 0, {"lung_001": "train", "lung_003": "test"}),
        (NNUNET, 1, {"lung_003": "train", "lung_001": "test"}),
        ({"train": ["x"], "val": ["y"], "test": ["z"]}, 0, {"x": "train", "y": "dev", "z": "test"}),
        ({"train": ["x.nii.gz"], "dev": ["y"]}, 0, {"x": "train", "y": "dev"}),
    ],
)
def test_fold_files_of_other_tools_are_understood(
    tmp_path: Path, told: Any, fold: int, splits: dict[str, str]
) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(told))
    assert Folds(path, fold=fold).splits == splits


@pytest.mark.parametrize(
    "told",
    [
        {"train": ["x"], "val": ["x"]},
        {"val": ["x"]},
        {"train": "x"},
        {"train": [3]},
        {"train": [""]},
        [],
        "x",
    ],
)
def test_a_fold_file_that_says_nothing_clear_is_an_error(tmp_path: Path, told: Any) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(told))
    with pytest.raises(SourceError, match=r"folds\.json"):
        Folds(path)


def test_cases_of_a_fold_file_that_are_nowhere_are_told(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"train": ["lung_001", "lung_077"], "test": ["lung_003"]}))
    source = Msd(tree, folds=str(path))
    assert list(listed(source)) == ["lung_001", "lung_003"]
    told = {one.key: one.reason for one in source.set_aside()}
    assert told["lung_077"] == "missing_file"
    assert told["lung_005"] == "not_asked_for"


# ---- lists that are none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "no JSON"),
        ("[1]", "no object"),
        ('{"test": []}', "no list of training"),
        ('{"training": {}}', "training is no list"),
        ('{"training": [{"label": "x"}]}', r"training\[0\]\.image is no path"),
        ('{"training": ["/etc/x.nii.gz"]}', r"training\[0\]\.image is no path"),
        ('{"training": ["../x.nii.gz"]}', r"training\[0\]\.image is no path"),
        ('{"training": [7]}', r"training\[0\]\.image is no path"),
        ('{"training": [], "labels": ["a"]}', "labels"),
        ('{"training": [], "labels": {"a": "b"}}', "labels"),
        ('{"training": [], "labels": {"0": "a", "00": "b"}}', "labels"),
    ],
)
def test_a_list_that_is_none_is_an_error(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(SourceError, match=match):
        Msd(tmp_path)


def test_a_folder_without_a_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"dataset\.json"):
        Msd(tmp_path)
    with pytest.raises(SourceError, match="test_share"):
        Msd(tmp_path, test_share=1.0)


# ---- real files ----------------------------------------------------------------------------


def test_a_real_ct_and_its_label_map_stay_together(real_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "Task03_Liver"
    told = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "5": "liver"},
        "training": [pair("liver_0")],
    }
    write_list(root, told)
    for folder, name in (("imagesTr", "torso_3mm_int32"), ("labelsTr", "torso_3mm_label")):
        (root / folder).mkdir()
        shutil.copy(real_data / "nifti" / "ct" / f"{name}.nii.gz", root / folder / "liver_0.nii.gz")
    whole = Preparation(name="whole")  # the file's own grid
    made = prepare(Msd(root), tmp_path / "cohort", whole, workers=0)
    assert (made.done, dict(made.failed)) == (1, {})
    cohort = Cohort.open(tmp_path / "cohort")
    held = cohort.mask("liver_0", MASK)
    assert held is not None
    volume = cohort.volume("liver_0")
    assert held.shape == volume.voxels.shape
    # Medians of liver and left lower lobe, as the index of the real data tells them.
    assert np.median(volume.voxels[held == 5]) == pytest.approx(46, abs=0.5)
    assert np.median(volume.voxels[held == 11]) == pytest.approx(-771, abs=0.5)
