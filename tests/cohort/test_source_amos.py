"""AMOS as a source: every trap of its layout on a fabricated tree."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from listings import assert_opens_no_volume, assert_same_listing, listed, reasons
from made_amos import LABELS, REASONS, STUDIES, TOLD, fabricate, pair
from made_cases import write_list
from t3d.cohort.labelled import fold_text
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.amos import MASK, Amos
from t3d.cohort.store import Cohort
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree; read only."""
    return fabricate(tmp_path_factory.mktemp("amos"))


def test_it_keeps_the_promises_of_a_source(tree: Path) -> None:
    check_source(Amos(tree))
    assert Amos.fits(tree)
    assert not Amos.fits(tree / "imagesTr")


def test_every_entry_is_listed_or_set_aside_with_its_reason(tree: Path) -> None:
    source = Amos(tree)
    assert {key: study.split for key, study in listed(source).items()} == STUDIES
    assert reasons(source) == REASONS


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(Amos(tree), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "not_ct": 4,  # 0411 and 0507 of training, 0412 of validation, 0501 of test
        "not_asked_for": 1,  # 0500: its labels are kept back
        "duplicate_key": 1,  # 0007: training and validation
        "unlisted_file": 1,  # 0009
        "missing_file": 2,  # 0005: no image; 0409: no label
        "bad_affine": 1,  # 0006: label on another grid
    }
    assert dict(made.failed) == by_hand
    assert made.done == 4
    cohort = Cohort.open(tmp_path / "cohort")
    assert Counter(row.split for row in cohort.studies()) == {"train": 3, "test": 1}


def test_a_label_lies_where_its_organ_is_whatever_order_the_file_has(
    tree: Path, tmp_path: Path
) -> None:
    whole = Preparation(name="whole")  # the file's own grid
    prepare(Amos(tree), tmp_path / "cohort", whole, workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    las, ras = (cohort.mask(key, MASK) for key in ("amos_0001", "amos_0002"))
    assert las is not None
    assert ras is not None
    volumes = [cohort.volume(key).voxels for key in ("amos_0001", "amos_0002")]
    assert np.array_equal(volumes[0], volumes[1])
    assert np.array_equal(las, ras)
    # The box is at i 24..31, j 8..13, k 6..11 of a RAS grid of 40 x 40 x 20; axes here run to
    # Superior, Posterior, Left, so y and x count from the other end.
    expected = np.zeros((20, 40, 40), np.uint8)
    expected[6:12, 40 - 14 : 40 - 8, 40 - 32 : 40 - 24] = 6
    assert np.array_equal(ras, expected)


def test_labels_stay_whole_numbers_on_a_coarser_grid(
    tree: Path, tmp_path: Path, tiny: Preparation
) -> None:
    prepare(Amos(tree), tmp_path / "cohort", tiny, workers=0)
    held = Cohort.open(tmp_path / "cohort").mask("amos_0001", MASK)
    assert held is not None
    assert set(np.unique(held)) == {0, 6}


def test_listing_opens_no_volume(tmp_path: Path) -> None:
    assert_opens_no_volume(Amos, fabricate(tmp_path))


def test_the_order_of_entries_does_not_matter(tree: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        assert_same_listing(Amos(fabricate(tmp_path / str(seed), seed=seed)), Amos(tree))


def test_what_the_numbers_mean_is_read_from_the_list(tree: Path, tmp_path: Path) -> None:
    source = Amos(tree)
    assert source.label_names() == {int(number): name for number, name in LABELS.items()}
    fact = listed(source)["amos_0001"].series[0].facts["label_names"]
    assert json.loads(fact) == LABELS
    turned = {name: int(number) for number, name in LABELS.items()}
    write_list(tmp_path, TOLD | {"labels": turned})
    assert Amos(tmp_path).label_names() == source.label_names()


def test_the_official_test_images_are_in_no_split(tree: Path) -> None:
    study = listed(Amos(tree, unlabelled=True))["amos_0500"]
    assert study.split == ""
    assert study.series[0].masks == {}  # though the list names a file


def test_dev_is_drawn_among_training_only(tmp_path: Path) -> None:
    names = [f"amos_{n:04d}" for n in range(1, 401)]
    told = {"training": [pair(n, "Tr") for n in names[:300]], "labels": LABELS}
    told["validation"] = [pair(n, "Va") for n in names[300:]]
    write_list(tmp_path, told)
    splits = {key: s.split for key, s in listed(Amos(tmp_path, dev_share=0.2)).items()}
    assert {splits[n] for n in names[300:]} == {"test"}
    counts = Counter(splits[n] for n in names[:300])
    # 300 draws at 20 %: mean 60, standard deviation 6.9; 28 is four of them.
    assert abs(counts["dev"] - 60) < 28
    assert counts["train"] == 300 - counts["dev"]
    other = {key: s.split for key, s in listed(Amos(tmp_path, dev_share=0.2, seed=1)).items()}
    assert other != splits


def test_a_copy_is_compared_with_the_published_counts(tree: Path, tmp_path: Path) -> None:
    assert Amos(tree).differences() == (
        "training, CT with labels: 5, published 200",
        "validation, CT with labels: 2, published 100",
    )
    told = {
        "training": [pair(f"amos_{n:04d}", "Tr") for n in range(1, 201)],
        "validation": [pair(f"amos_{n:04d}", "Va") for n in range(201, 301)],
    }
    write_list(tmp_path, told)
    assert Amos(tmp_path).differences() == ()


def test_a_fold_file_overrules_the_lists_and_says_so(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "private.json"
    path.write_text(json.dumps({"train": ["amos_0001"], "val": ["amos_0002"]}))
    source = Amos(tree, folds=str(path))
    studies = listed(source)
    assert {key: s.split for key, s in studies.items()} == {
        "amos_0001": "train",
        "amos_0002": "test",
    }
    assert studies["amos_0001"].facts["split_by"].startswith("private.json fold 0 sha256 ")
    assert Counter(t.reason for t in source.set_aside())["not_asked_for"] == 1 + 5
    again = tmp_path / "again.json"
    again.write_text(fold_text(source.studies()))
    assert {k: s.split for k, s in listed(Amos(tree, folds=str(again))).items()} == {
        "amos_0001": "train",
        "amos_0002": "test",
    }


def test_a_case_of_another_name_is_an_error(tmp_path: Path) -> None:
    write_list(tmp_path, {"training": [pair("lung_001", "Tr")]})
    with pytest.raises(SourceError, match="none of AMOS's"):
        list(Amos(tmp_path).studies())
    with pytest.raises(SourceError, match="dev_share"):
        Amos(tmp_path, dev_share=1.0)
