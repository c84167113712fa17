"""Tables of the evaluation page, each number beside what it is worth without an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t3d.judge.nulls import NULLS
from t3d.judge.published import figures_beside
from t3d.judge.strata import AGE_BANDS
from t3d.show.tables import Cell, Row, Table, fact_table, metric_table
from t3d.show.wording import NOT_MEASURED, has_interval, interval, is_measured, number, percent
from t3d.types import Metric, Result

SCORED = ("zero_shot", "supervised")
MACRO = "auroc:macro"
FREQUENT = "null:most_frequent_report"
_ONCE = ("version", "cohort", "recipe", "recipe_digest", "checkpoint", "step", "model_file_sha256")
_WHOLE = ("localization", "pools")  # tasks whose numbers are all summaries
_ERRORS = ("difference:rank:", "difference:depth:error", "difference:depth:cell")
_LOST = Metric(name="", value=math.nan)
_WORDS = {
    "t2i": "report to image",
    "i2t": "image to report",
    "v2v": "volume to volume",
}


def named(result: Result) -> Mapping[str, Metric]:
    """Metrics of a result by name."""
    return {metric.name: metric for metric in result.metrics}


def scored(results: Sequence[Result]) -> list[Result]:
    """Classifications that have numbers."""
    return [r for r in results if r.task in SCORED and r.metrics]


def main_scores(results: Sequence[Result]) -> Result | None:
    """The classification that pictures are drawn from: bank prompts if there are, else the first.

    Never the best one: that would choose on evaluated patients.
    """
    known = scored(results)
    banked = [r for r in known if r.provenance.get("prompts") == "bank"]
    return next(iter(banked or known), None)


def column_of(result: Result) -> str:
    """What its score columns are called: `score:<this>:<finding>`."""
    return result.provenance.get("prompts") or result.provenance.get("scores", "")


def told_of(result: Result) -> str:
    """What was judged, in words."""
    if result.task == "zero_shot":
        asked = result.provenance.get("prompts")
        return f"zero-shot, prompts {asked}" if asked else f"scores {column_of(result)}"
    if result.task == "probe":
        share = float(result.provenance.get("label_share", "nan"))
        return f"linear probe, {100 * share:g} % of the labels"
    return {"supervised": f"scores {column_of(result)}"}.get(result.task, result.task)


def headline_table(results: Sequence[Result]) -> Table:
    """One row a headline number: interval, what needs no image, chance, ceiling, how many.

    Args:
        results: Of one protocol.
    """
    rows = [*_score_rows(results), *_retrieval_rows(results), *_place_rows(results)]
    return Table(
        caption="What was found, and what it is worth",
        corner="measure",
        columns=("value", "without an image", "difference", "chance", "perfect", "n"),
        rows=tuple(rows),
        note=(
            "95 % intervals over patients. Without an image: the strongest of what knows the "
            "header, the labels of other findings, the words alone or the commonest report, under "
            "the same rules; the difference is paired. Hatched: its interval holds 0, so the "
            "number needs no image; red: the model is worse than that."
        ),
    )


def _score_rows(results: Sequence[Result]) -> Iterator[Row]:
    """Classification, matched, probes, calibration."""
    for result in results:
        held = named(result)
        if result.task in SCORED and result.metrics:
            null, gap = _strongest(held)
            yield _row(f"{told_of(result)}: macro AUROC", held.get(MACRO), null, gap)
            if "matched_auroc:macro" in held:
                head = f"{told_of(result)}: AUROC among patients of one age and sex"
                yield _row(head, held["matched_auroc:macro"])
        elif result.task == "probe" and result.metrics:
            yield _row(f"{told_of(result)}: macro AUROC", held.get(MACRO))
        elif result.task == "calibration" and "ece:logistic:macro" in held:
            head = f"calibration error, {told_of_prompts(result)}"
            yield _row(head, held["ece:logistic:macro"])


def _retrieval_rows(results: Sequence[Result]) -> Iterator[Row]:
    """Recall both ways, volume to volume, pools."""
    blind = next((named(r) for r in results if r.task == FREQUENT), {})
    for result in results:
        held = named(result)
        if result.task == "retrieval":
            for name in _longest(held):
                words = f"{_WORDS[name[:3]]}, first {name.rpartition('@')[2]}"
                null = ("the most frequent report", blind[name]) if name in blind else None
                yield _row(words, held[name], null)
        elif result.task == "neighbours":
            names = [n for n in held if n.startswith("v2v_map@")]
            if names:
                yield _row(f"volume to volume, MAP@{names[-1].rpartition('@')[2]}", held[names[-1]])
        elif result.task == "pools":
            for name in [n for n in held if n.endswith("_exact") and "r@1:" in n][:2]:
                yield _row(f"pools, {name.removesuffix('_exact').replace('_', ' ')}", held[name])


def _longest(held: Mapping[str, Metric]) -> list[str]:
    """Recall at the longest list of each direction."""
    found: dict[str, str] = {}
    for name in held:
        way, _, k = name.partition("_r@")
        if way in ("t2i", "i2t") and k.isdigit():
            found[way] = max(found.get(way, name), name, key=lambda n: int(n.rpartition("@")[2]))
    return list(found.values())


def _place_rows(results: Sequence[Result]) -> Iterator[Row]:
    """Depth of sentences."""
    for result in results:
        held, head = named(result), result.provenance.get("headline", "")
        if result.task != "localization" or head not in held:
            continue
        blind = [n for n in held if n.startswith(f"{head}:minus:")]
        best = min(blind, key=lambda n: held[f"{head}:{n.rpartition(':')[2]}"].value, default="")
        name = best.rpartition(":")[2]
        null = (name.replace("_", " "), held[f"{head}:{name}"]) if best else None
        row, gap = "depth of a sentence: error in mm", held.get(best)
        yield _row(row, held[head], null, gap, digits=1, error=True)


def _strongest(held: Mapping[str, Metric]) -> tuple[tuple[str, Metric] | None, Metric | None]:
    """The null with the highest value, and how much better the model is."""
    nulls = {n.split(":")[1]: m for n, m in held.items() if n.startswith("null:")}
    if not nulls:
        return None, None
    name = max(nulls, key=lambda n: nulls[n].value)
    return (name.replace("_", " "), nulls[name]), held.get(f"over_null:{name}:{MACRO}")


def _row(
    head: str,
    metric: Metric | None,
    null: tuple[str, Metric] | None = None,
    gap: Metric | None = None,
    *,
    digits: int = 3,
    error: bool = False,
) -> Row:
    """A number and what stands beside it."""
    m = metric or _LOST
    beside = (
        Cell(text=number(null[1].value, digits), sub=f"{null[0]} {interval(null[1], digits)}")
        if null
        else Cell(text="", state="missing")
    )
    return Row(
        head=head,
        cells=(
            value_cell(m, digits=digits),
            beside,
            difference_cell(gap, digits=digits, error=error),
            *(Cell(text=_bare(v, digits)) for v in (m.chance, m.ceiling)),
            Cell(text=f"{m.n} {m.unit}".strip() if m.n else ""),
        ),
    )


def value_cell(metric: Metric, *, digits: int = 3) -> Cell:
    """A number with its interval, tinted as an AUROC where chance is a half."""
    if not is_measured(metric):
        return Cell(text=NOT_MEASURED, state="missing")
    half = metric.chance == 0.5
    weak = half and has_interval(metric) and metric.low <= 0.5 <= metric.high
    return Cell(
        text=number(metric.value, digits),
        sub=interval(metric, digits),
        tint=max(-1.0, min(1.0, 2 * metric.value - 1)) if half else 0.0,
        state="weak" if weak else "",
    )


def difference_cell(gap: Metric | None, *, digits: int = 3, error: bool = False) -> Cell:
    """A paired difference: hatched where its interval holds 0, red where it is for the worse."""
    if gap is None or not is_measured(gap):
        return Cell(text="", state="missing")
    weak = has_interval(gap) and gap.low <= 0 <= gap.high
    state = "weak" if weak else "bad" if (gap.value > 0) == error else ""
    return Cell(text=f"{gap.value:+.{digits}f}", sub=interval(gap, digits), state=state)


def null_table(result: Result) -> Table | None:
    """Every null beside the model; None where none was judged.

    Args:
        result: A classification.
    """
    held = named(result)
    names = [n.split(":")[1] for n in held if n.startswith("null:")]
    if not names:
        return None
    rows = tuple(
        Row(
            head=name.replace("_", " "),
            sub=NULLS.get(name, ""),
            cells=(
                value_cell(held[f"null:{name}:{MACRO}"]),
                difference_cell(held.get(f"over_null:{name}:{MACRO}")),
            ),
        )
        for name in names
    )
    fit = result.provenance.get("nulls_fit", "")
    return Table(
        caption=f"Scores that see no image, under the same rules: macro AUROC ({told_of(result)})",
        corner="knows only",
        columns=("macro AUROC", "model minus it"),
        rows=rows,
        note=f"Logistic ones were fitted on: {fit}. Hatched: the interval holds 0." if fit else "",
    )


def finding_table(result: Result) -> Table:
    """One row a finding: AUROC, among patients alike, average precision, how many.

    Args:
        result: A classification.
    """
    held, counts = named(result), result.counts
    findings = [n.removeprefix("positive:") for n in counts if n.startswith("positive:")]
    rows = []
    for name in findings:
        positive, negative = counts[f"positive:{name}"], counts.get(f"negative:{name}", 0)
        stated = positive + negative
        sizes = [held.get(f"auroc_{size}:{name}", _LOST) for size in ("large", "small")]
        cells = (
            value_cell(held.get(f"auroc:{name}", _LOST)),
            value_cell(held.get(f"matched_auroc:{name}", _LOST)),
            *(Cell(text=_bare(m.value), state="" if is_measured(m) else "missing") for m in sizes),
            value_cell(held.get(f"average_precision:{name}", _LOST)),
            *(
                Cell(text=_bare(held.get(f"{measure}:{name}", _LOST).value))
                for measure in ("sensitivity", "specificity")
            ),
            Cell(text=f"{positive}/{stated}", sub=percent(positive / stated) if stated else ""),
        )
        rows.append(Row(head=name, cells=cells))
    where = result.provenance.get("dev", "")
    return Table(
        caption=f"Every finding: {told_of(result)}",
        corner="finding",
        columns=(
            *("AUROC", "same age and sex", "large", "small", "average precision"),
            *("sensitivity", "specificity", "positive"),
        ),
        rows=tuple(rows),
        note="Hatched: the interval holds 0.5. Large, small: positives of that form against "
        "patients without the finding. Sensitivity and specificity at the protocol's threshold"
        + (f", chosen on {where}." if where else "."),
    )


def strata_table(result: Result) -> Table | None:
    """Macro measures by stratum, and the difference to the largest one.

    Args:
        result: Of a task `strata:<by>`.
    """
    held = named(result)
    by = result.provenance.get("by", "")
    rows = []
    bands = [name for name, _ in AGE_BANDS]
    names = [n.removeprefix(f"rows|{by}=") for n in result.counts if n.startswith("rows|")]
    names.sort(key=lambda n: (bands.index(n) if n in bands else -1, n))
    for name in names:
        size = result.counts[f"rows|{by}={name}"]
        cells = [held.get(f"{m}:macro|{by}={name}", _LOST) for m in ("auroc", "sensitivity")]
        cells.append(held.get(f"specificity:macro|{by}={name}", _LOST))
        gap = next(
            (m for n, m in held.items() if n.startswith(f"{MACRO}|{by}={name} minus ")), None
        )
        told = (*map(value_cell, cells), difference_cell(gap), Cell(text=str(size)))
        rows.append(Row(head=name or "not known", cells=told))
    if not rows:
        return None
    return Table(
        caption=f"By {by}: {told_of_prompts(result)}",
        corner=by,
        columns=("macro AUROC", "sensitivity", "specificity", "AUROC minus largest", "rows"),
        rows=tuple(rows),
        note="Thresholds are those of the whole. A macro number is over the findings with at "
        f"least {result.provenance.get('smallest_class', '')} positives and negatives in the "
        "stratum; the difference is over those that both have.",
    )


def told_of_prompts(result: Result) -> str:
    """Prompts or scores, for a result whose task is not a classification."""
    asked = result.provenance.get("prompts")
    return f"prompts {asked}" if asked else f"scores {result.provenance.get('scores', '')}"


def summary_table(result: Result) -> Table | None:
    """Summary numbers of a task; those of single findings stand in result.json.

    Args:
        result: Of any task.
    """
    chosen = [
        m
        for m in result.metrics
        if ":" not in m.name or m.name.endswith(":macro") or result.task in _WHOLE
    ]
    caption = f"{told_of(result)}, protocol {result.protocol}"
    return metric_table(caption, chosen) if chosen else None


def comparison_table(result: Result) -> Table:
    """Paired differences with another evaluation.

    Args:
        result: Of a task `compare:...`.
    """
    held = named(result)
    rows = tuple(
        Row(
            head=name.partition(":")[2],
            cells=(
                difference_cell(m, error=name.startswith(_ERRORS)),
                difference_cell(held.get(name.replace("difference:", "difference_closed:", 1))),
                Cell(text=f"{m.n} {m.unit}".strip()),
            ),
        )
        for name, m in held.items()
        if name.startswith("difference:")
    )
    other = result.provenance.get("minus", "")
    return Table(
        caption=f"{result.task.partition(':')[2]}: this evaluation minus {other}",
        corner="measure",
        columns=("difference, draws of patients", "difference, closed form", "n"),
        rows=rows,
        note="Both on the same patients. Hatched: the interval holds 0. Seeds are not covered.",
    )


def reversal_table(reversals: Sequence[Mapping[str, Any]]) -> Table | None:
    """Pairs of models that change places from one protocol to another; None where none does.

    Args:
        reversals: As `curve.json` has them.
    """
    if not reversals:
        return None
    rows = tuple(
        Row(
            head=" before ".join(one["models"]),
            sub=one["metric"],
            cells=(
                *(
                    Cell(text=f"{gap['value']:+.3f}", sub=f"{protocol}")
                    for protocol, gap in zip(one["protocols"], one["differences"], strict=True)
                ),
                Cell(text="yes" if one["certain"] else "patients alone may explain it"),
            ),
        )
        for one in reversals
    )
    return Table(
        caption="Models that change places when nothing but the rules changes",
        corner="models",
        columns=("difference", "difference under other rules", "both intervals exclude 0"),
        rows=rows,
        kind="words",
    )


def published_table(results: Sequence[Result], corpus: str) -> Table | None:
    """Published figures beside ours, only where protocol and sample set agree.

    Args:
        results: Any.
        corpus: Kind of the cohort's source.
    """
    rows = [
        Row(
            head=f"{metric}, {figure.model}",
            sub=f"protocol {result.protocol}",
            cells=(
                Cell(text=number(figure.value), sub=f"{figure.source} ({figure.tag})"),
                value_cell(named(result)[metric]),
            ),
        )
        for result in results
        for metric, figures in figures_beside(corpus, result).items()
        for figure in figures
    ]
    if not rows:
        return None
    return Table(
        caption="Published figures of the same protocol on the same sample",
        corner="measure",
        columns=("published", "here"),
        rows=tuple(rows),
    )


def left_out_table(results: Sequence[Result]) -> Table:
    """Everything that was left out or counted otherwise, by task and reason."""
    rows = [
        Row(head=f"{told_of(r)}, {r.protocol}", cells=(Cell(text=reason), Cell(text=str(count))))
        for r in results
        if r.metrics  # why others have none is listed apart
        for reason, count in r.excluded.items()
        if count
    ]
    return Table(
        caption="Left out or counted otherwise",
        corner="task",
        columns=("reason", "how many"),
        rows=tuple(rows),
        kind="words",
    )


def not_run(results: Sequence[Result]) -> list[tuple[str, str]]:
    """(task and protocol, reason) of everything that could not be measured."""
    return [
        (f"{r.task}, {r.protocol}", reason.removeprefix("not run: "))
        for r in results
        if not r.metrics
        for reason in r.excluded
    ]


def provenance_tables(results: Sequence[Result]) -> list[Table]:
    """What all results rest on, then what each does."""
    shared = {
        key: value
        for key, value in (results[0].provenance if results else {}).items()
        if all(r.provenance.get(key, value) == value for r in results)
    }
    order = {k: shared[k] for k in (*_ONCE, *shared) if k in shared}
    tables = [fact_table("What everything here rests on", order)]
    rows = []
    for result in results:
        own = {k: v for k, v in result.provenance.items() if k not in shared}
        told = "; ".join(f"{key} {value}" for key, value in own.items())
        counts = "; ".join(f"{n} {v}" for n, v in result.counts.items() if ":" not in n)
        rows.append(
            Row(
                head=told_of(result),
                sub=result.protocol,
                cells=(Cell(text=told), Cell(text=counts)),
            )
        )
    each = Table(
        caption="What each result rests on",
        corner="task",
        columns=("provenance", "counts"),
        rows=tuple(rows),
        kind="words",
    )
    return [*tables, each]


def _bare(value: float, digits: int = 3) -> str:
    """A number, or nothing where there is none."""
    return number(value, digits) if math.isfinite(value) else ""
