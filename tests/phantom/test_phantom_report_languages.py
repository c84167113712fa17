"""A folder of phantoms in German or in both languages: the same patients, other reports."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from t3d.cohort.sources.folder import Folder
from t3d.errors import RecipeError, StoreError
from t3d.phantom.layouts import report_in, write_folder
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO
from t3d.text.language import detect_language

COUNTS = {"train": 4, "dev": 1, "test": 1}


def write(out: Path, language: str | dict[str, float] = "en") -> Path:
    write_folder(out, DEMO, **COUNTS, workers=1, language=language)  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("languages")
    return {
        "en": write(root / "en"),
        "de": write(root / "de", "de"),
        "mixed": write(root / "mixed", {"en": 0.5, "de": 0.5}),
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "studies.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_english_folders_have_the_bytes_they_had_before_there_was_german(
    folders: dict[str, Path],
) -> None:
    assert digest(folders["en"] / "studies.csv") == (
        "2a686ba0b02b6470e29d995f83d29833c56692e9afe2d1aaed5dbee4865d2bff"
    )
    assert "languages" not in json.loads((folders["en"] / "phantom.json").read_text())


def test_nothing_but_the_reports_depends_on_the_language(folders: dict[str, Path]) -> None:
    for name in ("de", "mixed"):
        for path in sorted(folders["en"].rglob("*")):
            other = folders[name] / path.relative_to(folders["en"])
            if path.is_file() and path.name not in (
                "studies.csv",
                "positions.jsonl",
                "phantom.json",
            ):
                assert digest(path) == digest(other), path.name
        for ours, theirs in zip(rows(folders["en"]), rows(folders[name]), strict=True):
            texts = ("findings", "impression", "language")
            assert {k: v for k, v in ours.items() if k not in texts} == {
                k: v for k, v in theirs.items() if k not in texts
            }


def test_every_report_is_in_the_language_of_its_row(folders: dict[str, Path]) -> None:
    for name, expected in (("de", {"de"}), ("mixed", {"en", "de"})):
        table = rows(folders[name])
        assert {row["language"] for row in table} == expected
        for row in table:
            assert detect_language(row["findings"]) == row["language"]


def test_positions_cut_sentences_out_of_german_text(folders: dict[str, Path]) -> None:
    table = {row["volume"]: row for row in rows(folders["de"])}
    lines = (folders["de"] / "positions.jsonl").read_text(encoding="utf-8").splitlines()
    english = (folders["en"] / "positions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 20
    for row in map(json.loads, lines):
        text = table[row["volume"]][row["section"]]
        assert text[row["end"] - 1] == "."
        assert row["start"] == 0 or text[row["start"] - 2 : row["start"]] == ". "
    where = [
        {(r["volume"], r["finding"], *r["z_mm"]) for r in map(json.loads, some)
         if r["section"] == "findings"}
        for some in (lines, english)
    ]  # fmt: skip
    assert where[0] == where[1]


def test_the_marker_names_the_shares_and_another_language_is_another_cohort(
    folders: dict[str, Path],
) -> None:
    marker = json.loads((folders["mixed"] / "phantom.json").read_text())
    assert marker["languages"] == {"de": 0.5, "en": 0.5}
    with pytest.raises(StoreError, match="differs in languages"):
        write(folders["en"], "de")


def test_a_mixed_folder_is_listed_with_its_languages(folders: dict[str, Path]) -> None:
    listed = {
        study.study_id: study.reports[0].language for study in Folder(folders["mixed"]).studies()
    }
    assert listed == {row["study"]: row["language"] for row in rows(folders["mixed"])}


def test_the_report_of_a_patient_can_be_asked_for_in_either_language() -> None:
    made = patient(3)
    assert report_in(made, "en") is made.report
    german = report_in(made, "de")
    assert german.report.language == "de"
    assert german == report_in(made, "de")


@pytest.mark.parametrize("language", ["fr", "", {"de": 0.5}, {"de": 1.5, "en": -0.5}, {}])
def test_unknown_languages_and_shares_that_do_not_add_up_are_refused(
    tmp_path: Path, language: str | dict[str, float]
) -> None:
    with pytest.raises(RecipeError, match="languages of phantom reports"):
        write(tmp_path / "x", language)
    assert not (tmp_path / "x").exists()
