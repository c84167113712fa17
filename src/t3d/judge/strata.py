"""Whom the numbers speak for: the same scores by sex, age or scanner, and among patients alike.

Everything here starts from an outcome of `classification.classify`: its table holds scores and
labels, its metrics the thresholds. Legend: N rows, F findings, B draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.drawn import answers_drawn, auroc_drawn
from t3d.judge.facts import WORDS, Facts
from t3d.judge.outcome import Outcome, metric_of
from t3d.judge.protocol import Protocol
from t3d.judge.rules import called_by
from t3d.scores.auroc import auroc
from t3d.scores.bootstrap import Draws, interval, mean_over_findings
from t3d.scores.confusion import Confusion
from t3d.scores.matched import matched_auroc
from t3d.scores.thresholds import rule_named
from t3d.types import Metric, Result

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.int8]

BY = ("sex", "age", *WORDS)
"""What results can be split by."""
AGE_BANDS = (("under 40", 0.0), ("40-59", 40.0), ("60-79", 60.0), ("80 and over", 80.0))
"""Bands of age in years and where each begins; our choice."""
MIN_CLASS = 10  # positives and negatives that a stratum needs before it gets a number
MEASURES = ("auroc", "sensitivity", "specificity")
MATCH_YEARS = 0.0  # largest difference of age in a matched pair: the same age in whole years


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Scores and labels of an outcome, as its table holds them."""

    findings: tuple[str, ...]
    scores: Floats  # (N, F)
    labels: Labels  # (N, F) 1, 0, -1 = not stated


def judged_rows(outcome: Outcome) -> Judged:
    """Read scores and labels back from an outcome.

    Args:
        outcome: Of a classification.

    Raises:
        ProtocolError: Its table has no scores of one model.
    """
    columns = outcome.table.columns
    named = {name.split(":", 2)[2]: name for name in columns if name.startswith("score:")}
    models = {name.split(":", 2)[1] for name in columns if name.startswith("score:")}
    if len(models) != 1 or any(f"label:{finding}" not in columns for finding in named):
        raise ProtocolError(
            f"task {outcome.result.task}: a table with scores of {len(models)} models",
            expected="columns score:<model>:<finding> of one model, and label:<finding>",
            fix="give the outcome of one classification",
        )
    told = np.stack([columns[f"label:{finding}"] for finding in named], axis=1)
    return Judged(
        findings=tuple(named),
        scores=np.stack([columns[name] for name in named.values()], axis=1),
        labels=np.where(np.isnan(told), -1, told).astype(np.int8),
    )


def with_matched(
    outcome: Outcome, facts: Facts, *, num_draws: int = 1000, seed: int = 0
) -> Outcome:
    """Add the AUROC among patients of one sex and one age in years to a classification.

    A score that says nothing but the age gets exactly .5. A window of two years does not give
    that: on CT-RATE's validation tables it leaves age .517 [.512, .523], a window of none leaves
    3.9 % of the positives without a match.

    Metrics `matched_auroc:<finding>` and `matched_auroc:macro`, chance .5, intervals by patient;
    counts `unmatched:<finding>` (positives that no negative of their sex and age stands
    beside) and `matched_pairs:<finding>`. Nothing is added where no row has both
    facts; `excluded` says so.

    Args:
        outcome: Of a classification.
        facts: Of its rows, or of more.
        num_draws: Draws of patients.
        seed: Of the draws.

    Returns:
        The outcome with more metrics.
    """
    if any(metric.name == "matched_auroc:macro" for metric in outcome.result.metrics):
        return outcome
    judged, own = judged_rows(outcome), facts.of_rows(outcome.table.study_ids)
    if not (own.known("age") & own.known("sex")).any():
        gone = {"no age and sex, so no matched AUROC": len(own)}
        return extended(outcome, (), {}, excluded=gone)
    draws = Draws.of(outcome.table.patient_ids, num_draws=num_draws, seed=seed)
    found = matched_auroc(
        judged.scores,
        judged.labels,
        draws,
        age_years=own.age_years,
        sex=own.sex,
        width_years=MATCH_YEARS,
    )
    used = [f for f in range(len(judged.findings)) if np.isfinite(found.values[f])]
    rows: list[tuple[str, float, Floats, Flags]] = [
        (judged.findings[f], found.values[f], found.draws[:, f], judged.labels[:, f] >= 0)
        for f in used
    ]
    if used:
        drawn = mean_over_findings(found.draws[:, used])
        anyone = np.asarray((judged.labels >= 0).any(axis=1))
        rows.insert(0, ("macro", float(np.mean(found.values[used])), drawn, anyone))
    metrics, kept = [], {}
    for name, value, drawn, keep in rows:
        key = f"matched_auroc:{name}"
        metrics.append(_metric(key, value, drawn, draws, keep, {"chance": 0.5, "ceiling": 1.0}))
        kept[key] = drawn
    counts = {"rows without age or sex": found.unknown}
    for f, name in enumerate(judged.findings):
        counts[f"unmatched:{name}"] = int(found.unmatched[f])
        counts[f"matched_pairs:{name}"] = int(found.pairs[f])
    told = {"matched_within_years": f"{MATCH_YEARS:g}"}
    return extended(outcome, metrics, kept, counts=counts, provenance=told)


def by_stratum(
    outcome: Outcome,
    protocol: Protocol,
    facts: Facts,
    by: str,
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Outcome:
    """Split a classification by a fact.

    AUROC, sensitivity and specificity of every finding in every stratum, the thresholds being
    those of the whole. Names: `auroc:<finding>|sex=F`, `auroc:macro|sex=F`, and
    `auroc:macro|sex=F minus M` for the difference to the largest stratum (over the findings that
    have a number in both, on the same draws of patients). A stratum with fewer than `MIN_CLASS`
    positives or negatives of a finding gets no number for it; `excluded` names it.

    Args:
        outcome: Of a classification.
        protocol: Its rules; they say which side of a threshold is positive.
        facts: Of its rows, or of more.
        by: One of `BY`.
        num_draws: Draws of patients, whatever the protocol resamples.
        seed: Of the draws.

    Returns:
        An outcome of task `strata:<by>`, over the same table.

    Raises:
        ProtocolError: Nothing is known to split by.
    """
    if by not in BY:
        raise ProtocolError(f"results by {by!r}", expected=", ".join(BY), fix="name one of them")
    judged, own = judged_rows(outcome), facts.of_rows(outcome.table.study_ids)
    groups = groups_of(own, by)
    present = sorted(set(groups) - {""})
    if not present:
        raise ProtocolError(
            f"no row of the evaluated split says its {by}",
            expected=f"the fact {by!r} of studies or volumes",
            fix="prepare the cohort from a source that records it, or split by another fact",
        )
    draws = Draws.of(outcome.table.patient_ids, num_draws=num_draws, seed=seed)
    sheet = _Sheet(judged=judged, draws=draws, called=_called(outcome, judged, protocol))
    sizes = {name: groups.count(name) for name in present}
    for name in present:
        keep = np.array([group == name for group in groups])
        sheet.add_stratum(f"{by}={name}", keep, patients=_patients(draws, keep))
    largest = min(present, key=lambda name: (-sizes[name], name))
    for name in present:
        if name != largest:
            sheet.add_difference(by, name, largest)
    counts = {f"rows|{by}={name}": size for name, size in sizes.items()}
    unknown = groups.count("")
    told = {"by": by, "resampled": "patients", "smallest_class": str(MIN_CLASS)}
    told |= {"num_draws": str(num_draws), "seed": str(seed)}
    if by == "age":
        told["age_bands"] = ", ".join(name for name, _ in AGE_BANDS)
    result = Result(
        task=f"strata:{by}",
        protocol=outcome.result.protocol,
        metrics=tuple(sheet.metrics),
        counts=counts,
        excluded=sheet.excluded | ({f"{by} not known": unknown} if unknown else {}),
        provenance={**outcome.result.provenance, **told},
    )
    return Outcome(result=result, table=outcome.table, draws=sheet.drawn)


def groups_of(facts: Facts, by: str) -> list[str]:
    """Name the stratum of every row; "" = not known."""
    if by == "age":
        starts = [start for _, start in AGE_BANDS]
        place = np.searchsorted(starts, facts.age_years, side="right") - 1
        return [
            AGE_BANDS[i][0] if known else ""
            for i, known in zip(place, facts.known("age"), strict=True)
        ]
    return list(facts.sex if by == "sex" else facts.words.get(by, ("",) * len(facts)))


@dataclass(slots=True, kw_only=True, eq=False)
class _Sheet:
    """What one split collects."""

    judged: Judged
    draws: Draws
    called: Mapping[int, Flags]  # finding -> (N,) called positive; one without threshold has none
    metrics: list[Metric] = field(default_factory=list)
    drawn: dict[str, Floats] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    def add_stratum(self, stratum: str, keep: Flags, *, patients: int) -> None:
        """All measures of one stratum."""
        within: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
        for f, finding in enumerate(self.judged.findings):
            labels = np.where(keep, self.judged.labels[:, f], np.int8(-1))
            fewest = int(min((labels == 1).sum(), (labels == 0).sum()))
            if fewest < MIN_CLASS:
                name = f"fewer than {MIN_CLASS} positives or negatives: {finding}|{stratum}"
                self.excluded[name] = fewest
                continue
            for measure, value, drawn in self._measured(f, labels):
                within[measure][finding] = value
                self._note(f"{measure}:{finding}|{stratum}", value, drawn, patients, measure)
        for measure, of_finding in within.items():
            self.values[measure, stratum] = of_finding
            if of_finding:
                value, drawn = self._mean(measure, stratum, tuple(of_finding))
                self._note(f"{measure}:macro|{stratum}", value, drawn, patients, measure)

    def add_difference(self, by: str, name: str, other: str) -> None:
        """Macro measures of a stratum minus those of the largest one."""
        strata = f"{by}={name}", f"{by}={other}"
        for measure in MEASURES:
            one, two = (self.values[measure, stratum] for stratum in strata)
            both = tuple(finding for finding in one if finding in two)
            if not both:
                continue
            first, second = (self._mean(measure, stratum, both) for stratum in strata)
            drawn = first[1] - second[1]
            key = f"{measure}:macro|{strata[0]} minus {other}"
            spread = interval(drawn)
            num = self.draws.num_patients
            metric = metric_of(key, first[0] - second[0], spread, num, bounds={"chance": 0.0})
            self.metrics.append(metric)
            self.drawn[key] = drawn

    def _measured(self, f: int, labels: Labels) -> list[tuple[str, float, Floats]]:
        """Measure, value and draws of one finding within a stratum."""
        scores, stated = self.judged.scores[:, f], labels >= 0
        rows = [
            (
                "auroc",
                auroc(scores[stated], labels[stated]),
                auroc_drawn(scores, labels, self.draws),
            )
        ]
        if f in self.called:
            once = Draws.disabled(len(labels))
            whole = answers_drawn(self.called[f], labels, once)
            drawn = answers_drawn(self.called[f], labels, self.draws)
            rows += [(m, float(_read(whole, m)[0]), _read(drawn, m)) for m in MEASURES[1:]]
        return rows

    def _mean(self, measure: str, stratum: str, findings: Sequence[str]) -> tuple[float, Floats]:
        """Mean over findings, and its draws."""
        held = self.values[measure, stratum]
        columns = [self.drawn[f"{measure}:{finding}|{stratum}"] for finding in findings]
        value = float(np.mean([held[finding] for finding in findings]))
        return value, mean_over_findings(np.stack(columns, axis=1))

    def _note(self, key: str, value: float, drawn: Floats, num: int, measure: str) -> None:
        """Keep a metric and its draws."""
        bounds = {"chance": 0.5, "floor": 0.5, "ceiling": 1.0} if measure == "auroc" else {}
        self.metrics.append(metric_of(key, value, interval(drawn), num, bounds=bounds))
        self.drawn[key] = drawn


def _read(answers: Confusion, measure: str) -> Floats:
    """A measure of counts."""
    found: Floats = getattr(answers, measure)
    return found


def _called(outcome: Outcome, judged: Judged, protocol: Protocol) -> dict[int, Flags]:
    """Which rows each finding's threshold calls positive."""
    told = {m.name: m.value for m in outcome.result.metrics if m.name.startswith("threshold:")}
    rule = rule_named(protocol.classes.threshold)
    return {
        f: called_by(judged.scores[:, f], told[f"threshold:{finding}"], rule)
        for f, finding in enumerate(judged.findings)
        if f"threshold:{finding}" in told
    }


def _patients(draws: Draws, keep: Flags) -> int:
    """How many patients some rows are of."""
    return len(np.unique(draws.row_patient[keep]))


def _metric(
    name: str, value: float, drawn: Floats, draws: Draws, keep: Flags, bounds: Mapping[str, float]
) -> Metric:
    """A metric with the interval of its draws."""
    return metric_of(name, value, interval(drawn), _patients(draws, keep), bounds=bounds)


def extended(
    outcome: Outcome,
    metrics: Sequence[Metric],
    drawn: Mapping[str, Floats],
    *,
    counts: Mapping[str, int] | None = None,
    excluded: Mapping[str, int] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Outcome:
    """Add metrics with their draws, counts, exclusions and provenance to an outcome."""
    result = outcome.result
    more = replace(
        result,
        metrics=(*result.metrics, *metrics),
        counts={**result.counts, **(counts or {})},
        excluded={**result.excluded, **(excluded or {})},
        provenance={**result.provenance, **(provenance or {})},
    )
    return replace(outcome, result=more, draws={**outcome.draws, **drawn})
