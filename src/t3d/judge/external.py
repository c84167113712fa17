"""Scores or embeddings made elsewhere, checked and put into the form that a model's own have.

CSV: a column `volume_id` (or `VolumeName`, as CT-RATE's tables have it) or `study_id`, then either
one column a finding, or `positive:<finding>` and `negative:<finding>` with raw cosines; optional
`patient_id`. NPZ: `ids` (N,) of volumes or studies; `image` (N, D), and optionally `text` (N, D) of
the reports, `prompts` (F, 2, D) with the positive side first beside `findings` (F,), `logit_scale`,
`tokens` (N, L, D) with `centres_mm` (N, L, 3). Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.delimited import read_delimited
from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, cosines, report_numbers, unit_rows
from t3d.judge.units import ScoreTable

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Floats = NDArray[np.float64]

KEYS = ("volume_id", "VolumeName", "study_id")
"""Columns that can name a row; the first that is there does."""
ENDINGS = (".csv", ".npz")
SPLITS = ("dev", "test")
_ABSENT = frozenset({"", "nan", "na", "null", "none"})
_SIDES = ("positive", "negative")
_ARRAYS = ("ids", "image", "text", "prompts", "findings", "logit_scale", "tokens", "centres_mm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foreign:
    """What a file says of the studies of a cohort."""

    name: str  # of the file, without its ending
    digest: str  # sha256 of the file
    tables: Mapping[str, ScoreTable]  # split -> scores; a split without any row is not there
    embeddings: Mapping[str, Embeddings] = field(default_factory=dict)  # split -> of an NPZ
    tokens: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    # split -> tokens (N, L, D) and their centres (N, L, 3) in mm, rows as the embeddings
    counts: Mapping[str, int] = field(default_factory=dict)  # what is missing, or left aside


class _Place(NamedTuple):
    """Where an id belongs."""

    split: str
    study: str
    patient: str
    order: int


class _Known:
    """Ids of a cohort, as volumes or as studies."""

    def __init__(self, cohort: Cohort, *, whole: bool) -> None:
        self.whole = whole
        self.places: dict[str, _Place] = {}
        for study in cohort.studies():
            names = (study.study_id,) if whole else study.volume_ids
            for order, name in enumerate(names):
                place = _Place(study.split, study.study_id, study.patient_id, order)
                self.places[name] = place

    def rows(self, ids: Sequence[str], split: str) -> list[int]:
        """Rows of a split, in the cohort's order."""
        place = {name: i for i, name in enumerate(ids)}
        return [place[n] for n, p in self.places.items() if p.split == split and n in place]

    def missing(self, ids: Sequence[str], split: str) -> int:
        """How many of a split's ids a file does not have."""
        held = set(ids)
        return sum(p.split == split and n not in held for n, p in self.places.items())


def read_scores(
    path: Path,
    cohort: Cohort,
    *,
    splits: Sequence[str] = SPLITS,
    logit_scale: float | None = None,
) -> Foreign:
    """Read a file of scores or embeddings.

    Args:
        path: CSV or NPZ.
        cohort: Whose studies it speaks of.
        splits: To be read; rows of other splits are counted and left aside.
        logit_scale: The model's own factor on cosines; None = what an NPZ says, or not known.

    Returns:
        Tables and embeddings by split. `counts` names what is missing: `missing rows: <split>`
        and `NaN: <finding>` (`--allow-missing` and the protocol say what they count as).

    Raises:
        ProtocolError: Another ending; an unknown or repeated id, a value that is no number or
            infinite, a column that is neither an id nor a finding of the cohort, one side of
            cosines only, shapes that do not fit; or no row of these splits.
        SourceError: The CSV cannot be read.
    """
    if not path.is_file() or path.suffix not in ENDINGS:
        raise ProtocolError(
            f"{path.name}: no such file, or neither CSV nor NPZ",
            expected="scores.csv or embeddings.npz",
            fix="see docs/howto/evaluate.md for the columns and arrays",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".csv":
        return _read_csv(path, cohort, digest, splits=splits, logit_scale=logit_scale)
    return _read_npz(path, cohort, digest, splits=splits, logit_scale=logit_scale)


def _read_csv(
    path: Path, cohort: Cohort, digest: str, *, splits: Sequence[str], logit_scale: float | None
) -> Foreign:
    """Read a table of scores or cosines."""
    rows = list(read_delimited(path))
    columns = list(rows[0][1]) if rows else []
    key = next((name for name in KEYS if name in columns), "")
    if not key:
        raise ProtocolError(
            f"{path.name}: {len(rows)} rows, and no column names the volume or study",
            expected=f"a column {' or '.join(KEYS)} and at least one row",
            fix="add it",
        )
    ids = [bare_id(row[key]) for _, row in rows]
    lines = [line for line, _ in rows]
    known = _Known(cohort, whole=key == "study_id")
    _check_ids(path.name, ids, lines, known)
    names = [n for n in columns if n not in (*KEYS, "patient_id")]
    findings, sides = _findings(path.name, names, cohort)
    values = {n: np.array([_cell(path.name, n, *row) for row in rows]) for n in names}
    parts = {side: _stacked(values, findings, side) for side in ((*_SIDES,) if sides else ("",))}
    patients = tuple(row["patient_id"] for _, row in rows) if "patient_id" in columns else ()
    tables = {}
    for split in splits:
        index = known.rows(ids, split)
        if index:
            tables[split] = _table(
                [ids[i] for i in index],
                known,
                findings,
                {side: part[index] for side, part in parts.items()},
                logit_scale=logit_scale,
                patients=tuple(patients[i] for i in index) if patients else (),
            )
    counts = _counted(ids, known, splits)
    for f, name in enumerate(findings):
        gone = int(np.any([np.isnan(part[:, f]) for part in parts.values()], axis=0).sum())
        counts |= {f"NaN: {name}": gone} if gone else {}
    _check_some(path.name, tables, splits)
    return Foreign(name=path.stem, digest=digest, tables=tables, counts=counts)


def _read_npz(
    path: Path, cohort: Cohort, digest: str, *, splits: Sequence[str], logit_scale: float | None
) -> Foreign:
    """Read embeddings, and make scores where prompts stand beside them."""
    held = _arrays(path)
    ids = [bare_id(str(name)) for name in held["ids"]]
    known = _Known(cohort, whole=False)
    if not any(name in known.places for name in ids):
        known = _Known(cohort, whole=True)
    _check_ids(path.name, ids, list(range(1, len(ids) + 1)), known)
    findings = tuple(str(name) for name in held.get("findings", ()))
    _check_shapes(path.name, held, len(ids), len(findings))
    if findings:
        _findings(path.name, list(findings), cohort)
    scale = logit_scale
    if scale is None and "logit_scale" in held:
        scale = float(held["logit_scale"])
    tables, embeddings, tokens = {}, {}, {}
    for split in splits:
        index = known.rows(ids, split)
        if not index:
            continue
        embeddings[split] = rows = _embedded(held, index, ids, known, cohort)
        if "tokens" in held:
            near_mm = held["centres_mm"][index].astype(np.float64)
            tokens[split] = (held["tokens"][index].astype(np.float64), near_mm)
        if findings:
            prompts = held["prompts"].astype(np.float64)
            sides = (unit_rows(prompts[:, k], findings, what=_SIDES[k]) for k in (0, 1))
            parts = {
                side: cosines(rows.image, rows_of_side, decimals=None)
                for side, rows_of_side in zip(_SIDES, sides, strict=True)
            }
            named = [ids[i] for i in index]
            tables[split] = _table(named, known, findings, parts, logit_scale=scale)
    _check_some(path.name, embeddings, splits)
    return Foreign(
        name=path.stem,
        digest=digest,
        tables=tables,
        embeddings=embeddings,
        tokens=tokens,
        counts=_counted(ids, known, splits),
    )


def _check_some(name: str, found: Mapping[str, object], splits: Sequence[str]) -> None:
    """Refuse a file without any row that is wanted."""
    if not found:
        raise ProtocolError(
            f"{name}: no row belongs to split {' or '.join(splits)}",
            expected="rows of the evaluated split",
            fix="score that split",
        )


def bare_id(name: str) -> str:
    """Give an id without the ending of a file."""
    told = name.strip()
    for ending in (".nii.gz", ".nii", ".npz"):
        told = told.removesuffix(ending)
    return told


def _check_ids(name: str, ids: Sequence[str], lines: Sequence[int], known: _Known) -> None:
    """Refuse ids that the cohort does not have, and ids that stand twice."""
    what = "study" if known.whole else "volume"
    strange = [line for one, line in zip(ids, lines, strict=True) if one not in known.places]
    if strange:
        raise ProtocolError(
            f"{name}: {len(strange)} of {len(ids)} rows name no {what} of the cohort, "
            f"the first: row {strange[0]}",
            expected=f"{what} ids as the cohort lists them (endings of files are left out)",
            fix="score this cohort, or prepare the volumes that were scored",
        )
    seen: dict[str, int] = {}
    twice = [
        (line, seen[one])
        for one, line in zip(ids, lines, strict=True)
        if seen.setdefault(one, line) != line
    ]
    if twice:
        raise ProtocolError(
            f"{name}: {len(twice)} rows repeat a {what}, the first: row {twice[0][0]}, "
            f"also row {twice[0][1]}",
            expected=f"one row a {what}",
            fix="remove repeated rows; distributed samplers pad with copies",
        )


def _findings(name: str, columns: Sequence[str], cohort: Cohort) -> tuple[tuple[str, ...], bool]:
    """Findings of the columns, and whether they are pairs of cosines."""
    marked = [c for c in columns if c.partition(":")[0] in _SIDES and ":" in c]
    if marked and len(marked) < len(columns):
        raise ProtocolError(
            f"{name}: {len(marked)} columns of cosines beside {len(columns) - len(marked)} others",
            expected="either <finding> columns, or positive:<finding> and negative:<finding>",
            fix="give one kind",
        )
    findings = tuple(dict.fromkeys(c.partition(":")[2] if marked else c for c in columns))
    sides = {f"{side}:{finding}" for side in _SIDES for finding in findings}
    if marked and sides != set(marked):
        lone = sorted(sides - set(marked))[0]
        raise ProtocolError(
            f"{name}: column {lone!r} is missing",
            expected="both sides of every finding",
            fix="give both; a score needs the negative side too",
        )
    labels = {label for study in cohort.studies() for label in study.labels}
    strange = [finding for finding in findings if finding not in labels | _asked()]
    if strange or not findings:
        raise ProtocolError(
            f"{name}: {len(strange)} of {len(findings)} columns are no finding"
            + (f", the first: {strange[0][:60]!r}" if strange else ""),
            expected="findings as the labels of the cohort or a protocol name them",
            fix="rename or remove these columns",
        )
    return findings, bool(marked)


def _asked() -> set[str]:
    """Findings that some protocol asks for."""
    from t3d.judge.data.classes import CLASSES

    return {finding for findings in CLASSES.values() for finding in findings}


def _cell(name: str, column: str, line: int, row: Mapping[str, str]) -> float:
    """One number; NaN for an empty cell."""
    told = row[column].strip()
    if told.casefold() in _ABSENT:
        return float("nan")
    try:
        value = float(told)
    except ValueError:
        value = float("inf")
    if not np.isfinite(value):
        raise ProtocolError(
            f"{name}: row {line}, column {column!r} holds no finite number",
            expected="a number, or an empty cell where there is none",
            fix="correct the cell",
        )
    return value


def _stacked(values: Mapping[str, Floats], findings: Sequence[str], side: str) -> Floats:
    """(N, F) of one side."""
    return np.stack([values[f"{side}:{name}" if side else name] for name in findings], axis=1)


def _table(
    ids: Sequence[str],
    known: _Known,
    findings: tuple[str, ...],
    parts: Mapping[str, Floats],
    *,
    logit_scale: float | None,
    patients: tuple[str, ...] = (),
) -> ScoreTable:
    """A table of rows that are known."""
    places = [known.places[name] for name in ids]
    return ScoreTable(
        findings=findings,
        volume_ids=tuple(ids),
        study_ids=tuple(place.study for place in places),
        order=tuple(place.order for place in places),
        scores=parts.get(""),
        positive=parts.get("positive"),
        negative=parts.get("negative"),
        logit_scale=logit_scale,
        patient_ids=patients,
        whole_studies=known.whole,
    )


def _counted(ids: Sequence[str], known: _Known, splits: Sequence[str]) -> dict[str, int]:
    """Rows that are missing or left aside."""
    other = sum(known.places[name].split not in splits for name in ids)
    counts = {f"missing rows: {split}": known.missing(ids, split) for split in splits}
    return {k: v for k, v in {**counts, "rows of other splits": other}.items() if v}


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the arrays that are known; never an object."""
    try:
        # the file is ours to close: numpy leaves it open where it is no archive
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            kept = _ARRAYS if isinstance(held, np.lib.npyio.NpzFile) else ()
            found = {name: held[name] for name in kept if name in held}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ProtocolError(
            f"{path.name} cannot be read ({type(error).__name__})",
            expected="an NPZ of plain arrays, without pickled objects",
            fix="write it with numpy.savez(ids=numpy.array([...]), image=...)",
        ) from error
    if "ids" not in found or "image" not in found:
        raise ProtocolError(
            f"{path.name} holds {', '.join(found) or 'none of the arrays'}",
            expected="ids and image; optionally " + ", ".join(_ARRAYS[2:]),
            fix="write both",
        )
    return found


def _check_shapes(name: str, held: Mapping[str, NDArray[np.generic]], n: int, f: int) -> None:
    """Refuse arrays that do not belong together."""
    d = held["image"].shape[-1] if held["image"].ndim == 2 else -1
    tokens = held["tokens"].shape if "tokens" in held else ()
    wanted: dict[str, tuple[int, ...]] = {
        "image": (n, d),
        "text": (n, d),
        "prompts": (f, 2, d),
        "logit_scale": (),
        "tokens": (n, *tokens[1:2], d),
        "centres_mm": (n, *tokens[1:2], 3),
    }
    wrong = [k for k, shape in wanted.items() if k in held and held[k].shape != shape]
    lone = [
        f"{one} without {other}"
        for pair in (("prompts", "findings"), ("tokens", "centres_mm"))
        for one, other in (pair, pair[::-1])
        if one in held and other not in held
    ]
    kinds = [k for k in wanted if k in held and held[k].dtype.kind not in "fiu"]
    if wrong or lone or kinds:
        shown = [f"{k} {held[k].shape}" for k in wrong] + lone + [f"{k} no number" for k in kinds]
        raise ProtocolError(
            f"{name}: {'; '.join(shown)} beside {n} ids and {f} findings",
            expected="image (N, D), text (N, D), prompts (F, 2, D) with findings (F,), "
            "tokens (N, L, D) with centres_mm (N, L, 3)",
            fix="write the arrays in these shapes",
        )


def _embedded(
    held: Mapping[str, NDArray[np.generic]],
    index: Sequence[int],
    ids: Sequence[str],
    known: _Known,
    cohort: Cohort,
) -> Embeddings:
    """Embeddings of one split; a row of text that is all NaN has no report."""
    names = [ids[i] for i in index]
    places = [known.places[name] for name in names]
    image = unit_rows(held["image"][index].astype(np.float64), names, what="image")
    text = np.full_like(image, np.nan)
    numbers = report_numbers([cohort.report(place.study) for place in places])
    if "text" in held:
        rows = held["text"][index].astype(np.float64)
        there = [i for i, row in enumerate(rows) if numbers[i] >= 0 and not np.isnan(row).all()]
        if there:
            text[there] = unit_rows(rows[there], [names[i] for i in there], what="report")
    told = [n if np.isfinite(text[i]).all() else -1 for i, n in enumerate(numbers)]
    return Embeddings(
        study_ids=tuple(place.study for place in places),
        patient_ids=tuple(place.patient for place in places),
        image=image,
        text=text,
        report_ids=tuple(told),
        volume_ids=() if known.whole else tuple(names),
        order=() if known.whole else tuple(place.order for place in places),
    )
