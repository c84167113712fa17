"""Run four readers on every trap; write what each did into docs/reference/traps.md.

    python tools/traps_table.py [--data FOLDER] [--malformed FOLDER] [--json FILE] [--only TEXT]

The traps are the odd files of the test data and the cases that its `make_malformed.py` derives
(derived anew unless --malformed names a folder that has them). Each reader is a process that
imports its library once and forks for every file, with limits on time and memory: nothing in the
table is assumed. The counts go to docs/results/traps.json, from which the README tells them. With
--only nothing is written. Takes some minutes; needs what the tests need (SimpleITK, pydicom, MONAI,
nibabel).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "traps.md"
COUNTS = ROOT / "docs" / "results" / "traps.json"
BEGIN, END = "<!-- traps:begin -->", "<!-- traps:end -->"
READERS = ("t3d", "monai", "simpleitk", "nibabel")
TITLES = {"t3d": "t3d", "monai": "MONAI", "simpleitk": "SimpleITK", "nibabel": "nibabel"}
COLUMNS = {
    "traps": "traps in its formats",
    "right": "as it should be",
    "shy": "refuses what should be read",
    "damage": "damage without a word",
}
LIMIT_S = 60
LIMIT_BYTES = 10 << 30  # of address space: torch alone reserves 4 GB without using it
TOLERANCE = {"mean": 0.6, "mean_hu": 0.6, "spacing": 0.02, "slices": 0}

# Odd real files: path below the data folder, what it is, what must happen, true facts.
REAL: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("dicom/chest_lungpetctdx_A0001/series3_B_j2k", "chest stored from head to feet, JPEG 2000",
     "accept", {"slices": 64, "spacing_z": 5.0}),
    ("dicom/chest_lungpetctdx_A0002/series3_B40f_deflated", "chest in deflated files", "accept",
     {"slices": 30, "spacing_z": 8.0}),
    ("dicom/abdomen_totalseg_j2k", "slices 3 mm thick every 2 mm", "accept",
     {"slices": 20, "spacing_z": 2.0}),
    ("dicom/head_ge_tilt_uneven_jls", "three gaps in one series (4, 1.1 and 7 mm), tilted gantry",
     "reject", {}),
    ("dicom/head_siemens_tilt_4", "tilt seen only in the positions, pixels scrubbed, 4 slices",
     "reject", {}),
    ("dicom/missing_slice_ge_4", "one slice missing (gaps 5, 5, 10 mm)", "reject", {}),
    ("dicom/same_position_2", "two images at one position", "reject", {}),
    ("dicom/one_slice_many_syntaxes", "one slice in 16 transfer syntaxes", "reject", {}),
    ("dicom/chest_3slice_with_seg_SEG", "DICOM segmentations", "reject", {}),
    ("dicom/multiframe/enhanced_mr_rle.dcm", "enhanced MR", "reject", {}),
    ("dicom/tiny_dicomdir", "a DICOMDIR tree of tiny series, scouts and a radiograph", "reject",
     {}),
    ("dicom/odd/CT_small.dcm", "a single slice", "reject", {}),
    ("dicom/odd/MR_truncated.dcm", "MR, 62 bytes short", "reject", {}),
    ("dicom/odd/badVR.dcm", "NumberOfFrames is text", "reject", {}),
    ("dicom/not_ct_volume", "scout, MR, NM, dose, plan, structures, reports, radiograph",
     "reject", {}),
    ("nifti/ct/torso_3mm_int32.nii.gz", "int32 voxels", "accept",
     {"slices": 112, "spacing": [3, 3, 3]}),
    ("nifti/ct/aorta_1p5mm_LPS.nii.gz", "stored as LPS", "accept",
     {"slices": 164, "spacing": [1.5, 1.5, 1.5]}),
    ("nifti/ct/aorta_1p5mm_label_heart_OTHER_GRID.nii.gz", "a mask given as a scan", "reject", {}),
    ("nifti/odd/ct_head_shear_uint8_scaled.nii.gz", "tilted head CT: sheared affine, 8 bits scaled",
     "repair", {}),
    ("nifti/odd/ct_perfusion_rgb.nii.gz", "colours", "reject", {}),
    ("nifti/odd/rgba.nii.gz", "colours", "reject", {}),
    ("nifti/odd/complex64.nii.gz", "complex numbers", "reject", {}),
    ("nifti/odd/float64_aniso.nii.gz", "an oblique MR, thick slices", "reject", {}),
    ("nifti/odd/example4d.nii.gz", "4-D MR", "reject", {}),
    ("nifti/odd/functional.nii", "4-D MR, scaled", "reject", {}),
    ("nifti/odd/row_major.dconn.nii", "a CIFTI matrix", "reject", {}),
    ("nifti/odd/analyze.hdr", "an Analyze header without image", "reject", {}),
    ("nifti/orient/AIL.nii.gz", "a head MR", "reject", {}),
    ("nrrd/CTChest4.nrrd", "chest, both axes reversed, padding -3024", "accept",
     {"slices": 34, "spacing": [3.047, 3.047, 10]}),
    ("nrrd/Segmentation.seg.nrrd", "a segmentation", "reject", {}),
    ("nrrd/SegmentationOverlapping.seg.nrrd", "overlapping segments, two layers", "reject", {}),
)  # fmt: skip


# ---- the four readers: a path to (voxels (i, j, k, ...), affine RAS) ------------------------


def _read_t3d(path: str) -> tuple[Any, Any]:
    """Read as `t3d prepare` does: with all its checks, at the file's own grid."""
    from t3d.ct.geometry import ras_from_ijk
    from t3d.ct.regrid import regrid, regrid_label
    from t3d.types import Preparation

    plain = Preparation(name="as it is", store_clip_hu=(-32768, 32767))
    if "/label_" in path:  # label maps are read as masks of their CT
        from t3d.ct.door import open_scan

        with open_scan((Path(path).with_name("ok_reference.nii.gz"),)) as scan:
            labels = regrid_label(path, plain, like=scan)
            return labels.transpose(2, 1, 0), ras_from_ijk(regrid(scan, plain).world_from_voxel)
    if "/zip/" in path:  # four slices each: fewer than the checks of a whole scan allow
        from t3d.ct.door import read

        volume = read(path)
    else:
        volume = regrid(path, plain, check=True)
    return volume.voxels.transpose(2, 1, 0), ras_from_ijk(volume.world_from_voxel)


def _read_monai(path: str) -> tuple[Any, Any]:
    """Read with LoadImage as its documentation shows it."""
    from monai.transforms import LoadImage

    image = LoadImage(image_only=True)(path)
    return image.numpy(), image.affine.numpy()


def _read_simpleitk(path: str) -> tuple[Any, Any]:
    """Read a file with ReadImage, a folder as its first DICOM series."""
    import numpy as np
    import SimpleITK

    if os.path.isdir(path):
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(path)
        image = SimpleITK.ReadImage(names)
    else:
        image = SimpleITK.ReadImage(path)
    size = image.GetDimension()
    affine = np.eye(4)
    turn = np.array(image.GetDirection()).reshape(size, size) * np.array(image.GetSpacing())
    affine[: min(3, size), : min(3, size)] = turn[:3, :3]
    affine[: min(3, size), 3] = image.GetOrigin()[:3]
    array = SimpleITK.GetArrayFromImage(image)
    order = [*range(size - 1, -1, -1), *range(size, array.ndim)]  # components stay last
    return array.transpose(order), np.diag([-1, -1, 1, 1]) @ affine


def _read_nibabel(path: str) -> tuple[Any, Any]:
    """Read with load and get_fdata."""
    import nibabel as nib

    image: Any = nib.load(path)
    return image.get_fdata(), image.affine


_READ: dict[str, Callable[[str], tuple[Any, Any]]] = {
    "t3d": _read_t3d,
    "monai": _read_monai,
    "simpleitk": _read_simpleitk,
    "nibabel": _read_nibabel,
}
_IMPORTS = {
    "t3d": ("t3d.ct.regrid", "pydicom", "SimpleITK", "nibabel"),
    "monai": ("monai.transforms", "nibabel", "pydicom"),
    "simpleitk": ("SimpleITK", "numpy"),
    "nibabel": ("nibabel",),
}


def facts_of(array: Any, affine: Any) -> dict[str, Any]:
    """Say what was read: size and spacing along L, P, S, and the mean."""
    import nibabel as nib
    import numpy as np

    array = np.asarray(array)
    told: dict[str, Any] = {"axes": array.ndim, "shape": list(array.shape)}
    if array.dtype.kind in "iuf":
        values = array.astype(np.float64)
        told["mean"] = float(values.mean())
        told["finite"] = bool(np.isfinite(values).all())
    else:
        told["type"] = "complex" if array.dtype.kind == "c" else "colours"
    matrix = np.asarray(affine, dtype=float)
    if array.ndim >= 3 and matrix.shape == (4, 4) and np.isfinite(matrix).all():
        pitch = np.linalg.norm(matrix[:3, :3], axis=0)
        along = nib.orientations.io_orientation(matrix)[:, 0]
        if not np.isnan(along).any():
            order = [int(np.flatnonzero(along == axis)[0]) for axis in range(3)]
            told["shape"] = [*(int(array.shape[a]) for a in order), *told["shape"][3:]]
            told["spacing"] = [round(float(pitch[a]), 4) for a in order]
    return told


# ---- one file in a process of its own -------------------------------------------------------


def run_one(reader: str, path: str) -> dict[str, Any]:
    """Read one file in a fork with limits; say what came out of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _be_limited()
        with os.fdopen(send, "w") as pipe:
            pipe.write(json.dumps(_outcome(reader, path)))
            pipe.flush()
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        found: dict[str, Any] = json.loads(told)
        return found
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "no answer"
    return {"outcome": "died", "told": "too slow" if how in ("SIGXCPU", "SIGALRM") else how}


def _be_limited() -> None:
    """Set the ceilings of a child and silence what libraries print."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    signal.alarm(4 * LIMIT_S)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)


def _outcome(reader: str, path: str) -> dict[str, Any]:
    """Read and describe, or describe the error."""
    try:
        return {"outcome": "read", **facts_of(*_READ[reader](path))}
    except MemoryError:
        return {"outcome": "died", "told": "out of memory"}
    except BaseException as error:  # whatever a library raises is what it does on this trap
        found = getattr(error, "found", "")
        return {"outcome": "refused", "kind": type(error).__name__, "told": found or ""}


def serve(reader: str) -> None:
    """Import a library once, then answer one JSON line per path on standard input."""
    import importlib

    warnings.simplefilter("ignore")
    for name in _IMPORTS[reader]:
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_one(reader, json.loads(line))) + "\n")
        sys.stdout.flush()


def ask(reader: str, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Run one reader over all paths."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--serve", reader],
        input="".join(json.dumps(path) + "\n" for path in paths),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---- judging and writing --------------------------------------------------------------------


def wrong_facts(case: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """List where what was read differs from what the case says is true."""
    found = []
    spacing, shape = told.get("spacing", [math.nan] * 3), told["shape"]
    seen = {
        "mean": told.get("mean", math.nan),
        "mean_hu": told.get("mean", math.nan),
        "spacing_z": spacing[2],
        "slices": shape[2] if len(shape) > 2 else 0,
    }
    for key, value in seen.items():
        limit = 0.02 if key == "spacing_z" else TOLERANCE.get(key, 0)
        if key in case and not abs(value - case[key]) <= limit:
            found.append(f"{key.replace('_', ' ')} {value:.5g} instead of {case[key]:.5g}")
    if "spacing" in case and not all(
        abs(a - b) <= TOLERANCE["spacing"] for a, b in zip(spacing, case["spacing"], strict=True)
    ):
        found.append(f"spacing {' x '.join(f'{s:.4g}' for s in spacing)} mm")
    return found


def shown(case: Mapping[str, Any], told: Mapping[str, Any], *, ours: bool) -> str:
    """Put one reader's outcome into a cell."""
    if told["outcome"] == "died":
        return f"**{told['told']}**"
    if told["outcome"] == "refused":
        reason = str(told["told"]).partition(": ")[2] or told["told"]
        return f"refuses: {escaped(reason)}" if ours else "error"
    shape = " x ".join(map(str, told["shape"]))
    words = [told["type"]] if "type" in told else []
    words += [] if told.get("finite", True) else ["not all finite"]
    words += [] if "spacing" in told else ["no usable affine"]
    if case["expect"] == "reject":
        return f"**reads it** ({', '.join([shape, *words])})"
    wrong = [*wrong_facts(case, told), *words]
    return f"**reads it wrong**: {'; '.join(wrong)}" if wrong else "reads it"


def escaped(text: str) -> str:
    """Make a message safe inside a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def is_damage(cell: str) -> bool:
    """Say whether a cell tells of a file taken for something that it is not."""
    return cell.startswith("**")


def format_of(case: Mapping[str, Any]) -> str:
    """Name the format of a trap by where it lies: "nifti", "dicom", "zip" or "nrrd"."""
    return str(case["path"]).removeprefix("data/").partition("/")[0]


def readers_of(cases: Sequence[Mapping[str, Any]], form: str) -> list[str]:
    """List the readers that open any trap of a format at all."""
    some = [case for case in cases if format_of(case) == form]
    return [r for r in READERS if any(case["seen"][r]["outcome"] == "read" for case in some)]


def table_of(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give the rows of some cases as Markdown."""
    forms = {form: readers_of(cases, form) for form in map(format_of, cases)}
    readers = [r for r in READERS if any(r in able for able in forms.values())]
    head = ("trap", "should be", *(TITLES[name] for name in readers))
    rows = [head, tuple("---" for _ in head)]
    should = {"reject": "refused", "repair": "read, noted", "accept": "read"}
    for case in cases:
        trap = f"`{case['path'].split('/', 1)[1]}`: {escaped(case['what'])}"
        able = forms[format_of(case)]
        cells = [
            shown(case, case["seen"][r], ours=r == "t3d") if r in able else "-" for r in readers
        ]
        rows.append((trap, should[case["expect"]], *cells))
    return ["| " + " | ".join(row) + " |" for row in rows]


def counts_of(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the outcomes of each reader over the formats that it reads at all."""
    counts = {}
    for reader in READERS:
        some = [case for case in cases if reader in readers_of(cases, format_of(case))]
        cells = [(case, shown(case, case["seen"][reader], ours=False)) for case in some]
        damage = sum(is_damage(cell) for _, cell in cells)
        shy = sum(cell == "error" and case["expect"] != "reject" for case, cell in cells)
        right = len(cells) - damage - shy
        counts[TITLES[reader]] = dict(zip(COLUMNS, (len(cells), right, shy, damage), strict=True))
    return counts


def counted(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Give one row per reader as Markdown."""
    rows = [("reader", *COLUMNS.values()), ("---",) * (1 + len(COLUMNS))]
    rows += [(reader, *(str(told[key]) for key in COLUMNS)) for reader, told in counts.items()]
    return ["| " + " | ".join(row) + " |" for row in rows]


def page_of(cases: Sequence[Mapping[str, Any]], versions: str) -> str:
    """Give everything between the page's marks."""
    groups = (
        ("Real files", lambda c: c["path"].startswith("data/")),
        ("NIfTI, derived", lambda c: c["path"].startswith("nifti/")),
        ("DICOM, derived", lambda c: c["path"].startswith("dicom/")),
        ("Archives, derived", lambda c: c["path"].startswith("zip/")),
    )
    lines = [f"{len(cases)} traps. Versions: {versions}.", "", *counted(counts_of(cases))]
    for title, belongs in groups:
        some = [case for case in cases if belongs(case)]
        lines += ["", f"## {title}", "", *table_of(some)]
    return "\n".join(lines)


def filled(page: str, inside: str) -> str:
    """Put the tables between the page's two marks."""
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{inside}\n{END}{after}"


def versions() -> str:
    """Name what was run."""
    from importlib.metadata import version

    names = {"MONAI": "monai", "SimpleITK": "SimpleITK", "nibabel": "nibabel", "pydicom": "pydicom"}
    return ", ".join(f"{title} {version(name)}" for title, name in names.items())


@contextlib.contextmanager
def corpus(data: Path, given: Path | None) -> Iterator[Path]:
    """Give the folder of derived cases; make it where none is given."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run(
            [sys.executable, data / "make_malformed.py", out], check=True, stdout=subprocess.DEVNULL
        )
        yield out


def cases_of(data: Path, derived: Path, only: str) -> list[dict[str, Any]]:
    """List all traps with the place of each."""
    cases = [
        {"path": f"data/{path}", "what": what, "expect": expect, "file": str(data / path), **facts}
        for path, what, expect, facts in REAL
    ]
    for case in json.loads((derived / "manifest.json").read_text(encoding="utf-8")):
        if not case["path"].startswith("table/"):
            file = derived / case["path"]
            if (file / "scan.hdr").is_file():  # a pair is named by its header
                file /= "scan.hdr"
            cases.append({**case, "file": str(file)})
    return [case for case in cases if only in case["path"]]


def main(arguments: list[str] | None = None) -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description="What four readers do on every trap.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--malformed", type=Path)
    parser.add_argument("--json", type=Path, default=COUNTS, help="where the counts go")
    parser.add_argument("--only", default="", help="only traps whose path contains this; no files")
    parser.add_argument("--serve", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    with corpus(options.data.resolve(), options.malformed) as derived:
        cases = cases_of(options.data.resolve(), derived, options.only)
        for reader in READERS:
            answers = ask(reader, [case["file"] for case in cases])
            for case, told in zip(cases, answers, strict=True):
                case.setdefault("seen", {})[reader] = told
    for case in cases:
        del case["file"]
    if options.only:
        sys.stdout.write("\n".join(table_of(cases)) + "\n")
    else:
        inside = page_of(cases, versions())
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), inside), encoding="utf-8")
        options.json.write_text(json.dumps(counts_of(cases), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
