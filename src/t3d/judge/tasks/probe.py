"""Linear probe: what a linear model reads from frozen features with few or all labels.

One L2 logistic regression a finding on the encoder's pooled features, fitted on a share of the
training patients, judged like any scores. Which patients a share holds is decided by a seeded hash
of their id (`t3d.learn.shares`), so that every model is probed on the same ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.classification import macro_auroc
from t3d.judge.drawn import auroc_drawn
from t3d.judge.embeddings import JudgedModel
from t3d.judge.logistic import fit_scores
from t3d.judge.outcome import Outcome, draws_of, metric_of
from t3d.judge.results import write_results
from t3d.judge.rules import Scored, both_classes_of
from t3d.judge.truth import truth_of
from t3d.judge.units import ScoreTable, judge_scores, rows_of, scored_of
from t3d.learn.shares import Labelled, labelled_studies
from t3d.scores.bootstrap import interval, mean_over_findings
from t3d.scores.calibration import Logistic
from t3d.scores.comparison import with_seeds
from t3d.text.findings import CT_RATE_18

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol
    from t3d.types import Metric, Result

Floats = NDArray[np.float64]
MACRO = "auroc:macro"
MAX_NEWTON = 512  # features up to which Newton's method is quicker: 7 steps instead of 200
TOLERANCE = 1e-6  # of the solver: another one gives the same scores to three digits


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRules:
    """How features are probed; the digest stands beside every number."""

    shares: tuple[float, ...] = (0.01, 0.1, 1.0)  # of the training patients
    num_label_draws: int = 5  # seeds of every share below 1; the first one is judged in full
    seed: int = 0  # of the first draw
    strengths: tuple[float, ...] = (1.0,)  # C of scikit-learn; of several the best on dev
    balanced: bool = True  # both classes weigh the same

    def digest(self) -> str:
        """Give the sha256 of all fields as hexadecimal text."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


PROBE = ProbeRules()
"""C = 1, balanced: a public benchmark's probe, with our shares instead of its five folds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """Frozen features of the studies of train, dev and test."""

    study_ids: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    values: tuple[Floats, Floats, Floats]  # (N, C) each


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    rules: ProbeRules = PROBE,
    findings: Sequence[str] = CT_RATE_18,
    splits: tuple[str, str, str] = ("train", "dev", "test"),
    out: Path | None = None,
) -> tuple[Result, ...]:
    """Probe a model's pooled features at every share of the labels.

    Args:
        model: Gives `pool_studies` (features before any projection), or else `embed_studies`.
        cohort: With labels.
        protocol: Rules of classification.
        rules: Of the probe.
        findings: What is probed.
        splits: Names of train, dev and test.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        One result a share, smallest first; see `measure`.

    Raises:
        ProtocolError: As `measure`.
    """
    features = features_of(model, cohort, splits)
    outcomes = measure(
        cohort, protocol, features=features, rules=rules, findings=findings, splits=splits
    )
    return tuple(o.result for o in outcomes) if out is None else write_results(out, outcomes)


def features_of(
    model: JudgedModel, cohort: Cohort, splits: tuple[str, str, str] = ("train", "dev", "test")
) -> Features:
    """Encode every study that has a volume, once.

    Args:
        model: Gives `pool_studies`, or else `embed_studies`.
        cohort: An open cohort.
        splits: Names of train, dev and test.

    Returns:
        The features.

    Raises:
        ProtocolError: A split is empty, or a feature is not finite.
    """
    encode = getattr(model, "pool_studies", model.embed_studies)
    ids, values = [], []
    for split in splits:
        ids.append(tuple(row.study_id for row in cohort.studies(split) if row.volume_ids))
        if not ids[-1]:
            raise ProtocolError(
                f"split {split!r} has no study with a volume",
                expected="train, dev and test",
                fix="prepare the cohort with all three",
            )
        values.append(np.asarray(encode(cohort, list(ids[-1])), dtype=np.float64))
        bad = np.flatnonzero(~np.isfinite(values[-1]).all(axis=1))
        if len(bad):
            raise ProtocolError(
                f"{len(bad)} studies have features that are not finite, "
                f"the first: {ids[-1][bad[0]]}",
                expected="finite features",
                fix="find why the model gives none",
            )
    return Features(study_ids=(ids[0], ids[1], ids[2]), values=(values[0], values[1], values[2]))


def measure(
    cohort: Cohort,
    protocol: Protocol,
    *,
    features: Features,
    rules: ProbeRules = PROBE,
    findings: Sequence[str] = CT_RATE_18,
    splits: tuple[str, str, str] = ("train", "dev", "test"),
) -> tuple[Outcome, ...]:
    """Probe features that were made before.

    Every share is judged in full with its first draw of labels, as any scores are. Beside that:
    `label_draws:auroc:macro`, the mean over draws of labels with an interval over those draws and
    patients; `label_draws_low:` and `label_draws_high:auroc:macro`, the worst and the best draw.

    Args:
        cohort: With labels.
        protocol: Rules of classification.
        features: From `features_of`.
        rules: Of the probe.
        findings: What is probed. Those without both classes in the training split are named in
            `excluded` and have no scores.
        splits: Names of train, dev and test.

    Returns:
        One outcome a share, smallest first.

    Raises:
        ProtocolError: No finding has both classes, or as `units.judge_scores`.
        RecipeError: A share is not within 0..1.
    """
    held = [
        _labels_of(cohort, split, findings, studies)
        for split, studies in zip(splits[:2], features.study_ids[:2], strict=True)
    ]
    ground = _Ground(
        cohort=cohort,
        protocol=protocol,
        features=features,
        rules=rules,
        findings=tuple(findings),
        splits=splits,
        labels=(held[0], held[1]),
    )
    outcomes = []
    for share in sorted(rules.shares):
        num = 1 if share == 1 else rules.num_label_draws
        fits = [_fit(ground, share, rules.seed + i) for i in range(num)]
        judged = _judge(ground, fits[0])
        outcomes.append(_with_spread(judged, ground, fits) if num > 1 else judged)
    return tuple(outcomes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """What all fits share."""

    cohort: Cohort
    protocol: Protocol
    features: Features
    rules: ProbeRules
    findings: tuple[str, ...]
    splits: tuple[str, str, str]
    labels: tuple[NDArray[np.int8], NDArray[np.int8]]  # of train and dev, rows as the features


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    """One probe: findings with both classes, and what it says of dev and test."""

    share: float
    seed: int
    labelled: Labelled
    findings: tuple[str, ...]
    left_out: tuple[str, ...]
    scores: tuple[Floats, Floats]  # (N, F) log odds of dev and test


def _labels_of(
    cohort: Cohort, split: str, findings: Sequence[str], study_ids: Sequence[str]
) -> NDArray[np.int8]:
    """Labels of studies in the order given."""
    truth = truth_of(cohort, split, findings)
    place = {study: i for i, study in enumerate(truth.study_ids)}
    return truth.labels[[place[study] for study in study_ids]]


def _fit(ground: _Ground, share: float, seed: int) -> _Fit:
    """Fit on the labels of one share."""
    train = ground.splits[0]
    labelled = labelled_studies(ground.cohort, ground.findings, share=share, seed=seed, split=train)
    wanted = frozenset(labelled.study_ids)
    rows = [i for i, study in enumerate(ground.features.study_ids[0]) if study in wanted]
    values = ground.features.values
    fitted = fit_scores(
        (values[0][rows], values[1], values[2]),
        (ground.labels[0][rows], ground.labels[1]),
        ground.findings,
        strengths=ground.rules.strengths,
        balanced=ground.rules.balanced,
        tol=TOLERANCE,
        solver="newton-cholesky" if values[0].shape[1] <= MAX_NEWTON else "lbfgs",
    )
    kept = [f for f, name in enumerate(ground.findings) if name in fitted.strength]
    if not kept:
        raise ProtocolError(
            f"no finding has both classes among the {len(rows)} studies whose labels are read",
            expected="at least one",
            fix="probe on a cohort with labels",
        )
    return _Fit(
        share=share,
        seed=seed,
        labelled=labelled,
        findings=tuple(ground.findings[f] for f in kept),
        left_out=fitted.skipped,
        scores=(fitted.dev[:, kept], fitted.test[:, kept]),
    )


def _table(ground: _Ground, fit: _Fit, split: int) -> ScoreTable:
    """Scores of dev (0) or test (1); probabilities where the protocol wants them."""
    ids = ground.features.study_ids[1 + split]
    scores = fit.scores[split]
    if ground.protocol.classes.score != "cosine_difference":
        scores = Logistic(slope=1.0, intercept=0.0).probability(scores)
    return ScoreTable(
        findings=fit.findings,
        volume_ids=ids,
        study_ids=ids,
        order=(0,) * len(ids),
        scores=scores,
        whole_studies=True,
    )


def _judge(ground: _Ground, fit: _Fit) -> Outcome:
    """Judge one probe in full."""
    facts = {
        "probe": ground.rules.digest(),
        "label_share": f"{fit.share:g}",
        "label_seed": str(fit.seed),
    }
    outcome = judge_scores(
        ground.cohort,
        ground.protocol,
        tables=(_table(ground, fit, 0), _table(ground, fit, 1)),
        task="probe",
        column=f"probe-{fit.share:g}",
        splits=ground.splits[1:],
        facts=facts,
    )
    read = {
        "label_studies": len(fit.labelled.study_ids),
        "label_patients": fit.labelled.num_patients,
        "label_patients_for_rare_findings": fit.labelled.num_added,
    }
    lacking = {f"one class in the labels read: {name}": 1 for name in fit.left_out}
    result = outcome.result
    return replace(
        outcome,
        result=replace(
            result, counts={**result.counts, **read}, excluded={**result.excluded, **lacking}
        ),
    )


def _with_spread(outcome: Outcome, ground: _Ground, fits: Sequence[_Fit]) -> Outcome:
    """Add what other draws of labels give."""
    values, drawn = [], []
    for fit in fits:
        rules = ground.protocol.classes
        scored_findings = scored_of(rules, fit.findings)
        truth = truth_of(ground.cohort, ground.splits[2], scored_findings, mapping=rules.mapping)
        scored = rows_of(_table(ground, fit, 1), truth, ground.protocol)
        values.append(macro_auroc(scored))
        drawn.append(_macro_drawn(scored, ground.protocol))
    spread = interval(with_seeds(np.stack(drawn), seed=ground.rules.seed))
    n = outcome.metric(MACRO).n
    name, bounds = f"label_draws:{MACRO}", {"chance": 0.5, "floor": 0.5, "ceiling": 1.0}
    mean = float(np.mean(values))
    extra: list[Metric] = [metric_of(name, mean, spread, n, bounds=bounds)]
    unit = "draws of labels"
    for word, value in (("low", min(values)), ("high", max(values))):
        name = f"label_draws_{word}:{MACRO}"
        extra.append(
            replace(extra[0], name=name, value=value, low=nan, high=nan, n=len(fits), unit=unit)
        )
    result = replace(outcome.result, metrics=(*outcome.result.metrics, *extra))
    return replace(outcome, result=result)


def _macro_drawn(scored: Scored, protocol: Protocol) -> Floats:
    """Macro AUROC in every draw of patients."""
    draws = draws_of(scored.truth.patient_ids, protocol.intervals)
    labels = scored.truth.labels
    columns = [
        auroc_drawn(scored.scores[:, f], labels[:, f], draws)
        for f in np.flatnonzero(both_classes_of(labels))
    ]
    return mean_over_findings(np.stack(columns, axis=1))
