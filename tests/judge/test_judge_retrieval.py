"""Retrieval both ways: an oracle, a blind model, a guess; study-level and strict credit."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, embed_split
from t3d.judge.protocol import Protocol
from t3d.judge.protocols import PROTOCOLS
from t3d.judge.protocols.colipri import COLIPRI
from t3d.judge.protocols.ctclip import CTCLIP
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.protocols.spectre import SPECTRE
from t3d.judge.results import summary_retrieval
from t3d.judge.tasks import retrieval
from t3d.types import Report


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
    short = replace(quick, name="top_one", retrieval=replace(quick.pairs, ks=(1,)))
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


# ---- published rules -------------------------------------------------------------------------


def pairs(
    text: Any, image: Any, *, reports: list[int] | None = None, studies: list[str] | None = None
) -> Embeddings:
    """Rows that are volumes; similarity is `text @ image.T`."""
    num = len(image)
    full = np.full((num, np.shape(image)[1]), np.nan, dtype=np.float32)
    full[: len(text)] = text
    names = studies or [f"s{i:03}" for i in range(num)]
    told = reports or [*range(len(text)), *[-1] * (num - len(text))]
    return Embeddings(
        study_ids=tuple(names),
        patient_ids=tuple(names),
        image=np.asarray(image, dtype=np.float32),
        text=full,
        report_ids=tuple(told),
        volume_ids=tuple(f"v{i:03}" for i in range(num)),
        order=tuple(range(num)),
    )


def tables(embedded: Embeddings, cohort: Any, protocol: Protocol) -> dict[str, Any]:
    few = replace(protocol, num_permutations=2)
    return metrics(retrieval.measure(cohort, few, embedded=embedded))


TIED = np.array([[0.9, 0.2, 0.1], [0.5, 0.5, 0.4], [0.3, 0.6, 0.2]])


def test_a_tie_is_lost_by_the_higher_index_or_shared_as_the_protocol_says(cohort: Any) -> None:
    short = CTCLIP.variant("short", retrieval__ks=(1, 2))
    found = tables(pairs(TIED, np.eye(3)), cohort, short)
    assert found["t2i_r@1"].value == pytest.approx(1 / 3)
    assert found["t2i_r@2"].value == pytest.approx(2 / 3)
    assert "t2i_medr" not in found
    assert "i2t_r@1" not in found
    assert (found["t2i_r@1"].low, found["t2i_r@1"].high) == pytest.approx((1 / 3, 1 / 3))
    shared = tables(
        pairs(TIED, np.eye(3)), cohort, short.variant("fair", retrieval__ties="expected")
    )
    assert shared["t2i_r@1"].value == pytest.approx(0.5)


def test_ties_that_decide_a_number_are_flagged(cohort: Any) -> None:
    outcome = retrieval.measure(cohort, CTCLIP, embedded=pairs(TIED, np.eye(3)))
    assert outcome.result.counts["tied_queries:t2i"] == 1
    assert outcome.result.counts["depends_on_tie_rule:t2i"] == 1


def test_radfinders_ranks_have_its_median_and_mean(cohort: Any) -> None:
    table = np.array(
        [[0.9, 0.2, 0.1, 0], [0.3, 0.4, 0.5, 0.1], [0.2, 0.8, 0.7, 0.6], [0.1, 0, 0.3, 0.2]]
    )
    found = tables(pairs(table, np.eye(4)), cohort, RADFINDER)
    assert found["t2i_r@1"].value == 0.25
    assert found["t2i_medr"].value == 2.0
    assert found["t2i_meanr"].value == 1.75


def test_radfinders_interval_draws_queries_with_its_own_seed(cohort: Any) -> None:
    places = [0, 3, 12, 0, 60, 7, 1, 200, 5, 9]
    image = np.zeros((220, 10))
    for query, place in enumerate(places):
        others = [row for row in range(220) if row != query][:place]
        image[others, query] = 0.9
        image[query, query] = 0.5
    found = tables(pairs(np.eye(10), image), cohort, RADFINDER)
    recall = found["t2i_r@10"]
    assert (recall.value, recall.low, recall.high) == (0.7, 0.4, 1.0)
    assert recall.unit == "queries"
    assert found["t2i_medr"].value == 6.0  # of two middle ranks the lower, as printed
    assert found["t2i_meanr"].value == pytest.approx(30.7)


def test_reconstructions_of_a_study_are_wrong_strictly_and_right_by_study(cohort: Any) -> None:
    text = np.array([[0.7, 0.9, 0.1], [0.7, 0.9, 0.1], [0.2, 0.1, 0.8]])
    rows = pairs(text, np.eye(3), reports=[0, 0, 1], studies=["a", "a", "b"])
    found = tables(rows, cohort, CTCLIP.variant("one", retrieval__ks=(1,)))
    assert found["t2i_r@1"].value == pytest.approx(2 / 3)
    assert found["t2i_r@1"].ceiling == pytest.approx(2 / 3)
    assert found["t2i_r@1_study"].value == 1.0
    plain = PLAIN.variant("volumes", retrieval__pool="volume", retrieval__ks=(1,))
    found = tables(rows, cohort, plain)
    assert found["t2i_r@1"].value == 1.0
    assert found["t2i_r@1_strict"].value == pytest.approx(2 / 3)


def test_a_pool_of_first_reconstructions_leaves_the_others_out(cohort: Any) -> None:
    text = np.array([[0.7, 0.9, 0.1], [0.7, 0.9, 0.1], [0.2, 0.1, 0.8]])
    rows = pairs(text, np.eye(3), reports=[0, 0, 1], studies=["a", "a", "b"])
    outcome = retrieval.measure(cohort, SPECTRE, embedded=rows)
    assert outcome.result.counts["candidates:t2i"] == outcome.result.counts["studies"] == 2
    assert outcome.table.study_ids == ("a", "b")


def test_a_pool_of_volumes_refuses_rows_that_are_studies(cohort: Any) -> None:
    rows = replace(pairs(TIED, np.eye(3)), volume_ids=(), order=())
    two = tuple(replace(row, volume_ids=("a", "b")) for row in cohort.rows)
    with pytest.raises(ProtocolError, match="embeddings of studies for a pool of volumes"):
        retrieval.measure(replace(cohort, rows=two), CTCLIP, embedded=rows)


@pytest.mark.parametrize("protocol", [PLAIN, CTCLIP, RADFINDER, SPECTRE], ids=lambda p: p.name)
def test_the_order_of_rows_never_changes_a_number(cohort: Any, protocol: Protocol) -> None:
    rng = np.random.default_rng(3)
    rows = pairs(
        np.round(rng.normal(size=(40, 6)), 1),
        np.round(rng.normal(size=(40, 6)), 1),
        reports=[i // 2 for i in range(40)],
        studies=[f"s{i // 2:02}" for i in range(40)],
    )
    order = rng.permutation(40).tolist()
    turned = Embeddings(
        **{
            name: tuple(value[i] for i in order) if isinstance(value, tuple) else value[order]
            for name, value in (
                (field.name, getattr(rows, field.name)) for field in dataclasses.fields(rows)
            )
        }
    )
    few = replace(protocol, num_permutations=3)
    one, two = (retrieval.measure(cohort, few, embedded=e) for e in (rows, turned))
    assert repr(one.result) == repr(two.result)
    assert one.table.study_ids == two.table.study_ids
    assert all((one.draws[name] == two.draws[name]).all() for name in one.draws)


WITH_PAIRS = tuple(p for p in PROTOCOLS if p.retrieval is not None)


@pytest.mark.parametrize("protocol", WITH_PAIRS, ids=lambda p: p.name)
def test_every_protocol_with_retrieval_gives_a_guess_its_chance(
    guess: Any, cohort: Any, protocol: Protocol
) -> None:
    few = replace(protocol, num_permutations=5, intervals=replace(protocol.intervals, num_draws=50))
    result = retrieval.run(guess, cohort, few, lists={"no_chest": ("s0181-v.nii.gz",)})
    found = {metric.name: metric for metric in result.metrics}
    rules = protocol.pairs
    for direction in rules.directions:
        for k in rules.ks:
            metric = found[f"{direction}_r@{k}"]
            spread = 4 * np.sqrt(metric.chance * (1 - metric.chance) / 88) + 1e-9
            assert abs(metric.value - metric.chance) <= spread
            assert {f"{direction}_r@{k}_strict", f"{direction}_r@{k}_study"} & found.keys()


class Reader:
    """Notes what it is asked to embed."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reports: list[Report] = []

    def embed_studies(self, cohort: Any, study_ids: Any) -> Any:
        """Any direction."""
        return np.ones((len(study_ids), 2), dtype=np.float32)

    def embed_text(self, texts: list[str]) -> Any:
        """Any direction."""
        self.texts = list(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    def embed_reports(self, reports: list[Report]) -> Any:
        """Any direction."""
        self.reports = list(reports)
        return np.ones((len(reports), 2), dtype=np.float32)


def test_a_report_is_worded_as_the_protocol_words_it(cohort: Any) -> None:
    texts = dict(cohort.texts)
    first = cohort.studies("test")[0].study_id
    texts[first] = Report(findings='A "nodule" (small). Impression', impression="It's benign.")
    there = replace(cohort, texts=texts)

    def read(protocol: Protocol, **more: Any) -> Reader:
        reader = Reader()
        retrieval.embed_pairs(reader, there, protocol, **more)  # type: ignore[arg-type]
        return reader

    # each study of this cohort has one volume, so rows of studies serve a pool of volumes
    assert read(CTCLIP).texts[0] == "A nodule small. ImpressionIts benign."
    assert read(RADFINDER).texts[0] == (
        'Findings: A "nodule" (small). \nImpressions: It\'s benign.\n'
    )
    assert read(PLAIN).reports[0] == texts[first]
    one = read(COLIPRI, lists={"no_chest": ()}).reports[0]
    assert (one.findings, one.impression) == (texts[first].findings, "")


def test_a_list_takes_scans_out_and_repeated_findings_count_once(cohort: Any, guess: Any) -> None:
    rows = cohort.studies("test")
    whole = retrieval.embed_pairs(guess, cohort, COLIPRI, lists={"no_chest": ()})
    # two reports of the split share their findings; the study without a report stays
    assert len(whole.study_ids) == len(rows) - 1
    gone = retrieval.embed_pairs(
        guess, cohort, COLIPRI, lists={"no_chest": (f"{rows[5].volume_ids[0]}.nii.gz",)}
    )
    assert set(whole.study_ids) - set(gone.study_ids) == {rows[5].study_id}
    with pytest.raises(ProtocolError, match="needs the list no_chest"):
        retrieval.run(guess, cohort, COLIPRI)
