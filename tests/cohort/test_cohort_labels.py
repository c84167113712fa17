"""Labels of several origins side by side: by rule, from tables, and how far they agree."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from made_labels import write_cohort
from t3d.cohort.labels import (
    compare,
    comparison_text,
    finding_set,
    label_by_rule,
    label_by_table,
    train_on,
)
from t3d.cohort.schema import LabelRow, VolumeRecord
from t3d.cohort.store import TABLES_FILE, Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import SourceError, StoreError
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import CT_RATE_FINDINGS
from t3d.types import Study

EFFUSION, NODULE, HEART = "Pleural effusion", "Lung nodule", "Cardiomegaly"
RULE = "rule/ct_rate18"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort")


def volume(volume_id: str) -> VolumeRecord:
    """A row of a volume whose file nobody reads."""
    return VolumeRecord(
        volume_id=volume_id, sha256="", shape=(1, 1, 1), world_from_voxel=((1.0,),), steps=()
    )


def said(cohort: Cohort, origin: str) -> dict[tuple[str, str], int | None]:
    return {(row.study_id, row.name): row.value for row in cohort.labels(origin)}


# ---- by rule ---------------------------------------------------------------------------------


def test_reports_of_both_languages_are_read_and_the_others_counted(path: Path) -> None:
    made = label_by_rule(path, finding_set("ct_rate18"))
    assert made.origin == RULE
    assert made.num_studies == 3
    assert made.left_out == {"language_fr": 1, "no_report": 2}
    assert made.counts[EFFUSION] == (1, 1, 1)
    assert made.counts[HEART] == (1, 0, 2)
    assert set(made.counts) == set(CT_RATE_18)
    found = said(Cohort.open(path), RULE)
    assert len(found) == 3 * 18
    stated = {key: value for key, value in found.items() if value is not None}
    assert stated == {
        ("s1", EFFUSION): 1,
        ("s1", NODULE): 0,
        ("s2", EFFUSION): 0,
        ("s2", NODULE): 1,
        ("s3", HEART): 1,
    }
    assert "present     1" in str(made)
    assert "left out, language_fr: 1" in str(made)


def test_a_label_leads_to_the_sentence_that_says_so(path: Path) -> None:
    label_by_rule(path, CT_RATE_FINDINGS)
    cohort = Cohort.open(path)
    rows = {(row.study_id, row.name): row for row in cohort.labels(RULE)}
    row = rows["s1", EFFUSION]
    text = getattr(cohort.reports("s1")[row.report], row.section)
    assert text[row.start : row.end] == "Small left pleural effusion."
    assert (rows["s3", NODULE].section, rows["s3", NODULE].end) == ("", 0)


def test_labelling_twice_changes_nothing_and_leaves_the_source_alone(path: Path) -> None:
    before = said(Cohort.open(path), "source")
    label_by_rule(path, CT_RATE_FINDINGS)
    digest = Cohort.open(path).digest
    label_by_rule(path, CT_RATE_FINDINGS)
    cohort = Cohort.open(path)
    assert cohort.digest == digest
    assert cohort.label_origins == (RULE, "source")
    assert said(cohort, "source") == before == {
        ("s1", EFFUSION): 1, ("s1", NODULE): 0, ("s2", EFFUSION): 1, ("s2", NODULE): None,
        ("s3", EFFUSION): 0, ("s3", NODULE): 0,
    }  # fmt: skip


def test_how_labels_were_made_is_kept_with_the_cohort(path: Path) -> None:
    label_by_rule(path, CT_RATE_FINDINGS)
    told = json.loads(Cohort.open(path).facts[f"labels/{RULE}"])
    assert told["by"] == "rule"
    assert told["findings"] == CT_RATE_FINDINGS.digest


def test_findings_of_a_file_are_an_origin_of_their_own(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\n[[finding]]\nname = "Fluid"\n[finding.en]\nterms = ["effusion*"]\n'
    )
    made = label_by_rule(path, finding_set(file))
    assert made.origin == "rule/mine"
    assert made.counts == {"Fluid": (1, 0, 1)}
    assert made.left_out == {"language_de": 1, "language_fr": 1, "no_report": 2}
    label_by_rule(path, CT_RATE_FINDINGS)
    assert Cohort.open(path).label_origins == (RULE, "rule/mine", "source")


def test_unknown_findings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no findings named 'ct_rate19'"):
        finding_set("ct_rate19")
    with pytest.raises(SourceError, match=r"none\.toml cannot be read"):
        finding_set(tmp_path / "none.toml")


# ---- from tables -----------------------------------------------------------------------------


def test_a_table_of_labels_is_an_origin(path: Path, tmp_path: Path) -> None:
    table = tmp_path / "reader2.csv"
    table.write_text("study,Lung nodule,Emphysema\ns1,1,-1\ns2,0,\nstranger,1,1\n")
    made = label_by_table(path, table)
    assert made.origin == "table/reader2"
    assert made.left_out == {"not_in_cohort": 1}
    assert made.counts == {"Lung nodule": (1, 1, 0), "Emphysema": (0, 0, 2)}
    assert said(Cohort.open(path), "table/reader2") == {
        ("s1", NODULE): 1,
        ("s1", "Emphysema"): None,
        ("s2", NODULE): 0,
        ("s2", "Emphysema"): None,
    }


def test_a_table_may_name_volumes_as_ct_rate_does(tmp_path: Path) -> None:
    path = tmp_path / "cohort"
    with CohortWriter(path) as writer:
        for key in ("valid_1_a", "valid_2_a"):
            study = Study(study_id=key, patient_id=key, series=())
            writer.record(study, "none", [volume(f"{key}_1"), volume(f"{key}_2")])
    table = tmp_path / "valid_predicted_labels.csv"
    rows = [(f"valid_{n}_a_{k}.nii.gz", n - 1, 0) for n in (1, 2, 3) for k in (1, 2)]
    lines = ["VolumeName,Lung nodule,Emphysema", *(",".join(map(str, row)) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    made = label_by_table(path, table, origin="table/ct_rate")
    assert made.left_out == {"not_in_cohort": 2}
    assert made.counts == {"Lung nodule": (1, 1, 0), "Emphysema": (0, 2, 0)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,Lung nodule\ns1,1\n", "no column that says which study"),
        ("study,Lung nodule\ns1,yes\n", "line 2, column 'Lung nodule': not a label"),
        ("study,Lung nodule\ns1,1\ns1,0\n", "line 3, column 'Lung nodule': another value"),
        ("study,Lung nodule\ns1\n", "line 2: 1 fields"),
    ],
)
def test_a_table_that_is_not_right_is_refused_and_nothing_written(
    path: Path, tmp_path: Path, text: str, told: str
) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(SourceError) as raised:
        label_by_table(path, table)
    assert told in str(raised.value)
    assert "yes" not in str(raised.value)
    assert Cohort.open(path).label_origins == ("source",)


# ---- origins ---------------------------------------------------------------------------------


def test_agreement_with_the_stated_labels_is_counted_and_printed(path: Path) -> None:
    label_by_rule(path, CT_RATE_FINDINGS)
    cohort = Cohort.open(path)
    found = compare(cohort, "source", RULE)
    assert set(found) == {EFFUSION, NODULE}
    assert found[EFFUSION].counts == {(1, 1): 1, (1, 0): 1, (0, None): 1}
    assert found[NODULE].counts == {(0, 0): 1, (None, 1): 1, (0, None): 1}
    text = comparison_text(cohort, "source", RULE)
    assert text.splitlines()[0].startswith("rule/ct_rate18 against source in cohort")
    assert "1/2 0.50 (0.09-0.91)" in text


def test_origins_that_said_nothing_or_nothing_in_common_are_errors(
    path: Path, tmp_path: Path
) -> None:
    cohort = Cohort.open(path)
    with pytest.raises(StoreError, match="no labels of origin 'rule/ct_rate18'"):
        compare(cohort, "source", RULE)
    table = tmp_path / "t.csv"
    table.write_text("study,Gallstones\ns1,1\n")
    label_by_table(path, table)
    with pytest.raises(StoreError, match="nothing in common"):
        compare(Cohort.open(path), "source", "table/t")


def test_studies_are_listed_with_the_labels_that_were_chosen(path: Path) -> None:
    label_by_rule(path, CT_RATE_FINDINGS)
    cohort = Cohort.open(path)
    assert cohort.studies()[1].labels == {EFFUSION: 1, NODULE: None}
    assert cohort.studies(labels_of=RULE)[1].labels[EFFUSION] == 0
    train_on(path, RULE)
    chosen = Cohort.open(path)
    assert chosen.studies()[1].labels[EFFUSION] == 0
    assert chosen.studies()[4].labels == {}
    train_on(path, "source")
    assert Cohort.open(path).studies()[1].labels[EFFUSION] == 1
    with pytest.raises(StoreError, match="no labels of origin 'rule/other'"):
        train_on(path, "rule/other")


def test_labels_of_the_source_and_of_strangers_cannot_be_written(path: Path) -> None:
    row = LabelRow(study_id="s1", name=NODULE, value=1)
    with CohortWriter(path) as writer:
        writer.put_labels("mine", [row])
        for origin in ("", "source"):
            with pytest.raises(StoreError, match="cannot be written"):
                writer.put_labels(origin, [row])
        stranger = LabelRow(study_id="s9", name=NODULE, value=1)
        with pytest.raises(StoreError, match="not recorded in the cohort"):
            writer.put_labels("mine", [row, stranger])
    # The refused call has not taken away what was there.
    assert said(Cohort.open(path), "mine") == {("s1", NODULE): 1}


def test_forgetting_a_patient_removes_the_labels_of_all_origins(path: Path) -> None:
    label_by_rule(path, CT_RATE_FINDINGS)
    with CohortWriter(path) as writer:
        gone = writer.forget_patient("patient-s1")
    assert gone.rows["label"] == 2 + 18
    cohort = Cohort.open(path)
    assert {row.study_id for row in cohort.labels(RULE)} == {"s2", "s3"}


def test_a_cohort_of_version_1_gets_origins_when_it_is_written_to(path: Path) -> None:
    digest = Cohort.open(path).digest
    tables = sqlite3.connect(path / TABLES_FILE)
    tables.executescript(
        """
        CREATE TABLE old (study_id TEXT, name TEXT, value INTEGER, PRIMARY KEY (study_id, name))
            WITHOUT ROWID;
        INSERT INTO old SELECT study_id, name, value FROM label;
        DROP TABLE label;
        ALTER TABLE old RENAME TO label;
        UPDATE meta SET value = '1' WHERE key = 'version';
        """
    )
    tables.close()
    with pytest.raises(StoreError, match="version 1"):
        Cohort.open(path)
    with CohortWriter(path):
        pass
    cohort = Cohort.open(path)
    assert cohort.digest == digest
    assert said(cohort, "source")["s2", NODULE] is None
