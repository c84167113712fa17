"""One person in several cohorts: corpora by their ids, folders by their scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import made_ct_rate
import made_radgenome
import made_rexgrounding
from made_folder import fabricate, rows_of, write_table
from t3d.cohort.listing import Source, Terms
from t3d.cohort.people import corpus_of, people
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import SOURCES
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.folder import Folder
from t3d.cohort.sources.radgenome import RadGenome
from t3d.cohort.sources.rexgrounding import ReXGrounding
from t3d.cohort.store import Cohort
from t3d.cohort.union import Union
from t3d.types import Preparation

Prepare = Callable[..., Cohort]


@pytest.fixture
def prepared(tmp_path: Path, tiny: Preparation) -> Prepare:
    """Give the function that prepares a source below this test's own folder."""

    def run(source: Source, name: str) -> Cohort:
        prepare(source, tmp_path / name, tiny, workers=0)
        return Cohort.open(tmp_path / name)

    return run


def known(cohort: Cohort, split: str | None = None) -> set[str]:
    """Everything that anybody in a cohort is known by."""
    return {name for names in people(cohort, split).values() for name in names}


def test_each_kind_of_source_says_whose_people_it_shows() -> None:
    told = {made.kind: corpus_of(made) for made in SOURCES}
    others = {"radgenome": "ct_rate", "rexgrounding": "ct_rate", "folder": ""}
    assert told == {kind: others.get(kind, kind) for kind in told}
    assert set(others) <= set(told)
    assert told["dicom_folder"] == "dicom_folder"  # keyed hashes: equal ids are one person


def test_ct_rate_and_what_rides_on_it_know_the_same_people(
    tmp_path: Path, prepared: Prepare
) -> None:
    wanted = {"train_1_a_1", "train_1_b_1", "train_2_a_1", "valid_1_a_1"}
    volumes = [made for made in made_ct_rate.VOLUMES if made.volume in wanted]
    plain = CtRate(made_ct_rate.fabricate(tmp_path / "ct_rate", volumes))
    radgenome = RadGenome(made_radgenome.fabricate(tmp_path / "radgenome"))
    made_rexgrounding.fabricate(tmp_path / "rex")
    rex = ReXGrounding(tmp_path / "rex", volumes=str(tmp_path / "rex" / "ct-rate"))
    told = known(prepared(plain, "a"))
    assert told == {"ct_rate-train_1", "ct_rate-train_2", "ct_rate-valid_1"}
    assert told < known(prepared(radgenome, "b"))
    assert told & known(prepared(rex, "c")) == {"ct_rate-train_1", "ct_rate-train_2"}
    joined = prepared(Union({"scans": plain, "regions": radgenome, "masks": rex}), "d")
    assert known(joined) == known(prepared(plain, "a")) | known(prepared(radgenome, "b")) | known(
        prepared(rex, "c")
    )


def test_a_union_of_unions_names_people_as_its_corpora_do(
    tmp_path: Path, prepared: Prepare
) -> None:
    volumes = [made for made in made_ct_rate.VOLUMES if made.volume == "train_1_a_1"]
    inner = Union(
        {
            "scans": CtRate(made_ct_rate.fabricate(tmp_path / "ct_rate", volumes)),
            "ours": Folder(fabricate(tmp_path / "ours", 1)),
        }
    )
    outer = Union({"inner": inner, "theirs": Folder(fabricate(tmp_path / "theirs", 1, first=1))})
    told = people(prepared(outer, "cohort"))
    assert told["inner-scans-train_1_a"] == ("ct_rate-train_1",)
    assert told["inner-ours-p0000"][0] == "ours-patient0"
    assert {"ours-patient0", "ct_rate-train_1"} < known(prepared(inner, "inner"))


def test_people_of_a_folder_are_known_by_all_their_scans(tmp_path: Path, prepared: Prepare) -> None:
    root = fabricate(tmp_path / "ours", 3)
    rows = rows_of(root)
    for row in rows[:2]:
        row.update(patient="one", split="train")
    write_table(root, rows)
    plain = people(prepared(Folder(root), "plain"))
    assert plain["p0000"] == plain["p0001"]
    assert plain["p0000"][0] == "folder-one"
    assert len(plain["p0000"]) == 1 + 2
    joined = people(prepared(Union({"ours": Folder(root)}), "union"))
    # Under another name, and known by the same bytes although file names are not on record there.
    assert joined["ours-p0000"] == ("ours-one", *plain["p0000"][1:])
    assert not set(plain["p0002"]) & set(plain["p0000"])


def test_people_of_a_split_are_those_of_its_studies(tmp_path: Path, prepared: Prepare) -> None:
    cohort = prepared(Folder(fabricate(tmp_path / "ours", 3)), "cohort")
    assert set(people(cohort, "dev")) == {"p0001"}
    assert known(cohort) == known(cohort, "train") | known(cohort, "dev") | known(cohort, "test")


def test_a_source_that_nobody_shipped_is_a_corpus_of_its_kind(
    tmp_path: Path, prepared: Prepare
) -> None:
    class Foreign:
        kind = "theirs"
        terms = Terms(licence="made for a test")
        studies = staticmethod(Folder(fabricate(tmp_path / "ours", 1)).studies)

    assert people(prepared(Foreign(), "a")) == {"p0000": ("theirs-patient0",)}
    told = people(prepared(Union({"b": Foreign()}), "b"))
    assert told == {"b-p0000": ("theirs-patient0",)}
