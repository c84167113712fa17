"""What is learnt from the training corpus before the first step, and kept in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

from t3d.cohort.store import Cohort
from t3d.learn.corpus import Corpus
from t3d.learn.domain import DomainRule, fit_rule
from t3d.learn.grids import StemMaps, fit_maps
from t3d.learn.objectives.report_terms import ReportTerms
from t3d.learn.recipe import Recipe
from t3d.model.encoders.bag_of_ngrams import BagOfNGrams
from t3d.model.encoders.statstem import StatStem
from t3d.text.ngrams import NGramVocabulary
from t3d.text.terms import TermTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Vocabulary of the text tower, terms of `report_terms`, maps of the stem, domain rule."""

    vocabulary: NGramVocabulary | None = None
    terms: TermTable | None = None
    maps: StemMaps | None = None
    domain: DomainRule | None = None


def fit(recipe: Recipe, cohort: Cohort, corpus: Corpus, *, maps: StemMaps | None = None) -> Fitted:
    """Fit everything the recipe's parts ask for, from the training corpus alone.

    `maps` belong to an encoder that was trained before; they are not fitted again.
    """
    name = recipe.preparation.name
    fitted = Fitted(domain=fit_rule(cohort, name, corpus.volume_ids))
    if isinstance(recipe.text, BagOfNGrams):
        fitted = replace(fitted, vocabulary=fit_vocabulary(recipe, recipe.text, corpus))
    config = terms_config(recipe)
    if config is not None:
        fitted = replace(fitted, terms=fit_terms(recipe, config, corpus))
    if isinstance(recipe.image, StatStem):
        found = maps or fit_maps(cohort, recipe.image, name, corpus.volume_ids)
        fitted = replace(fitted, maps=found)
    return fitted


def fit_vocabulary(recipe: Recipe, config: BagOfNGrams, corpus: Corpus) -> NGramVocabulary:
    """Take the n-grams that enough training reports hold."""
    reports = [corpus.sentences(i, recipe.text_plan.sections) for i in range(len(corpus))]
    return NGramVocabulary.fit(reports, min_reports=least(config.min_share, len(corpus)))


def fit_terms(recipe: Recipe, config: ReportTerms, corpus: Corpus) -> TermTable:
    """Take the terms that `report_terms` predicts and their weights."""
    return TermTable.fit(
        corpus.findings,
        corpus.impression,
        min_reports=least(config.min_share, len(corpus)),
        max_share=config.max_share,
        weighted=config.weighted,
        seed=recipe.seed,
    )


def terms_config(recipe: Recipe) -> ReportTerms | None:
    """Find the recipe's `report_terms` objective, if it has one."""
    for stage in recipe.stages:
        for term in stage.terms:
            if isinstance(term.objective, ReportTerms):
                return term.objective
    return None


def least(share: float, num_reports: int) -> int:
    """Turn a share of the reports into a count, at least 2."""
    return max(2, round(share * num_reports))
