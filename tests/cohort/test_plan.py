"""The plan of a corpus: formulas by hand, costs as measured, a page that says the same."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from t3d.cohort import plan as planning
from t3d.cohort.plan import CT_RATE, MEASURED, Corpus, Cost, describe, plan
from t3d.ct.preparations import named_preparation
from t3d.errors import RecipeError
from t3d.types import Preparation, Zyx

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "plan_ct_rate.json"

# 1,000 volumes of 1e9 voxels in files of 0.9 GB, 2 h of CPU each.
ROUND = Corpus(
    name="round",
    volumes=1000,
    studies=500,
    voxels=1e9,
    packed_share=0.45,
    packed_between=(0.4, 0.5),
    extent_mm=Zyx(z=200.0, y=400.0, x=400.0),
    largest_mm=Zyx(z=1000.0, y=500.0, x=500.0),
    largest_plane_vox=1_000_000,
)
TWO_HOURS = Cost(study_s=200.0, gigavoxel_s=7000.0, stored_share=0.5)


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The measured figures by name."""
    return {row["name"]: row for row in json.loads(RESULTS.read_text("utf-8"))}


def tool(name: str) -> ModuleType:
    """A script of tools/, imported."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        found = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return module


def test_figures_that_can_be_checked_by_hand() -> None:
    made = plan(ROUND, named_preparation("paper_direct"), TWO_HOURS)
    assert made.volume_s == 7200
    assert made.core_hours == 2000
    assert made.download_gb == pytest.approx(900)
    assert made.core_mb_s == pytest.approx(0.125)  # 900 MB in 7200 s
    assert made.stored_gb == pytest.approx(128 * 256 * 256 * 1000 / 1e9)  # 2 bytes, half of them
    assert made.stored_gb_at_most == pytest.approx(made.stored_gb * 1.1)  # 0.55 for 0.5
    assert made.worker_mb == pytest.approx(150 + 60 + 8 * 128 * 256 * 256 / 1e6)
    assert made.read_hours(250) == pytest.approx(1.0)
    assert made.hours(10, 250) == 200  # the cores decide
    assert made.hours(4000, 250) == pytest.approx(1.0)  # the disk does


def test_hours_are_those_of_a_simulation_volume_by_volume() -> None:
    made = plan(ROUND, named_preparation("demo"), TWO_HOURS)
    for cores, rate in ((7, 100.0), (64, 3.0), (500, 0.1)):
        free, disk_s = [0.0] * cores, 0.0
        for _ in range(ROUND.volumes):
            disk_s += 900e6 / (rate * 1e6)  # read one after the other
            core = min(range(cores), key=free.__getitem__)
            free[core] = max(free[core], 0.0) + 7200.0
        slower_s = max(disk_s, max(free))
        ragged_s = 7200.0  # the last ones do not fill all cores
        assert 0 <= slower_s - 3600 * made.hours(cores, rate) <= ragged_s


def test_portions_are_those_of_a_disk_that_is_filled_and_emptied() -> None:
    cost = replace(TWO_HOURS, stored_share=0.0)
    made = plan(ROUND, named_preparation("demo"), cost)
    for disk_gb in (100.0, 333.0, 899.0, 901.0):
        left, count = 900.0, 0
        while left > 1e-6:
            left -= min(left, disk_gb)
            count += 1
        assert made.portions(disk_gb) == count
    large = replace(TWO_HOURS, stored_share=1.0)
    stored = plan(ROUND, named_preparation("paper"), large)
    assert stored.stored_gb == pytest.approx(16.777216)
    assert stored.portions(16.7) is None
    assert stored.portions(16.777216 + 9.0) in (100, 101)  # by rounding


def test_a_preparation_without_a_size_takes_it_from_the_patients() -> None:
    cost = replace(TWO_HOURS, stored_share=1.0)
    made = plan(ROUND, named_preparation("fine"), cost)  # 1 x 1 x 2 mm
    assert made.stored_gb == pytest.approx(100 * 400 * 400 * 2 * 1000 / 1e9)
    assert made.worker_mb == pytest.approx(150 + 60 + 8 * 500 * 500 * 500 / 1e6)
    as_it_is = replace(made, preparation=Preparation(name="none"))
    assert as_it_is.stored_gb == pytest.approx(2 * made.stored_gb)  # 1 mm, for want of better


def test_the_writer_keeps_so_many_workers_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "RECORD_S", 1.0)
    monkeypatch.setattr(planning, "EMPTY_S", 8.0)
    monkeypatch.setattr(planning, "HAND_OUT_S", {"local": 0.0, "ray": 1.0})
    made = plan(ROUND, named_preparation("demo"), TWO_HOURS)  # 2 volumes a study: 14,400 s
    assert made.useful_workers("local") == 14_400
    assert made.useful_workers("ray") == 7_200
    assert made.useful_workers("ray", deleting=True) == 1_440


def test_ct_rate_is_as_large_as_its_tables_say() -> None:
    told = describe()["corpus"]
    assert (told["volumes"], told["studies"]) == (47_149 + 3_039, 24_128 + 1_564)
    assert told["decompressed_tib"] == 12.5
    assert CT_RATE.voxels * 2 * 3_039 / 2**30 == pytest.approx(774)
    low, high = told["download_tb_between"]
    assert low < told["download_tb"] < high


def test_a_preparation_that_was_not_measured_is_an_error_unless_its_cost_is_told() -> None:
    with pytest.raises(RecipeError, match="was not measured") as caught:
        plan(CT_RATE, named_preparation("ctclip"))
    assert "paper_direct" in caught.value.expected
    made = plan(CT_RATE, named_preparation("ctclip"), MEASURED["fine"])
    assert made.core_hours > 0


def test_the_description_is_plain_data_of_four_preparations() -> None:
    told = describe()
    assert json.loads(json.dumps(told)) == told
    assert list(told["preparations"]) == ["paper", "paper_direct", "fine", "demo"]


@pytest.mark.parametrize("name", list(MEASURED))
def test_costs_are_those_that_were_measured(name: str, rows: dict[str, dict[str, Any]]) -> None:
    cost = MEASURED[name]
    assert cost.study_s == pytest.approx(max(0.0, rows[f"{name}, a study"]["value"]), abs=0.005)
    measured = rows[f"{name}, 1e9 voxels read"]["value"]
    assert cost.gigavoxel_s == pytest.approx(measured, abs=0.05)
    shares = [
        row["ratio"]
        for title, row in rows.items()
        if title.startswith(f"{name}, stored, chest") and row["ratio"] is not None
    ]
    assert len(shares) == 2
    assert cost.stored_share == pytest.approx(sum(shares) / 2, abs=0.005)


def test_costs_of_the_writer_are_those_that_were_measured(
    rows: dict[str, dict[str, Any]],
) -> None:
    for told, name in (
        (planning.RECORD_S, "one study recorded"),
        (planning.EMPTY_S, "one study emptied"),
        (planning.HAND_OUT_S["local"], "one task handed out, local"),
        (planning.HAND_OUT_S["ray"], "one task handed out, Ray"),
    ):
        assert 1000 * told == pytest.approx(rows[name]["value"], rel=0.06)


@pytest.mark.parametrize("name", list(MEASURED))
def test_the_line_goes_through_the_measured_sizes(
    name: str, rows: dict[str, dict[str, Any]]
) -> None:
    """Linear in the voxels read, so CT-RATE's mean, which lies between, is no extrapolation."""
    cost = MEASURED[name]
    for slices in (150, 300, 600):
        reckoned = cost.study_s + cost.gigavoxel_s * slices * 512 * 512 / 1e9
        assert reckoned == pytest.approx(rows[f"{name}, {slices} slices"]["value"], rel=0.2)
    assert 150 * 512 * 512 < CT_RATE.voxels < 600 * 512 * 512


def test_the_page_says_what_the_plan_does(tmp_path: Path) -> None:
    table = tool("plan_table")
    assert table.main(["--check"]) == 0
    page = tmp_path / "page.md"
    text = (ROOT / "docs" / "howto" / "plan-ct-rate.md").read_text("utf-8")
    page.write_text(text.replace("50,188", "50,189", 1))
    arguments = ["--page", str(page)]
    assert table.main([*arguments, "--check"]) == 1
    assert table.main(arguments) == 0
    assert page.read_text("utf-8") == text
