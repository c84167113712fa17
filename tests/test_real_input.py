"""Real CTs through `t3d prepare` and `t3d screen`: places, sides, tissue values, domain.

Two whole chests come as DICOM and are turned into NIfTI here by SimpleITK; a torso and an
abdomen are NIfTI with label maps. Places are compared with what SimpleITK, nibabel and the DICOM
headers say, tissue values with the index of the test data.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest

from t3d import cli
from t3d.cohort.store import Cohort
from t3d.learn.trained import Trained
from t3d.types import Volume

pytestmark = pytest.mark.real

CHESTS = {
    "chest_A0001": ("chest_lungpetctdx_A0001", "series3_B_j2k"),
    "chest_A0002": ("chest_lungpetctdx_A0002", "series3_B40f_deflated"),
}
BODIES = {"torso_3mm_int32": "torso_3mm_label", "abdomen_3mm_int16": "abdomen_3mm_label"}
NAMES = (*CHESTS, *BODIES)
GRIDS = {  # preparation -> (z, y, x), or None where the spacing is fixed
    "demo": (32, 64, 64),
    "fine": None,
    "paper_direct": (128, 256, 256),
}
ONE = "torso_3mm_int32"  # the volume that is brought onto the paper's grid
CASES = [(name, grid) for grid in ("demo", "fine") for name in NAMES] + [(ONE, "paper_direct")]
FINE_MM = (2.0, 1.0, 1.0)
LESION_SIDE = {"chest_A0001": "left", "chest_A0002": "right"}


def run(*words: str | Path) -> int:
    code = cli.app([str(word) for word in words], exit_on_error=False, result_action="return_value")
    return int(code or 0)


def write_table(source: Path, names: tuple[str, ...]) -> None:
    with (source / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["volume", "split", "report"])
        writer.writerows([name, "test", "No report."] for name in names)


def as_nifti(folder: Path, out: Path) -> None:
    """Turn a DICOM series into NIfTI, by SimpleITK alone."""
    sitk = pytest.importorskip("SimpleITK")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    sitk.WriteImage(sitk.ReadImage(files), str(out), useCompression=False)


@pytest.fixture(scope="module")
def prepared(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source of four CTs and their cohort on three grids."""
    root = tmp_path_factory.mktemp("real")
    source = root / "source"
    for name in ("volumes", "masks"):
        (source / name).mkdir(parents=True)
    for name, (patient, series) in CHESTS.items():
        as_nifti(real_data / "dicom" / patient / series, source / "volumes" / f"{name}.nii")
    nifti = real_data / "nifti" / "ct"
    for name, labels in BODIES.items():
        shutil.copy(nifti / f"{name}.nii.gz", source / "volumes" / f"{name}.nii.gz")
        shutil.copy(nifti / f"{labels}.nii.gz", source / "masks" / f"{name}_organs.nii.gz")
    write_table(source, NAMES)
    for grid in ("demo", "fine"):
        words = ("prepare", source, root / "cohort", "--preparation", grid, "--workers", "0")
        assert run(*words) == 0
    single = root / "single"
    single.mkdir()
    for name in ("volumes", "masks"):
        (single / name).mkdir()
        for file in (source / name).glob(f"{ONE}*"):
            shutil.copy(file, single / name)
    write_table(single, (ONE,))
    words = ("prepare", single, root / "paper", "--preparation", "paper_direct", "--workers", "0")
    assert run(*words) == 0
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on a few phantoms, by the commands; beside its source and cohort."""
    root = tmp_path_factory.mktemp("phantoms")
    counts = ("--train", "60", "--dev", "8", "--test", "12", "--workers", "1")
    assert run("phantom", root / "source", *counts) == 0
    assert run("prepare", root / "source", root / "cohort", "--workers", "0") == 0
    short = ("--set", "num_steps=4", "--set", "batch_size=8")
    assert run("train", "clip", "--cohort", root / "cohort", "--out", root / "run", *short) == 0
    return root


def opened(prepared: Path, grid: str) -> Cohort:
    return Cohort.open(prepared / ("paper" if grid == "paper_direct" else "cohort"))


def source_of(prepared: Path, name: str) -> Path:
    (path,) = (prepared / "source" / "volumes").glob(f"{name}.nii*")
    return path


def point(volume: Volume, *zyx: float) -> np.ndarray:
    return (volume.world_from_voxel @ [*zyx, 1.0])[:3]


# ---- geometry ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Truth:
    """What another reader says of a file: its outer edges in LPS mm and where its mass lies."""

    low_mm: np.ndarray  # (x, y, z)
    high_mm: np.ndarray
    centre_mm: np.ndarray  # centre of mass of HU + 1024, clipped as prepared
    mean_hu: float


def truth_of(values_xyz: np.ndarray, lps_from_xyz: np.ndarray) -> Truth:
    """Work out a Truth in the file's own order of axes."""
    hu = np.clip(values_xyz.astype(np.float64), -1024, 3071)
    weight = hu + 1024.0
    means = [
        (weight.sum(tuple(b for b in range(3) if b != a)) * np.arange(n)).sum() / weight.sum()
        for a, n in enumerate(weight.shape)
    ]
    ends = np.array([[-0.5] * 3, [n - 0.5 for n in weight.shape]])
    corners = np.array([(lps_from_xyz @ [*end, 1.0])[:3] for end in ends])
    return Truth(
        low_mm=corners.min(0),
        high_mm=corners.max(0),
        centre_mm=(lps_from_xyz @ [*means, 1.0])[:3],
        mean_hu=float(hu.mean()),
    )


def by_nibabel(path: Path) -> Truth:
    image = nib.load(path)
    return truth_of(np.asanyarray(image.dataobj), np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)


def by_simpleitk(path: Path) -> Truth:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return truth_of(sitk.GetArrayFromImage(image).transpose(2, 1, 0), matrix)


@pytest.fixture(scope="module")
def truths(prepared: Path) -> dict[str, tuple[Truth, Truth]]:
    """Both readers' words on every file."""
    paths = {name: source_of(prepared, name) for name in NAMES}
    return {name: (by_nibabel(path), by_simpleitk(path)) for name, path in paths.items()}


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_a_prepared_scan_fills_the_box_that_two_other_readers_see(
    prepared: Path, truths: dict[str, tuple[Truth, Truth]], name: str, grid: str
) -> None:
    """A resized grid ends where the file ends; a fixed spacing may be half a voxel off at the end.

    The low corner, where the first voxel begins, is kept in both cases.
    """
    volume = opened(prepared, grid).volume(name, grid)
    low = point(volume, -0.5, -0.5, -0.5)
    high = point(volume, *(n - 0.5 for n in volume.voxels.shape))
    fixed = GRIDS[grid] is None
    assert fixed or volume.voxels.shape == GRIDS[grid]
    # The last voxel may stick out or fall short by half its size, along x, y, z.
    allowed = np.array(FINE_MM[::-1]) / 2 + 0.01 if fixed else np.full(3, 0.01)
    for truth in truths[name]:
        assert low == pytest.approx(truth.low_mm, abs=0.01)
        assert (np.abs(high - truth.high_mm) <= allowed).all()
    if fixed:
        spacing = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)
        assert spacing == pytest.approx(FINE_MM, abs=1e-6)


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_a_prepared_scan_has_its_mass_where_two_other_readers_see_it(
    prepared: Path, truths: dict[str, tuple[Truth, Truth]], name: str, grid: str
) -> None:
    """Voxels have gone along with their places: a flip would move the centre by centimetres."""
    volume = opened(prepared, grid).volume(name, grid)
    weight = volume.voxels.astype(np.float64) + 1024.0
    means = [
        (weight.sum(tuple(b for b in range(3) if b != a)) * np.arange(n)).sum() / weight.sum()
        for a, n in enumerate(weight.shape)
    ]
    centre = point(volume, *means)
    for truth in truths[name]:
        assert centre == pytest.approx(truth.centre_mm, abs=0.5)
        assert volume.voxels.mean() == pytest.approx(truth.mean_hu, abs=3.0)


# ---- tissue values -------------------------------------------------------------------------

LIVER, SPLEEN, AORTA, LUNG = 5, 1, 52, 11
ORGANS = [  # CT, organ, median HU of the index
    ("torso_3mm_int32", LIVER, 46),
    ("torso_3mm_int32", SPLEEN, 35),
    ("torso_3mm_int32", AORTA, 41),
    ("torso_3mm_int32", LUNG, -771),
    ("abdomen_3mm_int16", LIVER, 46),
    ("abdomen_3mm_int16", SPLEEN, 35),
]
ALLOWED_HU = {"fine": 3.0, "demo": 6.0, "paper_direct": 3.0}
ORGAN_CASES = [(*organ, grid) for organ in ORGANS for grid in ("demo", "fine")]
ORGAN_CASES += [(*organ, "paper_direct") for organ in ORGANS if organ[0] == ONE]
TWIN_CASES = [*((name, "demo") for name in BODIES), (ONE, "paper_direct")]


def organ_of(prepared: Path, name: str, grid: str, organ: int) -> np.ndarray:
    """HU of an organ on the prepared grid."""
    cohort = opened(prepared, grid)
    labels = cohort.mask(name, "organs", grid)
    assert labels is not None
    return cohort.volume(name, grid).voxels[labels == organ]


@pytest.mark.parametrize(
    ("name", "organ", "median", "grid"),
    # The strip of lung is a few voxels thick; the demo's slices of 10.5 mm are thicker. What a
    # filter makes of it is the next test's business.
    [case for case in ORGAN_CASES if case[1] != LUNG or case[3] != "demo"],
)
def test_organs_keep_the_values_of_the_index(
    prepared: Path, name: str, organ: int, median: int, grid: str
) -> None:
    allowed = 60.0 if organ == LUNG else ALLOWED_HU[grid]
    found = np.median(organ_of(prepared, name, grid, organ))
    assert found == pytest.approx(median, abs=allowed)


@pytest.mark.parametrize(("name", "grid"), TWIN_CASES)
def test_organs_change_by_the_filter_alone(prepared: Path, name: str, grid: str) -> None:
    """Their medians are those of the file, filtered by a slow twin in float64."""
    paths = source_of(prepared, name), prepared / "source" / "masks" / f"{name}_organs.nii.gz"
    hu, labels = (
        np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj).transpose(2, 1, 0)
        for path in paths
    )
    values, labels = np.clip(hu[:, ::-1, ::-1], -1024.0, 3071.0), labels[:, ::-1, ::-1]
    for axis, m in enumerate(opened(prepared, grid).shape(name, grid)):
        n = values.shape[axis]
        values = np.moveaxis(np.tensordot(averaging(n, m), values, (1, axis)), 0, axis)
        labels = labels.take([min(n - 1, int((j + 0.5) * n / m)) for j in range(m)], axis)
    for organ in (o for n, o, _ in ORGANS if n == name):
        found = organ_of(prepared, name, grid, organ)
        assert found.size == (labels == organ).sum()
        assert np.median(found) == pytest.approx(np.median(values[labels == organ]), abs=0.51)


def averaging(n: int, m: int) -> np.ndarray:
    """Weights (m, n): overlap of old and new voxels, or linear where the new ones are smaller."""
    weights = np.zeros((m, n))
    for j in range(m):
        low, high = j * n / m, (j + 1) * n / m
        middle = min(max((low + high) / 2 - 0.5, 0.0), n - 1.0)
        for k in range(n):
            overlap = max(0.0, min(high, k + 1) - max(low, k)) / (high - low)
            weights[j, k] = overlap if m <= n else max(0.0, 1.0 - abs(middle - k))
    return weights


@pytest.mark.parametrize(("name", "grid"), [case for case in CASES if case[0] in BODIES])
def test_organs_keep_their_volume(prepared: Path, name: str, grid: str) -> None:
    """Millilitres of the liver, the file's own by nibabel."""
    cohort = opened(prepared, grid)
    labels = cohort.mask(name, "organs", grid)
    assert labels is not None
    matrix = cohort.world_from_voxel(name, grid)
    found = (labels == LIVER).sum() * abs(np.linalg.det(matrix[:3, :3])) / 1000.0
    image = nib.load(prepared / "source" / "masks" / f"{name}_organs.nii.gz")
    stored = (np.asanyarray(image.dataobj) == LIVER).sum()
    assert found == pytest.approx(stored * abs(np.linalg.det(image.affine)) / 1000.0, rel=0.02)


# ---- sides ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lesion:
    """The boxes of one annotated lesion."""

    low_mm: np.ndarray  # LPS, around all boxes
    high_mm: np.ndarray
    mean_hu: float  # between those corners, as the DICOM files say


def lesion_of(real_data: Path, name: str) -> Lesion:
    """Read boxes, headers and pixels by pydicom; the key is the instance, not the file's name."""
    pydicom = pytest.importorskip("pydicom")
    patient, series = CHESTS[name]
    folder = real_data / "dicom" / patient
    boxes = {path.stem: box_of(path) for path in (folder / "annotations").glob("*.xml")}
    x0, y0 = (min(box[k] for box in boxes.values()) for k in (0, 1))
    x1, y1 = (max(box[k] for box in boxes.values()) for k in (2, 3))
    corners, means = [], []
    for path in sorted((folder / series).glob("*.dcm")):
        data = pydicom.dcmread(path)
        if data.SOPInstanceUID not in boxes:
            continue
        del boxes[data.SOPInstanceUID]
        assert list(data.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        x_mm, y_mm, z_mm = map(float, data.ImagePositionPatient)
        down, across = map(float, data.PixelSpacing)
        corners += [(x_mm + x * across, y_mm + y * down, z_mm) for x, y in ((x0, y0), (x1, y1))]
        hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        means.append((z_mm, np.clip(hu[y0 : y1 + 1, x0 : x1 + 1], -1024, 3071).mean()))
    assert not boxes, "every box has its slice"
    z_mm, hu = np.array(sorted(means)).T
    return Lesion(
        low_mm=np.min(corners, axis=0),
        high_mm=np.max(corners, axis=0),
        mean_hu=float(np.trapezoid(hu, z_mm) / (z_mm[-1] - z_mm[0])),
    )


def box_of(path: Path) -> tuple[int, int, int, int]:
    """Columns and rows of a VOC box: xmin, ymin, xmax, ymax."""
    found = ElementTree.parse(path).getroot().find("object/bndbox")
    assert found is not None
    x0, y0, x1, y1 = (int(found.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
    return x0, y0, x1, y1


@pytest.fixture(scope="module")
def lesions(real_data: Path) -> dict[str, Lesion]:
    return {name: lesion_of(real_data, name) for name in CHESTS}


def inside(volume: Volume, lesion: Lesion) -> tuple[slice, slice, slice]:
    """The voxels whose centres lie in the lesion's box, by the inverse of world_from_voxel."""
    back = np.linalg.inv(volume.world_from_voxel)
    ends = np.array([(back @ [*mm, 1.0])[:3] for mm in (lesion.low_mm, lesion.high_mm)])
    low, high = np.ceil(ends.min(0)).astype(int), np.floor(ends.max(0)).astype(int) + 1
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


@pytest.mark.parametrize("grid", ["demo", "fine"])
@pytest.mark.parametrize("name", CHESTS)
def test_the_lesion_lies_on_its_side_of_the_prepared_scan(
    prepared: Path, lesions: dict[str, Lesion], name: str, grid: str
) -> None:
    volume = opened(prepared, grid).volume(name, grid)
    box = inside(volume, lesions[name])
    for place, size in zip(box, volume.voxels.shape, strict=True):
        assert 0 <= place.start < place.stop <= size
    middle = volume.voxels.shape[2] / 2  # axes run to the patient's left
    side = "left" if box[2].start >= middle else "right" if box[2].stop <= middle else "both"
    assert side == LESION_SIDE[name]


@pytest.mark.parametrize("name", CHESTS)
def test_the_lesion_is_there_and_not_on_the_other_side(
    prepared: Path, lesions: dict[str, Lesion], name: str
) -> None:
    """Its mean in HU is that of the DICOM pixels; the mirrored place looks otherwise."""
    volume = opened(prepared, "fine").volume(name, "fine")
    box = inside(volume, lesions[name])
    found = volume.voxels[box].mean()
    mirrored = volume.voxels[:, :, ::-1][box].mean()
    assert found == pytest.approx(lesions[name].mean_hu, abs=3.0)
    assert abs(mirrored - lesions[name].mean_hu) > 30.0


# ---- the commands --------------------------------------------------------------------------


def test_preparing_real_scans_again_has_nothing_to_do(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = prepared / "cohort"
    before = Cohort.open(cohort).digest
    for grid in ("demo", "fine"):
        words = ("prepare", prepared / "source", cohort, "--preparation", grid, "--workers", "0")
        capsys.readouterr()
        assert run(*words, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["done"], told["there_already"], told["failed"]) == (0, len(NAMES), {})
    assert Cohort.open(cohort).digest == before
    assert Cohort.open(cohort).failures() == ()


@pytest.fixture(scope="module")
def screened(prepared: Path, trained: Path) -> dict[str, dict[str, Any]]:
    """What `t3d screen` writes about each real scan and about one new phantom."""
    scans = {name: source_of(prepared, name) for name in NAMES}
    scans["phantom"] = min((trained / "source" / "volumes").glob("phantom-6*.nii.gz"))
    told = {}
    for name, scan in scans.items():
        out = prepared / "screened" / name
        assert run("screen", scan, "--checkpoint", trained / "run", "--out", out) == 0
        told[name] = json.loads((out / "screen.json").read_text(encoding="utf-8"))
        assert (out / "screen.png").stat().st_size > 10_000
    return told


@pytest.mark.parametrize("name", NAMES)
def test_a_real_scan_is_said_to_be_out_of_a_phantom_checkpoints_domain(
    screened: dict[str, dict[str, Any]], name: str
) -> None:
    told = screened[name]
    assert told["in_domain"] is False
    assert told["domain_score"] > 1.5
    # The size in mm alone would be a weak reason: the voxels are unlike any phantom's too.
    assert any(" x the limit" in reason for reason in told["reasons"])
    assert not any("mirrored" in reason for reason in told["reasons"])


def test_screening_names_a_depth_inside_the_scan(
    prepared: Path, screened: dict[str, dict[str, Any]]
) -> None:
    for name in NAMES:
        volume = opened(prepared, "demo").volume(name, "demo")
        low, high = point(volume, -0.5, 0, 0)[2], point(volume, 31.5, 0, 0)[2]
        depths = [row["z_mm"] for row in screened[name]["findings"]]
        assert len(depths) == 18
        assert all(low < depth < high for depth in depths)


def test_the_person_is_told_not_to_use_the_scores(
    prepared: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = prepared / "told"
    scan = source_of(prepared, "abdomen_3mm_int16")
    capsys.readouterr()
    assert run("screen", scan, "--checkpoint", trained / "run", "--out", out) == 0
    said = capsys.readouterr().out
    assert "OUT OF DOMAIN: do not use these scores" in said
    assert "z size 90 mm, trained on" in said


def test_new_phantoms_are_in_the_same_checkpoints_domain(
    trained: Path, screened: dict[str, dict[str, Any]]
) -> None:
    """Otherwise "out of domain" would be said of everything."""
    model, cohort = Trained.load(trained / "run"), Cohort.open(trained / "cohort")
    inside_domain = [
        model.domain(cohort.volume(row.volume_ids[0])).inside for row in cohort.studies("test")
    ]
    assert sum(inside_domain) >= 11
    assert len(inside_domain) == 12
    assert screened["phantom"]["in_domain"] is inside_domain[0]
    assert isinstance(screened["phantom"]["reasons"], list)


# ---- every task ----------------------------------------------------------------------------

WORDS = {name: f"A lesion in the {side} lung." for name, side in LESION_SIDE.items()}


@pytest.fixture(scope="module")
def judged(prepared: Path, trained: Path, lesions: dict[str, Lesion]) -> Path:
    """An evaluation of the two chests: their lesion as a finding, its boxes as a sentence."""
    root = prepared / "judged"
    (root / "source" / "volumes").mkdir(parents=True)
    with (root / "source" / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["volume", "patient", "split", "findings", "impression", "Lung nodule"])
        writer.writerows([name, name, "test", text, "", 1] for name, text in WORDS.items())
    rows = []
    for name, text in WORDS.items():
        shutil.copy(source_of(prepared, name), root / "source" / "volumes")
        low, high = (float(edge[2]) for edge in (lesions[name].low_mm, lesions[name].high_mm))
        told = {"volume": name, "section": "findings", "start": 0, "end": len(text)}
        rows.append(told | {"finding": "Lung nodule", "z_mm": [(low + high) / 2, low, high]})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "source" / "positions.jsonl").write_text(lines, encoding="utf-8")
    assert run("prepare", root / "source", root / "cohort", "--workers", "0") == 0
    out = ("--cohort", root / "cohort", "--out", root / "out")
    assert run("evaluate", trained / "run", *out) == 0
    return root


def test_two_chests_go_through_every_task_and_what_they_cannot_tell_is_named(judged: Path) -> None:
    results = json.loads((judged / "out" / "result.json").read_text(encoding="utf-8"))
    ran = {row["task"] for row in results if row["metrics"]}
    assert {"retrieval", "neighbours", "localization"} <= ran
    lacking = {row["task"]: " ".join(row["excluded"]) for row in results if not row["metrics"]}
    assert set(lacking) == {"zero_shot", "calibration", "probe", "pools"}
    for task in ("zero_shot", "calibration"):
        assert "split 'dev' has no studies" in lacking[task]
    assert "split 'train'" in lacking["probe"]
    assert "32" in lacking["pools"]  # more than two pairs are needed
    page = (judged / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not measured" in page
    assert "split &#39;dev&#39; has no studies" in page


def test_lesion_boxes_are_localized_within_their_scans(
    judged: Path, lesions: dict[str, Lesion]
) -> None:
    """Out of domain: whether the guess is near is measured, not expected."""
    told = json.loads((judged / "out" / "localization.json").read_text(encoding="utf-8"))
    assert len(told) == 2
    cohort = Cohort.open(judged / "cohort")
    of_volume = {
        s.volume_ids[0]: name
        for name in CHESTS
        for s in cohort.studies("test")
        if cohort.report(s.study_id).findings == WORDS[name]
    }  # type: ignore[union-attr]
    for row in told:
        lesion = lesions[of_volume[row["volume_id"]]]
        assert row["z_mm"][1:] == pytest.approx([lesion.low_mm[2], lesion.high_mm[2]])
        ends = sorted(row["centres_mm"])[:: len(row["centres_mm"]) - 1]
        assert ends[0] <= row["guess_mm"] <= ends[1]
        assert ends[0] <= row["z_mm"][0] <= ends[1]
        assert len(row["curve"]) == len(row["centres_mm"]) > 1
    results = json.loads((judged / "out" / "result.json").read_text(encoding="utf-8"))
    (found,) = (row for row in results if row["task"] == "localization")
    value = {metric["name"]: metric["value"] for metric in found["metrics"]}
    gaps = [abs(row["guess_mm"] - row["z_mm"][0]) for row in told]
    assert value["error_mm"] == pytest.approx(np.mean(gaps), abs=1e-6)
    assert found["counts"]["sentences"] == 2


def test_nothing_of_the_scans_names_reaches_an_evaluation(judged: Path, real_data: Path) -> None:
    uids = {path.stem for path in real_data.rglob("chest_lungpetctdx_*/annotations/*.xml")}
    for path in (judged / "out").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not any(uid in text for uid in uids)
            assert "Lung_Dx" not in text
