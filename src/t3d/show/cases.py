"""Hits and misses: which test patients are shown, chosen by a stated rule, and what is shown.

`placed` of a patient with a finding is the share of patients without it who score lower, ties
counting half: the mean of it over the patients with the finding is the AUROC. Check: score 3
against 1, 3, 5, 7 -> (1 + 0.5) / 4 = 0.375.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from t3d.errors import SourceError
from t3d.show.figures import LUNG, SOFT, Slice, Tile, axial, data_uri, depth_of, single
from t3d.show.wording import number, percent
from t3d.text.findings import CT_RATE_18
from t3d.types import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.types import Sentence, Volume

NUM_HITS = 3
NUM_MISSES = 3
NUM_ALARMS = 2
NUM_DRAWN = 2
RULE = (
    f"The {NUM_HITS} best placed and the {NUM_MISSES} worst placed patients with a finding, the "
    f"{NUM_ALARMS} best placed patients without it, each of another patient and another finding; "
    f"and {NUM_DRAWN} patients drawn by a hash of their id, whatever came out. Placed: the share "
    "of patients without the finding who score lower."
)


class Listed(Protocol):
    """A study as a cohort lists it."""

    @property
    def study_id(self) -> str:
        """Its pseudonymous id."""
        ...

    @property
    def volume_ids(self) -> tuple[str, ...]:
        """Its volumes; the first one is shown."""
        ...


class Patients(Protocol):
    """What is needed of a cohort to show its patients; `t3d.cohort.store.Cohort` has it."""

    def studies(self, split: str) -> Sequence[Listed]:
        """The studies of a split."""
        ...

    def volume(self, volume_id: str) -> Volume:
        """Voxels and geometry."""
        ...

    def mask(self, volume_id: str, name: str) -> NDArray[np.uint8] | None:
        """The mask "lesion": finding index + 1 at each voxel; None where there is none."""
        ...

    def report(self, study_id: str) -> Report | None:
        """The report, if there is one."""
        ...

    def sentences(self, study_id: str) -> Sequence[Sentence]:
        """Where the report speaks of which finding."""
        ...


class Fine(Protocol):
    """Draws a slice of a study again on a finer grid; possible for phantoms only."""

    def __call__(self, study_id: str, volume: Volume, z_mm: float) -> Volume | None:
        """A thin volume around the depth, or None where it cannot be drawn."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`per_study.csv` in columns."""

    study_ids: tuple[str, ...]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]  # prompt set -> finding -> (N,)
    labels: Mapping[str, NDArray[np.float64]]  # finding -> (N,); NaN = not stated
    ranks: Mapping[str, NDArray[np.float64]]  # "t2i", "i2t" -> (N,), 1 = first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A patient and the finding to look at."""

    kind: str  # "hit", "miss", "false alarm", "drawn"
    row: int
    finding: str
    placed: float  # 0 to 1; share of the patients of the other truth who score lower
    truth: int  # 1 = has the finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture the page carries within itself."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLine:
    """One finding of a shown patient."""

    finding: str
    truth: str  # "yes", "no", "not stated"
    score: str
    placed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One shown patient."""

    kind: str
    study_id: str
    finding: str
    verdict: str
    sentence: str
    report: str
    retrieval: str
    pictures: tuple[Picture, ...]
    lines: tuple[ScoreLine, ...]


def read_scores(path: Path) -> Scores:
    """Read `per_study.csv` of a recipe's results.

    Args:
        path: Columns study_id, `score:SET:FINDING`, `label:FINDING`, `rank:t2i`, `rank:i2t`;
            an empty field is NaN.

    Returns:
        Its columns as arrays, rows in the file's order.

    Raises:
        SourceError: The file is missing or has no `study_id` column.
    """
    if not path.exists():
        raise SourceError(f"{path.name} is missing from {path.parent.name}", fix="evaluate again")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if rows and "study_id" not in rows[0]:
        raise SourceError(
            f"{path.name} of {path.parent.name} has columns {', '.join(sorted(rows[0])[:5])}",
            expected="a column study_id",
            fix="evaluate again",
        )
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    labels: dict[str, NDArray[np.float64]] = {}
    ranks: dict[str, NDArray[np.float64]] = {}
    for name in rows[0] if rows else ():
        kind, _, rest = name.partition(":")
        if kind == "score":
            prompt_set, _, finding = rest.partition(":")
            scores.setdefault(prompt_set, {})[finding] = _column(rows, name)
        elif kind == "label":
            labels[rest] = _column(rows, name)
        elif kind == "rank":
            ranks[rest] = _column(rows, name)
    ids = tuple(row["study_id"] for row in rows)
    return Scores(study_ids=ids, scores=scores, labels=labels, ranks=ranks)


def placed(score: float, others: NDArray[np.float64]) -> float:
    """Share of `others` below `score`, ties counting half.

    Args:
        score: Of one patient.
        others: Of the patients on the other side, (N,).

    Returns:
        0 to 1; NaN where there are no others.
    """
    if len(others) == 0:
        return math.nan
    return float((others < score).mean() + 0.5 * (others == score).mean())


def pick(scores: Scores, prompt_set: str) -> tuple[Pick, ...]:
    """Choose the patients to show by the rule stated in `RULE`.

    Args:
        scores: Of one recipe.
        prompt_set: "bank" or "template".

    Returns:
        Hits, misses, false alarms, then drawn ones; fewer where there are not enough.
    """
    table = scores.scores.get(prompt_set, {})
    positive = _candidates(scores, table, truth=1)
    negative = _candidates(scores, table, truth=0)
    used: set[str] = set()
    chosen = [
        *_spread("hit", sorted(positive, key=lambda c: (-c.placed, c.row)), NUM_HITS, used),
        *_spread("miss", sorted(positive, key=lambda c: (c.placed, c.row)), NUM_MISSES, used),
        *_spread(
            "false alarm", sorted(negative, key=lambda c: (-c.placed, c.row)), NUM_ALARMS, used
        ),
    ]
    return (*chosen, *_drawn(scores, positive, negative, used))


def build(
    scores: Scores, prompt_set: str, patients: Patients, *, fine: Fine | None = None
) -> tuple[Case, ...]:
    """Make the shown cases of one recipe.

    Args:
        scores: Of one recipe.
        prompt_set: "bank" or "template".
        patients: Where volumes, masks and reports come from.
        fine: Draws a patient again on a finer grid, where that can be done.

    Returns:
        Cases with pictures inside.
    """
    volumes = {study.study_id: study.volume_ids for study in patients.studies("test")}
    return tuple(
        _case(chosen, scores, prompt_set, _Shown(patients, volumes, fine))
        for chosen in pick(scores, prompt_set)
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """Where pictures and reports of the shown patients come from."""

    patients: Patients
    volumes: Mapping[str, tuple[str, ...]]
    fine: Fine | None


def _case(chosen: Pick, scores: Scores, prompt_set: str, shown: _Shown) -> Case:
    """One case with everything that is shown of it."""
    study_id = scores.study_ids[chosen.row]
    report = shown.patients.report(study_id) or Report()
    sentences = shown.patients.sentences(study_id)
    return Case(
        kind=chosen.kind,
        study_id=study_id,
        finding=chosen.finding,
        verdict=_verdict(chosen),
        sentence=_sentence(report, sentences, chosen.finding),
        report=f"{report.findings}\n\n{report.impression}".strip(),
        retrieval=_retrieval(scores, chosen.row),
        pictures=_pictures(study_id, chosen.finding, shown),
        lines=_lines(scores, prompt_set, chosen),
    )


def _candidates(
    scores: Scores, table: Mapping[str, NDArray[np.float64]], *, truth: int
) -> list[Pick]:
    """Every (patient, finding) of one truth, placed against the other side."""
    found = []
    for finding, values in table.items():
        labels = scores.labels.get(finding)
        if labels is None:
            continue
        others = values[(labels == 1 - truth) & np.isfinite(values)]
        for row in np.flatnonzero((labels == truth) & np.isfinite(values)):
            share = placed(float(values[row]), others)
            if math.isfinite(share):
                found.append(
                    Pick(kind="", row=int(row), finding=finding, placed=share, truth=truth)
                )
    return found


def _spread(kind: str, ordered: Iterable[Pick], count: int, used: set[str]) -> list[Pick]:
    """The first `count`, each of another patient; within a kind each of another finding."""
    chosen: list[Pick] = []
    findings: set[str] = set()
    for candidate in ordered:
        if len(chosen) == count:
            break
        if str(candidate.row) in used or candidate.finding in findings:
            continue
        used.add(str(candidate.row))
        findings.add(candidate.finding)
        chosen.append(replace(candidate, kind=kind))
    return chosen


def _drawn(
    scores: Scores, positive: Sequence[Pick], negative: Sequence[Pick], used: set[str]
) -> list[Pick]:
    """Patients drawn by a hash of their id; each shows its first positive finding."""
    order = sorted(
        range(len(scores.study_ids)),
        key=lambda row: hashlib.sha256(scores.study_ids[row].encode()).hexdigest(),
    )
    chosen: list[Pick] = []
    for row in order:
        of_row = [c for c in (*positive, *negative) if c.row == row]
        if str(row) not in used and of_row and len(chosen) < NUM_DRAWN:
            chosen.append(replace(of_row[0], kind="drawn"))
    return chosen


def _verdict(chosen: Pick) -> str:
    """What came out, in words."""
    share = f"{100 * chosen.placed:.0f} %"
    if chosen.truth == 1:
        return f"Has {chosen.finding} and scores above {share} of the patients without it"
    return f"Has no {chosen.finding} and scores above {share} of the patients who have it"


def _sentence(report: Report, sentences: Sequence[Sentence], finding: str) -> str:
    """The sentence of the report that speaks of a finding, if one is known."""
    for sentence in sentences:
        if sentence.finding == finding and sentence.section in ("findings", "impression"):
            section = report.findings if sentence.section == "findings" else report.impression
            return section[sentence.start : sentence.end]
    return ""


def _retrieval(scores: Scores, row: int) -> str:
    """The ranks of this patient, in words."""
    total = len(scores.study_ids)
    words = {"t2i": "its report finds it at rank", "i2t": "it finds its report at rank"}
    parts = [
        f"{text} {scores.ranks[name][row]:g} of {total}"
        for name, text in words.items()
        if name in scores.ranks and math.isfinite(scores.ranks[name][row])
    ]
    return "; ".join(parts)


def _lines(scores: Scores, prompt_set: str, chosen: Pick) -> tuple[ScoreLine, ...]:
    """The finding looked at, the patient's other true ones, and the three false ones on top."""
    scored = []
    for finding, values in scores.scores.get(prompt_set, {}).items():
        labels = scores.labels.get(finding, np.full(len(values), np.nan))
        share = placed(float(values[chosen.row]), values[(labels == 0) & np.isfinite(values)])
        scored.append((finding, float(labels[chosen.row]), float(values[chosen.row]), share))
    scored.sort(key=lambda line: -line[3] if math.isfinite(line[3]) else 1.0)
    looked_at = [line for line in scored if line[0] == chosen.finding]
    others = [line for line in scored if line[0] != chosen.finding]
    true = [line for line in others if line[1] == 1]
    false = [line for line in others if line[1] != 1]
    words = {1.0: "yes", 0.0: "no"}
    return tuple(
        ScoreLine(
            finding=finding,
            truth=words.get(truth, "not stated"),
            score=number(score),
            placed=percent(share),
        )
        for finding, truth, score, share in (*looked_at, *true, *false[:3])
    )


def _pictures(study_id: str, finding: str, shown: _Shown) -> tuple[Picture, ...]:
    """Lung and soft tissue at the finding's slice, as the model saw it and drawn finely."""
    volume_ids = shown.volumes.get(study_id, ())
    if not volume_ids:
        return ()
    volume = shown.patients.volume(volume_ids[0])
    mask = _only(shown.patients.mask(volume_ids[0], "lesion"), finding)
    z_mm, place = _depth(volume, mask)
    pictures = _two(axial(volume, z_mm, mask=mask), f"as the model saw it; {place}", finding)
    again = shown.fine(study_id, volume, z_mm) if shown.fine is not None else None
    if again is not None:  # without an outline, so that nothing is hidden
        pictures += _two(axial(again, z_mm), "drawn finely", finding)
    return tuple(pictures)


def _two(cut: Slice, how: str, finding: str) -> list[Picture]:
    """The slice in both windows."""
    outlined = cut.mask is not None and bool(cut.mask.any())
    outline = f", {finding} outlined" if outlined else ""
    return [
        Picture(
            uri=data_uri(single(Tile(cut=cut, window=window))),
            alt=f"Axial slice at z {cut.at_mm:.0f} mm, {window.name} window, {how}{outline}",
            caption=f"{window.name}, z {cut.at_mm:.0f} mm, {how}{outline}",
        )
        for window in (LUNG, SOFT)
    ]


def _depth(volume: Volume, mask: NDArray[np.bool_] | None) -> tuple[float, str]:
    """The slice with most of the finding; the middle one where there is no mask of it."""
    if mask is None or not mask.any():
        return depth_of(volume, (volume.voxels.shape[0] - 1) // 2), "middle slice"
    return depth_of(volume, int(mask.sum(axis=(1, 2)).argmax())), "largest section"


def _only(lesion: NDArray[np.uint8] | None, finding: str) -> NDArray[np.bool_] | None:
    """The voxels of one finding."""
    if lesion is None or finding not in CT_RATE_18:
        return None
    only: NDArray[np.bool_] = lesion == CT_RATE_18.index(finding) + 1
    return only


def _column(rows: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    """One column as numbers; an empty field is NaN."""
    return np.array([float(row[name]) if row[name] else math.nan for row in rows])
