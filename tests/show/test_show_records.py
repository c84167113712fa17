"""Reading what a demo left: gaps become NaN, broken files become errors that say what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import fabricated
from t3d.errors import SourceError
from t3d.show.records import read_demo, read_run


def test_the_summary_is_read_with_intervals_and_chance(tmp_path: Path) -> None:
    demo = read_demo(fabricated.write_demo(tmp_path))
    plus = demo.recipe("t3d_plus")
    assert plus is not None
    macro = plus.score("bank", "macro")
    assert (macro.value, macro.chance, macro.n) == (0.821, 0.5, fabricated.NUM_TEST)
    assert macro.low == pytest.approx(0.806)
    assert plus.found("t2i_r@10_strict").value == pytest.approx(0.82)
    assert plus.losses["global_contrast"] == (2.13, 4.159)
    assert demo.machine == "cpu Some Processor 9000, cores 2"
    assert [r.name for r in demo.recipes] == ["clip", "t3d_v3", "t3d_plus"]


def test_an_empty_summary_is_read_as_nothing_measured(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"recipes": {"clip": {"zero_shot": null}}}')
    demo = read_demo(tmp_path)
    assert math.isnan(demo.recipes[0].score("bank", "macro").value)
    assert math.isnan(demo.recipes[0].ceiling_share.value)
    assert math.isnan(demo.recipes[0].steps)
    assert demo.commit == ""


def test_null_and_words_in_place_of_a_number_are_nan_and_true_is_no_number(tmp_path: Path) -> None:
    told = {"recipes": {"clip": {"steps": True, "core_seconds": "long", "ceiling_share": None}}}
    (tmp_path / "summary.json").write_text(json.dumps(told))
    clip = read_demo(tmp_path).recipes[0]
    assert all(math.isnan(v) for v in (clip.steps, clip.core_seconds, clip.ceiling_share.value))


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_missing_or_broken_summary_says_how_to_get_one(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SourceError, match=r"summary\.json") as caught:
        read_demo(tmp_path)
    assert "t3d bench demo" in caught.value.fix
    assert str(tmp_path) not in str(caught.value)


def test_a_half_written_last_line_of_a_log_is_counted(tmp_path: Path) -> None:
    fabricated.write_run(tmp_path / "run")
    with (tmp_path / "run" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 400, "lo')
    run = read_run(tmp_path / "run")
    assert (len(run.steps), len(run.evaluations), run.broken_lines) == (400, 8, 1)


def test_the_cohort_digest_comes_from_the_newest_checkpoint(tmp_path: Path) -> None:
    fabricated.write_run(tmp_path / "run")
    for step, digest in ((90, "old"), (100, "new")):
        folder = tmp_path / "run" / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps({"step": step, "cohort": digest}))
    assert read_run(tmp_path / "run").training["cohort"] == "new"


def test_a_run_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        read_run(tmp_path / "nothing")
