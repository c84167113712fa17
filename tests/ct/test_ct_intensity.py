"""Slope and intercept: once, rounded, clipped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.ct.intensity import Rescale

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def test_the_value_in_the_docstring() -> None:
    assert Rescale(7.1098, -1024.0).int16(np.array([10], dtype=np.uint8)).tolist() == [-953]


def test_halves_go_to_the_even_number_and_nothing_is_cut_toward_zero() -> None:
    stored = np.array([-1.5, -0.7, -0.5, 0.5, 0.7, 1.5])
    assert Rescale().int16(stored).tolist() == [-2, -1, 0, 0, 1, 2]


def test_values_outside_int16_stop_at_its_ends_instead_of_wrapping() -> None:
    stored = np.array([-1e9, 1e9, np.inf, -np.inf, np.nan])
    assert Rescale().int16(stored).tolist() == [-32768, 32767, 32767, -32768, -1024]


@given(
    st.sampled_from(TYPES),
    st.floats(0.01, 40.0),
    st.floats(-3000.0, 3000.0),
    st.lists(st.integers(-40000, 40000), min_size=1, max_size=8),
)
def test_float32_equals_plain_arithmetic_for_every_type(
    dtype: str, slope: float, intercept: float, values: list[int]
) -> None:
    limits = np.iinfo(dtype)
    held = [min(max(v, int(limits.min)), int(limits.max)) for v in values]
    slow = [min(max(v * slope + intercept, -1024.0), 3071.0) for v in held]
    found = Rescale(slope, intercept).float32(np.array(held, dtype=dtype), (-1024, 3071))
    assert found.dtype == np.float32
    assert found == pytest.approx(slow, abs=0.01)


@given(st.integers(-3000, 3000), st.lists(st.integers(-32768, 32767), min_size=1, max_size=8))
def test_the_integer_path_equals_plain_arithmetic(shift: int, values: list[int]) -> None:
    slow = [min(max(v + shift, -1024), 3071) for v in values]
    found = Rescale(1.0, shift).float32(np.array(values, dtype=np.int16), (-1024, 3071))
    assert found.tolist() == slow


def test_not_a_number_becomes_the_lower_limit() -> None:
    found = Rescale().float32(np.array([np.nan, np.inf, -np.inf, 5.0]), (-1000, 1000))
    assert found.tolist() == [-1000.0, 1000.0, -1000.0, 5.0]


@pytest.mark.filterwarnings("error")
def test_every_kind_of_not_a_number_passes_without_a_word() -> None:
    signalling = np.array([0x7FA00000, 0x7FC00000, 0x42280000], dtype="<u4").view("<f4")
    assert Rescale(2.0, 1.0).int16(signalling).tolist() == [-1024, -1024, 85]
    assert Rescale(2.0, 1.0).float32(signalling, (-1000, 1000)).tolist() == [-1000, -1000, 85]
    huge = np.array([1e308, -1e308])
    assert Rescale(900.0).int16(huge).tolist() == [32767, -32768]
    assert Rescale(900.0).float32(huge, (-1000, 1000)).tolist() == [1000, -1000]
