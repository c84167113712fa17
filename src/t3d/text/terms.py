"""The n-grams of a report that an image is asked to predict, and how much each is worth.

Legend: N reports, G terms, P and Q n-grams of the two sections, K directions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from t3d.errors import CheckpointError, RecipeError
from t3d.text.ngrams import ngrams, report_frequency

REFERENCE_REPORTS = 3000
"""Size of the corpus for which the settings below were measured (docs/concepts/recipes.md)."""

MIN_REPORTS, MAX_REPORTS = 20, 2600
"""A term occurs in at least and at most so many of 3,000 reports, FINDINGS or IMPRESSION."""

NUM_DIRECTIONS = 40
"""Directions shared by FINDINGS and IMPRESSION that make the weight."""

MAX_RANK = (250, 120)
"""Singular vectors kept of FINDINGS and IMPRESSION, for 3,000 reports."""

WEIGHT_CAP = 6.0
"""Largest weight of a term, in multiples of the mean."""

_DENSE_SIDE = 400  # matrices with a side up to this are decomposed without iteration
_TINY = 1e-8  # relative size of a singular value that counts as zero

Floats = NDArray[np.float64]
if TYPE_CHECKING:
    Presence = sparse.csr_array[Any, tuple[int, int]]  # 0 and 1


def frequency_bounds(num_reports: int) -> tuple[int, float]:
    """Give `min_reports` and `max_share` for a corpus of another size.

    Args:
        num_reports: Reports in the corpus.

    Returns:
        Reports a term needs (the same share as 20 of 3,000, at least 2) and the largest share.

    Source:
        docs/concepts/recipes.md. Check: 3,000 -> (20, 0.8667); 300 -> (2, 0.8667).
    """
    scaled = round(MIN_REPORTS * num_reports / REFERENCE_REPORTS)
    return max(2, scaled), MAX_REPORTS / REFERENCE_REPORTS


@dataclass(frozen=True, slots=True, eq=False)
class TermTable:
    """The terms that `report_terms` predicts, how frequent and how predictable they are."""

    terms: tuple[str, ...]
    prevalence: Floats  # (G,) share of training reports with the term
    weight: Floats  # (G,) mean 1 before the cap at 6
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes = self.prevalence.shape, self.weight.shape
        if shapes != ((len(self.terms),), (len(self.terms),)):
            raise CheckpointError(
                f"term table: {len(self.terms)} terms, prevalence and weight of shapes {shapes}",
                expected="one prevalence and one weight for each term",
                fix="write the file with TermTable.to_json",
            )
        object.__setattr__(self, "_index", {term: g for g, term in enumerate(self.terms)})

    @classmethod
    def fit(
        cls,
        findings_sentences: Sequence[Sequence[str]],
        impression_sentences: Sequence[Sequence[str]],
        *,
        min_reports: int,
        max_share: float,
        weighted: bool,
        seed: int,
    ) -> TermTable:
        """Choose the terms of a training corpus and weigh them.

        Args:
            findings_sentences: N reports, each the sentences of its FINDINGS.
            impression_sentences: The same N reports, each the sentences of its IMPRESSION.
            min_reports: Reports that a term must occur in; see `frequency_bounds`.
            max_share: Largest share of reports that a term may occur in.
            weighted: False gives every term weight 1.
            seed: Start vector of the truncated decompositions; the result does not depend on
                it beyond rounding.

        Returns:
            Terms in alphabetical order. Where no report has an impression all weights are 1.

        Raises:
            RecipeError: The two lists differ in length, or no term meets the bounds.

        Source:
            docs/concepts/recipes.md.
        """
        num = len(findings_sentences)
        if num == 0 or num != len(impression_sentences) or not 0 < max_share <= 1:
            raise RecipeError(
                f"term table: {num} findings, {len(impression_sentences)} impressions, "
                f"max_share {max_share}",
                expected="the same reports in both lists, at least one, and 0 < max_share <= 1",
                fix="pass [] for a report without that section",
            )
        reports = [
            [*first, *second]
            for first, second in zip(findings_sentences, impression_sentences, strict=True)
        ]
        terms = _frequent(reports, min_reports, max_share)
        if not terms:
            raise RecipeError(
                f"no n-gram occurs in {min_reports} of {num} reports and in at most "
                f"{max_share:.0%} of them",
                expected="some wording that reports share",
                fix="use frequency_bounds(len(reports)), or more reports",
            )
        presence = _presence(reports, terms)
        prevalence = np.asarray(presence.mean(axis=0), dtype=np.float64).ravel()
        weight = np.ones(len(terms))
        if weighted and any(impression_sentences):
            weight = _predictability(
                presence, findings_sentences, impression_sentences, min_reports, seed
            )
        return cls(terms, prevalence, weight)

    def __len__(self) -> int:
        return len(self.terms)

    def targets(self, sentences: Sequence[str]) -> NDArray[np.uint8]:
        """Give which terms a report contains.

        Args:
            sentences: Sentences of both sections, in any order.

        Returns:
            (G,) 1 where the term occurs, else 0.
        """
        row = np.zeros(len(self.terms), dtype=np.uint8)
        for sentence in sentences:
            for run in ngrams(sentence):
                place = self._index.get(run)
                if place is not None:
                    row[place] = 1
        return row

    def to_json(self) -> str:
        """Give the table as JSON; `from_json` reads the same numbers back."""
        return json.dumps(
            {
                "terms": self.terms,
                "prevalence": self.prevalence.tolist(),
                "weight": self.weight.tolist(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> TermTable:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: The text is no such JSON.
        """
        try:
            raw = json.loads(text)
            prevalence, weight = (
                np.asarray(raw[key], dtype=np.float64) for key in ("prevalence", "weight")
            )
            terms = tuple(str(term) for term in raw["terms"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"term table cannot be read: {type(error).__name__}",
                expected="JSON with the keys 'terms', 'prevalence' and 'weight'",
                fix="write the file with TermTable.to_json",
            ) from error
        return cls(terms, prevalence, weight)


def predictability_weight(
    presence_NG: Presence, findings_NP: Presence, impression_NQ: Presence, *, seed: int
) -> Floats:
    """Weigh terms by how well what the impression repeats of the findings explains them.

    Formula: X, Y = findings and impression, each column minus its mean over its SD; U, V =
    their first R1, R2 left singular vectors; A diag(rho) B' = SVD of U' V; T = U A, first K
    columns; w_g = sum_k (rho_k corr(g, T_k))^2, divided by its mean over g, capped at 6.

    Args:
        presence_NG: 1 where a report contains a term, N x G.
        findings_NP: The same for n-grams of FINDINGS.
        impression_NQ: The same for n-grams of IMPRESSION.
        seed: Start vector of the iteration; only rounding depends on it.

    Returns:
        (G,) weights; all 1 where the sections share nothing.

    Source:
        docs/concepts/recipes.md; T is on the side of the findings (our reading). R1, R2 =
        250, 120 for 3,000 reports, in proportion for fewer. Check: one n-gram in each section,
        always together, and two terms, of which one is that n-gram and the other is
        uncorrelated with it -> weights 2 and 0.
    """
    num = presence_NG.shape[0]
    ranks = [max(1, min(full, full * num // REFERENCE_REPORTS)) for full in MAX_RANK]
    left = _left_vectors(findings_NP, ranks[0], seed)
    right = _left_vectors(impression_NQ, ranks[1], seed)
    mixing, rho, _ = np.linalg.svd(left.T @ right, full_matrices=False)
    directions = left @ mixing[:, :NUM_DIRECTIONS]  # orthonormal, each of mean 0
    mean, scale = _moments(presence_NG)
    inner = presence_NG.T @ directions - np.outer(mean, directions.sum(axis=0))
    correlation = inner * scale[:, None] / np.sqrt(num)
    raw = ((rho[:NUM_DIRECTIONS] * correlation) ** 2).sum(axis=1)
    if raw.size == 0 or raw.mean() <= _TINY:
        return np.ones(raw.size)
    return np.asarray(np.minimum(raw / raw.mean(), WEIGHT_CAP), dtype=np.float64)


def _predictability(
    presence: Presence,
    findings: Sequence[Sequence[str]],
    impression: Sequence[Sequence[str]],
    min_reports: int,
    seed: int,
) -> Floats:
    """Build the matrices of the reports that have both sections, and weigh."""
    both = [n for n, pair in enumerate(zip(findings, impression, strict=True)) if all(pair)]
    first = [findings[n] for n in both]
    second = [impression[n] for n in both]
    columns = (
        _frequent(first, min_reports, 1.0),
        _frequent(second, max(1, min_reports // 2), 1.0),
    )
    if not all(columns):
        return np.ones(presence.shape[1])
    return predictability_weight(
        presence[both], _presence(first, columns[0]), _presence(second, columns[1]), seed=seed
    )


def _frequent(
    reports: Sequence[Sequence[str]], min_reports: int, max_share: float
) -> tuple[str, ...]:
    """Give the n-grams between two report frequencies, in alphabetical order."""
    most = max_share * len(reports) + 1e-9
    counts = report_frequency(reports)
    return tuple(sorted(run for run, n in counts.items() if min_reports <= n <= most))


def _presence(reports: Sequence[Sequence[str]], terms: Sequence[str]) -> Presence:
    """Mark which report contains which n-gram: N x G of 0 and 1."""
    index = {term: g for g, term in enumerate(terms)}
    starts, columns = [0], []
    for sentences in reports:
        runs = {run for sentence in sentences for run in ngrams(sentence)}
        columns += sorted(index[run] for run in runs if run in index)
        starts.append(len(columns))
    ones = np.ones(len(columns))
    return sparse.csr_array((ones, columns, starts), shape=(len(reports), len(terms)))


def _moments(matrix: Presence) -> tuple[Floats, Floats]:
    """Give mean and 1 / SD of each column of 0 and 1; 0 where a column is constant."""
    mean = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel() / matrix.shape[0]
    variance = mean * (1.0 - mean)
    scale = np.zeros_like(mean)
    np.divide(1.0, np.sqrt(variance), out=scale, where=variance > _TINY)
    return mean, scale


def _left_vectors(matrix: Presence, rank: int, seed: int) -> Floats:
    """Give the first left singular vectors of the standardised matrix, N x at most `rank`."""
    mean, scale = _moments(matrix)
    num, width = matrix.shape
    if min(num, width) <= _DENSE_SIDE:
        standard = (matrix.toarray() - mean) * scale
        vectors, values, _ = np.linalg.svd(standard, full_matrices=False)
    else:
        operator = LinearOperator(
            matrix.shape,
            matvec=lambda x: matrix @ (scale * x.ravel()) - mean @ (scale * x.ravel()),
            rmatvec=lambda y: scale * (matrix.T @ y.ravel() - mean * y.sum()),
            dtype=np.float64,
        )
        start = np.random.default_rng(seed).standard_normal(min(num, width))
        vectors, values, _ = svds(operator, k=rank, v0=start, return_singular_vectors="u")
    kept = values > _TINY * max(float(values.max()), _TINY)
    return np.asarray(vectors[:, :rank][:, kept[:rank]], dtype=np.float64)
