"""Every row of the test data's index: stored with the true facts, or refused and why.

"Stored" means through the door, the checks of `ct/guard.py` and onto a grid, as `t3d prepare`
does it; the figures are those of INDEX.md, measured there with other readers.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.ct import nifti
from t3d.ct.dicom import list_series
from t3d.ct.dicom.planes import plane_hu, with_pixels
from t3d.ct.door import open_scan, read
from t3d.ct.geometry import spacing_mm
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.regrid import regrid, regrid_label
from t3d.types import Preparation, Volume

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parent.parent.parent
AS_IT_IS = Preparation(name="as it is")

# First cell of a row -> the tests below that answer for it.
ROWS = {
    "`chest_lungpetctdx_A0001/series3_B_j2k`": "chest_a0001",
    "`.../annotations/*.xml`": "annotations",  # two rows of one name
    "`.../series2_L_2slices`": "two_slices",
    "`chest_lungpetctdx_A0002/series3_B40f_deflated`": "chest_a0002",
    "`.../series2_B70f_1slice`": "one_slice",
    "`chest_3slice_with_seg`": "three_slices",
    "`chest_3slice_with_seg_SEG/liver.dcm`, `partial_overlaps.dcm`": "dicom_segmentations",
    "`abdomen_totalseg_j2k`": "abdomen",
    "`abdomen_totalseg_j2k_label.nii.gz`": "label_of_the_abdomen",
    "`head_ge_tilt_uneven_jls`": "uneven_head",
    "`head_siemens_tilt_4`": "tilted_head",
    "`missing_slice_ge_4`": "missing_slice",
    "`same_position_2`": "same_position",
    "`one_slice_many_syntaxes`": "many_syntaxes",
    "`multiframe/eCT_Supplemental.dcm`": "enhanced_ct",
    "`multiframe/legacy_converted_mf_3x24x38.dcm`": "tiny_multi_frame",
    "`multiframe/enhanced_mr_rle.dcm`": "enhanced_mr",
    "`tiny_dicomdir`": "dicomdir",
    "`odd/`": "odd_dicom",
    "`not_ct_volume/`": "no_ct_volume",
    "`ct/torso_3mm_int32`": "torso",
    "`ct/torso_3mm_label`": "label_of_the_torso",
    "`ct/abdomen_3mm_int16`, `ct/abdomen_3mm_label`": "thirty_slices",
    "`ct/aorta_1p5mm_LPS`": "aorta",
    "`ct/aorta_1p5mm_label_aorta`, `_true_false_lumen`, `_T12`": "labels_of_the_aorta",
    "`ct/aorta_1p5mm_label_empty`": "empty_label",
    "`ct/aorta_1p5mm_label_heart_OTHER_GRID`": "label_of_another_scan",
    "`orient/{AIL,ARS,IPR,LPI,PLS,RAS}`": "six_storage_orders",
    "`odd/ct_head_shear_uint8_scaled`": "sheared_head",
    "`odd/ct_perfusion_rgb`": "odd_nifti",
    "`odd/rgba`, `odd/complex64`, `odd/float64_aniso` (6.4 x 4 x 0.5)": "odd_nifti",
    "`odd/anatomical.nii`, `odd/reoriented_anat_moved.nii`": "odd_nifti",
    "`odd/example_nifti2`": "odd_nifti",
    "`odd/example4d`, `odd/functional.nii`": "odd_nifti",
    "`odd/nifti1.hdr`, `nifti2.hdr`, `analyze.hdr`": "odd_nifti",
    "`odd/row_major.dconn.nii`, `odd/standard.nii.gz`": "odd_nifti",
    "`nrrd/CTChest4.nrrd`": "subsampled_chest",
    "`nrrd/Segmentation*.seg.nrrd`": "segmentations",
}


def test_no_row_of_the_index_is_without_a_test(real_data: Path) -> None:
    text = (real_data / "INDEX.md").read_text(encoding="utf-8").partition("## Reports")[0]
    cells = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)
    rows = {cell for cell in cells if cell not in ("folder", "file") and set(cell) != {"-"}}
    assert rows == set(ROWS)
    tests = [name for name in globals() if name.startswith("test_row_")]
    for key in ROWS.values():
        assert any(name.startswith(f"test_row_{key}") for name in tests), key


@cache
def stored(path: Path) -> Volume:
    """Prepare a scan at its own grid, with all checks."""
    return regrid(path, AS_IT_IS, check=True)


def refusal(path: Path) -> tuple[str, str]:
    """Say why a path is not stored: (reason, message). The way out is always named."""
    with pytest.raises((RefusedFile, RefusedGrid)) as caught:
        stored(path)
    assert caught.value.expected
    assert caught.value.fix
    return caught.value.reason, str(caught.value)


def peak(voxels: np.ndarray[Any, Any], low: int, high: int) -> float:
    """Find the fullest bin of 4 HU between two limits; its centre."""
    counts, edges = np.histogram(voxels, bins=np.arange(low, high + 1, 4))
    return float(edges[counts.argmax()] + 2)


def check_peaks(voxels: np.ndarray[Any, Any], *, air: int, fat: int, soft: int | None) -> None:
    """Hold the peaks of the histogram against the index, one bin of 4 HU apart at most."""
    assert peak(voxels, -1020, -900) == pytest.approx(air, abs=4)
    assert peak(voxels, -160, -40) == pytest.approx(fat, abs=4)
    if soft is not None:
        assert peak(voxels, 0, 100) == pytest.approx(soft, abs=4)


def one_plane(file: Path) -> np.ndarray[Any, Any]:
    """HU of the single slice of a DICOM file, which is no volume."""
    frame = list_series([file]).series[0].frames[0]
    return plane_hu(with_pixels(frame, "a slice"), frame, "a slice", whole=False)[0]


def z_ends(volume: Volume) -> tuple[float, float]:
    """z of the first and the last slice, LPS mm."""
    last = volume.voxels.shape[0] - 1
    ends = (volume.world_from_voxel @ [[0, last], [0, 0], [0, 0], [1, 1]])[2]
    return float(ends[0]), float(ends[1])


def extremes(volume: Volume) -> tuple[int, int]:
    """Lowest and highest HU."""
    return int(volume.voxels.min()), int(volume.voxels.max())


# ---- DICOM series ---------------------------------------------------------------------------


def test_row_chest_a0001(real_data: Path) -> None:
    volume = stored(real_data / "dicom/chest_lungpetctdx_A0001/series3_B_j2k")
    assert volume.voxels.shape == (64, 512, 512)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((5, 0.8418, 0.8418), abs=1e-4)
    assert z_ends(volume) == (-439, -124)  # upright, whatever the file order
    assert extremes(volume) == (-1024, 2976)
    check_peaks(volume.voxels, air=-996, fat=-106, soft=42)


def test_row_chest_a0002(real_data: Path) -> None:
    volume = stored(real_data / "dicom/chest_lungpetctdx_A0002/series3_B40f_deflated")
    assert volume.voxels.shape == (30, 512, 512)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((8, 0.6465, 0.6465), abs=1e-4)
    assert z_ends(volume) == (80, 312)
    assert extremes(volume) == (-1024, 1548)
    check_peaks(volume.voxels, air=-1000, fat=-106, soft=46)


LESIONS = [  # series with its boxes, how many, one box of the index (slice, x, y), side
    ("chest_lungpetctdx_A0001", "series3_B_j2k", 9, (18, (286, 355), (310, 402)), "left"),
    ("chest_lungpetctdx_A0002", "series3_B40f_deflated", 10, (10, (167, 234), (269, 356)), "right"),
]


@pytest.mark.parametrize(("patient", "series", "count", "box", "side"), LESIONS)
def test_row_annotations_lie_on_their_side(
    real_data: Path, patient: str, series: str, count: int, box: Any, side: str
) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = real_data / "dicom" / patient
    files = {
        str(head.SOPInstanceUID): head
        for head in (
            pydicom.dcmread(file, stop_before_pixels=True) for file in (folder / series).iterdir()
        )
    }
    boxes = {path.stem: path for path in (folder / "annotations").iterdir()}
    assert len(boxes) == count
    assert set(boxes) <= set(files)  # the key is the UID
    volume = stored(folder / series)
    with open_scan((folder / series,)) as slices:
        z_of = dict(slices.instances)
    back = np.linalg.inv(volume.world_from_voxel)
    middle_x = (volume.voxels.shape[2] - 1) / 2
    for uid, path in boxes.items():
        head = files[uid]
        z = z_of[int(head.InstanceNumber)]  # how a citation finds its slice
        assert z == pytest.approx(float(head.ImagePositionPatient[2]), abs=1e-6)
        tree = ET.parse(path)
        x0, x1, y0, y1 = (
            int(tree.findtext(f".//{name}") or -1) for name in ("xmin", "xmax", "ymin", "ymax")
        )
        if int(head.InstanceNumber) == box[0]:
            assert ((x0, x1), (y0, y1)) == box[1:]
        # Pixel (column, row) to the world by the file's own header, and back by our matrix.
        first = np.array(head.ImagePositionPatient, dtype=float)
        row_mm, column_mm = map(float, head.PixelSpacing)
        place = first + np.array([(x0 + x1) / 2 * column_mm, (y0 + y1) / 2 * row_mm, 0])
        found = back @ [*place, 1]
        assert found[:3] == pytest.approx((round(found[0]), (y0 + y1) / 2, (x0 + x1) / 2), abs=1e-3)
        assert (found[2] > middle_x) == (side == "left")  # x grows to the patient's left
        inside = volume.voxels[round(found[0]), y0 + 8 : y1 - 8, x0 + 8 : x1 - 8]
        assert inside.max() > -50  # tissue, not lung alone: the box is on its slice


def test_row_two_slices(real_data: Path) -> None:
    path = real_data / "dicom/chest_lungpetctdx_A0001/series2_L_2slices"
    assert refusal(path)[0] == "too_small"
    volume = read(path)
    assert extremes(volume) == (-1024, 2372)
    whole = stored(path.with_name("series3_B_j2k"))
    offset = (np.linalg.inv(whole.world_from_voxel) @ volume.world_from_voxel)[:3, 3]
    assert offset == pytest.approx((32, 0, 0), abs=1e-6)  # slices 31 and 32, counted from above
    # Of the two reconstructions in one study the whole chest is taken, or the one asked for.
    for kernel, depth in (("", 64), ("B", 64), ("L", 2)):
        with open_scan((path.parent,), kernel=kernel) as slices:
            assert slices.shape_kji == (depth, 512, 512)


def test_row_one_slice(real_data: Path) -> None:
    reason, message = refusal(real_data / "dicom/chest_lungpetctdx_A0002/series2_B70f_1slice")
    assert reason == "too_small"
    assert "one slice is no volume" in message


def test_row_three_slices(real_data: Path) -> None:
    path = real_data / "dicom/chest_3slice_with_seg"
    assert refusal(path)[0] == "too_small"
    volume = read(path)
    assert volume.voxels.shape == (3, 512, 512)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((1, 0.8105, 0.8105), abs=1e-4)
    assert extremes(volume) == (-1024, 1381)  # padding -3024 became air
    assert any("padding" in step for step in volume.steps)
    check_peaks(volume.voxels, air=int(peak(volume.voxels, -1020, -900)), fat=-98, soft=42)


@pytest.mark.parametrize("name", ["liver", "partial_overlaps"])
def test_row_dicom_segmentations(real_data: Path, name: str) -> None:
    reason, message = refusal(real_data / f"dicom/chest_3slice_with_seg_SEG/{name}.dcm")
    assert reason == "not_ct"
    assert "segmentation" in message


def test_row_abdomen(real_data: Path) -> None:
    volume = stored(real_data / "dicom/abdomen_totalseg_j2k")
    assert volume.voxels.shape == (20, 512, 512)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((2, 0.9766, 0.9766), abs=1e-4)
    assert z_ends(volume) == (-804.5, -766.5)
    assert extremes(volume) == (-1024, 1839)
    check_peaks(volume.voxels, air=-996, fat=-82, soft=None)
    assert not re.search(r"19\d\d|20\d\d\d|UKK|Institut", str(volume.steps) + volume.volume_id)


def test_row_label_of_the_abdomen(real_data: Path) -> None:
    volume = stored(real_data / "dicom/abdomen_totalseg_j2k")
    path = real_data / "dicom/abdomen_totalseg_j2k_label.nii.gz"
    labels = regrid_label(path, AS_IT_IS, like=volume)
    for number, count, median in ((5, 366708, 93), (1, 130634, 80), (52, 11723, 151)):
        chosen = volume.voxels[labels == number]
        assert chosen.size == count
        assert np.median(chosen) == median
    assert refusal(path)[0] == "hu_implausible"


UNEVEN = [
    ("head_ge_tilt_uneven_jls", ["13 x 4.00 mm", "1 x 1.08 mm", "13 x 7.00 mm"]),
    ("missing_slice_ge_4", ["2 x 5.00 mm", "1 x 10.00 mm"]),
]


def check_uneven(real_data: Path, number: int) -> None:
    """A series with uneven gaps is refused with every gap in mm."""
    name, told = UNEVEN[number]
    reason, message = refusal(real_data / "dicom" / name)
    assert reason == "uneven_slices"
    assert all(gap in message for gap in told)


def test_row_uneven_head(real_data: Path) -> None:
    check_uneven(real_data, 0)


def test_row_missing_slice(real_data: Path) -> None:
    check_uneven(real_data, 1)


def test_row_tilted_head(real_data: Path) -> None:
    path = real_data / "dicom/head_siemens_tilt_4"
    with open_scan((path,)) as slices:
        normal = np.cross(slices.world_from_file[:3, 2], slices.world_from_file[:3, 1])
        along = slices.world_from_file[:3, 0]
        gap = abs(along @ normal) / np.linalg.norm(normal)
        assert gap == pytest.approx(4.851, abs=1e-3)
        assert abs(along[2]) == pytest.approx(5, abs=1e-3)
        assert slices.tilt_degrees == pytest.approx(14, abs=0.1)
    assert refusal(path)[0] == "too_small"  # four slices, however high they stand when turned


def test_row_same_position(real_data: Path) -> None:
    reason, message = refusal(real_data / "dicom/same_position_2")
    assert reason == "duplicate_slices"
    assert "gap 0.00 mm" in message


LOSSY = {"4.91": 5, "4.81": 1, "4.51": 36, "4.53": 36, "4.55": 36, "4.50": 64}


def test_row_many_syntaxes(real_data: Path) -> None:
    files = {
        file.stem.rpartition("_ts")[2]: file
        for file in (real_data / "dicom/one_slice_many_syntaxes").iterdir()
    }
    assert len(files) == 16
    planes = {}
    for syntax, file in files.items():
        assert refusal(file)[0] == "too_small"
        planes[syntax] = one_plane(file)
    truth = planes["1"]
    assert truth.max() == 1378
    y, x = np.indices(truth.shape) - 255.5
    circle = np.hypot(y, x) < 250
    for syntax, plane in planes.items():
        worst = np.abs(plane - truth)[circle].max()
        assert round(float(worst)) <= LOSSY.get(syntax, 0), syntax
        assert (worst > 0) == (syntax in LOSSY), syntax


def test_row_enhanced_ct_is_a_map_of_perfusion(real_data: Path) -> None:
    reason, message = refusal(real_data / "dicom/multiframe/eCT_Supplemental.dcm")
    assert reason == "not_ct"
    assert "2 slices" in message


def test_row_tiny_multi_frame(real_data: Path) -> None:
    path = real_data / "dicom/multiframe/legacy_converted_mf_3x24x38.dcm"
    assert refusal(path)[0] == "too_small"
    volume = read(path)
    assert volume.voxels.shape == (3, 38, 24)
    assert extremes(volume) == (0, 1)


def test_row_enhanced_mr(real_data: Path) -> None:
    reason, message = refusal(real_data / "dicom/multiframe/enhanced_mr_rle.dcm")
    assert reason == "not_ct"
    assert "MR" in message


def test_row_dicomdir(real_data: Path) -> None:
    folder = real_data / "dicom/tiny_dicomdir"
    for whole in (folder, folder / "DICOMDIR"):
        reason, message = refusal(whole)
        assert reason == "mixed_series"
        assert "4 slices" in message
        assert "5 slices" in message
    reason, message = refusal(folder / "77654033")
    assert reason == "uneven_slices"
    assert "1 x 202.50 mm" in message
    assert "2 x 1.25 mm" in message
    assert read(folder / "98892001").voxels.shape == (5, 16, 16)  # the scouts beside it are not
    with pytest.raises(RefusedFile, match="localizer"):
        read(folder / "98892001/CT2N")


ODD_DICOM = {
    "CT_small": ("too_small", "one slice"),
    "explicit_VR-UN": ("too_small", "one slice"),
    "bad_sequence": ("too_small", "one slice"),
    "MR_truncated": ("not_ct", "MR"),
    "no_meta": ("unreadable", "no format known"),  # a byte too many at its beginning
    "meta_missing_tsyntax": ("unreadable", "neither its series nor its frame of reference"),
    "badVR": ("not_ct", "dose"),
}


def test_row_odd_dicom(real_data: Path) -> None:
    folder = real_data / "dicom/odd"
    assert {file.stem for file in folder.iterdir()} == set(ODD_DICOM)
    for name, (reason, told) in ODD_DICOM.items():
        found, message = refusal(folder / f"{name}.dcm")
        assert found == reason, name
        assert told in message, name
    for name in ("CT_small", "explicit_VR-UN", "bad_sequence"):  # the first three decode
        plane = one_plane(folder / f"{name}.dcm")
        assert plane.max() > 200
        if name == "CT_small":
            assert plane.shape == (128, 128)
            assert (plane.min(), plane.max()) == (-896, 1167)


def test_row_no_ct_volume(real_data: Path) -> None:
    folder = real_data / "dicom/not_ct_volume"
    for path in (folder, *sorted(folder.iterdir())):
        assert refusal(path)[0] == "not_ct", path.name


# ---- NIfTI and NRRD -------------------------------------------------------------------------


def median(ct: Volume, labels: np.ndarray[Any, Any], number: int) -> float:
    """Median HU of one label."""
    return float(np.median(ct.voxels[labels == number]))


def test_row_torso(real_data: Path) -> None:
    volume = stored(real_data / "nifti/ct/torso_3mm_int32.nii.gz")
    assert volume.voxels.shape == (112, 101, 122)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((3, 3, 3), abs=1e-4)
    assert extremes(read(real_data / "nifti/ct/torso_3mm_int32.nii.gz")) == (-1207, 3382)
    assert volume.steps[0] == "read NIfTI int32 RAS"
    check_peaks(volume.voxels, air=-998, fat=-102, soft=None)


def test_row_label_of_the_torso(real_data: Path) -> None:
    folder = real_data / "nifti/ct"
    ct = stored(folder / "torso_3mm_int32.nii.gz")
    labels, _ = nifti.read_label(folder / "torso_3mm_label.nii.gz")
    assert len(np.unique(labels)) - 1 == 61
    found = [median(ct, labels, n) for n in (5, 1, 52, 11)]
    assert found == pytest.approx([46, 35, 41, -771], abs=0.5)
    assert refusal(folder / "torso_3mm_label.nii.gz")[0] == "hu_implausible"


def test_row_thirty_slices(real_data: Path) -> None:
    folder = real_data / "nifti/ct"
    ct = stored(folder / "abdomen_3mm_int16.nii.gz")
    assert ct.voxels.shape == (30, 101, 122)
    labels = regrid_label(folder / "abdomen_3mm_label.nii.gz", AS_IT_IS, like=ct)
    assert len(np.unique(labels)) - 1 == 41
    assert (labels == 13).sum() == 1
    assert (labels == 5).sum() == 38634
    assert [median(ct, labels, n) for n in (5, 1)] == pytest.approx([46, 35], abs=0.5)


def test_row_aorta(real_data: Path) -> None:
    path = real_data / "nifti/ct/aorta_1p5mm_LPS.nii.gz"
    volume = stored(path)  # a crop without lung or outline is still a CT
    assert volume.voxels.shape == (164, 126, 120)
    assert volume.steps[0].endswith(" LPS")
    assert extremes(read(path)) == (-1078, 3343)


def test_row_labels_of_the_aorta(real_data: Path) -> None:
    folder = real_data / "nifti/ct"
    ct = stored(folder / "aorta_1p5mm_LPS.nii.gz")
    labels = {
        name: regrid_label(folder / f"aorta_1p5mm_label_{name}.nii.gz", AS_IT_IS, like=ct)
        for name in ("aorta", "true_false_lumen", "T12")
    }
    assert (labels["aorta"] == 1).sum() == 72810
    assert (labels["T12"] == 1).sum() == 9617
    assert median(ct, labels["aorta"], 1) == pytest.approx(354, abs=0.5)
    lumen = [median(ct, labels["true_false_lumen"], n) for n in (1, 2)]
    assert lumen == pytest.approx([471, 230], abs=0.5)


def test_row_empty_label(real_data: Path) -> None:
    path = real_data / "nifti/ct/aorta_1p5mm_label_empty.nii.gz"
    assert not nifti.read_label(path)[0].any()
    assert refusal(path)[0] == "constant"


def test_row_label_of_another_scan(real_data: Path) -> None:
    folder = real_data / "nifti/ct"
    ct = stored(folder / "aorta_1p5mm_LPS.nii.gz")
    other = folder / "aorta_1p5mm_label_heart_OTHER_GRID.nii.gz"
    with pytest.raises(RefusedGrid, match="another grid"):
        regrid_label(other, AS_IT_IS, like=ct)


def test_row_six_storage_orders(real_data: Path) -> None:
    volumes = [read(path) for path in sorted((real_data / "nifti/orient").iterdir())]
    assert len(volumes) == 6
    for volume in volumes[1:]:
        assert np.array_equal(volume.voxels, volumes[0].voxels)
        assert volume.world_from_voxel == pytest.approx(volumes[0].world_from_voxel, abs=1e-3)
    assert volumes[0].voxels.max() == 93  # scaled: 92.55
    assert refusal(real_data / "nifti/orient/RAS.nii.gz")[0] == "hu_implausible"  # an MR


def test_row_sheared_head(real_data: Path) -> None:
    path = real_data / "nifti/odd/ct_head_shear_uint8_scaled.nii.gz"
    volume = stored(path)
    assert any("turned upright" in step for step in volume.steps)
    assert "slope 7.1098 intercept -1024" in volume.steps[0]
    with open_scan((path,)) as slices:
        values = [slices.rescale.int16(slab) for _, slab in slices.slabs(54)]
    assert (values[0].min(), values[0].max()) == (-1024, 789)
    # The pitch along z, not along the tilted column: 54 slices keep their height.
    assert spacing_mm(volume.world_from_voxel).z == pytest.approx(2.371, abs=0.2)


ODD_NIFTI = {
    "ct_perfusion_rgb.nii.gz": "unreadable",
    "rgba.nii.gz": "unreadable",
    "complex64.nii.gz": "unreadable",
    "float64_aniso.nii.gz": "too_small",
    "anatomical.nii": "hu_implausible",
    "reoriented_anat_moved.nii": "hu_implausible",
    "example_nifti2.nii.gz": "not_3d",
    "example4d.nii.gz": "not_3d",
    "functional.nii": "not_3d",
    "nifti1.hdr": "unreadable",
    "nifti2.hdr": "unreadable",
    "analyze.hdr": "unreadable",
    "row_major.dconn.nii": "not_3d",
    "standard.nii.gz": "too_small",
    "ct_head_shear_uint8_scaled.nii.gz": "",
}


@pytest.mark.parametrize(("name", "reason"), ODD_NIFTI.items())
def test_row_odd_nifti(real_data: Path, name: str, reason: str) -> None:
    folder = real_data / "nifti/odd"
    assert {path.name for path in folder.iterdir()} == set(ODD_NIFTI)
    if reason:
        assert refusal(folder / name)[0] == reason


def test_row_subsampled_chest(real_data: Path) -> None:
    volume = stored(real_data / "nrrd/CTChest4.nrrd")
    assert volume.voxels.shape == (34, 128, 128)
    assert spacing_mm(volume.world_from_voxel) == pytest.approx((10, 3.05, 3.05), abs=0.01)
    assert extremes(read(real_data / "nrrd/CTChest4.nrrd")) == (-3024, 3070)
    assert volume.voxels.min() == -1024  # clipped before anything is mixed


@pytest.mark.parametrize("name", ["Segmentation", "SegmentationOverlapping"])
def test_row_segmentations(real_data: Path, name: str) -> None:
    assert refusal(real_data / f"nrrd/{name}.seg.nrrd")[0] == "not_ct"


# ---- the table of traps ---------------------------------------------------------------------


def test_every_difference_in_the_table_of_traps_is_argued_under_it() -> None:
    page = (ROOT / "docs" / "reference" / "traps.md").read_text(encoding="utf-8")
    tables, _, argued = page.partition("## Where we differ")
    rows = re.findall(r"^\| `([^`]+)`: .*? \| (refused|read|read, noted) \| ([^|]*)", tables, re.M)
    assert len(rows) > 200
    other = {
        name
        for name, should, ours in rows
        if ours.startswith("**") or ours.startswith("refuses") != (should == "refused")
    }
    assert other == set(re.findall(r"^- `([^`]+)`", argued, re.M))


@pytest.mark.slow
def test_every_derived_case_has_a_row_in_the_table_of_traps(malformed: Path) -> None:
    page = (ROOT / "docs" / "reference" / "traps.md").read_text(encoding="utf-8")
    cases = json.loads((malformed / "manifest.json").read_text(encoding="utf-8"))
    for case in cases:
        folder, _, name = case["path"].partition("/")
        if folder != "table":
            assert f"| `{name}`:" in page, case["path"]
