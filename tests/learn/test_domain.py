"""The rule that says whether a scan is like the training scans."""

from __future__ import annotations

import numpy as np
import pytest

from t3d.cohort.store import Cohort
from t3d.learn.domain import DomainRule, extent_mm, features, fit_rule, judge
from t3d.types import Volume


def volume(voxels: np.ndarray, spacing: tuple[float, float, float] = (9.0, 5.0, 5.0)) -> Volume:
    world = np.eye(4)
    world[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    return Volume(volume_id="v", voxels=voxels.astype(np.int16), world_from_voxel=world)


def test_features_equal_their_slow_twin() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1024, 2000, (8, 16, 24))
    given = features(volume(voxels))
    values = np.clip(voxels.astype(np.float64) / 1000.0, -1.0, 1.0)
    mean, deviation = [], []
    for z in range(8):
        for y in range(8):
            for x in range(8):
                block = values[z : z + 1, 2 * y : 2 * y + 2, 3 * x : 3 * x + 3]
                mean.append(block.mean())
                deviation.append(block.std())
    assert np.allclose(given, np.array([*mean, *deviation]), atol=1e-3)


def test_a_constant_volume_has_no_deviation() -> None:
    given = features(volume(np.full((9, 10, 11), 500)))
    assert np.allclose(given[:512], 0.5)
    assert np.allclose(given[512:], 0.0, atol=1e-3)


def test_size_is_spacing_times_voxels() -> None:
    assert extent_mm(volume(np.zeros((4, 5, 6)))).tolist() == [36.0, 25.0, 30.0]


@pytest.fixture(scope="module")
def rule(small_cohort: Cohort) -> DomainRule:
    ids = [row.volume_ids[0] for row in small_cohort.studies("train")]
    return fit_rule(small_cohort, "demo", ids)


def changed(original: Volume, voxels: np.ndarray) -> Volume:
    return Volume(
        volume_id="changed",
        voxels=np.ascontiguousarray(voxels).astype(np.int16),
        world_from_voxel=original.world_from_voxel,
    )


def test_noise_and_half_a_field_are_foreign(small_cohort: Cohort, rule: DomainRule) -> None:
    original = small_cohort.volume(small_cohort.studies("test")[0].volume_ids[0])
    noise = np.random.default_rng(0).integers(-1000, 1000, original.voxels.shape)
    half = original.voxels.copy()
    half[: len(half) // 2] = -1024
    for foreign in (noise, half):
        verdict = judge(rule, changed(original, foreign))
        assert not verdict.inside
        assert verdict.score > 1.0
        assert verdict.reasons


def test_a_wrong_spacing_is_told_by_the_size(small_cohort: Cohort, rule: DomainRule) -> None:
    original = small_cohort.volume(small_cohort.studies("test")[0].volume_ids[0])
    world = original.world_from_voxel.copy()
    world[2, 0] *= 2.0  # slices said to be twice as far apart
    wrong = Volume(volume_id="w", voxels=original.voxels, world_from_voxel=world)
    verdict = judge(rule, wrong)
    assert not verdict.inside
    assert any("z size" in reason for reason in verdict.reasons)
