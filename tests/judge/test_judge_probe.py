"""The probe: the same patients for every model, rare findings kept, scores as scikit-learn's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from t3d.errors import ProtocolError, RecipeError
from t3d.judge.tasks import probe
from t3d.judge.tasks.probe import ProbeRules
from t3d.learn.shares import labelled_studies

RULES = ProbeRules(shares=(0.1, 1.0), num_label_draws=3)


@dataclass(frozen=True)
class Pooled:
    """Features beside noise: the labels themselves, or nothing of them."""

    findings: tuple[str, ...]
    knows: float = 1.0

    def pool_studies(self, cohort: Any, study_ids: Sequence[str]) -> NDArray[np.float32]:
        """Labels as signs times `knows`, and a column of noise."""
        labels = {row.study_id: row.labels for row in cohort.studies()}
        rng = np.random.default_rng(0)
        rows = [
            [self.knows * (1.0 if labels[s][f] else -1.0) for f in self.findings] + [0.0]
            for s in study_ids
        ]
        noise = rng.normal(0, 0.1, (len(rows), len(rows[0])))
        return (np.array(rows) + noise).astype(np.float32)

    def embed_studies(self, cohort: Any, study_ids: Sequence[str]) -> NDArray[np.float32]:
        """Not what is probed."""
        raise AssertionError("pooled features are there")


def metrics(result: Any) -> dict[str, float]:
    return {metric.name: metric.value for metric in result.metrics}


def test_a_small_share_lies_inside_a_larger_one_and_patients_stay_whole(
    cohort: Any, findings: tuple[str, ...]
) -> None:
    held = [
        set(labelled_studies(cohort, findings, share=share, seed=3).study_ids)
        for share in (0.01, 0.1, 0.5, 1.0)
    ]
    assert held[0] < held[1] < held[2] < held[3]
    patients = [{r.patient_id for r in cohort.studies("train") if r.study_id in h} for h in held]
    for studies, people in zip(held, patients, strict=True):
        assert studies == {r.study_id for r in cohort.studies("train") if r.patient_id in people}
    other = set(labelled_studies(cohort, findings, share=0.1, seed=4).study_ids)
    assert other != held[1]


def test_the_hash_of_the_patient_decides_and_a_rare_finding_gets_its_first_patient() -> None:
    names = [f"p{i}" for i in range(10)]
    order = sorted(names, key=lambda p: hashlib.sha256(f"7:{p}".encode()).hexdigest())
    rows = tuple(
        SimpleNamespace(
            study_id=f"s-{p}",
            patient_id=p,
            volume_ids=("v",),
            labels={"A": int(p in (order[6], order[8])), "B": None},
        )
        for p in names
    )
    fake: Any = SimpleNamespace(studies=lambda split: rows)
    found = labelled_studies(fake, ("A", "B"), share=0.2, seed=7)
    assert set(found.study_ids) == {f"s-{p}" for p in (*order[:2], order[6])}
    assert (found.num_patients, found.num_added) == (3, 1)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(
    cohort: Any, findings: tuple[str, ...], share: float
) -> None:
    with pytest.raises(RecipeError, match="share"):
        labelled_studies(cohort, findings, share=share, seed=0)


def test_features_that_know_reach_the_ceiling_and_blind_ones_chance(
    cohort: Any, findings: tuple[str, ...], quick: Any
) -> None:
    for knows, few, every in ((4.0, (0.9, 1.0), (0.999, 1.0)), (0.0, (0.35, 0.65), (0.35, 0.65))):
        model = Pooled(findings, knows)
        results = probe.run(model, cohort, quick, rules=RULES, findings=findings)
        assert [r.provenance["label_share"] for r in results] == ["0.1", "1"]
        for result, (low, high) in zip(results, (few, every), strict=True):
            assert low <= metrics(result)["auroc:macro"] <= high


def test_scores_are_those_of_scikit_learn_on_the_same_rows(
    cohort: Any, findings: tuple[str, ...], quick: Any
) -> None:
    model = Pooled(findings, 0.05)
    features = probe.features_of(model, cohort)
    (outcome,) = probe.measure(
        cohort, quick, features=features, rules=replace(RULES, shares=(0.1,)), findings=findings
    )
    wanted = labelled_studies(cohort, findings, share=0.1, seed=0).study_ids
    train = [row for row in cohort.studies("train") if row.study_id in wanted]
    x = model.pool_studies(cohort, [r.study_id for r in cohort.studies("train")])
    x = x[[i for i, r in enumerate(cohort.studies("train")) if r in train]].astype(np.float64)
    test = model.pool_studies(cohort, [r.study_id for r in cohort.studies("test")])
    finding = "Pleural effusion"
    y = [row.labels[finding] for row in train]
    twin = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=5000)
    mean, sd = x.mean(0), x.std(0)
    twin.fit((x - mean) / sd, y)
    expected = twin.decision_function((test - mean) / sd)
    found = outcome.table.columns[f"score:probe-0.1:{finding}"]
    assert np.allclose(found, expected, atol=5e-3)


def test_draws_of_labels_have_a_spread_around_their_mean(
    cohort: Any, findings: tuple[str, ...], quick: Any
) -> None:
    results = probe.run(Pooled(findings, 0.05), cohort, quick, rules=RULES, findings=findings)
    found = {m.name: m for m in results[0].metrics}
    mean = found["label_draws:auroc:macro"]
    low, high = (found[f"label_draws_{w}:auroc:macro"].value for w in ("low", "high"))
    assert low < mean.value < high
    assert mean.low < mean.value < mean.high
    assert found["label_draws_low:auroc:macro"].n == 3
    assert "label_draws:auroc:macro" not in {m.name for m in results[1].metrics}


def test_a_finding_with_one_class_in_training_is_named_and_has_no_score(
    make_cohort: Callable[..., Any], findings: tuple[str, ...], quick: Any
) -> None:
    made = make_cohort({"train": 40, "dev": 30, "test": 40})
    rows = tuple(
        replace(row, labels={**row.labels, "Cardiomegaly": 0}) if row.split == "train" else row
        for row in made.rows
    )
    results = probe.run(
        Pooled(findings), replace(made, rows=rows), quick, rules=RULES, findings=findings
    )
    for result in results:
        assert result.excluded["one class in the labels read: Cardiomegaly"] == 1
        assert "auroc:Cardiomegaly" not in metrics(result)
        assert "auroc:Pleural effusion" in metrics(result)


def test_strength_can_be_chosen_on_dev_and_every_rule_enters_the_digest(
    cohort: Any, findings: tuple[str, ...], quick: Any
) -> None:
    chosen = replace(RULES, shares=(1.0,), strengths=(1e-4, 1.0, 100.0))
    (result,) = probe.run(Pooled(findings, 0.05), cohort, quick, rules=chosen, findings=findings)
    assert result.provenance["probe"] == chosen.digest()
    changes = ({"seed": 1}, {"balanced": False}, {"strengths": (2.0,)}, {"num_label_draws": 9})
    assert len({replace(RULES, **change).digest() for change in changes}) == len(changes)


def test_features_that_are_not_finite_are_refused(
    cohort: Any, findings: tuple[str, ...], quick: Any
) -> None:
    @dataclass(frozen=True)
    class Broken(Pooled):
        """One study has no number."""

        def pool_studies(self, cohort: Any, study_ids: Sequence[str]) -> NDArray[np.float32]:
            """NaN in the first row."""
            rows = Pooled.pool_studies(self, cohort, study_ids)
            rows[0, 0] = np.nan
            return rows

    with pytest.raises(ProtocolError, match="not finite"):
        probe.run(Broken(findings), cohort, quick, rules=RULES, findings=findings)
