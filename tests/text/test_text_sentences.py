"""Sentences are found where people end them, and nowhere else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.text.boilerplate import mask_tags
from t3d.text.sections import join_sections, split_sections
from t3d.text.sentences import split_sentences

GERMAN = json.loads(
    (Path(__file__).parent / "data" / "sentences_german.json").read_text(encoding="utf-8")
)


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("No effusion", ["No effusion"]),
        ("No effusion. Heart normal.", ["No effusion.", "Heart normal."]),
        ("Nodule of 1.5 cm. No effusion.", ["Nodule of 1.5 cm.", "No effusion."]),
        ("It measures 5 mm. The rest is clear.", ["It measures 5 mm.", "The rest is clear."]),
        ("Seen by Dr. Smith today. Normal.", ["Seen by Dr. Smith today.", "Normal."]),
        ("Approx. 3 cm wide. Normal.", ["Approx. 3 cm wide.", "Normal."]),
        ("Changes (e.g. Scars) persist. Normal.", ["Changes (e.g. Scars) persist.", "Normal."]),
        ("See image No. 3 for this. Normal.", ["See image No. 3 for this.", "Normal."]),
        ("J. Doe has a nodule. Normal.", ["J. Doe has a nodule.", "Normal."]),
        ("1. No effusion. 2. Nodule.", ["No effusion.", "Nodule."]),
        ("1) No effusion.\n2) Nodule", ["No effusion.", "Nodule"]),
        ("- No effusion\n- Nodule", ["No effusion", "Nodule"]),
        ("See series 3. The rest is clear.", ["See series 3.", "The rest is clear."]),
        ("A line that\nwraps here. End.", ["A line that\nwraps here.", "End."]),
        ("Findings\n\nNormal heart", ["Findings", "Normal heart"]),
        ("Is it new? Probably! Yes.", ["Is it new?", "Probably!", "Yes."]),
        ("no effusion. heart normal.", ["no effusion.", "heart normal."]),
        ("Joined by mistake.The heart is normal.", ["Joined by mistake.", "The heart is normal."]),
        ("Done.,Normal heart.", ["Done.", "Normal heart."]),
        ('He said "normal." Then left.', ['He said "normal."', "Then left."]),
        ("Wait... Nothing.", ["Wait...", "Nothing."]),
        ("Kein Erguss, z.B. links. Herz normal.", ["Kein Erguss, z.B. links.", "Herz normal."]),
    ],
)
def test_a_text_is_split_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize(("text", "expected"), GERMAN)
def test_a_german_text_is_split_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


def test_marks_that_were_blanked_out_do_not_cut_a_sentence() -> None:
    text = "1. NO PE SINCE <TIMEX3>XX/XX</TIMEX3>. 2. DR. <PERSON>LAST_NAME</PERSON> WAS PAGED."
    spans = split_sentences(mask_tags(text))
    assert [text[start:end] for start, end in spans] == [
        "NO PE SINCE <TIMEX3>XX/XX</TIMEX3>.",
        "DR. <PERSON>LAST_NAME</PERSON> WAS PAGED.",
    ]


@given(st.text(alphabet="ab A.B1?,\n-)(re\u00fc", max_size=80))
def test_spans_are_ordered_inside_the_text_and_lose_no_letter(text: str) -> None:
    spans = split_sentences(text)
    flat = [place for span in spans for place in span]
    assert flat == sorted(flat)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    kept = "".join(text[start:end] for start, end in spans)
    assert [c for c in kept if c.isalpha()] == [c for c in text if c.isalpha()]


def test_a_long_text_without_a_full_stop_is_split_in_linear_time() -> None:
    text = "word " * 40_000 + "1." * 20_000 + " 12. X" * 20_000
    assert len(split_sentences(text)) == 20_001


@pytest.mark.real
def test_sentences_of_real_reports_keep_numbers_and_abbreviations_whole(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sentences = []
    for row in rows:
        report = split_sections(row["text"])
        sentences += cut(join_sections(report))
    assert len(sentences) > 2000
    assert not [s for s in sentences if s.rstrip().endswith((" Dr.", " e.g.", " i.e.", " Mr."))]
    broken = [
        (first, second)
        for first, second in pairwise(sentences)
        if first[-2:-1].isdigit() and first.endswith(".") and second[:1].isdigit()
    ]
    assert len(broken) < 0.005 * len(sentences)
    long = [s for s in sentences if len(s.split()) > 80]
    assert len(long) < 0.005 * len(sentences)
