"""Scores that were told the labels, and the logistic baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from t3d.errors import ProtocolError
from t3d.judge.logistic import (
    CELLS,
    PATCHES,
    PERCENTILES,
    STRENGTHS,
    WINDOWS_HU,
    fit_scores,
    logistic_baseline,
    volume_features,
)
from t3d.judge.protocol import Protocol
from t3d.judge.tasks import supervised
from t3d.judge.truth import truth_of
from t3d.types import Volume


class Teacher:
    """Scores every study by its labels plus noise."""

    def __init__(self, findings: tuple[str, ...], noise: float) -> None:
        self.findings = findings
        self.noise = noise

    def score_studies(self, cohort: Any, study_ids: Sequence[str]) -> Any:
        rows = {row.study_id: row.labels for row in cohort.rows}
        rng = np.random.default_rng(0)
        known = [[float(rows[s][f] or 0) for f in self.findings] for s in study_ids]
        return np.array(known) + self.noise * rng.normal(size=(len(study_ids), len(self.findings)))


def box(shape: tuple[int, int, int], voxels: Any) -> Volume:
    """A volume of given HU."""
    array = np.broadcast_to(voxels, shape).astype(np.int16)
    return Volume(volume_id="v", voxels=array, world_from_voxel=np.eye(4))


def slow_features(voxels: Any) -> list[float]:
    """The features, patch by patch and voxel by voxel."""
    out: list[float] = []
    for low, high in WINDOWS_HU:
        for reduce in (lambda v: sum(v) / len(v), max):
            cells: dict[tuple[int, int, int], list[float]] = {}
            for place in np.ndindex(PATCHES, PATCHES, PATCHES):
                piece = voxels
                for axis, i in enumerate(place):
                    n = voxels.shape[axis]
                    rows = range(i * n // PATCHES, (i + 1) * n // PATCHES)
                    piece = np.take(piece, list(rows), axis=axis)
                seen = [min(max(float(v), low), high) for v in piece.ravel()]
                key = tuple(i * CELLS // PATCHES for i in place)
                cells.setdefault(key, []).append((reduce(seen) - low) / (high - low))
            out += [sum(cells[k]) / len(cells[k]) for k in sorted(cells)]
        inside = sorted(float(v) for v in voxels.ravel() if low <= v <= high)
        for q in PERCENTILES:
            # the smallest value that q % of the voxels do not exceed
            hit = next((v for i, v in enumerate(inside) if 100 * (i + 1) >= q * len(inside)), low)
            out.append((hit - low) / (high - low))
    return out


def test_a_teacher_without_noise_reaches_the_ceiling(
    cohort: Any, quick: Protocol, findings: tuple[str, ...]
) -> None:
    result = supervised.run(Teacher(findings, 0.0), cohort, quick)
    found = {m.name: m for m in result.metrics}
    for name in ("auroc:macro", "auroc:large", "auroc:small", "balanced_accuracy:macro"):
        assert found[name].value == found[name].ceiling == 1.0


def test_a_noisy_teacher_lies_between_chance_and_ceiling(
    cohort: Any, quick: Protocol, findings: tuple[str, ...]
) -> None:
    result = supervised.run(Teacher(findings, 1.0), cohort, quick, name="noisy")
    macro = next(m for m in result.metrics if m.name == "auroc:macro")
    assert 0.5 < macro.low < macro.value < macro.high < 1.0
    assert result.task == "supervised"
    assert result.provenance["scores"] == "noisy"


def test_scores_of_another_shape_or_not_finite_are_refused(
    cohort: Any, quick: Protocol, findings: tuple[str, ...]
) -> None:
    dev, test = (len(cohort.studies(split)) for split in ("dev", "test"))
    good, short = np.zeros((dev, 4)), np.zeros((test, 3))
    with pytest.raises(ProtocolError, match=r"scores of shape \(90, 3\)"):
        supervised.measure(cohort, quick, findings=findings, scores=(good, short), name="x")
    holes = np.zeros((test, 4))
    holes[7, 2] = np.nan
    study = cohort.studies("test")[7].study_id
    with pytest.raises(ProtocolError, match=f"1 of 90 studies.*{study}"):
        supervised.measure(cohort, quick, findings=findings, scores=(good, holes), name="x")


@pytest.mark.parametrize("shape", [(16, 18, 20), (17, 33, 16)])
def test_features_equal_their_definition(shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(1).normal(-100, 600, shape).astype(np.int16)
    np.testing.assert_allclose(
        volume_features(box(shape, voxels)), slow_features(voxels), atol=2e-6
    )


def test_features_of_water_are_known() -> None:
    found = volume_features(box((16, 16, 16), 0)).reshape(3, 132)
    lung, soft, bone = found
    assert (lung[:128] == 1.0).all()  # clamped at -300
    np.testing.assert_allclose(soft, 150 / 400, atol=1e-6)  # 0 HU in -150..250
    assert (bone == 0.0).all()
    assert (lung[128:] == 0.0).all()  # no voxel inside the window


def test_features_do_not_depend_on_memory_order() -> None:
    voxels = np.random.default_rng(2).integers(-1024, 3071, (16, 20, 24)).astype(np.int16)
    one = volume_features(box(voxels.shape, voxels))
    two = volume_features(
        Volume(volume_id="v", voxels=np.asfortranarray(voxels), world_from_voxel=np.eye(4))
    )
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_grid_that_is_too_coarse_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"volume v: \(8, 64, 64\) voxels"):
        volume_features(box((8, 64, 64), 0))


def test_the_baseline_finds_a_planted_nodule_and_nothing_where_nothing_is_planted(
    make_cohort: Any, quick: Protocol
) -> None:
    whole = make_cohort({"train": 160, "dev": 60, "test": 80}, seed=2, unknown=0.05)
    names = ("Lung nodule", "Pleural effusion")
    found = logistic_baseline(whole, names)
    assert found.skipped == ()
    scores = (found.dev, found.test)
    result = supervised.measure(whole, quick, findings=names, scores=scores, name="logistic").result
    values = {m.name: m for m in result.metrics}
    assert values["auroc:Lung nodule"].value > 0.95
    assert 0.3 < values["auroc:Pleural effusion"].value < 0.7


def test_the_strength_is_the_best_on_dev_and_the_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 6)) * 3 + 1 for n in (200, 80, 40)]
    target = (rows[0][:, 0] + rng.normal(size=200) > 1).astype(np.int8)[:, None]
    dev = (rows[1][:, 0] + rng.normal(size=80) > 1).astype(np.int8)[:, None]
    found = fit_scores((rows[0], rows[1], rows[2]), (target, dev), ("x",))
    mean, spread = rows[0].mean(axis=0), rows[0].std(axis=0)
    strength = found.strength["x"]
    plain = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
    plain.fit((rows[0] - mean) / spread, target[:, 0])
    expected = plain.decision_function((rows[2] - mean) / spread)
    np.testing.assert_allclose(found.test[:, 0], expected, atol=0.02)


def test_a_finding_with_one_class_in_training_is_skipped_by_name() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    labels = np.zeros((20, 2), dtype=np.int8)
    labels[::2, 0] = 1
    labels[::3, 1] = -1
    found = fit_scores((rows, rows, rows), (labels, labels), ("both", "never"))
    assert found.skipped == ("never",)
    assert (found.test[:, 1] == 0.0).all()
    assert (found.test[:, 0] != 0.0).any()


def test_the_weakest_fit_stays_where_dev_cannot_choose() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    labels = (rows[:, :1] > 0).astype(np.int8)
    found = fit_scores((rows, rows, rows), (labels, np.zeros_like(labels)), ("x",))
    assert found.strength["x"] == min(STRENGTHS)


def test_training_labels_that_are_not_stated_are_left_out() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    labels = (rows[:, :1] > 0).astype(np.int8)
    hidden = labels.copy()
    hidden[40:] = -1
    found = fit_scores((rows, rows, rows), (hidden, labels), ("x",))
    kept = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    expected = LogisticRegression(C=found.strength["x"], max_iter=5000, tol=1e-8)
    expected.fit(kept[:40], labels[:40, 0])
    np.testing.assert_allclose(found.test[:, 0], expected.decision_function(kept), atol=0.02)


def test_truth_reads_missing_and_unknown_labels_as_not_stated(cohort: Any) -> None:
    found = truth_of(cohort, "test", ("Lung nodule", "Something else"))
    assert (found.labels[:, 1] == -1).all()
    unknown = [row.labels["Lung nodule"] is None for row in cohort.studies("test")]
    np.testing.assert_array_equal(found.labels[:, 0] == -1, unknown)
    moved = found.permuted(np.arange(90)[::-1])
    np.testing.assert_array_equal(moved.labels[0], found.labels[-1])
    assert moved.study_ids == found.study_ids
