"""Simulated cohorts: which intervals hold the truth 19 times of 20, and that the docs say which.

The study is benchmarks/intervals.py; docs/results/coverage.json is what it wrote.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "concepts" / "intervals.md"
BY_PATIENT = ("percentile, patients", "closed, logit", "closed, wald", "closed, normal")


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """The script that simulates; it imports a neighbour."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("study", BENCHMARKS / "intervals.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["study"] = module  # its dataclasses look themselves up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def coverage(study: ModuleType, tally: object) -> dict[str, float]:
    """Method -> percent."""
    rows = study.rows_of("cohort", tally)
    return {str(told["name"]).removeprefix("cohort: "): float(told["value"]) for told in rows}


def misses(study: ModuleType, tally: object, methods: tuple[str, ...]) -> dict[str, float]:
    """Those methods whose coverage lies outside the band of as many cohorts as they saw."""
    found = coverage(study, tally)
    out = {}
    for method in methods:
        low, high = study.band(tally.tries[method])  # type: ignore[attr-defined]
        if not low <= found[method] <= high:
            out[method] = found[method]
    return out


def test_the_page_on_intervals_shows_the_table_of_the_results(study: ModuleType) -> None:
    rows = json.loads((ROOT / "docs" / "results" / "coverage.json").read_text(encoding="utf-8"))
    assert study.table(rows) in PAGE.read_text(encoding="utf-8")


def test_an_exact_interval_would_fall_into_the_band_and_a_90_percent_one_would_not(
    study: ModuleType,
) -> None:
    low, high = study.band(2000)
    assert 93 < low < 95 < high < 97


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "prevalence"), [(100, 0.3), (1304, 0.1)])
def test_intervals_by_patient_cover_and_others_do_not(
    study: ModuleType, patients: int, prevalence: float
) -> None:
    tally = study.single(patients, prevalence, 0.75, study.COHORTS)
    assert misses(study, tally, BY_PATIENT) == {}
    found = coverage(study, tally)
    volumes = [value for method, value in found.items() if "volumes" in method]
    assert volumes
    assert max(volumes) < 90
    # the best threshold of a sample is too good for the next one
    assert found[study.REFITTED] < study.band(tally.tries[study.REFITTED])[0]


@pytest.mark.slow
def test_intervals_of_a_macro_mean_cover_by_patient_only(study: ModuleType) -> None:
    tally = study.macro(100, study.COHORTS)
    assert misses(study, tally, BY_PATIENT) == {}
    assert coverage(study, tally)["closed, volumes"] < 90


@pytest.mark.slow
def test_with_few_positives_no_interval_covers_and_the_closed_one_on_the_log_odds_misses_least(
    study: ModuleType,
) -> None:
    found = coverage(study, study.single(100, 0.03, 0.75, study.COHORTS))
    low, _ = study.band(study.COHORTS)
    values = {method: found[method] for method in (*BY_PATIENT, "percentile, volumes")}
    assert max(values.values()) < low
    assert max(values, key=lambda method: values[method]) == "closed, logit"
