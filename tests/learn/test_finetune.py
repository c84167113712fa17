"""Fine-tuning: where it starts, how fast its layers move, when it stops, whose labels it reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from t3d.cohort.people import people
from t3d.cohort.store import Cohort
from t3d.errors import CheckpointError, RecipeError
from t3d.judge.dev import dev_score
from t3d.learn import checkpoint
from t3d.learn.optim import layers_of, make_optimiser, set_rates
from t3d.learn.recipe import EarlyStop, LabelShare, Optim, Recipe, check
from t3d.learn.shares import labelled_studies
from t3d.learn.start import IMAGE, digest_of, open_start
from t3d.learn.train import Plan, Run, train
from t3d.learn.trained import Trained
from t3d.model.encoders.hf_text import HFText, HFTextNet
from t3d.model.encoders.resnet import ResNet3d
from t3d.model.encoders.statstem import StatStem
from t3d.recipes import recipe
from t3d.recipes.finetune import finetune_from
from t3d.text.findings import CT_RATE_18

from .conftest import short

QUIET = Plan(tensorboard=False, num_evaluations=2, log_every=1)
Scores = Callable[[Trained], Mapping[str, float]]


@pytest.fixture(scope="module")
def base(small_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that a report-supervised recipe wrote."""
    return train(short("clip", 3), small_cohort, tmp_path_factory.mktemp("base"), plan=QUIET)


def tuned(base: Path, *, steps: int = 8, every: int = 2, patience: int = 9, **more: Any) -> Recipe:
    """The recipe from that checkpoint, short."""
    made = finetune_from(checkpoint.load_recipe(base), digest_of(base), **more)
    stages = tuple(replace(stage, num_steps=steps, batch_size=8) for stage in made.stages)
    return replace(made, stages=stages, early_stop=EarlyStop(every=every, patience=patience))


def told(*scores: float) -> Scores:
    """A dev score read from a list."""
    left = iter(scores)
    return lambda trained: {"select": next(left)}


def steps_of(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "dev" in line]


def image_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors = checkpoint.load_model(folder)
    return {name: t for name, t in tensors.items() if name.startswith(IMAGE)}


def test_a_run_begins_with_every_tensor_of_the_checkpoints_encoder_and_its_maps(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    parts = {"dev": told(), "plan": QUIET, "progress": None}
    run = Run(tuned(base), small_cohort, tmp_path, init=base, **parts)
    before = image_of(base)
    now = {IMAGE + name: t for name, t in run.model.image.state_dict().items()}
    assert set(now) == set(before)
    assert len(before) > 20
    assert all(torch.equal(now[name], before[name]) for name in before)
    maps, trained = run.fitted.maps, checkpoint.load_fitted(base).maps
    assert maps is not None
    assert trained is not None
    assert (maps.mean == trained.mean).all()
    assert (maps.sd == trained.sd).all()
    random = Run(recipe("finetune"), small_cohort, tmp_path / "r", init=None, **parts)
    moved = random.model.image.state_dict()["down.weight"]
    assert not torch.equal(moved, before[f"{IMAGE}down.weight"])


def test_labels_are_what_it_learns_from_and_every_size_can_run(base: Path) -> None:
    for size in ("demo", "phantom", "paper"):
        made = recipe("finetune", size)
        assert made.supervision == "labels"
        assert made.stages[0].optim.layer_decay < 1
        assert made.early_stop is not None
        assert made.num_steps % made.early_stop.every == 0
    made = tuned(base, labels=LabelShare(share=0.1, seed=2))
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.name == "finetune_clip"
    assert made.digest != tuned(base).digest


def tiny_bert() -> nn.Module:
    """Embeddings and three blocks."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertModel(BertConfig(num_hidden_layers=3, vocab_size=40, **sizes), False)
    return HFTextNet(HFText(frozen_layers=0), bert)


RESNET = ResNet3d(depth=10, width=0.1)


@pytest.mark.parametrize(
    ("encoder", "heads"),
    [
        (StatStem().build(), ["enter.", "place.", "down", "refine", "detect"]),
        (RESNET.build(), ["stem.", "stages.0", "stages.1", "stages.2", "stages.3"]),
        (
            tiny_bert(),
            ["bert.embeddings", *(f"bert.encoder.layer.{i}" for i in range(3))],
        ),
    ],
    ids=["statstem", "resnet", "hf_text"],
)
def test_layers_are_found_in_their_order_and_hold_every_parameter_once(
    encoder: nn.Module, heads: list[str]
) -> None:
    layers = layers_of(encoder)
    names = {id(p): name for name, p in encoder.named_parameters()}
    found = [[names[id(p)] for p in layer] for layer in layers]
    assert sorted(name for rows in found for name in rows) == sorted(names.values())
    assert len(found) == len(heads)
    assert [h for rows, h in zip(found, heads, strict=True) if not rows[0].startswith(h)] == []


def test_rates_fall_by_the_factor_from_the_head_down() -> None:
    encoder, head, objective = StatStem().build(), nn.Linear(128, 4), nn.Linear(128, 18)
    modules = {"image": nn.ModuleList([encoder, head]), "objectives": nn.ModuleList([objective])}
    optim = Optim(lr=1.0, warmup=0.0, layer_decay=0.5)
    optimiser = make_optimiser(modules, optim, by_layer=True)
    set_rates(optimiser, optim, 0, 10)
    rate = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert rate[id(objective.weight)] == rate[id(head.weight)] == 1.0
    assert rate[id(encoder.detect.weight)] == rate[id(encoder.detect_norm.bias)] == 0.5
    assert rate[id(encoder.refine.weight)] == 0.25
    assert rate[id(encoder.enter.weight)] == 0.5**5
    assert decay[id(encoder.enter.weight)] == optim.weight_decay
    assert decay[id(encoder.enter_norm.weight)] == 0.0
    every = [p for module in modules.values() for p in module.parameters()]
    assert len(rate) == len(every)


def test_without_decay_groups_and_rates_are_those_of_a_side() -> None:
    modules = {"image": nn.ModuleList([StatStem().build()])}
    optimiser = make_optimiser(modules, Optim(image_lr_scale=0.3, warmup=0.0))
    assert [len(g["params"]) > 1 for g in optimiser.param_groups] == [True, True]
    set_rates(optimiser, Optim(lr=1.0, image_lr_scale=0.3, warmup=0.0), 0, 10)
    assert {g["lr"] for g in optimiser.param_groups} == {0.3}


def test_a_run_ends_when_dev_has_not_risen_for_its_patience(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = tuned(base, steps=20, every=2, patience=2)
    dev = told(0.6, 0.7, 0.65, 0.69, 0.99)
    best = train(made, small_cohort, tmp_path, init=base, dev=dev, plan=QUIET)
    assert steps_of(tmp_path) == [2, 4, 6, 8]
    assert best.name == "step-4"
    # given again, it takes no further step and asks no further score
    again = train(made, small_cohort, tmp_path, dev=told(), plan=QUIET)
    assert again == best


def test_a_score_that_stands_still_has_not_risen(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = tuned(base, steps=20, every=2, patience=2)
    best = train(made, small_cohort, tmp_path, init=base, dev=told(1.0, 1.0, 1.0), plan=QUIET)
    assert steps_of(tmp_path) == [2, 4, 6]
    assert best.name == "step-2"


def test_a_run_that_stops_early_leaves_all_it_drew_for_tensorboard(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = tuned(base, steps=20, every=2, patience=1)
    plan = replace(QUIET, tensorboard=True)
    train(made, small_cohort, tmp_path, init=base, dev=told(0.6, 0.5), plan=plan)
    drawn = EventAccumulator(str(tmp_path / "tensorboard"))
    drawn.Reload()
    assert [one.step for one in drawn.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [one.step for one in drawn.Scalars("dev/select")] == [2, 4]


def test_a_score_that_rises_late_starts_the_patience_anew(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    dev = told(0.6, 0.5, 0.7, 0.6, 0.5)
    made = tuned(base, steps=20, every=2, patience=2)
    train(made, small_cohort, tmp_path, init=base, dev=dev, plan=QUIET)
    assert steps_of(tmp_path) == [2, 4, 6, 8, 10]


def test_a_run_cut_short_and_resumed_ends_in_the_same_bytes(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = tuned(base, steps=8, every=2, patience=2, labels=LabelShare(share=0.5))
    scores = {2: 0.6, 4: 0.5, 6: 0.4}

    def dev(run: Path) -> Scores:
        return lambda trained: {
            "select": scores[2 + 2 * len(steps_of(run)) if any(run.glob("log*")) else 2]
        }

    for name, stop in (("a", None), ("b", 4), ("b", None)):
        run = tmp_path / name
        plan = replace(QUIET, stop_after=stop)
        init = None if name == "b" and stop is None else base  # to continue needs no checkpoint
        best = train(made, small_cohort, run, init=init, dev=dev(run), plan=plan)
        assert best.name == "step-2"
    assert steps_of(tmp_path / "a") == steps_of(tmp_path / "b") == [2, 4, 6]
    for file in ("model.safetensors", "training.safetensors", "patients.json"):
        one, other = (tmp_path / n / "checkpoints" / "step-6" / file for n in ("a", "b"))
        assert one.read_bytes() == other.read_bytes(), file


def test_a_frozen_encoder_keeps_every_byte_and_a_whole_one_moves(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    before = image_of(base)
    for frozen in (True, False):
        made = tuned(base, steps=3, every=3, frozen=frozen)
        run = tmp_path / str(frozen)
        best = train(made, small_cohort, run, init=base, dev=told(0.5), plan=QUIET)
        after = image_of(best)
        same = {name: torch.equal(before[name], after[name]) for name in before}
        assert all(same.values()) if frozen else not any(same.values())
    assert checkpoint.load_recipe(best).stages[0].trainable == ("image", "objectives")


def test_a_share_of_the_labels_is_the_probes_and_nobody_else_is_seen(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    share = LabelShare(share=0.1, seed=5)
    run = Run(
        tuned(base, labels=share),
        small_cohort,
        tmp_path,
        init=base,
        dev=told(),
        plan=QUIET,
        progress=None,
    )
    wanted = labelled_studies(small_cohort, CT_RATE_18, share=0.1, seed=5)
    assert run.corpus.study_ids == tuple(sorted(wanted.study_ids))
    assert 4 <= len(run.corpus) < 40
    both = [set(run.corpus.labels[:, f]) >= {0, 1} for f in range(len(CT_RATE_18))]
    every = [
        {row.labels[name] for row in small_cohort.studies("train")} >= {0, 1} for name in CT_RATE_18
    ]
    assert both == every


def test_the_patients_of_the_checkpoint_it_began_with_stay_known(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = tuned(base, steps=2, every=2, labels=LabelShare(share=0.1))
    best = train(made, small_cohort, tmp_path, init=base, dev=told(0.5), plan=QUIET)
    every = {name for names in people(small_cohort, "train").values() for name in names}
    assert checkpoint.seen_people(best, every) == checkpoint.seen_people(base, every)
    own = json.loads((best / "patients.json").read_text())
    assert len(own["people"]) < len(own["earlier"][0]["people"])


def test_a_checkpoint_that_is_not_the_recipes_is_refused(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = tuned(base)
    other = train(short("clip", 2), small_cohort, tmp_path / "other", plan=QUIET)
    for where in (None, other):
        with pytest.raises(RecipeError, match="begins with checkpoint"):
            open_start(made, where)
    with pytest.raises(RecipeError, match="begins with checkpoint none"):
        open_start(recipe("finetune"), base)
    wider = replace(made, image=StatStem(width=16))
    with pytest.raises(RecipeError, match="image: 'finetune_clip' has another one"):
        open_start(wider, base)
    start = open_start(made, base)
    assert start is not None
    start.tensors.pop("down.weight")
    trained = Trained.load(base)
    with pytest.raises(CheckpointError, match="do not fit"):
        start.load_into(trained.model)


def test_settings_that_cannot_be_followed_are_reported_together(
    small_cohort: Cohort, base: Path, tmp_path: Path
) -> None:
    made = recipe("clip")
    stages = tuple(replace(s, optim=replace(s.optim, layer_decay=1.5)) for s in made.stages)
    wrong = replace(
        made, stages=stages, labels=LabelShare(share=0.1), early_stop=EarlyStop(every=0, patience=1)
    )
    with pytest.raises(
        RecipeError, match=r"(?s)3 problems.*labels\.share.*early_stop.*layer_decay"
    ):
        check(wrong)
    with pytest.raises(RecipeError, match="nothing scores it on dev"):
        train(tuned(base), small_cohort, tmp_path, init=base, plan=QUIET)


def test_the_command_trains_and_continues(
    small_cohort: Cohort, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from t3d.cli import app

    sets = ["num_steps=4", "batch_size=8", "early_stop.every=2"]
    words = ["finetune", "classify", str(base), "--cohort", str(small_cohort.path)]
    words += ["--out", str(tmp_path / "run"), "--labels", "0.5"]
    words += [word for change in sets for word in ("--set", change)]
    assert app(words, result_action="return_value") == 0
    assert "labels of 50% of the patients" in capsys.readouterr().out
    assert steps_of(tmp_path / "run") == [2, 4]
    assert (tmp_path / "run" / "report.html").is_file()
    with pytest.raises(RecipeError, match="task 'segment' is unknown"):
        app(["finetune", "segment", *words[2:]], result_action="return_value")


@pytest.mark.slow
def test_a_fine_tuned_encoder_ranks_findings_of_unseen_patients_above_chance(
    tmp_path: Path,
) -> None:
    from t3d.cohort.prepare import prepare
    from t3d.cohort.sources.folder import Folder
    from t3d.ct.preparations import named_preparation
    from t3d.judge.protocols.plain import PLAIN
    from t3d.judge.tasks import supervised
    from t3d.phantom.layouts import write_folder
    from t3d.phantom.presets import DEMO

    write_folder(tmp_path / "source", DEMO, train=500, dev=80, test=120, workers=1)
    prepare(Folder(tmp_path / "source"), tmp_path / "cohort", named_preparation("demo"), workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    start = train(short("clip", 60, 32), cohort, tmp_path / "clip", plan=QUIET)
    made = tuned(start, steps=150, every=50)
    made = replace(made, stages=tuple(replace(s, batch_size=32) for s in made.stages))
    run = tmp_path / "tuned"
    train(made, cohort, run, init=start, dev=dev_score(made, cohort), plan=QUIET)
    result = supervised.run(Trained.load(run), cohort, PLAIN)
    macro = next(m for m in result.metrics if m.name == "auroc:macro")
    assert macro.low > 0.55
