"""What says nothing about the patient is blanked out, and every offset survives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.text.boilerplate import mask_boilerplate, mask_tags, without_marks

GERMAN = json.loads(
    (Path(__file__).parent / "data" / "boilerplate_german.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SINCE <TIMEX3>XX/XX</TIMEX3>.", "SINCE [date] ."),
        ("DR. <PERSON>LAST_NAME</PERSON> AT <PAGER>.", "DR. AT ."),
        ("Seen on [**2019-3-4**] by Dr. [**Last Name (STitle) 12**].", "Seen on [date] by Dr. ."),
        ("The ___ lobe, compared to ___.", "The lobe, compared to ."),
        ("XXXX year old with XXXXX.", "year old with ."),
        ("Nodule <3 mm and >2 mm; a_b; __x.", "Nodule <3 mm and >2 mm; a_b; __x."),
        ("Ratio <B and C> is kept, <PERSON> is not.", "Ratio <B and C> is kept, is not."),
        ("", ""),
    ],
)
def test_tags_become_a_date_or_blanks(text: str, expected: str) -> None:
    masked = mask_tags(text)
    assert " ".join(masked.split()) == expected
    assert len(masked) == len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Normal.\nElectronically signed by: John A. Smith, M.D. on 3/4/2019 10:15", "Normal."),
        ("Normal. Electronically signed by J. Smith, MD. More text.", "Normal. More text."),
        ("Dictated by: Jane Doe, MD\nFINDINGS: A.", "FINDINGS: A."),
        ("Transcribed on 03/04/2019\nNormal.", "Normal."),
        ("Normal.\nJohn Smith, MD\nAttending Radiologist", "Normal. Attending Radiologist"),
        (
            "NO PE. I HAVE PERSONALLY REVIEWED THE IMAGES FOR THIS EXAMINATION AND AGREED WITH THE "
            "REPORT TRANSCRIBED ABOVE.",
            "NO PE.",
        ),
        (
            "A. I, the teaching physician, have reviewed the images and agree with the above. B.",
            "A. B.",
        ),
        ("A. The attending radiologist has reviewed the images and agrees. B.", "A. B."),
        ("A. This report was dictated with voice recognition software. B.", "A. B."),
        ("1. NO PE. END OF IMPRESSION:", "1. NO PE."),
        ("A.\n*** END OF REPORT ***", "A."),
        *GERMAN,
    ],
)
def test_boilerplate_is_blanked_out(text: str, expected: str) -> None:
    masked = mask_boilerplate(text)
    assert " ".join(masked.split()) == expected
    assert len(masked) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "I have reviewed the prior CT and the nodule is stable.",
        "The catheter was placed under supervision of the signed consent.",
        "Voice recognition is impaired after the stroke.",
        "Findings were discussed with Dr. Smith, who agrees.",
        "Report was read as normal.",
        "The impression on the trachea by the goitre is mild.",
        "Herz normal. Freigegebene Operation. Diktiert wurde nichts.",
    ],
)
def test_sentences_that_only_look_alike_stay(text: str) -> None:
    assert mask_boilerplate(text) == text


@given(
    st.lists(
        st.sampled_from(
            [
                "Nodule of 5 mm. ",
                "<PERSON>X</PERSON>",
                "\n",
                "Electronically signed by ",
                "Dr. med. ",
                "___",
                "[**",
                "**]",
                "Dictated by: ",
            ]
        ),
        max_size=12,
    )
)
def test_nothing_else_moves_or_changes(pieces: list[str]) -> None:
    text = "".join(pieces)
    for mask in (mask_tags, mask_boilerplate):
        masked = mask(text)
        assert len(masked) == len(text)
        changed = {new for old, new in zip(text, masked, strict=True) if old != new}
        assert changed <= set(" [date]")
        assert masked.count("\n") == text.count("\n")


def test_a_long_text_is_searched_in_linear_time() -> None:
    text = "I have reviewed " * 4000 + "this report " * 4000 + "<PERSON>" * 4000 + "[**" * 4000
    assert len(mask_boilerplate(mask_tags(text))) == len(text)


@pytest.mark.real
def test_real_reports_without_boilerplate_stay_as_they_are(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["note_id"] for row in rows if mask_boilerplate(row["text"]) != row["text"]] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SINCE <TIMEX3>XX/XX</TIMEX3>.  DR. <PERSON>A</PERSON> PAGED.",
         "SINCE [date].  DR. PAGED."),
        ("Told to ___ , then ___ left.", "Told to, then left."),
        ("A  B\t C.\n   Next.", "A  B\t C.\n   Next."),
        ("Normal.\nDictated by: Dr. Doe.\nAddendum", "Normal.\n\nAddendum"),
        ("A<DATE>X</DATE>B", "A[date] B"),
        ("STABLE NODULE, DO CT IN 3 MONTHS.", "STABLE NODULE, DO CT IN 3 MONTHS."),
        ("Nodule, do CT.\nAnn Doe, DO", "Nodule, do CT.\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_gaps_are_closed_where_something_was_taken_out_and_nowhere_else(
    text: str, expected: str
) -> None:
    assert without_marks(text) == expected


@given(st.text(alphabet="aB .,\n\t_XI<>", max_size=60))
def test_without_marks_everything_that_was_not_masked_stays_in_order(text: str) -> None:
    masked = mask_boilerplate(mask_tags(text))
    assert "".join(without_marks(text).split()) == "".join(masked.split())
