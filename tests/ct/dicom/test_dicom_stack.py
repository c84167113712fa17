"""Stacks: order, place in space, and everything uneven found in mm and refused or bridged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_series import PITCH, made_series, made_slice, moved, write
from pydicom import Dataset

from t3d.ct.dicom import DicomSeries, Frame, Stack, list_series, stack
from t3d.ct.dicom.files import Source
from t3d.ct.dicom.stacking import MAX_BRIDGED_MM, TOLERANCE_MM, TOLERANCE_OF_PITCH, lay_out
from t3d.ct.guard import RefusedFile, RefusedGrid

NOWHERE = Source(Path("nowhere"), 0, Dataset())
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def frame(
    position: Any, *, orientation: Any = AXIAL, spacing: tuple[float, float] = (0.5, 0.7)
) -> Frame:
    """A frame without pixels at a place."""
    x, y, z = (float(v) for v in position)
    return Frame(
        source=NOWHERE,
        index=0,
        rows=6,
        columns=5,
        pixel_spacing_mm=spacing,
        position_mm=(x, y, z),
        orientation=tuple(float(v) for v in orientation),
        slope=1.0,
        intercept=-1024.0,
        padding=None,
        instance=None,
        acquisition=None,
        temporal=None,
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        kernel="",
    )


def series_of(*frames: Frame) -> DicomSeries:
    """A series of frames."""
    return DicomSeries(
        patient_id="",
        study_uid="",
        series_uid="",
        accession="",
        description="",
        series_number=3,
        kernel="",
        manufacturer="",
        modality="CT",
        sop_class="",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        contrast=False,
        phase="",
        damage="",
        damage_reason="",
        frames=frames,
    )


def at_z(*places: float) -> DicomSeries:
    """Axial frames at these heights."""
    return series_of(*(frame((0, 0, z)) for z in places))


def written(folder: Path, slices: list[Dataset]) -> DicomSeries:
    (series,) = list_series(write(folder, slices)).series
    return series


# ---- order and place -----------------------------------------------------------------------


def test_slices_run_along_the_normal_whatever_order_they_came_in() -> None:
    made = stack(at_z(4, 0, 6, 2))
    assert [f.position_mm[2] for f in made.frames if f.position_mm] == [0, 2, 4, 6]
    assert made.offsets_mm == (0, 2, 4, 6)
    assert (made.num_slices, made.pitch_mm, made.findings, made.steps) == (4, 2.0, (), ())


def test_the_matrix_of_an_axial_stack_can_be_checked_by_hand() -> None:
    # Origin (-10, -20, 30), 2 mm between slices, 0.5 between rows, 0.7 between columns.
    made = stack(series_of(*(frame((-10, -20, 30 + 2 * k)) for k in range(3))))
    assert made.world_from_file.tolist() == [
        [0.0, 0.0, 0.7, -10.0],
        [0.0, 0.5, 0.0, -20.0],
        [2.0, 0.0, 0.0, 30.0],
        [0.0, 0.0, 0.0, 1.0],
    ]


def turned(angles: tuple[float, float, float]) -> np.ndarray[Any, Any]:
    """A rotation by three angles in degrees."""
    matrix = np.eye(3)
    for axis, degrees in enumerate(angles):
        a, b = (i for i in range(3) if i != axis)
        one = np.eye(3)
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one[a, a] = one[b, b] = cosine
        one[a, b], one[b, a] = -sine, sine
        matrix = matrix @ one
    return matrix


@given(
    angles=st.tuples(*(st.floats(-180, 180) for _ in range(3))),
    pitch=st.floats(0.3, 9.0),
    spacing=st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0)),
    lean=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    order=st.permutations(range(7)),
)
def test_every_pixel_lies_where_the_standard_puts_it(
    angles: Any, pitch: float, spacing: Any, lean: Any, order: list[int]
) -> None:
    row, column, normal = turned(angles).T
    way = pitch * (normal + lean[0] * row + lean[1] * column)  # sheared, as a tilted gantry's
    first = np.array([3.0, -40.0, 25.0])
    frames = [frame(first + k * way, orientation=(*row, *column), spacing=spacing) for k in order]
    made = stack(series_of(*frames))
    assert made.pitch_mm == pytest.approx(pitch)
    for k, one in enumerate(made.frames):
        assert one.position_mm is not None
        for j in (0, 3, 5):
            for i in (0, 1, 4):
                # PS3.3 C.7.6.2.1.1, written out.
                expected = [
                    one.position_mm[w] + column[w] * spacing[0] * j + row[w] * spacing[1] * i
                    for w in range(3)
                ]
                got = made.world_from_file @ (k, j, i, 1)
                np.testing.assert_allclose(got[:3], expected, atol=1e-6)


# ---- uneven slices -------------------------------------------------------------------------


def test_a_missing_slice_is_refused_with_the_gaps_in_mm() -> None:
    places = [1.5 * k for k in range(60) if k != 57]
    with pytest.raises(RefusedGrid) as refusal:
        stack(at_z(*places), name="s0042")
    assert refusal.value.reason == "uneven_slices"
    assert refusal.value.found == (
        "s0042: slice gaps are uneven: 57 x 1.50 mm, 1 x 3.00 mm (after slice 57), 1 missing"
    )
    assert "--gaps=interpolate" in refusal.value.fix


def test_uneven_gaps_that_are_no_missing_slices_are_told_apart() -> None:
    (missing,) = lay_out(at_z(0, 5, 10, 20).frames).findings
    assert (missing.code, missing.mm) == ("missing", 10.0)
    (uneven,) = lay_out(at_z(0, 5, 10, 17).frames).findings
    assert (uneven.code, uneven.mm) == ("uneven", 7.0)


@pytest.mark.parametrize("pitch", [0.5, 1.0, 8.0])
def test_slices_may_lie_off_the_even_grid_by_the_tolerance_and_no_more(pitch: float) -> None:
    allowed = TOLERANCE_MM + TOLERANCE_OF_PITCH * pitch
    places = [pitch * k for k in range(9)]
    places[4] += 0.99 * allowed
    assert stack(at_z(*places)).findings == ()
    places[4] += 0.02 * allowed
    with pytest.raises(RefusedGrid, match="uneven"):
        stack(at_z(*places))


def test_a_slow_drift_of_the_pitch_is_uneven_though_each_gap_is_near_the_next() -> None:
    gaps = [1.0 + 0.005 * k for k in range(40)]
    with pytest.raises(RefusedGrid, match="uneven"):
        stack(at_z(*np.cumsum([0.0, *gaps])))


def test_interpolation_goes_to_the_finest_pitch_and_says_so() -> None:
    made = stack(at_z(0, 2, 4, 8), gaps="interpolate")
    assert (made.num_slices, made.pitch_mm, made.interpolated) == (5, 2.0, True)
    assert made.steps == (
        "slice gaps are uneven: 2 x 2.00 mm, 1 x 4.00 mm (after slice 3), 1 missing; "
        "interpolated linearly to 5 slices, 2 mm",
    )
    made = stack(at_z(0, 2, 4, 7), gaps="interpolate")  # 7 mm in steps of at most 2
    assert (made.num_slices, made.pitch_mm) == (5, 1.75)


@pytest.mark.parametrize(
    "places",
    [
        (0, 5, 10, 10 + MAX_BRIDGED_MM + 1),  # too wide to be filled
        (0, 5, 10, 10.1),  # too fine to be a pitch
    ],
)
def test_what_cannot_be_bridged_is_refused_even_if_asked_to(places: Any) -> None:
    with pytest.raises(RefusedGrid, match=r"finest .* widest") as refusal:
        stack(at_z(*places), gaps="interpolate")
    assert refusal.value.reason == "uneven_slices"


def test_bridging_stops_before_it_makes_more_voxels_than_a_volume_may_have() -> None:
    frames = [replace(f, rows=4096, columns=4096) for f in at_z(0, 0.3, 20, 40).frames]
    with pytest.raises(RefusedGrid, match="135 slices if interpolated"):
        stack(series_of(*frames), gaps="interpolate")


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(RefusedGrid, match="gaps='average'"):
        stack(at_z(0, 1, 2), gaps="average")


# ---- repeated positions --------------------------------------------------------------------


def test_equal_slices_at_one_position_are_one_slice(tmp_path: Path) -> None:
    extra = made_slice(4, SOPInstanceUID="1.2.3")
    made = stack(written(tmp_path, [*made_series(10), extra]))
    assert made.num_slices == 10
    assert made.steps == ("dropped 1 more slice(s) at 1 position(s) already taken, HU equal",)


def test_slices_are_compared_in_hu_not_in_stored_values(tmp_path: Path) -> None:
    stored = np.frombuffer(made_slice(4).PixelData, np.uint16) + 24
    extra = made_slice(4, RescaleIntercept=-1048, PixelData=stored.astype("<u2").tobytes())
    assert stack(written(tmp_path, [*made_series(10), extra])).num_slices == 10


def test_different_slices_at_one_position_are_refused_with_the_difference(tmp_path: Path) -> None:
    extra = made_slice(4, PixelData=made_slice(5).PixelData)  # 100 HU more in every pixel
    with pytest.raises(RefusedGrid, match=r"gap 0\.00 mm.* differ by up to 100 HU") as refusal:
        stack(written(tmp_path, [*made_series(10), extra]), name="s1")
    assert refusal.value.reason == "duplicate_slices"


def test_a_repeated_slice_whose_pixels_are_damaged_is_refused(tmp_path: Path) -> None:
    extra = made_slice(4, PixelData=b"\0\0")
    with pytest.raises(RefusedFile, match="s1: slice 5"):
        stack(written(tmp_path, [*made_series(10), extra]), name="s1")


def test_one_position_is_no_stack(tmp_path: Path) -> None:
    with pytest.raises(RefusedGrid, match=r"gap 0\.00 mm") as refusal:
        stack(written(tmp_path, [made_slice(0), made_slice(0)]))
    assert refusal.value.reason == "too_small"


# ---- tilt and drift ------------------------------------------------------------------------


def test_a_gantry_tilt_becomes_shear_and_is_told_in_degrees_and_mm() -> None:
    cosine, sine = np.cos(np.radians(15)), np.sin(np.radians(15))
    tilted = (1, 0, 0, 0, cosine, -sine)
    made = stack(series_of(*(frame((0, 0, 8 * k), orientation=tilted) for k in range(10))))
    (finding,) = made.findings
    # Along the normal a slice is 8 cos 15 = 7.727 mm from the next; 72 mm of table lean 18.6 mm.
    assert made.pitch_mm == pytest.approx(8 * cosine)
    assert finding.code == "tilt"
    assert finding.mm == pytest.approx(72 * sine)
    assert made.steps == ("gantry tilt of 15.0 degrees (18.6 mm over the stack) kept as shear",)
    assert made.world_from_file[:3, 0] == pytest.approx([0, 0, 8])  # not along the normal


def test_a_drift_in_the_image_plane_becomes_shear_too() -> None:
    made = stack(series_of(*(frame((2 * k, 0, 8 * k)) for k in range(10))))
    (finding,) = made.findings
    assert (finding.code, finding.mm) == ("drift", pytest.approx(18.0))
    assert made.world_from_file[:3, 0] == pytest.approx([2, 0, 8])


@pytest.mark.parametrize("gaps", ["refuse", "interpolate"])
def test_slices_beside_the_line_are_refused_under_every_policy(gaps: str) -> None:
    frames = [frame((1.0 if k == 4 else 0.0, 0, 2 * k)) for k in range(10)]
    with pytest.raises(RefusedGrid, match=r"up to 1\.00 mm beside the line"):
        stack(series_of(*frames), gaps=gaps)


def test_a_tilted_stack_with_uneven_gaps_can_be_bridged(tmp_path: Path) -> None:
    tilted = (1, 0, 0, 0, 0.8, -0.6)
    frames = [frame((0, 0, z), orientation=tilted) for z in (0, 5, 10, 20)]
    made = stack(series_of(*frames), gaps="interpolate")
    assert [finding.code for finding in made.findings] == ["missing", "tilt"]
    assert made.world_from_file[:3, 0] == pytest.approx([0, 0, 5])


def test_the_damage_of_a_series_is_refused_under_its_own_reason(tmp_path: Path) -> None:
    def lost(dataset: Dataset, k: int) -> None:
        if k == 3:
            del dataset.ImagePositionPatient

    series = written(tmp_path, made_series(10, change=lost))
    with pytest.raises(RefusedGrid, match="missing in 1 of 10 slices") as refusal:
        stack(series)
    assert refusal.value.reason == "bad_affine"


# ---- real series ---------------------------------------------------------------------------


def real(real_data: Path, folder: str) -> DicomSeries:
    (series,) = list_series((real_data / "dicom" / folder).iterdir()).series
    return series


@pytest.mark.parametrize(
    ("folder", "reason", "figures"),
    [
        (
            "head_ge_tilt_uneven_jls",
            "uneven_slices",
            "13 x 4.00 mm, 13 x 7.00 mm, 1 x 1.08 mm (after slice 14)",
        ),
        ("missing_slice_ge_4", "uneven_slices", "2 x 5.00 mm, 1 x 10.00 mm (after slice 3)"),
        ("same_position_2", "duplicate_slices", "2 slices at one position (gap 0.00 mm) differ"),
    ],
)
def test_real_broken_series_are_refused_with_their_figures(
    folder: str, reason: str, figures: str, real_data: Path
) -> None:
    with pytest.raises(RefusedGrid) as refusal:
        stack(real(real_data, folder))
    assert refusal.value.reason == reason
    assert figures in refusal.value.found


def test_the_real_uneven_head_can_be_bridged_on_request(real_data: Path) -> None:
    made: Stack = stack(real(real_data, "head_ge_tilt_uneven_jls"), gaps="interpolate")
    assert [finding.code for finding in made.findings] == ["uneven", "tilt"]
    assert "gantry tilt of 18.5 degrees" in made.steps[1]
    # z steps 4.22, 1.14 and 7.38 of the index, bridged at the finest.
    assert made.world_from_file[2, 0] == pytest.approx(1.14, abs=0.01)
    assert len(made.frames) == 28


def test_the_real_scrubbed_head_leans_by_14_degrees_without_a_header_field(
    real_data: Path,
) -> None:
    made = stack(real(real_data, "head_siemens_tilt_4"))
    assert made.pitch_mm == pytest.approx(4.851, abs=0.001)
    assert made.world_from_file[2, 0] == pytest.approx(5.0)
    assert "gantry tilt of 14.0 degrees" in made.steps[0]


def test_positions_written_with_noise_keep_their_mean_pitch(tmp_path: Path) -> None:
    def jitter(dataset: Dataset, k: int) -> None:
        moved(dataset, z=0.004 * (-1) ** k)

    made = stack(written(tmp_path, made_series(10, change=jitter)))
    assert made.pitch_mm == pytest.approx(PITCH, abs=0.001)
