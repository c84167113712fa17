"""Phantoms as DICOM: other readers find the same voxels at the same places, and all identifiers."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest

from t3d.ct.dicom import choose, list_series, open_dicom
from t3d.ct.geometry import letters
from t3d.ct.slices import read_whole
from t3d.errors import RecipeError, SourceError, StoreError
from t3d.phantom.dicom import Identity, SeriesStyle, WrittenSeries, write_archive, write_dicom
from t3d.phantom.dicom_file import SYNTAXES
from t3d.phantom.layouts import split_seeds
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO
from t3d.types import Volume

PAIRS = ("LR", "PA", "SI")
ORIENTATIONS = [
    "".join(axes) for pairs in permutations(PAIRS) for axes in product(*pairs)
]  # 48: 24 planes, each with instance numbers rising either way


def small(high: int = 3071, shape: tuple[int, int, int] = (8, 10, 12)) -> Volume:
    """A volume without any symmetry."""
    rng = np.random.default_rng(4)
    matrix = np.array([[0, 0, 1.5, -7], [0, 2, 0, 11], [3, 0, 0, -23.5], [0, 0, 0, 1.0]])
    voxels = rng.integers(-1024, high + 1, shape).astype(np.int16)
    return Volume(volume_id="phantom-000042", voxels=voxels, world_from_voxel=matrix, steps=())


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def right_handed(name: str) -> bool:
    turn = np.zeros((3, 3))
    for column, letter in enumerate(name):
        row = next(i for i, pair in enumerate(PAIRS) if letter in pair)
        turn[row, column] = 1.0 if letter in "LPS" else -1.0
    return bool(np.linalg.det(turn) > 0)


# ---- geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ORIENTATIONS if right_handed(name)])
def test_simpleitk_finds_every_voxel_at_its_place_in_every_orientation(
    tmp_path: Path, name: str
) -> None:
    itk = pytest.importorskip("SimpleITK")
    volume = small()
    write_dicom(tmp_path, volume, style=SeriesStyle(letters=name))
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = itk.DICOMOrient(reader.Execute(), "LPS")
    np.testing.assert_array_equal(itk.GetArrayFromImage(image), volume.voxels)
    np.testing.assert_allclose(image.GetOrigin(), (-7, 11, -23.5), atol=1e-5)
    np.testing.assert_allclose(image.GetSpacing(), (1.5, 2, 3), atol=1e-5)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_our_door_finds_every_voxel_at_its_place_in_every_orientation(
    tmp_path: Path, name: str
) -> None:
    volume = small()
    files = write_dicom(tmp_path, volume, style=SeriesStyle(letters=name)).files
    with open_dicom(files, name="x") as slices:
        back = read_whole(slices)
        assert letters(slices.orientation)[:2] == name[:2]
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.world_from_voxel, volume.world_from_voxel, atol=1e-5)


def test_the_instances_that_are_told_are_those_in_the_files(tmp_path: Path) -> None:
    style = SeriesStyle(letters="LPI", first_instance=101)
    written = write_dicom(tmp_path, small(), style=style)
    assert [number for number, _ in written.instances] == list(range(101, 109))
    assert [at[2] for _, at in written.instances] == [-2.5 - 3 * k for k in range(8)]
    for path, (number, at) in zip(written.files, written.instances, strict=True):
        dataset = pydicom.dcmread(path)
        assert dataset.InstanceNumber == number
        assert tuple(map(float, dataset.ImagePositionPatient)) == at
    names = [path.name for path in written.files]
    assert sorted(names) not in (names, names[::-1])


def test_a_row_runs_along_the_first_letter_and_a_column_along_the_second(tmp_path: Path) -> None:
    volume = small()
    written = write_dicom(tmp_path, volume, style=SeriesStyle(letters="PIR"))
    dataset = pydicom.dcmread(written.files[0])
    assert list(map(float, dataset.ImageOrientationPatient)) == [0, 1, 0, 0, 0, -1]
    assert list(map(float, dataset.PixelSpacing)) == [3, 2]  # between rows, between columns
    assert (dataset.Rows, dataset.Columns) == (8, 10)
    # The leftmost sagittal plane, from the top down.
    np.testing.assert_array_equal(dataset.pixel_array - 1024.0, volume.voxels[::-1, :, -1])


# ---- pixels and bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("high", [3071, 30000])
def test_every_syntax_and_both_depths_lose_nothing(tmp_path: Path, syntax: str, high: int) -> None:
    volume = small(high, (8, 33, 40))
    written = write_dicom(tmp_path, volume, style=SeriesStyle(letters="LPS", syntax=syntax))
    first = pydicom.dcmread(written.files[0])
    assert first.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert (first.BitsStored, first.PixelRepresentation) == ((12, 0) if high == 3071 else (16, 1))
    with open_dicom(written.files, name="x") as slices:
        np.testing.assert_array_equal(read_whole(slices).voxels, volume.voxels)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_dicom(tmp_path / place, small(), style=SeriesStyle(syntax="jpeg_ls"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    write_dicom(tmp_path / "c", small(), identity=Identity.of(1), style=SeriesStyle())
    assert not set(digest(tmp_path / "a")) & set(digest(tmp_path / "c"))


@pytest.mark.parametrize(
    "told", [{"letters": "LPP"}, {"letters": "LP"}, {"letters": "lps"}, {"syntax": "jpeg"}]
)
def test_axes_or_syntaxes_that_there_are_not_are_refused(told: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="one each of SI, PA, LR"):
        SeriesStyle(**told)


def test_values_that_16_bits_do_not_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="16 bits"):
        write_dicom(tmp_path, small(32767), style=SeriesStyle(intercept=-1024))


def test_slices_too_small_for_jpeg_2000_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="10 x 12 pixels as JPEG 2000"):
        write_dicom(tmp_path, small(), style=SeriesStyle(syntax="jpeg_2000"))


@pytest.mark.parametrize(
    ("module", "syntax"), [("pydicom", "explicit"), ("jpeg_ls", "jpeg_ls"), ("rle.utils", "rle")]
)
def test_a_missing_package_is_an_error_that_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, syntax: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"pip install 't3d\[dicom\]'"):
        write_dicom(tmp_path, small(), style=SeriesStyle(syntax=syntax))


# ---- identifiers ---------------------------------------------------------------------------


def test_identifiers_are_valid_distinct_and_repeatable() -> None:
    made = [Identity.of(seed) for seed in range(200)]
    for one in made:
        assert pydicom.uid.UID(one.study_uid).is_valid
        assert len(one.accession) <= 16
        assert one.birth_date.isdigit()
        assert int(one.study_date[:4]) - int(one.birth_date[:4]) == one.age
    for keyword in ("patient_id", "study_uid", "accession", "patient_name"):
        assert len({getattr(one, keyword) for one in made}) == 200
    assert made[7] == Identity.of(7)


def test_secrets_stand_in_the_files_and_in_no_repr(tmp_path: Path) -> None:
    identity = Identity.of(5)
    written = write_dicom(tmp_path, small(), identity=identity)
    content = written.files[0].read_bytes()
    assert all(secret.encode() in content for secret in identity.secrets)
    shown = repr(identity) + repr(written)
    assert not [secret for secret in (*identity.secrets, written.series_uid) if secret in shown]


# ---- an archive ----------------------------------------------------------------------------

STYLES = (SeriesStyle(syntax="rle"), SeriesStyle(letters="LIP", first_instance=5))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[WrittenSeries]]]:
    out = tmp_path_factory.mktemp("hospital") / "archive"
    written = write_archive(
        out,
        DEMO,
        patients=3,
        styles=STYLES,
        second_kernel=True,
        localizer=True,
        dose_report=True,
    )
    return out, [list(study.series) for study in written]


def test_an_archive_holds_the_patients_of_the_folder_of_the_same_seed(
    hospital: tuple[Path, list[list[WrittenSeries]]],
) -> None:
    for seed, series in zip(split_seeds(0, "train", 3), hospital[1], strict=True):
        volume = patient(seed, preset=DEMO).volume
        with open_dicom(series[0].files, name="x") as slices:
            back = read_whole(slices)
        np.testing.assert_array_equal(back.voxels, volume.voxels)
        np.testing.assert_allclose(back.world_from_voxel, volume.world_from_voxel, atol=1e-5)


def test_each_examination_has_its_series_and_the_right_one_is_chosen(
    hospital: tuple[Path, list[list[WrittenSeries]]],
) -> None:
    out, studies = hospital
    folders = sorted((out / "dicom").iterdir())
    assert len(folders) == 3
    for folder in folders:
        listing = list_series(sorted(p for p in folder.rglob("*") if p.is_file()))
        kinds = sorted((s.modality, s.series_number, len(s.frames) > 1) for s in listing.series)
        assert kinds == [("CT", 1, False), ("CT", 2, True), ("CT", 3, True), ("SR", 501, False)]
        for kernel in ("B30f", "B60f"):
            assert choose(listing, kernel=kernel).series.kernel == kernel
    assert [s.style.kernel for s in studies[0]][:2] in (["B30f", "B60f"], ["B60f", "B30f"])


def test_the_second_kernel_shows_the_same_patient_with_other_noise(
    hospital: tuple[Path, list[list[WrittenSeries]]],
) -> None:
    volumes = []
    for series in hospital[1][0][:2]:
        with open_dicom(series.files, name="x") as slices:
            volumes.append(read_whole(slices).voxels.astype(float))
    assert not np.array_equal(*volumes)
    assert np.corrcoef(volumes[0].ravel(), volumes[1].ravel())[0, 1] > 0.98


def test_reports_and_truth_are_keyed_by_the_accession_number_of_the_files(
    hospital: tuple[Path, list[list[WrittenSeries]]],
) -> None:
    out, studies = hospital
    with (out / "reports.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["accession"]: row for row in csv.DictReader(file)}
    lines = (out / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    truths = {row["accession"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(truths) == 3
    for seed, series in zip(split_seeds(0, "train", 3), studies, strict=True):
        accession = pydicom.dcmread(series[0].files[0]).AccessionNumber
        made = patient(seed, preset=DEMO)
        assert rows[accession]["findings"] == made.report.report.findings
        assert rows[accession]["impression"] == made.report.report.impression
        truth = truths[accession]
        assert truth["labels"] == made.labels
        assert [s["number"] for s in truth["series"]] == [2, 3, 1]
        told = [[n, *at] for n, at in series[0].instances]
        np.testing.assert_allclose(truth["series"][0]["instances"], told, atol=1e-6)
        assert len(truth["sentences"]) == len(made.report.sentences)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        write_archive(tmp_path, DEMO, patients=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
