"""A small prepared phantom cohort and a short recipe, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.ct.preparations import named_preparation
from t3d.learn.recipe import Recipe
from t3d.phantom.layouts import write_folder
from t3d.phantom.presets import DEMO
from t3d.recipes import recipe


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """40 training, 12 dev and 12 test patients on the demo grid."""
    root: Path = tmp_path_factory.mktemp("small")
    write_folder(root / "source", DEMO, train=40, dev=12, test=12, workers=1)
    prepare(Folder(root / "source"), root / "cohort", named_preparation("demo"), workers=0)
    return Cohort.open(root / "cohort")


def short(name: str, steps: int, batch_size: int = 8) -> Recipe:
    """A named recipe with few steps and small batches."""
    made = recipe(name, "demo")
    stages = tuple(replace(stage, num_steps=steps, batch_size=batch_size) for stage in made.stages)
    return replace(made, stages=stages)
