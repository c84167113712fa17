"""The doctor of one scan: every symptom planted, none on intact scans, one pass that is exact."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct.doctor import Examination, _fingerprint, _histogram, _jumps, examine
from t3d.ct.door import open_scan
from t3d.ct.geometry import Matrix, letters, nearest_axes
from t3d.ct.intensity import Rescale
from t3d.ct.preparations import named_preparation
from t3d.ct.regrid import regrid
from t3d.ct.survey import survey
from t3d.phantom.canvas import AIRWAY, LEFT_LUNG, RIGHT_LUNG
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO, STANDARD
from t3d.types import Volume

INTACT = tuple(range(6))
Voxels = NDArray[np.int16]


@cache
def chest(seed: int = 5) -> Volume:
    """An intact phantom chest."""
    return patient(seed, preset=STANDARD if seed % 2 else DEMO).volume


def changed(voxels: NDArray[Any], world: Matrix | None = None) -> Volume:
    """The phantom with other voxels or another affine."""
    matrix = chest().world_from_voxel if world is None else world
    return Volume(
        volume_id="c",
        voxels=np.ascontiguousarray(voxels, dtype=np.int16),
        world_from_voxel=matrix,
    )


def codes(found: Examination, *severities: str) -> set[str]:
    """Codes of some severities; without any, of all."""
    return {f.code for f in found.findings if not severities or f.severity in severities}


# ---- symptoms ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", INTACT)
def test_an_intact_phantom_has_neither_errors_nor_warnings(seed: int) -> None:
    assert codes(examine(chest(seed)), "error", "warning") == set()


def edited(change: Callable[[Voxels], Any]) -> Volume:
    """The phantom after a change in place."""
    voxels = chest().voxels.copy()
    change(voxels)
    return changed(voxels)


def scaled(z: float = 1.0, y: float = 1.0, x: float = 1.0) -> Volume:
    """The phantom with a wrong spacing."""
    return changed(chest().voxels, chest().world_from_voxel @ np.diag([z, y, x, 1.0]))


def empty_slices(v: Voxels) -> None:
    v[20:23] = -1024


def zero_box(v: Voxels) -> None:
    v[20:30, 30:60, 30:60] = 0


def dark_box(v: Voxels) -> None:
    v[20:30, 30:60, 30:60] = -1024


def written_twice(v: Voxels) -> None:
    v[26:30] = v[22:26]


def coronal() -> Volume:
    """Two slices of a coronal scout, stacked along y."""
    return changed(chest().voxels.transpose(1, 0, 2)[48:50], turned_to_coronal())


def turned_to_coronal() -> Matrix:
    """An affine whose slowest axis is posterior."""
    return chest().world_from_voxel[:, [1, 0, 2, 3]]


PLANTED: dict[str, tuple[str, str, Callable[[], Volume]]] = {
    "slices of one value": ("empty_slices", "error", lambda: edited(empty_slices)),
    "a box of zeros": ("zero_filled", "error", lambda: edited(zero_box)),
    "a box of padding": ("zero_filled", "error", lambda: edited(dark_box)),
    "slices written twice": ("duplicate_slices", "error", lambda: edited(written_twice)),
    "slices lost": (
        "content_jump", "warning",
        lambda: changed(np.delete(chest().voxels, slice(25, 29), axis=0)),
    ),
    "sorted by name, not number": (
        "content_jump", "warning",
        lambda: changed(chest().voxels[sorted(range(len(chest().voxels)), key=str)]),
    ),
    "shifted twice": ("rescaled_twice", "error", lambda: changed(chest().voxels - 1024)),
    "never shifted": ("never_rescaled", "error", lambda: changed(chest().voxels + 1024)),
    "one value": ("constant", "error", lambda: changed(np.zeros((40, 60, 60)))),
    "head and foot turned": (
        "head_foot_flipped", "error", lambda: changed(chest().voxels[::-1])
    ),
    "front and back turned": (
        "front_back_flipped", "error", lambda: changed(chest().voxels[:, ::-1])
    ),
    "left and right turned": (
        "left_right_flipped", "error", lambda: changed(chest().voxels[..., ::-1])
    ),
    "z twice too long": ("spacing_implausible", "error", lambda: scaled(z=2.2)),
    "z too short": ("spacing_implausible", "warning", lambda: scaled(z=0.4)),
    "half of everything": ("spacing_implausible", "error", lambda: scaled(0.45, 0.45, 0.45)),
    "metres": ("spacing_out_of_range", "error", lambda: scaled(1e-3, 1e-3, 1e-3)),
    "five slices": ("too_few_slices", "error", lambda: changed(chest().voxels[20:25])),
    "a short stack": ("z_extent", "warning", lambda: changed(chest().voxels[20:32])),
    "no lungs": ("no_chest", "warning", lambda: edited(fill_lungs)),
    "a rod": ("no_body", "warning", lambda: changed(rod())),
    "arms and sides cut": ("truncated", "note", lambda: changed(chest().voxels[..., 22:-22])),
}  # fmt: skip


def fill_lungs(v: Voxels) -> None:
    """Fluid wherever the body holds air."""
    organ = patient(5, preset=STANDARD).organ
    air = ((organ == RIGHT_LUNG) | (organ == LEFT_LUNG) | (organ == AIRWAY)) & (v < 0)
    v[air] = np.random.default_rng(0).normal(20, 15, int(air.sum()))


def rod() -> Voxels:
    """Air, and a rod of 9 cm2 in it."""
    voxels = np.random.default_rng(0).normal(-1000, 20, (40, 60, 60))
    voxels[:, 20:28, 20:28] = np.random.default_rng(1).normal(40, 20, (40, 8, 8))
    return voxels.astype(np.int16)


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_fault_is_found_with_its_severity(case: str) -> None:
    code, severity, make = PLANTED[case]
    found = [f for f in examine(make()).findings if f.code == code]
    assert [f.severity for f in found] == [severity]
    assert found[0].found
    assert found[0].evidence


def test_a_scout_is_a_thin_stack_that_is_not_axial() -> None:
    world = turned_to_coronal()
    orientation, _ = nearest_axes(world)
    assert letters(orientation) == "LSP"
    voxels = chest().voxels.transpose(1, 0, 2)[48:50]
    assert "scout" in codes(examine(InFileOrder(voxels, world)), "error")


def test_a_patient_on_the_belly_is_a_note_and_no_flip() -> None:
    seed = next(n for n in range(1, 40, 2) if patient(n, preset=STANDARD).facts["table"] == "no")
    voxels = chest(seed).voxels.copy()
    voxels[:, 2:4, 20:-20] = -200  # a table before the belly
    found = examine(changed(voxels, chest(seed).world_from_voxel))
    assert codes(found) == {"prone"}
    assert found.facts["table"] == "front"


def test_not_a_number_is_counted() -> None:
    voxels = chest().voxels.astype(np.float32)
    voxels[3, 4, 5:9] = np.nan
    (found,) = (
        f
        for f in examine(InFileOrder(voxels, chest().world_from_voxel)).findings
        if f.code == "not_a_number"
    )
    assert found.found == "4 voxels are not a number"


def test_messages_number_slices_as_they_stand_in_the_file() -> None:
    found = {f.code: f for f in examine(edited(empty_slices)).findings}
    assert found["empty_slices"].found == f"3 of {len(chest().voxels)} slices hold one value: 20-22"
    found = {f.code: f for f in examine(edited(written_twice)).findings}
    assert found["duplicate_slices"].found == "4 slices repeat an earlier one: 26-29"


def test_findings_are_ordered_by_severity() -> None:
    found = examine(changed(chest().voxels[20:25, :, 22:-22]))
    ranks = [("error", "warning", "note").index(f.severity) for f in found.findings]
    assert len(ranks) >= 3
    assert ranks == sorted(ranks)
    assert found.severity == "error"


def test_a_jump_is_a_step_far_beyond_its_neighbours() -> None:
    steps = np.array([10.0, 11, 10, 9, 30, 10, 11, 10])
    assert _jumps(steps) == [(4, pytest.approx(30 / 11))]
    steps[4] = 17  # 1.55 times the larger neighbour
    assert _jumps(steps) == []
    assert _jumps(np.array([10.0, 0, 30, 0, 10, 10, 10])) == []  # beside repeated slices
    assert _jumps(np.array([30.0, 10, 10, 10, 10, 10, 30])) == []  # at the ends


# ---- one pass ------------------------------------------------------------------------------


class InFileOrder:
    """Slices in any file order, as a door gives them."""

    def __init__(self, stored: NDArray[Any], world: Matrix, rescale: Rescale | None = None) -> None:
        self.name = "f"
        k, j, i = stored.shape
        self.shape_kji = (k, j, i)
        self.world_from_file = world
        self.orientation, self.tilt_degrees = nearest_axes(world)
        self.rescale = rescale or Rescale()
        self.instances: tuple[tuple[int, float], ...] = ()
        self.steps = ("made by a test",)
        self._stored = stored

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        for first in range(0, self.shape_kji[0], num_slices):
            yield first, self._stored[first : first + num_slices].copy()


def slow_means(hu: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[np.float64]:
    """Means of blocks by plain loops."""
    shape = [n // f for n, f in zip(hu.shape, factors, strict=True)]
    out = np.zeros(shape)
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                total = 0.0
                for a in range(factors[0]):
                    for b in range(factors[1]):
                        for c in range(factors[2]):
                            total += hu[z * factors[0] + a, y * factors[1] + b, x * factors[2] + c]
                out[z, y, x] = total / np.prod(factors)
    return out


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.9), (5.0, 1.5, 0.4)])
def test_cells_equal_block_means_and_lie_where_their_voxels_lie(
    spacing: tuple[float, float, float],
) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (11, 13, 17)).astype(np.int16)
    world = np.zeros((4, 4))
    world[2, 0], world[1, 1], world[0, 2] = spacing
    world[:, 3] = 10, 20, 30, 1
    seen = survey(changed(hu, world))
    z, y, x = (max(1, int(3.0 / s + 1e-6)) for s in spacing)
    assert np.abs(seen.cells.voxels - slow_means(hu, (z, y, x))).max() <= 0.5
    middle = (world @ [(z - 1) / 2, (y - 1) / 2, (x - 1) / 2, 1])[:3]
    assert seen.cells.world_from_voxel[:3, 3] == pytest.approx(middle)
    assert seen.range_hu == (hu[:, : 13 // y * y, : 17 // x * x][: 11 // z * z].min(),
                             hu[:, : 13 // y * y, : 17 // x * x][: 11 // z * z].max())  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "flips"), [((0, 1, 2), (-1, 1, -1)), ((1, 0, 2), (1, 1, 1)), ((2, 1, 0), (-1, -1, 1))]
)
def test_what_is_found_does_not_depend_on_the_order_of_the_file(
    axes: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    volume = chest()
    shape = np.array(volume.voxels.shape)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for column, axis in enumerate(axes):
        turn[axis, column] = flips[column]
        turn[axis, 3] += 0 if flips[column] > 0 else shape[axis] - 1
    stored = volume.voxels.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
    found = examine(InFileOrder(np.ascontiguousarray(stored), volume.world_from_voxel @ turn))
    assert codes(found, "error", "warning") == set()
    plain = examine(volume)
    for name in ("head-foot", "front-back", "left-right", "size", "spacing"):
        assert found.facts[name].split(" (")[0] == plain.facts[name].split(" (")[0]


def test_slope_and_intercept_are_applied_once() -> None:
    stored = (chest().voxels.clip(-1024, 3000) + 1024).astype(np.uint16)
    found = examine(InFileOrder(stored, chest().world_from_voxel, Rescale(1.0, -1024.0)))
    assert codes(found, "error", "warning") == set()


def test_memory_does_not_grow_with_the_scan() -> None:
    class Endless(InFileOrder):
        """400 slices of 512 x 512 made while they are asked for; whole they take 210 MB."""

        def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
            plane = np.random.default_rng(0).integers(-1000, 400, (512, 512)).astype(np.int16)
            for first in range(0, 400, num_slices):
                count = min(num_slices, 400 - first)
                yield first, np.stack([np.roll(plane, first + n, axis=1) for n in range(count)])

    world = np.diag([0.8, 0.8, 0.8, 1.0])[[2, 1, 0, 3]]
    source = Endless(np.broadcast_to(np.int16(0), (400, 512, 512)), world)
    tracemalloc.start()
    seen = survey(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.cells.voxels.shape == (133, 170, 170)
    assert peak < 100e6


# ---- pictures and fingerprints -------------------------------------------------------------


def test_the_histogram_counts_by_hand() -> None:
    counts = _histogram(np.array([-3000.0, -1104, -1089, -1088, 0, 1503, 4000, np.nan]))
    # bins of 16 HU from -1104: 0 -> bin 69, 1503 and beyond -> the last
    assert (counts[0], counts[1], counts[69], counts[-1]) == (3, 1, 1, 2)
    assert sum(counts) == 7


def test_a_fingerprint_of_boxes_is_their_means_without_the_mean() -> None:
    boxes = np.random.default_rng(0).integers(-900, 100, (8, 8, 8)).astype(np.int16)
    hu = boxes.repeat(2, axis=0).repeat(3, axis=1).repeat(1, axis=2)
    world = np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]]
    print_ = np.frombuffer(_fingerprint(changed(hu, world)), dtype=np.float16)
    plain = boxes.astype(float).ravel() - boxes.mean()
    assert print_ == pytest.approx(plain / np.sqrt((plain**2).sum()), abs=1e-3)


def likeness(a: Volume, b: Volume) -> float:
    one, other = (np.frombuffer(examine(v).fingerprint, dtype=np.float16) for v in (a, b))
    return float(one.astype(float) @ other.astype(float))


def test_a_copy_on_another_grid_has_nearly_the_same_fingerprint_and_a_patient_has_not() -> None:
    for name in ("demo", "phantom"):
        assert likeness(chest(), regrid(chest(), named_preparation(name))) > 0.9985
    assert max(likeness(chest(), chest(seed)) for seed in (1, 3, 7)) < 0.9985


def test_content_is_equal_for_equal_voxels_whatever_the_header_says() -> None:
    assert examine(chest()).content == examine(scaled(z=1.1)).content
    assert examine(chest()).content != examine(edited(zero_box)).content


# ---- real scans ----------------------------------------------------------------------------

EXPECTED = {  # errors and warnings
    "dicom/chest_lungpetctdx_A0002/series3_B40f_deflated": set(),
    "dicom/abdomen_totalseg_j2k": {"no_chest", "z_extent"},
    "dicom/chest_3slice_with_seg": {"too_few_slices", "z_extent"},
    "nifti/ct/torso_3mm_int32.nii.gz": {"no_chest"},
    "nifti/ct/abdomen_3mm_int16.nii.gz": {"no_chest", "z_extent"},
    "nifti/ct/aorta_1p5mm_LPS.nii.gz": set(),
    "nifti/ct/torso_3mm_label.nii.gz": {"label_map"},
    "nifti/ct/aorta_1p5mm_label_empty.nii.gz": {"constant"},
    "nrrd/CTChest4.nrrd": set(),
}
SLOW = pytest.param(  # 64 slices of JPEG 2000
    "dicom/chest_lungpetctdx_A0001/series3_B_j2k", set(), marks=pytest.mark.slow
)


@pytest.mark.real
@pytest.mark.parametrize(("name", "expected"), [*EXPECTED.items(), SLOW])
def test_a_real_scan_has_the_symptoms_it_has_and_no_others(
    real_data: Path, name: str, expected: set[str]
) -> None:
    for folder, package in (("dicom", "pydicom"), ("nrrd", "SimpleITK")):
        if name.startswith(folder):
            pytest.importorskip(package)
    with open_scan((real_data / name,), name="s") as slices:
        found = examine(slices)
    assert codes(found, "error", "warning") == expected


@pytest.mark.real
@pytest.mark.parametrize("name", ["torso_3mm_int32", "abdomen_3mm_int16", "aorta_1p5mm_LPS"])
def test_lost_slices_of_a_real_scan_are_seen(real_data: Path, name: str) -> None:
    with open_scan((real_data / "nifti" / "ct" / f"{name}.nii.gz",)) as slices:
        voxels = np.concatenate([slab.copy() for _, slab in slices.slabs(8)])
        world = slices.world_from_file
    lost = max(3, round(20 / np.linalg.norm(world[:3, 0])))  # 20 mm, at least three slices
    for share in (0.3, 0.5, 0.7):
        at = int(share * len(voxels))
        found = examine(InFileOrder(np.delete(voxels, slice(at, at + lost), axis=0), world))
        (jump,) = (f for f in found.findings if f.code == "content_jump")
        assert f"after slice {at - 1}" in jump.found
