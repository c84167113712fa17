"""A folder of phantoms: complete, repeatable, resumable, readable."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from t3d.ct import nifti
from t3d.errors import RecipeError, StoreError
from t3d.phantom import layouts
from t3d.phantom.layouts import split_seeds, write_folder
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO, STANDARD
from t3d.text.findings import CT_RATE_18


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "cohort"
    write_folder(out, DEMO, train=4, dev=2, test=2, workers=1)
    return out


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "studies.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_what_the_layout_says(folder: Path) -> None:
    table = rows(folder)
    names = [row["volume"] for row in table]
    assert list(table[0]) == [
        *("volume", "study", "patient", "split", "findings", "impression", "sex", "age"),
        *CT_RATE_18,
    ]
    assert [row["split"] for row in table] == ["train"] * 4 + ["dev"] * 2 + ["test"] * 2
    assert names[:2] == ["phantom-000000", "phantom-000001"]
    assert len({row["patient"] for row in table}) == 8
    volumes = {p.name for p in (folder / "volumes").iterdir()}
    assert volumes == {f"{name}.nii.gz" for name in names}
    masked = {f"{n}_{m}.nii.gz" for n in names[4:] for m in ("lesion", "organ")}
    assert {p.name for p in (folder / "masks").iterdir()} == masked
    assert not (folder / ".parts").exists()


def test_files_and_rows_are_those_of_the_patients(folder: Path) -> None:
    for row in rows(folder)[3:6]:
        made = patient(int(row["volume"].removeprefix("phantom-")), preset=DEMO)
        read = nifti.read(folder / "volumes" / f"{row['volume']}.nii.gz")
        np.testing.assert_array_equal(read.voxels, made.volume.voxels)
        assert {name: int(row[name]) for name in CT_RATE_18} == made.labels
        assert row["findings"] == made.report.report.findings
        assert (row["sex"], row["age"]) == (made.facts["sex"], made.facts["age"])
        if row["split"] == "dev":
            path = folder / "masks" / f"{row['volume']}_lesion.nii.gz"
            np.testing.assert_array_equal(nifti.read_label(path)[0], made.lesion)


def test_positions_point_into_the_text_and_into_the_volume(folder: Path) -> None:
    table = {row["volume"]: row for row in rows(folder)}
    lines = (folder / "positions.jsonl").read_text().splitlines()
    assert len(lines) > 20
    spoken: dict[str, set[str]] = {}
    for row in map(json.loads, lines):
        assert set(row) == {"volume", "section", "start", "end", "finding", "z_mm"}
        text = table[row["volume"]][row["section"]]
        assert text[row["end"] - 1] == "."
        assert row["start"] == 0 or text[row["start"] - 2 : row["start"]] == ". "
        read = nifti.read(folder / "volumes" / f"{row['volume']}.nii.gz")
        low = read.world_from_voxel[2, 3]
        high = low + read.world_from_voxel[2, 0] * 31
        centre, lowest, highest = row["z_mm"]
        assert low - 0.02 <= lowest <= centre <= highest <= high + 0.02
        if row["section"] == "findings":
            spoken.setdefault(row["volume"], set()).add(row["finding"])
    for name, row in table.items():
        assert spoken.get(name, set()) == {f for f in CT_RATE_18 if row[f] == "1"}


def test_items_cover_the_labels(folder: Path) -> None:
    listed: dict[str, set[str]] = {}
    for row in map(json.loads, (folder / "items.jsonl").read_text().splitlines()):
        assert set(row) == {"volume", "finding", "large", "side", "place", "size_mm", "kind"}
        listed.setdefault(row["volume"], set()).add(row["finding"])
    for row in rows(folder):
        assert listed.get(row["volume"], set()) == {f for f in CT_RATE_18 if row[f] == "1"}


def test_the_marker_says_synthetic_and_names_preset_and_seeds(folder: Path) -> None:
    marker = json.loads((folder / "phantom.json").read_text())
    assert marker["synthetic"] is True
    assert marker["digest"] == DEMO.digest
    assert marker["splits"]["dev"] == {"first_seed": 300_000, "patients": 2}
    assert marker["lesion_codes"]["Lung nodule"] == 10
    assert "No\npatient exists" in (folder / "README.md").read_text()


def test_processes_give_the_same_bytes_as_none(folder: Path, tmp_path: Path) -> None:
    seen = []
    write_folder(
        tmp_path / "again", DEMO, train=4, dev=2, test=2, workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert digest(tmp_path / "again") == digest(folder)
    assert seen == [(k, 8) for k in range(1, 9)]


def test_a_call_that_was_cut_off_goes_on_and_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "cut", []

    def stop_after_three(seed: int, **settings: object) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(seed)
        return patient(seed, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(layouts, "patient", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, DEMO, train=4, dev=2, test=2, workers=1)
    assert not (out / "phantom.json").exists()
    (out / "volumes" / "phantom-000003.nii.gz.1.tmp").write_bytes(b"half")

    def count(seed: int, **settings: object) -> object:
        made.append(seed)
        return patient(seed, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(layouts, "patient", count)
    write_folder(out, DEMO, train=4, dev=2, test=2, workers=1)
    assert made == [0, 1, 2, 3, 300_000, 300_001, 600_000, 600_001]
    assert digest(out) == digest(folder)
    write_folder(out, DEMO, train=4, dev=2, test=2, workers=1)
    assert len(made) == 8


def test_a_folder_of_another_cohort_is_left_alone(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    with pytest.raises(StoreError, match="differs in seed"):
        write_folder(folder, DEMO, train=4, dev=2, test=2, seed=1, workers=1)
    with pytest.raises(StoreError, match="digest, preset"):
        write_folder(folder, STANDARD, train=4, dev=2, test=2, workers=1)
    assert digest(folder) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        write_folder(tmp_path, DEMO, train=1, dev=0, test=0, workers=1)


def test_seeds_of_splits_and_cohorts_never_meet() -> None:
    ranges = [split_seeds(c, s, 300_000) for c in (0, 1) for s in ("train", "dev", "test")]
    ends = sorted((r.start, r.stop) for r in ranges)
    assert all(a[1] <= b[0] for a, b in pairwise(ends))


@pytest.mark.parametrize(
    "arguments",
    [
        {"train": 300_001, "dev": 0, "test": 0},
        {"train": 1, "dev": 0, "test": -1},
        {"train": 1, "dev": 0, "test": 0, "seed": -1},
        {"train": 1, "dev": 0, "test": 0, "masks": ("valid",)},
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        write_folder(tmp_path / "x", DEMO, workers=1, **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
