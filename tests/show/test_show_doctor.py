"""The page, text, JSON and CSV of the doctor: letters against geometry, nothing from outside."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from t3d.cohort.audit import Audit, AuditRow, audit
from t3d.ct import nifti
from t3d.ct.doctor import HISTOGRAM_BINS, Examination, examine
from t3d.ct.geometry import ras_from_ijk
from t3d.phantom.patient import patient
from t3d.phantom.presets import STANDARD
from t3d.show.doctor import audit_csv, audit_json, audit_page, audit_text
from t3d.show.mosaic import CHART, OPPOSITE, View, histogram, views
from t3d.types import Volume

WORLD = np.array([[0, 0, 3.0, -90], [0, 4.0, 0, -80], [5.0, 0, 0, -200], [0, 0, 0, 1.0]])
TOWARDS = {  # LPS unit vectors
    "L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1),
    "I": (0, 0, -1),
}  # fmt: skip


def marked(letter: str, world: NDArray[np.float64] = WORLD) -> Volume:
    """A grey block with a bright end at one side of the world, found through the affine only."""
    voxels = np.full((30, 40, 60), 0, dtype=np.int16)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in voxels.shape), indexing="ij"), axis=-1)
    place = index @ world[:3, :3].T @ np.array(TOWARDS[letter])
    voxels[place > np.quantile(place, 0.85)] = 400
    return Volume(volume_id="m", voxels=voxels, world_from_voxel=world)


def pixels(view: View) -> NDArray[np.float64]:
    """Decode the picture a view carries."""
    data = base64.b64decode(view.uri.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)), dtype=np.float64)


def letter_at_the_bright_end(view: View) -> str:
    """Read the letter that stands where the picture is brightest; "" = nowhere in particular."""
    grey = pixels(view)
    grey -= grey.min()
    rows, columns = (np.linspace(-1, 1, n) for n in grey.shape)
    x = float((grey.sum(axis=0) * columns).sum() / max(grey.sum(), 1.0))
    y = float((grey.sum(axis=1) * rows).sum() / max(grey.sum(), 1.0))
    if max(abs(x), abs(y)) < 0.05:
        return ""
    wanted = (view.width * (0.5 + 0.5 * np.sign(x)), view.frame / 2)
    if abs(y) > abs(x):
        wanted = (view.width / 2, view.frame * (0.5 + 0.5 * np.sign(y)))
    near = [np.hypot(at.x - wanted[0], at.y - wanted[1]) for at in view.letters]
    return view.letters[int(np.argmin(near))].text


# ---- letters -------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", TOWARDS)
def test_a_letter_stands_at_the_side_of_the_world_it_names(letter: str) -> None:
    found = [letter_at_the_bright_end(view) for view in views(examine(marked(letter)))]
    shown = [told for told in found if told]
    assert shown == [letter, letter]  # each side is seen in two of three planes


@pytest.mark.parametrize("letter", ["L", "P", "S"])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1)])
def test_letters_hold_for_every_storage_order(
    letter: str, signs: tuple[int, int, int], tmp_path: Path
) -> None:
    import nibabel as nib

    volume = marked(letter)
    turn = np.diag([*signs, 1.0])
    turn[:3, 3] = [0 if s > 0 else n - 1 for s, n in zip(signs, volume.voxels.shape, strict=True)]
    stored = volume.voxels[tuple(slice(None, None, s) for s in signs)]
    image = nib.Nifti1Image(stored.transpose(2, 1, 0), ras_from_ijk(WORLD @ turn))
    nib.save(image, tmp_path / "m.nii")
    with nifti.open_nifti(tmp_path / "m.nii") as slices:
        found = [letter_at_the_bright_end(view) for view in views(examine(slices))]
    assert [told for told in found if told] == [letter, letter]


def test_planes_have_the_letters_of_a_reading_room() -> None:
    told = {
        view.alt.split()[0]: [at.text for at in view.letters]
        for view in views(examine(marked("L")))
    }
    assert told == {
        "axial": ["R", "L", "A", "P"],
        "coronal": ["R", "L", "S", "I"],
        "sagittal": ["A", "P", "S", "I"],
    }
    assert all(OPPOSITE[OPPOSITE[letter]] == letter for letter in TOWARDS)


def test_a_view_keeps_millimetres_and_a_thin_one_stands_in_a_frame() -> None:
    axial, coronal, _ = views(examine(marked("L")))
    assert (axial.width, axial.height) == (180, 160)
    assert (coronal.width, coronal.height) == (180, 150)
    thin = replace(marked("L"), voxels=marked("L").voxels[:2])
    coronal = views(examine(thin))[1]
    assert coronal.height == 10
    assert coronal.frame > 40
    assert all(0 < at.y <= coronal.frame for at in coronal.letters)


# ---- histogram -----------------------------------------------------------------------------


def test_bars_stand_for_the_square_root_of_counts() -> None:
    counts = [0] * HISTOGRAM_BINS
    counts[3], counts[10] = 100, 25
    drawn = histogram(replace(examine(marked("L")), histogram=tuple(counts)))
    bars = re.findall(r"M([\d.]+),130v-([\d.]+)", drawn.path)
    full = CHART[1] - 30
    width = CHART[0] / HISTOGRAM_BINS
    assert [(float(x), float(h)) for x, h in bars] == [
        (pytest.approx(3 * width, abs=0.06), full),
        (pytest.approx(10 * width, abs=0.06), full / 2),
    ]


# ---- text, JSON, CSV, page -----------------------------------------------------------------


@cache
def turned() -> Examination:
    """A phantom whose sides are swapped."""
    volume = patient(5, preset=STANDARD).volume
    return examine(replace(volume, voxels=np.ascontiguousarray(volume.voxels[..., ::-1])))


def made(*rows: AuditRow) -> Audit:
    """An audit of given rows."""
    counts: dict[str, int] = {}
    for row in rows:
        for reason in row.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    scans = [row for row in rows if row.examination]
    symptoms = {f.code: 1 for row in scans if row.examination for f in row.examination.findings}
    return Audit(
        subject="files",
        rows=rows,
        counts=counts,
        symptoms=symptoms,
        num_scans=len(rows),
        num_studies=len(rows),
        manifest="0" * 64,
    )


BAD = AuditRow(
    volume_id="b<b>",
    study_id="s1",
    split="train",
    reasons=("unreadable",),
    message="b: the file ends before its last voxel\n  expected: 9 bytes\n  fix: copy it again",
)


def ill() -> AuditRow:
    return AuditRow(
        volume_id="ill", study_id="s2", reasons=("left_right_flipped",), examination=turned()
    )


def test_the_text_of_one_scan_says_what_how_and_what_to_do() -> None:
    text = audit_text(made(ill()))
    lines = text.splitlines()
    assert lines[0] == "scan ill"
    assert lines[1].startswith("error: left_right_flipped: the right side lies where")
    assert lines[2].startswith("  how we know: ")
    assert "liver" in lines[2]
    assert lines[3].startswith("  what would fix it: ")
    assert "situs inversus" in lines[3]
    assert any("left-right: flipped" in line for line in lines)


def test_a_scan_without_findings_says_so() -> None:
    row = AuditRow(volume_id="well", examination=replace(turned(), findings=()))
    assert "nothing found" in audit_text(made(row))


def test_the_text_of_a_refused_scan_is_its_message() -> None:
    text = audit_text(made(BAD))
    assert "refused (unreadable)" in text
    assert "  expected: 9 bytes" in text


def test_the_text_of_several_lists_checks_counts_and_files() -> None:
    text = audit_text(made(BAD, ill()))
    assert text.startswith("files: 2 scans of 2 studies")
    assert "  1 ids are unique; rows have files and files have rows: holds" in text
    assert f"10 hash over volume, patient, split and text: {'0' * 64}" in text
    assert "  unreadable: 1" in text
    assert "b<b>: unreadable\n  b: the file ends before its last voxel" in text


def test_the_json_is_plain_and_whole() -> None:
    told = json.loads(json.dumps(audit_json(made(BAD, ill()))))
    assert told["counts"] == {"unreadable": 1, "left_right_flipped": 1}
    assert [check["number"] for check in told["checks"]] == list(range(1, 11))
    assert told["sound"] is False
    row = told["rows"][1]
    assert row["findings"][0]["code"] == "left_right_flipped"
    assert set(row["findings"][0]) == {"code", "severity", "found", "evidence", "fix"}
    assert row["facts"]["left-right"].startswith("flipped")
    assert "findings" not in told["rows"][0]


def test_the_csv_has_one_row_a_file() -> None:
    rows = list(csv.DictReader(io.StringIO(audit_csv(made(BAD, ill())))))
    assert [row["volume"] for row in rows] == ["b<b>", "ill"]
    assert rows[0]["message"] == BAD.message
    assert rows[1]["symptoms"].split() == [f.code for f in turned().findings]


def test_the_page_is_whole_escaped_and_asks_for_nothing(tmp_path: Path) -> None:
    path = audit_page(made(BAD, ill()), tmp_path)
    page = path.read_text("utf-8")
    assert path.name == "report.html"
    assert "b&lt;b&gt;" in page
    assert "b<b>" not in page
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page) == []
    assert page.count("data:image/png;base64,") == 3
    for word in ("left_right_flipped", "how we know", "what would fix it", "situs inversus"):
        assert word in page
    assert "2 scans: 1 with errors, 1 not opened" in page
    assert "expected: 9 bytes; fix: copy it again" in page


def test_the_page_of_one_scan_has_no_tables_of_counts(tmp_path: Path) -> None:
    page = audit_page(made(ill()), tmp_path / "one.html").read_text("utf-8")
    assert "Ten checks" not in page
    assert "<details open>" in page


def test_a_scan_that_lost_its_pictures_is_listed_but_not_drawn(tmp_path: Path) -> None:
    dropped = replace(ill(), examination=replace(turned(), planes=()))
    page = audit_page(made(BAD, dropped), tmp_path).read_text("utf-8")
    assert "data:image/png" not in page
    assert "ill" in page


def test_numbers_that_are_no_hu_are_drawn_over_their_own_range() -> None:
    volume = marked("L")
    labels = (volume.voxels > 0).astype(np.int16) * 3
    view = views(examine(replace(volume, voxels=labels)))[0]
    assert "all values, 0 to 3" in view.caption
    assert set(np.unique(pixels(view))) == {0, 255}


def test_from_a_file_to_the_page(tmp_path: Path) -> None:
    volume = patient(2).volume
    nifti.write(tmp_path / "a.nii.gz", volume.voxels[:, ::-1].copy(), volume.world_from_voxel)
    found = audit((tmp_path / "a.nii.gz",), workers=0)
    page = audit_page(found, tmp_path / "a.html").read_text("utf-8")
    assert "front_back_flipped" in page
    assert "1 scan: 1 with errors" in page
