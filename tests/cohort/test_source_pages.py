"""What holds for every source: its page, how it is found out, its shares, words for no text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import made_amos
import made_bimcv_r
import made_ct_rate
import made_folder
import made_inspect
import made_merlin
import made_msd
import made_rad_chestct
import made_radgenome
import made_rexgrounding
from made_tables import write_table
from t3d.cohort.audit import subject_at
from t3d.cohort.delimited import ABSENT, ABSENT_IN_OWN_TABLES, is_absent
from t3d.cohort.sources import (
    SOURCES,
    Amos,
    BimcvR,
    CtRate,
    Msd,
    RadGenome,
    ReXGrounding,
    open_source,
)
from t3d.errors import SourceError

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
PAGES = {
    "folder": "prepare-your-folder",
    "dicom_folder": "dicom",
    **{one.kind: one.kind.replace("_", "-") for one in SOURCES[1:-1]},
}
TREES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda root: made_folder.fabricate(root, 2),
    "radgenome": made_radgenome.fabricate,
    "rexgrounding": made_rexgrounding.fabricate,
    "ct_rate": made_ct_rate.fabricate,
    "inspect": made_inspect.fabricate,
    "bimcv_r": made_bimcv_r.fabricate,
    "merlin": made_merlin.fabricate,
    "rad_chestct": made_rad_chestct.fabricate,
    "amos": made_amos.fabricate,
    "msd": made_msd.fabricate,
}
WITH_SHARES: dict[type[Any], str] = {
    Amos: "amos",
    BimcvR: "bimcv_r",
    CtRate: "ct_rate",
    Msd: "msd",
    RadGenome: "radgenome",
    ReXGrounding: "rexgrounding",
}


# ---- pages -----------------------------------------------------------------------------------


def blocks(page: str, kind: str) -> list[str]:
    """Give the fenced blocks of one kind; "" = those without a language."""
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [code for told, code in fences if told == kind]


def settings_of(words: list[str]) -> list[str]:
    """Name the settings that a command gives its source."""
    given = [words[n + 1] for n, word in enumerate(words) if word == "--with"]
    return [one.partition("=")[0] for one in given]


def commands(page: str) -> list[list[str]]:
    """Give the words of every `t3d prepare` of a page."""
    lines = [shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines()]
    return [words for words in lines if words[:2] == ["t3d", "prepare"]]


def test_every_source_has_a_page_and_a_tree_here() -> None:
    kinds = {one.kind for one in SOURCES}
    assert set(PAGES) == kinds
    assert set(TREES) == kinds - {"dicom_folder"}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_says_how_to_get_the_data_and_what_lies_where(kind: str) -> None:
    page = PAGES[kind]
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    if kind in ("folder", "dicom_folder"):
        assert "own" in text  # nobody else's data
    else:
        assert "You fetch the data yourself" in " ".join(text.split())
        assert re.search(r"Hugging Face|Zenodo|portal|medicaldecathlon", text)
    assert any("/" in block for block in blocks(page, "")) or "| column |" in text


@pytest.mark.parametrize("kind", PAGES)
def test_the_command_of_a_page_names_the_source_and_settings_it_knows(kind: str) -> None:
    from inspect import signature

    (first, *_) = commands(PAGES[kind])
    named = first[first.index("--source") + 1] if "--source" in first else "folder"
    assert named == kind
    made = next(one for one in SOURCES if one.kind == kind)
    assert set(settings_of(first)) <= set(signature(made).parameters)


# ---- found out -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TREES)
def test_doctor_finds_out_a_corpus_as_prepare_does(kind: str, tmp_path: Path) -> None:
    root = TREES[kind](tmp_path)
    assert open_source(root).kind == kind
    assert getattr(subject_at(root), "kind", "") == kind


def test_doctor_takes_what_no_corpus_recognises_for_loose_files(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    assert open_source(tmp_path).kind == "dicom_folder"
    assert subject_at(tmp_path) == (tmp_path,)
    assert subject_at(tmp_path / "a.dcm") == (tmp_path / "a.dcm",)


# ---- shares ----------------------------------------------------------------------------------


@pytest.mark.parametrize("made", WITH_SHARES, ids=lambda made: made.kind)
@pytest.mark.parametrize("share", [-0.01, 1.0, 1.5, float("nan"), float("inf")])
def test_a_share_that_is_none_or_leaves_no_train_is_refused(
    made: type[Any], share: float, tmp_path: Path
) -> None:
    root = TREES[WITH_SHARES[made]](tmp_path)
    with pytest.raises(SourceError, match=rf"{made.__name__}: dev_share={share:g}"):
        made(root, dev_share=share)
    made(root, dev_share=0.5)


@pytest.mark.parametrize("made", [BimcvR, Msd], ids=lambda made: made.kind)
def test_two_shares_are_checked_together(made: type[Any], tmp_path: Path) -> None:
    root = TREES[made.kind](tmp_path)
    with pytest.raises(SourceError, match=r"dev_share=0\.5, test_share=0\.5"):
        made(root, dev_share=0.5, test_share=0.5)
    with pytest.raises(SourceError, match="test_share=nan"):
        made(root, test_share=float("nan"))


def test_every_source_with_a_share_is_asked() -> None:
    from inspect import signature

    assert set(WITH_SHARES) == {one for one in SOURCES if "dev_share" in signature(one).parameters}


# ---- words that are no text ------------------------------------------------------------------


def texts_of(kind: str, root: Path, word: str) -> int:
    """Count the reports of a corpus whose only text is this word."""
    if kind == "ct_rate":
        row = {"VolumeName": "train_1_a_1.nii.gz", "Findings_EN": word, "Impressions_EN": word}
        write_table(root / "radiology_text_reports" / "train_reports.csv", [row])
    elif kind == "inspect":
        row = {"impression_id": "PE00aa11", "Impressions_EN": word}
        write_table(root / "Final_Impressions.csv", [row])
    elif kind == "bimcv_r":
        row = {"path": "sub-S1_ses-E1_ct.nii.gz", "Report_en": word}
        write_table(made_bimcv_r.table_of(root), [row])
    elif kind == "merlin":
        write_table(root / "reports_final.csv", [{"study id": "A1", "Findings": word, "Split": ""}])
    elif kind == "radgenome":
        row = {"Volumename": "train_1_a_1.nii.gz", "Anatomy": word, "Sentence": word}
        write_table(root / "radgenome_files" / "train_region_report.csv", [row])
    else:
        write_table(root / "studies.csv", [{"volume": "a", "findings": word, "impression": ""}])
    return sum(len(study.reports) for study in open_source(root, kind).studies())


@pytest.mark.parametrize("kind", ["ct_rate", "inspect", "bimcv_r", "merlin", "radgenome"])
@pytest.mark.parametrize("word", sorted(ABSENT - {""}))
def test_a_word_for_nothing_is_no_report_in_any_corpus(
    kind: str, word: str, tmp_path: Path
) -> None:
    for number, spelt in enumerate((word.upper(), f" {word.capitalize()} ")):
        assert texts_of(kind, tmp_path / str(number), spelt) == 0
    assert texts_of(kind, tmp_path / "told", f"{word} nodule") == 1


@pytest.mark.parametrize("word", sorted(ABSENT - {""}))
def test_in_a_table_of_ones_own_only_nan_is_nothing(word: str, tmp_path: Path) -> None:
    assert texts_of("folder", tmp_path, word) == (word not in ABSENT_IN_OWN_TABLES)


def test_blanks_within_and_around_a_word_do_not_matter() -> None:
    assert is_absent(" Not \n GIVEN. ")
    assert not is_absent("Not given to the patient.")
    assert ABSENT_IN_OWN_TABLES < ABSENT
