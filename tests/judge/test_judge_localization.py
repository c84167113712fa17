"""Depth of sentences: published vectors end to end, oracle, blind model, baselines, boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_places import CELL_MM, Constant, Knows, Points, drawn, written
from t3d.errors import ProtocolError
from t3d.judge.depths import cells_of
from t3d.judge.protocols.ctclip import CTCLIP
from t3d.judge.protocols.plain import PLAIN, PLAIN_DEPTH
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.snippets import (
    NUM_NEAREST,
    RIDGE,
    Snippets,
    extent_of,
    finding_place,
    mean_place,
    nearest_place,
    snippets_of,
    unplaced_of,
    words_place,
)
from t3d.judge.tasks import localization
from t3d.text.ngrams import ngrams

QUICK = replace(
    PLAIN,
    name="plain_depth",
    localization=PLAIN_DEPTH,
    intervals=replace(PLAIN.intervals, num_draws=200),
)


def metrics(found: Any) -> dict[str, Any]:
    return {metric.name: metric for metric in found.outcome.result.metrics}


def values(found: Any) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics(found).items()}


def pointing(*scans: tuple[str, tuple[int, int], list[tuple[int, int]]]) -> Any:
    """Test scans of (name, cells, [(guessed cell, true cell)]); no training sentence at all."""
    return written(
        [
            (name, name, "test", cells, [(f"Cell {a}.", "", CELL_MM * b) for a, b in pairs])
            for name, cells, pairs in scans
        ]
    )


def test_the_published_vector_of_cells_goes_through_protocol_radfinder() -> None:
    cohort = pointing(
        ("a", (0, 11), [(0, 2)]),
        ("b", (0, 23), [(5, 5)]),
        ("c", (0, 23), [(9, 10)]),
        ("d", (8, 31), [(20, 12)]),
    )
    found = localization.measure(Points(), cohort, RADFINDER)
    told = metrics(found)
    assert told["cell_error_mm"].value == 33.0
    assert (told["cell_error_mm"].low, told["cell_error_mm"].high) == (6.0, 75.0)
    assert told["cell_error_mm_median"].value == 18.0
    assert [told[n].value for n in ("exact", "within_1_cells", "within_2_cells")] == [
        0.25,
        0.5,
        0.75,
    ]
    assert told["cell_error_mm:middle"].value == 51.0
    assert told["cell_error_mm:random"].value == 84.0
    assert told["cell_error_mm:minus:random"].value == 33.0 - 84.0
    assert found.outcome.result.excluded["no training sentence with a depth"] == 1


def test_the_published_vector_of_several_sentences_a_scan_has_its_scan_means() -> None:
    cohort = pointing(("a", (0, 19), [(4, 5), (10, 10), (7, 3)]), ("b", (0, 19), [(2, 2)]))
    rules = replace(QUICK, localization=replace(PLAIN_DEPTH, cell_mm=12.0))
    told = values(localization.measure(Points(), cohort, rules))
    assert told["cell_error_mm"] == 15.0
    assert told["cell_error_mm_median"] == 6.0
    assert (told["exact"], told["within_1_cells"], told["within_2_cells"]) == (0.5, 0.75, 0.75)
    assert told["cell_error_mm_per_scan"] == 10.0
    assert told["exact_per_scan"] == pytest.approx(2 / 3)
    assert told["cell_error_mm:middle"] == 54.0
    first = values(localization.measure(Points(), cohort, RADFINDER))
    assert first["cell_error_mm"] == 6.0  # the first of each scan alone: errors 1 and 0 cells


def test_an_oracle_is_within_a_cell_and_beats_everything_that_does_not_look() -> None:
    cohort = drawn(30)
    told = metrics(localization.measure(Knows(cohort=cohort), cohort, QUICK))
    assert told["error_mm"].value == pytest.approx(told["error_mm"].ceiling)
    assert told["error_mm"].value < CELL_MM / 2
    assert told["exact"].value == told["within_1_cells"].value == told["touched"].value == 1.0
    for name in ("random", "middle", "mean_place", "finding_place", "words", "text"):
        assert told[f"error_mm:minus:{name}"].high < 0, name
    assert told["localizable"].value > 0.9
    # shuffled sentences: it finds another sentence's usual place at best
    assert told["permuted_error_mm"].low > 3 * told["error_mm"].value


def test_a_constant_model_gets_the_random_guess_and_cannot_localize() -> None:
    found = metrics(localization.measure(Constant(), drawn(20), QUICK))
    for name in ("error_mm", "cell_error_mm", "exact", "within_24_mm", "inside", "touched"):
        assert found[name].value == pytest.approx(found[f"{name}:random"].value, abs=1e-12)
        assert found[name].value == pytest.approx(found[name].chance, abs=1e-12)
    assert found["error_mm:minus:random"].value == pytest.approx(0.0, abs=1e-12)
    assert found["localizable"].value == 0.0
    assert found["error_mm"].value == pytest.approx(found["permuted_error_mm"].value)


def test_an_oracle_reaches_every_ceiling_a_blind_model_every_chance_and_runs_repeat() -> None:
    cohort = drawn(12)
    best, again = (localization.run(Knows(cohort=cohort), cohort, QUICK) for _ in range(2))
    assert repr(best) == repr(again)
    blank = {metric.name: metric for metric in localization.run(Constant(), cohort, QUICK).metrics}
    bounded = [metric for metric in best.metrics if np.isfinite(metric.ceiling)]
    assert len(bounded) == 15  # ten means, two medians, three means of scans
    for metric in bounded:
        assert metric.value == pytest.approx(metric.ceiling), metric.name
        assert blank[metric.name].value == pytest.approx(metric.chance), metric.name


def test_cells_that_are_not_what_a_rule_counts_them_as_are_said() -> None:
    cohort = pointing(("a", (0, 9), [(3, 4)]), ("b", (0, 9), [(3, 3)]))
    odd = RADFINDER.variant("odd", localization__cell_mm=5.0)
    found = localization.measure(Points(), cohort, odd)
    assert found.outcome.result.provenance["cell_mm"] == "12, counted as 5"
    assert values(found)["cell_error_mm"] == 2.5
    assert values(found)["error_mm"] == 6.0


def test_words_alone_find_the_usual_place_better_than_the_middle() -> None:
    told = values(localization.measure(Constant(), drawn(30), QUICK))
    assert told["error_mm:words"] < told["error_mm:mean_place"] - 10
    assert told["error_mm:finding_place"] == pytest.approx(told["error_mm:words"], abs=3.0)


def test_the_order_of_studies_and_sentences_never_changes_a_number() -> None:
    cohort = drawn(15)
    for protocol in (QUICK, RADFINDER.variant("few", intervals__num_draws=50)):
        one, other = (
            localization.measure(Knows(cohort=c), c, protocol) for c in (cohort, cohort.turned())
        )
        assert repr(one.outcome.result) == repr(other.outcome.result)
        assert one.strips() == other.strips()


def slow_errors(cohort: Any, model: Any) -> list[float]:
    """Sentence by sentence, token by token."""
    out = []
    for study in cohort.studies("test"):
        tokens, centres = model.embed_tokens(cohort.volume(study.volume_ids[0]))
        for sentence in cohort.sentences(study.study_id):
            text = cohort.report(study.study_id).findings[sentence.start : sentence.end]
            query = [float(v) for v in model.embed_text([text])[0]]
            best, where = -2.0, 0.0
            for z in sorted({round(float(c[0]), 3) for c in centres}):
                here = [t for t, c in zip(tokens, centres, strict=True) if abs(c[0] - z) < 0.01]
                mean = [sum(float(t[d]) for t in here) / len(here) for d in range(len(query))]
                norm = sum(v * v for v in mean) ** 0.5 * sum(v * v for v in query) ** 0.5
                cosine = sum(a * b for a, b in zip(mean, query, strict=True)) / norm
                if cosine > best + 1e-6:
                    best, where = cosine, z
            assert sentence.z_mm is not None
            out.append(abs(where - sentence.z_mm[0]))
    return out


def test_errors_equal_a_search_by_hand() -> None:
    cohort = drawn(8)
    model = Knows(cohort=cohort, noise=6.0)  # wrong now and then
    slow = slow_errors(cohort, model)
    assert max(slow) > 2 * CELL_MM
    told = values(localization.measure(model, cohort, QUICK))
    assert told["error_mm"] == pytest.approx(np.mean(slow), abs=1e-9)
    assert told["error_mm_median"] == pytest.approx(np.median(slow), abs=1e-9)
    assert told["within_24_mm"] == pytest.approx(np.mean(np.array(slow) <= 24.0))


def test_a_model_without_tokens_is_skipped_and_named() -> None:
    class Flat:
        def embed_text(self, texts: list[str]) -> Any:
            raise AssertionError("not asked")

    found = localization.measure(Flat(), drawn(4), QUICK)
    assert found.outcome.result.metrics == ()
    assert found.outcome.result.excluded == {"the model has no embed_tokens": 8}
    assert found.strips() == []


def test_a_split_without_depths_is_skipped_and_named() -> None:
    cohort = replace(drawn(4), placed={})
    found = localization.measure(Constant(), cohort, QUICK)
    assert found.outcome.result.excluded == {"no sentence has a depth": 1}


def test_a_protocol_without_rules_for_depth_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no rules for localization"):
        localization.measure(Constant(), drawn(2), CTCLIP)


def test_what_lies_outside_a_scan_or_its_cells_is_named() -> None:
    cohort = pointing(("a", (0, 9), [(3, 3), (4, 4), (5, 30)]), ("b", (0, 0), [(0, 0)]))

    class Short(Points):
        def embed_tokens(self, volume: Any) -> Any:
            tokens, centres = super().embed_tokens(volume)
            return tokens[:4], centres[:4]

    result = localization.measure(Short(), cohort, QUICK).outcome.result
    assert result.excluded == {
        "place outside the prepared volume": 1,
        "fewer than two depth cells": 1,
        "place outside the model's cells": 1,
        "no training sentence with a depth": 1,
    }
    assert {m.name: m.value for m in result.metrics}["exact"] == 1.0


def test_boxes_are_asked_for_like_sentences() -> None:
    cohort = pointing(("a", (0, 9), [(3, 3)]), ("b", (0, 9), [(3, 3)]))
    boxes = Snippets(
        texts=("Cell 4.", "Cell 8."),
        study_ids=("a", "b"),
        patient_ids=("a", "b"),
        volume_ids=("a-v", "b-v"),
        findings=("", ""),
        keys=("box", "box"),
        z_mm=np.array([(40.0, 30.0, 50.0), (40.0, 30.0, 50.0)]),
        extent_mm=np.array([(-6.0, 114.0)] * 2),
    )
    told = metrics(localization.measure(Points(), cohort, QUICK, snippets=boxes))
    assert told["inside"].value == told["touched"].value == 0.5  # 48 mm is in 30..50, 96 is not
    assert told["error_mm"].value == pytest.approx((8.0 + 56.0) / 2)
    assert told["inside"].ceiling == 1.0


def test_curves_are_written_without_words_of_reports(tmp_path: Path) -> None:
    cohort = drawn(5)
    result = localization.run(Knows(cohort=cohort), cohort, QUICK, out=tmp_path)
    strips = json.loads((tmp_path / localization.LOCALIZATION_FILE).read_text())
    assert len(strips) == result.counts["sentences"] == 10
    for strip in strips:
        assert len(strip["curve"]) == len(strip["centres_mm"])
        low, high = strip["interval_90_mm"]
        assert low <= strip["guess_mm"] <= high
    text = (tmp_path / localization.LOCALIZATION_FILE).read_text()
    assert "nodule." not in text
    assert (tmp_path / "per_study.csv").read_text().startswith("study_id,patient_id,depth:error_mm")


# ---- what is read, and what words say --------------------------------------------------------


def test_the_extent_of_a_scan_is_from_edge_to_edge() -> None:
    cohort = pointing(("a", (3, 6), [(3, 3)]))
    assert extent_of(cohort, "a-v") == (30.0, 78.0)
    told = snippets_of(cohort, "test")
    assert told.fractions == pytest.approx([(36.0 - 30.0) / 48.0])
    assert told.texts == ("Cell 3.",)


def test_sentences_without_a_place_are_those_that_overlap_none_with_one() -> None:
    cohort = drawn(3)
    told = unplaced_of(cohort, "dev")
    assert told.texts == ("Nothing else.",) * 3
    assert np.isnan(told.z_mm).all()


def made(texts: list[str], places: list[float], findings: list[str] | None = None) -> Snippets:
    num = len(texts)
    names = tuple(f"s{i:03}" for i in range(num))
    return Snippets(
        texts=tuple(texts),
        study_ids=names,
        patient_ids=names,
        volume_ids=names,
        findings=tuple(findings or [""] * num),
        keys=("",) * num,
        z_mm=np.array([(100 * p, 100 * p, 100 * p) for p in places]).reshape(-1, 3),
        extent_mm=np.tile((0.0, 100.0), (num, 1)),
    )


def test_places_by_mean_finding_and_words_have_hand_values() -> None:
    train = made(["left base", "apex"], [0.2, 0.8], ["A", "B"])
    asked = made(["apex", "other", "left base"], [0.5] * 3, ["B", "C", ""])
    assert mean_place(train, asked) == pytest.approx([0.5] * 3)
    assert finding_place(train, asked) == pytest.approx([0.8, 0.5, 0.5])
    # one n-gram: w = .3 / (1 + 1); three equal ones: 3 w = -.3 * 3 / (3 + 1)
    assert words_place(train, asked) == pytest.approx([0.65, 0.5, 0.275])


def test_the_ridge_equals_a_row_for_every_snippet_solved_plainly() -> None:
    rng = np.random.default_rng(0)
    words = ["left", "right", "upper", "lower", "lobe", "nodule"]
    texts = [" ".join(rng.choice(words, 3, replace=False)) for _ in range(40)]
    train = made(texts, rng.random(40).tolist())
    asked = made([*texts[:7], "unknown"], [0.5] * 8)
    count: dict[str, int] = {}
    for text in texts:
        for n in ngrams(text):
            count[n] = count.get(n, 0) + 1
    terms = [n for n in count if count[n] > 1]
    table = np.array([[float(n in ngrams(t)) for n in terms] for t in texts])
    mean = train.fractions.mean()
    stacked = np.vstack([table, np.sqrt(RIDGE) * np.eye(len(terms))])
    target = np.concatenate([train.fractions - mean, np.zeros(len(terms))])
    weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
    slow = [
        float(
            np.clip(
                mean + sum(w for n, w in zip(terms, weights, strict=True) if n in ngrams(t)), 0, 1
            )
        )
        for t in asked.texts
    ]
    assert words_place(train, asked) == pytest.approx(slow, abs=1e-8)


def test_the_nearest_texts_share_ties_alike() -> None:
    num = NUM_NEAREST + 4
    train = made(["x"] * num, [i / num for i in range(num)])
    rows = np.tile((1.0, 0.0), (num, 1))
    found = nearest_place(train, rows, np.array([[1.0, 0.0]]))
    assert found == pytest.approx([np.mean([i / num for i in range(num)])])
    rows[NUM_NEAREST:] = (0.0, 1.0)
    found = nearest_place(train, rows, np.array([[1.0, 0.0]]))
    assert found == pytest.approx([np.mean([i / num for i in range(NUM_NEAREST)])])


def test_tokens_of_one_depth_are_one_cell() -> None:
    cohort = drawn(1)
    volume = cohort.studies("test")[0].volume_ids[0]
    vectors, depths = cells_of(Knows(cohort=cohort), cohort, (volume, volume))[volume]
    assert len(depths) == cohort.shape(volume).z
    assert (np.diff(depths) == CELL_MM).all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(depths)))


def test_tokens_and_centres_that_do_not_fit_are_refused() -> None:
    class Odd(Constant):
        def embed_tokens(self, volume: Any) -> Any:
            tokens, centres = super().embed_tokens(volume)
            return tokens, centres[:, 0]

    with pytest.raises(ProtocolError, match=r"volume test000-v: tokens of shape"):
        localization.measure(Odd(), drawn(2), QUICK)
