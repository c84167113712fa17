"""CT-RATE as a source: every trap of its layout on a fabricated tree."""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from listings import assert_opens_no_volume, listed, reasons, series_of
from made_ct_rate import (
    IDENTITY,
    ORIGIN,
    SPACING,
    VOLUMES,
    WORLD,
    Made,
    fabricate,
    hounsfield,
    label_row,
    metadata_row,
    report_row,
    rows_of,
    write_rows,
    write_volume,
)
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.ct import nifti
from t3d.ct.door import open_scan
from t3d.ct.geometry import spacing_mm
from t3d.ct.slices import read_whole
from t3d.errors import SourceError
from t3d.types import Preparation, Report, Series, Volume

CHEST = Made("train_1_a_1", "Nodule, 4 mm.")
METADATA = Path("metadata", "train_metadata.csv")
REPORTS = Path("radiology_text_reports", "train_reports.csv")
LABELS = Path("multi_abnormality_labels", "train_predicted_labels.csv")


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree as v2; read only."""
    return fabricate(tmp_path_factory.mktemp("v2"), version=2)


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree as v1; read only."""
    return fabricate(tmp_path_factory.mktemp("v1"), version=1)


def opened(series: Series) -> Volume:
    with open_scan(series.files, name=series.series_id, override=series.header) as file:
        return read_whole(file)


# ---- what is listed ------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_source(corrected: Path, first_release: Path) -> None:
    for root in (corrected, first_release):
        check_source(CtRate(root))
    assert "NC" in CtRate(corrected).terms.licence


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(CtRate, fabricate(tmp_path))


def test_studies_come_in_the_order_a_person_counts(corrected: Path) -> None:
    assert list(listed(CtRate(corrected))) == [
        *("train_1_a", "train_1_b", "train_2_a", "train_3_a", "train_4_a", "train_6_a"),
        *("train_1267_a", "valid_1_a", "valid_2_a"),
    ]


def test_patient_study_and_volume_come_from_the_name(corrected: Path) -> None:
    study = listed(CtRate(corrected))["train_1_a"]
    assert study.patient_id == "train_1"
    assert [one.series_id for one in study.series] == ["train_1_a_1", "train_1_a_2"]
    assert study.series[0].files == (
        corrected / "train_fixed" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz",
    )
    assert listed(CtRate(corrected))["train_1_b"].patient_id == "train_1"


def test_a_study_holds_what_its_rows_say(corrected: Path) -> None:
    study = listed(CtRate(corrected))["train_1_a"]
    assert study.reports == (Report(findings="Nodule, 4 mm.", impression="Normal."),)
    assert len(study.labels) == 18
    assert [name for name, value in study.labels.items() if value == 1] == ["Lung nodule"]
    assert dict(study.facts) == {
        "sex": "M",
        "age": "36",
        "reconstructions": "2 of 2 (all)",
        "labels_file": "train_predicted_labels.csv",
        "labels_sha256": study.facts["labels_sha256"],
    }
    assert dict(study.series[0].facts) == {
        "kernel": "YA",
        "manufacturer": "Philips",
        "reconstruction": "1",
        "hu_source": "header",
        "num_slices": "24",
        "z_mm": "1.5",
        "xy_mm": study.series[0].facts["xy_mm"],
    }


def test_no_date_of_an_examination_is_kept(corrected: Path) -> None:
    assert "20210427" in (corrected / METADATA).read_text()
    assert "20210427" not in repr(list(CtRate(corrected).studies()))


def test_a_kernel_written_as_a_list_is_its_first_name(corrected: Path) -> None:
    assert series_of(CtRate(corrected))["train_2_a_1"].facts["kernel"] == "Br40f"


@pytest.mark.parametrize(
    ("told", "age"), [("036Y", "36"), ("", None), ("018M", "1"), ("nan", None), ("9Y", "9")]
)
def test_ages_are_years_and_a_missing_one_is_no_fact(
    tmp_path: Path, told: str, age: str | None
) -> None:
    root = fabricate(tmp_path, [replace(CHEST, age=told)])
    assert listed(CtRate(root))["train_1_a"].facts.get("age") == age


def test_sentinels_are_empty_sections(corrected: Path) -> None:
    studies = listed(CtRate(corrected))
    assert studies["train_3_a"].reports == (Report(findings="", impression="Emphysema."),)
    assert studies["train_4_a"].reports == ()


@pytest.mark.parametrize("told", ["Not given.", " not given ", "NaN", "", "  "])
def test_every_spelling_of_nothing_is_empty(tmp_path: Path, told: str) -> None:
    root = fabricate(tmp_path, [replace(CHEST, findings=told)])
    assert listed(CtRate(root))["train_1_a"].reports == (Report(impression="Normal."),)


def test_both_namings_of_the_tables_list_the_same(corrected: Path, tmp_path: Path) -> None:
    other = fabricate(tmp_path, hlip=True)
    facts = ("labels_file",)  # the name of the table itself

    def told(root: Path) -> list[object]:
        return [
            (
                s.study_id,
                s.reports,
                s.labels,
                s.split,
                {k: v for k, v in s.facts.items() if k not in facts},
            )
            for s in CtRate(root).studies()
        ]

    assert told(other) == told(corrected)
    assert (other / "metafiles" / "valid_metadata.csv").is_file()
    assert (corrected / "metadata" / "validation_metadata.csv").is_file()


def test_two_tables_of_one_meaning_must_be_the_same(tmp_path: Path) -> None:
    root = fabricate(tmp_path)
    copy = root / "metafiles" / "train_metadata.csv"
    copy.parent.mkdir()
    copy.write_bytes((root / METADATA).read_bytes())
    assert "train_1_a" in listed(CtRate(root))
    copy.write_bytes(copy.read_bytes() + b"\n")
    with pytest.raises(SourceError, match="differ"):
        list(CtRate(root).studies())


def test_the_folder_above_dataset_will_do(tmp_path: Path) -> None:
    fabricate(tmp_path / "dataset")
    assert "train_1_a" in listed(CtRate(tmp_path))


def test_a_folder_without_tables_is_an_error(tmp_path: Path) -> None:
    write_volume(tmp_path, CHEST, version=2)
    with pytest.raises(SourceError, match="no table of CT-RATE"):
        CtRate(tmp_path)


def test_the_order_of_rows_does_not_matter(corrected: Path, tmp_path: Path) -> None:
    root = fabricate(tmp_path)
    for table in root.rglob("*.csv"):
        rows = rows_of(table)
        random.Random(5).shuffle(rows)
        write_rows(table, rows)

    def told(root: Path) -> list[object]:
        return [
            (
                s.study_id,
                s.reports,
                dict(s.labels),
                dict(s.facts),
                [one.series_id for one in s.series],
            )
            for s in CtRate(root).studies()
        ]

    assert told(root) == told(corrected)
    assert CtRate(root).set_aside() == CtRate(corrected).set_aside()


def test_a_copy_is_compared_with_the_published_counts(tmp_path: Path) -> None:
    volumes = [
        Made(f"valid_{n}_a_1", f"{n}.", positives=("Emphysema",), on_disk=False) for n in (1, 2)
    ]
    volumes += [replace(volumes[0], volume="valid_1_a_2")]
    told = CtRate(fabricate(tmp_path, volumes), splits=("valid",)).differences()
    assert "valid, studies: 2, published 1564" in told
    assert "valid, volumes: 3, published 3039" in told
    assert "valid, Emphysema: 2, published 305" in told  # studies, not volumes
    assert "valid, Cardiomegaly: 0, published 164" in told
    assert len(told) == 3 + 18


# ---- splits --------------------------------------------------------------------------------


def many_rows(count: int, split: str = "train") -> list[Made]:
    return [
        Made(f"{split}_{n}_{scan}_1", f"Text {n} {scan}.", on_disk=False)
        for n in range(1, count + 1)
        for scan in ("a", "b")[: 1 + n % 2]
    ]


def test_valid_is_test_and_a_share_of_train_patients_is_dev(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [*many_rows(2000), *many_rows(20, "valid")])
    splits = {study.patient_id: study.split for study in CtRate(root).studies()}
    assert {s for p, s in splits.items() if p.startswith("valid")} == {"test"}
    counts = Counter(s for p, s in splits.items() if p.startswith("train"))
    # 2000 draws at 5 %: mean 100, standard deviation 9.7; 39 is four of them.
    assert abs(counts["dev"] - 100) < 39
    assert counts["train"] == 2000 - counts["dev"]


def test_all_scans_of_a_patient_are_in_one_split_whatever_the_seed(tmp_path: Path) -> None:
    root = fabricate(tmp_path, many_rows(300))
    drawn = []
    for seed in (0, 1):
        split_of: dict[str, set[str]] = {}
        for study in CtRate(root, seed=seed, dev_share=0.3).studies():
            split_of.setdefault(study.patient_id, set()).add(study.split)
        assert all(len(splits) == 1 for splits in split_of.values())
        drawn.append({patient for patient, splits in split_of.items() if splits == {"dev"}})
    assert drawn[0] != drawn[1]


def test_the_draw_of_dev_does_not_depend_on_the_other_patients(tmp_path: Path) -> None:
    few = {s.study_id: s.split for s in CtRate(fabricate(tmp_path / "a", many_rows(50))).studies()}
    more = {s.study_id: s.split for s in CtRate(fabricate(tmp_path / "b", many_rows(90))).studies()}
    assert few == {study: more[study] for study in few}


def test_a_split_can_be_left_out(corrected: Path) -> None:
    source = CtRate(corrected, splits=("valid",))
    assert {study.split for study in source.studies()} == {"test"}
    assert source.set_aside() == ()


# ---- reconstructions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "volumes", "fact"),
    [
        ("all", ["train_1_a_1", "train_1_a_2"], "2 of 2 (all)"),
        ("first", ["train_1_a_1"], "1 of 2 (first)"),
        ("smallest_voxel", ["train_1_a_2"], "1 of 2 (smallest_voxel)"),
        ("kernel:B", ["train_1_a_2"], "1 of 2 (kernel:B)"),
        ("kernel:Br60f,ya,B", ["train_1_a_1"], "1 of 2 (kernel:Br60f,ya,B)"),
    ],
)
def test_the_policy_chooses_reconstructions_and_is_a_fact(
    corrected: Path, policy: str, volumes: list[str], fact: str
) -> None:
    study = listed(CtRate(corrected, reconstructions=policy))["train_1_a"]
    assert [one.series_id for one in study.series] == volumes
    assert study.facts["reconstructions"] == fact
    assert study.reports == (Report(findings="Nodule, 4 mm.", impression="Normal."),)


def test_a_study_without_the_kernel_is_set_aside(corrected: Path) -> None:
    source = CtRate(corrected, reconstructions="kernel:YA")
    assert "train_1_b" not in listed(source)
    assert reasons(source)["train_1_b"] == "other_kernel"


def test_first_is_the_first_that_is_not_known_to_be_broken(tmp_path: Path) -> None:
    volumes = [Made(f"train_9792_a_{n}", "Text.") for n in (1, 2, 5)]
    study = listed(CtRate(fabricate(tmp_path, volumes), reconstructions="first"))["train_9792_a"]
    assert [one.series_id for one in study.series] == ["train_9792_a_5"]


def test_more_than_26_scans_and_ten_reconstructions_are_in_order(tmp_path: Path) -> None:
    names = ["train_1_b_1", "train_1_aa_1", "train_1_a_11", "train_1_a_2"]
    root = fabricate(tmp_path, [Made(name, "Text.", on_disk=False) for name in names])
    assert list(listed(CtRate(root))) == ["train_1_a", "train_1_b", "train_1_aa"]
    series = listed(CtRate(root))["train_1_a"].series
    assert [one.series_id for one in series] == ["train_1_a_2", "train_1_a_11"]


# ---- text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "study", "findings"),
    [
        ("ctclip-train", "valid_1_a", "Said clear twice."),
        ("ctclip-eval", "valid_1_a", "Said clear twice.No finding."),
        ("ctclip-train", "train_4_a", "Not given."),
        ("ctclip-eval", "train_3_a", "Not given.Emphysema."),
    ],
)
def test_the_texts_of_ct_clip_are_built_as_it_builds_them(
    corrected: Path, text: str, study: str, findings: str
) -> None:
    assert listed(CtRate(corrected, text=text))[study].reports == (Report(findings=findings),)


def test_an_empty_cell_is_nan_in_the_text_of_ct_clip(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [replace(CHEST, findings="")])
    assert listed(CtRate(root, text="ctclip-train"))["train_1_a"].reports[0].findings == "nan"


def test_duplicate_reports_stay_unless_asked_for(tmp_path: Path) -> None:
    names = ("train_10_a_1", "train_9_a_1", "train_9_a_2", "valid_1_a_1", "train_2_a_1")
    volumes = [Made(name, "The same.", on_disk=False) for name in names[:4]]
    volumes += [Made(names[4], "Another.", on_disk=False)]
    volumes += [Made(f"train_{n}_a_1", "Not given.", on_disk=False) for n in (20, 21)]
    root = fabricate(tmp_path, volumes)
    assert len(listed(CtRate(root))) == 6
    source = CtRate(root, drop_duplicate_reports=True)
    # By study id as text, so train_10_a comes before train_9_a; splits do not see each other.
    assert list(listed(source)) == [
        *("train_2_a", "train_10_a", "train_20_a", "train_21_a", "valid_1_a"),
    ]
    assert reasons(source) == {"train_9_a": "duplicate_text"}


# ---- rescaling and geometry ----------------------------------------------------------------


def test_a_v1_file_is_read_by_the_table_and_equals_its_corrected_twin(
    corrected: Path, first_release: Path
) -> None:
    old, new = series_of(CtRate(first_release)), series_of(CtRate(corrected))
    by_name = {made.volume: made for made in VOLUMES}
    compared = [name for name in old if old[name].files[0].is_file()]
    intercepts = set()
    for name in compared:
        if by_name[name].xy_mm != SPACING[1]:
            continue  # its row tells another spacing on purpose
        told = old[name].header
        assert told is not None
        intercepts.add(told.intercept)
        assert new[name].header is None
        before, after = opened(old[name]), opened(new[name])
        assert np.array_equal(before.voxels, after.voxels)
        assert np.array_equal(before.voxels, hounsfield(by_name[name]))
        assert np.allclose(before.world_from_voxel, after.world_from_voxel, atol=1e-5)
        assert np.allclose(before.world_from_voxel, WORLD, atol=1e-5)
    assert intercepts == {-1024.0, -8192.0}
    assert old["train_2_a_1"].facts["hu_source"] == "table"


def test_corrected_headers_are_never_touched_by_the_table(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST])
    write_rows(root / METADATA, [{**metadata_row(CHEST), "RescaleSlope": "3", "ZSpacing": "9"}])
    volume = opened(series_of(CtRate(root))["train_1_a_1"])
    assert np.array_equal(volume.voxels, hounsfield(CHEST))
    assert tuple(spacing_mm(volume.world_from_voxel)) == pytest.approx(SPACING)


def test_where_both_releases_lie_side_by_side_the_corrected_one_is_taken(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST], version=2)
    write_volume(root, CHEST, version=1)
    assert series_of(CtRate(root))["train_1_a_1"].files[0].parts[-4] == "train_fixed"
    by_table = series_of(CtRate(root, hu="table"))["train_1_a_1"]
    assert by_table.files[0].parts[-4] == "train"
    assert np.array_equal(opened(by_table).voxels, hounsfield(CHEST))


def test_the_table_gives_an_oblique_volume_its_place(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST], version=1)
    row = metadata_row(CHEST)
    # Columns run to Posterior, rows to Superior: slices run to Left (their cross product).
    row["ImageOrientationPatient"] = "['0', '1', '0', '0.0', '0.0', '1.0']"
    row["XYSpacing"] = "[0.5, 0.25]"  # between rows, between columns
    write_rows(root / METADATA, [row])
    series = series_of(CtRate(root))["train_1_a_1"]
    assert series.facts["acquisition"] == "not axial"
    volume = opened(series)
    assert volume.voxels.shape == (40, 40, 24)
    assert tuple(spacing_mm(volume.world_from_voxel)) == pytest.approx((0.5, 0.25, 1.5))
    stored = hounsfield(CHEST)  # (slice, row, column) = (L, S, P)
    assert np.array_equal(volume.voxels, stored.transpose(1, 2, 0))
    assert volume.world_from_voxel[:3, 3] == pytest.approx(ORIGIN)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("RescaleSlope", "", "hu_implausible"),
        ("RescaleIntercept", "nan", "hu_implausible"),
        ("XYSpacing", "[0.7]", "bad_affine"),
        ("XYSpacing", "[0, 0.7]", "bad_affine"),
        ("ZSpacing", "", "bad_affine"),
        ("ImagePositionPatient", "[1, 2, inf]", "bad_affine"),
        ("ImageOrientationPatient", "[1, 0, 0, 1, 0, 0]", "bad_affine"),
        ("ImageOrientationPatient", "__import__('os')", "bad_affine"),
    ],
)
def test_a_v1_file_whose_row_says_too_little_is_set_aside(
    tmp_path: Path, column: str, value: str, reason: str
) -> None:
    root = fabricate(tmp_path, [CHEST], version=1)
    write_rows(root / METADATA, [{**metadata_row(CHEST), column: value}])
    source = CtRate(root)
    assert listed(source) == {}
    assert reasons(source) == {"train_1_a_1": reason}
    corrected = fabricate(tmp_path / "v2", [CHEST])
    write_rows(corrected / METADATA, [{**metadata_row(CHEST), column: value}])
    assert list(listed(CtRate(corrected))) == ["train_1_a"]  # v2 needs no row


def test_a_v1_file_without_a_row_of_metadata_is_set_aside(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST, replace(CHEST, volume="train_2_a_1")], version=1)
    write_rows(root / METADATA, [metadata_row(CHEST)])
    assert list(listed(CtRate(root))) == ["train_1_a"]
    assert reasons(CtRate(root)) == {"train_2_a_1": "unlisted_file"}


def test_slices_of_pnms_are_in_doubt_in_v1_only(corrected: Path, first_release: Path) -> None:
    assert series_of(CtRate(first_release))["train_3_a_1"].facts["slice_order"] == "in doubt"
    assert "slice_order" not in series_of(CtRate(corrected))["train_3_a_1"].facts
    assert "slice_order" not in series_of(CtRate(first_release))["train_1_a_1"].facts


# ---- never rescaled twice ------------------------------------------------------------------


def test_files_that_lie_where_they_belong_pass_the_hu_check(
    corrected: Path, first_release: Path
) -> None:
    CtRate(corrected).check_hu()
    CtRate(first_release).check_hu()


@pytest.mark.parametrize("manufacturer", ["Philips", "Siemens Healthineers"])
def test_corrected_files_read_by_the_table_are_refused_with_an_explanation(
    tmp_path: Path, manufacturer: str, tiny: Preparation
) -> None:
    made = replace(CHEST, manufacturer=manufacturer)
    root = fabricate(tmp_path, [replace(made, on_disk=False)])
    write_volume(root, made, version=2, folder="train")
    with pytest.raises(SourceError, match="rescaled twice") as caught:
        CtRate(root).check_hu()
    assert "hu='header'" in caught.value.fix
    source = CtRate(root, hu="header")
    source.check_hu()
    assert np.array_equal(opened(series_of(source)["train_1_a_1"]).voxels, hounsfield(made))
    # Who does not ask is refused volume by volume; clipped to the stored range, all is -1024.
    made_anyway = prepare(CtRate(root), tmp_path / "c", tiny, workers=0)
    assert made_anyway.done == 0
    assert set(made_anyway.failed) <= {"hu_implausible", "constant"}


def test_v1_files_read_by_their_header_are_refused_with_an_explanation(
    tmp_path: Path, tiny: Preparation
) -> None:
    root = fabricate(tmp_path, [replace(CHEST, on_disk=False)])
    write_volume(root, CHEST, version=1, folder="train_fixed")
    with pytest.raises(SourceError, match="left unscaled") as caught:
        CtRate(root).check_hu()
    assert "hu='table'" in caught.value.fix
    source = CtRate(root, hu="table")
    source.check_hu()
    assert np.array_equal(opened(series_of(source)["train_1_a_1"]).voxels, hounsfield(CHEST))
    made_anyway = prepare(CtRate(root), tmp_path / "c", tiny, workers=0)
    assert dict(made_anyway.failed) == {"hu_implausible": 1}


def test_a_real_scan_in_the_wrong_place_is_refused(
    real_data: Path, tmp_path: Path, tiny: Preparation
) -> None:
    root = fabricate(tmp_path, [replace(CHEST, on_disk=False)])
    place = root / "train" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz"
    place.parent.mkdir(parents=True)
    scan = real_data / "nifti" / "ct" / "abdomen_3mm_int16.nii.gz"
    place.write_bytes(scan.read_bytes())
    with pytest.raises(SourceError, match="rescaled twice") as caught:
        CtRate(root).check_hu()
    assert "hu='header'" in caught.value.fix
    CtRate(root, hu="header").check_hu()
    summary = prepare(CtRate(root), tmp_path / "c", tiny, workers=0)
    assert (summary.done, dict(summary.failed)) == (0, {"hu_implausible": 1})


def test_a_v1_volume_whose_corners_are_zero_is_no_constant(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [replace(CHEST, on_disk=False)], version=1)
    path = root / "train" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz"
    path.parent.mkdir(parents=True)
    stored = (hounsfield(CHEST) + 1024).astype(np.int16)
    stored[:, :6, :6] = 0
    nifti.write(path, stored, IDENTITY)
    source = CtRate(root)
    source.check_hu()
    volume = opened(series_of(source)["train_1_a_1"])
    assert volume.voxels[0, 0, 0] == -1024
    assert volume.voxels[12, 20, 20] == hounsfield(CHEST)[12, 20, 20]


# ---- what is set aside ---------------------------------------------------------------------

# Written by hand from VOLUMES: what a run over the whole tree must end with.
DONE = 8  # train_1_a, 1_b, 2_a, 3_a, 4_a, 1267_a, valid_1_a, valid_2_a
FAILED = {
    "no_chest": 1,  # the study train_5_a, both reconstructions
    "too_small": 1,  # train_9792_a_1
    "bad_affine": 1,  # train_1267_a_4; the study goes on with _1
    "missing_file": 1,  # train_6_a_1
    "unlisted_file": 1,  # train_7_a_1
}


@pytest.mark.parametrize("version", [1, 2])
def test_counts_per_reason_are_those_written_by_hand(
    corrected: Path, first_release: Path, tmp_path: Path, tiny: Preparation, version: int
) -> None:
    source = CtRate(corrected if version == 2 else first_release)
    summary = prepare(source, tmp_path / "c", tiny, workers=0)
    assert (summary.done, dict(summary.failed)) == (DONE, FAILED)
    cohort = Cohort.open(tmp_path / "c")
    assert len(list(cohort.studies("test"))) == 2


def test_both_releases_make_the_same_volumes(
    corrected: Path, first_release: Path, tmp_path: Path, tiny: Preparation
) -> None:
    for name, root in (("new", corrected), ("old", first_release)):
        prepare(CtRate(root), tmp_path / name, tiny, workers=0)
    new, old = Cohort.open(tmp_path / "new"), Cohort.open(tmp_path / "old")
    for study in new.studies("train"):
        for volume in set(study.volume_ids) - {"train_1_a_2"}:  # its row tells another spacing
            assert np.array_equal(new.volume(volume).voxels, old.volume(volume).voxels)


@pytest.mark.parametrize(
    "line",
    [
        *("train_5_a_1.nii.gz", "train_5_a_1", "train_5_a_2.nii", "train_5_a"),
        *("train/train_5/train_5_a/train_5_a_1.nii.gz", "dataset\\train_fixed\\train_5_a_1"),
        *('"train_5_a_1.nii.gz",', "  train_5_a_1.nii.gz  "),
    ],
)
def test_every_spelling_of_a_no_chest_list_takes_the_whole_study_out(
    tmp_path: Path, line: str
) -> None:
    root = fabricate(tmp_path, [replace(made, on_disk=False) for made in VOLUMES])
    for text in (f"{line}\n", f"VolumeName\r\n{line}\r\n\r\n"):
        (root / "metadata" / "no_chest_train.txt").write_text(text)
        source = CtRate(root)
        assert reasons(source)["train_5_a"] == "no_chest"
        assert "train_5_a" not in listed(source)


def test_a_no_chest_list_that_is_something_else_is_an_error(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST])
    (root / "metadata" / "no_chest_train.txt").write_text("train_5_a_1\n<html>\n")
    with pytest.raises(SourceError, match="line 2"):
        list(CtRate(root).studies())


def test_a_no_chest_list_that_fits_nothing_of_a_full_split_is_an_error(tmp_path: Path) -> None:
    full = [Made(f"valid_{n}_a_1", f"{n}.", on_disk=False) for n in range(1, 1565)]
    root = fabricate(tmp_path, full)
    (root / "metadata" / "no_chest_valid.txt").write_text("valid_9000_a_1.nii.gz\n")
    with pytest.raises(SourceError, match="none of its 1 studies"):
        list(CtRate(root).studies())
    for table in (*root.rglob("valid*.csv"),):
        write_rows(table, rows_of(table)[:-1])  # one study short of a full split
    assert len(listed(CtRate(root))) == 1563


def test_a_missing_no_chest_list_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fabricate(tmp_path, [CHEST])
    (root / "metadata" / "no_chest_train.txt").unlink()
    with caplog.at_level(logging.WARNING):
        list(CtRate(root, splits=("train",)).studies())
    assert "no_chest_train.txt" in caplog.text


def test_known_broken_volumes_are_set_aside_with_who_says_so(tmp_path: Path) -> None:
    names = (
        *("train_1267_a_4", "train_11755_a_2", "train_11755_a_3", "train_11755_a_4"),
        *("train_3821_a_5", "train_9792_a_1", "train_9792_a_2", "train_9792_a_3"),
        *("train_9792_a_4", "train_14384_a_2", "valid_251_a_2"),
    )
    root = fabricate(tmp_path, [Made(name, "Text.", on_disk=False) for name in names])
    source = CtRate(root)
    assert listed(source) == {}
    told = {one.key: one for one in source.set_aside()}
    assert set(told) == set(names)
    assert "radfinder" in told["train_3821_a_5"].message
    assert "not confirmed" in told["valid_251_a_2"].message


def test_strange_and_doubled_files_are_told(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST])
    (root / "train_fixed" / "scan.nii.gz").write_bytes(b"")
    (root / "train_fixed" / "train_1_a_1.nii").write_bytes(b"")
    (root / "train_fixed" / "._train_1_a_1.nii.gz").write_bytes(b"")
    (root / "ts_seg" / "train_fixed").mkdir(parents=True)
    (root / "ts_seg" / "train_fixed" / "train_9_a_1.nii.gz").write_bytes(b"")  # a label map
    source = CtRate(root)
    assert reasons(source) == {
        "train_fixed/scan.nii.gz": "unlisted_file",
        "train_fixed/train_1_a_1.nii": "duplicate_key",
    }
    assert series_of(source)["train_1_a_1"].files[0].name == "train_1_a_1.nii.gz"


def test_rows_under_one_name_that_differ_set_the_study_aside(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST, replace(CHEST, volume="train_2_a_1")])
    rows = rows_of(root / REPORTS)
    write_rows(root / REPORTS, [*rows, rows[0]])  # an equal row twice is one row
    assert list(listed(CtRate(root))) == ["train_1_a", "train_2_a"]
    write_rows(root / REPORTS, [*rows, {**rows[0], "Findings_EN": "Something else."}])
    assert list(listed(CtRate(root))) == ["train_2_a"]
    assert reasons(CtRate(root)) == {"train_1_a": "duplicate_key"}


def test_labels_that_differ_between_reconstructions_set_the_study_aside(tmp_path: Path) -> None:
    other = replace(CHEST, volume="train_1_a_2", positives=("Emphysema",))
    source = CtRate(fabricate(tmp_path, [CHEST, other]))
    assert listed(source) == {}
    assert reasons(source) == {"train_1_a": "duplicate_key"}


def test_a_blank_label_is_not_stated(tmp_path: Path) -> None:
    root = fabricate(tmp_path, [CHEST])
    write_rows(root / LABELS, [{**label_row(CHEST), "Emphysema": ""}])
    labels = listed(CtRate(root))["train_1_a"].labels
    assert labels["Emphysema"] is None
    assert labels["Cardiomegaly"] == 0


@pytest.mark.parametrize(
    ("table", "row", "word"),
    [
        (LABELS, {**label_row(CHEST), "Emphysema": "0.7"}, "line 2: a label"),
        (LABELS, {"VolumeName": "train_1_a_1.nii.gz", "Emphysema": "1"}, "no column"),
        (REPORTS, {**report_row(CHEST), "VolumeName": "valid_1_a_1"}, "no volume of train"),
        (REPORTS, {**report_row(CHEST), "VolumeName": "scan7"}, "no volume of train"),
        (REPORTS, {"VolumeName": "train_1_a_1"}, "no column 'Findings_EN'"),
        (METADATA, {"Volume": "train_1_a_1"}, "no column 'VolumeName'"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_an_error(
    tmp_path: Path, table: Path, row: dict[str, str], word: str
) -> None:
    root = fabricate(tmp_path, [CHEST])
    write_rows(root / table, [row])
    with pytest.raises(SourceError, match=word):
        list(CtRate(root).studies())


@pytest.mark.parametrize(
    ("name", "value"),
    [("hu", "csv"), ("reconstructions", "smallest"), ("text", "all"), ("splits", ("test",))],
)
def test_a_setting_that_does_not_exist_is_an_error(
    corrected: Path, name: str, value: object
) -> None:
    with pytest.raises(SourceError, match=name):
        CtRate(corrected, **{name: value})  # type: ignore[arg-type]
