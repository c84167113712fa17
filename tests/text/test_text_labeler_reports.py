"""The rules against one reader on all public CT reports; committed as counts."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from t3d.text.agreement import pooled
from t3d.text.findings import CT_RATE_18

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "results" / "labeler_mtsamples.json"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/labeler.py, which measures this."""
    spec = importlib.util.spec_from_file_location("labeler_bench", ROOT / "benchmarks/labeler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.real
def test_the_committed_counts_are_those_of_the_rules_today(
    script: ModuleType, real_data: Path
) -> None:
    told = json.loads(RESULT.read_text(encoding="utf-8"))
    reports = script.ct_reports(real_data / "reports")
    assert (told["reports"], told["distinct"]) == (len(reports), len(set(reports.values())))
    assert script.counts(script.measured(reports)) == told["after"]


@pytest.mark.real
def test_the_reading_speaks_of_every_report_and_quotes_its_text(
    script: ModuleType, real_data: Path
) -> None:
    reports = script.ct_reports(real_data / "reports")
    assert set(script.reading()) == set(reports)
    lines = script.READING.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) < 160
    for row in csv.DictReader(lines):
        assert row["finding"] in (*CT_RATE_18, "")
        assert row["quote"] in reports[int(row["note_id"])]
        assert bool(row["quote"]) == bool(row["finding"]) == bool(row["value"])


@pytest.mark.real
def test_equal_texts_were_read_the_same(script: ModuleType, real_data: Path) -> None:
    read, first = script.reading(), {}
    for note, text in script.ct_reports(real_data / "reports").items():
        assert read[first.setdefault(text, note)] == read[note]


def test_the_result_is_called_in_sample_and_holds_every_finding_before_and_after(
    script: ModuleType,
) -> None:
    told = json.loads(RESULT.read_text(encoding="utf-8"))
    assert told["in_sample"] is True
    for when in ("before", "after"):
        read = script.from_counts(told[when])
        assert set(read) == set(CT_RATE_18)
        assert {one.num_reports for one in read.values()} == {told["distinct"]}
        assert script.counts(read) == told[when]


def test_the_rules_read_more_than_before_and_are_wrong_less_often(script: ModuleType) -> None:
    told = json.loads(RESULT.read_text(encoding="utf-8"))
    before, after = (pooled(script.from_counts(told[w]).values()) for w in ("before", "after"))
    for value in (1, 0):
        assert after.recall(value).hits >= before.recall(value).hits
        wrong = [one.precision(value) for one in (before, after)]
        assert wrong[1].n - wrong[1].hits <= wrong[0].n - wrong[0].hits
