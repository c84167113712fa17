"""BIMCV-R as a source: every trap of its layout on a fabricated tree."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path

import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_bimcv_r import (
    LATER,
    NO_FILE,
    ONE,
    REASONS,
    STUDIES,
    TWO_A,
    TWO_B,
    UNNAMED,
    fabricate,
    table_of,
)
from made_tables import write_table
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.bimcv_r import BimcvR
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation, Report


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree; read only."""
    return fabricate(tmp_path_factory.mktemp("bimcv"))


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(BimcvR(tree))
    assert "card" in BimcvR(tree).terms.licence


def test_every_file_and_row_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = BimcvR(tree)
    volumes = {
        key: tuple(series.series_id for series in study.series)
        for key, study in listed(source).items()
    }
    assert volumes == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(BimcvR(tree), tmp_path / "cohort", tiny, workers=0)
    assert dict(made.failed) == {"duplicate_key": 2, "unlisted_file": 1, "missing_file": 1}
    assert made.done == len(STUDIES) - 1


def test_listing_opens_no_volume_and_needs_none(tmp_path: Path, tree: Path) -> None:
    assert_opens_no_volume(BimcvR, fabricate(tmp_path))
    bare = fabricate(tmp_path / "bare", volumes=False)
    assert set(listed(BimcvR(bare))) == {*STUDIES, "sub-S05_ses-E06"}


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    plain = fabricate(tmp_path / "plain", volumes=False)
    for seed in (1, 2, 3):
        root = fabricate(tmp_path / str(seed), seed=seed, volumes=False)
        assert_same_listing(BimcvR(root), BimcvR(plain))


def test_a_row_finds_its_file_wherever_its_path_says_it_lay(tree: Path) -> None:
    series = listed(BimcvR(tree))[UNNAMED].series[0]
    assert series.files == (tree / "CT2" / "ct" / "volume.0001.nii.gz",)


def test_runs_of_one_session_with_one_report_are_one_study(tree: Path) -> None:
    study = listed(BimcvR(tree))["sub-S01_ses-E01"]
    assert study.reports == (Report(findings="Bilateral ground-glass opacities."),)
    assert study.patient_id == "sub-S01"


def test_runs_of_one_session_with_different_reports_are_different_studies(tree: Path) -> None:
    studies = listed(BimcvR(tree))
    assert studies[TWO_A].reports != studies[TWO_B].reports
    assert studies[TWO_A].patient_id == studies[TWO_B].patient_id == "sub-S02"
    assert studies[TWO_A].split == studies[TWO_B].split


def test_one_field_is_findings_unless_it_has_headings(tree: Path) -> None:
    studies = listed(BimcvR(tree))
    assert studies["sub-S01_ses-E02"].reports[0].impression == ""
    (report,) = studies["sub-S08_ses-E09"].reports
    assert (report.findings, report.impression) == ("Effusion.", "Failure.")
    assert studies["sub-S07_ses-E08"].reports == ()


def test_a_name_without_a_patient_is_a_patient_of_its_own_and_a_warning(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert listed(BimcvR(tree))[UNNAMED].patient_id == UNNAMED
    assert "1 of 9 file names tell no patient" in caplog.text
    assert UNNAMED not in caplog.text


def many(root: Path, patients: int) -> Path:
    rows = [
        {"path": f"sub-S{n:05d}_ses-E{e}_ct.nii.gz", "Report_en": f"{n} {e}"}
        for n in range(patients)
        for e in range(1 + n % 3)
    ]
    write_table(table_of(root), rows)
    return root


def test_the_split_is_by_patient_and_near_its_shares(tmp_path: Path) -> None:
    root = many(tmp_path, 2000)
    splits: dict[str, set[str]] = {}
    for study in BimcvR(root).studies():
        splits.setdefault(study.patient_id, set()).add(study.split)
    assert all(len(told) == 1 for told in splits.values())
    counts = Counter(told.copy().pop() for told in splits.values())
    for name, share in (("dev", 0.05), ("test", 0.15)):
        wide = 4 * math.sqrt(2000 * share * (1 - share))
        assert abs(counts[name] - 2000 * share) < wide


def test_a_patient_keeps_the_split_whoever_else_is_there(tmp_path: Path) -> None:
    few = listed(BimcvR(many(tmp_path / "few", 50)))
    more = listed(BimcvR(many(tmp_path / "more", 300)))
    assert {key: more[key].split for key in few} == {key: s.split for key, s in few.items()}
    assert {s.split for s in listed(BimcvR(tmp_path / "few", seed=1)).values()} >= {"train"}
    other = {key: s.split for key, s in listed(BimcvR(tmp_path / "few", seed=1)).items()}
    assert other != {key: s.split for key, s in few.items()}


def test_the_table_may_lie_where_the_zip_unpacks(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    (root / "meta").rename(root / "meta_1")
    assert "sub-S01_ses-E01" in listed(BimcvR(root))


def test_what_is_no_such_folder_and_shares_that_leave_no_train_are_errors(
    tmp_path: Path, tree: Path
) -> None:
    assert BimcvR.fits(tree)
    assert not BimcvR.fits(tmp_path)
    with pytest.raises(SourceError, match="no curated_ct_report_path_En"):
        BimcvR(tmp_path)
    with pytest.raises(SourceError, match=r"test_share=0\.9"):
        BimcvR(tree, dev_share=0.1, test_share=0.9)


def test_a_table_without_reports_is_an_error(tmp_path: Path) -> None:
    write_table(table_of(tmp_path), [{"path": f"{ONE}.nii.gz", "Report_es": "Normal."}])
    with pytest.raises(SourceError, match="Report_en"):
        list(BimcvR(tmp_path).studies())


def test_a_row_without_a_file_is_listed_and_fails_when_prepared(tree: Path) -> None:
    series = listed(BimcvR(tree))["sub-S03_ses-E04"].series[0]
    assert series.series_id == NO_FILE
    assert not series.files[0].exists()
    assert listed(BimcvR(tree))["sub-S01_ses-E02"].series[0].series_id == LATER
