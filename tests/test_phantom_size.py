"""Size `phantom`: recipes run end to end with a network that sees voxels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.ct.preparations import named_preparation
from t3d.learn.build import build_model
from t3d.learn.recipe import Recipe, override
from t3d.learn.train import Plan, train
from t3d.learn.trained import Trained
from t3d.model.encoders.resnet import ResNet3d
from t3d.phantom.layouts import write_folder
from t3d.phantom.presets import STANDARD
from t3d.recipes import recipe

STUDIES = 5
STEPS = 2  # of each stage
NAMES = ("clip", "t3d_v3", "t3d_plus")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Phantoms of varying shape on the grid 48 x 96 x 96."""
    root = tmp_path_factory.mktemp("phantom_size")
    write_folder(root / "source", STANDARD, train=STUDIES, dev=0, test=0, workers=1, masks=())
    prepare(Folder(root / "source"), root / "cohort", named_preparation("phantom"), workers=0)
    return Cohort.open(root / "cohort")


def two_steps(name: str) -> Recipe:
    """The recipe as it stands, but two steps a stage; agreement starts at once."""
    settings = {"num_steps": str(STEPS), "batch_size": "4", "precision": "fp32"}
    if name == "t3d_v3":  # its agreement term starts after a tenth of the usual steps
        settings["stages.0.terms.1.start_step"] = "0"
    return override(recipe(name, "phantom"), settings)


@pytest.fixture(scope="module", params=NAMES)
def run(
    request: pytest.FixtureRequest, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path]:
    """Each recipe, trained."""
    made = two_steps(str(request.param))
    out = tmp_path_factory.mktemp(made.name)
    train(made, cohort, out, plan=Plan(log_every=1, num_evaluations=1, tensorboard=False))
    return made, out


def test_every_stage_takes_its_steps_with_finite_losses(run: tuple[Recipe, Path]) -> None:
    made, out = run
    lines = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]
    assert isinstance(made.image, ResNet3d)
    assert [line["step"] for line in lines] == list(range(1, STEPS * len(made.stages) + 1))
    for number, stage in enumerate(made.stages):
        kinds = {term.objective.kind for term in stage.terms}
        assert [set(line["terms"]) for line in lines if line["stage"] == number] == [kinds] * STEPS
    assert all(math.isfinite(v) for line in lines for v in line["terms"].values())
    assert all(line["gauges"]["grad_norm"] > 0 for line in lines)


def test_every_part_of_both_towers_has_moved(run: tuple[Recipe, Path]) -> None:
    made, out = run
    trained = Trained.load(out)
    before = build_model(made, trained.fitted)
    assert before.text is not None
    # Vectors for the image side: weight decay, which needs no gradient, leaves them alone.
    vectors = {name: p for name, p in before.image.named_parameters() if p.ndim == 1}
    after = trained.model.image
    assert [k for k, p in vectors.items() if torch.equal(p, after.get_parameter(k))] == []
    # AdamW's first steps move an entry by about the rate, decay by rate x 0.05 x entry.
    text = trained.model.text
    assert text is not None
    moved = [
        (p - text.get_parameter(name)).abs().max() for name, p in before.text.named_parameters()
    ]
    assert max(moved) > 0.5 * made.stages[-1].optim.lr


def test_the_checkpoint_embeds_a_volume_and_a_text(
    run: tuple[Recipe, Path], cohort: Cohort
) -> None:
    trained = Trained.load(run[1])
    first, second = (cohort.volume(row.volume_ids[0]) for row in cohort.studies("train")[:2])
    assert first.voxels.shape == (48, 96, 96)
    one, other = trained.embed_volume(first), trained.embed_volume(second)
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5)
    assert not np.allclose(one, other)
    text = trained.embed_text(["Pleural effusion on the left."])
    assert text.shape == (1, len(one))
    assert np.linalg.norm(text) == pytest.approx(1.0, abs=1e-5)
