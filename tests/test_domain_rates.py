"""How often the domain rule is right: phantoms as they are, and spoiled in known ways.

The kinds of change are those of benchmarks/domain.py, whose table is docs/results/domain.json.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from t3d.cohort.store import Cohort
from t3d.learn.domain import DomainVerdict, extent_mm, features, fit_rule, judge, rule_from
from t3d.types import Volume

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "results" / "domain.json"

FLIPS = ("flipped left to right", "flipped front to back", "flipped head to foot")
FOREIGN = (  # what nobody may screen unnoticed
    *("lower half of z", "upper half of z", "right half of x", "left half of x"),
    *("lower half of z, air above", "upper half of z, air below"),
    *("right half of x, air beside", "left half of x, air beside"),
    *("slice spacing x 0.5", "slice spacing x 2", "pixel spacing x 1.3"),
    *("white noise, sd 1000 HU", "water noise, sd 30 HU", "own voxels shuffled"),
)


def load_benchmark() -> ModuleType:
    """Import the script that writes the table."""
    spec = importlib.util.spec_from_file_location("rates", ROOT / "benchmarks" / "domain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rate(told: list[bool]) -> float:
    return sum(told) / len(told)


@pytest.fixture(scope="module")
def rates() -> ModuleType:
    return load_benchmark()


@pytest.fixture(scope="module")
def cohort(rates: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """100 training and 40 test phantoms: fewer than a training has, so its limits are rougher."""
    made: Cohort = rates.made_cohort(tmp_path_factory.mktemp("rates"), train=100, test=40)
    return made


@pytest.fixture(scope="module")
def verdicts(rates: ModuleType, cohort: Cohort) -> Mapping[str, list[DomainVerdict]]:
    """Every change of every test phantom, judged."""
    rule = fit_rule(cohort, "demo", rates.volumes_of(cohort, "train", 100))
    told: dict[str, list[DomainVerdict]] = {name: [] for name in rates.CHANGES}
    for volume_id in rates.volumes_of(cohort, "test", 40):
        judged = rates.verdicts_of(rule, cohort.volume(volume_id, "demo"))
        for name, verdict in judged.items():
            told[name].append(verdict)
    return told


def test_new_phantoms_are_in_domain(verdicts: Mapping[str, list[DomainVerdict]]) -> None:
    assert rate([verdict.inside for verdict in verdicts["unchanged"]]) >= 0.95


@pytest.mark.parametrize("name", FLIPS)
def test_a_flipped_phantom_is_foreign_and_its_axis_is_named(
    verdicts: Mapping[str, list[DomainVerdict]], name: str
) -> None:
    words = f"mirrored {name.removeprefix('flipped ')}: check its orientation"
    others = [f"mirrored {flip.removeprefix('flipped ')}" for flip in FLIPS if flip != name]
    told = [" ".join(verdict.reasons) for verdict in verdicts[name]]
    assert rate([words in text for text in told]) >= 0.95
    assert rate([any(other in text for other in others) for text in told]) <= 0.05


@pytest.mark.parametrize("name", FOREIGN)
def test_what_must_not_be_screened_is_foreign(
    verdicts: Mapping[str, list[DomainVerdict]], name: str
) -> None:
    assert rate([not verdict.inside for verdict in verdicts[name]]) >= 0.95


@pytest.mark.parametrize("name", [name for name in FOREIGN if "air" in name or "noise" in name])
def test_what_has_the_usual_size_is_told_by_its_voxels(
    verdicts: Mapping[str, list[DomainVerdict]], name: str
) -> None:
    told = [" ".join(verdict.reasons) for verdict in verdicts[name]]
    assert not any(" size " in text for text in told)
    assert rate([bool(text) for text in told]) >= 0.95


def test_a_wrong_spacing_is_told_by_the_size_alone(
    verdicts: Mapping[str, list[DomainVerdict]],
) -> None:
    for name, axes in (("slice spacing x 2", "z"), ("pixel spacing x 1.3", "yx")):
        for before, after in zip(verdicts["unchanged"], verdicts[name], strict=True):
            new = [reason for reason in after.reasons if reason not in before.reasons]
            assert [reason[0] for reason in new] == list(axes)
            assert all(" size " in reason for reason in new)


def test_the_score_passes_1_exactly_where_a_reason_is_given(
    verdicts: Mapping[str, list[DomainVerdict]],
) -> None:
    every = [verdict for told in verdicts.values() for verdict in told]
    assert {verdict.inside for verdict in every} == {True, False}
    for verdict in every:
        assert verdict.inside == (verdict.score <= 1.0) == (verdict.reasons == ())
        assert math.isfinite(verdict.score)


def test_a_checkpoint_of_40_phantoms_does_not_call_new_ones_foreign(
    rates: ModuleType, cohort: Cohort
) -> None:
    train = [cohort.volume(i, "demo") for i in rates.volumes_of(cohort, "train", 40)]
    test = [cohort.volume(i, "demo") for i in rates.volumes_of(cohort, "test", 40)]
    rule = rule_from(
        np.stack([features(volume) for volume in train]),
        np.stack([extent_mm(volume) for volume in train]),
    )
    assert rate([judge(rule, volume).inside for volume in test]) >= 0.90
    turned = [rates.CHANGES["flipped left to right"](volume) for volume in test]
    assert rate([judge(rule, volume).inside for volume in turned]) <= 0.05


def test_a_corpus_without_sides_never_calls_a_scan_mirrored(cohort: Cohort) -> None:
    """Training scans that come as often mirrored as not must not be held against each other."""
    rows, sizes = [], []
    for row in cohort.studies("train"):
        volume = cohort.volume(row.volume_ids[0], "demo")
        for voxels in (volume.voxels, volume.voxels[:, :, ::-1]):
            both = Volume(
                volume_id=volume.volume_id,
                voxels=np.ascontiguousarray(voxels),
                world_from_voxel=volume.world_from_voxel,
            )
            rows.append(features(both))
            sizes.append(extent_mm(both))
    rule = rule_from(np.stack(rows), np.stack(sizes))
    told = [
        reason
        for row in cohort.studies("test")
        for reason in judge(rule, cohort.volume(row.volume_ids[0], "demo")).reasons
    ]
    assert not any("left to right" in reason for reason in told)


def test_the_table_in_the_docs_meets_what_the_readme_may_promise() -> None:
    rows = {row["name"]: row for row in json.loads(TABLE.read_text(encoding="ascii"))}
    assert rows["unchanged"]["value"] <= 0.05
    for name in (*FLIPS, *FOREIGN):
        assert rows[name]["value"] >= 0.95, name


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_rule_of_a_training_gives(
    rates: ModuleType, tmp_path: Path
) -> None:
    """600 training and 300 test phantoms; two patients of difference are left to rounding."""
    cohort = rates.made_cohort(tmp_path, train=600, test=300)
    made = {row["name"]: row["value"] for row in rates.measure(cohort, train=600, test=300)}
    held = {row["name"]: row["value"] for row in json.loads(TABLE.read_text(encoding="ascii"))}
    assert list(made) == list(held)
    for name, value in held.items():
        assert made[name] == pytest.approx(value, abs=2 / 300), name
