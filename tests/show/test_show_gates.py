"""Bounds and meters: each state is reached, at its limit and beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fabricated
from t3d.learn import meters
from t3d.show import gates
from t3d.show.records import DemoRecord, read_demo


def demo_of(tmp_path: Path, told: dict[str, Any]) -> DemoRecord:
    (tmp_path / "summary.json").write_text(json.dumps(told))
    return read_demo(tmp_path)


def states(demo: DemoRecord) -> list[str]:
    return [v.state for v in gates.demo_gates(demo)]


def meter_states(tmp_path: Path, told: dict[str, Any]) -> dict[str, str]:
    recipe = fabricated.recipe(0.7, 0.6, 0.5, 0.0, gauges=told)
    (record,) = demo_of(tmp_path, {"recipes": {"t3d_v3": recipe}}).recipes
    return {v.bound.split()[0]: v.state for v in gates.meter_gates(record)}


def test_the_made_up_demo_keeps_all_bounds_but_has_no_shuffled_control(tmp_path: Path) -> None:
    assert states(demo_of(tmp_path, fabricated.summary())) == ["met"] * 6 + ["not measured"]


def test_an_empty_summary_measures_nothing(tmp_path: Path) -> None:
    assert set(states(demo_of(tmp_path, {}))) == {"not measured"}


def test_the_lower_end_of_the_interval_decides_for_clip(tmp_path: Path) -> None:
    told = fabricated.summary()
    told["recipes"]["clip"]["zero_shot"]["bank"]["macro"] = fabricated.metric(0.61)  # low 0.595
    assert states(demo_of(tmp_path, told))[2] == "not met"


def test_recall_is_held_against_five_times_its_own_chance(tmp_path: Path) -> None:
    told = fabricated.summary()
    recall = {"value": 0.2, "low": 0.17, "high": 0.23, "chance": 0.033, "n": 300}
    told["recipes"]["clip"]["retrieval"]["t2i_r@10"] = recall
    assert states(demo_of(tmp_path, told))[3] == "met"  # 0.17 > 0.165
    told["recipes"]["clip"]["retrieval"]["t2i_r@10"] = recall | {"low": 0.16}
    assert states(demo_of(tmp_path, told))[3] == "not met"


@pytest.mark.parametrize(("value", "state"), [(0.487, "met"), (0.55, "not met"), (0.44, "not met")])
def test_shuffled_reports_must_give_chance_from_both_sides(
    tmp_path: Path, value: float, state: str
) -> None:
    told = fabricated.summary() | {"shuffled": {"bank": {"macro": fabricated.metric(value)}}}
    assert states(demo_of(tmp_path, told))[-1] == state


def test_meters_are_judged_at_their_limits(tmp_path: Path) -> None:
    at_limit = {"tma.leak": 0.1, "tma.image_only": 0.5, "tma.text_dominance": 0.1}
    assert set(meter_states(tmp_path, at_limit).values()) == {"met"}
    beyond = {"tma.leak": 0.11, "tma.image_only": 0.49, "tma.text_dominance": 0.11}
    assert set(meter_states(tmp_path, beyond).values()) == {"not met"}


def test_a_leak_is_not_readable_where_the_views_hardly_agree(tmp_path: Path) -> None:
    told = {"leak": 0.9, "agreement": 4.9 / 256, "n": 256}
    assert meter_states(tmp_path, told)["leak"] == "not measurable"
    told["agreement"] = 5 / 256
    assert meter_states(tmp_path, told)["leak"] == "not met"


def test_what_the_training_called_not_measurable_stays_so_with_its_reason(tmp_path: Path) -> None:
    told = {
        "leak": None,
        "leak_verdict": "not measurable: 100 studies, needs 256",
        "text_dominance": 0.05,
        "text_dominance_verdict": "pass",
        "text_use": 0.0003,
        "text_use_verdict": "text is not used",
    }
    recipe = fabricated.recipe(0.7, 0.6, 0.5, 0.0, gauges=told)
    (record,) = demo_of(tmp_path, {"recipes": {"t3d_v3": recipe}}).recipes
    found = [(v.bound, v.found, v.state) for v in gates.meter_gates(record)]
    assert found == [
        ("leak at most 0.1", "100 studies, needs 256", "not measurable"),
        ("text_dominance at most 0.1", "0.05", "met"),
        ("text_use", "0.0003; text is not used", "reported"),
    ]


def test_words_and_gaps_among_the_gauges_are_kept_as_such(tmp_path: Path) -> None:
    told = {"leak": "not measurable: 100 studies", "scale": 14.0, "text_use": None}
    found = meter_states(tmp_path, told)
    assert found == {"leak": "not measurable", "scale": "reported", "text_use": "not measured"}


def test_pointing_is_held_against_three_times_chance(tmp_path: Path) -> None:
    assert meter_states(tmp_path, {"pointing": 0.2, "pointing_chance": 0.023})["pointing"] == "met"
    found = meter_states(tmp_path, {"pointing": 0.06, "pointing_chance": 0.023})
    assert found["pointing"] == "not met"


def test_the_page_and_the_training_use_the_same_limits() -> None:
    assert gates.LEAK == meters.LEAK_PASS
    assert gates.LEAK_NEEDS == meters.MIN_AGREEMENT
    assert gates.IMAGE_ONLY == meters.IMAGE_ONLY_PASS
    assert gates.TEXT_DOMINANCE == meters.DOMINANCE_PASS
    assert gates.ENTROPY == meters.ENTROPY_PASS
    assert gates.ATTENTION_TV == meters.TV_WARN
    assert gates.POINTING_TIMES_CHANCE == meters.POINTING_PASS
