"""Numbers on pages: written one way, and named where they are missing."""

from __future__ import annotations

import math

import pytest

from t3d.show import wording
from t3d.types import Metric

NAN = math.nan


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_a_missing_number_is_said_to_be_missing_everywhere(value: float) -> None:
    for write in (wording.number, wording.percent, wording.seconds, wording.short):
        assert write(value) == "not measured"


def test_numbers_are_rounded_not_cut() -> None:
    assert wording.number(0.8166, 2) == "0.82"
    assert wording.percent(0.7251) == "73 %"
    assert wording.short(0.000312) == "0.000312"
    assert wording.short(256.0) == "256"


def test_long_times_also_come_in_minutes() -> None:
    assert wording.seconds(9.04) == "9.0 s"
    assert wording.seconds(119.0) == "119 s"
    assert wording.seconds(150.0) == "150 s (2.5 min)"


def test_an_interval_needs_both_ends() -> None:
    assert wording.interval(Metric(name="m", value=0.5, low=0.4, high=0.6)) == "[0.400, 0.600]"
    assert wording.interval(Metric(name="m", value=0.5, low=0.4)) == "no interval"
    assert wording.interval(Metric(name="m", value=NAN)) == ""
    assert wording.with_interval(Metric(name="m", value=NAN)) == "not measured"


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_names_are_joined_as_in_a_sentence(names: list[str], text: str) -> None:
    assert wording.listed(names) == text
