"""ReXGroundingCT as a source: its index, and masks whose first axis counts findings."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons, series_of
from made_ct_rate import WORLD, Made, write_volume
from made_rexgrounding import REASONS, SHAPE, STUDIES, entry, fabricate, masks, write_masks
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.rexgrounding import ReXGrounding
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.ct import nifti
from t3d.ct.door import open_scan
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.mask_stack import depth_mm, read_part, regrid_masks
from t3d.ct.regrid import regrid_label
from t3d.ct.slices import HeldSlices
from t3d.errors import SourceError
from t3d.types import MaskPart, Preparation, Volume


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree; read only."""
    return fabricate(tmp_path_factory.mktemp("rex"))


def source_of(root: Path, **settings: Any) -> ReXGrounding:
    return ReXGrounding(root, volumes=str(root / "ct-rate"), **settings)


def parts_of(source: ReXGrounding, volume: str) -> dict[str, MaskPart]:
    parts = series_of(source)[volume].masks
    return {name: part for name, part in parts.items() if isinstance(part, MaskPart)}


def part_of(source: ReXGrounding, volume: str, number: int) -> NDArray[np.uint8]:
    """Read one mask as prepare would, on the grid of its CT."""
    part = parts_of(source, volume)[f"finding_{number}"]
    with open_scan(series_of(source)[volume].files, name=volume) as file:
        labels, _ = read_part(part, file)
    return labels


# ---- what is listed ------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(source_of(tree))
    assert ReXGrounding.fits(tree)
    assert not ReXGrounding.fits(tree / "ct-rate")
    assert "NC" in source_of(tree).terms.licence


def test_every_entry_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = source_of(tree)
    assert {key: study.split for key, study in listed(source).items()} == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(source_of(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "split_leak": 2,  # 3_a: its patient is in val; 9_a_1: itself in test
        "duplicate_key": 1,  # 4_a_1
        "unreadable": 1,  # 10_a_1
        "unlisted_file": 1,  # the masks of 99_a_1
        "missing_file": 2,  # the volume of 5_a_1, the masks of 6_a_1
        "bad_affine": 2,  # masks of 7_a_1 (one finding of two) and 8_a_1 (another shape)
    }
    assert dict(made.failed) == by_hand
    assert made.done == len(STUDIES) - 4
    cohort = Cohort.open(tmp_path / "cohort")
    assert cohort.mask_names("train_1_a_1") == ("finding_0", "finding_1")
    assert cohort.mask_names("train_30_a_1") == ()
    again = prepare(source_of(tree), tmp_path / "cohort", tiny, workers=0)
    assert (again.done, again.skipped) == (0, len(STUDIES))


def test_the_depth_of_a_mask_becomes_that_of_its_sentence(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    prepare(source_of(tree), tmp_path / "cohort", tiny, workers=0)
    first, second = Cohort.open(tmp_path / "cohort").sentences("train_1_a")
    # 1.5 mm a slice from z = 30: lesions in slices 3 (16 voxels) and 6 (40); slices 15 to 19.
    middle = 30 + 1.5 * (3 * 16 + 6 * 40) / 56
    assert first.z_mm == pytest.approx((middle, 34.5, 39.0))
    assert second.z_mm == pytest.approx((55.5, 52.5, 58.5))


def test_sentences_point_at_the_words_and_at_the_mask_of_each_finding(tree: Path) -> None:
    study = listed(source_of(tree))["train_1_a"]
    text = study.reports[0].findings
    assert text == "Nodule in the left lung.\nEffusion on the right."
    assert [text[s.start : s.end] for s in study.sentences] == text.split("\n")
    assert [s.origin for s in study.sentences] == ["mask:finding_0", "mask:finding_1"]
    assert [s.finding for s in study.sentences] == [
        "Nodules or masses",
        "Pleural effusion or thickening",
    ]
    parts = parts_of(source_of(tree), "train_1_a_1")
    assert {name: (p.index, p.count) for name, p in parts.items()} == {
        "finding_0": (0, 2),
        "finding_1": (1, 2),
    }


def test_a_finding_without_words_has_a_mask_but_no_sentence(tree: Path) -> None:
    source = source_of(tree)
    (sentence,) = listed(source)["train_11_a"].sentences
    assert (sentence.start, sentence.origin, sentence.finding) == (0, "mask:finding_1", "")
    assert set(parts_of(source, "train_11_a_1")) == {"finding_0", "finding_1"}


def test_unknown_keys_are_kept_and_none_is_required(tree: Path) -> None:
    studies = listed(source_of(tree))
    kept = json.loads(studies["train_1_a"].facts["index_entry"])
    assert kept["never_seen_key"] == [1, 2]
    assert kept["protocol"] == "protocol1"
    assert set(json.loads(studies["train_2_a_1"].facts["index_entry"])) == {"shape"}


def test_train_masks_are_told_to_be_sparse(tree: Path) -> None:
    studies = listed(source_of(tree))
    assert studies["train_1_a"].facts["masks_cover"] == "salient lesions"
    assert studies["train_20_a"].facts["masks_cover"] == "all lesions"


def test_masks_of_the_test_list_are_kept_back(tree: Path) -> None:
    source = source_of(tree)
    assert parts_of(source, "train_30_a_1") == {}
    assert listed(source)["train_30_a"].facts["finding_masks"] == "kept back"
    assert set(parts_of(source, "train_6_a_1")) == {"finding_0"}  # merely not there


def test_volumes_are_the_corrected_ones_and_patients_those_of_ct_rate(tree: Path) -> None:
    source = source_of(tree)
    volumes = tree / "ct-rate"
    place = Path("train_fixed", "train_1", "train_1_a", "train_1_a_1.nii.gz")
    assert series_of(source)["train_1_a_1"].files == (volumes / place,)
    missing = Path("train_fixed", "train_5", "train_5_a", "train_5_a_1.nii.gz")
    assert series_of(source)["train_5_a_1"].files == (volumes / missing,)
    assert listed(source)["train_1_a"].patient_id == "train_1"
    assert source.patients_of == CtRate.kind


def test_the_folder_above_dataset_will_do_for_the_volumes(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"train": [entry("train_1_a_1", "A.")]}))
    path = write_volume(tmp_path / "hub" / "dataset", Made("train_1_a_1", ""), version=2)
    source = ReXGrounding(tmp_path, volumes=str(tmp_path / "hub"))
    assert series_of(source)["train_1_a_1"].files == (path,)


def test_listing_opens_no_volume_and_no_mask(tmp_path: Path) -> None:
    assert_opens_no_volume(source_of, fabricate(tmp_path))


def test_the_order_of_entries_does_not_matter(tree: Path, tmp_path: Path) -> None:
    assert_same_listing(source_of(fabricate(tmp_path, seed=4)), source_of(tree))


def test_splits_can_be_those_of_ct_rate(tmp_path: Path) -> None:
    train = [entry(f"train_{n}_a_1", f"{n}.") for n in range(400)]
    told = {"train": train[:300], "val": train[300:], "test": [entry("valid_1_a_1", "V.")]}
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    own = listed(ReXGrounding(tmp_path))
    assert Counter(s.split for s in own.values()) == {"train": 300, "dev": 100, "test": 1}
    theirs = listed(ReXGrounding(tmp_path, splits_of="ct_rate"))
    assert theirs["valid_1_a"].split == "test"
    tables = tmp_path / "ct-rate" / "radiology_text_reports"
    tables.mkdir(parents=True)
    rows = "".join(f"train_{n}_a_1.nii.gz,Text {n}.,\n" for n in range(400))
    header = "VolumeName,Findings_EN,Impressions_EN\n"
    (tables / "train_reports.csv").write_text(header + rows)
    ct_rate = {s.study_id: s.split for s in CtRate(tmp_path / "ct-rate").studies()}
    assert "dev" in ct_rate.values()
    assert ct_rate == {key: theirs[key].split for key in ct_rate}


def test_the_index_of_the_challenge_is_read_by_name(tmp_path: Path) -> None:
    told = {"val": [entry("train_1_a_1", "A.")], "test": [entry("train_2_a_1", "B.")]}
    (tmp_path / "MICCAI_challenge_dataset.json").write_text(json.dumps(told))
    source = ReXGrounding(tmp_path, index="MICCAI_challenge_dataset.json")
    assert {key: s.split for key, s in listed(source).items()} == {
        "train_1_a": "dev",
        "train_2_a": "test",
    }
    assert source.differences() == (
        "train: 0, published 2992",
        "val: 1, published 50",
        "test: 1, published 100",
    )


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"cases": []}, "no lists"),
        ({"train": {}}, "no lists"),
        ({"train": [{"name": "lung_001.nii.gz", "findings": {"0": "A."}}]}, r"train\[0\]"),
        ({"train": ["train_1_a_1.nii.gz"]}, r"train\[0\]"),
        ([], "no object"),
    ],
)
def test_an_index_that_is_none_is_an_error(tmp_path: Path, told: Any, match: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(SourceError, match=match):
        ReXGrounding(tmp_path)


@pytest.mark.parametrize("told", [None, {}, [], {"0": 3}, {"a": "A."}, {"0": "A.", "2": "B."}])
def test_findings_that_name_no_place_in_the_stack_are_set_aside(tmp_path: Path, told: Any) -> None:
    row = {"name": "train_1_a_1.nii.gz", "findings": told}
    (tmp_path / "dataset.json").write_text(json.dumps({"train": [row]}))
    source = ReXGrounding(tmp_path)
    assert list(source.studies()) == []
    assert [(t.key, t.reason) for t in source.set_aside()] == [("train_1_a_1", "unreadable")]


def test_more_than_ten_findings_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    row = entry("train_1_a_1", *(f"Finding {n}." for n in range(12)))
    row["findings"] = dict(sorted(row["findings"].items()))  # "10" before "2"
    (tmp_path / "dataset.json").write_text(json.dumps({"train": [row]}))
    (study,) = ReXGrounding(tmp_path).studies()
    assert study.reports[0].findings.split("\n") == [f"Finding {n}." for n in range(12)]
    assert [s.origin for s in study.sentences] == [f"mask:finding_{n}" for n in range(12)]


# ---- masks ---------------------------------------------------------------------------------


def test_a_mask_of_one_finding_lies_where_the_array_says(tree: Path) -> None:
    source = source_of(tree)
    # The volumes of made_ct_rate are stored LPS: i, j, k are x, y, z here.
    for number in (0, 1):
        assert np.array_equal(part_of(source, "train_1_a_1", number), masks()[number].T)
    assert set(np.unique(part_of(source, "train_1_a_1", 0))) == {0, 1, 2}  # lesions stay apart


def test_a_stack_of_one_finding_may_lack_its_axis(tree: Path) -> None:
    assert np.array_equal(part_of(source_of(tree), "train_12_a_1", 0), masks()[0].T)


def test_a_fifth_axis_of_length_one_says_nothing(tmp_path: Path) -> None:
    path = write_masks(tmp_path / "x.nii.gz", masks()[..., None])
    nothing = bytearray(gzip.decompress(path.read_bytes()))
    nothing[40:52] = np.array([5, 2, *SHAPE, 1], "<i2").tobytes()  # nibabel leaves it out
    path.write_bytes(gzip.compress(nothing))
    labels, _ = read_part(MaskPart(path=path, index=1, count=2), HeldSlices(held()))
    assert np.array_equal(labels, masks()[1].T)


@pytest.mark.parametrize(
    ("volume", "match"),
    [
        ("train_7_a_1", r"shape \(1, 40, 40, 24\), for 2 findings on a CT \(40, 40, 24\)"),
        ("train_8_a_1", r"shape \(1, 40, 40, 23\), for 1 findings on a CT \(40, 40, 24\)"),
    ],
)
def test_another_number_of_findings_or_another_shape_is_refused(
    tree: Path, volume: str, match: str
) -> None:
    with pytest.raises(RefusedGrid, match=match):
        part_of(source_of(tree), volume, 0)


def test_a_missing_file_of_masks_is_a_missing_file(tree: Path) -> None:
    with pytest.raises(RefusedFile, match="missing") as told:
        part_of(source_of(tree), "train_6_a_1", 0)
    assert told.value.reason == "missing_file"


def read(path: Path, stored: NDArray[Any], volume: Volume) -> list[NDArray[np.uint8]]:
    """Write a stack and read every part of it on a CT in memory."""
    write_masks(path, stored)
    count = len(stored)
    parts = [MaskPart(path=path, index=n, count=count) for n in range(count)]
    return [read_part(part, HeldSlices(volume))[0] for part in parts]


def held(matrix: NDArray[Any] = WORLD) -> Volume:
    return Volume(
        volume_id="ct", voxels=np.zeros(SHAPE[::-1], np.int16), world_from_voxel=matrix.copy()
    )


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_type_of_numbers_is_read(tmp_path: Path, kind: Any, suffix: str) -> None:
    stored = masks().astype(kind)
    for number, labels in enumerate(read(tmp_path / f"x{suffix}", stored, held())):
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, masks()[number].T)


def test_nifti_2_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti2Image(masks(), np.eye(4)), path)
    labels, _ = read_part(MaskPart(path=path, index=1, count=2), HeldSlices(held()))
    assert np.array_equal(labels, masks()[1].T)


def test_the_place_in_space_is_that_of_the_ct_whatever_the_stack_says(tmp_path: Path) -> None:
    ras = np.array(  # first axis to the right, second to the front, third up
        [[0, 0, -0.7, 14.0], [0, -0.7, 0, 10.0], [1.5, 0, 0, 30.0], [0, 0, 0, 1.0]]
    )
    ct_file = tmp_path / "ct.nii.gz"
    nifti.write(ct_file, np.zeros(SHAPE[::-1], np.int16), ras)
    path = write_masks(tmp_path / "x.nii.gz", masks(), np.diag([9.0, 9, 9, 1]))
    with open_scan((ct_file,), name="ct") as file:
        labels, matrix = read_part(MaskPart(path=path, index=0, count=2), file)
    assert np.array_equal(labels, masks()[0].T[:, ::-1, ::-1])
    with open_scan((ct_file,), name="ct") as file:
        own, theirs = matrix, file.world_from_file
    assert np.allclose(own @ [3, 0, 0, 1], theirs @ [3, SHAPE[1] - 1, SHAPE[0] - 1, 1])


def test_a_tilted_ct_turns_its_masks_upright(tmp_path: Path) -> None:
    tilt = np.radians(12)
    matrix = WORLD.copy()
    matrix[1, 0], matrix[2, 0] = 1.5 * np.sin(tilt), 1.5 * np.cos(tilt)
    ct_file = tmp_path / "ct.nii.gz"
    label_file = tmp_path / "label.nii.gz"
    nifti.write(ct_file, np.zeros(SHAPE[::-1], np.int16), matrix)
    nifti.write(label_file, masks()[1].T, matrix)
    path = write_masks(tmp_path / "x.nii.gz", masks())
    with open_scan((ct_file,), name="ct") as file:
        labels, place = read_part(MaskPart(path=path, index=1, count=2), file)
    expected, expected_place = nifti.read_label(label_file)
    assert np.array_equal(labels, expected)
    assert np.allclose(place, expected_place)
    assert labels.any()


def test_values_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    for value in (0.5, -1.0, 256.0, np.nan):
        stored = masks().astype(np.float32)
        stored[1, 3, 3, 3] = value
        with pytest.raises(RefusedGrid, match="no labels"):
            read(tmp_path / "x.nii.gz", stored, held())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_masks(tmp_path / f"x{suffix}", masks())
    content = path.read_bytes()
    for length in (0, 100, 348, 352, 400, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RefusedFile):
            read_part(MaskPart(path=path, index=0, count=2), HeldSlices(held()))


def test_what_is_no_nifti_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    for content in (b"version https://git-lfs.github.com/spec/v1\n" * 20, b"\x1f\x8b" + b"0" * 900):
        path.write_bytes(content)
        with pytest.raises(RefusedFile):
            read_part(MaskPart(path=path, index=0, count=2), HeldSlices(held()))


def test_a_file_too_small_for_its_promise_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_masks(tmp_path / "x.nii", np.zeros((2, *SHAPE), np.uint8))
    short = gzip.compress(path.read_bytes()[:400])
    (tmp_path / "y.nii.gz").write_bytes(short)
    big = held()
    part = MaskPart(path=tmp_path / "y.nii.gz", index=0, count=2)
    with pytest.raises(RefusedFile):
        read_part(part, HeldSlices(big))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RefusedFile, match="too short"):
        read_part(MaskPart(path=path, index=0, count=2), HeldSlices(big))


def test_a_prepared_mask_lies_on_the_grid_of_the_prepared_ct(tree: Path, tiny: Preparation) -> None:
    source = source_of(tree)
    with open_scan(series_of(source)["train_1_a_1"].files, name="ct") as file:
        prepared, depths = regrid_masks(parts_of(source, "train_1_a_1"), tiny, like=file)
    # 24 x 40 x 40 voxels on 8 x 9 x 10: nearest to the middle of each output voxel.
    z, y, x = (
        [int(np.floor((n + 0.5) * old / new)) for n in range(new)]
        for old, new in zip((24, 40, 40), (8, 9, 10), strict=True)
    )
    assert np.array_equal(prepared["finding_1"], masks()[1].T[np.ix_(z, y, x)])
    assert prepared["finding_1"].any()
    # Slices 15 to 19 of 1.5 mm from z = 30, all of one size: from the file's grid, not from 8.
    assert depths["finding_1"] == pytest.approx((30 + 1.5 * 17, 30 + 1.5 * 15, 30 + 1.5 * 19))


def test_an_empty_mask_is_prepared_and_has_no_depth(tmp_path: Path, tiny: Preparation) -> None:
    path = write_masks(tmp_path / "x.nii.gz", np.zeros((1, *SHAPE), np.uint8))
    parts = {"finding_0": MaskPart(path=path, index=0, count=1)}
    prepared, depths = regrid_masks(parts, tiny, like=HeldSlices(held()))
    assert prepared["finding_0"].shape == (8, 9, 10)
    assert not prepared["finding_0"].any()
    assert depths == {}


def test_a_mask_in_a_file_of_its_own_goes_the_usual_way(tmp_path: Path, tiny: Preparation) -> None:
    ct_file, label_file = tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz"
    nifti.write(ct_file, np.zeros(SHAPE[::-1], np.int16), WORLD)
    nifti.write(label_file, masks()[1].T, WORLD)
    with open_scan((ct_file,), name="ct") as file:
        prepared, depths = regrid_masks({"lung": label_file}, tiny, like=file)
    assert np.array_equal(prepared["lung"], regrid_label(label_file, tiny))
    assert depths == {}
    moved = WORLD.copy()
    moved[2, 3] += 1.0
    nifti.write(label_file, masks()[1].T, moved)
    with open_scan((ct_file,), name="ct") as file, pytest.raises(RefusedGrid, match="another grid"):
        regrid_masks({"lung": label_file}, tiny, like=file)


@pytest.mark.parametrize(
    ("ct", "labels"),
    [
        ("torso_3mm_int32", ("torso_3mm_label",)),  # stored RAS
        # Stored LPS; the last one is empty.
        ("aorta_1p5mm_LPS", tuple(f"aorta_1p5mm_label_{n}" for n in ("aorta", "T12", "empty"))),
    ],
)
def test_label_maps_of_real_cts_are_the_same_in_a_stack(
    real_data: Path, tmp_path: Path, ct: str, labels: tuple[str, ...]
) -> None:
    folder = real_data / "nifti" / "ct"
    files = [folder / f"{name}.nii.gz" for name in labels]
    stored = np.stack([np.asarray(nibabel.load(path).dataobj) for path in files])
    path = write_masks(tmp_path / "x.nii.gz", stored)
    for number, own in enumerate(files):
        with open_scan((folder / f"{ct}.nii.gz",), name="ct") as file:
            found, place = read_part(MaskPart(path=path, index=number, count=len(files)), file)
        expected, expected_place = nifti.read_label(own)
        assert np.array_equal(found, expected)
        assert np.allclose(place, expected_place, atol=1e-3)


# ---- depth ---------------------------------------------------------------------------------


def plain_depth(labels: NDArray[Any], first_mm: float, pitch_mm: float) -> tuple[float, ...]:
    """The definition with loops: mean z of the voxels, lowest and highest slice."""
    found = []
    for k in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            for i in range(labels.shape[2]):
                if labels[k, j, i] > 0:
                    found.append(first_mm + pitch_mm * k)
    return sum(found) / len(found), min(found), max(found)


def test_depth_of_a_mask_by_hand() -> None:
    labels = np.zeros((5, 2, 2), np.uint8)
    labels[1, 0, 0] = 1
    labels[3, 0, :] = labels[3, 1, 0] = 2
    matrix = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2.0, 0, 0, 10], [0, 0, 0, 1]])
    assert depth_mm(labels, matrix) == (15.0, 12.0, 16.0)
    assert depth_mm(np.zeros_like(labels), matrix) is None


def test_depth_of_a_mask_is_that_of_the_definition(tree: Path) -> None:
    labels = part_of(source_of(tree), "train_1_a_1", 0)
    assert depth_mm(labels, WORLD) == pytest.approx(plain_depth(labels, 30.0, 1.5))
