"""The loop: loss falls, resuming is bit-identical, best on dev, checkpoints refuse damage."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from t3d.cohort.store import Cohort
from t3d.errors import CheckpointError, RecipeError, StoreError
from t3d.learn import checkpoint
from t3d.learn.train import Plan, evaluation_steps, train
from t3d.learn.trained import Trained
from t3d.recipes import recipe as recipe_of

from .conftest import short

QUIET = Plan(tensorboard=False, num_evaluations=2, log_every=1)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["t3d_plus", "t3d_v3_match"])
def test_a_run_cut_short_and_resumed_ends_in_the_same_bytes(
    small_cohort: Cohort, tmp_path: Path, name: str
) -> None:
    recipe = short(name, 4)
    total = recipe.num_steps
    straight = train(recipe, small_cohort, tmp_path / "a", plan=replace(QUIET, num_evaluations=4))
    stop = replace(QUIET, num_evaluations=4, stop_after=total // 2)
    train(recipe, small_cohort, tmp_path / "b", plan=stop)
    resumed = train(recipe, small_cohort, tmp_path / "b", plan=replace(QUIET, num_evaluations=4))
    assert straight.name == resumed.name == f"step-{total}"
    for file in ("model.safetensors", "training.safetensors", "fitted.json"):
        assert (straight / file).read_bytes() == (resumed / file).read_bytes(), file
    one, other = lines(tmp_path / "a"), lines(tmp_path / "b")
    assert [line["loss"] for line in one] == [line["loss"] for line in other]


def test_a_finished_run_takes_no_further_step(small_cohort: Cohort, tmp_path: Path) -> None:
    recipe = short("clip", 2)
    first = train(recipe, small_cohort, tmp_path, plan=QUIET)
    written = (first / "model.safetensors").stat().st_mtime_ns
    train(recipe, small_cohort, tmp_path, plan=QUIET)
    assert (first / "model.safetensors").stat().st_mtime_ns == written


def test_the_loss_of_a_small_cohort_falls(small_cohort: Cohort, tmp_path: Path) -> None:
    recipe = short("clip", 30, batch_size=16)
    train(recipe, small_cohort, tmp_path, plan=QUIET)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_the_best_checkpoint_is_the_best_on_dev_not_the_last(
    small_cohort: Cohort, tmp_path: Path
) -> None:
    scores = iter([0.2, 0.9, 0.4])
    plan = replace(QUIET, num_evaluations=3)
    best = train(
        short("clip", 6), small_cohort, tmp_path, dev=lambda _: {"select": next(scores)}, plan=plan
    )
    assert best.name == "step-4"
    assert (tmp_path / "best").read_text() == "step-4\n"


def test_the_first_score_that_is_a_number_is_better_than_none(
    small_cohort: Cohort, tmp_path: Path
) -> None:
    scores = iter([float("nan"), 0.3, float("nan"), 0.2])
    plan = replace(QUIET, num_evaluations=4)
    best = train(
        short("clip", 8), small_cohort, tmp_path, dev=lambda _: {"select": next(scores)}, plan=plan
    )
    assert best.name == "step-4"


def test_a_folder_of_a_recipe_without_texts_is_refused_by_one_with_texts(
    small_cohort: Cohort, tmp_path: Path
) -> None:
    train(short("supervised", 2), small_cohort, tmp_path, plan=QUIET)
    with pytest.raises(RecipeError, match="holds 'supervised' with another recipe"):
        train(short("clip", 2), small_cohort, tmp_path, plan=QUIET)


def test_a_folder_with_another_recipe_is_refused(small_cohort: Cohort, tmp_path: Path) -> None:
    train(short("clip", 2), small_cohort, tmp_path, plan=QUIET)
    with pytest.raises(RecipeError, match="another recipe or cohort"):
        train(short("clip", 3), small_cohort, tmp_path, plan=QUIET)


def test_a_changed_byte_is_found_before_loading(small_cohort: Cohort, tmp_path: Path) -> None:
    folder = train(short("clip", 2), small_cohort, tmp_path, plan=QUIET)
    file = folder / "model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="not the file that was written"):
        Trained.load(tmp_path)


def test_a_loaded_model_gives_the_same_vectors(small_cohort: Cohort, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []
    ids = [row.study_id for row in small_cohort.studies("test")]

    def dev(trained: Trained) -> dict[str, float]:
        seen.append(trained.embed_studies(small_cohort, ids))
        return {"select": float(len(seen))}

    train(short("t3d_plus", 3), small_cohort, tmp_path, dev=dev, plan=QUIET)
    again = Trained.load(tmp_path)
    assert np.array_equal(again.embed_studies(small_cohort, ids), seen[-1])
    volume = small_cohort.volume(small_cohort.studies("test")[0].volume_ids[0])
    # the cohort's path goes through the float16 cache of the stem
    assert np.allclose(again.embed_volume(volume), seen[-1][0], atol=0.02)


def test_patients_are_kept_as_hashes_and_recognised(small_cohort: Cohort, tmp_path: Path) -> None:
    folder = train(short("clip", 2), small_cohort, tmp_path, plan=QUIET)
    (trained_on, unseen) = (small_cohort.studies(s)[0].patient_id for s in ("train", "test"))
    names = [f"folder-{trained_on}", f"folder-{unseen}", trained_on]
    assert checkpoint.seen_people(folder, names) == {f"folder-{trained_on}"}
    assert trained_on not in (folder / "patients.json").read_text()


def test_a_checkpoint_whose_patients_are_named_another_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "patients.json").write_text('{"key": "k", "hashes": []}')
    with pytest.raises(CheckpointError, match="as one cohort named them"):
        checkpoint.seen_people(tmp_path, ["folder-1"])


def test_frozen_sides_do_not_move(small_cohort: Cohort, tmp_path: Path) -> None:
    recipe = short("clip", 4)
    stage = replace(recipe.stages[0], trainable=("text", "objectives"))
    plan = replace(QUIET, num_evaluations=4, keep_last=4)
    train(replace(recipe, stages=(stage,)), small_cohort, tmp_path, plan=plan)
    first, last = (checkpoint.load_model(tmp_path / "checkpoints" / f"step-{n}") for n in (1, 4))
    assert torch.equal(first["model.image.down.weight"], last["model.image.down.weight"])
    assert not torch.equal(first["model.text.project.weight"], last["model.text.project.weight"])


def test_evaluations_are_spread_and_end_with_the_run() -> None:
    assert evaluation_steps(10, 4) == {2, 5, 8, 10}
    assert evaluation_steps(1, 4) == {1}


def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(
    small_cohort: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = short("clip", 6)
    stage = replace(recipe.stages[0], optim=replace(recipe.stages[0].optim, lr=1e30, warmup=0.0))
    caplog.set_level(logging.INFO)
    with pytest.raises(RecipeError, match="not finite"):
        train(
            replace(recipe, stages=(stage,)),
            small_cohort,
            tmp_path,
            plan=replace(QUIET, num_evaluations=6),
        )
    assert checkpoint.list_steps(tmp_path)


def test_a_cohort_on_another_grid_is_refused_and_both_are_named(
    small_cohort: Cohort, tmp_path: Path
) -> None:
    recipe = recipe_of("clip", "phantom")
    with pytest.raises(StoreError, match="holds only demo") as caught:
        train(recipe, small_cohort, tmp_path, plan=QUIET)
    assert "name='phantom'" in str(caught.value)
