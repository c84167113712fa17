"""The DICOM part of the malformed corpus: its manifest, case by case, and where we differ."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.ct.dicom import DicomSlices, open_dicom
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.slices import read_whole
from t3d.types import Volume

# Case -> what we do against the manifest, and why.
DIFFERENT = {
    # The second pass repeats the first byte for byte and has its acquisition number (both are 2):
    # nothing is lost by dropping it. Passes that differ are refused or told apart by number.
    "two_phases_one_uid": "repair",
    # A real abdomen of the index has no identifier either. The frame of reference groups its
    # files, and a mixture under it would show as repeated or uneven positions.
    "no_SeriesInstanceUID": "repair",
}
# Repairs and differences must leave a trace in the steps; the word to look for.
TRACES = {
    "duplicate_file": "dropped 1 more slice",
    "duplicate_position_same_pixels": "dropped 1 more slice",
    "two_phases_one_uid": "dropped 10 more slice",
    "no_SeriesInstanceUID": "SeriesInstanceUID missing",
    "position_drifts_in_plane": "drift in the image plane of 14.0 degrees (18.0 mm",
    "gantry_tilt_15": "gantry tilt of 15.0 degrees",
    "sagittal": "PIR",
    "no_RescaleSlope": "RescaleSlope missing, taken as 1",
    "monochrome1": "MONOCHROME1",
    "no_preamble": "without its preamble",
    "mixed_two_series": "took series 3 B40f (10 slices) of 2 series",
    "mixed_two_kernels": "took series 3 B40f (10 slices) of 2 series",
    "bits_16_overlay": "cleared bits above BitsStored",
    "signed_flag_flipped": "read pixels flagged as signed as unsigned",
}
# Repairs without a trace: an identifier we never use, and bytes after the pixels.
SILENT = {"no_SOPInstanceUID", "pixeldata_long"}
# Refused: reason code and what the message must say.
REFUSED = {
    "duplicate_position_other_pixels": ("duplicate_slices", "differ by up to 1341 HU"),
    "missing_slice": ("uneven_slices", "7 x 8.00 mm, 1 x 16.00 mm (after slice 4), 1 missing"),
    "missing_half": ("uneven_slices", "1 x 56.00 mm (after slice 2), 6 missing"),
    "one_slice_only": ("too_small", "one slice is no volume"),
    "spacing_jitter_big": ("uneven_slices", "5 x 5.00 mm, 4 x 11.00 mm"),
    "spacing_two_blocks": ("uneven_slices", "5 x 8.00 mm, 4 x 11.00 mm"),
    "orientation_mixed": (
        "mixed_series",
        "9 and 1 slices under one series identifier differ in orientation",
    ),
    "orientation_not_unit": ("bad_affine", "lengths 2.000 and 2.000"),
    "same_position_all": ("duplicate_slices", "10 slices at one position (gap 0.00 mm)"),
    "no_ImagePositionPatient": ("bad_affine", "ImagePositionPatient is missing in 10 of 10"),
    "no_ImageOrientationPatient": ("bad_affine", "ImageOrientationPatient is missing"),
    "no_PixelSpacing": ("bad_affine", "PixelSpacing is missing"),
    "no_RescaleIntercept": ("hu_implausible", "RescaleIntercept is missing"),
    "no_Modality": ("not_ct", "no modality"),
    "no_Rows": ("unreadable", "Rows is missing"),
    "no_BitsAllocated": ("unreadable", "BitsAllocated is missing"),
    "no_PixelRepresentation": ("unreadable", "PixelRepresentation is missing"),
    "no_ImagePositionPatient_in_one": ("bad_affine", "missing in 1 of 10 slices"),
    "pixelspacing_zero": ("bad_affine", "PixelSpacing is 0 x 0 mm"),
    "pixelspacing_differs": (
        "mixed_series",
        "9 and 1 slices under one series identifier differ in pixel spacing",
    ),
    "rescale_slope_zero": ("hu_implausible", "RescaleSlope is 0"),
    "rescale_text": ("hu_implausible", "RescaleIntercept is no number"),
    "bits_stored_8": ("unreadable", "BitsStored says 8"),
    "bits_allocated_8": ("unreadable", "32768 bytes of pixels"),
    "rows_differ": (
        "mixed_series",
        "9 and 1 slices under one series identifier differ in rows x columns",
    ),
    "pixeldata_missing": ("unreadable", "no PixelData"),
    "pixeldata_short": ("unreadable", "32256 bytes of pixels"),
    "file_cut": ("unreadable", "slice 17"),
    "file_empty": ("uneven_slices", "1 x 16.00 mm"),
    "wrong_preamble": ("not_dicom", "10 file(s): a file is no DICOM file"),
    "transfer_syntax_unknown": ("transfer_syntax", "1.2.840.10008.1.2.4"),
    "ds_comma": ("bad_affine", "PixelSpacing is no number"),
    "modality_mr": ("not_ct", "not CT (MR)"),
    "localizer": ("not_ct", "a localizer"),
    "mixed_two_patients": ("mixed_series", "covers 2 patients"),
    "only_junk": ("not_dicom", "5 file(s): a file is no DICOM file"),
}


# The corpus is made when the first test asks for it, so its cases are listed here by name.
ACCEPTED = (
    "ok_reference",
    "shuffled_names",
    "descending",
    "names_1_10_2",
    "instance_reversed",
    "instance_constant",
    "instance_missing",
    "slicelocation_wrong",
    "thickness_wrong",
    "spacing_between_negative",
    "spacing_jitter_small",
    "feet_first_flip",
    "pixelspacing_anisotropic",
    "rescale_differs",
    "padding_value",
    "ds_overlong",
    "junk_files",
    "nested_folders",
    "no_extension",
    "phi_left_in",
)
CASES = sorted({*ACCEPTED, *TRACES, *SILENT, *REFUSED})


def manifest(malformed: Path) -> dict[str, dict[str, Any]]:
    """Cases of the DICOM part by name."""
    rows = json.loads((malformed / "manifest.json").read_text(encoding="utf-8"))
    found = {row["path"].partition("/")[2]: row for row in rows if row["path"].startswith("dicom/")}
    return found


def read(malformed: Path, case: str) -> tuple[Volume, DicomSlices]:
    """Open a case as a folder of whatever lies in it, and read it whole."""
    files = [path for path in (malformed / "dicom" / case).rglob("*") if path.is_file()]
    with open_dicom(files, name="s0001") as slices:
        return read_whole(slices), slices


def test_the_cases_listed_here_are_those_of_the_manifest(malformed: Path) -> None:
    rows = manifest(malformed)
    assert sorted(rows) == CASES
    assert len(CASES) == 72
    for case, row in rows.items():
        done = "reject" if case in REFUSED else "accept" if case in ACCEPTED else "repair"
        assert done == DIFFERENT.get(case, row["expect"]), case
    assert all(rows[case]["expect"] != done for case, done in DIFFERENT.items())


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_series_is_refused_by_value_and_reason(case: str, malformed: Path) -> None:
    with pytest.raises((RefusedFile, RefusedGrid)) as refusal:
        read(malformed, case)
    reason, told = REFUSED[case]
    assert refusal.value.reason == reason
    assert told in refusal.value.found
    assert refusal.value.found.startswith("s0001: ")
    assert refusal.value.expected
    assert refusal.value.fix


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_an_odd_series_is_read_with_the_facts_of_the_manifest(case: str, malformed: Path) -> None:
    row = manifest(malformed)[case]
    volume, slices = read(malformed, case)
    depth, rows, columns = slices.shape_kji
    between_rows, between_columns = np.linalg.norm(slices.world_from_file[:3, 1:3], axis=0)
    assert (depth, rows, columns) == (row.get("slices", 10), 128, 128)
    along = 8.0 if case == "gantry_tilt_15" else slices.stacked.pitch_mm  # it is 8 along z
    assert along == pytest.approx(row.get("spacing_z", 8.0), abs=0.001)
    assert between_rows == pytest.approx(row.get("spacing_row", 2.5859375))
    assert between_columns == pytest.approx(row.get("spacing_col", 2.5859375))
    if "mean_hu" in row:
        assert volume.voxels.mean() == pytest.approx(row["mean_hu"], abs=1e-3)
        assert (volume.voxels == read(malformed, "ok_reference")[0].voxels).all()
    told = " | ".join(slices.steps)
    assert TRACES.get(case, "read DICOM 10 slices") in told
    uncited = case in ("instance_constant", "instance_missing")
    assert len(slices.instances) == (0 if uncited else 10)


def test_a_drifting_stack_is_turned_upright_and_keeps_its_sideways_walk(malformed: Path) -> None:
    volume, slices = read(malformed, "position_drifts_in_plane")
    assert slices.world_from_file[0, 0] == pytest.approx(2.0)
    # 128 columns of 2.586 mm, and ten slices (edge to edge) that walk 2 mm each: 351 mm.
    assert volume.voxels.shape[2] == 136
    assert any("turned upright" in step for step in volume.steps)


def test_a_sagittal_stack_comes_back_with_its_slices_along_the_left(malformed: Path) -> None:
    volume, _ = read(malformed, "sagittal")
    assert volume.voxels.shape == (128, 128, 10)
    # Slice positions run from 0 to 72 mm to the left.
    x = volume.world_from_voxel @ np.array([[0, 0, 0, 1], [0, 0, 9, 1]]).T
    assert x[0] == pytest.approx([0.0, 72.0])
    reference = read(malformed, "ok_reference")[1]
    first = next(iter(reference.slabs(1)))[1][0]  # slice 0 lies at x = 0
    # Its rows run down (to I) and its columns back (to P).
    assert (volume.voxels[:, :, 0] == first[::-1]).all()


def test_columns_that_run_to_the_right_are_turned_with_their_sides(malformed: Path) -> None:
    turned, _ = read(malformed, "feet_first_flip")
    plain, _ = read(malformed, "ok_reference")
    assert (turned.voxels == plain.voxels[::1, :, ::-1]).all()


def test_padding_outside_the_circle_is_air(malformed: Path) -> None:
    row = manifest(malformed)["padding_value"]
    assert row["padding_hu"] == -3024  # what a reader without padding would store
    volume, _ = read(malformed, "padding_value")
    outside = np.hypot(*np.ogrid[-64:64, -64:64]) > 64
    assert (volume.voxels[:, outside] == -1024).all()
    plain, _ = read(malformed, "ok_reference")
    assert (volume.voxels[:, ~outside] == plain.voxels[:, ~outside]).all()


def test_a_missing_slice_can_be_bridged_when_asked_to(malformed: Path) -> None:
    files = (malformed / "dicom" / "missing_slice").iterdir()
    with open_dicom(files, name="s0001", gaps="interpolate") as slices:
        whole = np.concatenate([slab.copy() for _, slab in slices.slabs(3)])
        assert any("interpolated linearly to 10 slices, 8 mm" in step for step in slices.steps)
    plain, _ = read(malformed, "ok_reference")
    kept = [k for k in range(10) if k != 4]
    assert (whole[kept] == plain.voxels[kept]).all()
    halfway = (plain.voxels[3].astype(float) + plain.voxels[5]) / 2
    np.testing.assert_allclose(whole[4], halfway, atol=1e-3)


def test_what_was_left_in_by_a_publisher_reaches_nothing(
    malformed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = manifest(malformed)["phi_left_in"]["secrets"]
    raw = (malformed / "dicom" / "phi_left_in" / "000.dcm").read_bytes()
    assert all(secret.encode() in raw for secret in secrets)
    volume, slices = read(malformed, "phi_left_in")
    shown = [repr(volume.steps), repr(slices), repr(slices.choice), repr(slices.stacked)]
    shown += [repr(dict(slices.facts)), caplog.text, *slices.choice.lines]
    assert "taken" in caplog.text
    for secret in (*secrets, slices.choice.series.series_uid, slices.choice.series.patient_id):
        assert secret not in "".join(shown)
