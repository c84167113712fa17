"""The page of an evaluation: what was found, what it is worth, and who it was wrong about.

Everything is read from the folder that `t3d evaluate` wrote; the cohort is only asked for pictures,
sentences and reports. A suite's folder holds one folder a protocol; their results are shown
together.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.errors import ProtocolError, SourceError, StoreError
from t3d.judge.protocols import PROTOCOLS
from t3d.judge.results import RESULT_FILE, read_results
from t3d.show import cases
from t3d.show import evaluation_charts as drawn
from t3d.show import evaluation_tables as told
from t3d.show.charts import Dot, DotChart, dot_chart
from t3d.show.figures import SOFT, Tile, axial, data_uri, depth_of, single
from t3d.show.page import PALETTE, fill_template, write_page
from t3d.show.redraw import phantom_redraw
from t3d.show.tables import Table
from t3d.types import Report, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

log = logging.getLogger(__name__)

NUM_STRIPS = 8
THUMBNAIL = 120  # px
QUOTED = 360  # characters of a report that asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One image that a report found."""

    study_id: str
    cosine: float
    own: bool
    uri: str  # "" = no picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A report and the images nearest to it."""

    study_id: str
    text: str
    rank: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A strip with the words it is about."""

    strip: drawn.Strip
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What an evaluation left."""

    path: Path
    results: tuple[Result, ...]
    scores: cases.Scores | None

    @property
    def first(self) -> list[Result]:
        """Results of the first protocol: the page's own."""
        name = self.results[0].protocol if self.results else ""
        return [r for r in self.results if r.protocol == name]

    def read(self, name: str) -> Any:
        """A JSON file beside the results; None = it is not there."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def evaluation_page(folder: Path, cohort: Cohort | None = None, out: Path | None = None) -> Path:
    """Draw the page of an evaluation.

    Args:
        folder: That `t3d evaluate` wrote, for one model or a suite.
        cohort: For pictures and reports; None = the page does without.
        out: File or folder to write; `folder/report.html` where none is given.

    Returns:
        The file written.

    Raises:
        ProtocolError: There is no `result.json`, or it is not a list of results.
    """
    held = _read(folder)
    main = told.main_scores(held.first)
    roc = drawn.roc_charts(held.scores, told.column_of(main)) if main and held.scores else []
    reliability = drawn.reliability_charts(
        (held.read("reliability.json") or {}).get("logistic", {})
    )
    page = fill_template(
        "evaluation.html.jinja",
        title="t3d evaluation",
        protocols=list(dict.fromkeys(r.protocol for r in held.results)),
        warnings=_warnings(held.results),
        headline=told.headline_table(held.first),
        nulls=_some(told.null_table(r) for r in told.scored(held.first)),
        findings=[told.finding_table(r) for r in told.scored(held.first)],
        roc=drawn.spread_out(roc),
        reliability=drawn.spread_out(reliability),
        strata=_some(told.strata_table(r) for r in held.results if r.task.startswith("strata:")),
        examples=_examples(held.read("examples.json") or [], cohort),
        strips=_strips(held.read("localization.json") or [], cohort),
        cases=_cases(held.scores, main, cohort),
        case_rule=cases.RULE,
        case_of=told.told_of(main) if main else "",
        comparisons=[
            told.comparison_table(r) for r in held.results if r.task.startswith("compare:")
        ],
        curve=_curve(held.results, held.read("curve.json")),
        reversals=told.reversal_table((held.read("curve.json") or {}).get("reversals", [])),
        published=_published(held.results, cohort),
        summaries=_some(told.summary_table(r) for r in held.results if _is_task(r)),
        not_run=told.not_run(held.results),
        left_out=told.left_out_table(held.results),
        notes=(held.read("suite.json") or {}).get("notes", []),
        provenance=told.provenance_tables(held.results),
    )
    return write_page(page, folder if out is None else out)


def _read(folder: Path) -> _Folder:
    """Results of a folder, or of the folders of its protocols; scores of the first of them."""
    places = [folder] if (folder / RESULT_FILE).is_file() else []
    places += [path.parent for path in sorted(folder.glob(f"*/{RESULT_FILE}"))]
    if not places:
        raise ProtocolError(
            f"no {RESULT_FILE} in folder {folder.name!r}",
            expected="a folder that `t3d evaluate` wrote",
            fix="run `t3d evaluate` first, or name its folder",
        )
    by_place = {place: read_results(place) for place in places}
    order = sorted(places, key=lambda place: "plain" not in {r.protocol for r in by_place[place]})
    results = tuple(result for place in order for result in by_place[place])
    table = next((r.per_study for r in results if r.per_study is not None), None)
    try:
        scores = cases.read_scores(table) if table is not None else None
    except SourceError as error:
        log.warning("no cases: %s", error)
        scores = None
    return _Folder(path=order[0], results=results, scores=scores)


def _some(tables: Any) -> list[Table]:
    """Those that are there."""
    return [table for table in tables if table is not None]


def _is_task(result: Result) -> bool:
    """Whether a result's summary numbers are shown in full."""
    return not result.task.startswith(("strata:", "compare:")) and bool(result.metrics)


def _warnings(results: Sequence[Result]) -> list[str]:
    """What must be said beside every number."""
    found: list[str] = []
    rules = {p.name: p.warnings for p in PROTOCOLS}
    for name in dict.fromkeys(r.protocol for r in results):
        found += [f"protocol {name}: {w}" for w in rules.get(name.partition("@")[0], ())]
    for result in results:
        lost = result.provenance.get("nulls_not_beaten", "none")
        if result.task in told.SCORED and lost != "none":
            names = lost.replace("_", " ")
            found.append(
                f"{told.told_of(result)}, protocol {result.protocol}: not told from what sees no "
                f"image: {names}"
            )
    for result in results:
        held, head = told.named(result), result.provenance.get("headline", "-")
        near = [n for n, m in held.items() if n.startswith(f"{head}:minus:") and not m.high < 0]
        if near:
            names = ", ".join(n.rpartition(":")[2].replace("_", " ") for n in near)
            found.append(f"localization, protocol {result.protocol}: not nearer than {names}")
    return found


def _published(results: Sequence[Result], cohort: Cohort | None) -> Table | None:
    """Published figures, where the cohort is of a public corpus."""
    corpus = "" if cohort is None else cohort.facts.get("source_kind", "")
    return told.published_table(results, corpus) if corpus else None


def _curve(results: Sequence[Result], curve: Mapping[str, Any] | None) -> list[DotChart]:
    """The same scores under several protocols; nothing where there is one."""
    if curve is not None:
        return [_of_models(metric, points) for metric, points in curve["points"].items() if points]
    rows = [r for r in told.scored(results) if told.MACRO in told.named(r)]
    if len({r.protocol for r in rows}) < 2:
        return []
    charts = []
    for name in (told.MACRO, "f1_weighted:macro", "accuracy:macro", "balanced_accuracy:macro"):
        dots = [
            Dot(name=f"{r.protocol}"[:20], value=m.value, low=m.low, high=m.high, colour=2)
            for r in rows
            if (m := told.named(r).get(name)) is not None
        ]
        charts.append(dot_chart(name, sorted(dots, key=lambda d: d.value), span=(0.0, 1.0)))
    return charts


def _of_models(metric: str, points: Sequence[Mapping[str, Any]]) -> DotChart:
    """Several models under several protocols, each model in a colour of its own."""
    models = list(dict.fromkeys(point["model"] for point in points))
    dots = [
        Dot(
            name=f"{point['protocol'][:12]} {point['model']}"[:22],
            value=point["value"],
            low=point["low"] if point["low"] is not None else math.nan,
            high=point["high"] if point["high"] is not None else math.nan,
            colour=models.index(point["model"]) % PALETTE,
        )
        for point in points
        if point["value"] is not None
    ]
    return dot_chart(metric, dots, span=(0.0, 1.0))


def _cases(
    scores: cases.Scores | None, main: Result | None, cohort: Cohort | None
) -> tuple[cases.Case, ...]:
    """Best and worst patients with pictures."""
    if scores is None or main is None or cohort is None:
        return ()
    studies = {study.study_id: study for study in cohort.studies("test")}
    if not set(scores.study_ids) <= studies.keys():
        return ()  # rows are volumes
    try:
        column = told.column_of(main)
        return cases.build(scores, column, cohort, fine=phantom_redraw(studies))
    except StoreError as error:
        log.warning("no cases: %s", error)
        return ()


def _examples(rows: Sequence[Mapping[str, Any]], cohort: Cohort | None) -> list[Example]:
    """Reports and the images they found."""
    if cohort is None:
        return []
    volumes = {study.study_id: study.volume_ids for study in cohort.studies("test")}
    return [
        Example(
            study_id=row["query"],
            text=_quoted(cohort.report(row["query"])),
            rank=f"{row['rank']:g} of {row['of']}",
            found=tuple(
                Found(
                    study_id=one["study_id"],
                    cosine=one["cosine"],
                    own=one["study_id"] == row["query"],
                    uri=_thumbnail(cohort, volumes.get(one["study_id"], ())),
                )
                for one in row["found"]
            ),
        )
        for row in rows
    ]


def _quoted(report: Report | None) -> str:
    """The beginning of a report, the impression first."""
    if report is None:
        return ""
    text = f"{report.impression} {report.findings}".strip()
    return text if len(text) <= QUOTED else text[: text.rfind(" ", 0, QUOTED)] + " ..."


def _thumbnail(cohort: Cohort, volume_ids: Sequence[str]) -> str:
    """The middle slice of a study's first volume; "" = it cannot be shown."""
    if not volume_ids:
        return ""
    try:
        volume = cohort.volume(volume_ids[0])
    except StoreError as error:
        log.warning("no picture: %s", error)
        return ""
    cut = axial(volume, depth_of(volume, (volume.voxels.shape[0] - 1) // 2))
    return data_uri(single(Tile(cut=cut, window=SOFT), pixels=THUMBNAIL))


def _strips(rows: Sequence[Mapping[str, Any]], cohort: Cohort | None) -> list[Placed]:
    """Depth curves and their sentences."""
    found = []
    for row, strip in drawn.strips(rows, NUM_STRIPS):
        report = None if cohort is None else cohort.report(row["study_id"])
        section, _, ends = row["key"].partition(":")
        words = getattr(report, section, "") if report is not None else ""
        start, _, end = ends.partition(":")
        sentence = words[int(start) : int(end)] if start.isdigit() and end.isdigit() else ""
        found.append(Placed(strip=strip, sentence=sentence))
    return found
