"""Unions of sources, and CT-3DVLP from three fabricated trees with every trap."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_bimcv_r
import made_ct_rate
import made_inspect
from listings import reasons
from made_nifti import write_volume
from made_tables import write_table
from t3d.cohort.listing import SetAside, Source, Terms
from t3d.cohort.patients import split_of, without_leaks
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.bimcv_r import BimcvR
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.folder import Folder
from t3d.cohort.sources.inspect import Inspect
from t3d.cohort.store import Cohort
from t3d.cohort.union import PAPER, WHOLE, Rules, Union, beside_the_paper, ct3dvlp, open_union
from t3d.conformance import check_source
from t3d.errors import SourceError
from t3d.types import Preparation, Report, Series, Study

CT_RATE = (
    *made_ct_rate.VOLUMES,
    made_ct_rate.Made("train_8_a_1", "nodule,  4 MM.", "Normal."),  # the text of train_1_a
    made_ct_rate.Made("train_9_a_1", "Bilateral ground-glass opacities.", ""),  # one of BIMCV-R's
)


@dataclass
class Listed:
    """A source that lists what it is given."""

    given: tuple[Study, ...]
    kind: str = "folder"
    aside: tuple[SetAside, ...] = ()
    synthetic: bool = False

    @property
    def terms(self) -> Terms:
        return Terms(licence=f"of {self.kind}", citation="C", synthetic=self.synthetic)

    def studies(self) -> Iterator[Study]:
        yield from self.given

    def set_aside(self) -> tuple[SetAside, ...]:
        return self.aside


def study(
    key: str, patient: str = "", split: str = "train", text: str = "Text.", **more: object
) -> Study:
    series = tuple(
        Series(series_id=f"{key}_{n}", files=(Path(f"{key}_{n}.nii.gz"),)) for n in (1, 2)
    )
    return Study(
        study_id=key,
        patient_id=patient or key,
        split=split,
        series=series,
        reports=(Report(findings=f"{text} {key}"),),
        **more,  # type: ignore[arg-type]
    )


# ---- any union -----------------------------------------------------------------------------


def test_equal_ids_of_two_members_do_not_collide() -> None:
    both = Union({"a": Listed((study("1"), study("2"))), "b": Listed((study("1", split="test"),))})
    check_source(both)
    assert [s.study_id for s in both.studies()] == ["a-1", "a-2", "b-1"]
    assert [s.patient_id for s in both.studies()] == ["a-1", "a-2", "b-1"]
    assert next(both.studies()).series[1].series_id == "a-1_2"


def test_a_study_says_whose_it_is_and_keeps_its_facts() -> None:
    (one,) = Union({"a": Listed((study("1", facts={"sex": "F"}),))}).studies()
    assert dict(one.facts) == {"sex": "F", "member": "a"}
    (one,) = Union({"a": Listed((study("1"),), kind="ct_rate")}).studies()
    assert dict(one.facts) == {"member": "a", "patients_of": "ct_rate"}


def test_a_corpus_listed_twice_is_one_set_of_people() -> None:
    twice = Union(
        {
            "old": Listed((study("1", "p", "train"),), kind="ct_rate"),
            "new": Listed((study("1", "p", "test"),), kind="ct_rate"),
        }
    )
    assert [s.study_id for s in twice.studies()] == ["new-1"]
    assert reasons(twice) == {"old-1": "split_leak"}


def test_a_source_may_say_whose_patients_its_are() -> None:
    masks = Listed((study("1", "p", "train"),), kind="radgenome")
    masks.patients_of = "ct_rate"  # type: ignore[attr-defined]
    both = Union({"m": masks, "c": Listed((study("1", "p", "test"),), kind="ct_rate")})
    assert [s.study_id for s in both.studies()] == ["c-1"]


def test_dicom_folders_under_one_key_show_one_set_of_people() -> None:
    old = Listed((study("1", "p0f", "train"),), kind="dicom_folder")
    new = Listed((study("2", "p0f", "test"),), kind="dicom_folder")
    assert [s.study_id for s in Union({"old": old, "new": new}).studies()] == ["new-2"]


def test_what_members_set_aside_is_told_under_their_names() -> None:
    told = SetAside(key="9", reason="unlisted_file", message="m")
    assert reasons(Union({"a": Listed((), aside=(told,))})) == {"a-9": "unlisted_file"}


def test_terms_name_every_member_and_are_synthetic_only_if_all_are() -> None:
    one, other = Listed((), "x", synthetic=True), Listed((), "y")
    assert Union({"a": one, "b": other}).terms.licence == "a: of x; b: of y"
    assert not Union({"a": one, "b": other}).terms.synthetic
    assert Union({"a": one}).terms.synthetic


def test_each_rule_has_its_reason() -> None:
    rules = Rules(
        splits={"a": ("train",)},
        drop_empty_texts=True,
        min_chars=7,
        one_volume=True,
        drop_duplicate_texts=True,
    )
    members = {
        "a": Listed((study("1"), study("2", split="dev"), study("3", text=" "))),
        "b": Listed(
            (
                replace(study("4"), reports=()),
                study("1", text="TEXT.  "),  # equal but for capitals and spaces
                study("5", split="test", text="Text. 1\n"),
            )
        ),
    }
    union = Union(members, rules=rules)
    assert [s.study_id for s in union.studies()] == ["a-1", "b-5"]
    assert Counter(told.reason for told in union.set_aside()) == {
        "not_asked_for": 1,
        "short_text": 1,
        "empty_text": 1,
        "duplicate_text": 1,
        "not_chosen": 3,
    }
    assert all(len(s.series) == 1 for s in union.studies())


def test_a_split_without_rules_keeps_everything() -> None:
    given_ = (study("1", split=""), study("2", split="test"))
    assert len(list(Union({"a": Listed(given_)}).studies())) == 2


def test_the_first_volume_with_enough_slices_is_the_one(tmp_path: Path) -> None:
    def series(name: str, slices: int) -> Series:
        path = tmp_path / f"{name}.nii.gz"
        if slices:
            write_volume(path, num_slices=slices)
        return Series(series_id=name, files=(path,))

    given_ = (
        Study(study_id="1", patient_id="1", series=(series("thin", 9), series("deep", 30))),
        Study(study_id="2", patient_id="2", series=(series("alone", 9),)),
        Study(study_id="3", patient_id="3", series=(series("nowhere", 0),)),
    )
    union = Union({"a": Listed(given_)}, rules=Rules(min_slices=20, one_volume=True))
    check_source(union)
    chosen = {s.study_id: [one.series_id for one in s.series] for s in union.studies()}
    # What cannot be read stays: preparing it gives the true reason.
    assert chosen == {"a-1": ["a-deep"], "a-3": ["a-nowhere"]}
    assert reasons(union) == {"a-thin": "too_small", "a-alone": "too_small"}


def test_members_and_rules_that_do_not_exist_are_errors() -> None:
    one = Listed((study("1"),))
    with pytest.raises(SourceError, match="without members"):
        Union({})
    with pytest.raises(SourceError, match="'a-b'"):
        Union({"a-b": one})
    with pytest.raises(SourceError, match="rules for b"):
        Union({"a": one}, rules=Rules(splits={"b": ("train",)}))
    with pytest.raises(SourceError, match="splits 'valid'"):
        Union({"a": one}, rules=Rules(splits={"a": ("valid",)}))


SPLIT = st.sampled_from(["train", "dev", "test", ""])
LISTING = st.lists(st.tuples(st.integers(0, 5), SPLIT, st.integers(0, 3)), max_size=14)


def drawn(listing: list[tuple[int, str, int]], kind: str) -> Listed:
    return Listed(
        tuple(
            Study(
                study_id=str(n),
                patient_id=str(patient),
                split=split,
                series=(Series(series_id=str(n), files=(Path(f"{n}.nii"),)),),
                reports=(Report(findings="." * text),),
            )
            for n, (patient, split, text) in enumerate(listing)
        ),
        kind=kind,
    )


@given(ct_rate=LISTING, inspect=LISTING, bimcv_r=LISTING)
def test_no_validation_or_test_patient_ever_enters_pretraining(
    ct_rate: list[tuple[int, str, int]],
    inspect: list[tuple[int, str, int]],
    bimcv_r: list[tuple[int, str, int]],
) -> None:
    given_ = {"ct_rate": ct_rate, "inspect": inspect, "bimcv_r": bimcv_r}
    sources: dict[str, Source] = {name: drawn(rows, name) for name, rows in given_.items()}
    listed = list(ct3dvlp(**sources).studies())  # type: ignore[arg-type]
    splits = {
        (name, f"{name}-{patient}", split)
        for name, rows in given_.items()
        for patient, split, _ in rows
    }
    held_out = {patient for _, patient, split in splits if split == "test"}
    held_out |= {patient for name, patient, split in splits if (name, split) == ("inspect", "dev")}
    dev = {patient for _, patient, split in splits if split == "dev"}
    train = {one.patient_id for one in listed if one.split == "train"}
    assert not {one.patient_id for one in listed} & held_out
    assert not train & dev
    assert {one.split for one in listed} <= {"train", "dev"}
    # And nobody is lost without cause: whoever is only in train, with a text, has one.
    texts = {"." * t for rows in given_.values() for _, split, t in rows if t and split == "train"}
    only = {p for _, p, _ in splits} - held_out - dev
    if texts and all(
        f"{name}-{p}" in only for name, rows in given_.items() for p, s, _ in rows if s == "train"
    ):
        kept = [one.reports[0].findings for one in listed if one.split == "train"]
        assert sorted(kept) == sorted(texts)


# ---- CT-3DVLP ------------------------------------------------------------------------------


def fabricate(root: Path, *, seed: int | None = None, volumes: bool = True) -> dict[str, Path]:
    """Write the three trees; a seed shuffles every table."""
    rows = [made for made in CT_RATE if made.in_tables] if not volumes else list(CT_RATE)
    made_ct_rate.fabricate(root / "ct_rate", rows)
    if not volumes:
        for path in (root / "ct_rate").rglob("*.nii.gz"):
            path.unlink()
    if seed is not None:
        for table in (root / "ct_rate").rglob("*.csv"):
            shuffled = made_ct_rate.rows_of(table)
            random.Random(seed).shuffle(shuffled)
            write_table(table, shuffled)
    made_inspect.fabricate(root / "inspect", seed=seed, volumes=volumes)
    made_bimcv_r.fabricate(root / "bimcv_r", seed=seed, volumes=volumes)
    return {name: root / name for name in PAPER}


def opened(roots: dict[str, Path], **more: int) -> Union:
    return ct3dvlp(
        ct_rate=CtRate(roots["ct_rate"], reconstructions="first", splits=("train",)),
        inspect=Inspect(roots["inspect"], splits=("train",)),
        bimcv_r=BimcvR(roots["bimcv_r"]),
        **more,
    )


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three trees; read only."""
    return fabricate(tmp_path_factory.mktemp("ct3dvlp"))


# By hand, study by study of the three trees: what stays, and of what does not, why.
LISTED = {
    "ct_rate-train_1_a": "ct_rate-train_1_a_1",
    "ct_rate-train_1_b": "ct_rate-train_1_b_1",
    "ct_rate-train_2_a": "ct_rate-train_2_a_1",
    "ct_rate-train_3_a": "ct_rate-train_3_a_1",
    "ct_rate-train_6_a": "ct_rate-train_6_a_1",  # no file
    "ct_rate-train_9_a": "ct_rate-train_9_a_1",
    "ct_rate-train_1267_a": "ct_rate-train_1267_a_1",
    "inspect-1002": "inspect-PE00aa12",
    "inspect-1003": "inspect-PE00aa14",
    "inspect-1007": "inspect-PE00aa17",  # 4D
    "inspect-1008": "inspect-PE00aa18",  # unusable affine
    "inspect-1009": "inspect-PE00aa19",  # no file
    "bimcv_r-sub-S01_ses-E02": f"bimcv_r-{made_bimcv_r.LATER}",
    f"bimcv_r-{made_bimcv_r.TWO_A}": f"bimcv_r-{made_bimcv_r.TWO_A}",
    f"bimcv_r-{made_bimcv_r.TWO_B}": f"bimcv_r-{made_bimcv_r.TWO_B}",
    "bimcv_r-sub-S03_ses-E04": f"bimcv_r-{made_bimcv_r.NO_FILE}",  # no file
    "bimcv_r-sub-S08_ses-E09": f"bimcv_r-{made_bimcv_r.HEADED}",
    f"bimcv_r-{made_bimcv_r.UNNAMED}": f"bimcv_r-{made_bimcv_r.UNNAMED}",
}
REASONS = {
    "ct_rate-train_4_a": "empty_text",
    "ct_rate-train_5_a": "no_chest",
    "ct_rate-train_7_a_1": "unlisted_file",
    "ct_rate-train_8_a": "duplicate_text",
    "ct_rate-train_9792_a_1": "too_small",
    "ct_rate-train_1267_a_4": "bad_affine",
    **{f"inspect-{key}": reason for key, reason in made_inspect.REASONS.items()},
    "inspect-PE00aa13": "not_chosen",
    **{f"bimcv_r-{key}": reason for key, reason in made_bimcv_r.REASONS.items()},
    f"bimcv_r-{made_bimcv_r.ONE_AGAIN}": "not_chosen",
    "bimcv_r-sub-S01_ses-E01": "duplicate_text",  # of ct_rate-train_9_a
    "bimcv_r-sub-S07_ses-E08": "not_asked_for",  # drawn for test
}


def test_ct3dvlp_keeps_the_promises_of_a_source(roots: dict[str, Path]) -> None:
    check_source(opened(roots))
    assert opened(roots).kind == "ct3dvlp"
    assert "NC" in opened(roots).terms.licence


def test_ct3dvlp_lists_what_a_person_would(roots: dict[str, Path]) -> None:
    source = opened(roots)
    assert {s.study_id: s.series[0].series_id for s in source.studies()} == LISTED
    assert all(len(s.series) == 1 and s.reports for s in source.studies())
    assert reasons(source) == REASONS


def test_ct3dvlp_lists_no_official_validation_or_test_patient(roots: dict[str, Path]) -> None:
    everything = Union(
        {
            "ct_rate": CtRate(roots["ct_rate"]),
            "inspect": Inspect(roots["inspect"]),
            "bimcv_r": BimcvR(roots["bimcv_r"]),
        }
    )
    held_out = {s.patient_id for s in everything.studies() if s.split == "test"}
    held_out |= {s.patient_id for s in Inspect(roots["inspect"]).studies() if s.split == "dev"}
    assert {"ct_rate-valid_1", "inspect-p10", "bimcv_r-sub-S07"} <= held_out
    assert not held_out & {s.patient_id for s in opened(roots).studies()}


def test_a_member_opened_with_every_split_changes_nothing(roots: dict[str, Path]) -> None:
    careless = ct3dvlp(
        ct_rate=CtRate(roots["ct_rate"], reconstructions="all"),
        inspect=Inspect(roots["inspect"]),
        bimcv_r=BimcvR(roots["bimcv_r"]),
    )
    assert {s.study_id: s.series[0].series_id for s in careless.studies()} == LISTED


def test_counts_per_reason_after_preparing_are_those_of_the_table(
    roots: dict[str, Path], tmp_path: Path, tiny: Preparation
) -> None:
    made = prepare(opened(roots), tmp_path / "cohort", tiny, workers=0)
    by_hand = {
        "bad_affine": 2,  # a known one of CT-RATE, one of INSPECT met here
        "duplicate_key": 5,
        "duplicate_text": 2,
        "empty_text": 1,
        "missing_file": 4,
        "no_chest": 1,
        "not_3d": 1,
        "not_asked_for": 1,
        "not_chosen": 2,
        "split_leak": 1,
        "too_small": 1,
        "unlisted_file": 3,
    }
    assert dict(made.failed) == by_hand
    assert made.done == len(LISTED) - 5  # three without a file, one 4D, one flat
    rows = Cohort.open(tmp_path / "cohort").studies("train")
    assert Counter(row.facts["member"] for row in rows) == {
        "ct_rate": 6,
        "inspect": 2,
        "bimcv_r": 5,
    }


def test_shuffled_tables_give_the_same_digest(tmp_path: Path, tiny: Preparation) -> None:
    digests = set()
    for seed in (None, 4):
        root = tmp_path / str(seed)
        prepare(opened(fabricate(root, seed=seed)), root / "cohort", tiny, workers=0)
        digests.add(Cohort.open(root / "cohort").digest)
    assert len(digests) == 1


def test_least_slices_and_characters_are_options(roots: dict[str, Path]) -> None:
    fewer = opened(roots, min_slices=22, min_chars=15)
    gone = set(LISTED) - {s.study_id for s in fewer.studies()}
    told = Counter(told.reason for told in fewer.set_aside())
    # CT-RATE's volumes have 24 slices, the others 20: two each of inspect-1002 and bimcv_r-S01 E01,
    # one each of inspect-1003 and bimcv_r-S01 E02, S02 (twice), S08; and the known one of CT-RATE.
    assert told["too_small"] == 9 + 1
    # Of train_3 and train_1267, inspect-1007 and 1008, and the unnamed one.
    assert told["short_text"] == 5
    assert {"inspect-1002", "inspect-1003", "bimcv_r-sub-S01_ses-E02"} <= gone
    assert "ct_rate-train_1_a" not in gone


def test_counts_stand_beside_the_papers_and_claim_nothing(roots: dict[str, Path]) -> None:
    told = beside_the_paper(opened(roots)).splitlines()
    assert told[0].split() == ["here", "train", "dev", "paper", "whole"]
    assert told[1].split() == ["ct_rate", "7", "7", "0", "25,691", "25,692"]
    assert told[2].split() == ["inspect", "5", "5", "0", "20,400", "23,248"]
    assert told[3].split() == ["bimcv_r", "6", "6", "0", "6,548", "8,069"]
    assert told[4].split() == ["total", "18", "18", "0", "52,639", "57,009"]
    assert told[5].startswith("Not the paper's corpus")
    assert sum(PAPER.values()) == 52_639
    assert set(WHOLE) == set(PAPER)


# ---- as a command line tells it ------------------------------------------------------------


def test_a_command_line_opens_the_same_corpus(roots: dict[str, Path]) -> None:
    told = [f"{name}={root}" for name, root in roots.items()]
    source = open_union(told, kind="ct3dvlp")
    assert list(source.studies()) == list(opened(roots).studies())
    assert source.set_aside() == opened(roots).set_aside()
    short = open_union(told, {"min_chars": "15", "bimcv_r.test_share": "0.5"}, kind="ct3dvlp")
    assert len(list(short.studies())) < len(LISTED)


def test_members_of_a_union_are_named_and_may_be_of_any_kind(
    make_folder: Callable[..., Path], roots: dict[str, Path]
) -> None:
    folder = make_folder(2)
    told = [f"ours={folder}", f"inspect={roots['inspect']}"]
    union = open_union(told, {"inspect.splits": "test"})
    assert isinstance(union.members["ours"], Folder)
    assert {s.facts["member"] for s in union.studies()} == {"ours", "inspect"}
    assert {s.split for s in union.studies() if s.facts["member"] == "inspect"} == {"test"}


@pytest.mark.parametrize(
    ("told", "settings", "kind", "message"),
    [
        (["a"], {}, "union", "not told apart"),
        (["a=x", "a=y"], {}, "union", "not told apart"),
        (["ct_rate=x", "inspect=y"], {}, "ct3dvlp", "ct3dvlp from ct_rate, inspect"),
        (["a=x"], {"b.seed": "1"}, "union", "setting b.seed=1"),
        (["a=x"], {"min_slices": "1"}, "union", "setting min_slices=1"),
        ([], {}, "union", "without members"),
    ],
)
def test_what_makes_no_union_is_an_error(
    told: list[str], settings: dict[str, str], kind: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        open_union(told, settings, kind=kind)


# ---- patients ------------------------------------------------------------------------------


def test_a_patient_stays_in_the_strictest_split() -> None:
    told = [study("1", "p", "train"), study("2", "p", "dev"), study("3", "p", "test")]
    told += [study("4", "q", "train"), study("5", "q", ""), study("6", "r", "")]
    kept, problems = without_leaks(told)
    assert [s.study_id for s in kept] == ["3", "4", "6"]
    assert [(p.key, p.reason) for p in problems] == [(k, "split_leak") for k in ("1", "2", "5")]


def test_a_draw_is_a_function_of_seed_and_patient() -> None:
    # sha256("0:train_1") begins a03a... of 2**256: 0.6259.
    assert split_of("train_1", dev=0.6258) == "train"
    assert split_of("train_1", dev=0.6260) == "dev"
    assert split_of("train_1", dev=0.3, test=0.326) == "test"
    assert split_of("train_1", dev=0.6260, seed=1) != "dev"
