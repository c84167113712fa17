"""A page to check labels by eye: a random sample of each finding and value, evidence marked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t3d.cohort.labels import compare
from t3d.errors import StoreError
from t3d.show.page import fill_template, write_page
from t3d.show.tables import Cell, Row, Table
from t3d.text.agreement import Ratio
from t3d.text.sections import join_sections

if TYPE_CHECKING:
    from t3d.cohort.schema import LabelRow
    from t3d.cohort.store import Cohort
    from t3d.types import Report

PER_STRATUM = 3  # studies of each finding and value
_CONTEXT = 400  # characters shown on either side of the evidence
_LONGEST = 6000  # characters of a report that says nothing of a finding
_WORDS: Mapping[int | None, tuple[str, str]] = {
    1: ("present", "hit"),
    0: ("denied", "miss"),
    None: ("not stated", "drawn"),
}  # value -> word and css class


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One label as the template draws it; `before`, `marked` and `after` make up the passage."""

    study_id: str
    value: str
    kind: str  # css class
    others: str  # what other origins say
    place: str  # section and report
    before: str
    marked: str  # "" = no evidence
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One finding: how many labels there are, and those drawn."""

    name: str
    counts: str
    rows: tuple[Shown, ...]


def label_audit(
    cohort: Cohort,
    origin: str,
    out: Path,
    *,
    per_stratum: int = PER_STRATUM,
    seed: int = 0,
) -> Path:
    """Draw the page: for each finding some studies of each value, with the passage that says so.

    The page holds text of reports: treat it as you treat the reports. The draw depends on
    nothing but the seed and the labels. Shares of right labels in such a sample belong to its
    strata, not to the cohort: weight them by the counts shown.

    Args:
        cohort: An open cohort.
        origin: Whose labels to check.
        out: File to write, or a folder that gets `report.html`.
        per_stratum: Most studies of each finding and value.
        seed: Of the draw.

    Returns:
        The file written.

    Raises:
        StoreError: Nothing was said in the cohort under that origin.
    """
    rows = cohort.labels(origin)
    if not rows:
        raise StoreError(
            f"cohort {cohort.path.name}: no labels of origin {origin!r}",
            expected=f"one of {', '.join(cohort.label_origins) or 'none at all'}",
            fix="run `t3d label` first, or name one of them",
        )
    others = _others(cohort, origin)
    findings = []
    for name in dict.fromkeys(row.name for row in rows):
        strata = {v: [r for r in rows if r.name == name and r.value == v] for v in _WORDS}
        drawn = [
            row for v, held in strata.items() for row in _draw(held, per_stratum, (seed, name, v))
        ]
        findings.append(
            Drawn(
                name=name,
                counts=", ".join(f"{len(held)} {_WORDS[v][0]}" for v, held in strata.items()),
                rows=tuple(_shown(row, cohort.reports(row.study_id), others) for row in drawn),
            )
        )
    page = fill_template(
        "label_audit.html.jinja",
        title="t3d label audit",
        cohort=cohort.path.name,
        origin=origin,
        seed=seed,
        findings=findings,
        tables=[
            _agreement_table(cohort, other, origin)
            for other in cohort.label_origins
            if other != origin and _common(cohort, other, origin)
        ],
    )
    return write_page(page, out)


def _draw(held: Sequence[LabelRow], most: int, seed: tuple[object, ...]) -> list[LabelRow]:
    """Draw some rows of one stratum, in the order of studies."""
    chosen = random.Random(repr(seed)).sample(range(len(held)), min(most, len(held)))
    return [held[i] for i in sorted(chosen)]


def _others(cohort: Cohort, origin: str) -> dict[tuple[str, str], list[str]]:
    """What the other origins say of a study and finding, in words."""
    said: dict[tuple[str, str], list[str]] = {}
    for other in cohort.label_origins:
        if other != origin:
            for row in cohort.labels(other):
                told = f"{other}: {_WORDS[row.value][0]}"
                said.setdefault((row.study_id, row.name), []).append(told)
    return said


def _shown(
    row: LabelRow, reports: Sequence[Report], others: Mapping[tuple[str, str], list[str]]
) -> Shown:
    """One label for the template."""
    word, kind = _WORDS[row.value]
    before, marked, after, place = "", "", "", "no passage is on record"
    if row.section:
        text = getattr(reports[row.report], row.section)
        before, marked, after = text[: row.start], text[row.start : row.end], text[row.end :]
        place = row.section + (f" of report {row.report + 1}" if row.report else "")
    elif row.value is None and reports:
        before = "\n\n".join(join_sections(report) for report in reports)[:_LONGEST]
        place = "the whole report"
    return Shown(
        study_id=row.study_id,
        value=word,
        kind=kind,
        others="; ".join(others.get((row.study_id, row.name), ())),
        place=place,
        before=before[-_CONTEXT:] if marked else before,
        marked=marked,
        after=after[:_CONTEXT],
    )


def _common(cohort: Cohort, other: str, origin: str) -> bool:
    """Tell whether two origins speak of anything in common."""
    keys = [{(r.study_id, r.name) for r in cohort.labels(one)} for one in (other, origin)]
    return bool(keys[0] & keys[1])


def _agreement_table(cohort: Cohort, reference: str, origin: str) -> Table:
    """Precision, recall and kappa against another origin."""
    rows = []
    for name, one in compare(cohort, reference, origin).items():
        ratios = [one.precision(1), one.recall(1), one.precision(0), one.recall(0)]
        ratios += [one.kappa("present"), one.kappa()]
        rows.append(Row(head=name, cells=tuple(_ratio_cell(ratio) for ratio in ratios)))
    return Table(
        caption=f"{origin} against {reference}",
        corner="finding",
        columns=(
            "precision of present",
            "recall of present",
            "precision of denied",
            "recall of denied",
            "kappa of present",
            "kappa of all three",
        ),
        rows=tuple(rows),
        note="95 % intervals: Wilson. Neither origin is the truth.",
    )


def _ratio_cell(ratio: Ratio) -> Cell:
    """A ratio over its counts and interval."""
    if ratio.value != ratio.value:
        return Cell(text="-", state="missing")
    return Cell(
        text=f"{ratio.value:.2f}",
        sub=f"{ratio.hits}/{ratio.n}, {ratio.low:.2f} to {ratio.high:.2f}",
    )
