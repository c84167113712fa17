"""Files that belong to no table, as a source: each volume file and each DICOM series a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from t3d.cohort import engine
from t3d.cohort.listing import Terms
from t3d.types import Series, Study

_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".zip")


class LooseFiles:
    """Files of any format that belong to no table; folders are walked."""

    kind = "files"

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(Path(path) for path in paths)

    @property
    def terms(self) -> Terms:
        """Nothing is known of them."""
        return Terms(licence="not stated")

    def studies(self) -> Iterator[Study]:
        """List every scan as a study of its own."""
        seen: Counter[str] = Counter()
        for files in self._groups():
            name = _loose_name(files)
            seen[name] += 1
            key = name if seen[name] == 1 and name != "scan" else f"{name}-{seen[name]:04d}"
            series = Series(series_id=key, files=files)
            yield Study(study_id=key, patient_id=key, series=(series,))

    def _groups(self) -> Iterator[tuple[Path, ...]]:
        """Files that make a scan each: volume files one by one, DICOM by series."""
        for path in self.paths:
            if not path.is_dir():
                yield (path,)
                continue
            dicom = []
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                kind = _loose_kind(file)
                if kind == "dicom":
                    dicom.append(file)
                elif kind:
                    yield (file,)
            yield from _dicom_groups(dicom)


def _loose_kind(file: Path) -> str:
    """Say what a file in a folder is; "" = no scan, and nobody says it is one."""
    from t3d.ct.door import kind_of

    if file.name.startswith("."):
        return ""
    return kind_of(file) or ("claimed" if file.name.lower().endswith(_ENDINGS) else "")


def _loose_name(files: Sequence[Path]) -> str:
    """A volume file's stem; DICOM files and folders may be called by a patient's name."""
    name = files[0].name
    for ending in (".nii.gz", *_ENDINGS[:-1]):
        if len(files) == 1 and name.lower().endswith(ending):
            return name[: -len(ending)] or "scan"
    return "scan"


def _dicom_groups(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """DICOM files by series; headers are read in a process of its own."""
    if not files:
        return []
    return engine.guarded(_dicom_series, tuple(files), seconds=60 + 0.1 * len(files))


def _dicom_series(files: tuple[Path, ...]) -> list[tuple[Path, ...]]:
    """Read headers; identifiers stay in this process. Files of no series come last, as one."""
    from t3d.ct.dicom import list_series

    listing = list_series(files)
    groups = [tuple(dict.fromkeys(frame.file for frame in s.frames)) for s in listing.series]
    rest = tuple(sorted(set(files) - {file for group in groups for file in group}))
    return [*groups, rest] if rest else groups
