"""The door: HU exactly once, bounded memory, facts without secrets, and real scans as indexed."""

from __future__ import annotations

import logging
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from made_series import (
    FIRST,
    PITCH,
    ROWS,
    SECRETS,
    SPACING,
    made_series,
    made_slice,
    moved,
    stored_of,
    with_pixels,
    write,
)
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement

from t3d.ct.dicom import DicomSlices, open_dicom, planes
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.intensity import Rescale
from t3d.ct.regrid import regrid
from t3d.ct.slices import HeldSlices, read_whole
from t3d.types import Preparation, Volume, Zyx

Voxels = np.ndarray[Any, np.dtype[Any]]


@contextmanager
def opened(folder: Path, slices: list[Dataset], **options: Any) -> Iterator[DicomSlices]:
    with open_dicom(write(folder, slices), name="s1", **options) as found:
        yield found


def voxels_of(slices: DicomSlices, num_slices: int = 4) -> Voxels:
    """Every slab, copied, since the array is reused."""
    return np.concatenate([slab.copy() for _, slab in slices.slabs(num_slices)])


def hu_of(folder: Path, slices: list[Dataset], **options: Any) -> Voxels:
    with opened(folder, slices, **options) as found:
        return voxels_of(found)


# ---- HU ------------------------------------------------------------------------------------


def test_hu_are_stored_values_plus_intercept_as_int16(tmp_path: Path) -> None:
    with opened(tmp_path, made_series(10)) as found:
        voxels = voxels_of(found)
        assert found.rescale == Rescale()  # nothing is left to do
    assert voxels.dtype == np.int16
    for k in range(10):
        for j in range(6):
            for i in range(5):
                assert voxels[k, j, i] == 100 * k + 10 * j + i - 1024


@pytest.mark.parametrize("num_slices", [1, 3, 10, 99])
def test_slabs_of_any_size_hold_the_same_voxels(num_slices: int, tmp_path: Path) -> None:
    expected = hu_of(tmp_path / "a", made_series(10))
    with opened(tmp_path / "b", made_series(10)) as found:
        firsts = [first for first, _ in found.slabs(num_slices)]
        assert (voxels_of(found, num_slices) == expected).all()
    assert firsts == list(range(0, 10, num_slices))


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    def shifted(dataset: Dataset, k: int) -> None:
        dataset.RescaleIntercept = -1024 - 10 * k
        dataset.PixelData = (stored_of(k) + 10 * k).astype("<u2").tobytes()

    plain = hu_of(tmp_path / "a", made_series(10))
    assert (hu_of(tmp_path / "b", made_series(10, change=shifted)) == plain).all()


def test_a_slope_that_is_not_whole_gives_float32_without_rounding(tmp_path: Path) -> None:
    voxels = hu_of(tmp_path, made_series(8, RescaleSlope="2.0002442", RescaleIntercept=-1024))
    assert voxels.dtype == np.float32
    stored = np.stack([stored_of(k) for k in range(8)]).astype(np.float64)
    np.testing.assert_allclose(voxels, stored * 2.0002442 - 1024, atol=1e-4)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (1, 0), (2, -1024), (1, 40000)])
def test_values_beyond_int16_saturate_and_nothing_is_darker_than_air(
    slope: int, intercept: int, tmp_path: Path
) -> None:
    stored = np.array([[0, 1, 100, 32767], [32768, 40000, 65534, 65535]], dtype=np.uint16)
    slices = [
        with_pixels(made_slice(k, RescaleSlope=slope, RescaleIntercept=intercept), stored)
        for k in range(8)
    ]
    voxels = hu_of(tmp_path, slices)
    for j in range(2):
        for i in range(4):
            exact = slope * int(stored[j, i]) + intercept
            assert voxels[0, j, i] == min(32767, max(-1024, exact))


@pytest.mark.parametrize(
    ("vr", "value", "limit", "intercept"),
    [
        ("SS", -2000, None, -1024),  # -3024 HU: below air in any case
        ("US", 63536, None, -1024),  # the same, written with the wrong sign
        ("SS", 32767, None, 0),  # bright padding
        ("SS", 30000, 32767, 0),  # a range of it
    ],
)
def test_padding_becomes_air(
    vr: str, value: int, limit: int | None, intercept: int, tmp_path: Path
) -> None:
    outside = -2000 if value in (-2000, 63536) else 32767

    def padded(dataset: Dataset, k: int) -> None:
        stored = stored_of(k).astype(np.int16)
        stored[0] = outside
        with_pixels(dataset, stored)
        dataset.RescaleIntercept = intercept
        dataset[0x00280120] = DataElement(0x00280120, vr, value)
        if limit is not None:
            dataset[0x00280121] = DataElement(0x00280121, vr, limit)

    voxels = hu_of(tmp_path, made_series(8, change=padded))
    assert (voxels[:, 0] == -1024).all()
    inside = np.stack([stored_of(k) for k in range(8)])[:, 1:].astype(int) + intercept
    assert (voxels[:, 1:] == inside).all()


def test_a_padding_value_among_tissue_is_not_believed_and_said(tmp_path: Path) -> None:
    # 1024 - 1024 = 0 HU: believing it would turn all water into air.
    slices = made_series(12, PixelPaddingValue=1024)
    with opened(tmp_path, slices) as found:
        voxels = voxels_of(found)
        assert "a padding value among tissue was not taken for padding" in found.steps
    stored = np.stack([stored_of(k) for k in range(12)])
    assert (stored == 1024).any()
    assert (voxels[stored == 1024] == 0).all()


# ---- gaps bridged --------------------------------------------------------------------------


def test_interpolated_slices_follow_the_plain_definition(tmp_path: Path) -> None:
    def gap(dataset: Dataset, k: int) -> None:
        moved(dataset, z=3.0 if k > 6 else 0.0)

    slices = made_series(10, change=gap)
    with opened(tmp_path, slices, gaps="interpolate") as found:
        voxels = voxels_of(found)
        made = found.stacked
    assert voxels.dtype == np.float32
    below = np.array([0, 2, 4, 6, 8, 10, 12, 17, 19, 21], dtype=float)  # mm, by hand
    assert made.offsets_mm == pytest.approx(below)
    wanted = [21 * j / (made.num_slices - 1) for j in range(made.num_slices)]
    stored = np.stack([stored_of(k) for k in range(10)]).astype(float) - 1024
    for j in range(6):
        for i in range(5):
            expected = np.interp(wanted, below, stored[:, j, i])
            np.testing.assert_allclose(voxels[:, j, i], expected, atol=1e-3)


# ---- what is read, when, and how much of it --------------------------------------------------


def test_each_file_is_read_once_for_its_pixels_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Path] = Counter()
    real = planes.pixels_of

    def counted(source: Any) -> Dataset:
        read[source.file] += 1
        return real(source)

    monkeypatch.setattr(planes, "pixels_of", counted)
    with opened(tmp_path, made_series(10)) as found:
        assert not read  # opening decides by headers alone
        slabs = found.slabs(2)
        next(slabs)
        assert len(read) == 2
        list(slabs)
    assert set(read.values()) == {1}
    assert len(read) == 10


def test_a_multi_frame_file_is_read_once_for_all_its_frames(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = planes.pixels_of
    monkeypatch.setattr(planes, "pixels_of", lambda source: calls.append(1) or real(source))
    path = real_data / "dicom" / "multiframe" / "legacy_converted_mf_3x24x38.dcm"
    with open_dicom([path], name="s1") as found:
        voxels = voxels_of(found)
        assert found.shape_kji == (3, 38, 24)
        assert found.instances == ((1, -177.75), (2, -175.25), (3, -172.75))
    assert calls == [1]
    # The file runs from -177.75 upwards in z, as the frames are numbered.
    assert (voxels == dcmread(path).pixel_array).all()


def test_memory_holds_a_slab_and_a_file_not_the_volume(tmp_path: Path) -> None:
    stored = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256) % 4096
    paths = write(tmp_path, [with_pixels(made_slice(k), stored) for k in range(60)])
    volume = 60 * 256 * 256 * 2
    with open_dicom(paths, name="s1") as found:
        tracemalloc.start()
        for _, slab in found.slabs(2):
            assert slab.nbytes <= 2 * 256 * 256 * 2
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < volume / 4


# ---- facts, citations and secrets -------------------------------------------------------------


def test_instances_map_numbers_to_the_height_of_the_slice(tmp_path: Path) -> None:
    def backwards(dataset: Dataset, k: int) -> None:
        dataset.InstanceNumber = 50 - k

    with opened(tmp_path, made_series(8, change=backwards)) as found:
        assert found.instances == tuple((50 - k, FIRST[2] + PITCH * k) for k in range(8))


def test_the_height_of_a_tilted_slice_is_that_of_its_centre(tmp_path: Path) -> None:
    slices = made_series(8, ImageOrientationPatient=[1, 0, 0, 0, 0.8, -0.6])
    with opened(tmp_path, slices) as found:
        # 2.5 rows down the slice, 0.5 mm each, 0.6 of it along z.
        assert found.instances[0] == (1, pytest.approx(FIRST[2] - 0.6 * 0.5 * (ROWS - 1) / 2))


def test_instance_numbers_that_repeat_cite_nothing(tmp_path: Path) -> None:
    def some(dataset: Dataset, k: int) -> None:
        dataset.InstanceNumber = 7 if k < 2 else k

    with opened(tmp_path, made_series(8, change=some)) as found:
        numbers = [number for number, _ in found.instances]
    assert numbers == [2, 3, 4, 5, 6]  # 7 stands for three slices


def test_facts_name_kernel_maker_series_and_phase(tmp_path: Path) -> None:
    with opened(tmp_path, made_series(8, ContrastBolusAgent="Iomeron")) as found:
        assert found.facts == {
            "kernel": "B40f",
            "manufacturer": "MAKER",
            "phase": "contrast",
            "series_number": "3",
        }


def test_no_secret_reaches_repr_steps_facts_or_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with opened(tmp_path / "Doe", made_series(8)) as found:
        whole = read_whole(found)
        shown = [repr(found), str(found), repr(found.stacked), repr(found.choice), caplog.text]
        shown += [*found.steps, *whole.steps, *found.facts.values(), whole.volume_id]
    assert "s1: series 3 B40f (8 slices): taken" in caplog.text
    for secret in (*SECRETS.values(), "Doe", "1.2.826"):
        assert secret not in "".join(shown)


def test_no_secret_reaches_an_error_or_its_traceback(tmp_path: Path) -> None:
    def broken(dataset: Dataset, k: int) -> None:
        if k == 5:
            dataset.PixelData = dataset.PixelData[:-4]
            dataset.InstanceNumber = 77

    with (
        pytest.raises(RefusedFile) as refusal,
        opened(tmp_path, made_series(8, change=broken)) as s,
    ):
        voxels_of(s)
    assert "s1: slice 77" in refusal.value.found
    shown = str(refusal.getrepr(style="value")) + repr(refusal.value.__cause__)
    for secret in (*SECRETS.values(), str(tmp_path)):
        assert secret not in shown


def test_damaged_files_beside_the_series_are_counted_in_the_steps(tmp_path: Path) -> None:
    paths = write(tmp_path, made_series(8))
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    with open_dicom([*paths, tmp_path / "empty.dcm", tmp_path / "notes.txt"], name="s1") as found:
        assert "1 damaged file(s) beside the series left out" in found.steps


def test_options_reach_the_choice(tmp_path: Path) -> None:
    slices = [
        *made_series(8),
        *made_series(9, series="2", SeriesNumber=4, ConvolutionKernel="B70f"),
    ]
    for options, depth in (({}, 8), ({"kernel": "B70f"}, 9), ({"series_number": 4}, 9)):
        with opened(tmp_path / str(depth), slices, **options) as found:
            assert found.shape_kji[0] == depth


def test_a_volume_read_whole_runs_upwards_backwards_and_leftwards(tmp_path: Path) -> None:
    # Columns run to the right, so the normal points to the feet: two axes are turned round.
    slices = made_series(10, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])
    with opened(tmp_path, slices) as found:
        whole = read_whole(found)
    low = np.array([*FIRST])
    low[0] -= SPACING[1] * 4  # columns run to the right, so the last one has the smallest L
    assert whole.world_from_voxel[:3, 3] == pytest.approx(low)
    assert whole.voxels[2, 3, 1] == 100 * 2 + 10 * 3 + (4 - 1) - 1024


# ---- damaged bytes -------------------------------------------------------------------------


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Damage a file the way disks, networks and editors do."""
    content = bytearray(whole)
    place = chance.randrange(min(len(content), chance.choice([400, 1500, len(content)])))
    kind = chance.choice(["byte", "cut", "insert", "delete", "length"])
    if kind == "byte":
        content[place] = chance.randrange(256)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = chance.randbytes(chance.randrange(1, 9))
    elif kind == "delete":
        del content[place : place + chance.randrange(1, 9)]
    else:
        content[place : place + 4] = b"\xff\xff\xff\xff"
    return bytes(content)


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_with_a_reason_and_nothing_else(
    count: int, tmp_path: Path
) -> None:
    paths = write(tmp_path, made_series(8))
    whole = [path.read_bytes() for path in paths]
    reasons: Counter[str] = Counter()
    named = 0
    for seed in range(count):
        chance = random.Random(seed)
        hit = chance.randrange(8)
        paths[hit].write_bytes(damaged(whole[hit], chance))
        try:
            with open_dicom(paths, name="s1", gaps="interpolate") as found:
                assert np.isfinite(voxels_of(found)).all()
            reasons["read"] += 1
        except (RefusedFile, RefusedGrid) as refusal:
            reasons[refusal.reason] += 1
            named += "s1: " in refusal.found and bool(refusal.expected) and bool(refusal.fix)
        paths[hit].write_bytes(whole[hit])
    assert reasons["read"] > 0
    assert {"unreadable", "mixed_series"} <= set(reasons)
    assert named == count - reasons["read"]


# ---- real scans ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_scans(request: pytest.FixtureRequest) -> Any:
    """Read each real folder once for this module."""
    held: dict[str, tuple[DicomSlices, Volume]] = {}

    def read(data: Path, folder: str) -> tuple[DicomSlices, Volume]:
        if folder not in held:
            files = [f for f in (data / "dicom" / folder).rglob("*") if f.is_file()]
            with open_dicom(files, name=folder) as found:
                held[folder] = found, read_whole(found)
        return held[folder]

    return read


# Folder; slices, rows, columns; row, column and slice spacing; HU range (padding to -1024).
INDEX = [
    ("chest_lungpetctdx_A0001/series3_B_j2k", (64, 512, 512), (0.8418, 0.8418, 5.0), (-1024, 2976)),
    (
        "chest_lungpetctdx_A0002/series3_B40f_deflated",
        (30, 512, 512),
        (0.6465, 0.6465, 8.0),
        (-1024, 1548),
    ),
    (
        "chest_lungpetctdx_A0001/series2_L_2slices",
        (2, 512, 512),
        (0.8418, 0.8418, 5),
        (-1024, 2372),
    ),
    ("chest_3slice_with_seg", (3, 512, 512), (0.8105, 0.8105, 1.0), (-1024, 1381)),
    ("abdomen_totalseg_j2k", (20, 512, 512), (0.9766, 0.9766, 2.0), (-1024, 1839)),
]


@pytest.mark.parametrize(("folder", "shape", "spacing", "hu"), INDEX)
def test_real_series_have_the_geometry_and_hu_of_the_index(
    folder: str, shape: Any, spacing: Any, hu: Any, real_data: Path, real_scans: Any
) -> None:
    slices, volume = real_scans(real_data, folder)
    assert volume.voxels.shape == shape  # all are axial: (z, y, x) is the file's order
    rows, columns, between = spacing
    lengths = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)
    assert lengths == pytest.approx([between, rows, columns], abs=1e-4)
    assert (volume.voxels.min(), volume.voxels.max()) == hu
    assert slices.dtype is np.int16
    assert len(slices.instances) == shape[0]


@pytest.mark.parametrize(
    ("folder", "peaks"),
    [
        ("chest_lungpetctdx_A0001/series3_B_j2k", {"fat": -106, "soft": 42}),
        ("chest_lungpetctdx_A0002/series3_B40f_deflated", {"fat": -106, "soft": 46}),
        ("chest_3slice_with_seg", {"fat": -98, "soft": 42}),
        ("abdomen_totalseg_j2k", {"fat": -82}),
    ],
)
def test_fat_and_soft_tissue_peak_where_the_index_says(
    folder: str, peaks: dict[str, int], real_data: Path, real_scans: Any
) -> None:
    _, volume = real_scans(real_data, folder)
    for tissue, peak in peaks.items():
        low = -152 if tissue == "fat" else 0
        counts, edges = np.histogram(volume.voxels, bins=25, range=(low, low + 100))
        assert edges[int(counts.argmax())] <= peak <= edges[int(counts.argmax())] + 4


@pytest.mark.parametrize(
    ("folder", "low", "high"),
    [
        ("chest_lungpetctdx_A0001/series3_B_j2k", -439.0, -124.0),
        ("chest_lungpetctdx_A0002/series3_B40f_deflated", 80.0, 312.0),
        ("abdomen_totalseg_j2k", -804.5, -766.5),
    ],
)
def test_slices_stored_from_head_to_feet_come_back_from_feet_to_head(
    folder: str, low: float, high: float, real_data: Path, real_scans: Any
) -> None:
    slices, volume = real_scans(real_data, folder)
    assert volume.world_from_voxel[2, 3] == low
    heights = dict(slices.instances)
    assert max(heights.values()) == high
    numbers = sorted(heights)
    assert heights[numbers[0]] == high  # the first image is at the top of each of these
    assert heights[numbers[-1]] == low


def test_the_padding_of_the_real_three_slices_is_air(real_data: Path, real_scans: Any) -> None:
    slices, volume = real_scans(real_data, "chest_3slice_with_seg")
    planes_stored = [dcmread(f.file).pixel_array for f in slices.stacked.frames]
    padding = np.stack(planes_stored) == -2000
    assert padding.mean() > 0.1
    assert (volume.voxels[padding] == -1024).all()


def test_the_liver_spleen_and_aorta_of_the_real_abdomen_have_their_hu(
    real_data: Path, real_scans: Any
) -> None:
    _, volume = real_scans(real_data, "abdomen_totalseg_j2k")
    image = nib.load(real_data / "dicom" / "abdomen_totalseg_j2k_label.nii.gz")
    label = np.asarray(image.dataobj)
    # By the index: label[i, 511 - j, k] is column i, row j, slice k upwards.
    label_zyx = label[:, ::-1, :].transpose(2, 1, 0)
    for value, count, median in ((5, 366_708, 93), (1, 130_634, 80), (52, 11_723, 151)):
        inside = label_zyx == value
        assert int(inside.sum()) == count
        assert np.median(volume.voxels[inside]) == median


def boxes(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Annotated boxes by SOP instance: x low, x high, y low, y high."""
    found = {}
    for path in folder.glob("*.xml"):
        box = ElementTree.parse(path).getroot().find("object/bndbox")
        assert box is not None
        found[path.stem] = tuple(
            int(float(box.findtext(name) or "nan")) for name in ("xmin", "xmax", "ymin", "ymax")
        )
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("patient", "series", "count", "left"),
    [("A0001", "series3_B_j2k", 9, True), ("A0002", "series3_B40f_deflated", 10, False)],
)
def test_annotated_lesions_lie_on_the_side_of_the_patient_that_the_index_says(
    patient: str, series: str, count: int, left: bool, real_data: Path, real_scans: Any
) -> None:
    folder = real_data / "dicom" / f"chest_lungpetctdx_{patient}"
    slices, volume = real_scans(real_data, f"chest_lungpetctdx_{patient}/{series}")
    marked = boxes(folder / "annotations")
    back = np.linalg.inv(volume.world_from_voxel)
    body = np.argwhere(volume.voxels[::4, ::8, ::8] > -300).mean(axis=0)[2] * 8  # column
    seen = 0
    for frame in slices.stacked.frames:
        uid = dcmread(frame.file, stop_before_pixels=True).SOPInstanceUID
        if uid not in marked:
            continue
        seen += 1
        x_low, x_high, y_low, y_high = marked[uid]
        assert frame.position_mm is not None
        (k,) = (n for n, f in enumerate(slices.stacked.frames) if f is frame)
        place = slices.world_from_file @ (k, (y_low + y_high) / 2, (x_low + x_high) / 2, 1)
        _, y, x, _ = back @ place
        assert (x > body) == left  # x runs to the patient's left
        centre = volume.voxels[k, round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert np.median(centre) > -500  # tissue, not lung
    assert seen == count


@pytest.mark.parametrize(
    "folder",
    [
        "chest_lungpetctdx_A0002/series3_B40f_deflated",
        "abdomen_totalseg_j2k",
        "chest_3slice_with_seg",
        "head_siemens_tilt_4",
    ],
)
def test_voxels_and_geometry_equal_those_of_simpleitk_where_it_is_right(
    folder: str, real_data: Path
) -> None:
    import SimpleITK

    files = sorted((real_data / "dicom" / folder).iterdir())
    with open_dicom(files, name="s1") as found:
        ours = voxels_of(found)
        ordered = [str(frame.file) for frame in found.stacked.frames]
    image = SimpleITK.ReadImage(ordered)  # its own grouping needs identifiers, not all have them
    theirs = SimpleITK.GetArrayFromImage(image)
    assert (ours == np.maximum(theirs, -1024)).all()
    for index in ((0, 0, 0), (7, 11, 0), (511, 511, 0)):
        expected = image.TransformIndexToPhysicalPoint(index)
        got = found.world_from_file @ (index[2], index[1], index[0], 1)
        assert got[:3] == pytest.approx(expected, abs=1e-3)
    step = np.array(image.TransformIndexToPhysicalPoint((0, 0, 1))) - image.GetOrigin()
    if folder == "head_siemens_tilt_4":
        # SimpleITK steps along the normal; the table moved straight up by 5 mm.
        assert step[1] > 1.0
        assert found.world_from_file[:3, 0] == pytest.approx([0, 0, 5], abs=1e-3)
    else:
        assert found.world_from_file[:3, 0] == pytest.approx(step, abs=1e-3)


def test_a_real_chest_goes_through_regrid_like_its_volume_in_memory(
    real_data: Path, real_scans: Any
) -> None:
    slices, volume = real_scans(real_data, "chest_lungpetctdx_A0002/series3_B40f_deflated")
    preparation = Preparation(name="demo", size_vox=Zyx(z=16, y=64, x=64), filter="area")
    streamed = regrid(slices, preparation)
    held = regrid(HeldSlices(volume), preparation)
    assert (streamed.voxels == held.voxels).all()
    assert streamed.world_from_voxel == pytest.approx(held.world_from_voxel)


def test_a_real_tilted_head_is_turned_upright_once_bridged(real_data: Path) -> None:
    files = (real_data / "dicom" / "head_ge_tilt_uneven_jls").iterdir()
    with open_dicom(files, name="s1", gaps="interpolate") as found:
        assert found.tilt_degrees == pytest.approx(18.5, abs=0.1)
        voxels = voxels_of(found, 8)
    assert voxels.shape == (135, 512, 512)
    assert (voxels.min(), round(float(voxels.max()))) == (-1024, 2104)
    counts, edges = np.histogram(voxels, bins=50, range=(-100, 100))
    assert edges[int(counts.argmax())] == pytest.approx(30, abs=6)  # brain
