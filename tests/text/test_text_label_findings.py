"""Findings of one's own from a TOML file, and what is said about a file that is not right."""

from __future__ import annotations

from pathlib import Path

import pytest

from t3d.errors import SourceError
from t3d.text.findings import FindingSet, read_findings
from t3d.text.labeler import CT_RATE_FINDINGS, Answer, label_sentence, read_reports
from t3d.types import Report

FILE = """
name = "own"

[[finding]]
name = "Pneumothorax"
[finding.en]
terms = ["pneumothora*", "collapsed ... lung"]
normal = ["pleural space is dry"]
exclusions = ["chest tube for"]
[finding.de]
terms = ["pneumothora*", "*spannungspneu*", "Pl\u00f6tzliche Luft"]

[[finding]]
name = "Rib fracture"
question = "Is a rib broken?"
[finding.en]
terms = ["rib fracture*", "fractured rib*"]

[[finding]]
name = "Frailty"
question = "Does the patient look frail?"
"""


@pytest.fixture
def own(tmp_path: Path) -> FindingSet:
    return written(tmp_path, FILE)


def written(folder: Path, text: str) -> FindingSet:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return read_findings(path)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Small apical pneumothorax.", {"Pneumothorax": 1}),
        ("No pneumothoraces.", {"Pneumothorax": 0}),
        ("A collapsed and airless left lung.", {"Pneumothorax": 1}),
        ("The pleural space is dry.", {"Pneumothorax": 0}),
        ("A pneumothorax cannot be excluded.", {}),
        ("Chest tube for pneumothorax.", {}),
        ("Tensionpneumothorax.", {}),  # no * before the term
        ("Rib fractures, no PNEUMOTHORAX.", {"Pneumothorax": 0, "Rib fracture": 1}),
        ("Fractured-rib deformity.", {"Rib fracture": 1}),
    ],
)
def test_words_of_a_file_are_read_with_negation_and_doubt(
    own: FindingSet, sentence: str, expected: dict[str, int]
) -> None:
    assert dict(label_sentence(sentence, "en", own)) == expected


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("Kein Pneumothorax.", 0),
        ("Spannungspneumothorax links.", 1),
        ("Ploetzliche Luft rechts.", 1),
        ("pl\u00f6tzliche luft.", 1),
    ],
)
def test_german_words_of_a_file_are_found_in_both_spellings(
    own: FindingSet, sentence: str, value: int
) -> None:
    assert dict(label_sentence(sentence, "de", own)) == {"Pneumothorax": value}


def test_names_and_questions_keep_their_order(own: FindingSet) -> None:
    assert (own.name, own.names) == ("own", ("Pneumothorax", "Rib fracture", "Frailty"))
    assert own.questions == {
        "Rib fracture": "Is a rib broken?",
        "Frailty": "Does the patient look frail?",
    }


def test_another_word_gives_another_digest(own: FindingSet, tmp_path: Path) -> None:
    assert own.digest == written(tmp_path, FILE).digest
    assert own.digest != written(tmp_path, FILE.replace("fractured rib", "broken rib")).digest
    assert own.digest != written(tmp_path, FILE.replace("Is a rib", "Was a rib")).digest


def test_a_star_and_a_gap_are_all_that_a_term_can_do(tmp_path: Path) -> None:
    odd = written(tmp_path, FILE.replace('"rib fracture*"', '"rib (a+)+ [x] fracture"'))
    assert dict(label_sentence("Rib (a+)+ [x] fracture.", "en", odd)) == {"Rib fracture": 1}
    assert dict(label_sentence("Rib aaa x fracture.", "en", odd)) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("terms =", "words ="), "unknown key 'words'"),
        (('["rib fracture*", "fractured rib*"]', '"rib"'), "finding 2, en: terms: a list of words"),
        (('"rib fracture*"', '"*"'), "each with a letter in it"),
        (('name = "own"', 'name = "my own"'), "name: a line of letters"),
        (('name = "own"', 'name = "own"\nother = 1'), "unknown key 'other'"),
        (('name = "Rib fracture"', 'name = "Pneumothorax"'), "finding 2: its name is there twice"),
        (('question = "Does the patient look frail?"', ""), "finding 3: has terms in no language"),
        (('"Does the patient look frail?"', "3"), "finding 3: question: a sentence is needed"),
        (('name = "Frailty"', ""), "finding 3: has no name"),
        (("[finding.de]", "[finding.de"), "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    assert change[0] in FILE
    with pytest.raises(SourceError) as raised:
        written(tmp_path, FILE.replace(*change))
    assert told in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_a_file_without_findings_and_one_that_is_not_there_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="at least one table"):
        written(tmp_path, 'name = "own"\n')
    with pytest.raises(SourceError, match=r"none\.toml cannot be read"):
        read_findings(tmp_path / "none.toml")


def test_a_language_without_terms_or_rules_is_an_error(own: FindingSet) -> None:
    with pytest.raises(SourceError, match="'own' have no terms in 'fr'"):
        label_sentence("Pneumothorax.", "fr", own)
    french = FindingSet(name="x", names=own.names, terms={"fr": own.terms["en"]})
    with pytest.raises(SourceError, match="no rules of negation for reports in 'fr'"):
        label_sentence("Pneumothorax.", "fr", french)


def test_an_answer_gives_the_place_of_its_evidence() -> None:
    report = Report(findings="Clear trachea. No effusion. A nodule.", impression="1. Effusion.")
    read = read_reports([report])
    effusion, nodule = read["Pleural effusion"], read["Lung nodule"]
    assert (effusion.value, effusion.section) == (1, "impression")
    assert report.impression[effusion.start : effusion.end] == "Effusion."
    assert report.findings[nodule.start : nodule.end] == "A nodule."
    assert read["Emphysema"] == Answer(value=None)
    assert set(read) == set(CT_RATE_FINDINGS.names)


def test_a_denial_keeps_the_first_place_and_gives_way_to_an_assertion() -> None:
    reports = [Report(findings="No effusion. No effusion at all."), Report(impression="Effusion.")]
    assert read_reports(reports[:1])["Pleural effusion"] == Answer(
        value=0, section="findings", start=0, end=12
    )
    assert read_reports(reports)["Pleural effusion"] == Answer(
        value=1, report=1, section="impression", start=0, end=9
    )


def test_a_preliminary_report_counts_only_alone() -> None:
    early = Report(findings="Effusion.", status="preliminary")
    final = Report(findings="Kein Erguss.", language="de")
    assert read_reports([early])["Pleural effusion"].value == 1
    assert read_reports([early, final])["Pleural effusion"] == Answer(
        value=0, report=1, section="findings", start=0, end=12
    )
