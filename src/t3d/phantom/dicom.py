"""Write phantoms as DICOM: series whose geometry, identifiers and reports are all known.

    OUT/
    |-- README.md
    |-- reports.csv       accession, findings, impression
    |-- truth.jsonl       what lies behind each accession: labels, series, instances, sentences
    `-- dicom/STUDY/SERIES/FILE    names that say nothing, in no order

Identifiers are made up from the seed and valid by DICOM's rules. They are there to be found out:
whatever reads such an archive must pair by them and may show none of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t3d.ct.geometry import Orientation, file_view, oriented_matrix
from t3d.errors import RecipeError, StoreError
from t3d.phantom.chain import Kernel, scan
from t3d.phantom.dicom_file import SYNTAXES, save
from t3d.phantom.layouts import phantom_id, split_seeds
from t3d.phantom.patient import Phantom, patient
from t3d.types import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.phantom.presets import Preset

KERNELS = {"soft": "B30f", "sharp": "B60f"}

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
_SECOND = {  # a second reconstruction of the same scan (our choice, inside the first one's ranges)
    "soft": Kernel(name="sharp", blur_vox=0.35, noise_hu=20.0),
    "sharp": Kernel(name="soft", blur_vox=0.6, noise_hu=10.0),
}
_WORLD = {"S": (0, False), "I": (0, True), "P": (1, False), "A": (1, True)}
_WORLD |= {"L": (2, False), "R": (2, True)}

README = """# Synthetic chest CT as DICOM

Every image, report and identifier in this folder was made by a program. No patient exists.
`reports.csv` is keyed by accession number; `truth.jsonl` says what is true of each examination.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Made-up identifiers of one examination; secrets to whatever reads it."""

    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    birth_date: str = field(repr=False)  # YYYYMMDD
    study_date: str = field(repr=False)  # YYYYMMDD
    study_uid: str = field(repr=False)
    accession: str = field(repr=False)
    institution: str = field(repr=False)
    sex: str = "O"
    age: int = 50  # years
    contrast: bool = False

    @classmethod
    def of(cls, seed: int, facts: Mapping[str, str] | None = None) -> Identity:
        """Make up the identifiers of a patient; the same seed gives the same ones.

        Args:
            seed: The patient's seed.
            facts: Sex, age and contrast, as `Phantom.facts` has them.
        """
        facts = facts or {}
        age, year = int(facts.get("age", "50")), 2001 + _digest("year", seed) % 18
        return cls(
            patient_id=f"MRN{_digest('patient', seed) % 10**12:012d}",
            patient_name=f"Zzyzx{_digest('name', seed) % 10**8:08d}^Phantom",
            birth_date=f"{year - age}0217",
            study_date=f"{year}1109",
            study_uid=_uid("study", seed),
            accession=f"A{_digest('accession', seed) % 10**12:012d}",
            institution=f"Hospital Qwyx{_digest('institution', seed) % 7}",
            sex=facts.get("sex", "O"),
            age=age,
            contrast=facts.get("contrast") == "yes",
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """List what may appear in no output, log or message."""
        given = self.patient_name.split("^")[0]
        dates = (self.birth_date, self.study_date)
        return (self.patient_id, given, *dates, self.study_uid, self.accession, self.institution)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesStyle:
    """How one series is written."""

    letters: str = "LPI"  # along a row, down a column, with rising instance number
    syntax: str = "explicit"  # a name in SYNTAXES
    kernel: str = ""  # ConvolutionKernel; "" = the patient's, by KERNELS
    number: int = 2  # SeriesNumber
    description: str = "Thorax"
    first_instance: int = 1
    intercept: int = -1024  # HU
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    patient_position: str = "HFS"

    def __post_init__(self) -> None:
        planes = {_WORLD[letter][0] for letter in self.letters if letter in _WORLD}
        if self.syntax not in SYNTAXES or len(self.letters) != 3 or len(planes) != 3:
            raise RecipeError(
                f"a DICOM series with axes {self.letters!r}, syntax {self.syntax!r}",
                expected="three letters, one each of SI, PA, LR; a syntax of "
                + ", ".join(SYNTAXES),
                fix='write SeriesStyle(letters="LPI", syntax="rle")',
            )

    @property
    def orientation(self) -> Orientation:
        """Give the letters as file axes (k, j, i) of Superior, Posterior, Left."""
        axes, flips = [0, 0, 0], [False, False, False]
        for file_axis, letter in zip((2, 1, 0), self.letters, strict=True):
            world, flips_it = _WORLD[letter]
            axes[world], flips[world] = file_axis, flips_it
        return Orientation(axes=(axes[0], axes[1], axes[2]), flips=(flips[0], flips[1], flips[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSeries:
    """One series on disk and where its slices lie."""

    files: tuple[Path, ...]  # in the order of `instances`
    series_uid: str = field(repr=False)
    style: SeriesStyle
    instances: tuple[tuple[int, tuple[float, float, float]], ...]  # number, first pixel, LPS mm


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStudy:
    """One examination on disk."""

    seed: int
    identity: Identity
    series: tuple[WrittenSeries, ...]  # the main one first


def write_dicom(
    out: Path,
    volume: Volume,
    *,
    identity: Identity | None = None,
    style: SeriesStyle | None = None,
) -> WrittenSeries:
    """Write a volume as one CT series, a file for each slice.

    The stack may run along any axis of the body; file names are digests, so that their order
    says nothing. The same arguments give the same bytes.

    Args:
        out: Folder for the files; made where it is missing.
        volume: int16 HU, axes to Superior, Posterior, Left.
        identity: Whose it is; None = made up from the volume's id.
        style: Axes, transfer syntax, kernel, numbers.

    Returns:
        Files and, per instance number, where they lie.

    Raises:
        RecipeError: HU minus the intercept do not fit 16 bits.
        SourceError: pydicom or an encoder is not installed.

    Source:
        DICOM PS3.3 A.3 (CT image), C.7.6.2 (image plane). Stored values are 12-bit unsigned
        where they fit, as most scanners have them, else 16-bit signed.

    Example:
        `write_dicom(folder, patient(3).volume, style=SeriesStyle(letters="LIP", syntax="rle"))`
    """
    style = style or SeriesStyle()
    identity = identity or Identity.of(_digest(volume.volume_id, 0) % 10**6)
    stored, signed = _stored(volume, style)
    planes = file_view(stored, style.orientation)
    count, rows, columns = planes.shape
    turn = oriented_matrix(np.eye(4), (count, rows, columns), style.orientation)
    world_from_file = volume.world_from_voxel @ np.linalg.inv(turn)
    series_uid = _uid("series", identity.study_uid, style.number, style.letters)
    shared = _series_part(identity, style, series_uid, world_from_file)
    out.mkdir(parents=True, exist_ok=True)
    files, instances = [], []
    for k in range(count):
        number = style.first_instance + k
        position = (world_from_file @ (k, 0.0, 0.0, 1.0))[:3]
        told = {**shared, "InstanceNumber": number, "ImagePositionPatient": _decimals(position)}
        told["SOPInstanceUID"] = _uid("image", series_uid, number)
        path = out / f"{_digest(series_uid, number) % 16**8:08x}"
        save(path, told, np.ascontiguousarray(planes[k]), signed=signed, syntax=style.syntax)
        files.append(path)
        x, y, z = (float(v) for v in position)
        instances.append((number, (x, y, z)))
    return WrittenSeries(
        files=tuple(files), series_uid=series_uid, style=style, instances=tuple(instances)
    )


def write_archive(
    out: Path,
    preset: Preset,
    *,
    patients: int,
    seed: int = 0,
    styles: Sequence[SeriesStyle] = (SeriesStyle(),),
    second_kernel: bool = False,
    localizer: bool = False,
    dose_report: bool = False,
) -> tuple[WrittenStudy, ...]:
    """Write examinations as a hospital's export would hold them.

    The patients are those of `write_folder(..., train=patients, seed=seed)`, so that both can be
    compared voxel by voxel.

    Args:
        out: New or empty folder.
        preset: Kind of cohort.
        patients: How many, one examination each.
        seed: Another seed gives other patients.
        styles: How main series are written; patient n takes style n, and round again.
        second_kernel: Add a second reconstruction with the other kind of kernel.
        localizer: Add a scout, one coronal projection.
        dose_report: Add a structured report without an image.

    Returns:
        What was written, patient by patient.

    Raises:
        StoreError: The folder is not empty.
        SourceError: pydicom or an encoder is not installed.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise StoreError(
            "the folder for the DICOM archive is not empty",
            expected="a new or empty folder",
            fix="choose another folder",
        )
    (out / "dicom").mkdir(parents=True)
    (out / "README.md").write_text(README, encoding="ascii")
    written, reports, truths = [], [], []
    for place, one_seed in enumerate(split_seeds(seed, "train", patients)):
        made = patient(one_seed, preset=preset)
        identity = Identity.of(one_seed, made.facts)
        style = styles[place % len(styles)]
        style = replace(style, kernel=style.kernel or KERNELS[made.facts["kernel"]])
        folder = out / "dicom" / f"{_digest('folder', one_seed) % 16**6:06x}"
        series = [write_dicom(folder / "a", made.volume, identity=identity, style=style)]
        if second_kernel:
            series.append(_second(folder / "b", made, identity, style, preset))
        if localizer:
            series.append(_scout(folder / "c", made.volume, identity))
        if dose_report:
            save(folder / "d" / "0", _dose_part(identity))
        report = made.report.report
        reports.append((identity.accession, report.findings, report.impression))
        truths.append(_truth(made, identity, series))
        written.append(WrittenStudy(seed=one_seed, identity=identity, series=tuple(series)))
    with (out / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("accession", "findings", "impression"), *reports])
    lines = "".join(json.dumps(truth) + "\n" for truth in truths)
    (out / "truth.jsonl").write_text(lines, encoding="utf-8")
    return tuple(written)


# ---- parts of an examination ---------------------------------------------------------------


def _second(
    out: Path, made: Phantom, identity: Identity, style: SeriesStyle, preset: Preset
) -> WrittenSeries:
    """Write the same scan through the other kind of kernel."""
    kernel = _SECOND[made.facts["kernel"]]
    clean = patient(made.seed, preset=preset, clean=True).volume
    voxels = scan(clean.voxels.astype(np.float32), made.seed, kernel)
    other = replace(style, kernel=KERNELS[kernel.name], number=style.number + 1)
    return write_dicom(out, replace(clean, voxels=voxels), identity=identity, style=other)


def _scout(out: Path, volume: Volume, identity: Identity) -> WrittenSeries:
    """Write a projection from the front as a localizer of one image."""
    flat = np.rint(volume.voxels.mean(axis=1, keepdims=True)).astype(np.int16)
    style = SeriesStyle(
        letters="LIP",
        number=1,
        kernel="T20f",
        description="Topogram",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    return write_dicom(out, replace(volume, voxels=flat), identity=identity, style=style)


def _dose_part(identity: Identity) -> dict[str, Any]:
    """Give the attributes of a dose report; it has no image and, here, no content."""
    return {
        **_patient_part(identity),
        "Modality": "SR",
        "SOPClassUID": _DOSE_REPORT,
        "SOPInstanceUID": _uid("dose", identity.study_uid),
        "SeriesInstanceUID": _uid("series", identity.study_uid, 501),
        "SeriesNumber": 501,
        "InstanceNumber": 1,
        "ValueType": "CONTAINER",
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
    }


def _truth(made: Phantom, identity: Identity, series: Sequence[WrittenSeries]) -> dict[str, Any]:
    """Give the row of truth.jsonl: everything a reader of the archive has to find."""
    return {
        "accession": identity.accession,
        "phantom": phantom_id(made.seed),
        "labels": dict(made.labels),
        "facts": dict(made.facts),
        "series": [
            {
                "number": one.style.number,
                "letters": one.style.letters,
                "syntax": one.style.syntax,
                "kernel": one.style.kernel,
                "instances": [[n, *(round(v, 6) for v in at)] for n, at in one.instances],
            }
            for one in series
        ],
        "sentences": [
            {
                "section": s.section,
                "start": s.start,
                "end": s.end,
                "finding": s.finding,
                "z_mm": None if s.z_mm is None else [round(z, 2) for z in s.z_mm],
            }
            for s in made.report.sentences
        ],
    }


# ---- attributes ----------------------------------------------------------------------------


def _digest(*words: object) -> int:
    """Give a number that depends on the words alone."""
    text = "/".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:15], "big")


def _uid(*words: object) -> str:
    """Make up a UID under the root that is free for numbers of 128 bits."""
    return f"2.25.{_digest('uid', *words)}"


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Write numbers as decimal strings of at most 16 characters."""
    return [f"{float(v) + 0.0:.6f}".rstrip("0").rstrip(".") for v in values]


def _stored(volume: Volume, style: SeriesStyle) -> tuple[NDArray[Any], bool]:
    """Give stored values, 12-bit unsigned where they fit, else 16-bit signed."""
    shifted = volume.voxels.astype(np.int32) - style.intercept
    low, high = int(shifted.min()), int(shifted.max())
    if low >= 0 and high < 4096:
        return shifted.astype(np.uint16), False
    if low < -32768 or high > 32767:
        raise RecipeError(
            f"stored values {low} to {high} at intercept {style.intercept}",
            expected="what 16 bits hold",
            fix="choose another intercept",
        )
    return shifted.astype(np.int16), True


def _patient_part(identity: Identity) -> dict[str, Any]:
    """Give the attributes of patient and study."""
    told: dict[str, Any] = {
        "PatientName": identity.patient_name,
        "PatientID": identity.patient_id,
        "PatientBirthDate": identity.birth_date,
        "PatientSex": identity.sex,
        "PatientAge": f"{identity.age:03d}Y",
        "StudyInstanceUID": identity.study_uid,
        "StudyDate": identity.study_date,
        "StudyTime": "101500",
        "AccessionNumber": identity.accession,
        "StudyID": "1",
        "InstitutionName": identity.institution,
        "ReferringPhysicianName": "",
        "Manufacturer": "t3d phantom",
    }
    return told | ({"ContrastBolusAgent": "contrast agent"} if identity.contrast else {})


def _series_part(
    identity: Identity, style: SeriesStyle, series_uid: str, world_from_file: NDArray[np.float64]
) -> dict[str, Any]:
    """Give the attributes that all slices of a series share."""
    slices_mm, rows_mm, columns_mm = np.linalg.norm(world_from_file[:3, :3], axis=0)
    along_row = world_from_file[:3, 2] / columns_mm
    down_column = world_from_file[:3, 1] / rows_mm
    return {
        **_patient_part(identity),
        "Modality": "CT",
        "SOPClassUID": _CT_IMAGE,
        "SeriesInstanceUID": series_uid,
        "FrameOfReferenceUID": _uid("frame", identity.study_uid),
        "PositionReferenceIndicator": "",
        "SeriesNumber": style.number,
        "SeriesDescription": style.description,
        "AcquisitionNumber": 1,
        "PatientPosition": style.patient_position,
        "ImageType": list(style.image_type),
        "ConvolutionKernel": style.kernel or KERNELS["soft"],
        "KVP": "120",
        "PixelSpacing": _decimals([rows_mm, columns_mm]),
        "SliceThickness": _decimals([slices_mm])[0],
        "ImageOrientationPatient": _decimals([*along_row, *down_column]),
        "RescaleIntercept": str(style.intercept),
        "RescaleSlope": "1",
        "RescaleType": "HU",
    }
