"""One input for everything that ends in scores, and how it becomes rows beside their truth.

A `ScoreTable` comes from a model (`zero_shot.ask`), or from a file made elsewhere. It keeps raw
cosines and the logit scale where they are known, so that one table can be judged under every
protocol. Legend: N volumes, F findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.classification import classify
from t3d.judge.data.classes import ARTERIAL, CORONARY, class_list
from t3d.judge.outcome import Outcome, provenance
from t3d.judge.protocol import Classification, Protocol, factor_of
from t3d.judge.rules import Scored
from t3d.judge.truth import Truth, truth_of
from t3d.scores.missing import worst_case

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreTable:
    """Scores of volumes, larger = more likely present, in any order.

    Either `scores`, or the raw cosines of both sides.
    """

    findings: tuple[str, ...]
    volume_ids: tuple[str, ...]
    study_ids: tuple[str, ...]
    order: tuple[int, ...]  # place of the reconstruction within its study, 0 = first
    scores: Floats | None = None  # (N, F) probabilities or scores; NaN = missing
    positive: Floats | None = None  # (N, F) cosine with the finding's positive side
    negative: Floats | None = None  # (N, F) cosine with its negative side
    logit_scale: float | None = None  # the model's own factor on cosines; None = not known
    patient_ids: tuple[str, ...] = ()  # () = the truth knows
    whole_studies: bool = False  # rows are studies: the model embeds no single volume

    def __post_init__(self) -> None:
        num = len(self.volume_ids)
        tables = [t for t in (self.scores, self.positive, self.negative) if t is not None]
        wrong = [t.shape for t in tables if t.shape != (num, len(self.findings))]
        sides = (self.positive is None) + (self.negative is None)
        if wrong or len(self.study_ids) != num or len(self.order) != num:
            raise ProtocolError(
                f"scores of shape {wrong[0] if wrong else (num,)} for {num} volumes, "
                f"{len(self.study_ids)} studies and {len(self.findings)} findings",
                expected="one row a volume, one column a finding",
                fix="give volume_ids, study_ids and order for every row",
            )
        if sides == 1 or (self.scores is None and sides == 2):
            raise ProtocolError(
                "a table with one side of the cosines, or without any score",
                expected="scores, or positive and negative cosines",
                fix="give both sides",
            )
        twice = [name for name, count in Counter(self.volume_ids).items() if count > 1]
        if twice:
            raise ProtocolError(
                f"{len(twice)} volumes have two rows, the first: {min(twice)}",
                expected="one row a volume",
                fix="remove repeated rows; distributed samplers pad with copies",
            )


def asked_of(rules: Classification, findings: Sequence[str]) -> tuple[str, ...]:
    """Findings that a protocol asks for; its own list, or those given where it has none."""
    return class_list(rules.findings, default=tuple(findings))


def scored_of(rules: Classification, findings: Sequence[str]) -> tuple[str, ...]:
    """Findings that are scored, after both calcifications are merged where the protocol says."""
    return class_list(rules.scored, default=asked_of(rules, findings))


def scores_of(table: ScoreTable, protocol: Protocol) -> tuple[Floats, dict[str, int]]:
    """Make the scores of a protocol: columns, temperature, merging.

    Check: cosines .30 and .25: difference .05; softmax at temperature none .512497, at fixed:100
    .993307. Calcification scores (.6, .1), (.2, .4), (.45, .3): ctclip_max .6, .4, .45;
    hlip_half .6, .2, .3.

    Args:
        table: Of N volumes.
        protocol: With rules for classification.

    Returns:
        (N, F) in the order of `scored_of`, NaN = missing; notes on what was taken instead.

    Raises:
        ProtocolError: A finding has no column (unless the protocol counts it as 0), the
            temperature is the model's own and not known, or a probability is not within 0..1.
    """
    rules = protocol.classes
    values = _values(table, protocol)
    asked = asked_of(rules, table.findings)
    lacking = [name for name in asked if name not in table.findings]
    if lacking and rules.missing != "zero":
        raise ProtocolError(
            f"protocol {protocol.name!r}: no scores for {', '.join(lacking)}",
            expected=f"the {len(asked)} findings of {rules.findings!r}",
            fix="score these findings too, or name a protocol without them",
        )
    columns = {name: values[:, f] for f, name in enumerate(table.findings)}
    columns |= {name: np.zeros(len(values)) for name in lacking}
    if rules.merge != "none":
        columns[ARTERIAL] = _merged(columns[ARTERIAL], columns[CORONARY], rules.merge)
    wanted = scored_of(rules, table.findings)
    notes = {f"no scores, counted as 0: {name}": len(values) for name in lacking}
    return np.stack([columns[name] for name in wanted], axis=1), notes


def rows_of(table: ScoreTable, truth: Truth, protocol: Protocol) -> Scored:
    """Put a table beside the truth, in the unit of a protocol.

    Args:
        table: Any order of rows; the result does not depend on it.
        truth: One row a study, findings as `scored_of`.
        protocol: With rules for classification.

    Returns:
        One row a volume or study, ordered by study and reconstruction. What is left out or
        taken instead is counted in `notes` and `excluded`.

    Raises:
        ProtocolError: As `scores_of`; or a volume or score is missing and the protocol does not
            say what it counts as; or a patient has another id than in the truth.
    """
    rules = protocol.classes
    values, notes = scores_of(table, protocol)
    place = {study: i for i, study in enumerate(truth.study_ids)}
    known = [i for i, study in enumerate(table.study_ids) if study in place]
    known.sort(key=lambda i: (place[table.study_ids[i]], table.order[i], table.volume_ids[i]))
    _same_patients(table, truth, known)
    by_volume = rules.unit == "volume" and not table.whole_studies
    rows = [_Row(place[table.study_ids[i]], table.volume_ids[i], table.order[i]) for i in known]
    scores = values[known]
    if not by_volume:
        rows, scores, later = _by_study(rows, scores, rules.unit)
        notes["first reconstruction missing, a later one taken"] = later
    if table.whole_studies and rules.unit == "volume":
        notes["studies scored whole, the model embeds no single volume"] = len(rows)
    absent = _absent(rows, truth, by_volume=by_volume)
    excluded = {"volumes of studies outside the split": len(table.study_ids) - len(known)}
    excluded["without any score"] = len(absent) if rules.missing_case == "left_out" else 0
    if absent and rules.missing_case == "error":
        raise ProtocolError(
            f"{len(absent)} of {len(absent) + len(rows)} {'volumes' if by_volume else 'studies'} "
            f"have no row, the first: {absent[0].volume_id}",
            expected=f"every {'volume' if by_volume else 'study'} of the split",
            fix="score them too, or allow missing ones: each counts as the worst the truth allows",
        )
    if rules.missing_case == "worst":
        rows, scores = _with_empty(rows, scores, absent)
    taken = truth.taken(
        [row.study for row in rows], volume_ids=[r.volume_id for r in rows] if by_volume else ()
    )
    notes |= _missing(scores, taken.findings)
    filled = _filled(scores, taken, rules)
    return Scored(truth=taken, scores=filled, notes=_some(notes), excluded=_some(excluded))


def judge_scores(
    cohort: Cohort,
    protocol: Protocol,
    *,
    tables: tuple[ScoreTable | None, ScoreTable],
    task: str,
    column: str,
    splits: tuple[str, str] = ("dev", "test"),
    facts: Mapping[str, str],
) -> Outcome:
    """Judge tables of scores, from a model or from a file, under any protocol.

    Args:
        cohort: With labels.
        protocol: Rules.
        tables: Of dev (None where the protocol does not fit thresholds there) and of test.
        task: Name of the task in the result.
        column: Names the score columns: `score:<column>:<finding>`.
        splits: Names of dev and test.
        facts: What the result rests on, beside cohort, protocol and splits.

    Returns:
        The outcome; `provenance` says the unit and the temperature that were used.

    Raises:
        ProtocolError: As `rows_of` and `classification.classify`.
    """
    rules = protocol.classes
    first = tables[0] if rules.fitted_on == "dev" else None
    if first is None and rules.fitted_on == "dev":
        raise ProtocolError(
            f"protocol {protocol.name!r} fits thresholds on dev, and there are no dev scores",
            expected="scores of both splits",
            fix="score the dev split too, or name a protocol with another threshold rule",
        )
    dev, test = (
        None if table is None else _scored(cohort, protocol, table, split)
        for table, split in zip((first, tables[1]), splits, strict=True)
    )
    if test is None:
        raise AssertionError("no table of the evaluated split")
    told = {"unit": rules.unit}
    if rules.score != "cosine_difference":
        scale = tables[1].logit_scale
        told["temperature"] = rules.temperature or "as given"
        told |= {} if scale is None else {"logit_scale": repr(scale)}
    if rules.mapping:
        told["mapping"] = rules.mapping
    shown = {"dev": splits[0], "test": splits[1]} if dev is not None else {"test": splits[1]}
    return classify(
        dev,
        test,
        protocol,
        task=task,
        column=column,
        provenance=provenance(cohort, protocol, **facts, **shown, **told),
    )


def _scored(cohort: Cohort, protocol: Protocol, table: ScoreTable, split: str) -> Scored:
    """A table beside the truth of its split."""
    rules = protocol.classes
    findings = scored_of(rules, table.findings)
    truth = truth_of(cohort, split, findings, mapping=rules.mapping)
    return rows_of(table, truth, protocol)


class _Row(NamedTuple):
    """Where a row belongs."""

    study: int  # row of the truth
    volume_id: str
    order: int = 0


def _values(table: ScoreTable, protocol: Protocol) -> Floats:
    """Scores of the table's own findings: as given, difference of cosines, or softmax."""
    rules = protocol.classes
    decimals = protocol.score_decimals
    if table.positive is None or table.negative is None:
        assert table.scores is not None
        values = np.asarray(table.scores, dtype=np.float64)
        outside = int(np.count_nonzero((values < 0) | (values > 1)))
        if outside and rules.score != "cosine_difference":
            raise ProtocolError(
                f"protocol {protocol.name!r}: {outside} of {values.size} scores are below 0 or "
                "above 1",
                expected="probabilities, or raw cosines of both sides",
                fix="store raw cosines and the logit scale; the protocol makes probabilities",
            )
        return values
    sides = (np.asarray(side, dtype=np.float64) for side in (table.positive, table.negative))
    near, far = (side if decimals is None else side.round(decimals) for side in sides)
    apart = near - far if decimals is None else (near - far).round(decimals)
    if rules.score == "cosine_difference":
        return apart
    factor = factor_of(rules.temperature) if rules.score == "softmax_pair" else None
    factor = table.logit_scale if factor is None else factor
    if factor is None:
        raise ProtocolError(
            f"protocol {protocol.name!r} scores at the model's own temperature, which is not known",
            expected="the logit scale beside the cosines",
            fix="store logit_scale, or fix one: Protocol.at_temperature(100)",
        )
    return _logistic(factor * apart)


def _logistic(logit: Floats) -> Floats:
    """Softmax of two values, of the first; does not overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def _merged(arterial: Floats, coronary: Floats, rule: str) -> Floats:
    """One score of both calcifications."""
    larger, smaller = np.maximum(arterial, coronary), np.minimum(arterial, coronary)
    return larger if rule == "ctclip_max" else np.where(larger > 0.5, larger, smaller)


def _by_study(rows: list[_Row], scores: Floats, unit: str) -> tuple[list[_Row], Floats, int]:
    """First or mean of each study, and how often the first reconstruction was not there."""
    starts = [i for i, row in enumerate(rows) if not i or rows[i - 1].study != row.study]
    heads = [rows[i] for i in starts]
    later = sum(row.order > 0 for row in heads) if unit != "study:mean" else 0
    if unit == "study:mean":
        parts = np.split(scores, starts[1:]) if starts else []
        means = [part.mean(axis=0) for part in parts]
        return heads, np.array(means).reshape(len(heads), scores.shape[1]), later
    return heads, scores[starts], later


def _absent(rows: Sequence[_Row], truth: Truth, *, by_volume: bool) -> list[_Row]:
    """Volumes or studies of the truth that have no row."""
    if by_volume and truth.volumes:
        there = {row.volume_id for row in rows}
        return [
            _Row(i, volume, place)
            for i, volumes in enumerate(truth.volumes)
            for place, volume in enumerate(volumes)
            if volume not in there
        ]
    scored = {row.study for row in rows}
    return [_Row(i, study) for i, study in enumerate(truth.study_ids) if i not in scored]


def _with_empty(rows: list[_Row], scores: Floats, absent: list[_Row]) -> tuple[list[_Row], Floats]:
    """Add rows without a score, in the order of the truth."""
    every = [*rows, *absent]
    order = sorted(range(len(every)), key=lambda i: (every[i].study, every[i].order, every[i][1]))
    empty = np.full((len(absent), scores.shape[1]), np.nan)
    return [every[i] for i in order], np.concatenate((scores, empty))[order]


def _filled(scores: Floats, truth: Truth, rules: Classification) -> Floats:
    """Put in what a missing score counts as."""
    gone = np.isnan(scores)
    if not gone.any():
        return scores
    if rules.missing == "zero":
        return np.where(gone, 0.0, scores)
    if rules.missing == "worst":
        bounds = None if rules.score == "cosine_difference" else (0.0, 1.0)
        return worst_case(scores, truth.labels, bounds=bounds)
    first = int(np.flatnonzero(gone.any(axis=1))[0])
    raise ProtocolError(
        f"{int(gone.any(axis=1).sum())} of {len(scores)} studies have a score that is not finite, "
        f"the first: {truth.row_ids[first]}",
        expected="a finite score for every study and finding",
        fix="find why the model gives none, or allow missing ones: each counts as the worst the "
        "truth allows, never as 0",
    )


def _missing(scores: Floats, findings: Sequence[str]) -> dict[str, int]:
    """How many scores of each finding are missing."""
    counts = np.isnan(scores).sum(axis=0).tolist()
    return {f"score missing: {name}": n for name, n in zip(findings, counts, strict=True)}


def _same_patients(table: ScoreTable, truth: Truth, known: Sequence[int]) -> None:
    """Refuse a table whose patients are not the truth's."""
    if not table.patient_ids:
        return
    of_study = dict(zip(truth.study_ids, truth.patient_ids, strict=True))
    other = [i for i in known if of_study[table.study_ids[i]] != table.patient_ids[i]]
    if other:
        raise ProtocolError(
            f"{len(other)} volumes belong to another patient than in the labels, the first: "
            f"{table.volume_ids[other[0]]}",
            expected="one patient a study",
            fix="leave the patients out of the scores, or correct them",
        )


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts above 0."""
    return {name: int(count) for name, count in counts.items() if count}
