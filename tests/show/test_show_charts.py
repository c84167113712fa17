"""Charts: coordinates that a person can check by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.show import charts
from t3d.show.charts import Curve, Dot, dot_chart, line_chart, nice_ticks, thin


def slow_thin(
    steps: list[float], values: list[float], count: int
) -> tuple[list[float], list[float]]:
    kept_steps, kept_values = [], []
    for k in range(len(values)):
        if math.isfinite(values[k]):
            kept_steps.append(steps[k])
            kept_values.append(values[k])
    n = len(kept_values)
    if n <= count:
        return kept_steps, kept_values
    out_steps, out_values = [], []
    for share in range(count):
        total_step = total = number = 0.0
        for k in range(n):
            if share * n // count <= k < (share + 1) * n // count:
                total_step += kept_steps[k]
                total += kept_values[k]
                number += 1
        out_steps.append(total_step / number)
        out_values.append(total / number)
    return out_steps, out_values


@given(
    st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)), max_size=60), st.integers(1, 20)
)
def test_thinning_equals_its_slow_twin(values: list[float], count: int) -> None:
    steps = [float(k) for k in range(len(values))]
    for fast, slow in zip(thin(steps, values, count), slow_thin(steps, values, count), strict=True):
        assert fast == pytest.approx(slow)


def test_thinning_keeps_the_mean_of_equal_shares() -> None:
    assert thin([1, 2, 3, 4], [1, 2, 3, 4], 2) == ([1.5, 3.5], [1.5, 3.5])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 97.0, [20.0, 40.0, 60.0, 80.0]),
        (0.44, 0.93, [0.5, 0.6, 0.7, 0.8, 0.9]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(
    low: float, high: float, ticks: list[float]
) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_rising_curve_runs_from_the_lower_left_to_the_upper_right() -> None:
    chart = line_chart("loss", [Curve(name="loss", steps=[0, 10], values=[1, 3])])
    assert chart is not None
    assert chart.lines[0].path == f"M{charts.LEFT},{charts.BOTTOM}L{charts.RIGHT},{charts.TOP}"
    assert "loss from 1 at 0 to 3 at 10" in chart.alt


def test_chance_widens_the_chart_so_that_its_line_is_seen() -> None:
    chart = line_chart("t", [Curve(name="t", steps=[0, 1], values=[1, 2])], guides=[("chance", 5)])
    assert chart is not None
    assert chart.guides[0].at == charts.TOP
    assert chart.guides[0].text == "chance 5"
    assert chart.lines[0].last[1] > charts.TOP


def test_a_chart_without_any_value_is_no_chart() -> None:
    assert line_chart("t", [Curve(name="t", steps=[0], values=[math.nan])]) is None
    assert line_chart("t", []) is None


def test_a_flat_curve_does_not_divide_by_zero() -> None:
    chart = line_chart("t", [Curve(name="t", steps=[3, 3], values=[2, 2])])
    assert chart is not None
    assert chart.lines[0].last == (charts.RIGHT, (charts.TOP + charts.BOTTOM) / 2)


def test_dots_stand_where_their_values_are() -> None:
    dots = [Dot(name="a", value=0.75, low=0.5, high=1.2), Dot(name="b", value=math.nan)]
    chart = dot_chart("AUROC", dots, span=(0.5, 1.0), guides=[("chance", 0.5), ("x", math.nan)])
    first, second = chart.dots
    assert first.value == (charts.DOT_LEFT + charts.DOT_RIGHT) / 2
    assert (first.low, first.high) == (charts.DOT_LEFT, charts.DOT_RIGHT)  # held inside
    assert (second.value, second.text) == (None, "not measured")
    assert [g.text for g in chart.guides] == ["chance"]
    assert chart.alt == "AUROC: a 0.750 [0.500, 1.200]; b not measured; chance 0.50"
