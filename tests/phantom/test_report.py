"""The report of a phantom says what its labels and items say, line by line of its grammar."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from made_items import (
    KINDS,
    LOBES,
    draw_item,
    draw_patient,
    draw_report,
    phrase_pattern,
    sentence_of,
    texts,
)
from t3d.errors import RecipeError, SourceError
from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.phrases import CONDITIONS, SLOTS, Grammar
from t3d.phantom.phrases_english import ENGLISH
from t3d.phantom.report import FINDINGS_WORDS, GRAMMARS, IMPRESSION_WORDS, SIZE_JITTER, write_report
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import label_sentence
from t3d.text.sentences import split_sentences
from t3d.types import Item

NUM = 200


@pytest.fixture(scope="module")
def cohort() -> list[tuple[dict[str, int], WrittenReport]]:
    return [draw_report(seed) for seed in range(NUM)]


# ---- the tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_every_phrase_uses_known_slots_and_conditions(grammar: Grammar) -> None:
    for phrases in grammar.findings.values():
        for name in ("train", "heldout"):
            wording = phrases.wording(name)
            for phrase in (*wording.present, *wording.concluded, *wording.absent):
                condition, _, text = phrase.rpartition("|")
                assert condition in CONDITIONS
                assert set(re.findall(r"\{(\w+)\}", text)) <= SLOTS | set(grammar.form_words)
                assert text.endswith(".")


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_the_tables_cover_the_18_findings_in_order(grammar: Grammar) -> None:
    assert tuple(grammar.findings) == CT_RATE_18
    assert GRAMMARS[grammar.language] is grammar


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
@pytest.mark.parametrize("name", CT_RATE_18)
@pytest.mark.parametrize("large", [True, False])
def test_a_finding_is_said_in_at_least_three_ways(grammar: Grammar, name: str, large: bool) -> None:
    item = draw_item(name, np.random.default_rng(5), large=large)
    patterns = [phrase_pattern(p) for p in grammar.findings[name].train.present]
    said = [sentence_of(item, seed, grammar=grammar) for seed in range(40)]
    used = {next(i for i, p in enumerate(patterns) if p.fullmatch(s)) for s in said}
    assert len(used) >= 3


@pytest.mark.parametrize("name", CT_RATE_18)
def test_some_wording_does_without_the_name_of_the_label(name: str) -> None:
    phrases = ENGLISH.findings[name].train.present
    assert any(name.lower() not in phrase for phrase in phrases)


def test_every_place_code_has_at_least_two_names() -> None:
    assert all(len(set(ENGLISH.places[lobe])) >= 2 for lobe in LOBES)


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_there_are_one_to_three_denials_and_one_or_two_held_out_phrases_per_finding(
    grammar: Grammar,
) -> None:
    for phrases in grammar.findings.values():
        assert 1 <= len(phrases.train.absent) <= 3
        assert 1 <= len([p for p in phrases.heldout.present if not p.startswith("many|")]) <= 2


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_there_are_at_least_twenty_sentences_that_say_nothing_about_a_finding(
    grammar: Grammar,
) -> None:
    assert len(set(grammar.normal)) >= 20
    for sentence in (*grammar.normal, *grammar.generic):
        assert dict(label_sentence(sentence, grammar.language)) == {}, sentence


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_the_impression_never_repeats_a_phrase_of_the_findings(grammar: Grammar) -> None:
    for phrases in grammar.findings.values():
        for name in ("train", "heldout"):
            wording = phrases.wording(name)
            first = {p.rpartition("|")[2] for p in wording.present}
            assert first.isdisjoint(p.rpartition("|")[2] for p in wording.concluded)


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_held_out_phrases_are_not_in_the_training_wording(grammar: Grammar) -> None:
    for phrases in grammar.findings.values():
        for kind in ("present", "concluded", "absent"):
            train = {p.rpartition("|")[2] for p in getattr(phrases.train, kind)}
            assert train.isdisjoint(p.rpartition("|")[2] for p in getattr(phrases.heldout, kind))


# ---- a positive finding ----------------------------------------------------------------------


def test_every_positive_finding_has_exactly_one_sentence_in_findings(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    for labels, written in cohort:
        named = Counter(
            s.finding for s in written.sentences if s.section == "findings" and s.finding
        )
        assert named == Counter(name for name, value in labels.items() if value)


def test_several_items_become_one_sentence_with_the_largest_size_and_the_hull_of_depths() -> None:
    items = [
        PlacedItem(
            item=Item(finding="Lung nodule", large=True, side=side, place=place, size_mm=size),
            z_mm=z,
        )
        for side, place, size, z in (
            ("right", "RUL", 10.0, (50.0, 45.0, 55.0)),
            ("left", "LLL", 20.0, (-40.0, -50.0, -30.0)),
        )
    ]
    labels = {"Lung nodule": 1}
    written = write_report(labels, items, np.random.default_rng(0))
    (about,) = [s for s in written.sentences if s.finding and s.section == "findings"]
    assert about.z_mm == pytest.approx(((50 * 1 + -40 * 8) / 9, -50.0, 55.0))
    for seed in range(20):
        said = sentence_of(items, seed).lower()
        assert re.search(r"two|pair", said)
        assert "right" in said
        assert "left" in said
        assert abs(reported_mm(said) - 20.0) <= 20.0 * SIZE_JITTER + 0.51


def reported_mm(sentence: str) -> float:
    """The first size of a sentence in mm."""
    found = re.search(r"(\d+(?:\.\d+)?)(?: x \d+(?:\.\d+)?)? (mm|cm)\b", sentence)
    assert found is not None
    return float(found.group(1)) * (10 if found.group(2) == "cm" else 1)


def test_a_reported_size_is_within_seven_per_cent_and_written_in_three_ways() -> None:
    styles: Counter[str] = Counter()
    spread = []
    for seed in range(120):
        item = draw_item("Consolidation", np.random.default_rng(seed), large=True)
        said = sentence_of(item, seed)
        if not re.search(r"\d", said):
            continue
        styles["x" if " x " in said else ("cm" if " cm" in said else "mm")] += 1
        true = item.item.size_mm
        assert abs(reported_mm(said) - true) <= true * SIZE_JITTER + 0.51
        spread.append(reported_mm(said) / true)
    assert set(styles) == {"x", "cm", "mm"}
    assert min(spread) < 0.97
    assert max(spread) > 1.03


@pytest.mark.parametrize("name", ["Emphysema", "Pleural effusion", "Lung opacity"])
def test_words_of_severity_agree_with_the_drawn_form(name: str) -> None:
    words = {
        form: {w for table in ENGLISH.form_words.values() for w in table[form]}
        for form in ("large", "small")
    }
    for seed in range(60):
        for form, other in (("large", "small"), ("small", "large")):
            item = draw_item(name, np.random.default_rng(seed), large=form == "large")
            said = set(re.findall(r"[a-z]+", sentence_of(item, seed).lower()))
            assert said.isdisjoint(words[other] - words[form])


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
    said = " ".join(sentence_of(item, seed).lower() for seed in range(30))
    assert ("left" if right else "right") not in said
    assert ("right" if right else "left") in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_is_named_by_its_kind(kind: str) -> None:
    item = PlacedItem(
        item=Item(finding="Medical material", large=True, kind=kind), z_mm=(0.0, -1.0, 1.0)
    )
    stem = {"pacemaker": "pacemaker", "sternal wires": "wires", "port": "port"}.get(kind, "central")
    assert all(stem in sentence_of(item, seed) for seed in range(20))


def test_an_unknown_place_or_kind_is_still_written() -> None:
    item = PlacedItem(
        item=Item(finding="Lung nodule", large=False, place="left_apex", size_mm=6.0),
        z_mm=(0.0, -3.0, 3.0),
    )
    assert "the left apex" in " ".join(sentence_of(item, seed) for seed in range(5))
    gadget = PlacedItem(
        item=Item(finding="Medical material", large=True, kind="?"), z_mm=(0.0, -1.0, 1.0)
    )
    assert label_sentence(sentence_of(gadget, 0)) == {"Medical material": 1}


def test_an_article_fits_the_word_after_it(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    for _, written in cohort:
        text = f"{written.report.findings} {written.report.impression}"
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]|[{}]|  |\ba (?:a few|sparse)", text)


# ---- absent findings and filler --------------------------------------------------------------


def test_an_absent_finding_is_denied_or_not_mentioned_and_both_happen(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    seen: Counter[str] = Counter()
    for labels, written in cohort:
        said = [dict(label_sentence(s)) for s in texts(written, "findings")]
        for name in (name for name, value in labels.items() if value == 0):
            stated = {values[name] for values in said if name in values}
            assert stated <= {0}
            seen["denied" if stated else "silent"] += 1
    assert seen["denied"] > NUM
    assert seen["silent"] > NUM


def test_a_finding_without_a_label_is_never_mentioned() -> None:
    for seed in range(30):
        written = write_report({"Emphysema": 0}, [], np.random.default_rng(seed))
        for sentence in texts(written, "findings"):
            assert set(label_sentence(sentence)) <= {"Emphysema"}


def test_sections_have_the_drawn_length_in_words(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    findings = [len(written.report.findings.split()) for _, written in cohort]
    low, high = FINDINGS_WORDS
    assert low - 3 <= min(findings) < low + 8
    assert high - 8 < max(findings) <= high + 3
    assert np.mean(findings) == pytest.approx((low + high) / 2, abs=4)
    impression = [len(written.report.impression.split()) for _, written in cohort]
    assert np.mean(impression) == pytest.approx(sum(IMPRESSION_WORDS) / 2, abs=3)


def test_sentences_stand_in_random_order(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    places = []
    for _, written in cohort:
        row = [bool(s.finding) for s in written.sentences if s.section == "findings"]
        places += [i / (len(row) - 1) for i, positive in enumerate(row) if positive]
    assert np.mean(places) == pytest.approx(0.5, abs=0.05)
    assert np.std(places) == pytest.approx(1 / np.sqrt(12), abs=0.03)


def test_the_impression_says_up_to_three_positives_and_one_to_four_generic_sentences(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    for labels, written in cohort:
        row = [s.finding for s in written.sentences if s.section == "impression"]
        positives = [name for name in row if name]
        assert len(positives) == len(set(positives)) == min(3, sum(labels.values()))
        assert all(labels[name] for name in positives)
        assert 1 <= len(row) - len(positives) <= 4


# ---- offsets, wording, determinism, errors ---------------------------------------------------


def test_offsets_cut_out_whole_sentences_and_positions_belong_to_the_items(
    cohort: list[tuple[dict[str, int], WrittenReport]],
) -> None:
    for seed, (_, written) in enumerate(cohort[:60]):
        _, items = draw_patient(seed)
        for section in ("findings", "impression"):
            spans = tuple((s.start, s.end) for s in written.sentences if s.section == section)
            assert split_sentences(getattr(written.report, section)) == spans
        for sentence in written.sentences:
            group = [p.z_mm for p in items if p.item.finding == sentence.finding]
            assert (sentence.z_mm is None) == (not group)
            if sentence.z_mm is not None:
                centre, low, high = sentence.z_mm
                assert (low, high) == (min(z[1] for z in group), max(z[2] for z in group))
                assert min(z[0] for z in group) - 1e-9 <= centre <= max(z[0] for z in group) + 1e-9


def test_a_sentence_about_a_positive_states_that_finding_and_no_other() -> None:
    for wording in ("train", "heldout"):
        for seed in range(150):
            _, written = draw_report(seed, wording)
            for s in written.sentences:
                if s.finding:
                    text = getattr(written.report, s.section)[s.start : s.end]
                    assert dict(label_sentence(text)) == {s.finding: 1}, text


def test_held_out_reports_use_held_out_phrases_only() -> None:
    for seed in range(60):
        labels, written = draw_report(seed, "heldout")
        for s in written.sentences:
            text = getattr(written.report, s.section)[s.start : s.end]
            for name in label_sentence(text):
                wording = ENGLISH.findings[name].train
                train = (*wording.present, *wording.concluded, *wording.absent)
                assert not any(phrase_pattern(p).fullmatch(text) for p in train), text
        assert sum(labels.values()) == len(
            [s for s in written.sentences if s.finding and s.section == "findings"]
        )


def test_the_same_seed_gives_the_same_report_whatever_the_order_of_the_labels() -> None:
    labels, items = draw_patient(3)
    turned = dict(reversed(labels.items()))
    first = write_report(labels, items, np.random.default_rng(9))
    assert write_report(turned, items, np.random.default_rng(9)) == first
    assert write_report(labels, items, np.random.default_rng(10)) != first


def test_a_patient_with_all_findings_gets_every_one_of_them() -> None:
    rng = np.random.default_rng(0)
    items = [draw_item(name, rng, large=True) for name in CT_RATE_18]
    written = write_report(dict.fromkeys(CT_RATE_18, 1), items, rng)
    named = {s.finding for s in written.sentences if s.section == "findings"}
    assert named - {""} == set(CT_RATE_18)


def test_a_positive_label_without_an_item_is_refused_and_so_is_the_reverse() -> None:
    item = draw_item("Emphysema", np.random.default_rng(0), large=True)
    with pytest.raises(SourceError, match="no item for \\['Emphysema'\\]"):
        write_report({"Emphysema": 1}, [], np.random.default_rng(0))
    with pytest.raises(SourceError, match="no label for \\['Emphysema'\\]"):
        write_report({"Emphysema": 0}, [item], np.random.default_rng(0))


@pytest.mark.parametrize("labels", [{"Pneumonia": 1}, {"Emphysema": 2}])
def test_unknown_labels_are_refused(labels: dict[str, int]) -> None:
    with pytest.raises(SourceError, match="report labels"):
        write_report(labels, [], np.random.default_rng(0))


def test_an_unknown_wording_is_refused() -> None:
    with pytest.raises(RecipeError, match="'test'"):
        write_report({}, [], np.random.default_rng(0), wording="test")


def test_an_item_that_no_phrase_fits_is_an_error_that_says_what_is_missing() -> None:
    item = PlacedItem(item=Item(finding="Pleural effusion", large=True), z_mm=(0.0, -1.0, 1.0))
    with pytest.raises(SourceError, match="no phrase fits 'Pleural effusion'"):
        write_report({"Pleural effusion": 1}, [item], np.random.default_rng(0))
