"""The streamed regridding against a slow twin written from the definition, and landmarks in mm."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct import nifti
from t3d.ct import regrid as module
from t3d.ct.guard import RefusedGrid
from t3d.ct.preparations import PREPARATIONS
from t3d.ct.regrid import plan_grid, regrid, regrid_label, stream
from t3d.ct.slices import HeldSlices
from t3d.errors import GeometryError
from t3d.types import Preparation, Volume, Zyx

PITCH = (2.5, 0.7, 0.9)
SHAPE = (13, 17, 15)
SPACINGS = [None, Zyx(z=4.0, y=1.5, x=0.6)]
SIZES = [None, Zyx(z=8, y=9, x=21)]
FILTERS = ("area", "linear", "triangle", "monai", "ctclip")


def chest(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Asymmetric values over the whole range, with padding far below it."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-1000, 1500, shape).astype(np.int16)
    voxels[:, :2, :3] = -8192
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = PITCH
    matrix[:, 3] = (-55.0, 12.5, 300.25, 1.0)
    return Volume(volume_id="v", voxels=voxels, world_from_voxel=matrix)


# ---------------------------------------------------------------- the slow twin, float64 loops
def twin_mix(values: list[float], source: list[float]) -> list[float]:
    """Linear interpolation of one line, border repeated."""
    out = []
    for s in source:
        s = min(max(s, 0.0), len(values) - 1.0)
        left = math.floor(s)
        right = min(left + 1, len(values) - 1)
        out.append(values[left] * (1 - (s - left)) + values[right] * (s - left))
    return out


def twin_area(values: list[float], m: int, r: float) -> list[float]:
    """Mean over the interval each output voxel covers; linear where it covers less than one."""
    if r <= 1:
        return twin_mix(values, [(j + 0.5) * r - 0.5 for j in range(m)])
    out = []
    for j in range(m):
        total = weight = 0.0
        for k in range(int(j * r), min(math.ceil((j + 1) * r), len(values))):
            part = min((j + 1) * r, k + 1.0) - max(j * r, float(k))
            total += part * values[k]
            weight += part
        out.append(total / weight if weight else values[-1])
    return out


def twin_triangle(values: list[float], m: int, r: float) -> list[float]:
    """A triangle as wide as two output voxels, or as two input voxels where those are larger."""
    out = []
    for j in range(m):
        centre, reach = (j + 0.5) * r - 0.5, max(r, 1.0)
        weights = [max(0.0, 1.0 - abs(k - centre) / reach) for k in range(len(values))]
        total = sum(w * v for w, v in zip(weights, values, strict=True))
        out.append(total / sum(weights))
    return out


def twin_half(values: list[float], m: int, r: float, kind: str) -> list[float]:
    """One resampling with agreeing outer edges."""
    if kind == "area":
        return twin_area(values, m, r)
    if kind == "triangle":
        return twin_triangle(values, m, r)
    return twin_mix(values, [(j + 0.5) * r - 0.5 for j in range(m)])


def twin_line(values: list[float], axis: int, preparation: Preparation) -> list[float]:
    """One line through spacing step, then resize or crop and pad."""
    backwards = preparation.filter == "monai" and axis > 0
    line = values[::-1] if backwards else list(values)
    if preparation.spacing_mm is not None:
        r = preparation.spacing_mm[axis] / PITCH[axis]
        if preparation.filter == "monai":
            line = twin_mix(line, [j * r for j in range(round((len(line) - 1) / r + 1))])
        elif preparation.filter == "ctclip":
            m = int(len(line) / r)
            line = twin_half(line, m, len(line) / m, "linear")
        else:
            line = twin_half(line, max(1, round(len(line) / r)), r, preparation.filter)
    if preparation.size_vox is not None:
        size, n = preparation.size_vox[axis], len(line)
        if preparation.fit == "resize":
            line = twin_half(line, size, n / size, preparation.filter)
        elif n > size:
            start = n // 2 - size // 2 if preparation.filter == "monai" else (n - size) // 2
            line = line[start : start + size]
        else:
            air = float(preparation.store_clip_hu[0])
            before = (size - n) // 2
            line = [air] * before + line + [air] * (size - n - before)
    return line[::-1] if backwards else line


def twin(volume: Volume, preparation: Preparation) -> NDArray[np.float64]:
    """Axis after axis, every line a plain list. (Padding last: it commutes with the others.)"""
    low, high = preparation.store_clip_hu
    out = np.clip(volume.voxels.astype(np.float64), low, high)
    for axis in range(3):
        out = np.apply_along_axis(
            lambda line, a=axis: np.array(twin_line(line.tolist(), a, preparation)), axis, out
        )
    return out


def preparations() -> list[Preparation]:
    """Each filter with each fit, spacing and size."""
    return [
        Preparation(name="p", spacing_mm=spacing, size_vox=size, fit=fit, filter=kind)
        for kind, fit, spacing, size in itertools.product(
            FILTERS, ("resize", "pad_crop"), SPACINGS, SIZES
        )
    ]


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_each_filter_and_fit_equals_its_slow_twin(preparation: Preparation) -> None:
    volume = chest()
    found = regrid(volume, preparation)
    slow = twin(volume, preparation)
    assert found.voxels.shape == slow.shape
    assert found.voxels.dtype == np.int16
    assert np.abs(found.voxels - slow).max() <= 0.5 + 0.01  # rounded once, float32 inside


@pytest.mark.parametrize("order", ["RAS", "LPS", "AIL", "SRP", "PSL", "IAR"])
@pytest.mark.parametrize("kind", FILTERS)
def test_a_file_in_any_storage_order_gives_the_same_volume(
    tmp_path: Path, order: str, kind: str
) -> None:
    volume = chest()
    nifti.write(tmp_path / "lps.nii.gz", volume.voxels, volume.world_from_voxel)
    image = nib.load(tmp_path / "lps.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(order)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "other.nii.gz")
    preparation = Preparation(
        name="p", spacing_mm=SPACINGS[1], size_vox=SIZES[1], fit="pad_crop", filter=kind
    )
    expected = regrid(volume, preparation)
    found = regrid(tmp_path / "other.nii.gz", preparation)
    assert np.abs(found.voxels.astype(int) - expected.voxels).max() <= 1  # order of sums
    assert found.world_from_voxel == pytest.approx(expected.world_from_voxel, abs=1e-3)


@pytest.mark.parametrize("slab_vox", [1, 700, 1 << 20])
def test_the_size_of_a_slab_changes_nothing(monkeypatch: pytest.MonkeyPatch, slab_vox: int) -> None:
    monkeypatch.setattr(module, "_SLAB_VOX", slab_vox)
    volume = chest(3, (40, 17, 15))
    preparation = Preparation(name="p", size_vox=Zyx(z=11, y=9, x=21))
    slow = twin(volume, preparation)
    assert np.abs(regrid(volume, preparation).voxels - slow).max() <= 0.51


def test_an_axis_long_enough_for_blocks_equals_its_slow_twin() -> None:
    volume = chest(4, (3, 150, 140))
    preparation = Preparation(name="p", size_vox=Zyx(z=3, y=40, x=160))
    found = regrid(volume, preparation).voxels
    assert np.abs(found - twin(volume, preparation)).max() <= 0.51


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((6, 32, 40), Zyx(z=6, y=16, x=20)),
        ((6, 32, 40), Zyx(z=3, y=4, x=8)),
        ((6, 33, 40), Zyx(z=6, y=11, x=16)),
        ((6, 32, 40), Zyx(z=6, y=32, x=10)),
    ],
)
def test_means_of_whole_neighbourhoods_equal_their_slow_twin(
    shape: tuple[int, int, int], size: Zyx[int]
) -> None:
    volume = chest(6, shape)
    preparation = Preparation(name="p", size_vox=size)
    assert np.abs(regrid(volume, preparation).voxels - twin(volume, preparation)).max() <= 0.51


@pytest.mark.parametrize("kind", FILTERS)
def test_before_rounding_only_float32_separates_us_from_the_twin(kind: str) -> None:
    volume = chest(7)
    preparation = Preparation(name="p", spacing_mm=SPACINGS[1], size_vox=SIZES[1], filter=kind)
    plan = plan_grid(SHAPE, volume.world_from_voxel, preparation)
    exact = np.empty(plan.shape, dtype=np.float32)
    stream(HeldSlices(volume), plan, preparation.store_clip_hu, into=exact)
    assert np.abs(exact - twin(volume, preparation)).max() <= 0.002
    assert np.array_equal(regrid(volume, preparation).voxels, np.rint(exact))


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_a_ramp_in_mm_is_still_a_ramp_in_mm(preparation: Preparation) -> None:
    base = chest()
    index = np.indices(SHAPE).reshape(3, -1)
    world = base.world_from_voxel @ np.vstack([index, np.ones(index.shape[1])])
    direction = np.array([7.0, 5.0, 3.0])  # HU per mm along L, P, S
    values = (direction @ (world[:3] - world[:3].mean(axis=1, keepdims=True))).reshape(SHAPE)
    ramp = Volume(
        volume_id="v",
        voxels=np.rint(values).astype(np.int16),
        world_from_voxel=base.world_from_voxel,
    )
    found = regrid(ramp, preparation)
    back = np.linalg.inv(base.world_from_voxel) @ found.world_from_voxel
    where = np.indices(found.voxels.shape).reshape(3, -1)
    source = (back @ np.vstack([where, np.ones(where.shape[1])]))[:3]
    # Well inside: every step of a chain repeats the border for half of its own voxel, and a
    # triangle, cut off there, leans inwards for a whole one.
    reach = 2.1 if preparation.filter == "triangle" else 1.6
    coarse = np.array(
        [reach * max(1.0, preparation.spacing_mm[a] / PITCH[a]) for a in range(3)]
        if preparation.spacing_mm
        else [2.0] * 3
    )
    limit = np.array(SHAPE)[:, None] - 1 - coarse[:, None]
    inside = ((source >= coarse[:, None]) & (source <= limit)).all(axis=0)
    place = found.world_from_voxel @ np.vstack([where, np.ones(where.shape[1])])
    expected = direction @ (place[:3] - world[:3].mean(axis=1, keepdims=True))
    apart = found.voxels.reshape(-1)[inside] - expected[inside]
    assert inside.any()
    # A mean over parts of voxels is off by up to an eighth of a voxel, to both sides alike; a
    # sampled triangle by less.
    off_vox = {"area": 0.125, "triangle": 0.09}.get(preparation.filter, 0.0)
    assert np.abs(apart).max() <= 1.01 + 2 * off_vox * (7.0 * 0.9 + 5.0 * 0.7 + 3.0 * 2.5)
    assert abs(apart.mean()) <= 0.3


def test_nothing_asked_for_is_the_native_grid_clipped() -> None:
    volume = chest()
    found = regrid(volume, Preparation(name="p"))
    assert np.array_equal(found.voxels, np.clip(volume.voxels, -1024, 3071))
    assert np.array_equal(found.world_from_voxel, volume.world_from_voxel)
    assert volume.voxels.min() == -8192  # the input was not changed


def test_padding_cannot_bleed_into_the_body() -> None:
    voxels = np.full((16, 16, 16), -1000, dtype=np.int16)
    voxels[:, :8] = -8192
    volume = Volume(volume_id="v", voxels=voxels, world_from_voxel=np.eye(4)[[2, 1, 0, 3]])
    found = regrid(volume, Preparation(name="p", size_vox=Zyx(z=16, y=5, x=16)))
    assert found.voxels.min() >= -1024
    assert found.voxels[:, 2].min() >= -1024 + 12 - 1  # the mixed row: half -1024, half -1000


def test_padding_is_the_lower_limit_and_mm_are_kept() -> None:
    volume = chest()
    found = regrid(
        volume,
        Preparation(name="p", size_vox=Zyx(z=19, y=17, x=9), fit="pad_crop"),
    )
    assert (found.voxels[:3] == -1024).all()
    assert (found.voxels[-3:] == -1024).all()
    kept = np.clip(volume.voxels[:, :, 3:12], -1024, 3071)
    assert np.array_equal(found.voxels[3:16], kept)
    shift = volume.world_from_voxel @ [-3, 0, 3, 1]
    assert found.world_from_voxel[:, 3] == pytest.approx(shift)


def test_what_was_done_is_told_in_order(tmp_path: Path) -> None:
    volume = chest()
    nifti.write(tmp_path / "v.nii.gz", volume.voxels, volume.world_from_voxel)
    steps = regrid(tmp_path / "v.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 21))).steps
    assert steps == (
        "read NIfTI int16 LPS",
        "clip -1024..3071 HU, area resize 13->8 17->9 15->21 (z y x)",
    )


def test_a_tilted_file_is_turned_first_and_says_so(tmp_path: Path) -> None:
    volume = chest(shape=(20, 20, 20))
    tilted = volume.world_from_voxel.copy()
    tilted[1, 0] = 0.8
    nifti.write(tmp_path / "v.nii.gz", np.clip(volume.voxels, -1000, 1000), tilted)
    found = regrid(tmp_path / "v.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 10)))
    assert "turned upright from 17.7 degrees" in found.steps[1]
    assert found.voxels.shape == (8, 9, 10)
    nifti.write(tmp_path / "m.nii.gz", (volume.voxels > 0).astype(np.uint8), tilted)
    with nifti.open_nifti(tmp_path / "v.nii.gz") as like:
        mask = regrid_label(
            tmp_path / "m.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 10)), like=like
        )
    assert mask.shape == (8, 9, 10)
    assert set(np.unique(mask).tolist()) == {0, 1}


def test_a_volume_off_its_axes_is_an_error() -> None:
    volume = chest()
    tilted = volume.world_from_voxel.copy()
    tilted[1, 0] = 0.8
    turned = Volume(volume_id="v", voxels=volume.voxels, world_from_voxel=tilted)
    with pytest.raises(GeometryError, match="17"):
        regrid(turned, Preparation(name="p"))


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_labels_land_where_the_ct_lands(preparation: Preparation) -> None:
    labels = (np.indices(SHAPE).sum(axis=0) % 5).astype(np.uint8)
    held = Volume(
        volume_id="m", voxels=labels.astype(np.int16), world_from_voxel=chest().world_from_voxel
    )
    found = regrid_label(held, preparation, like=chest())
    target = regrid(chest(), preparation)
    assert found.shape == target.voxels.shape
    assert found.dtype == np.uint8
    back = np.linalg.inv(held.world_from_voxel) @ target.world_from_voxel
    padded = preparation.fit == "pad_crop"
    for z, y, x in np.ndindex(*found.shape):  # slow twin: ask the matrices
        source = (back @ [z, y, x, 1])[:3]
        near = [
            min(max(math.floor(s + 0.5 + 1e-9), 0), n - 1)
            for s, n in zip(source, SHAPE, strict=True)
        ]
        ambiguous = any(abs(s + 0.5 - round(s + 0.5)) < 1e-6 for s in source)
        outside = any(s < -0.5 or s > n - 0.5 for s, n in zip(source, SHAPE, strict=True))
        if ambiguous or (padded and outside):
            continue
        assert found[z, y, x] == labels[tuple(near)]


def test_a_mask_of_another_scan_is_refused(tmp_path: Path) -> None:
    volume = chest()
    labels = np.zeros(SHAPE, dtype=np.uint8)
    shifted = volume.world_from_voxel.copy()
    shifted[2, 3] += 30
    nifti.write(tmp_path / "ct.nii.gz", volume.voxels, volume.world_from_voxel)
    nifti.write(tmp_path / "shifted.nii.gz", labels, shifted)
    nifti.write(tmp_path / "short.nii.gz", labels[:, :-3], volume.world_from_voxel)
    preparation = Preparation(name="p", size_vox=Zyx(8, 9, 10))
    for name in ("shifted", "short"):
        with (
            nifti.open_nifti(tmp_path / "ct.nii.gz") as like,
            pytest.raises(RefusedGrid, match="another grid"),
        ):
            regrid_label(tmp_path / f"{name}.nii.gz", preparation, like=like)
        with pytest.raises(RefusedGrid, match="another grid"):
            regrid_label(tmp_path / f"{name}.nii.gz", preparation, like=volume)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((16, 16, 16), -1000), "constant"),
        (np.indices((16, 16, 16)).sum(axis=0) * 20, "hu_implausible"),
        (np.indices((16, 16, 16)).sum(axis=0) - 1000, "hu_implausible"),
    ],
)
def test_values_that_are_no_ct_are_refused_when_asked(
    values: NDArray[np.int64], reason: str
) -> None:
    volume = Volume(
        volume_id="v", voxels=values.astype(np.int16), world_from_voxel=chest().world_from_voxel
    )
    with pytest.raises(RefusedGrid) as caught:
        regrid(volume, Preparation(name="p"), check=True)
    assert caught.value.reason == reason
    regrid(volume, Preparation(name="p"))


def test_a_crop_without_air_is_a_ct() -> None:
    values = (np.indices((16, 16, 16)).sum(axis=0) * 8 - 110).astype(np.int16)  # fat to bone
    volume = Volume(volume_id="v", voxels=values, world_from_voxel=chest().world_from_voxel)
    assert np.array_equal(regrid(volume, Preparation(name="p"), check=True).voxels, values)


def test_a_grid_that_is_no_ct_is_refused_when_asked() -> None:
    with pytest.raises(RefusedGrid) as caught:
        regrid(chest(shape=(5, 40, 40)), Preparation(name="p"), check=True)
    assert caught.value.reason == "too_small"
    wide = chest()
    wide.world_from_voxel[2, 0] = 12.0
    with pytest.raises(RefusedGrid) as caught:
        regrid(wide, Preparation(name="p"), check=True)
    assert caught.value.reason == "bad_affine"


# ---------------------------------------------------------------- landmarks
LANDMARKS_MM = ((-20.0, -11.0, 22.0), (24.0, 9.0, 8.0), (3.0, 21.0, -24.0))  # L, P, S
MARK_MM = (5.0, 4.0, 4.0)  # standard deviation of a blob along z, y, x
MARKED_SHAPE, MARKED_PITCH = (41, 83, 70), (2.5, 1.1, 1.3)


def blob(place_mm: NDArray[np.float64], mark_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """A smooth bright spot around one point, 0 to 900; places are (L, P, S, ...)."""
    apart = (place_mm - np.array(mark_mm)[:, None]) / np.array(MARK_MM[::-1])[:, None]
    return 900.0 * np.exp(-0.5 * (apart**2).sum(axis=0))


def places_mm(matrix: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """World coordinates of all voxels, (3, N)."""
    index = np.indices(shape).reshape(3, -1)
    return (matrix @ np.vstack([index, np.ones(index.shape[1])]))[:3]


def marked() -> Volume:
    """Three blobs in soft air, at places that no symmetry maps to each other."""
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = MARKED_PITCH
    middle = (np.array(MARKED_SHAPE) - 1) * np.array(MARKED_PITCH) / 2
    matrix[:3, 3] = (2.0 - middle[2], 1.0 - middle[1], -middle[0])
    matrix[3, 3] = 1.0
    where = places_mm(matrix, MARKED_SHAPE)
    values = -950.0 + sum(blob(where, mark) for mark in LANDMARKS_MM)
    voxels = np.rint(values).astype(np.int16).reshape(MARKED_SHAPE)
    return Volume(volume_id="v", voxels=voxels, world_from_voxel=matrix)


def found_marks_mm(volume: Volume) -> list[NDArray[np.float64]]:
    """Centre of mass in a box around each landmark, as the volume's own matrix tells it."""
    matrix = volume.world_from_voxel
    half = 3.0 * np.array(MARK_MM) / np.abs(matrix[[2, 1, 0], [0, 1, 2]])
    told = []
    for mark in LANDMARKS_MM:
        middle = (np.linalg.inv(matrix) @ [*mark, 1.0])[:3]
        low, high = np.ceil(middle - half).astype(int), np.floor(middle + half).astype(int) + 1
        box = volume.voxels[tuple(map(slice, low, high))]
        bright = np.clip(box.reshape(-1) + 950.0, 0.0, None)
        where = places_mm(matrix, box.shape) + (matrix @ [*low, 0])[:3, None]
        told.append((where * bright).sum(axis=1) / bright.sum())
    return told


def modes() -> list[Preparation]:
    """The named preparations, and every filter with every fit on a coarse grid."""
    spacing, size = Zyx(z=3.7, y=2.1, x=1.9), Zyx(z=26, y=44, x=50)
    made = [
        Preparation(
            name=f"{f}-{fit}-{s is not None}", filter=f, fit=fit, spacing_mm=s, size_vox=size
        )
        for f, fit, s in itertools.product(FILTERS, ("resize", "pad_crop"), (None, spacing))
        if fit == "resize" or s is not None
    ]
    return [*PREPARATIONS, *made]


@pytest.mark.parametrize("preparation", modes(), ids=lambda p: p.name)
def test_landmarks_keep_their_place_in_mm(preparation: Preparation) -> None:
    found = regrid(marked(), preparation)
    pitch = np.abs(found.world_from_voxel[:3, :3]).sum(axis=1)  # L, P, S
    for there, mark in zip(found_marks_mm(found), LANDMARKS_MM, strict=True):
        assert (np.abs(there - mark) / pitch).max() <= 0.25  # of an output voxel


# ---------------------------------------------------------------- memory
def test_a_fresh_process_stays_below_100_mb(tmp_path: Path) -> None:
    """Imports, gunzip and the 17 MB of output included."""
    rng = np.random.default_rng(0)
    plane = rng.normal(40, 18, (512, 512)).astype(np.int16)
    plane[:, :200] -= 900
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0, 3], [0, 1, 2, 3]] = (1.0, 0.75, 0.75, 1.0)
    nifti.write(tmp_path / "v.nii.gz", np.broadcast_to(plane, (300, 512, 512)), matrix)
    code = (
        "import sys; from t3d.ct.preparations import named_preparation as named;"
        "from t3d.ct.regrid import regrid; regrid(sys.argv[1], named(sys.argv[2]), check=True);"
        "lines = open('/proc/self/status').read().splitlines();"
        "print(next(int(l.split()[1]) for l in lines if l.startswith('VmHWM')))"
    )
    for name in ("paper", "paper_direct"):
        command = [sys.executable, "-c", code, str(tmp_path / "v.nii.gz"), name]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(told.stdout) / 1024 <= 100, name
