"""What a finding's score is worth without any image: age, sex, scanner, other findings, one report.

A null is a table of scores like any other and goes through the protocol of the model it stands
beside. On CT-RATE a patient's age alone ranks the 18 findings with a macro AUROC of about .705.
Legend: N rows, F findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.embeddings import words_of
from t3d.judge.facts import Facts, facts_of
from t3d.judge.outcome import Outcome, difference
from t3d.judge.protocol import Protocol
from t3d.judge.strata import extended
from t3d.judge.truth import Truth, truth_of
from t3d.judge.units import ScoreTable, asked_of, judge_scores
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.embeddings import Embeddings

Floats = NDArray[np.float64]

NULLS: Mapping[str, str] = {
    "age": "age in years, nothing fitted",
    "sex": "sex, logistic",
    "age_sex": "age, its square and sex, logistic",
    "scanner": "manufacturer and kernel, logistic",
    "header": "slices, voxel sizes and extent, logistic",
    "other_findings": "how many other findings the labels state, nothing fitted",
}
"""Nulls of classification and what each knows. All-negative, all-positive, random and constant
answers stand in every classification as `blind:<model>:<measure>`."""

_FITTED = ("sex", "age_sex", "scanner", "header")
_LIFE_YEARS = 120.0  # age over this is a score within 0 and 1
_FOLDS = 5
_FEWEST = 10  # rows with a word before it is a column of its own
_STRENGTH = 1.0  # C of scikit-learn
FIT_SPLIT = "train"
CROSS_FIT = f"evaluated patients, {_FOLDS}-fold by patient"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Rows with their facts and labels."""

    facts: Facts
    truth: Truth  # one row a volume, beside the facts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nulls:
    """Nulls of one protocol on one split."""

    outcomes: Mapping[str, Outcome]  # null -> what it gets under the protocol
    absent: Mapping[str, str]  # null -> why it could not be made
    fit: str  # what the logistic ones were fitted on


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One model beside one null."""

    null: str
    value: Metric  # of the null
    difference: Metric  # model minus null, on the same draws
    beaten: bool  # the interval of the difference lies above 0

    def say(self) -> str:
        """One line for people."""
        gap = self.difference
        told = "beats" if self.beaten else "does NOT beat"
        return (
            f"{told} {self.null} ({NULLS.get(self.null, self.null)}): {self.value.value:.3f}, "
            f"difference {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        )


def nulls_of(
    cohort: Cohort,
    protocol: Protocol,
    outcome: Outcome,
    findings: Sequence[str],
    *,
    names: Sequence[str] = tuple(NULLS),
    splits: tuple[str, str] = ("dev", "test"),
) -> Nulls:
    """Judge nulls under the protocol and on the rows of a model's outcome.

    The logistic nulls are fitted on the split `FIT_SPLIT` where it has labels; else on the
    evaluated patients themselves, each fifth of them by the other four. Which it was is in
    `Nulls.fit` and in the provenance of every outcome.

    Args:
        cohort: An open cohort.
        protocol: Of the outcome.
        outcome: Of a classification.
        findings: Those that the model was asked for; the protocol's own list goes first.
        names: Which of `NULLS`.
        splits: Names of dev and test.

    Returns:
        The outcomes; a null whose facts nobody told is in `absent`.

    Raises:
        ProtocolError: A name is unknown, or as `units.judge_scores`.
    """
    unknown = [name for name in names if name not in NULLS]
    if unknown:
        raise ProtocolError(f"null {unknown[0]!r} is unknown", expected=", ".join(NULLS))
    rules = protocol.classes
    asked = asked_of(rules, findings)
    needed = rules.fitted_on == "dev"
    test = known_of(cohort, splits[1], asked, mapping=rules.mapping)
    test = _on_rows(test, outcome.table.study_ids)
    whole = test.facts.volume_ids == test.facts.study_ids
    dev = known_of(cohort, splits[0], asked, mapping=rules.mapping) if needed else None
    if dev is not None and whole:
        dev = _on_rows(dev, tuple(dict.fromkeys(dev.facts.study_ids)))
    fitted = _fitted_on(cohort, asked, rules.mapping)
    fit = FIT_SPLIT if fitted is not None else CROSS_FIT
    outcomes, absent = {}, {}
    for name in names:
        reason = lacking(name, test.facts)
        if reason:
            absent[name] = reason
            continue
        tables = tuple(
            None if rows is None else null_table(name, rows, fitted=fitted) for rows in (dev, test)
        )
        told = {"null": NULLS[name], "null_fit": fit if name in _FITTED else "nothing fitted"}
        assert tables[1] is not None
        outcomes[name] = judge_scores(
            cohort,
            protocol,
            tables=(tables[0], tables[1]),
            task=f"null:{name}",
            column=f"null_{name}",
            splits=splits,
            facts=told,
        )
    return Nulls(outcomes=outcomes, absent=absent, fit=fit)


def verdicts(outcome: Outcome, nulls: Nulls, *, metric: str = "auroc:macro") -> tuple[Verdict, ...]:
    """Compare a model with every null on the same draws.

    Args:
        outcome: The model's.
        nulls: Of the same protocol and split.
        metric: With draws in both; larger is better.

    Returns:
        One verdict a null. A null that is not beaten explains the model's number without an image.

    Raises:
        ProtocolError: Rows or protocols differ, or the metric is missing.
    """
    found = []
    for name, null in nulls.outcomes.items():
        gap = difference(outcome, null, metric)
        found.append(
            Verdict(null=name, value=null.metric(metric), difference=gap, beaten=gap.low > 0)
        )
    return tuple(found)


def with_nulls(outcome: Outcome, nulls: Nulls, *, metric: str = "auroc:macro") -> Outcome:
    """Put nulls into a model's result.

    Metrics `null:<name>:<metric>` and `over_null:<name>:<metric>` (model minus null, paired).
    Provenance: `nulls_fit`, and `nulls_not_beaten`, the names, where the interval of the
    difference reaches 0. Nulls that could not be made are in `excluded`.

    Args:
        outcome: The model's.
        nulls: From `nulls_of`.
        metric: That is compared.

    Returns:
        The outcome with more in it.
    """
    rows = verdicts(outcome, nulls, metric=metric)
    metrics: list[Metric] = []
    for row in rows:
        metrics.append(_named(row.value, f"null:{row.null}:{metric}"))
        metrics.append(_named(row.difference, f"over_null:{row.null}:{metric}"))
    lost = ", ".join(row.null for row in rows if not row.beaten)
    return extended(
        outcome,
        metrics,
        {},
        excluded={f"null {name}: {why}": 1 for name, why in nulls.absent.items()},
        provenance={"nulls_fit": nulls.fit, "nulls_not_beaten": lost or "none"},
    )


def known_of(cohort: Cohort, split: str, findings: Sequence[str], *, mapping: str = "") -> Known:
    """Read facts and labels of a split, one row a volume.

    Args:
        cohort: An open cohort.
        split: Its name.
        findings: Labels wanted.
        mapping: As for `truth.truth_of`.
    """
    facts = facts_of(cohort, split)
    truth = truth_of(cohort, split, findings, mapping=mapping)
    return Known(facts=facts, truth=beside(facts, truth))


def beside(facts: Facts, truth: Truth) -> Truth:
    """Repeat the truth of studies for every row of facts."""
    place = {study: i for i, study in enumerate(truth.study_ids)}
    return truth.taken([place[study] for study in facts.study_ids], volume_ids=facts.volume_ids)


def lacking(name: str, facts: Facts) -> str:
    """Say why a null cannot be made; "" = it can."""
    needs = {
        "age": ("age",),
        "sex": ("sex",),
        "age_sex": ("age", "sex"),
        "scanner": tuple(facts.words),
        "header": tuple(facts.numbers),
    }.get(name, ())
    if not needs:
        return ""
    some = [fact for fact in needs if facts.known(fact).any()]
    if name == "age_sex" and len(some) < 2:
        return f"no row states {' or '.join(n for n in needs if n not in some)}"
    return "" if some else f"no row states {' or '.join(needs)}"


def null_table(name: str, rows: Known, *, fitted: Known | None) -> ScoreTable:
    """Make the scores of one null, all within 0 and 1.

    Check: "age" of 60 years -> .5. "other_findings" of labels (1, 0, 1), F = 3 -> 1/3, 2/3, 1/3.

    Args:
        name: One of `NULLS`.
        rows: To be scored.
        fitted: What a logistic null is fitted on; None = the rows themselves, each fifth of the
            patients by the other four.

    Returns:
        One row a volume. A row whose facts are not known gets the median of the others (age,
        numbers) or no column of its own (words).
    """
    truth, facts = rows.truth, rows.facts
    shape = truth.labels.shape
    if name == "age":
        filled = _filled(facts.age_years, _middle(facts.age_years))
        scores = np.repeat(np.clip(filled / _LIFE_YEARS, 0, 1)[:, None], shape[1], axis=1)
    elif name == "other_findings":
        stated = (truth.labels == 1).astype(np.float64)
        scores = (stated.sum(axis=1, keepdims=True) - stated) / shape[1]
    else:
        scores = _probabilities(
            _crossed(name, rows) if fitted is None else _fit(name, fitted, rows)
        )
    return ScoreTable(
        findings=truth.findings,
        volume_ids=facts.volume_ids,
        study_ids=facts.study_ids,
        order=facts.order,
        scores=scores,
        patient_ids=facts.patient_ids,
        whole_studies=facts.volume_ids == facts.study_ids,
    )


def folds(facts: Facts) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to fit on and rows to score, no patient on both sides; fixed by the patients' ids."""
    patients, of_row = np.unique(np.asarray(facts.patient_ids, dtype=str), return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(patients)) % _FOLDS
    return [
        (np.flatnonzero(fold[of_row] != k), np.flatnonzero(fold[of_row] == k))
        for k in range(min(_FOLDS, len(patients)))
    ]


def frequent_report(cohort: Cohort, embedded: Embeddings, *, fit: str = FIT_SPLIT) -> Embeddings:
    """Turn embeddings into those of a model that gives every image the most frequent reports.

    Every image lies in one direction; a report lies the closer to it the more often its text
    stands in the split `fit`. Image to text, the most frequent report is listed first for all;
    text to image, all images tie. It beats chance only where reports are repeated.

    Args:
        cohort: With reports.
        embedded: Of the evaluated split; studies, reports and ids are taken from it.
        fit: Split whose reports are counted; without studies, the evaluated reports are.

    Returns:
        Embeddings of two columns, for the task of retrieval.
    """
    studies = cohort.studies(fit)
    if studies:
        seen = Counter(_text(cohort, study.study_id) for study in studies)
        counts = np.array([seen[_text(cohort, study)] for study in embedded.study_ids])
    else:
        told = Counter(embedded.report_ids)
        counts = np.array([told[number] for number in embedded.report_ids])
    share = counts / max(1, counts.max(initial=0))
    text = np.stack([share, np.sqrt(1 - share**2)], axis=1).astype(np.float32)
    text[~embedded.has_report] = np.nan
    image = np.zeros_like(text)
    image[:, 0] = 1.0
    return type(embedded)(
        study_ids=embedded.study_ids,
        patient_ids=embedded.patient_ids,
        image=image,
        text=text,
        report_ids=embedded.report_ids,
        volume_ids=embedded.volume_ids,
        order=embedded.order,
    )


def _text(cohort: Cohort, study_id: str) -> str:
    """What identical reports have in common; "" = none."""
    report = cohort.report(study_id)
    return "" if report is None else words_of(report)


def _on_rows(rows: Known, row_ids: Sequence[str]) -> Known:
    """The rows that an outcome judged."""
    facts = rows.facts.of_rows(row_ids)
    return Known(facts=facts, truth=_one_a_study(rows.truth, facts))


def _one_a_study(truth: Truth, facts: Facts) -> Truth:
    """Truth of some rows, found by study."""
    first = {study: i for i, study in reversed(list(enumerate(truth.study_ids)))}
    return truth.taken([first[study] for study in facts.study_ids], volume_ids=facts.volume_ids)


def _some(rows: Known, index: NDArray[np.intp]) -> Known:
    """Some rows."""
    taken = index.tolist()
    facts = rows.facts.taken(taken)
    return Known(facts=facts, truth=rows.truth.taken(taken, volume_ids=facts.volume_ids))


def _fitted_on(cohort: Cohort, findings: Sequence[str], mapping: str) -> Known | None:
    """Facts and labels of the split that is fitted on; None = it has none."""
    studies = cohort.studies(FIT_SPLIT)
    if not any(value is not None for study in studies for value in study.labels.values()):
        return None
    return known_of(cohort, FIT_SPLIT, findings, mapping=mapping)


def _crossed(name: str, rows: Known) -> Floats:
    """(N, F) log odds, each fifth of the patients by the other four.

    A fold with many positives is scored by a fit that saw few, so pooled scores would run against
    the labels. Every fit is therefore moved to one mean over all rows, which needs no label.
    """
    fits = [(_fit(name, _some(rows, inside), rows), out) for inside, out in folds(rows.facts)]
    middle = np.mean([logits.mean(axis=0) for logits, _ in fits], axis=0)
    scores = np.zeros(rows.truth.labels.shape)
    for logits, outside in fits:
        scores[outside] = (logits - logits.mean(axis=0) + middle)[outside]
    return scores


def _fit(name: str, fitted: Known, rows: Known) -> Floats:
    """(N, F) log odds of a logistic model a finding; 0 where the fit saw one class only."""
    from sklearn.linear_model import LogisticRegression

    made, seen = (_features(name, fitted.facts, facts) for facts in (fitted.facts, rows.facts))
    mean, spread = made.mean(axis=0), made.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    made, seen = (made - mean) / scale, (seen - mean) / scale
    out: Floats = np.zeros(rows.truth.labels.shape)
    for f in range(len(rows.truth.findings)):
        stated = fitted.truth.labels[:, f] >= 0
        target = fitted.truth.labels[stated, f]
        if made.size and len(np.unique(target)) == 2:
            model = LogisticRegression(C=_STRENGTH, max_iter=2000).fit(made[stated], target)
            out[:, f] = model.decision_function(seen)
    return out


def _probabilities(logits: Floats) -> Floats:
    """Probabilities of log odds."""
    from scipy.special import expit

    return np.asarray(expit(logits), dtype=np.float64)


def _features(name: str, fitted: Facts, rows: Facts) -> Floats:
    """Columns of a logistic null; what to fill in and which words count is read from the fit."""
    if name == "scanner":
        return np.concatenate([_worded(fitted, rows, word) for word in rows.words], axis=1)
    if name == "header":
        return np.concatenate([_numbered(fitted, rows, key) for key in rows.numbers], axis=1)
    sex = np.stack([[s == word for s in rows.sex] for word in ("F", "M")], axis=1)
    if name == "sex":
        return sex.astype(np.float64)
    unknown = ~np.isfinite(rows.age_years)
    age = _filled(rows.age_years, _middle(fitted.age_years))
    return np.column_stack((age, age**2, unknown, sex)).astype(np.float64)


def _worded(fitted: Facts, rows: Facts, name: str) -> Floats:
    """One column a word that is frequent enough in the fit."""
    held = Counter(fitted.words.get(name, ()))
    frequent = sorted(word for word, count in held.items() if word and count >= _FEWEST)
    table = [[float(told == word) for word in frequent] for told in rows.words[name]]
    return np.array(table, dtype=np.float64).reshape(len(rows), len(frequent))


def _numbered(fitted: Facts, rows: Facts, name: str) -> Floats:
    """A number on the scale of doublings, and whether it is known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        made, seen = np.log2(fitted.numbers[name]), np.log2(rows.numbers[name])
    return np.column_stack((_filled(seen, _middle(made)), ~np.isfinite(seen))).astype(np.float64)


def _filled(values: Floats, instead: float) -> Floats:
    """Values with what is not known replaced."""
    return np.where(np.isfinite(values), values, instead)


def _middle(values: Floats) -> float:
    """Median of what is known, 0 if nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _named(metric: Metric, name: str) -> Metric:
    """The metric under another name."""
    return replace(metric, name=name)
