"""The matrices of one axis against plain loops and numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from t3d.ct.weights import (
    FILTERS,
    area_weights,
    check_preparation,
    half_source,
    linear_weights,
    plan_axis,
    triangle_weights,
)
from t3d.errors import GeometryError
from t3d.types import Preparation, Zyx


def slow_linear(source: list[float], n: int) -> list[list[float]]:
    """Linear interpolation, one tap at a time."""
    rows = []
    for s in source:
        s = min(max(s, 0.0), n - 1.0)
        row = [0.0] * n
        left = math.floor(s)
        part = s - left
        row[left] += 1.0 - part
        if part > 0:
            row[left + 1] += part
        rows.append(row)
    return rows


def slow_area(n: int, m: int, r: float) -> list[list[float]]:
    """Overlap of two intervals, one pair at a time."""
    rows = []
    for j in range(m):
        row = []
        for k in range(n):
            low, high = max(j * r, float(k)), min((j + 1) * r, float(k + 1))
            row.append(max(0.0, high - low))
        total = sum(row)
        rows.append([w / total for w in row])
    return rows


def slow_triangle(n: int, m: int, r: float) -> list[list[float]]:
    """One triangle per output, one tap at a time."""
    rows = []
    for j in range(m):
        centre, reach = (j + 0.5) * r - 0.5, max(r, 1.0)
        row = [max(0.0, 1.0 - abs(k - centre) / reach) for k in range(n)]
        rows.append([w / sum(row) for w in row])
    return rows


def test_linear_weights_by_hand() -> None:
    assert linear_weights(np.array([1.25]), 4).tolist() == [[0.0, 0.75, 0.25, 0.0]]


def test_area_weights_by_hand() -> None:
    found = area_weights(3, 2, 1.5)
    assert found == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


def test_triangle_weights_by_hand() -> None:
    assert 7 * triangle_weights(4, 2, 2.0) == pytest.approx(np.array([[3, 3, 1, 0], [0, 1, 3, 3]]))


@given(st.integers(1, 40), st.integers(1, 40))
def test_triangle_weights_equal_their_slow_twin(n: int, m: int) -> None:
    assert triangle_weights(n, m, n / m) == pytest.approx(np.array(slow_triangle(n, m, n / m)))


@given(st.integers(1, 40), st.integers(1, 40))
def test_linear_weights_equal_their_slow_twin(n: int, m: int) -> None:
    source = half_source(m, n / m)
    slow = slow_linear([(j + 0.5) * n / m - 0.5 for j in range(m)], n)
    assert linear_weights(source, n) == pytest.approx(np.array(slow), abs=1e-12)


@given(st.integers(2, 40), st.data())
def test_area_weights_equal_their_slow_twin_when_shrinking(n: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, n - 1))
    assert area_weights(n, m, n / m) == pytest.approx(np.array(slow_area(n, m, n / m)), abs=1e-12)


@given(
    st.integers(1, 60),
    st.floats(0.2, 9.0),
    st.one_of(st.none(), st.floats(0.3, 12.0)),
    st.one_of(st.none(), st.integers(1, 60)),
    st.sampled_from(FILTERS),
    st.sampled_from(["resize", "pad_crop"]),
    st.booleans(),
)
def test_rows_sum_to_one_and_the_plan_fills_its_size(
    n: int,
    pitch: float,
    spacing: float | None,
    size: int | None,
    kind: str,
    fit: str,
    reverse: bool,
) -> None:
    preparation = Preparation(
        name="p",
        spacing_mm=None if spacing is None else Zyx(spacing, spacing, spacing),
        size_vox=None if size is None else Zyx(size, size, size),
        fit=fit,
        filter=kind,
    )
    plan = plan_axis(n, pitch, preparation, 1, reverse=reverse)
    kept = len(plan.weights)
    assert plan.weights.sum(axis=1) == pytest.approx(np.ones(kept), abs=1e-5)
    assert plan.weights.min() >= 0
    assert 0 <= plan.pad_before <= plan.size - kept
    if size is not None:
        assert plan.size == size
    # The affine says the same as the positions the weights were made from.
    told = plan.scale * (np.arange(kept) + plan.pad_before) + plan.offset
    assert np.clip(told, 0, n - 1) == pytest.approx(plan.source, abs=1e-6)


@given(st.integers(4, 60), st.integers(2, 60), st.sampled_from(["area", "linear", "ctclip"]))
def test_a_ramp_keeps_its_place(n: int, m: int, kind: str) -> None:
    preparation = Preparation(name="p", size_vox=Zyx(m, m, m), filter=kind)
    plan = plan_axis(n, 1.0, preparation, 0, reverse=False)
    ramp = plan.weights @ np.arange(n, dtype=np.float32)
    told = plan.scale * np.arange(m) + plan.offset
    inside = (told >= 0) & (told <= n - 1)
    # A mean over parts of voxels is off by up to an eighth of a voxel.
    assert ramp[inside] == pytest.approx(told[inside], abs=0.126 if kind == "area" else 1e-3)


def test_monai_crop_takes_the_later_middle_and_ours_the_earlier() -> None:
    ours = Preparation(name="p", size_vox=Zyx(1, 1, 1), fit="pad_crop")
    theirs = Preparation(name="p", size_vox=Zyx(1, 1, 1), fit="pad_crop", filter="monai")
    assert plan_axis(4, 1.0, ours, 0, reverse=False).weights.tolist() == [[0, 1, 0, 0]]
    assert plan_axis(4, 1.0, theirs, 0, reverse=False).weights.tolist() == [[0, 0, 1, 0]]


def test_ctclip_cuts_the_size_off_and_tells_the_true_spacing() -> None:
    preparation = Preparation(name="p", spacing_mm=Zyx(1.5, 1.5, 1.5), filter="ctclip")
    plan = plan_axis(302, 1.0, preparation, 0, reverse=False)
    assert (plan.size, plan.scale) == (201, 302 / 201)  # 201.33 cut off; `linear` keeps 1.5 mm
    fine = Preparation(name="p", spacing_mm=Zyx(0.75, 0.75, 0.75), filter="ctclip")
    pitch = float(np.float32(0.6))  # as NIfTI keeps it
    assert plan_axis(500, pitch, fine, 0, reverse=False).size == 400
    assert plan_axis(500, 0.5999, fine, 0, reverse=False).size == 399


# ---------------------------------------------------------------- noise, aliasing, sharpness
def rms_gain(weights: NDArray[np.float64], cycles: float) -> float:
    """Root mean square of what is left of a wave of so many cycles per input voxel."""
    wave = np.exp(2j * np.pi * cycles * np.arange(weights.shape[1]))
    return float(np.sqrt((np.abs((weights @ wave)[2:-2]) ** 2).mean()))


def behaviour(weights: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Noise and aliasing, gain at 0.5 and 0.8 of the output's Nyquist, share of voxels used.

    Noise: sd out / sd in of white noise. Aliasing: rms left of the waves between both Nyquists.
    """
    m, n = weights.shape
    limit = 0.5 * m / n
    noise = float(np.sqrt((weights**2).sum(axis=1).mean()))
    above = [rms_gain(weights, f) ** 2 for f in np.linspace(limit, 0.5, 202)[1:-1]]
    used = float((weights != 0).any(axis=0).mean())
    alias = float(np.sqrt(np.mean(above)))
    return noise, alias, rms_gain(weights, 0.5 * limit), rms_gain(weights, 0.8 * limit), used


def test_a_mean_of_two_by_hand() -> None:
    """Gain |cos(pi f)|; its mean square over f from 1/4 to 1/2 is 1/2 - 1/pi."""
    noise, alias, half, most, used = behaviour(area_weights(512, 256, 2.0))
    assert noise == pytest.approx(math.sqrt(0.5))
    assert alias == pytest.approx(math.sqrt(0.5 - 1 / math.pi), abs=1e-3)
    assert half == pytest.approx(math.cos(math.pi / 8), abs=1e-3)
    assert most == pytest.approx(math.cos(math.pi / 5), abs=1e-3)
    assert used == 1.0


@pytest.mark.parametrize(
    ("kind", "two_steps", "along_z", "in_plane"),
    [
        ("monai", True, (0.81, 0.83, 0.62, 0.73, 0.25), (0.70, 0.51, 0.87, 0.70, 1.0)),
        ("linear", True, (0.58, 0.42, 0.58, 0.63, 0.50), (0.68, 0.48, 0.86, 0.68, 1.0)),
        ("linear", False, (0.81, 0.69, 0.96, 0.91, 0.85), (0.71, 0.42, 0.92, 0.81, 1.0)),
        ("area", False, (0.60, 0.28, 0.88, 0.72, 1.0), (0.71, 0.42, 0.92, 0.81, 1.0)),
        ("triangle", False, (0.53, 0.15, 0.81, 0.58, 1.0), (0.56, 0.13, 0.79, 0.53, 1.0)),
    ],
)
def test_noise_and_aliasing_of_each_filter_are_as_documented(
    kind: str, two_steps: bool, along_z: tuple[float, ...], in_plane: tuple[float, ...]
) -> None:
    """300 slices of 1 mm and 512 voxels of 0.75 mm to 128 x 256 x 256 (docs/concepts)."""
    preparation = Preparation(
        name="p",
        spacing_mm=Zyx(z=4.0, y=1.0, x=1.0) if two_steps else None,
        size_vox=Zyx(z=128, y=256, x=256),
        filter=kind,
    )
    for n, pitch, axis, expected in ((300, 1.0, 0, along_z), (512, 0.75, 2, in_plane)):
        weights = plan_axis(n, pitch, preparation, axis, reverse=False).weights
        assert behaviour(weights.astype(np.float64)) == pytest.approx(expected, abs=0.02)


def test_every_problem_of_a_preparation_is_named_at_once() -> None:
    broken = Preparation(
        name="odd",
        spacing_mm=Zyx(z=0.0, y=1.0, x=1.0),
        size_vox=Zyx(z=0, y=4, x=4),
        fit="stretch",
        filter="cubic",
        store_clip_hu=(100, -100),
    )
    with pytest.raises(GeometryError) as caught:
        check_preparation(broken)
    for word in ("cubic", "stretch", "spacing_mm", "size_vox", "store_clip_hu"):
        assert word in str(caught.value)


def test_an_axis_too_long_is_refused_before_a_matrix_is_made() -> None:
    preparation = Preparation(name="p", spacing_mm=Zyx(1e-6, 1.0, 1.0))
    with pytest.raises(GeometryError, match="an axis would get"):
        plan_axis(512, 1.0, preparation, 0, reverse=False)
