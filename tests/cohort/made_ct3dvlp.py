"""CT-3DVLP as it lies on a disk: three fabricated trees of synthetic patients, with every trap.

Volumes are phantoms of 32 x 64 x 64 voxels, and each report tells what is in its volume, so that
a model can learn from them; what a trap spoils is spoilt on purpose. Preparation `demo` keeps the
voxels of such a phantom as they are, so `SEED_OF` says what the volume of each study must hold.

Texts are English, as in the corpora: CT-RATE and BIMCV-R give translations and no other language.

CT-RATE has all of `made_ct_rate.VOLUMES` (sentinels, kernels as lists, no age, a file without a
row, a row without a file, names known to be broken, heads), and in either release:

    train_8_a     the text of train_1_a in capitals        train_19, _20  heads, spelt otherwise
    train_9_a     the text of a study of BIMCV-R           train_21_aa    a scan past "z"
    train_10_a    stored values in train_fixed             train_22 - 24  v1 of three makers
    train_11_a    HU in train                              train_25_a     v1, patient prone
    train_12_a    both releases                            train_26_a     six slices
    train_13_a    constant                                 train_27_a     three time points
    train_14_a    axes stored in another order             train_29_a     flat affine
    train_15_a    two rows that differ                     train_30_a     blank and "nan" as texts
    train_16_a    labels that differ by reconstruction     notes.nii.gz   no name of CT-RATE
    train_17_a    v1 without a row of metadata             train_1_b_1    a second file of that name
    train_18_a    a file cut short

INSPECT has all of `made_inspect` (no time, suffixes, one impression with two images and two with
one, four axes, flat affine, two texts, two files, no image, no split, marks of de-identification,
a table of an earlier date), and PE00aa25 with a blank impression.

BIMCV-R has all of `made_bimcv_r` (foreign paths, no patient in the name, runs with one and with two
reports, two folders, rows that differ, headings), blank and "nan" as texts, and a file with stored
values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

import made_bimcv_r
import made_ct_rate
import made_inspect
from made_ct_rate import INTERCEPT, Made
from made_nifti import write_volume
from made_tables import Rows, write_table
from t3d.ct import nifti
from t3d.phantom.patient import Phantom, patient

Files = dict[Path, Callable[[Path], object]]  # relative path -> what writes it
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PRONE = ("train_25_a_1",)
SENTINELS = ("", "nan", "Not given.")

# ---- who is who ------------------------------------------------------------------------------

CT_RATE_SOUND = tuple(f"train_{n}_a" for n in (*range(102, 117), 92, 101, 145, 171))
CT_RATE_VALID = tuple(f"valid_{n}_a" for n in range(1, 13))
INSPECT_SOUND = tuple(str(n) for n in range(2001, 2013))
INSPECT_HELD_OUT = {"2101": "valid", "2102": "test", "2103": "test"}
BIMCV_SOUND = tuple(f"sub-S{n}_ses-E{n}_run-1_bp-chest_ct" for n in (*range(102, 113), 144))
BIMCV_BLANK = tuple(f"sub-S{n}_ses-E{n}_run-1_bp-chest_ct" for n in (130, 131))
BIMCV_RAW = "sub-S132_ses-E132_run-1_bp-chest_ct"

CT_RATE_TRAPS = (
    *("train_10_a", "train_11_a", "train_12_a", "train_13_a", "train_14_a", "train_15_a"),
    *("train_16_a", "train_17_a", "train_18_a", "train_19_a", "train_20_a", "train_21_aa"),
    *("train_22_a", "train_23_a", "train_24_a", "train_25_a", "train_26_a", "train_27_a"),
    *("train_29_a", "train_30_a"),
)
_SEEN = tuple(dict.fromkeys(made.study for made in made_ct_rate.VOLUMES))
_NAMES = {
    "ct_rate": (*_SEEN, *CT_RATE_TRAPS, *CT_RATE_SOUND, *CT_RATE_VALID[2:]),
    "inspect": ("1002", "1003", *INSPECT_SOUND, *INSPECT_HELD_OUT),
    "bimcv_r": (*made_bimcv_r.STUDIES, *BIMCV_SOUND, BIMCV_RAW),
}
SEED_OF: dict[str, int] = {
    name: seed
    for seed, name in enumerate(f"{member}-{key}" for member in _NAMES for key in _NAMES[member])
}
"""The phantom of each study, by its id in the union."""

for _stem in (*BIMCV_SOUND, BIMCV_RAW):  # files whose session is their study
    SEED_OF[f"bimcv_r-{_stem.partition('_run')[0]}"] = SEED_OF[f"bimcv_r-{_stem}"]
SEED_OF["ct_rate-train_8_a"] = SEED_OF["ct_rate-train_1_a"]
SEED_OF["ct_rate-train_9_a"] = SEED_OF["bimcv_r-sub-S01_ses-E01"]


@cache
def person(seed: int) -> Phantom:
    """Draw a patient once."""
    return patient(seed)


def phantom_of(study_id: str) -> Phantom:
    """Give the patient whose volume a study of the union must hold."""
    return person(SEED_OF[study_id])


# ---- CT-RATE ---------------------------------------------------------------------------------


def _ct_rate() -> list[Made]:
    """List the volumes that tables name, and one that they do not."""
    makers = {"train_23_a": "Siemens Healthineers", "train_24_a": "PNMS"}
    extra = [
        Made(f"{study}_1", "told below", manufacturer=makers.get(study, "Philips"))
        for study in ("train_8_a", "train_9_a", *_NAMES["ct_rate"][len(_SEEN) :])
    ]
    sick = Made("train_16_a_2", "told below", positives=("Medical material",))
    return [_told(made) for made in (*made_ct_rate.VOLUMES, *extra)] + [
        replace(_told(sick), positives=("Medical material",))
    ]


def _told(made: Made) -> Made:
    """Let a report and labels tell of the volume, where they are not a trap of their own."""
    one = phantom_of(f"ct_rate-{made.study}")
    report = one.report.report
    findings, impression = report.findings, report.impression
    if made.study == "train_8_a":
        findings, impression = f"{findings.upper()}  ", impression.upper()
    if made.study == "train_9_a":
        findings, impression = f"{findings} {impression}", ""
    if made.study == "train_30_a":
        findings, impression = "", "nan"
    return replace(
        made,
        findings=made.findings if made.findings in SENTINELS else findings,
        impression=made.impression if made.impression in SENTINELS else impression,
        positives=tuple(name for name, value in one.labels.items() if value),
    )


def _metadata(made: Made) -> dict[str, str]:
    """Tell geometry and slope as the table does; all that a v1 file is read by."""
    volume = phantom_of(f"ct_rate-{made.study}").volume
    world = volume.world_from_voxel
    z, y, x = (float(world[k, c]) for c, k in enumerate((2, 1, 0)))
    origin, cosines = world[:3, 3].copy(), [1, 0, 0, 0, 1, 0]
    if made.volume in PRONE:  # rows and columns run the other way, from the opposite corner
        origin[:2] += (np.array(volume.voxels.shape[:0:-1]) - 1) * (x, y)
        cosines = [-1, 0, 0, 0, -1, 0]
    return made_ct_rate.metadata_row(made) | {
        "ImagePositionPatient": str([float(v) for v in origin]),
        "ImageOrientationPatient": str(cosines),
        "XYSpacing": f"[{y!r}, {x!r}]",
        "ZSpacing": repr(z),
        "Rows": str(volume.voxels.shape[1]),
        "Columns": str(volume.voxels.shape[2]),
        "NumberofSlices": str(volume.voxels.shape[0]),
    }


def _ct_rate_tables(root: Path, seed: int | None) -> None:
    """Write tables and lists of heads, in the data's own two namings of the second split."""
    for split, long in (("train", "train"), ("valid", "validation")):
        rows = [made for made in _ct_rate() if made.split == split and made.in_tables]
        metadata = [_metadata(made) for made in rows if made.study != "train_17_a"]
        reports = [made_ct_rate.report_row(made) for made in rows]
        torn = [row for row in reports if row["VolumeName"].startswith("train_15_a")]
        reports += [row | {"Findings_EN": "Something else."} for row in torn]
        labels = [made_ct_rate.label_row(made) for made in rows]
        for path, table in (
            (f"metadata/{long}_metadata.csv", metadata),
            (f"radiology_text_reports/{long}_reports.csv", reports),
            (f"multi_abnormality_labels/{split}_predicted_labels.csv", labels),
        ):
            write_table(root / path, table, seed=seed)
    heads = ["train_5_a_1.nii.gz", "train_fixed/train_19/train_19_a/train_19_a_1", "train_20_a"]
    random.Random(seed).shuffle(heads)
    (root / "metadata" / "no_chest_train.txt").write_text("\n".join(heads) + "\n")
    (root / "metadata" / "no_chest_valid.txt").write_text("")


def _ct_rate_files() -> Files:
    """Say what lies where; first what is sound, then what is not."""
    first_release = ("train_11_a", "train_17_a", *(f"train_{n}_a" for n in range(22, 26)))
    files: Files = {}
    for made in _ct_rate():
        if made.on_disk:
            release = made.split if made.study in first_release else f"{made.split}_fixed"
            write = _stored(made) if made.study in first_release else _hu(made)
            files[Path(release, made.patient, made.study, f"{made.volume}.nii.gz")] = write
    files |= {
        _fixed("train_10_a"): _stored_of("train_10_a"),
        Path("train/train_11/train_11_a/train_11_a_1.nii.gz"): _hu_of("train_11_a"),
        # The first release of this one has another patient's voxels: it must not be read.
        Path("train/train_12/train_12_a/train_12_a_1.nii.gz"): _hu_of("train_1_a"),
        _fixed("train_13_a"): write_constant,
        _fixed("train_14_a"): partial(write_turned, seed=SEED_OF["ct_rate-train_14_a"]),
        _fixed("train_18_a"): partial(write_cut_short, seed=SEED_OF["ct_rate-train_18_a"]),
        _fixed("train_26_a"): partial(write_volume, num_slices=6),
        _fixed("train_27_a"): partial(write_volume, times=3),
        _fixed("train_29_a"): partial(write_volume, flat=True),
        Path("train_fixed/notes.nii.gz"): _hu_of("train_1_a"),
        Path("train_fixed/train_1/twice/train_1_b_1.nii.gz"): _hu_of("train_1_a"),
    }
    return {Path("ct_rate", "dataset", path): write for path, write in files.items()}


def _fixed(study: str) -> Path:
    """Say where the first volume of a study lies in the corrected release."""
    patient_id = study.rpartition("_")[0]
    return Path("train_fixed", patient_id, study, f"{study}_1.nii.gz")


def _hu(made: Made) -> Callable[[Path], object]:
    return partial(write_hu, seed=SEED_OF[f"ct_rate-{made.study}"])


def _hu_of(study: str) -> Callable[[Path], object]:
    return partial(write_hu, seed=SEED_OF[f"ct_rate-{study}"])


def _stored_of(study: str) -> Callable[[Path], object]:
    return partial(write_stored, seed=SEED_OF[f"ct_rate-{study}"])


def _stored(made: Made) -> Callable[[Path], object]:
    seed, shift = SEED_OF[f"ct_rate-{made.study}"], INTERCEPT[made.manufacturer]
    return partial(write_stored, seed=seed, intercept=shift, prone=made.volume in PRONE)


# ---- INSPECT ---------------------------------------------------------------------------------


def _impression(study: str) -> str:
    """Write an impression as that corpus has them: in capitals, with marks."""
    text = phantom_of(f"inspect-{study}").report.report.impression.upper()
    return f"IMPRESSION: {text} PAGED <PERSON>LAST_NAME</PERSON> ON <TIMEX3>XX/XX</TIMEX3>."


def _inspect_tables(root: Path, seed: int | None) -> None:
    """Write the newer tables and, beside them, one of an earlier date that must not be read."""
    more = (*INSPECT_SOUND, *INSPECT_HELD_OUT)
    told = ("1002", "1003", *more)
    mapping: Rows = [*made_inspect.MAPPING] + [
        {"impression_id": s, "image_id": f"PE00bb{s}", "person_id": f"p{s}"} for s in more
    ]
    mapping += [{"impression_id": "1015", "image_id": "PE00aa25", "person_id": "p15"}]
    texts: Rows = [row for row in made_inspect.IMPRESSIONS if row["impression_id"] not in told]
    texts += [{"impression_id": study, "impressions": _impression(study)} for study in told]
    texts += [{"impression_id": "1015", "impressions": "IMPRESSION: "}]
    splits: Rows = [*made_inspect.SPLITS, {"impression_id": "1015", "split": "train"}]
    splits += [{"impression_id": s, "split": INSPECT_HELD_OUT.get(s, "train")} for s in more]
    old: Rows = [{"impression_id": "2001", "impressions": "AN EARLIER TEXT."}]
    full, date = root / "full", made_inspect.DATE
    times = [{"procedure_DATETIME": "", **row} for row in mapping]
    write_table(full / f"study_mapping_{date}.tsv", times, seed=seed)
    write_table(full / f"impressions_{date}.tsv", texts, seed=seed)
    write_table(full / "impressions_20240101.tsv", old, seed=seed)
    write_table(full / f"splits_{date}.tsv", splits, seed=seed)
    write_table(full / f"labels_{date}.tsv", made_inspect.LABELS, seed=seed)


def _inspect_files() -> Files:
    """Say what lies where."""
    files: Files = {
        f"PE00aa{n}.nii.gz": write_volume for n in (11, 13, 15, 16, 20, 22, 23, 24, 25)
    } | {
        "PE00aa12.nii.gz": partial(write_hu, seed=SEED_OF["inspect-1002"]),
        "PE00aa14.nii.gz": partial(write_hu, seed=SEED_OF["inspect-1003"]),
        "PE00aa17.nii.gz": partial(write_volume, times=3),
        "PE00aa18.nii.gz": partial(write_volume, flat=True),
        "PE00aa21.nii.gz": partial(write_volume, times=1),
        "PE00aa24.nii": write_volume,
        "PEffffff.nii.gz": write_volume,
        "._PE00aa11.nii.gz": write_fork,
    }
    for study in (*INSPECT_SOUND, *INSPECT_HELD_OUT):
        files[f"PE00bb{study}.nii.gz"] = partial(write_hu, seed=SEED_OF[f"inspect-{study}"])
    return {Path("inspect", "full", "CTPA", name): write for name, write in files.items()}


# ---- BIMCV-R ---------------------------------------------------------------------------------


def _bimcv_text(stem: str, given: str) -> str:
    """Write the one field of a report, where it is not a trap of its own."""
    untold = (made_bimcv_r.NO_FILE, made_bimcv_r.TWICE, made_bimcv_r.TORN, *BIMCV_BLANK)
    if stem in untold or not given:
        return given
    report = person(_bimcv_seed(stem)).report.report
    if stem == made_bimcv_r.HEADED:
        return f"Findings: {report.findings}\nConclusion: {report.impression}"
    return f"{report.findings} {report.impression}"


def _bimcv_seed(stem: str) -> int:
    """Find the phantom of a file, by its own name or that of its session."""
    session = stem.partition("_run")[0]
    return SEED_OF.get(f"bimcv_r-{stem}", SEED_OF.get(f"bimcv_r-{session}", -1))


def _bimcv_tables(root: Path, seed: int | None) -> None:
    """Write the one table."""
    stems = (*BIMCV_SOUND, BIMCV_RAW)
    given = [(row["path"], row["Report_en"]) for row in made_bimcv_r.ROWS]
    given += [(f"/somewhere/else/CT3/ct/{stem}.nii.gz", "told below") for stem in stems]
    given += [
        (f"/somewhere/else/CT3/ct/{stem}.nii.gz", text)
        for stem, text in zip(BIMCV_BLANK, (" ", "nan"), strict=True)
    ]
    rows: Rows = [
        {"": str(n), "path": path, "Report_en": _bimcv_text(_stem(path), text)}
        for n, (path, text) in enumerate(given)
    ]
    write_table(made_bimcv_r.table_of(root), rows, seed=seed)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".nii.gz")


def _bimcv_files() -> Files:
    """Say what lies where; the folder is not the one that the table names."""
    of = made_bimcv_r
    chests: Iterable[tuple[str, str]] = (
        *(("CT1", stem) for stem in (of.ONE, of.LATER, of.TWO_A, of.TWICE, of.TORN, of.EMPTY)),
        *(("CT2", stem) for stem in (of.ONE_AGAIN, of.TWO_B, of.TWICE, of.UNNAMED, of.HEADED)),
        ("CT1", of.NO_ROW),
        *((f"CT{1 + n % 3}", stem) for n, stem in enumerate((*BIMCV_SOUND, *BIMCV_BLANK))),
    )
    files: Files = {}
    for folder, stem in chests:
        seed = _bimcv_seed(stem)
        write = write_volume if seed < 0 else partial(write_hu, seed=seed)
        files[Path("bimcv_r", folder, "ct", f"{stem}.nii.gz")] = write
    raw = Path("bimcv_r", "CT3", "ct", f"{BIMCV_RAW}.nii.gz")
    return files | {raw: partial(write_stored, seed=_bimcv_seed(BIMCV_RAW))}


# ---- files -----------------------------------------------------------------------------------


def write_hu(path: Path, *, seed: int) -> None:
    """Write a phantom as it is."""
    volume = person(seed).volume
    nifti.write(path, volume.voxels, volume.world_from_voxel)


def write_stored(path: Path, *, seed: int, intercept: int = -1024, prone: bool = False) -> None:
    """Write stored values under an identity header, as the first release of CT-RATE does."""
    voxels = person(seed).volume.voxels
    if prone:
        voxels = voxels[:, ::-1, ::-1]
    nifti.write(path, (voxels - intercept).astype(np.int16), made_ct_rate.IDENTITY)


def write_turned(path: Path, *, seed: int) -> None:
    """Write a phantom with axes (j, k, i) of which two run backwards, and the affine to match."""
    import nibabel

    volume = person(seed).volume
    ijk_from_zyx = np.eye(4)[[2, 1, 0, 3]]
    affine = RAS_FROM_LPS @ volume.world_from_voxel @ np.linalg.inv(ijk_from_zyx)
    voxels, affine = volume.voxels.T[:, ::-1, ::-1], affine.copy()
    for axis in (1, 2):
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
        affine[:3, axis] = -affine[:3, axis]
    order = [1, 2, 0]
    image = nibabel.Nifti1Image(
        np.ascontiguousarray(voxels.transpose(order)), affine[:, [*order, 3]]
    )
    nibabel.save(image, path)


def write_constant(path: Path) -> None:
    """Write a volume that holds one value."""
    nifti.write(path, np.full((24, 40, 40), -1000, np.int16), made_ct_rate.WORLD)


def write_cut_short(path: Path, *, seed: int) -> None:
    """Write half of a file, as a download that broke off leaves it."""
    write_hu(path, seed=seed)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_fork(path: Path) -> None:
    """Write what another system leaves beside a file."""
    path.write_bytes(b"resource fork")


def fabricate(root: Path, *, seed: int | None = None) -> dict[str, Path]:
    """Write the three trees.

    Args:
        root: Made if missing.
        seed: Shuffle rows and columns of every table and the order in which files come to be.

    Returns:
        The root of each member, as a command line is told it.
    """
    _ct_rate_tables(root / "ct_rate" / "dataset", seed)
    _inspect_tables(root / "inspect", seed)
    _bimcv_tables(root / "bimcv_r", seed)
    files = [*(_ct_rate_files() | _inspect_files() | _bimcv_files()).items()]
    if seed is not None:
        random.Random(seed).shuffle(files)
    for path, write in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write(root / path)
    return {name: root / name for name in ("ct_rate", "inspect", "bimcv_r")}
