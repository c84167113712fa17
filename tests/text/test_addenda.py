"""A final report replaces a preliminary one; an addendum is added under its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3d.errors import SourceError
from t3d.text.addenda import (
    ReportPart,
    read_report,
    report_parts,
    reports_in_row,
    resolve_reports,
)
from t3d.types import Report

GERMAN = json.loads((Path(__file__).parent / "data" / "addenda_german.json").read_text("utf-8"))


def pieces(text: str) -> list[tuple[str, str]]:
    return [(part.status, text[part.start : part.end].strip()) for part in report_parts(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: A.", [("final", "FINDINGS: A.")]),
        ("", [("final", "")]),
        ("Wet read: A.\nFINAL REPORT\nB.", [("preliminary", "A."), ("final", "B.")]),
        ("CT CHEST\nPRELIMINARY REPORT: A.\n", [("preliminary", "A.")]),
        ("IMPRESSION: A.\nADDENDUM: B.", [("final", "IMPRESSION: A."), ("addendum", "B.")]),
        (
            "A.\n*** ADDENDUM #1 by Dr. X on 3/4/2019 ***\nB.\nADDENDUM #2:\nC.",
            [("final", "A."), ("addendum", "B."), ("addendum", "C.")],
        ),
        (
            "ADDENDUM: B.\nEND OF ADDENDUM\nEXAM: A.",
            [("addendum", "B."), ("final", "EXAM: A.")],
        ),
        ("ADDENDUM: An exam. B.\nEXAM: A.", [("addendum", "An exam. B."), ("final", "EXAM: A.")]),
        ("ADDENDUM: B.", [("addendum", "B.")]),
        ("A preliminary report exists. Final report to follow.",
         [("final", "A preliminary report exists. Final report to follow.")]),
    ],
)  # fmt: skip
def test_parts_begin_after_their_marks(text: str, expected: list[tuple[str, str]]) -> None:
    assert pieces(text) == expected


def test_a_text_without_marks_is_one_final_part() -> None:
    assert report_parts("A.") == (ReportPart(status="final", start=0, end=2),)


# ---- several reports -------------------------------------------------------------------------


def test_a_final_report_replaces_every_preliminary_one_whatever_the_order() -> None:
    early = Report(findings="Normal.", status="preliminary")
    final = Report(findings="Nodule.", impression="Nodule.")
    for order in ([early, final], [final, early], [early, final, early]):
        got = resolve_reports(order)
        assert got.report == final
        assert got.num_replaced == len(order) - 1


def test_without_a_final_report_the_last_preliminary_one_counts_and_stays_preliminary() -> None:
    drafts = [Report(findings=text, status="preliminary") for text in ("A.", "B.")]
    got = resolve_reports(drafts)
    assert got.report == drafts[1]
    assert got.num_replaced == 1


def test_final_reports_that_differ_are_joined_and_a_repeated_one_counts_once() -> None:
    chest = Report(findings="Lung.", impression="A.")
    abdomen = Report(findings="Liver.", impression="B.")
    got = resolve_reports([chest, abdomen, chest])
    assert got.report == Report(findings="Lung.\n\nLiver.", impression="A.\n\nB.")
    assert (got.num_repeated, got.num_replaced, got.num_addenda) == (1, 0, 0)


def test_addenda_are_added_to_their_sections_in_order_under_the_name_of_their_language() -> None:
    got = resolve_reports(
        [
            Report(findings="A.", impression="B."),
            Report(findings="C.", status="addendum"),
            Report(impression="D.", status="addendum", language="de"),
            Report(impression="E.", status="addendum", language="fr"),
        ]
    )
    assert got.report.findings == "A.\n\nAddendum: C."
    assert got.report.impression == "B.\n\nNachtrag: D.\n\nAddendum: E."
    assert got.num_addenda == 3
    assert got.report.status == "final"


def test_an_addendum_to_a_preliminary_report_does_not_make_it_final() -> None:
    early = Report(findings="A.", status="preliminary", language="de")
    got = resolve_reports([early, Report(findings="B.", status="addendum", language="de")])
    assert got.report == Report(findings="A.\n\nNachtrag: B.", status="preliminary", language="de")


def test_no_report_gives_an_empty_one_and_an_addendum_alone_is_kept() -> None:
    assert resolve_reports([]).report == Report()
    alone = resolve_reports([Report(impression="B.", status="addendum")])
    assert alone.report == Report(impression="Addendum: B.")


def test_an_unknown_status_is_refused_without_quoting_the_report() -> None:
    with pytest.raises(SourceError, match="1 of 2 reports have an unknown status") as error:
        resolve_reports([Report(findings="A."), Report(findings="Secret.", status="draft")])
    assert "Secret" not in str(error.value)


# ---- one free text ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "findings", "impression", "status"),
    [
        (
            "PRELIMINARY REPORT: No PE.\nFINAL REPORT: FINDINGS: Small PE. IMPRESSION: PE.\n"
            "ADDENDUM: PE is subsegmental.\nElectronically signed by John Smith, MD",
            "Small PE.",
            "PE.\n\nAddendum: PE is subsegmental.",
            "final",
        ),
        ("Wet read: Normal.", "Normal.", "", "preliminary"),
        ("IMPRESSION: 1. NO PE SINCE <TIMEX3>XX/XX</TIMEX3>.", "",
         "1. NO PE SINCE [date].", "final"),
        ("FINDINGS: A.\nADDENDUM:\nFINDINGS: C.\nIMPRESSION: D.", "A.\n\nAddendum: C.",
         "Addendum: D.", "final"),
        ("", "", "", "final"),
        *GERMAN,
    ],
)  # fmt: skip
def test_one_free_text_gives_one_report(
    text: str, findings: str, impression: str, status: str
) -> None:
    report = read_report(text).report
    assert (report.findings, report.impression, report.status) == (findings, impression, status)


def test_the_language_is_told_from_the_text_unless_it_is_given() -> None:
    assert read_report("Befund: Kein Erguss.\nBeurteilung: Normal.").report.language == "de"
    assert read_report("FINDINGS: No effusion.").report.language == "en"
    assert read_report("Normal.").report.language == "en"
    assert read_report("Normal.", language="de").report.language == "de"


def test_a_trailing_list_is_an_impression_where_asked_for() -> None:
    text = "Liver normal.\n1. No mass.\n2. Cyst."
    assert read_report(text, trailing_list=True).report.impression == "1. No mass.\n2. Cyst."
    assert read_report(text).report.impression == ""


def test_what_was_resolved_is_told_as_facts_and_only_where_something_was() -> None:
    assert dict(read_report("FINDINGS: A.").facts) == {}
    text = "Wet read: A.\nFINAL REPORT: B.\nADDENDUM: C.\nADDENDUM: D."
    assert dict(read_report(text).facts) == {"reports_replaced": "1", "report_addenda": "2"}
    twice = [Report(findings="A."), Report(findings="A.")]
    assert dict(resolve_reports(twice).facts) == {"reports_repeated": "1"}


def test_an_addendum_that_is_told_twice_is_added_once() -> None:
    note = Report(impression="B.", status="addendum")
    got = resolve_reports([Report(findings="A."), note, note])
    assert got.report == Report(findings="A.", impression="Addendum: B.")
    assert (got.num_addenda, got.num_repeated) == (1, 1)


def test_a_text_may_begin_under_a_heading_so_that_a_part_of_the_body_opens_nothing() -> None:
    text = "Liver: fatty.\nPelvis: normal.\nADDENDUM: Seen again."
    got = read_report(text, opens="FINDINGS").report
    assert got.findings == "Liver: fatty.\nPelvis: normal."
    assert got.impression == "Addendum: Seen again."
    assert read_report(text).report.findings == "normal."


# ---- one row of a table ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"report": "FINDINGS: A.\nIMPRESSION: B."}, Report(findings="A.", impression="B.")),
        ({"report": "Befund: Der A.\nBeurteilung: Kein B."},
         Report(findings="Der A.", impression="Kein B.", language="de")),
        ({"report": "Lungs are clear."}, Report(findings="Lungs are clear.")),
        ({"report": "PRELIMINARY REPORT: A."}, Report(findings="A.", status="preliminary")),
        ({"findings": " FINDINGS: A.  ", "impression": "ADDENDUM: ___\n"},
         Report(findings=" FINDINGS: A.  ", impression="ADDENDUM: ___\n")),
        ({"report": "IMPRESSION: A.", "impression": "B."},
         Report(findings="IMPRESSION: A.", impression="B.")),
        ({"findings": "Der Thorax ist ohne Befund."},
         Report(findings="Der Thorax ist ohne Befund.", language="de")),
    ],
)  # fmt: skip
def test_a_row_gives_free_text_in_sections_and_told_sections_as_they_stand(
    texts: dict[str, str], expected: Report
) -> None:
    assert reports_in_row(texts) == [expected]


def test_a_row_without_text_gives_no_report() -> None:
    assert reports_in_row({}) == []
    assert reports_in_row({"report": " ", "findings": "\n", "impression": ""}) == []
    assert reports_in_row({"report": "INDICATION: Cough."}) == []


def test_a_language_that_is_told_wins_over_what_the_text_looks_like() -> None:
    for texts in ({"report": "Kein Erguss."}, {"findings": "Kein Erguss.", "impression": ""}):
        assert [r.language for r in reports_in_row(texts)] == ["de"]
        assert [r.language for r in reports_in_row(texts, language="fr")] == ["fr"]


def test_the_status_of_a_row_is_that_of_its_parts_unless_they_say_otherwise() -> None:
    text = {"report": "A.\nADDENDUM: B."}
    parts = reports_in_row(text, status="preliminary")
    assert [(r.status, r.findings, r.impression) for r in parts] == [
        ("preliminary", "A.", ""),
        ("addendum", "", "B."),
    ]
    (late,) = reports_in_row({"report": "Seen again."}, status="addendum")
    assert (late.impression, late.status) == ("Seen again.", "addendum")
