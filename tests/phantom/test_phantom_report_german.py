"""German reports say the same truth in a grammar of their own."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from made_items import (
    LOBES,
    draw_item,
    draw_patient,
    draw_report,
    phrase_pattern,
    sentence_of,
    texts,
)
from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.phrases_english import ENGLISH
from t3d.phantom.phrases_german import GERMAN
from t3d.phantom.report import FINDINGS_WORDS, IMPRESSION_WORDS, SIZE_JITTER, write_report
from t3d.text.labeler import label_report, label_sentence
from t3d.text.language import detect_language
from t3d.text.sentences import split_sentences
from t3d.types import Item

NUM = 600
READ = 150
WORDINGS = ("train", "heldout")

Cohort = list[tuple[dict[str, int], WrittenReport]]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return [draw_report(seed, "train", "de") for seed in range(NUM)]


# ---- the tables ------------------------------------------------------------------------------


def test_it_has_every_place_station_side_and_device_that_english_has() -> None:
    for table in ("places", "stations", "sides", "devices", "numbers", "place_sets"):
        assert set(getattr(GERMAN, table)) == set(getattr(ENGLISH, table)), table


# ---- one report ------------------------------------------------------------------------------


def test_german_and_english_reports_of_a_patient_state_the_same_truth() -> None:
    for seed in range(60):
        labels, items = draw_patient(seed)
        both = [
            write_report(labels, items, np.random.default_rng(seed), grammar=grammar)
            for grammar in (ENGLISH, GERMAN)
        ]
        stated = [
            {s.finding: s.z_mm for s in one.sentences if s.finding and s.section == "findings"}
            for one in both
        ]
        assert stated[0] == stated[1]
        assert both[1].report.language == "de"


def test_it_is_german_throughout(cohort: Cohort) -> None:
    english = re.compile(r"\b(?:the|of|and|no|with|is|are|lung|lobe)\b")
    for _, written in cohort:
        for text in (written.report.findings, written.report.impression):
            assert detect_language(text) == "de"
            assert not english.search(text), text
            assert not re.search(r"[{}|]|  | \.", text)


def test_offsets_cut_out_whole_sentences(cohort: Cohort) -> None:
    for _, written in cohort:
        for section in ("findings", "impression"):
            spans = tuple((s.start, s.end) for s in written.sentences if s.section == section)
            assert split_sentences(getattr(written.report, section)) == spans


def test_every_positive_has_one_sentence_and_the_impression_repeats_up_to_three(
    cohort: Cohort,
) -> None:
    for labels, written in cohort:
        positive = Counter(name for name, value in labels.items() if value)
        for section, most in (("findings", len(positive)), ("impression", 3)):
            row = [s.finding for s in written.sentences if s.section == section and s.finding]
            assert len(row) == min(most, len(positive))
            assert not Counter(row) - positive


@pytest.mark.parametrize("wording", WORDINGS)
def test_every_sentence_is_read_as_it_was_meant(wording: str) -> None:
    for seed in range(READ):
        labels, written = draw_report(seed, wording, "de")
        for s in written.sentences:
            text = getattr(written.report, s.section)[s.start : s.end]
            read = dict(label_sentence(text, "de"))
            assert read == {s.finding: 1} if s.finding else 1 not in read.values(), text
        read_all = label_report(texts(written, "findings"), "de")
        for name, value in labels.items():
            assert read_all[name].value in ({1} if value else {0, None}), (seed, name)


def test_held_out_reports_use_held_out_phrases_only() -> None:
    for seed in range(60):
        _, written = draw_report(seed, "heldout", "de")
        for s in written.sentences:
            if s.finding:
                text = getattr(written.report, s.section)[s.start : s.end]
                train = GERMAN.findings[s.finding].train
                phrases = (*train.present, *train.concluded)
                assert not any(phrase_pattern(p).fullmatch(text) for p in phrases), text


def test_sizes_are_near_the_truth_and_written_with_a_decimal_comma() -> None:
    number = re.compile(r"(\d+(?:,\d+)?)(?: x \d+(?:,\d+)?)? (mm|cm)\b")
    forms: Counter[str] = Counter()
    for seed in range(150):
        item = draw_item("Consolidation", np.random.default_rng(seed), large=seed % 2 == 0)
        said = sentence_of(item, seed, grammar=GERMAN)
        assert not re.search(r"\d\.\d", said)
        found = number.search(said)
        if found is None:
            continue
        value = float(found.group(1).replace(",", ".")) * (10 if found.group(2) == "cm" else 1)
        true = item.item.size_mm
        assert abs(value - true) <= true * SIZE_JITTER + 0.51
        forms["x" if " x " in said else found.group(2)] += 1
        forms["comma"] += "," in found.group(1)
    assert all(forms[form] > 5 for form in ("x", "mm", "cm", "comma"))


def test_the_ratio_of_the_heart_is_written_with_a_comma() -> None:
    item = draw_item("Cardiomegaly", np.random.default_rng(0), large=True)
    said = " ".join(sentence_of(item, seed, grammar=GERMAN) for seed in range(20))
    assert "0,58" in said
    assert "0.58" not in said


@pytest.mark.parametrize("name", ["Emphysema", "Pleural effusion", "Lung opacity"])
def test_words_of_severity_agree_with_the_drawn_form(name: str) -> None:
    words = {
        form: {word for table in GERMAN.form_words.values() for word in table[form]}
        for form in ("large", "small")
    }
    assert words["large"].isdisjoint(words["small"])
    for seed in range(60):
        for form, other in (("large", "small"), ("small", "large")):
            item = draw_item(name, np.random.default_rng(seed), large=form == "large")
            said = set(re.findall(r"\w+", sentence_of(item, seed, grammar=GERMAN).lower()))
            assert said.isdisjoint(words[other])


@pytest.mark.parametrize("lobe", LOBES)
def test_a_sentence_names_the_side_of_its_item_and_never_the_other(lobe: str) -> None:
    right = lobe.startswith("R")
    item = PlacedItem(
        item=Item(
            finding="Consolidation",
            large=True,
            side="right" if right else "left",
            place=lobe,
            size_mm=40.0,
        ),
        z_mm=(0.0, -10.0, 10.0),
    )
    said = " ".join(sentence_of(item, seed, grammar=GERMAN).lower() for seed in range(30))
    assert ("link" if right else "recht") not in said
    assert ("recht" if right else "link") in said


def test_an_unknown_place_or_kind_is_still_written() -> None:
    nodule = Item(finding="Lung nodule", large=False, place="left_apex", size_mm=6.0)
    placed = PlacedItem(item=nodule, z_mm=(0.0, -3.0, 3.0))
    assert "in Region left apex" in " ".join(
        sentence_of(placed, seed, grammar=GERMAN) for seed in range(5)
    )
    gadget = PlacedItem(
        item=Item(finding="Medical material", large=True, kind="?"), z_mm=(0.0, -1.0, 1.0)
    )
    assert label_sentence(sentence_of(gadget, 0, grammar=GERMAN), "de") == {"Medical material": 1}


# ---- many reports ----------------------------------------------------------------------------


def test_an_absent_finding_is_denied_or_not_mentioned_and_both_happen(cohort: Cohort) -> None:
    seen: Counter[str] = Counter()
    for labels, written in cohort[:READ]:
        said = label_report(texts(written, "findings"), "de")
        for name, value in labels.items():
            if value == 0:
                seen["denied" if said[name].value == 0 else "silent"] += 1
    assert seen["denied"] > READ
    assert seen["silent"] > READ


@pytest.mark.parametrize("section", ["findings", "impression"])
def test_the_number_of_words_does_not_give_away_the_number_of_findings(
    cohort: Cohort, section: str
) -> None:
    words = [len(getattr(written.report, section).split()) for _, written in cohort]
    counts = [sum(labels.values()) for labels, _ in cohort]
    assert abs(np.corrcoef(words, counts)[0, 1]) < 0.12
    asked = FINDINGS_WORDS if section == "findings" else IMPRESSION_WORDS
    assert np.mean(words) == pytest.approx(sum(asked) / 2, abs=3)


def test_no_report_occurs_twice(cohort: Cohort) -> None:
    assert len({written.report for _, written in cohort}) == NUM
