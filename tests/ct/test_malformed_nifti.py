"""Every NIfTI case of the malformed corpus: stored with the true facts, or refused by name.

The corpus' manifest proposes an end for each case (accept, repair, reject). Ours is the same but
for `DIFFERENCES`, each with its reason.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.ct import nifti
from t3d.ct.geometry import spacing_mm
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.plausibility import judge
from t3d.ct.regrid import regrid, regrid_label
from t3d.types import Preparation, Volume

NATIVE = Preparation(name="native", filter="linear", store_clip_hu=(-32768, 32767))

DIFFERENCES = {
    "affine_none.nii.gz": (
        "refused",
        "pixdim gives lengths but no directions: left and right would be a guess, and reports "
        "name sides",
    ),
    "hu_plus_1024.nii.gz": (
        "refused",
        "found, but not repaired: 1000, 1024 and 1200 are all in use and a histogram cannot tell "
        "24 HU of offset from contrast or kernel; the message says how to state the offset",
    ),
}

# What is recorded where a file was read otherwise than it says ("repair" in the manifest).
RECORDED = {
    "gz_garbage_tail.nii.gz": "25 bytes after the gzip stream left out",
    "not_gzip.nii.gz": "not packed, other than its name says",
    "is_gzip.nii": "packed, other than its name says",
    "long_data.nii": "2000 bytes after the last voxel left out (2880 a slice)",
    "dims_small.nii.gz": "14400 bytes after the last voxel left out (2880 a slice)",
    "affine_zero.nii.gz": "the sform spans no space, the qform is used",
    "affine_singular.nii.gz": "the sform spans no space, the qform is used",
    "pixdim_zero.nii.gz": "pixdim says 0 x 0 x 0 mm, the sform 3 x 3 x 3 mm is used",
    "pixdim_negative.nii.gz": "pixdim -3 taken for its absolute value",
    "pixdim_conflict.nii.gz": "pixdim says 1 x 1 x 1 mm, the sform 3 x 3 x 3 mm is used",
    "pixdim_metres.nii.gz": "lengths are in metres, taken to mm",
    "q_s_conflict.nii.gz": "the qform places the voxels elsewhere, the sform is used",
    "sheared.nii.gz": "turned upright from 16.7 degrees, linear",
    "slope_nan.nii.gz": "slope nan with intercept 0 taken for not scaled",
    "voxels_nan.nii.gz": "27 voxels are not finite",
    "voxels_inf.nii.gz": "1 voxels are not finite",
    "bitpix_wrong.nii.gz": "bitpix says 64, the datatype 16",
}
# Read as their writers meant it, with nothing worth a word: 0 is the usual way to say "behind
# the header"; padding is named by `judge`; 0.99999 is 1.
NOTHING_TO_RECORD = {"vox_offset_0.nii.gz", "padding_m32768.nii.gz", "label_float.nii.gz"}

REFUSED = {  # reason code, and the value that the message shows
    "gz_cut_half.nii.gz": ("unreadable", "damaged"),
    "gz_cut_crc.nii.gz": ("unreadable", "damaged"),
    "gz_cut_header.nii.gz": ("unreadable", "damaged"),
    "gz_bad_crc.nii.gz": ("unreadable", "damaged"),
    "gz_flipped_byte.nii.gz": ("unreadable", "damaged"),
    "gz_twice.nii.gz": ("unreadable", "no NIfTI header"),
    "empty.nii.gz": ("unreadable", "no NIfTI header"),
    "empty_member.nii.gz": ("unreadable", "no NIfTI header"),
    "one_byte.nii": ("unreadable", "no NIfTI header"),
    "header_only.nii.gz": ("unreadable", "ends before its last voxel"),
    "html_page.nii.gz": ("unreadable", "no NIfTI header"),
    "lfs_pointer.nii.gz": ("unreadable", "no NIfTI header"),
    "short_data.nii": ("unreadable", "55952 bytes on disk for 57952"),
    "dims_too_big.nii.gz": ("unreadable", "ends before its last voxel"),
    "dims_huge.nii.gz": ("unreadable", "(32767, 32767, 32767) voxels"),
    "dims_huge7d.nii": ("not_3d", "[7, 32767"),
    "dims_negative.nii.gz": ("not_3d", "-36"),
    "dims_zero.nii.gz": ("not_3d", "[3, 40, 0, 20]"),
    "ndim_0.nii.gz": ("not_3d", "[0]"),
    "ndim_9.nii.gz": ("not_3d", "[9, "),
    "ndim_2.nii.gz": ("not_3d", "[2, 40, 36]"),
    "one_slice.nii.gz": ("too_small", "1 x 36 x 40"),
    "4d_two_phases.nii.gz": ("not_3d", "[4, 40, 36, 20, 2]"),
    "affine_nan.nii.gz": ("bad_affine", "not finite"),
    "affine_inf.nii.gz": ("bad_affine", "not finite"),
    "affine_none.nii.gz": ("bad_affine", "sform and qform codes are 0"),
    "affine_1e6.nii.gz": ("bad_affine", "affine"),
    "pixdim_zero_no_sform.nii.gz": ("bad_affine", "pixdim"),
    "pixdim_nan.nii.gz": ("bad_affine", "pixdim"),
    "quatern_nan.nii.gz": ("bad_affine", "quaternion"),
    "slope_inf.nii.gz": ("hu_implausible", "slope inf"),
    "slope_1e30.nii.gz": ("hu_implausible", "slope 1e+30"),
    "slope_minus1.nii.gz": ("hu_implausible", "slope -1"),
    "inter_nan.nii.gz": ("hu_implausible", "intercept nan"),
    "hu_plus_1024.nii.gz": ("hu_implausible", "never shifted to HU"),
    "windowed_0_255.nii.gz": ("hu_implausible", "a window was burnt in"),
    "zero_one_float.nii.gz": ("hu_implausible", "scaled or normalised"),
    "constant.nii.gz": ("constant", "same value (-1000)"),
    "rgb.nii.gz": ("unreadable", "colours (RGB)"),
    "complex64.nii.gz": ("unreadable", "complex numbers"),
    "datatype_0.nii.gz": ("unreadable", "datatype code 0"),
    "datatype_999.nii.gz": ("unreadable", "datatype code 999"),
    "vox_offset_1e9.nii.gz": ("unreadable", "1000057600 bytes of volume"),
    "magic_wrong.nii.gz": ("unreadable", "no NIfTI header"),
    "sizeof_hdr_wrong.nii.gz": ("unreadable", "no NIfTI header"),
    "extension_huge.nii": ("unreadable", "extension of 2147483632 bytes"),
    "pair_no_img": ("unreadable", "second file, which is missing"),
    "pair_short_img": ("unreadable", "28800 bytes on disk for 57600"),
    "label_shape.nii.gz": ("bad_affine", "(20, 36, 37)"),
    "label_shifted.nii.gz": ("bad_affine", "another grid"),
    "label_negative.nii.gz": ("unreadable", "no labels"),
    "label_interpolated.nii.gz": ("unreadable", "no labels"),
    "gz_bomb.nii.gz": ("unreadable", "bytes on disk for 754975072"),
}
READ = (  # the rest: accepted, or repaired
    *RECORDED,
    *sorted(NOTHING_TO_RECORD),
    "ok_reference.nii.gz",
    "gz_two_members.nii.gz",
    "ndim_5_trailing_ones.nii.gz",
    "oblique.nii.gz",
    "axes_LPS.nii.gz",
    "axes_SPL.nii.gz",
    "axes_AIR.nii.gz",
    "slope_zero.nii.gz",
    "scaled_uint16.nii.gz",
    "metal_30000.nii.gz",
    "big_endian.nii.gz",
    "nifti2.nii.gz",
    "float64.nii.gz",
    "int32.nii.gz",
    "pair",
    "label_ok.nii.gz",
    "label_flipped.nii.gz",
    "label_empty.nii.gz",
)
# Turned upright, an axis at 0.3 rad has the pitch of its part along the body: 3 cos(0.3) mm.
OBLIQUE_MM = (2.866009, 2.866009, 3.0)


@pytest.fixture(scope="module")
def manifest(malformed: Path) -> dict[str, dict[str, Any]]:
    """The NIfTI cases by name."""
    told = json.loads((malformed / "manifest.json").read_text("utf-8"))
    return {c["path"][6:]: c for c in told if c["path"].startswith("nifti/")}


def path_of(malformed: Path, case: str) -> Path:
    path = malformed / "nifti" / case
    return path / "scan.hdr" if path.is_dir() else path


def opened(malformed: Path, case: str) -> Volume:
    """Read a case as a cohort would, at its own grid; a label map on the grid of its CT."""
    path = path_of(malformed, case)
    if case.startswith("label_"):
        with nifti.open_nifti(path_of(malformed, "ok_reference.nii.gz")) as like:
            labels = regrid_label(path, NATIVE, like=like)
        _, matrix = nifti.read_label(path)
        return Volume(volume_id=case, voxels=labels.astype(np.int16), world_from_voxel=matrix)
    with nifti.open_nifti(path) as file:
        return regrid(file, NATIVE, check=True)


@pytest.fixture(scope="module")
def reference(malformed: Path) -> Volume:
    return opened(malformed, "ok_reference.nii.gz")


@pytest.mark.real
def test_every_case_of_the_manifest_has_an_end_here(manifest: dict[str, dict[str, Any]]) -> None:
    assert len(READ) + len(REFUSED) == 91
    assert {*READ, *REFUSED} == set(manifest)


@pytest.mark.real
def test_our_ends_differ_from_the_manifest_only_where_argued(
    manifest: dict[str, dict[str, Any]],
) -> None:
    theirs = {case for case, told in manifest.items() if told["expect"] == "reject"}
    assert theirs ^ set(REFUSED) == set(DIFFERENCES)
    repaired = {case for case, told in manifest.items() if told["expect"] == "repair"}
    assert repaired - set(DIFFERENCES) == set(RECORDED) | NOTHING_TO_RECORD


@pytest.mark.real
@pytest.mark.parametrize("case", READ)
def test_a_case_is_read_with_its_true_facts(
    malformed: Path, manifest: dict[str, dict[str, Any]], reference: Volume, case: str
) -> None:
    told = manifest[case]
    volume = opened(malformed, case)
    if "shape" in told:
        assert volume.voxels.shape == tuple(reversed(told["shape"]))
    if "mean" in told:  # the same image, whatever its type, order or axes
        assert volume.voxels.mean() == pytest.approx(told["mean"], abs=1e-9)
        assert np.array_equal(volume.voxels, reference.voxels)
        assert volume.world_from_voxel == pytest.approx(reference.world_from_voxel, abs=1e-3)
    pitch = OBLIQUE_MM if case == "oblique.nii.gz" else told.get("spacing", (3, 3, 3))
    assert spacing_mm(volume.world_from_voxel) == pytest.approx(pitch)


@pytest.mark.real
@pytest.mark.parametrize("case", RECORDED)
def test_what_was_not_taken_at_its_word_is_recorded(malformed: Path, case: str) -> None:
    assert RECORDED[case] in opened(malformed, case).steps


@pytest.mark.real
@pytest.mark.parametrize("case", REFUSED)
def test_a_case_is_refused_with_file_value_rule_and_way_out(malformed: Path, case: str) -> None:
    reason, value = REFUSED[case]
    with pytest.raises((RefusedFile, RefusedGrid)) as caught:
        opened(malformed, case)
    error = caught.value
    assert error.reason == reason
    assert nifti.volume_id_of(path_of(malformed, case)) in error.found
    assert value in error.found
    assert error.expected
    assert error.fix


@pytest.mark.real
@pytest.mark.parametrize(
    "case", ["dims_huge.nii.gz", "gz_bomb.nii.gz", "extension_huge.nii", "vox_offset_1e9.nii.gz"]
)
def test_what_a_file_claims_is_not_allocated(malformed: Path, case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((RefusedFile, RefusedGrid)):
            opened(malformed, case)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# ---- facts the manifest does not write down ------------------------------------------------------


@pytest.mark.real
def test_a_wrong_number_of_slices_leaves_the_others_in_place(
    malformed: Path, reference: Volume
) -> None:
    volume = opened(malformed, "dims_small.nii.gz")
    assert np.array_equal(volume.voxels, reference.voxels[:15])


@pytest.mark.real
def test_values_that_are_no_numbers_change_nothing_around_them(
    malformed: Path, reference: Volume
) -> None:
    for case, place in (
        ("voxels_nan.nii.gz", np.s_[3:6, -6:-3, -6:-3]),  # RAS to LPS turns two axes
        ("voxels_inf.nii.gz", np.s_[:1, -1:, -1:]),
    ):
        changed = opened(malformed, case).voxels != reference.voxels
        assert changed[place].all()
        assert changed.sum() == changed[place].size


@pytest.mark.real
def test_padding_is_named_and_an_implant_keeps_its_value(
    malformed: Path, reference: Volume
) -> None:
    padded = opened(malformed, "padding_m32768.nii.gz")
    assert [v.code for v in judge(padded.voxels)] == ["padding"]
    assert (padded.voxels == -32768).mean() == pytest.approx(0.1)
    metal = opened(malformed, "metal_30000.nii.gz").voxels
    assert (metal == 30000).sum() == 4 * 4 * 4
    assert np.array_equal(metal[metal != 30000], reference.voxels[metal != 30000])


@pytest.mark.real
@pytest.mark.parametrize("case", ["sheared.nii.gz", "oblique.nii.gz"])
def test_tilted_axes_end_upright_around_the_same_middle(
    malformed: Path, reference: Volume, case: str
) -> None:
    turned = opened(malformed, case)
    axes = turned.world_from_voxel[:3, :3]
    assert np.count_nonzero(axes) == 3
    inside = turned.voxels[turned.voxels.shape[0] // 2, :, :]
    assert np.median(inside[inside > -900]) == pytest.approx(
        np.median(reference.voxels[reference.voxels > -900]), abs=40
    )


@pytest.mark.real
def test_a_label_map_given_as_a_ct_is_refused(malformed: Path) -> None:
    with (
        nifti.open_nifti(path_of(malformed, "label_ok.nii.gz")) as file,
        pytest.raises(RefusedGrid, match="a label map") as caught,
    ):
        regrid(file, NATIVE, check=True)
    assert caught.value.reason == "hu_implausible"


@pytest.mark.real
def test_labels_keep_their_numbers_whatever_their_type(malformed: Path) -> None:
    labels = opened(malformed, "label_ok.nii.gz").voxels
    assert labels.max() == 89
    assert np.array_equal(opened(malformed, "label_float.nii.gz").voxels, labels)
    assert np.array_equal(opened(malformed, "label_flipped.nii.gz").voxels, labels[:, :, ::-1])
    assert not opened(malformed, "label_empty.nii.gz").voxels.any()
