"""Tables of the pages: cells with a value, its interval and a tint, made from records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t3d.show.wording import (
    NOT_MEASURED,
    has_interval,
    interval,
    is_measured,
    number,
    percent,
    seconds,
)
from t3d.text.findings import CT_RATE_18
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.show.gates import Verdict
    from t3d.show.records import DemoRecord, RecipeRecord

PROMPT_SETS = ("bank", "template")
CELL = "cell:"
SIZES = ("macro", "large", "small")
RECALLS = ("t2i_r@5", "t2i_r@10", "i2t_r@5", "i2t_r@10")
RECALL_WORDS = {
    "t2i_r@5": "report to image, first 5",
    "t2i_r@10": "report to image, first 10",
    "i2t_r@5": "image to report, first 5",
    "i2t_r@10": "image to report, first 10",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell; `sub` stands small beneath the text."""

    text: str
    sub: str = ""
    tint: float = 0.0  # -1 (worse than chance) .. 0 (chance) .. 1 (perfect)
    state: str = ""  # css class: "missing", "good", "bad", "weak" or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row and its header cell."""

    head: str
    cells: tuple[Cell, ...]
    sub: str = ""
    kind: str = ""  # css class: "baseline" sets a row apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a caption that can be read alone."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    kind: str = ""  # css class: "words" keeps its columns wide enough to read


def score_table(demo: DemoRecord) -> Table:
    """Zero-shot scores of all recipes beside the baselines.

    Args:
        demo: What `summary.json` says.

    Returns:
        Columns bank and template, each macro, large and small; ceiling share; time; steps.
    """
    columns = tuple(f"{name}: {size}" for name in PROMPT_SETS for size in SIZES)
    rows = [_score_row(recipe) for recipe in demo.recipes]
    rows += [
        _baseline_row("supervised", "the same encoder, trained on labels", demo.supervised, demo),
        _baseline_row("logistic", "logistic regression on simple features", demo.logistic, demo),
        _shuffled_row(demo),
        _chance_row(demo.recipes),
    ]
    return Table(
        caption="Zero-shot classification on test patients: AUROC with its 95 % interval",
        corner="recipe",
        columns=(*columns, "gap closed", "core time", "steps"),
        rows=tuple(rows),
        note=(
            "macro: mean over findings. large / small: patients with the large / small form "
            "against patients without the finding. bank: prompts are sentences of training "
            "reports; template: class names put into sentences. Supervised and logistic use no "
            "prompts; their numbers stand under bank. Gap closed: share of the way from clip to "
            "supervised, bank macro."
        ),
    )


def recall_table(demo: DemoRecord) -> Table:
    """Retrieval both ways, the strict number beneath.

    Args:
        demo: What `summary.json` says.

    Returns:
        Columns R@5 and R@10 in both directions.
    """
    rows = [
        Row(head=recipe.name, cells=tuple(_recall_cell(recipe, name) for name in RECALLS))
        for recipe in demo.recipes
    ]
    chance = [_range([r.found(name).chance for r in demo.recipes]) for name in RECALLS]
    rows.append(Row(head="chance", cells=tuple(_plain(text) for text in chance), kind="baseline"))
    return Table(
        caption="Retrieval among the test patients: share found, with its 95 % interval",
        corner="recipe",
        columns=tuple(RECALL_WORDS[name] for name in RECALLS),
        rows=tuple(rows),
        note=(
            "A study whose report says the same counts as found; strict asks for the very same "
            "study. Ties count as the expected rank."
        ),
    )


def finding_table(demo: DemoRecord, prompt_set: str) -> Table:
    """One row a finding, one column a recipe.

    Args:
        demo: What `summary.json` says.
        prompt_set: "bank" or "template".

    Returns:
        Tinted cells; a cell whose interval holds 0.5 is marked as not told from chance.
    """
    baselines = [
        (name, metrics)
        for name, metrics in (("supervised", demo.supervised), ("logistic", demo.logistic))
        if any(finding in metrics for finding in CT_RATE_18)
    ]
    scores = [(r.name, r.zero_shot.get(prompt_set, {})) for r in demo.recipes] + baselines
    rows = tuple(
        Row(head=finding, cells=tuple(_auroc_cell(_get(m, finding)) for _, m in scores))
        for finding in CT_RATE_18
    )
    return Table(
        caption=f"AUROC per finding, {prompt_set} prompts, with 95 % intervals",
        corner="finding",
        columns=tuple(name for name, _ in scores),
        rows=rows,
        note="Hatched: the interval holds 0.5, so the finding is not told from chance.",
    )


def loss_table(recipes: Sequence[RecipeRecord]) -> Table:
    """Every loss term's last value against what it gives by chance.

    Args:
        recipes: Records of the recipes.

    Returns:
        One row a term and recipe.
    """
    rows = [
        Row(
            head=recipe.name,
            cells=(
                _plain(term),
                _plain(number(final)),
                _plain(number(chance)),
                _loss_verdict(final, chance),
            ),
        )
        for recipe in recipes
        for term, (final, chance) in recipe.losses.items()
    ]
    return Table(
        caption="Loss terms at the end of training against their chance values",
        corner="recipe",
        columns=("term", "at the end", "by chance", "reading"),
        rows=tuple(rows),
        note="By chance: the value of a model that cannot tell the patients apart.",
        kind="words",
    )


def gate_table(verdicts: Sequence[Verdict], caption: str) -> Table:
    """Verdicts as a table.

    Args:
        verdicts: From `gates`.
        caption: What they are about.

    Returns:
        One row a verdict, the state written out.
    """
    states = {"met": "good", "not met": "bad"}
    rows = tuple(
        Row(
            head=v.subject,
            cells=(
                Cell(text=v.state, state=states.get(v.state, "missing")),
                _plain(v.bound),
                _plain(v.found),
            ),
        )
        for v in verdicts
    )
    return Table(
        caption=caption,
        corner="of",
        columns=("verdict", "bound", "found"),
        rows=rows,
        kind="words",
    )


def fact_table(caption: str, facts: Mapping[str, str]) -> Table:
    """Two columns of facts; an empty one is "not recorded".

    Args:
        caption: What they are about.
        facts: Name to words.

    Returns:
        One row a fact.
    """
    rows = tuple(
        Row(head=name, cells=(Cell(text=text) if text else _missing("not recorded"),))
        for name, text in facts.items()
    )
    return Table(caption=caption, corner="what", columns=("recorded",), rows=rows)


def seconds_table(stages: Mapping[str, float]) -> Table:
    """Wall time per stage and its sum.

    Args:
        stages: Stage to seconds. Names that begin with "cell:" are trainings that ran side by
            side within a stage: they are shown below the sum and not in it.

    Returns:
        One row a stage, the sum of those that were measured, one row a training.
    """
    main = {name: value for name, value in stages.items() if not name.startswith(CELL)}
    cells = {name: value for name, value in stages.items() if name.startswith(CELL)}
    known = [value for value in main.values() if math.isfinite(value)]
    total = sum(known) if known else math.nan
    rows = [Row(head=name, cells=(_plain(seconds(value)),)) for name, value in main.items()]
    rows.append(Row(head="sum", cells=(_plain(seconds(total)),), kind="baseline"))
    for name, value in cells.items():
        head = name.removeprefix(CELL)
        rows.append(Row(head=head, sub="a part of the above", cells=(_plain(seconds(value)),)))
    return Table(
        caption="Wall time per stage", corner="stage", columns=("seconds",), rows=tuple(rows)
    )


def metric_table(caption: str, metrics: Sequence[Metric]) -> Table:
    """Metrics of one evaluation with everything their rule says about them.

    Args:
        caption: Task and protocol.
        metrics: In the order of the file.

    Returns:
        Value with interval, chance, floor, ceiling, and how many of what.
    """
    rows = tuple(
        Row(
            head=m.name,
            cells=(
                Cell(text=number(m.value), sub=interval(m))
                if is_measured(m)
                else _missing(NOT_MEASURED),
                *(_plain(_bare(v)) for v in (m.chance, m.floor, m.ceiling)),
                _plain(f"{m.n} {m.unit}".strip() if m.n else ""),
            ),
        )
        for m in metrics
    )
    return Table(
        caption=caption,
        corner="metric",
        columns=("value", "chance", "floor (blind)", "ceiling (perfect)", "n"),
        rows=rows,
    )


def _score_row(recipe: RecipeRecord) -> Row:
    """One recipe of the score table."""
    scores = [_auroc_cell(recipe.score(name, size)) for name in PROMPT_SETS for size in SIZES]
    share = recipe.ceiling_share
    sub = f"[{percent(share.low)}, {percent(share.high)}]" if has_interval(share) else ""
    return Row(
        head=recipe.name,
        sub=f"trained on {recipe.supervision or 'not recorded'}",
        cells=(*scores, _plain(percent(share.value), sub), *_effort(recipe)),
    )


def _effort(recipe: RecipeRecord | None) -> tuple[Cell, Cell]:
    """Core time and steps of a training; dashes where nothing was trained step by step."""
    if recipe is None:
        return _dashes(1)[0], _dashes(1)[0]
    steps = f"{recipe.steps:.0f}" if math.isfinite(recipe.steps) else NOT_MEASURED
    return _plain(seconds(recipe.core_seconds)), _plain(steps)


def _baseline_row(name: str, sub: str, metrics: Mapping[str, Metric], demo: DemoRecord) -> Row:
    """A baseline that uses no prompts: under bank only."""
    scores = tuple(_auroc_cell(_get(metrics, size)) for size in SIZES)
    cells = (*scores, *_dashes(4), *_effort(demo.runs.get(name)))
    return Row(head=name, sub=sub, cells=cells, kind="baseline")


def _shuffled_row(demo: DemoRecord) -> Row:
    """The control whose reports belong to other patients."""
    scores = tuple(
        _auroc_cell(_get(demo.shuffled.get(name, {}), size))
        for name in PROMPT_SETS
        for size in SIZES
    )
    return Row(
        head="shuffled",
        sub="t3d_plus on reports of other patients (full demo only)",
        cells=(*scores, *_dashes(1), *_effort(demo.runs.get("shuffled"))),
        kind="baseline",
    )


def _chance_row(recipes: Sequence[RecipeRecord]) -> Row:
    """Chance under the same rule, as a range over the recipes."""
    texts = [
        _range([r.score(name, size).chance for r in recipes])
        for name in PROMPT_SETS
        for size in SIZES
    ]
    return Row(
        head="chance",
        sub="by permuting patients",
        cells=(*(_plain(text) for text in texts), *_dashes(3)),
        kind="baseline",
    )


def _auroc_cell(metric: Metric) -> Cell:
    """A tinted AUROC with its interval."""
    if not is_measured(metric):
        return _missing(NOT_MEASURED)
    weak = has_interval(metric) and metric.low <= 0.5 <= metric.high
    return Cell(
        text=number(metric.value),
        sub=interval(metric),
        tint=max(-1.0, min(1.0, 2 * metric.value - 1)),
        state="weak" if weak else "",
    )


def _recall_cell(recipe: RecipeRecord, name: str) -> Cell:
    """A recall, its interval, and the strict number beneath."""
    metric = recipe.found(name)
    if not is_measured(metric):
        return _missing(NOT_MEASURED)
    strict = f"strict {number(recipe.found(f'{name}_strict').value)}"
    return Cell(text=number(metric.value), sub=f"{interval(metric)} {strict}", tint=metric.value)


def _loss_verdict(final: float, chance: float) -> Cell:
    """Words for a loss beside its chance value."""
    if not (math.isfinite(final) and math.isfinite(chance)):
        return _missing(NOT_MEASURED)
    if final >= chance:
        return Cell(text="not below chance", state="bad")
    share = f"{percent(1 - final / chance)} below chance" if chance > 0 else "below chance"
    return Cell(text=share, state="good")


def _range(values: Sequence[float]) -> str:
    """Smallest and largest of the known values, once if they look the same."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return NOT_MEASURED
    low, high = number(min(known)), number(max(known))
    return low if low == high else f"{low} to {high}"


def _plain(text: str, sub: str = "") -> Cell:
    """A cell without a tint; a missing number looks missing."""
    return Cell(text=text, sub=sub, state="missing" if text == NOT_MEASURED else "")


def _missing(text: str) -> Cell:
    """A cell that says that nothing stands here."""
    return Cell(text=text, state="missing")


def _dashes(count: int) -> tuple[Cell, ...]:
    """Cells to which a row has nothing to say."""
    return (Cell(text="-", state="missing"),) * count


def _bare(value: float) -> str:
    """A number, or nothing where the rule defines none."""
    return number(value) if math.isfinite(value) else ""


def _get(metrics: Mapping[str, Metric], name: str) -> Metric:
    """A metric by name, or NaN."""
    return metrics.get(name, Metric(name=name, value=math.nan))
