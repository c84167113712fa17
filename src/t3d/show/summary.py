"""The demo's table in the terminal, from `summary.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t3d.show.gates import demo_gates
from t3d.show.records import DemoRecord, RecipeRecord, read_demo
from t3d.show.terminal import say, table
from t3d.show.wording import number, with_interval
from t3d.types import Metric

TITLE = "SYNTHETIC PHANTOMS, not clinical; test patients, [95 % interval]"
COLUMNS = ("", "bank macro", "large", "small", "template", "t2i R@10", "i2t R@10", "way", "core-s")
WAY = "way = share of the way from clip to the supervised ceiling, bank macro AUROC"


def print_summary(path: Path) -> None:
    """Print scores, losses beside chance, and gates.

    Args:
        path: OUT/summary.json.
    """
    demo = read_demo(path.parent)
    table(TITLE, COLUMNS, _rows(demo))
    say(WAY)
    losses = [
        (recipe.name, term, number(final), number(chance))
        for recipe in demo.recipes
        for term, (final, chance) in recipe.losses.items()
    ]
    table("last losses", ("recipe", "term", "loss", "of a blind model"), losses)
    for gate in demo_gates(demo):
        say(f"{gate.state:15} {gate.subject}: {gate.bound}; found {gate.found}")


def _rows(demo: DemoRecord) -> Iterator[tuple[str, ...]]:
    for recipe in demo.recipes:
        yield _recipe_row(recipe)
    for name, scores in (("supervised", demo.supervised), ("logistic", demo.logistic)):
        sizes = [_cell(scores.get(form)) for form in ("macro", "large", "small")]
        yield (f"{name} (labels)", *sizes, *[""] * 5)
    for prompts, scores in demo.shuffled.items():
        if prompts == "bank":
            yield ("t3d_plus, shuffled", _cell(scores.get("macro")), *[""] * 7)


def _recipe_row(recipe: RecipeRecord) -> tuple[str, ...]:
    return (
        recipe.name,
        _cell(recipe.score("bank", "macro")),
        number(recipe.score("bank", "large").value, 2),
        number(recipe.score("bank", "small").value, 2),
        number(recipe.score("template", "macro").value, 2),
        _cell(recipe.found("t2i_r@10")),
        number(recipe.found("i2t_r@10").value, 2),
        number(recipe.ceiling_share.value, 2),
        number(recipe.core_seconds, 0),
    )


def _cell(metric: Metric | None) -> str:
    return "" if metric is None else with_interval(metric)
