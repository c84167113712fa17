"""Members of a union: weights and sections in a recipe, and whom a checkpoint has seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from t3d.cohort.listing import Terms
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.cohort.union import Union
from t3d.ct.preparations import named_preparation
from t3d.errors import ProtocolError, RecipeError
from t3d.judge.evaluate import load_model
from t3d.learn.corpus import Corpus, read_corpus, sentences_of
from t3d.learn.fitted import fit
from t3d.learn.recipe import Member, Recipe
from t3d.learn.texts import text_reader
from t3d.learn.train import Plan, train
from t3d.learn.trained import Trained, open_grids
from t3d.learn.views import Loader
from t3d.text.ngrams import NGramVocabulary
from t3d.text.sections import SECTIONS
from t3d.types import Study

from .conftest import short

QUIET = Plan(tensorboard=False, num_evaluations=1, log_every=1)
UNION_NAMES = ("ct_rate", "ours")


@dataclass(frozen=True)
class Part:
    """Studies of a folder as those of another corpus."""

    root: Path
    kind: str
    chosen: Sequence[Study]

    @property
    def terms(self) -> Terms:
        return Terms(licence="made for a test")

    def studies(self) -> Iterator[Study]:
        yield from self.chosen


class Masks(Part):
    """The same, of a source that shows the people of another."""

    patients_of = "ct_rate"


@pytest.fixture(scope="module")
def phantoms(small_cohort: Cohort) -> tuple[Path, list[Study]]:
    """The folder of phantoms and what it lists."""
    root = small_cohort.path.parent / "source"
    return root, list(Folder(root).studies())


def part(
    phantoms: tuple[Path, list[Study]],
    kind: str,
    chosen: slice,
    split: str,
    *,
    names: str = "",
) -> Part:
    """Some studies of the folder in one split; `names` replaces the ids of their patients."""
    root, studies = phantoms
    rows = [replace(study, split=split) for study in studies[chosen]]
    if names:
        rows = [replace(row, patient_id=f"{names}{n}") for n, row in enumerate(rows)]
    return (Masks if kind == "radgenome" else Part)(root, kind, rows)


def cohort_of(source: object, out: Path) -> Cohort:
    prepare(source, out, named_preparation("demo"), workers=0)  # type: ignore[arg-type]
    return Cohort.open(out)


@pytest.fixture(scope="module")
def union(phantoms: tuple[Path, list[Study]], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Ten studies of "CT-RATE" and six of a folder, all of them in train."""
    members = {
        "ct_rate": part(phantoms, "ct_rate", slice(0, 10), "train", names="train_"),
        "ours": part(phantoms, "folder", slice(10, 16), "train"),
    }
    return cohort_of(Union(members), tmp_path_factory.mktemp("union") / "cohort")


def tiny(**members: Member) -> Recipe:
    return replace(short("clip", 4, batch_size=4), members=members)


def loader(cohort: Cohort, recipe: Recipe, stage: int = 0) -> Loader:
    corpus = read_corpus(cohort, "train", with_reports=True, members=recipe.members)
    fitted = fit(recipe, cohort, corpus)
    return Loader(
        recipe=recipe,
        stage=stage,
        corpus=corpus,
        fitted=fitted,
        grids=open_grids(recipe, cohort, fitted),
        reader=text_reader(recipe, fitted),
    )


# ---- weights -------------------------------------------------------------------------------


def test_a_weighted_member_is_seen_more_often(union: Cohort) -> None:
    made = loader(union, tiny(ours=Member(weight=5.0)))
    drawn = [study for step in range(4 * 5) for study in made.batch(step).study_ids]
    seen = Counter(study.split("-")[0] for study in drawn)
    assert len(drawn) == 80
    assert abs(seen["ours"] - 80 * 30 / 40) <= 1  # 6 studies of weight 5 beside 10 of weight 1
    assert set(drawn) == set(made.corpus.study_ids)


def test_members_that_weigh_the_same_change_no_byte_of_a_run(union: Cohort, tmp_path: Path) -> None:
    plain = train(tiny(), union, tmp_path / "plain", plan=QUIET)
    equal = tiny(ct_rate=Member(), ours=Member(weight=1.0))
    told = train(equal, union, tmp_path / "told", plan=QUIET)
    for file in ("model.safetensors", "training.safetensors", "fitted.json"):
        assert (plain / file).read_bytes() == (told / file).read_bytes(), file
    other = train(tiny(ours=Member(weight=9.0)), union, tmp_path / "other", plan=QUIET)
    assert (plain / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_weighted_run_cut_short_and_resumed_ends_in_the_same_bytes(
    union: Cohort, tmp_path: Path
) -> None:
    recipe = tiny(ours=Member(weight=2.5, sections=("impression",)))
    plan = replace(QUIET, num_evaluations=4)
    straight = train(recipe, union, tmp_path / "a", plan=plan)
    train(recipe, union, tmp_path / "b", plan=replace(plan, stop_after=2))
    resumed = train(recipe, union, tmp_path / "b", plan=plan)
    for file in ("model.safetensors", "training.safetensors"):
        assert (straight / file).read_bytes() == (resumed / file).read_bytes(), file
    assert Recipe.from_json(json.loads((straight / "recipe.json").read_text())) == recipe


# ---- sections ------------------------------------------------------------------------------


def both(corpus: Corpus, name: str) -> list[tuple[bool, bool]]:
    """For each study of a member whether findings and impression have words."""
    return [
        (bool(corpus.findings[i]), bool(corpus.impression[i]))
        for i, member in enumerate(corpus.members)
        if member == name
    ]


def test_reports_are_cut_to_the_sections_of_their_member(union: Cohort) -> None:
    cut = {"ours": Member(sections=("impression",))}
    whole = read_corpus(union, "train", with_reports=True)
    corpus = read_corpus(union, "train", with_reports=True, members=cut)
    assert both(whole, "ours") == both(whole, "ct_rate")[:6] == [(True, True)] * 6
    assert both(corpus, "ours") == [(False, True)] * 6
    assert both(corpus, "ct_rate") == [(True, True)] * 10
    assert corpus.impression == whole.impression


def test_a_study_whose_member_leaves_it_no_words_is_left_out(
    union: Cohort, tmp_path: Path, phantoms: tuple[Path, list[Study]]
) -> None:
    given = part(phantoms, "ct_rate", slice(0, 3), "train")
    bare = replace(given.chosen[0], reports=(replace(given.chosen[0].reports[0], impression=""),))
    source = Union({"ct_rate": replace(given, chosen=(bare, *given.chosen[1:]))})
    cohort = cohort_of(source, tmp_path / "cohort")
    cut = {"ct_rate": Member(sections=("impression",))}
    assert len(read_corpus(cohort, "train", with_reports=True)) == 3
    assert len(read_corpus(cohort, "train", with_reports=True, members=cut)) == 2


def test_sections_of_a_member_stand_in_for_those_of_the_recipe(union: Cohort) -> None:
    recipe = tiny(ours=Member(sections=("impression",)))
    plan = replace(recipe.text_plan, sections=("findings",), drop=0.0, shuffle=False)
    made = loader(union, replace(recipe, text_plan=plan))
    heard: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    inner = made.reader
    assert inner is not None

    def listen(texts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> object:
        heard.extend((tuple(a), tuple(b)) for a, b in texts)
        return inner(texts)

    made.reader = listen  # type: ignore[assignment]
    ids = made.batch(0).study_ids + made.batch(1).study_ids
    assert {study.split("-")[0] for study in ids} == set(UNION_NAMES)
    for study, (findings, impression) in zip(ids, heard, strict=True):
        row = made.corpus.study_ids.index(study)
        if study.startswith("ours"):
            assert (findings, impression) == ((), made.corpus.impression[row])
        else:
            assert (findings, impression) == (made.corpus.findings[row], ())


def test_the_vocabulary_and_the_terms_come_from_the_sections_that_are_read(
    union: Cohort,
) -> None:
    recipe = replace(short("t3d_plus", 2), members={"ct_rate": Member(sections=("impression",))})
    made = loader(union, recipe, stage=1)
    read = []
    for row in union.studies("train"):
        report = union.report(row.study_id)
        assert report is not None
        parts = [report.impression] if row.facts["member"] == "ct_rate" else []
        parts = parts or [report.findings, report.impression]
        read.append(tuple(sentence for text in parts for sentence in sentences_of(text)))
    fitted = fit(recipe, union, made.corpus)
    assert fitted.vocabulary is not None
    assert fitted.vocabulary.to_json() == NGramVocabulary.fit(read, min_reports=2).to_json()
    table = fitted.terms
    assert table is not None
    assert made.term_targets is not None
    assert made.term_targets.tolist() == [table.targets(told).tolist() for told in read]
    uncut = read_corpus(union, "train", with_reports=True)
    whole = [uncut.sentences(i, SECTIONS) for i in range(len(uncut))]
    assert made.term_targets.tolist() != [table.targets(told).tolist() for told in whole]


def test_shuffled_reports_take_their_sections_with_them(union: Cohort) -> None:
    cut = {"ours": Member(sections=("impression",))}
    moved = read_corpus(union, "train", with_reports=True, members=cut, shuffle_seed=0)
    assert Counter(moved.sections) == {None: 10, ("impression",): 6}
    for i in range(len(moved)):
        assert bool(moved.findings[i]) == (moved.sections[i] is None)
    assert any(moved.sections[i] and moved.members[i] == "ct_rate" for i in range(len(moved)))


# ---- what a cohort does not have -----------------------------------------------------------


def test_every_member_that_the_cohort_does_not_have_is_told_with_all_else(
    union: Cohort, tmp_path: Path
) -> None:
    recipe = tiny(our=Member(weight=0.0), merlin=Member(sections=("history",)), ct_rate=Member())
    with pytest.raises(RecipeError) as caught:
        train(recipe, union, tmp_path / "run", plan=QUIET)
    text = str(caught.value)
    assert "4 problems in recipe 'clip'" in text
    assert "members.our: not a member of cohort 'cohort' (members: ct_rate, ours)" in text
    assert "nearest: 'ours'" in text
    assert "members.merlin: not a member of cohort 'cohort'" in text
    assert "members.our.weight: found 0.0" in text
    assert "members.merlin.sections: unknown 'history'" in text
    assert not (tmp_path / "run").exists()


def test_a_cohort_of_one_source_has_no_members(small_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="members: none: it is no union"):
        train(tiny(ours=Member()), small_cohort, tmp_path, plan=QUIET)


# ---- who may be judged ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(union: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has seen every patient of the union."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(short("clip", 1, batch_size=4), union, out, plan=QUIET)


@pytest.mark.parametrize("kind", ["ct_rate", "radgenome", "rexgrounding"])
def test_people_of_a_union_are_known_in_every_corpus_that_shows_them(
    run: Path, phantoms: tuple[Path, list[Study]], tmp_path: Path, kind: str
) -> None:
    # Two patients of the training under other scans, and two that were never seen.
    cohort = cohort_of(part(phantoms, kind, slice(20, 22), "test", names="train_"), tmp_path / "a")
    with pytest.raises(ProtocolError, match="2 of 2 dev and test patients were in the training"):
        load_model(str(run), cohort)
    others = part(phantoms, kind, slice(20, 22), "test", names="valid_")
    assert isinstance(load_model(str(run), cohort_of(others, tmp_path / "b")), Trained)


def test_equal_ids_of_another_corpus_are_other_people(
    run: Path, phantoms: tuple[Path, list[Study]], tmp_path: Path
) -> None:
    cohort = cohort_of(part(phantoms, "inspect", slice(20, 22), "dev", names="train_"), tmp_path)
    assert isinstance(load_model(str(run), cohort), Trained)


def test_people_of_a_folder_are_known_by_their_scans_and_not_by_their_ids(
    run: Path, phantoms: tuple[Path, list[Study]], tmp_path: Path
) -> None:
    seen = part(phantoms, "folder", slice(15, 17), "test", names="renamed")  # one of two
    with pytest.raises(ProtocolError, match="1 of 2 dev and test patients were in the training"):
        load_model(str(run), cohort_of(seen, tmp_path / "a"))
    ids = [study.patient_id for study in phantoms[1][10:12]]
    others = part(phantoms, "folder", slice(20, 22), "test")
    rows = [replace(row, patient_id=name) for row, name in zip(others.chosen, ids, strict=True)]
    cohort = cohort_of(replace(others, chosen=rows), tmp_path / "b")
    assert isinstance(load_model(str(run), cohort), Trained)


def test_people_of_a_plain_cohort_are_known_in_a_union(
    phantoms: tuple[Path, list[Study]], tmp_path: Path
) -> None:
    plain = cohort_of(
        part(phantoms, "ct_rate", slice(0, 6), "train", names="train_"), tmp_path / "plain"
    )
    run = train(short("clip", 1, batch_size=4), plain, tmp_path / "run", plan=QUIET)
    judged = {
        "masks": part(phantoms, "radgenome", slice(20, 23), "test", names="train_"),
        "ours": part(phantoms, "folder", slice(23, 25), "dev"),
    }
    with pytest.raises(ProtocolError, match="3 of 5 dev and test patients"):
        load_model(str(run), cohort_of(Union(judged), tmp_path / "union"))
    judged["masks"] = part(phantoms, "radgenome", slice(20, 23), "test", names="valid_")
    assert isinstance(load_model(str(run), cohort_of(Union(judged), tmp_path / "other")), Trained)
