"""A free report falls into findings and impression, and the impression survives a cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import RecipeError
from t3d.text.sections import find_sections, fit_sections, join_sections, split_sections
from t3d.text.sentences import split_sentences
from t3d.types import Report

GERMAN = json.loads(
    (Path(__file__).parent / "data" / "sections_german.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("FINDINGS: Heart normal. IMPRESSION: Normal.", "Heart normal.", "Normal."),
        ("Findings:\nHeart normal.\n\nImpression:\nNormal.", "Heart normal.", "Normal."),
        ("FINDINGS\nHeart normal.\nIMPRESSION\nNormal.", "Heart normal.", "Normal."),
        ("**Findings:** Heart normal.\n**Impressions:** Normal.", "Heart normal.", "Normal."),
        ("IMPRESSION: Normal.\nFINDINGS: Heart normal.", "Heart normal.", "Normal."),
        ("CT CHEST\nFINDINGS: A.\nCONCLUSION: B.", "A.", "B."),
        ("HISTORY: Cough. FINDINGS: A. IMPRESSION: B.", "A.", "B."),
        ("FINDINGS: A.\nTECHNIQUE: Axial.\nIMPRESSION: B.", "A.", "B."),
        ("EXAM: , CT.,FINDINGS:,  A.,IMPRESSION:,1.  B.", "A.", "1.  B."),
        ("FINDINGS: A.\nIMPRESSION: B.\nIMPRESSION: C.", "A.", "B.\n\nC."),
        ("FINDINGS: A.", "A.", ""),
        ("IMPRESSION: B.", "", "B."),
        ("Heart normal.", "Heart normal.", ""),
        ("These findings: none.", "These findings: none.", ""),
        ("", "", ""),
        ("Befund: A.\nBeurteilung: B.", "A.", "B."),
        ("Findings: A.\nImpressions: B.\n", "A.", "B."),
        ("IMPRESSION: 1. NO PE. END OF IMPRESSION: ", "", "1. NO PE. END OF IMPRESSION:"),
        ("A. Liver normal. IMPRESSION(S): 1. B.", "A. Liver normal.", "1. B."),
        ("CT CHEST: A.\nCT ABDOMEN: C.\nIMPRESSION: B.", "A.\n\nC.", "B."),
        ("FINDINGS: CT CHEST: A. IMPRESSION: B.", "CT CHEST: A.", "B."),
        ("EXAM dated 01/16/09.,FINDINGS: , A.,IMPRESSION:, B.", "A.", "B."),
        ("FINDINGS AND IMPRESSION: A.", "A.", ""),
        ("FINDINGS: A. ADDENDUM: C.", "A.", ""),
        ("FINDINGS: A. INCIDENTAL FINDINGS: C. IMPRESSION: B.", "A.\n\nC.", "B."),
        ("Befund: A.\nNebenbefunde: C.\nBeurteilung: B.", "A.\n\nC.", "B."),
        ("TECHNIQUE: Axial.\nRadiation dose: 5 mGy.\nFINDINGS: A.", "A.", ""),
        *GERMAN,
    ],
)
def test_a_report_is_split_at_its_headings(text: str, findings: str, impression: str) -> None:
    report = split_sections(text)
    assert (report.findings, report.impression) == (findings, impression)


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("CT CHEST\n\nTECHNIQUE: Axial.\n\nLungs clear.\n\nHeart: normal.\n\nIMPRESSION: B.",
         "Lungs clear.\n\nHeart: normal.", "B."),
        ("EXAM: CT.,TECHNIQUE: Axial.,Lungs clear.,IMPRESSION: B.", "Lungs clear.", "B."),
        ("EXAM: CT.\r\n\r\nLungs clear.\r\n", "Lungs clear.", ""),
        ("IMPRESSION: B.\nTECHNIQUE: Axial.\n\nSagittal.", "", "B."),
        ("Technik: Axial.\n\nKein Erguss.\n\nBeurteilung: B.", "Kein Erguss.", "B."),
        ("TECHNIQUE: Axial.\n\nLungs clear.\nINCIDENTAL FINDINGS: C.\nIMPRESSION: B.",
         "Lungs clear.\n\nC.", "B."),
        # Wrapped lines, one paragraph, and findings under a heading of their own.
        ("TECHNIQUE: Axial images.\nContrast was given.\nIMPRESSION: B.", "", "B."),
        ("TECHNIQUE: Axial.\nIMPRESSION: B.", "", "B."),
        ("TECHNIQUE: Axial.\n\nSagittal.\n\nFINDINGS: A.\n\nIMPRESSION: B.", "A.", "B."),
        ("TECHNIQUE: Axial.\n\nCT CHEST: A.\nIMPRESSION: B.", "A.", "B."),
        ("Dear colleague. " * 30 + "\nEXAM: BP 120.\n\nA walk.", "", ""),
    ],
)  # fmt: skip
def test_without_their_heading_findings_begin_at_the_second_paragraph_before_the_impression(
    text: str, findings: str, impression: str
) -> None:
    report = split_sections(text)
    assert (report.findings, report.impression) == (findings, impression)


def test_findings_without_a_heading_are_a_section_of_the_text() -> None:
    text = "EXAM: CT. \n\n Lungs clear.\n\nIMPRESSION: B."
    found = find_sections(text)
    assert [(one.kind, one.name, text[one.start : one.end]) for one in found] == [
        ("other", "EXAM", "CT."),
        ("findings", "", "Lungs clear."),
        ("impression", "IMPRESSION", "B."),
    ]
    assert found[1].name_start == found[1].start


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Liver normal. 1. No mass. 2. Cyst.", "Liver normal.", "1. No mass. 2. Cyst."),
        ("FINDINGS: Liver fine.\n1. No mass.\n2. Cyst.", "Liver fine.", "1. No mass.\n2. Cyst."),
        ("Nodules: 1. Right. 2. Left. Liver.\n1. A.\n2. B.", "Nodules: 1. Right. 2. Left. Liver.",
         "1. A.\n2. B."),
        ("Liver normal. 1. Only one item.", "Liver normal. 1. Only one item.", ""),
        ("Liver normal. 1. A. 3. B.", "Liver normal. 1. A. 3. B.", ""),
        ("1. All of it. 2. Is a list.", "1. All of it. 2. Is a list.", ""),
        ("A cyst of 1.2 cm and 2.3 cm.", "A cyst of 1.2 cm and 2.3 cm.", ""),
        ("Liver normal. IMPRESSION: 1. A. 2. B.", "Liver normal.", "1. A. 2. B."),
    ],
)  # fmt: skip
def test_a_numbered_list_at_the_end_is_an_impression_where_asked_for(
    text: str, findings: str, impression: str
) -> None:
    report = split_sections(text, trailing_list=True)
    assert (report.findings, report.impression) == (findings, impression)
    if "IMPRESSION" not in text:
        assert split_sections(text).impression == ""


def test_sections_have_kinds_and_offsets_into_the_text() -> None:
    text = "CT CHEST\nCLINICAL HISTORY: Cough.\nTechnique:  Axial.\nCOMPARISON:\nFINDINGS: A.\n"
    found = find_sections(text)
    assert [(one.kind, one.name, text[one.start : one.end]) for one in found] == [
        ("", "", "CT CHEST"),
        ("history", "CLINICAL HISTORY", "Cough."),
        ("technique", "Technique", "Axial."),
        ("comparison", "COMPARISON", ""),
        ("findings", "FINDINGS", "A."),
    ]
    for one in found:
        assert text[one.name_start : one.name_start + len(one.name)] == one.name


@given(
    st.lists(
        st.sampled_from(
            [
                "FINDINGS:",
                "Befund:",
                "IMPRESSION:",
                "\n",
                "a b.",
                " ",
                "HISTORY:",
                "CT CHEST:",
                "INCIDENTAL FINDINGS:",
                "\n\n",
                ".,",
                ",#*",
            ]
        ),
        max_size=14,
    )
)
def test_sections_are_in_order_and_a_section_that_occurs_once_is_a_piece_of_the_text(
    pieces: list[str],
) -> None:
    text = "".join(pieces)
    found = find_sections(text)
    flat = [place for one in found for place in (one.start, one.end)]
    assert flat == sorted(flat)
    assert not flat or flat[-1] <= len(text)
    report = split_sections(text)
    for name in ("findings", "impression"):
        bodies = [text[o.start : o.end] for o in found if o.kind == name and o.start < o.end]
        assert getattr(report, name) == "\n\n".join(bodies)


def test_a_long_text_is_searched_in_linear_time() -> None:
    text = "word: " * 4_000 + "\n" * 20_000 + "ratio 3:1, " * 2_000 + "FINDINGS: A."
    assert split_sections(text).findings == "A."


def test_the_language_is_kept() -> None:
    assert split_sections("Befund: A.", language="de").language == "de"


def test_joining_keeps_the_order_asked_for_and_skips_what_is_absent() -> None:
    report = Report(findings="A", impression="B.")
    assert join_sections(report, ("findings", "impression")) == "A\n\nB."
    assert join_sections(report, ("impression", "findings")) == "B.\n\nA"
    assert join_sections(Report(impression="B."), ("findings", "impression")) == "B."
    assert len(split_sentences(join_sections(report))) == 2


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(RecipeError, match="technique"):
        join_sections(Report(), ("technique",))


def test_splitting_what_was_joined_under_headings_gives_the_report_back() -> None:
    report = Report(findings="Heart normal. No effusion.", impression="Normal.")
    text = f"FINDINGS: {report.findings}\nIMPRESSION: {report.impression}"
    assert split_sections(text) == report


@pytest.mark.real
def test_most_real_reports_that_show_both_headings_give_both_sections(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    both = [r["text"] for r in rows if "FINDINGS:" in r["text"] and "IMPRESSION:" in r["text"]]
    assert len(both) > 40
    split = [split_sections(text) for text in both]
    assert sum(bool(r.findings and r.impression) for r in split) >= 0.95 * len(both)
    assert not any("IMPRESSION:" in r.findings for r in split)


@pytest.mark.real
def test_most_real_ct_reports_give_findings_and_an_impression(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    split = [split_sections(row["text"]) for row in rows if row["is_ct"]]
    assert len(split) == 62  # ten of them are clinic notes that mention a CT
    assert sum(bool(r.findings) for r in split) >= 50
    assert sum(bool(r.impression) for r in split) >= 51


@pytest.mark.real
def test_the_page_on_reports_tells_how_many_texts_give_findings(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    is_ct = {row["text"]: row["is_ct"] for row in rows}
    given = {text for text in is_ct if split_sections(text).findings}
    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "reports.md"
    told = page.read_text(encoding="utf-8")
    assert f"{len(is_ct)} different texts" in told
    assert f"\n{len(given)} give findings" in told
    assert f"of the {sum(is_ct.values())} on CT {sum(is_ct[text] for text in given)} (" in told


# ---- fitting to a budget ---------------------------------------------------------------------


def test_the_impression_is_kept_before_the_findings() -> None:
    fitted = fit_sections(["a", "b", "c"], ["x", "y"], (4, 4, 4, 3, 2), 10)
    assert (fitted.findings, fitted.impression, fitted.truncated) == ((0,), (0, 1), True)


def test_nothing_is_cut_where_everything_fits() -> None:
    fitted = fit_sections(["a", "b"], ["x"], (4, 4, 2), 10)
    assert (fitted.findings, fitted.impression, fitted.truncated) == ((0, 1), (0,), False)


def test_findings_end_at_the_last_sentence_that_fits_and_do_not_skip_one() -> None:
    assert fit_sections(["a", "b", "c"], [], (3, 9, 1), 6).findings == (0,)


def test_an_impression_sentence_that_is_too_long_is_passed_over() -> None:
    fitted = fit_sections(["a"], ["x", "y"], (2, 50, 3), 6)
    assert (fitted.findings, fitted.impression, fitted.truncated) == ((0,), (1,), True)


@given(st.lists(st.integers(0, 9), max_size=8), st.lists(st.integers(0, 9), max_size=8),
       st.integers(0, 60))  # fmt: skip
def test_what_is_kept_fits_and_the_impression_loses_only_what_cannot_fit_alone(
    findings: list[int], impression: list[int], budget: int
) -> None:
    fitted = fit_sections(["s"] * len(findings), ["s"] * len(impression),
                          [*findings, *impression], budget)  # fmt: skip
    used = sum(findings[i] for i in fitted.findings) + sum(impression[i] for i in fitted.impression)
    assert used <= budget
    assert fitted.findings == tuple(range(len(fitted.findings)))
    if sum(impression) <= budget:
        assert len(fitted.impression) == len(impression)
    complete = len(fitted.findings) == len(findings) and len(fitted.impression) == len(impression)
    assert fitted.truncated != complete
    if not complete and len(fitted.impression) == len(impression):
        assert used + findings[len(fitted.findings)] > budget


@pytest.mark.parametrize(("lengths", "budget"), [((1,), 5), ((1, 1), -1), ((1, -1), 5)])
def test_wrong_lengths_or_budgets_are_refused(lengths: tuple[int, ...], budget: int) -> None:
    with pytest.raises(RecipeError, match="lengths for 2 sentences"):
        fit_sections(["a"], ["b"], lengths, budget)
