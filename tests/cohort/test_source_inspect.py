"""INSPECT as a source: every trap of its layout on a fabricated tree."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_inspect import (
    DATE,
    IMPRESSIONS,
    LABELS,
    MAPPING,
    REASONS,
    SPLITS,
    STUDIES,
    fabricate,
    fabricate_older,
)
from made_tables import write_table
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.inspect import LABELS as NAMES
from t3d.cohort.sources.inspect import Inspect, impression_of
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation, Report, Study


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newer form; read only."""
    return fabricate(tmp_path_factory.mktemp("inspect"))


def text(study: Study) -> str:
    return study.reports[0].impression


def test_it_keeps_the_promises_of_a_source(tree: Path, tmp_path: Path) -> None:
    check_source(Inspect(tree))
    check_source(Inspect(fabricate_older(tmp_path)))
    assert "non-commercial" in Inspect(tree).terms.licence


def test_every_row_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = Inspect(tree)
    assert {key: study.split for key, study in listed(source).items()} == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(Inspect(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "duplicate_key": 3,  # an image of two impressions, two texts, two files
        "split_leak": 1,
        "unlisted_file": 1,
        "missing_file": 2,  # an impression without an image; a row without a file
        "not_3d": 1,
        "bad_affine": 1,
    }
    assert dict(made.failed) == by_hand
    assert made.done == len(STUDIES) - 3  # without 1007, 1008, 1009
    cohort = Cohort.open(tmp_path / "cohort")
    assert Counter(row.split for row in cohort.studies()) == {
        "train": 2,
        "dev": 2,
        "test": 1,
        "": 1,
    }


def test_a_last_axis_of_one_is_squeezed_and_a_longer_one_is_not(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    prepare(Inspect(tree), tmp_path / "cohort", tiny, workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    volumes = {volume for row in cohort.studies() for volume in row.volume_ids}
    assert "PE00aa21" in volumes
    assert "PE00aa17" not in volumes


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(Inspect, fabricate(tmp_path))


def test_tables_alone_list_the_same_studies(tmp_path: Path, tree: Path) -> None:
    bare = Inspect(fabricate(tmp_path, volumes=False))
    # Without files nobody sees that one of them would be there twice.
    assert set(listed(bare)) == set(listed(Inspect(tree))) | {"1014"}


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    plain = fabricate(tmp_path / "plain", volumes=False)
    for seed in (1, 2, 3):
        root = fabricate(tmp_path / str(seed), seed=seed, volumes=False)
        assert_same_listing(Inspect(root), Inspect(plain))


def test_one_impression_with_two_images_is_one_study(tree: Path) -> None:
    study = listed(Inspect(tree))["1002"]
    assert [series.series_id for series in study.series] == ["PE00aa12", "PE00aa13"]
    assert len(study.reports) == 1


def test_an_image_listed_twice_is_one_series(tree: Path) -> None:
    assert [s.series_id for s in listed(Inspect(tree))["1003"].series] == ["PE00aa14"]


def test_the_newest_table_is_read(tree: Path) -> None:
    assert "9" not in listed(Inspect(tree))
    assert "9" not in reasons(Inspect(tree))


def test_a_suffix_in_the_mapping_does_not_matter(tree: Path) -> None:
    study = listed(Inspect(tree))["1010"]
    assert study.series[0].files[0] == tree / "full" / "CTPA" / "PE00aa20.nii.gz"


def test_an_empty_impression_is_no_report(tree: Path) -> None:
    assert listed(Inspect(tree))["1010"].reports == ()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (
            "IMPRESSION: 1. NO EMBOLISM SINCE <TIMEX3>XX/XX</TIMEX3>.",
            "1. NO EMBOLISM SINCE [date].",
        ),
        ("<PERSON>LAST_NAME</PERSON> WAS PAGED AT <PAGER>", "WAS PAGED AT"),
        ("Impressions :\n 1. A.\n2. B.", "1. A.\n2. B."),
        ("NODULE <3 MM AND > 2 MM", "NODULE <3 MM AND > 2 MM"),
        ("NO IMPRESSION: GIVEN LATER", "NO IMPRESSION: GIVEN LATER"),
        ("A <DATE>X</DATE> B <HOSPITAL>Y</HOSPITAL> C", "A [date] B C"),
        ("IMPRESSION:", ""),
        ("nan", ""),
    ],
)
def test_headings_and_tags_are_taken_out(told: str, kept: str) -> None:
    assert impression_of(told) == kept


def test_reports_are_impressions_only(tree: Path) -> None:
    study = listed(Inspect(tree))["1002"]
    assert study.reports == (Report(impression="1. ACUTE EMBOLUS, PAGED AT."),)
    assert text(listed(Inspect(tree))["1006"]) == "NO EMBOLUS, NODULE <3 MM."


def test_censored_and_blank_labels_are_not_stated(tree: Path) -> None:
    labels = {key: dict(study.labels) for key, study in listed(Inspect(tree)).items()}
    assert labels["1002"] == {
        "pe_positive_nlp": 1,
        "pe_acute": 1,
        "1_month_mortality": None,
        "12_month_PH": None,
    }
    assert labels["1003"]["1_month_mortality"] is None
    assert labels["1006"] == {}
    assert set(labels["1002"]) <= set(NAMES)


@pytest.mark.parametrize("value", ["1", "yes", "0"])
def test_a_label_of_another_form_is_an_error_that_does_not_quote_it(
    tmp_path: Path, value: str
) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [{**LABELS[0], "pe_acute": value}, *LABELS[1:]]
    write_table(root / "full" / f"labels_{DATE}.tsv", rows)
    with pytest.raises(
        SourceError, match=r"line 2: pe_acute is none of the values known"
    ) as caught:
        list(Inspect(root).studies())
    assert "TRUE, FALSE, Censored" in str(caught.value)


def test_a_patient_of_two_splits_stays_in_the_stricter_one(tree: Path) -> None:
    studies = listed(Inspect(tree))
    assert studies["1006"].patient_id == "p1"
    assert studies["1006"].split == "dev"
    assert "1001" not in studies


def test_the_train_split_alone_has_no_patient_of_another(tree: Path) -> None:
    train = listed(Inspect(tree, splits=("train",)))
    assert set(train) == {key for key, split in STUDIES.items() if split == "train"}
    assert "p1" not in {study.patient_id for study in train.values()}


def test_patients_with_two_names_put_their_study_aside(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [*MAPPING, {**MAPPING[0], "image_id": "PE00aa99", "person_id": "p99"}]
    write_table(root / "full" / f"study_mapping_{DATE}.tsv", rows)
    assert "1001" not in listed(Inspect(root))
    told = [p for p in Inspect(root).set_aside() if p.key == "1001"]
    assert [p.reason for p in told] == ["duplicate_key"]
    assert not any("p99" in p.message for p in told)


def test_no_date_of_an_examination_is_kept(tree: Path) -> None:
    assert "2015-01" not in repr(list(Inspect(tree).studies()))


@pytest.mark.parametrize("workbook", [True, False])
def test_the_older_release_is_read_by_file_stem(tmp_path: Path, workbook: bool) -> None:
    studies = listed(Inspect(fabricate_older(tmp_path, workbook=workbook)))
    assert {key: (s.patient_id, s.split, text(s)) for key, s in studies.items()} == {
        "PE00aa11": ("p1", "train", "TEXT 1."),
        "PE00aa12": ("p2", "dev", "TEXT 2."),
    }
    assert dict(studies["PE00aa11"].labels) == {"pe_positive_nlp": 1}


def test_impressions_alone_name_files_and_warn_that_no_patient_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"impression_id": "PE00aa11", "Impressions_EN": "A."}]
    write_table(tmp_path / "Final_Impressions.csv", rows)
    with caplog.at_level(logging.WARNING):
        (study,) = Inspect(tmp_path).studies()
    assert (study.patient_id, study.split) == ("PE00aa11", "")
    assert study.series[0].files == (tmp_path / "CTPA" / "PE00aa11.nii.gz",)
    assert "each is one of its own" in caplog.text


def test_texts_of_the_older_release_join_the_newer_mapping(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    for path in (root / "full").glob("impressions_*"):
        path.unlink()
    rows = [{"impression_id": "PE00aa12", "Impressions_EN": "BY STEM."}]
    write_table(root / "full" / "Final_Impressions.csv", rows)
    assert text(listed(Inspect(root))["1002"]) == "BY STEM."


def test_a_folder_without_tables_and_a_strange_split_are_errors(tmp_path: Path, tree: Path) -> None:
    assert not Inspect.fits(tmp_path)
    assert Inspect.fits(tree)
    with pytest.raises(SourceError, match="no table of impressions"):
        Inspect(tmp_path)
    with pytest.raises(SourceError, match="splits 'validation'"):
        Inspect(tree, splits=("validation",))


def test_a_split_of_another_name_is_an_error(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [{**SPLITS[0], "split": "holdout"}]
    write_table(root / "full" / f"splits_{DATE}.tsv", rows)
    with pytest.raises(SourceError, match="line 2: no split of INSPECT"):
        list(Inspect(root).studies())


def test_the_text_column_must_be_known(tmp_path: Path) -> None:
    root = fabricate(tmp_path, volumes=False)
    rows = [{"impression_id": row["impression_id"], "note": ""} for row in IMPRESSIONS]
    write_table(root / "full" / f"impressions_{DATE}.tsv", rows)
    with pytest.raises(SourceError, match="no column of texts"):
        list(Inspect(root).studies())
