"""The thread: phantom -> prepare -> train -> evaluate -> screen -> pages, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3d import cli


def run(*words: str) -> int:
    code = cli.app([str(word) for word in words], exit_on_error=False, result_action="return_value")
    return int(code or 0)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source, cohort, a trained run and its results."""
    root = tmp_path_factory.mktemp("walk")
    counts = ("--train", "40", "--dev", "16", "--test", "16", "--workers", "1")
    assert run("phantom", str(root / "source"), *counts) == 0
    assert run("prepare", str(root / "source"), str(root / "cohort"), "--workers", "0") == 0
    where = ("--cohort", str(root / "cohort"), "--out", str(root / "run"))
    short = ("--set", "num_steps=10", "--set", "batch_size=8")
    assert run("train", "t3d_v3", *where, *short) == 0
    out = ("--cohort", str(root / "cohort"), "--out", str(root / "results"))
    assert run("evaluate", str(root / "run"), *out) == 0
    return root


def test_preparing_twice_has_nothing_to_do(
    walked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("prepare", str(walked / "source"), str(walked / "cohort"), "--workers", "0", "--json")
    assert run(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done"] == 0
    assert told["there_already"] == 72


def test_results_hold_both_prompt_sets_and_retrieval(walked: Path) -> None:
    results = json.loads((walked / "results" / "result.json").read_text())
    tasks = [(r["task"], r["provenance"].get("prompts", "")) for r in results]
    assert tasks[:2] == [("zero_shot", "template"), ("zero_shot", "bank")]
    ran = {r["task"] for r in results if r["metrics"]}
    assert ran >= {"calibration", "probe", "retrieval"}
    lacking = {r["task"]: r["excluded"] for r in results if not r["metrics"]}
    assert all(lacking.values())  # each says why, such as too few patients for a pool
    assert (walked / "results" / "prompts-bank.json").is_file()
    assert len((walked / "results" / "per_study.csv").read_text().splitlines()) == 17


def test_pages_are_written(walked: Path) -> None:
    for page in (walked / "run" / "report.html", walked / "results" / "report.html"):
        text = page.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "t3d_v3" in text or "zero_shot" in text


def test_screening_names_slices_and_domain(
    walked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = next((walked / "source" / "volumes").glob("*.nii.gz"))
    out = walked / "screen"
    words = ("screen", str(scan), "--checkpoint", str(walked / "run"), "--out", str(out), "--json")
    assert run(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["findings"]) == 18
    assert told["not_for_clinical_use"] is True
    scores = [row["score"] for row in told["findings"]]
    assert scores == sorted(scores, reverse=True)
    assert (out / "screen.png").stat().st_size > 10_000


def test_info_describes_cohort_run_and_recipes(
    walked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", str(walked / "cohort"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["studies"]["train"] == 40
    assert run("info", str(walked / "run"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "t3d_v3"
    assert run("info", "recipes") == 0
    assert "t3d_plus" in capsys.readouterr().out


def test_a_test_patient_that_was_trained_on_is_refused(walked: Path, tmp_path: Path) -> None:
    import csv

    from t3d.errors import ProtocolError
    from t3d.judge.evaluate import evaluate

    source = tmp_path / "source"
    source.mkdir()
    (source / "volumes").symlink_to(walked / "source" / "volumes")
    with (walked / "source" / "studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["split"] = {"train": "test", "test": "train"}.get(row["split"], row["split"])
    with (source / "studies.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run("prepare", str(source), str(tmp_path / "cohort"), "--workers", "0") == 0
    from t3d.cohort.store import Cohort

    with pytest.raises(ProtocolError, match="40 of 56 dev and test patients"):
        evaluate(str(walked / "run"), Cohort.open(tmp_path / "cohort"), tmp_path / "out")
