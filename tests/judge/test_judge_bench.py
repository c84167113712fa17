"""The demo's table in miniature: every stage, every cell, the summary and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from t3d.judge.bench import Event, Table, demo, demo_recipes
from t3d.learn.recipe import Recipe
from t3d.show.page import demo_page
from t3d.show.summary import print_summary

SIZES = {"train": 40, "dev": 16, "test": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("demo")
    events: list[Event] = []
    demo(Table(out=out, workers=2, sizes=SIZES, step_share=0.01, tell=events.append))
    return out, events


def summary(out: Path) -> dict[str, Any]:
    data = json.loads((out / "summary.json").read_text())
    assert isinstance(data, dict)
    return data


def test_summary_has_what_the_schema_promises(made: tuple[Path, list[Event]]) -> None:
    data = summary(made[0])
    assert set(data["recipes"]) == {"clip", "t3d_v3", "t3d_plus"}
    for recipe in data["recipes"].values():
        assert recipe["supervision"] == "reports"
        assert set(recipe["zero_shot"]) == {"template", "bank"}
        for prompts in recipe["zero_shot"].values():
            assert {"value", "low", "high", "chance", "n"} == set(prompts["macro"])
        assert {"t2i_r@5", "t2i_r@10", "i2t_r@5", "i2t_r@10_strict"} <= set(recipe["retrieval"])
        assert recipe["core_seconds"] > 0
        assert all(loss["final"] > 0 for loss in recipe["losses"].values())
    assert data["supervised"]["macro"]["n"] == data["logistic"]["macro"]["n"] == 16
    assert data["cohort"]["train"] == 40
    assert data["recipes"]["clip"]["ceiling_share"]["value"] in (0.0, None)


def test_meters_say_not_measurable_below_256_studies(made: tuple[Path, list[Event]]) -> None:
    gauges = summary(made[0])["recipes"]["t3d_v3"]["gauges"]
    assert gauges["leak_verdict"].startswith("not measurable: 16 studies")


def test_every_cell_reports_progress(made: tuple[Path, list[Event]]) -> None:
    told = {event.stage for event in made[1]}
    cells = {"clip", "t3d_v3", "t3d_plus", "supervised", "logistic"}
    assert told == cells | {"phantoms", "prepare", "stem"}


def test_a_second_call_trains_nothing_anew(made: tuple[Path, list[Event]]) -> None:
    out = made[0]
    before = summary(out)
    weights = {
        path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoints/*/model.safetensors")
    }
    demo(Table(out=out, workers=2, sizes=SIZES, step_share=0.01))
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
    after = summary(out)
    assert before["resumed"] == []
    assert after["resumed"] == ["clip", "supervised", "t3d_plus", "t3d_v3"]
    for name, recipe in before["recipes"].items():
        assert after["recipes"][name]["zero_shot"] == recipe["zero_shot"], name


def test_page_and_terminal_show_the_figures(
    made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = made[0]
    page = demo_page(out, out / "report.html").read_text(encoding="utf-8")
    value = f"{summary(out)['recipes']['clip']['zero_shot']['bank']['macro']['value']:.3f}"
    assert value in page
    assert "not clinical" in page
    print_summary(out / "summary.json")
    told = capsys.readouterr().out
    assert "SYNTHETIC PHANTOMS" in told
    assert "t3d_plus" in told


def test_the_full_table_adds_its_controls() -> None:
    recipes: dict[str, Recipe] = {
        made.name: made for made in demo_recipes(Table(out=Path("unused"), full=True))
    }
    assert set(recipes) == {
        *("clip", "t3d_v3", "t3d_plus", "supervised"),
        *("clip_crops", "clip_crops_equal_steps", "t3d_v3_match", "t3d_plus_shuffled"),
    }
    assert recipes["clip_crops_equal_steps"].num_steps == recipes["t3d_v3"].num_steps
    shuffled, plus = recipes["t3d_plus_shuffled"], recipes["t3d_plus"]
    assert shuffled.num_steps == plus.num_steps
    assert shuffled.shuffle_reports
    assert not plus.shuffle_reports
