"""Cases with label maps as the Medical Segmentation Decathlon lays them out, and their folds.

    ROOT/dataset.json           {"training": [{"image": "./imagesTr/x.nii.gz", "label": ...}],
                                 "validation": [...], "test": ["./imagesTs/y.nii.gz"], "labels"}
    ROOT/images*/, labels*/

Paths of the list are relative to ROOT. A fold file says which case is in which split; where there
is none, patients are drawn. Either way `fold_text` writes down what was used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from t3d.cohort.listing import SetAside
from t3d.cohort.stems import NIFTI, stem_of
from t3d.ct.limits import MAX_TABLE_BYTES
from t3d.errors import SourceError
from t3d.types import Series, Study

TABLE = "dataset.json"
LISTS = ("training", "validation", "test")
_NAMES = {"train": "train", "training": "train", "dev": "dev", "test": "test"}
_HELD_OUT = ("val", "valid", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One listed image."""

    case_id: str  # the image's name without suffix
    image: Path
    label: Path | None  # None = its labels are kept back, as for the whole list `test`
    listed: str  # one of LISTS


class CaseList:
    """What a dataset.json lists, and what lies beside it.

    Args:
        root: The folder that holds dataset.json.

    Raises:
        SourceError: No such file, no JSON, not of this form, or a path that leaves the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told = read_object(root / TABLE)
        if "training" not in self.told:
            raise _other_form(TABLE, "no list of training cases", '{"training": [...], ...}')
        self.label_names = _label_names(self.told)
        self.problems: list[SetAside] = []
        found: dict[str, set[Case]] = defaultdict(set)
        for listed in LISTS:
            for number, entry in enumerate(_list_of(self.told, listed, TABLE)):
                case = self._case(entry, listed, number)
                if case is not None:
                    found[case.case_id].add(case)
        self.cases = [next(iter(many)) for _, many in sorted(found.items()) if len(many) == 1]
        message = f"listed more than once in {TABLE}, with other files or in other lists"
        self.problems += [
            SetAside(key=key, reason="duplicate_key", message=message)
            for key, many in sorted(found.items())
            if len(many) > 1
        ]
        self.problems += self._unlisted({case.image for many in found.values() for case in many})

    def _case(self, entry: object, listed: str, number: int) -> Case | None:
        """Read one entry: an object, or the path of an image alone; None = a file's shadow."""
        told = entry if isinstance(entry, dict) else {"image": entry}
        image = self._path(told.get("image"), f"{listed}[{number}].image")
        if _is_shadow(image.name):
            return None
        label = told.get("label")
        return Case(
            case_id=stem_of(image.name),
            image=image,
            label=self._path(label, f"{listed}[{number}].label")
            if label and listed != "test"
            else None,
            listed=listed,
        )

    def _path(self, told: object, where: str) -> Path:
        """Read a path that stays inside the folder."""
        path = PurePosixPath(told) if isinstance(told, str) else None
        if path is None or path.is_absolute() or ".." in path.parts or not path.name:
            raise SourceError(
                f"{TABLE}: {where} is no path inside the folder",
                expected='"./imagesTr/<case>.nii.gz"',
                fix="get the file again",
            )
        return self.root / path

    def _unlisted(self, listed: set[Path]) -> list[SetAside]:
        """List images that dataset.json does not name; `._x.nii.gz` and `_x.nii.gz` are none."""
        beside = (path for folder in self.root.glob("images*") for path in folder.iterdir())
        return [
            SetAside(
                key=path.relative_to(self.root).as_posix(),
                reason="unlisted_file",
                message=f"an image that {TABLE} does not name",
            )
            for path in sorted(beside)
            if path.name.endswith(NIFTI) and not _is_shadow(path.name) and path not in listed
        ]


def _is_shadow(name: str) -> bool:
    """Say whether a name is that of a resource fork or a hidden file: `._lung_001.nii.gz`."""
    return name.startswith((".", "_"))


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        SourceError: No such file, larger than `MAX_TABLE_BYTES`, no JSON, or no object.
    """
    told = _read(path)
    if not isinstance(told, dict):
        raise _other_form(path.name, "no object", "{...}")
    return told


def _read(path: Path) -> Any:
    """Read a file of JSON."""
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise _other_form(path.name, "too large", f"at most {MAX_TABLE_BYTES} bytes")
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SourceError(
            f"{path.name}: {error.strerror}", expected="a file of JSON", fix="check the path"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _other_form(
            path.name, f"no JSON ({type(error).__name__})", "JSON in UTF-8"
        ) from error


def _other_form(name: str, found: str, expected: str) -> SourceError:
    """The error for a file that holds something else."""
    return SourceError(f"{name}: {found}", expected=expected, fix="get the file again")


def _list_of(told: Mapping[str, Any], key: str, name: str) -> list[Any]:
    """Give a list of an object; [] where there is none."""
    value = told.get(key, [])
    if not isinstance(value, list):
        raise _other_form(name, f"{key} is no list", f"{key}: [...]")
    return value


def _label_names(told: Mapping[str, Any]) -> dict[int, str]:
    """Read `labels`: {"1": "cancer"}, or the other way round as later tools write it."""
    found: dict[int, str] = {}
    labels = told.get("labels", {})
    try:
        for left, right in labels.items():
            number, name = (left, right) if str(left).isdigit() else (right, left)
            if int(number) in found:
                raise ValueError(number)
            found[int(number)] = str(name)
    except (AttributeError, TypeError, ValueError) as error:
        raise _other_form(TABLE, "labels", '{"0": "background", "1": "<name>", ...}') from error
    return dict(sorted(found.items()))


class Folds:
    """Which case is in which split, as a file says.

    Understood: our own (`fold_text`); an object of lists `training` and `validation` as MONAI's
    data lists are; a list of {"train", "val"} as nnU-Net's splits_final.json is. Entries are case
    ids, paths, or objects with an `image`. `val` is dev where the file names a test list, else
    test: what is held out of training and judged.

    Args:
        path: The file.
        fold: Which entry of a list of folds.

    Raises:
        SourceError: Not of these forms, no case in train, or a case in two splits.
    """

    def __init__(self, path: Path, *, fold: int = 0) -> None:
        self.splits = _folds_of(path, fold)  # case id -> "train", "dev" or "test"
        hashed = sha256(path.read_bytes()).hexdigest()
        self.name = f"{path.name} fold {fold} sha256 {hashed[:16]}"


def _folds_of(path: Path, fold: int) -> dict[str, str]:
    """Read one of the forms of a fold file."""
    told = _read(path)
    if isinstance(told, list) and 0 <= fold < len(told):
        told = told[fold]
    form = '{"train": [...], "dev": [...], "test": [...]}, or a list of such objects'
    if not isinstance(told, dict):
        raise _other_form(path.name, f"no object, or no fold {fold}", form)
    names = dict(_NAMES) | dict.fromkeys(_HELD_OUT, "dev" if told.get("test") else "test")
    found: dict[str, str] = {}
    for key, split in names.items():
        for entry in _list_of(told, key, path.name):
            image = entry.get("image") if isinstance(entry, dict) else entry
            case = stem_of(image) if isinstance(image, str) else ""
            if not case or found.setdefault(case, split) != split:
                raise _other_form(path.name, f"a case of {key} without id or in two splits", form)
    if "train" not in found.values():
        raise _other_form(path.name, "no case in train", form)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePlan:
    """How the cases of one data set become studies."""

    mask: str  # name of the label map among the masks of a series
    not_ct: Callable[[Case], str]  # why a case is no CT; "" where it is one
    split: Callable[[Case], str]  # the split of a labelled case where no fold file says
    split_by: str  # names that rule
    folds: Folds | None = None
    unlabelled: bool = False  # list cases whose labels are kept back, in no split


def studies_of(cases: CaseList, plan: CasePlan) -> tuple[list[Study], tuple[SetAside, ...]]:
    """Make one study of each case, in order of their ids; no voxel is opened.

    Returns:
        The studies, and what belongs to none with its reason.
    """
    studies, problems = [], list(cases.problems)
    for case in cases.cases:
        reason, message = _left_out(case, plan)
        if reason:
            problems.append(SetAside(key=case.case_id, reason=reason, message=message))
        else:
            studies.append(_study(case, cases, plan))
    known = {case.case_id for case in cases.cases}
    message = f"the fold file names it, {TABLE} does not"
    problems += [
        SetAside(key=case_id, reason="missing_file", message=message)
        for case_id in sorted(set(plan.folds.splits if plan.folds else ()) - known)
    ]
    return studies, tuple(sorted(problems, key=lambda p: (p.key, p.reason)))


def _left_out(case: Case, plan: CasePlan) -> tuple[str, str]:
    """Say, as reason and message, why a case is not listed; "" where it is."""
    if why := plan.not_ct(case):
        return "not_ct", why
    if case.label is None:
        return ("", "") if plan.unlabelled else ("not_asked_for", "its labels are kept back")
    if plan.folds and case.case_id not in plan.folds.splits:
        return "not_asked_for", "the fold file does not name it"
    return "", ""


def _study(case: Case, cases: CaseList, plan: CasePlan) -> Study:
    """Put one case together; it is a patient of its own."""
    split, split_by = "", "not split"
    if case.label is not None:
        split = plan.folds.splits[case.case_id] if plan.folds else plan.split(case)
        split_by = plan.folds.name if plan.folds else plan.split_by
    series = Series(
        series_id=case.case_id,
        files=(case.image,),
        masks={} if case.label is None else {plan.mask: case.label},
        facts={"hu_source": "header", "label_names": json.dumps(cases.label_names)},
    )
    return Study(
        study_id=case.case_id,
        patient_id=case.case_id,
        series=(series,),
        facts={"listed": case.listed, "split_by": split_by},
        split=split,
    )


def fold_text(studies: Iterable[Study]) -> str:
    """Write which case is in which split, as JSON with sorted ids; a study is a case.

    Kept beside a result it says what "AMOS" or "MSD Lung" meant there; `folds=` reads it back.
    """
    lists: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for study in studies:
        if study.split:
            lists[study.split].append(study.study_id)
    told = {split: sorted(cases) for split, cases in lists.items()}
    return json.dumps(told, indent=1, ensure_ascii=True) + "\n"
