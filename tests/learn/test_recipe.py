"""Recipes: JSON, problems all at once, overrides, schedules, supervision."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from t3d.errors import RecipeError
from t3d.learn.objectives.classify import Classify
from t3d.learn.objectives.contrast import Contrast
from t3d.learn.optim import schedule
from t3d.learn.recipe import Member, Recipe, Term, check, override
from t3d.recipes import recipe


def test_a_term_starts_late_and_ramps() -> None:
    term = Term(objective=Contrast(), weight=0.5, start_step=2, ramp_steps=1)
    assert [term.weight_at(step) for step in range(5)] == [0.0, 0.0, 0.25, 0.5, 0.5]


def test_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    values = [schedule(step, 10, 0.2) for step in range(10)]
    assert values[:3] == [0.5, 1.0, 1.0]
    assert values[9] == pytest.approx(0.038, abs=5e-4)
    assert values == sorted(values[:2]) + sorted(values[2:], reverse=True)


def test_all_problems_of_a_recipe_are_told_at_once_with_the_nearest_name() -> None:
    data = recipe("t3d_v3").to_json()
    data["stages"][0]["optim"]["lrr"] = 1.0
    data["precison"] = "fp32"
    data["stages"][0]["terms"][1]["objective"]["kind"] = "tmb"
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json(data)
    text = str(caught.value)
    assert "3 problems" in text
    assert "optim.lrr: unknown field; nearest: 'lr'" in text
    assert "precison: unknown field; nearest: 'precision'" in text
    assert "unknown part 'tmb'; nearest: 'tma'" in text


def test_a_view_no_stage_makes_is_refused() -> None:
    made = recipe("clip")
    stage = replace(made.stages[0], terms=(Term(objective=Contrast(views=("crops",))),))
    with pytest.raises(RecipeError, match="needs view 'crops', the stage has"):
        check(replace(made, stages=(stage,)))


def test_overrides_reach_every_stage_or_one() -> None:
    made = override(recipe("t3d_plus"), {"optim.lr": "1e-4", "stages.2.batch_size": "8"})
    assert [stage.optim.lr for stage in made.stages] == [1e-4, 1e-4, 1e-4]
    assert [stage.batch_size for stage in made.stages] == [64, 32, 8]


def test_members_are_set_by_name_and_come_back_from_json() -> None:
    changes = {"members.ct_rate.weight": "2", "members.inspect.sections": '["impression"]'}
    made = override(recipe("clip"), changes)
    assert made.members == {
        "ct_rate": Member(weight=2.0),
        "inspect": Member(sections=("impression",)),
    }
    assert override(made, {"members.ct_rate.weight": "0.5"}).members["ct_rate"].weight == 0.5
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.digest != recipe("clip").digest
    named = override(made, {"members.kind.weight": "3"})  # also the word that names a part
    assert Recipe.from_json(named.to_json()).members["kind"] == Member(weight=3.0)


def test_everything_wrong_with_members_is_told_at_once() -> None:
    plan = replace(recipe("clip").text_plan, sections=("finding",))
    members = {
        "a": Member(weight=0.0, sections=("impresion", "findings")),
        "b": Member(weight=float("nan")),
        "c": Member(weight=float("inf"), sections=()),
    }
    with pytest.raises(RecipeError) as caught:
        check(replace(recipe("clip"), members=members, text_plan=plan))
    told = str(caught.value).splitlines()
    assert told[0].endswith("6 problems in recipe 'clip'")
    assert "  members.a.weight: found 0.0, expected a number above 0" in told
    assert "  members.a.sections: unknown 'impresion'; nearest: 'impression'" in told
    assert "  members.b.weight: found nan, expected a number above 0" in told
    assert "  members.c.weight: found inf, expected a number above 0" in told
    assert "  members.c.sections: none, expected one or more of ('findings', 'impression')" in told
    assert "  text_plan.sections: unknown 'finding'; nearest: 'findings'" in told


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("members.ct_rate.weights", "2", "unknown field 'weights'; nearest: 'weight'"),
        ("members.ct_rate.weight", "true", "members.ct_rate.weight: found True, expected float"),
        ("members.ct_rate.sections", "impression", "found 'impression', expected a list"),
        ("members", "3", "members: found 3, expected entries by name"),
        ("members.ct_rate", "3", "members.ct_rate: unknown field"),
    ],
)
def test_what_is_no_member_is_refused(path: str, value: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        override(recipe("clip"), {path: value})


def test_an_override_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected float"):
        override(recipe("clip"), {"optim.lr": "fast"})


def test_supervision_is_the_most_that_any_term_uses() -> None:
    made = recipe("clip")
    stage = replace(
        made.stages[0],
        terms=(*made.stages[0].terms, Term(objective=Classify(view="whole"), weight=0.01)),
    )
    assert made.supervision == "reports"
    assert replace(made, stages=(stage,)).supervision == "labels"


def test_report_supervised_recipes_never_ask_for_labels() -> None:
    for name in ("clip", "clip_crops", "t3d_v3", "t3d_v3_match", "t3d_plus"):
        for stage in recipe(name).stages:
            assert "labels" not in stage.needs.targets


def test_a_recipe_in_somebody_elses_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from t3d.recipes import recipe\n"
        "def tiny(size):\n"
        "    return replace(recipe('clip', size), name='tiny')\n"
    )
    assert recipe(f"{file}:tiny").name == "tiny"


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="nearest: 't3d_v3'"):
        recipe("t3d_v4")
