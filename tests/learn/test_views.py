"""Batches are a function of (seed, step, study), and boxes lie where they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from t3d.cohort.store import Cohort
from t3d.learn.corpus import read_corpus
from t3d.learn.fitted import fit
from t3d.learn.grids import box_edges
from t3d.learn.recipe import Augment, Recipe, TextPlan
from t3d.learn.texts import text_reader
from t3d.learn.trained import open_grids
from t3d.learn.views import Loader, augment, keep_some
from t3d.types import Zyx

from .conftest import short


def loader(cohort: Cohort, recipe: Recipe, stage: int = 0) -> Loader:
    corpus = read_corpus(cohort, "train", with_reports=True)
    fitted = fit(recipe, cohort, corpus)
    return Loader(
        recipe=recipe,
        stage=stage,
        corpus=corpus,
        fitted=fitted,
        grids=open_grids(recipe, cohort, fitted),
        reader=text_reader(recipe, fitted),
    )


def test_a_batch_does_not_depend_on_the_batches_before_it(small_cohort: Cohort) -> None:
    recipe = short("t3d_v3", 10)
    first, second = loader(small_cohort, recipe), loader(small_cohort, recipe)
    for step in range(3):
        first.batch(step)
    one, other = first.batch(3), second.batch(3)
    assert one.study_ids == other.study_ids
    assert torch.equal(one.views["crops"].voxels, other.views["crops"].voxels)
    assert torch.equal(one.texts["report"].ids, other.texts["report"].ids)
    assert torch.equal(one.targets["uniform"], other.targets["uniform"])


def test_another_seed_gives_other_batches(small_cohort: Cohort) -> None:
    recipe = short("clip", 10)
    one = loader(small_cohort, recipe).batch(0)
    other = loader(small_cohort, replace(recipe, seed=1)).batch(0)
    assert one.study_ids != other.study_ids


def test_an_epoch_shows_every_study_once(small_cohort: Cohort) -> None:
    made = loader(small_cohort, short("clip", 10))
    seen = [name for step in range(5) for name in made.batch(step).study_ids]
    assert sorted(seen) == sorted(made.corpus.study_ids)


def test_a_crop_is_the_part_of_the_whole_that_its_box_names(small_cohort: Cohort) -> None:
    recipe = replace(short("t3d_v3", 10), augment=Augment())
    made = loader(small_cohort, recipe)
    block = made.batch(0).views["crops"]
    for row, study in enumerate(made.batch(0).study_ids):
        volume = made.corpus.volume_ids[made.corpus.study_ids.index(study)]
        whole = made.grids.read(volume, Zyx(z=0, y=0, x=0), made.grids.full_vox)
        low, high = block.box_vox[row, 1].tolist()
        box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        assert np.array_equal(block.voxels[row, 1].numpy(), whole[box])


def test_box_edges_are_half_a_voxel_outside_the_centres() -> None:
    world = np.array(
        [[0, 0, 1, -180], [0, 1, 0, -150], [4, 0, 0, 20], [0, 0, 0, 1]], dtype=np.float64
    )
    edges = box_edges(world, Zyx(z=0, y=0, x=0), Zyx(z=2, y=3, x=5), Zyx(z=1, y=1, x=1))
    assert edges.tolist() == [[18.0, -150.5, -180.5], [26.0, -147.5, -175.5]]


def test_sentences_are_dropped_up_to_the_share_and_one_always_stays() -> None:
    sentences = tuple(f"s{i}" for i in range(10))
    rng = np.random.default_rng(0)
    kept = [len(keep_some(sentences, TextPlan(drop=0.3), rng)) for _ in range(200)]
    assert set(kept) == {8, 9, 10}  # int(u * .3 * 10) is 0, 1 or 2
    assert keep_some(("only",), TextPlan(drop=0.99), rng) == ("only",)
    assert keep_some((), TextPlan(), rng) == ()


def test_augmentation_is_per_channel_and_bounded() -> None:
    values = np.ones((4, 2, 2, 2), dtype=np.float32)
    changed = augment(values, Augment(gain=0.1, offset=0.1), np.random.default_rng(0))
    per_channel = changed.reshape(4, -1)
    assert (per_channel == per_channel[:, :1]).all()
    assert len(set(per_channel[:, 0].tolist())) == 4
    assert per_channel.min() >= 0.8
    assert per_channel.max() <= 1.2


def test_shuffled_reports_keep_images_and_move_texts(small_cohort: Cohort) -> None:
    plain = read_corpus(small_cohort, "train", with_reports=True)
    moved = read_corpus(small_cohort, "train", with_reports=True, shuffle_seed=0)
    assert plain.volume_ids == moved.volume_ids
    assert sorted(plain.findings) == sorted(moved.findings)
    same = np.mean([a == b for a, b in zip(plain.findings, moved.findings, strict=True)])
    assert same < 0.2


def test_terms_are_those_of_the_own_report(small_cohort: Cohort) -> None:
    made = loader(small_cohort, short("t3d_plus", 10), stage=1)
    batch = made.batch(0)
    table = fit(made.recipe, small_cohort, made.corpus).terms
    assert table is not None
    row = made.corpus.study_ids.index(batch.study_ids[2])
    both = (*made.corpus.findings[row], *made.corpus.impression[row])
    assert batch.targets["terms"][2].tolist() == table.targets(both).astype(float).tolist()


@pytest.mark.parametrize("name", ["clip", "supervised"])
def test_labels_reach_only_the_recipe_that_says_so(small_cohort: Cohort, name: str) -> None:
    recipe = short(name, 4)
    corpus = read_corpus(small_cohort, "train", with_reports=False)
    fitted = fit(recipe, small_cohort, corpus)
    made = Loader(
        recipe=recipe,
        stage=0,
        corpus=corpus,
        fitted=fitted,
        grids=open_grids(recipe, small_cohort, fitted),
        reader=text_reader(recipe, fitted) if recipe.text is not None else None,
    )
    assert ("labels" in made.batch(0).targets) == (name == "supervised")
