"""Retrieval both ways: an oracle, a blind model, a guess; study-level and strict credit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.embeddings import embed_split
from t3d.judge.protocol import Protocol
from t3d.judge.results import summary_retrieval
from t3d.judge.tasks import retrieval


def judged(model: Any, cohort: Any, protocol: Protocol) -> Any:
    return retrieval.measure(cohort, protocol, embedded=embed_split(model, cohort, "test"))


def metrics(outcome: Any) -> dict[str, Any]:
    return {metric.name: metric for metric in outcome.result.metrics}


def slow_recall(model: Any, cohort: Any, k: int, *, strict: bool) -> float:
    """Text to image, query by query; similarities are assumed to have no ties."""
    rows = cohort.studies("test")
    texts = {r.study_id: cohort.report(r.study_id) for r in rows}
    words = {
        s: " ".join(f"{r.findings} {r.impression}".split()).lower()
        for s, r in texts.items()
        if r is not None
    }
    images = model.embed_studies(cohort, [r.study_id for r in rows]).astype(float)
    hits = 0
    for row in rows:
        report = texts[row.study_id]
        if report is None:
            continue
        query = model.embed_reports([report])[0].astype(float)
        cosines = images @ query / np.linalg.norm(images, axis=1)
        first = [rows[i].study_id for i in np.argsort(-cosines)[:k]]
        wanted = words[row.study_id]
        hits += any(s == row.study_id if strict else words.get(s) == wanted for s in first)
    return hits / len(words)


def test_an_oracle_finds_every_pair_and_an_identical_report_costs_it_strictly(
    oracle: Any, cohort: Any, quick: Protocol
) -> None:
    found = metrics(judged(oracle, cohort, quick))
    for direction in ("t2i", "i2t"):
        for k in (5, 10):
            assert found[f"{direction}_r@{k}"].value == found[f"{direction}_r@{k}"].ceiling == 1.0
        assert found[f"{direction}_medr"].value == 1.0
        assert found[f"{direction}_mrr"].value == pytest.approx(1.0)


def test_the_strict_ceiling_counts_identical_reports_as_one_place(
    oracle: Any, cohort: Any, quick: Protocol
) -> None:
    short = replace(quick, name="top_one", ks=(1,))
    found = metrics(judged(oracle, cohort, short))
    queries = 89  # 90 studies, one without a report; two reports are identical
    assert found["t2i_r@1"].value == 1.0
    assert found["t2i_r@1_strict"].ceiling == pytest.approx((queries - 2 + 2 * 0.5) / queries)
    assert found["i2t_r@1_strict"].value == pytest.approx(found["i2t_r@1_strict"].ceiling)


def test_a_blind_model_gets_exactly_chance(blind: Any, cohort: Any, quick: Protocol) -> None:
    found = metrics(judged(blind, cohort, quick))
    for name in ("t2i_r@5", "t2i_r@10", "i2t_r@5", "i2t_r@10", "t2i_mrr", "i2t_medr"):
        assert found[name].value == pytest.approx(found[name].floor, abs=1e-12), name
        assert found[name].floor == found[name].chance
    assert found["t2i_r@10_strict"].value == pytest.approx(10 / 90)
    assert found["i2t_r@10_strict"].value == pytest.approx(10 / 89)
    assert found["t2i_medr"].value == pytest.approx((90 - 1) / 2 + 1)


def test_ties_of_a_blind_model_are_counted(
    blind: Any, guess: Any, cohort: Any, quick: Protocol
) -> None:
    assert judged(blind, cohort, quick).result.counts["tied_queries:t2i"] == 89
    assert judged(guess, cohort, quick).result.counts["tied_queries:t2i"] == 0


def test_a_guess_is_at_chance_within_its_interval(guess: Any, cohort: Any, quick: Protocol) -> None:
    found = metrics(judged(guess, cohort, quick))
    for direction in ("t2i", "i2t"):
        metric, permuted = found[f"{direction}_r@10"], found[f"permuted_{direction}_r@10"]
        assert metric.low < metric.chance < metric.high
        assert permuted.value == pytest.approx(permuted.chance, abs=0.02)
        assert permuted.low < metric.value <= permuted.high + 0.02


@pytest.mark.parametrize("k", [5, 10])
@pytest.mark.parametrize("strict", [False, True])
def test_recall_equals_a_search_by_hand(
    guess: Any, cohort: Any, quick: Protocol, k: int, strict: bool
) -> None:
    name = f"t2i_r@{k}_strict" if strict else f"t2i_r@{k}"
    found = metrics(judged(guess, cohort, quick))[name].value
    assert found == pytest.approx(slow_recall(guess, cohort, k, strict=strict))


def test_pairs_broken_between_patients_bring_an_oracle_to_chance(
    oracle: Any, cohort: Any, quick: Protocol
) -> None:
    found = metrics(judged(oracle, cohort, quick))
    permuted = found["permuted_t2i_r@10"]
    assert permuted.low < permuted.chance < permuted.high
    assert permuted.high < 0.3


def test_ranks_of_a_study_without_a_report_are_empty(
    oracle: Any, cohort: Any, quick: Protocol
) -> None:
    outcome = judged(oracle, cohort, quick)
    ranks = outcome.table.columns["rank:t2i"]
    assert np.isnan(ranks[-1])
    assert (ranks[:-1] == 1.0).all()
    assert outcome.result.excluded["no report"] == 1
    assert outcome.result.counts["candidates:t2i"] == 90
    assert outcome.result.counts["candidates:i2t"] == 89


def test_two_runs_agree_in_every_number(guess: Any, cohort: Any, quick: Protocol) -> None:
    one, two = (judged(guess, cohort, quick) for _ in range(2))
    assert repr(one.result) == repr(two.result)


def test_a_summary_holds_recalls_and_their_strict_twins_only(
    guess: Any, cohort: Any, quick: Protocol
) -> None:
    found = summary_retrieval(judged(guess, cohort, quick).result)
    plain = {f"{d}_r@{k}" for d in ("t2i", "i2t") for k in (5, 10)}
    assert found.keys() == plain | {f"{name}_strict" for name in plain}


def test_a_split_without_reports_is_refused(guess: Any, cohort: Any, quick: Protocol) -> None:
    with pytest.raises(ProtocolError, match="0 of 90 studies have a report"):
        retrieval.run(guess, replace(cohort, texts={}), quick)
