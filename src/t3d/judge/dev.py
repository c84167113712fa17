"""The dev score that chooses a run's best checkpoint, by the run's own supervision.

A report-supervised run is chosen by retrieval on dev reports, never by dev labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from t3d.cohort.store import Cohort
from t3d.errors import RecipeError
from t3d.judge.classification import macro_auroc
from t3d.judge.embeddings import cosines, embed_split
from t3d.judge.gauges import read_meters
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.rules import Scored
from t3d.judge.truth import truth_of
from t3d.learn.meters import LEAK_STOP, STOP
from t3d.learn.recipe import Recipe
from t3d.learn.trained import Trained
from t3d.scores.retrieval import ranks
from t3d.text.findings import CT_RATE_18

DevScore = Callable[[Trained], Mapping[str, float]]


def dev_score(recipe: Recipe, cohort: Cohort, *, split: str = "dev") -> DevScore | None:
    """Give the score for a recipe; None where the split is empty or nothing can be scored."""
    if not cohort.studies(split):
        return None
    if recipe.supervision == "labels":
        return lambda trained: _classification(trained, cohort, split)
    if recipe.supervision == "reports" and recipe.text is not None:
        return lambda trained: _retrieval(trained, cohort, split)
    return None


def _classification(trained: Trained, cohort: Cohort, split: str) -> dict[str, float]:
    truth = truth_of(cohort, split, CT_RATE_18)
    scores = trained.score_studies(cohort, list(truth.study_ids))
    macro = macro_auroc(Scored(truth=truth, scores=scores))
    return {"select": macro, "auroc_macro": macro}


def _retrieval(trained: Trained, cohort: Cohort, split: str) -> dict[str, float]:
    rows = embed_split(trained, cohort, split)
    asked = np.flatnonzero(rows.has_report)
    groups = np.asarray(rows.report_ids)[asked]
    similarity = cosines(rows.text[asked], rows.image[asked], decimals=PLAIN.score_decimals)
    scores = {
        name: float(ranks(table, groups, groups).reciprocal().mean())
        for name, table in (("mrr_t2i", similarity), ("mrr_i2t", similarity.T))
    }
    return {"select": sum(scores.values()) / 2, **scores, **_metered(trained, cohort, split)}


def _metered(trained: Trained, cohort: Cohort, split: str) -> dict[str, float]:
    """Read TMA's meters where there is TMA; a leak above the limit ends the run."""
    gauges = read_meters(trained, cohort, split=split)
    if gauges.get("leak_verdict") == STOP:
        raise RecipeError(
            f"recipe '{trained.recipe.name}' leaks: {gauges['leak']:.2f} of the agreement between "
            "views is read from the report alone",
            expected=f"at most {LEAK_STOP}",
            fix="keep text off one side of every compared pair (docs/concepts/tma.md)",
        )
    return {f"tma.{k}": float(v) for k, v in gauges.items() if isinstance(v, int | float)}
