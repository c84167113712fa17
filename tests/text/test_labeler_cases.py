"""Sentences written by hand in both languages, one table each, and what they say of a finding.

The tables were written before the rules were fitted to them, so they are what the rules must keep
doing, not a measure of how they do on other sentences.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.patient import plan
from t3d.phantom.report import GRAMMARS, write_report
from t3d.phantom.streams import stream
from t3d.text.findings import CT_RATE_18, FindingSet
from t3d.text.labeler import CT_RATE_FINDINGS, LANGUAGES, label_sentence, read_reports
from t3d.text.sentences import split_sentences

DATA = Path(__file__).parent / "data"
NUM_PHANTOMS = 60


def cases(language: str) -> list[tuple[str, str, int | None]]:
    """Rows of a table: sentence, finding, value."""
    with (DATA / f"cases_{language}.csv").open(encoding="utf-8", newline="") as file:
        return [
            (row["sentence"], row["finding"], int(row["value"]) if row["value"] else None)
            for row in csv.DictReader(file)
        ]


ALL = [(language, *case) for language in LANGUAGES for case in cases(language)]
WITHOUT_STEMS = FindingSet(
    name="without_stems",
    names=CT_RATE_18,
    terms={
        language: {name: replace(one, stems=("",)) for name, one in terms.items()}
        for language, terms in CT_RATE_FINDINGS.terms.items()
    },
)


@pytest.mark.parametrize(("language", "sentence", "finding", "value"), ALL)
def test_a_sentence_says_of_a_finding_what_a_person_reads(
    language: str, sentence: str, finding: str, value: int | None
) -> None:
    assert label_sentence(sentence, language).get(finding) == value


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_has_two_hundred_sentences_all_findings_and_all_values(language: str) -> None:
    held = cases(language)
    assert len({sentence for sentence, _, _ in held}) >= 200
    assert {finding for _, finding, _ in held} == set(CT_RATE_18)
    assert min(Counter(value for _, _, value in held).values()) >= 40
    assert len(set(held)) == len(held)


def drawn(seed: int, language: str, wording: str) -> tuple[dict[str, int], WrittenReport]:
    """Labels of a planned patient and its report in a language."""
    planned = plan(seed)
    items = [
        PlacedItem(item=one.item, z_mm=(0.0, -1.0, 1.0), count=one.count, extra=one.extra)
        for one in planned.planned
    ]
    written = write_report(
        planned.labels, items, stream(seed, "report"), wording=wording, grammar=GRAMMARS[language]
    )
    return dict(planned.labels), written


@pytest.mark.parametrize("wording", ["train", "heldout"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_label_of_a_phantom_is_read_back_from_its_report(language: str, wording: str) -> None:
    for seed in range(NUM_PHANTOMS):
        labels, written = drawn(seed, language, wording)
        assert written.report.language == language
        read = read_reports([written.report])
        for name, value in labels.items():
            assert read[name].value in ({1} if value else {0, None}), (seed, name)
        for s in written.sentences:
            text = getattr(written.report, s.section)[s.start : s.end]
            said = dict(label_sentence(text, language))
            assert said == {s.finding: 1} if s.finding else 1 not in said.values(), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_stems_that_save_time_change_no_answer(language: str) -> None:
    sentences = {sentence for sentence, _, _ in cases(language)}
    for wording in ("train", "heldout"):
        for seed in range(30):
            report = drawn(seed, language, wording)[1].report
            for text in (report.findings, report.impression):
                sentences |= {text[start:end] for start, end in split_sentences(text)}
    for sentence in sorted(sentences):
        with_stems = label_sentence(sentence, language)
        assert label_sentence(sentence, language, WITHOUT_STEMS) == with_stems, sentence
