"""The page's opening: who is best, and what lost, said from the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fabricated
from t3d.show.gates import demo_gates
from t3d.show.headline import Headline, compare, headline
from t3d.show.records import read_demo
from t3d.types import Metric


def said(tmp_path: Path, told: dict[str, Any]) -> Headline:
    (tmp_path / "summary.json").write_text(json.dumps(told))
    demo = read_demo(tmp_path)
    return headline(demo, demo_gates(demo))


def metric(low: float, high: float) -> Metric:
    return Metric(name="m", value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (metric(0.7, 0.8), metric(0.5, 0.6), "better"),
        (metric(0.5, 0.6), metric(0.7, 0.8), "worse"),
        (metric(0.5, 0.7), metric(0.6, 0.8), "same"),
        (metric(0.6, 0.8), metric(0.5, 0.6), "same"),
        (Metric(name="m", value=0.9), metric(0.5, 0.6), ""),
    ],
)
def test_metrics_differ_only_where_their_intervals_do_not_touch(
    first: Metric, second: Metric, verdict: str
) -> None:
    assert compare(first, second) == verdict


def test_the_best_recipe_opens_the_page_with_its_interval_and_chance(tmp_path: Path) -> None:
    lead = said(tmp_path, fabricated.summary()).lead
    assert "reports alone" in lead
    assert "t3d_plus" in lead
    assert "0.82 [0.81, 0.84]" in lead
    assert "40 synthetic test patients" in lead
    assert "guessing gives 0.50" in lead


def test_the_best_recipe_is_found_by_number_not_by_name(tmp_path: Path) -> None:
    told = fabricated.summary()
    told["recipes"]["clip"]["zero_shot"]["bank"]["macro"] = fabricated.metric(0.9)
    found = said(tmp_path, told)
    assert " clip tells findings apart" in found.lead
    assert any("t3d_plus loses to clip: bank AUROC" in line for line in found.lost)


def test_what_did_not_help_is_said(tmp_path: Path) -> None:
    lost = said(tmp_path, fabricated.summary()).lost
    assert any("t3d_v3 shows no clear gain over clip: bank AUROC 0.68" in x for x in lost)
    assert any("t3d_v3 loses to clip: report-to-image R@10 0.37" in x for x in lost)
    assert any("Small findings are harder: 0.72" in x for x in lost)
    assert any("Wording matters" in x and "0.66 [0.65, 0.68]" in x for x in lost)
    assert not any("t3d_plus loses" in x or "t3d_plus shows no" in x for x in lost)


def test_tma_is_also_held_against_its_control(tmp_path: Path) -> None:
    told = fabricated.summary()
    told["recipes"]["clip_crops"] = fabricated.recipe(0.74, 0.63, 0.54, 0.3)
    lost = said(tmp_path, told).lost
    assert any(x.startswith("t3d_v3 loses to clip_crops: bank AUROC 0.68") for x in lost)


def test_findings_at_chance_and_missed_bounds_are_named(tmp_path: Path) -> None:
    told = fabricated.summary()
    told["recipes"]["t3d_plus"]["zero_shot"]["bank"]["Lung nodule"] = fabricated.metric(0.51)
    told["supervised"]["macro"] = fabricated.metric(0.79)
    lost = said(tmp_path, told).lost
    assert "t3d_plus does not tell these from chance: Lung nodule." in lost
    assert "Bound not met by supervised: AUROC above 0.80; found 0.79 [0.78, 0.81]." in lost


def test_nothing_measured_is_said_in_one_sentence(tmp_path: Path) -> None:
    assert said(tmp_path, {}).lead == "No recipe has a measured zero-shot score yet."


def test_a_paired_difference_decides_where_it_is_known() -> None:
    first, second = metric(0.6, 0.8), metric(0.5, 0.7)
    assert compare(first, second, metric(0.01, 0.19)) == "better"
    assert compare(first, second, metric(-0.01, 0.19)) == "same"
    assert compare(second, first, metric(-0.19, -0.01)) == "worse"
