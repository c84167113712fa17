"""The page to check labels by eye: what is drawn, what is marked, and that all text is escaped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from t3d.cohort.labels import label_by_rule, label_by_table
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import StoreError
from t3d.show.label_audit import label_audit
from t3d.text.findings import FindingSet
from t3d.text.labeler import CT_RATE_FINDINGS
from t3d.types import Report, Study

RULE = "rule/two"
TWO = FindingSet(
    name="two", names=("Pleural effusion", "Lung nodule"), terms=CT_RATE_FINDINGS.terms
)
NUM = 12


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    path = tmp_path / "cohort"
    with CohortWriter(path) as writer:
        for n in range(NUM):
            text = "<script>alert(1)</script> & No nodule. "
            text += ("Small effusion <b>left</b>.", "No effusion.", "Clear.")[n % 3]
            study = Study(
                study_id=f"s{n:02d}",
                patient_id=f"patient{n}",
                series=(),
                reports=(Report(findings=text),),
                labels={"Pleural effusion": 1},
            )
            writer.record(study, "none", [])
    label_by_rule(path, TWO)
    return Cohort.open(path)


def page(cohort: Cohort, out: Path, **options: int) -> str:
    return label_audit(cohort, RULE, out, **options).read_text(encoding="utf-8")


def marked(text: str) -> list[str]:
    return re.findall(r"<mark>(.*?)</mark>", text)


def studies(text: str) -> list[tuple[str, str]]:
    return re.findall(r'<span class="tag \w+">([\w ]+)</span>(\w+)</h3>', text)


def test_the_page_draws_some_studies_of_each_finding_and_value(
    cohort: Cohort, tmp_path: Path
) -> None:
    text = page(cohort, tmp_path / "audit.html", per_stratum=2)
    drawn = studies(text)
    assert [value for value, _ in drawn] == [
        *("denied", "denied"),
        *("present", "present", "denied", "denied", "not stated", "not stated"),
    ]
    remainder = {"present": 0, "denied": 1, "not stated": 2}
    assert all(int(key[1:]) % 3 == remainder[value] for value, key in drawn[2:])
    assert "4 present, 4 denied, 4 not stated" in text
    assert "0 present, 12 denied, 0 not stated" in text


def test_the_sentence_that_led_to_a_label_is_marked(cohort: Cohort, tmp_path: Path) -> None:
    assert marked(page(cohort, tmp_path / "a.html", per_stratum=1)) == [
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; No nodule.",
        "Small effusion &lt;b&gt;left&lt;/b&gt;.",
        "No effusion.",
    ]


def test_no_text_of_a_report_becomes_part_of_the_page(cohort: Cohort, tmp_path: Path) -> None:
    text = page(cohort, tmp_path / "a.html")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert" not in text
    assert "<b>left" not in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "patient1" not in text


def test_what_other_origins_say_and_how_they_agree_stands_beside_it(
    cohort: Cohort, tmp_path: Path
) -> None:
    table = tmp_path / "reader.csv"
    table.write_text("study,Pleural effusion\ns00,0\n")
    label_by_table(cohort.path, table)
    text = page(Cohort.open(cohort.path), tmp_path / "a.html", per_stratum=NUM)
    assert "source: present; table/reader: denied" in text
    assert "rule/two against source" in text
    assert "<small>4/12, 0.14 to 0.61</small>" in text  # recall of present: 1 in 3


def test_the_draw_is_that_of_the_seed(cohort: Cohort, tmp_path: Path) -> None:
    first = page(cohort, tmp_path / "a.html", per_stratum=2, seed=1)
    assert page(cohort, tmp_path / "b.html", per_stratum=2, seed=1) == first
    others = {str(studies(page(cohort, tmp_path / "c.html", seed=s))) for s in range(2, 6)}
    assert len(others) > 1


def test_a_folder_gets_a_report_and_an_unknown_origin_is_an_error(
    cohort: Cohort, tmp_path: Path
) -> None:
    assert label_audit(cohort, RULE, tmp_path / "out") == tmp_path / "out" / "report.html"
    with pytest.raises(StoreError, match="no labels of origin 'rule/three'"):
        label_audit(cohort, "rule/three", tmp_path / "out")
