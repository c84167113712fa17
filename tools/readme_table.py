"""Write the README's results table from a run's summary.

    python tools/readme_table.py [--check] [--summary FILE] [--readme FILE]

The summary is `demo/summary.json` of a `make demo-full` or `make demo`, kept as
`docs/results/demo_summary.json`. With --check nothing is written and the exit code is 1 when the
README is not what the file says. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NOTHING = "No run has been recorded yet."
HEAD = (
    "recipe",
    "sees",
    "steps",
    "core-s",
    "`bank` macro",
    "large",
    "small",
    "`template` macro",
    "text to image R@10",
    "share of the way",
)


def figure(metric: Mapping[str, Any] | None) -> str:
    """Give a value with its 95 % interval: `.750 [.731, .768]`; "-" where there is none."""
    if not metric or metric.get("value") is None:
        return "-"
    value, low, high = (metric.get(key) for key in ("value", "low", "high"))
    text = f"{value:.3f}"
    if low is not None and high is not None:
        text += f" [{low:.3f}, {high:.3f}]"
    return re.sub(r"\b0\.", ".", text)


def chance(metric: Mapping[str, Any] | None) -> str:
    """Give the chance value of a metric."""
    if not metric or metric.get("chance") is None:
        return "-"
    return re.sub(r"^0\.", ".", f"{metric['chance']:.3f}")


def whole(value: float | None) -> str:
    """Give a number without decimals; "-" where there is none."""
    return "-" if value is None else f"{value:.0f}"


def recipe_row(name: str, cell: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the row of one recipe."""
    zero_shot = cell.get("zero_shot", {})
    bank, template = zero_shot.get("bank", {}), zero_shot.get("template", {})
    return (
        f"`{name}`",
        str(cell.get("supervision", "-")),
        str(cell.get("steps", "-")),
        whole(cell.get("core_seconds")),
        figure(bank.get("macro")),
        figure(bank.get("large")),
        figure(bank.get("small")),
        figure(template.get("macro")),
        figure(cell.get("retrieval", {}).get("t2i_r@10")),
        figure(cell.get("ceiling_share")),
    )


def baseline_row(name: str, sees: str, scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the row of a baseline that has scores but neither prompts nor retrieval."""
    three = tuple(figure(scores.get(key)) for key in ("macro", "large", "small"))
    return (name, sees, "-", "-", *three, "-", "-", "-")


def chance_row(recipes: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the row of chance values, from the first recipe that has them."""
    first = next(iter(recipes.values()), {})
    bank = first.get("zero_shot", {}).get("bank", {})
    template = first.get("zero_shot", {}).get("template", {})
    three = tuple(chance(bank.get(key)) for key in ("macro", "large", "small"))
    retrieval = chance(first.get("retrieval", {}).get("t2i_r@10"))
    return ("chance", "-", "-", "-", *three, chance(template.get("macro")), retrieval, "-")


def rows_of(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Give all rows: recipes, controls, baselines, chance."""
    recipes = summary.get("recipes", {})
    rows = [recipe_row(name, cell) for name, cell in recipes.items()]
    shuffled = summary.get("shuffled")
    if shuffled:
        cell = {"supervision": "shuffled reports", "zero_shot": shuffled}
        rows.append(recipe_row("t3d_plus", cell))
    for key, sees in (("logistic", "labels"), ("supervised", "labels")):
        if summary.get(key):
            rows.append(baseline_row(key, sees, summary[key]))
    return [*rows, chance_row(recipes)]


def table_of(summary: Mapping[str, Any]) -> str:
    """Give the table and what a reader must know of it, as Markdown."""
    rows = [HEAD, tuple("---" for _ in HEAD), *rows_of(summary)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    cohort = summary["cohort"]
    about = [
        f"{cohort['train']} train, {cohort['dev']} dev, {cohort['test']} test phantoms",
        f"cohort `{cohort['digest'][:12]}`",
        f"commit `{str(summary['commit'])[:12]}`",
        str(summary["machine"]),
    ]
    stages = summary.get("seconds", {}).items()
    wall_s = sum(value for name, value in stages if not name.startswith("cell:"))  # side by side
    if wall_s and not summary.get("resumed"):  # a resumed run's time is not that of the whole
        about.append(f"{wall_s / 60:.1f} min")
    note = (
        "AUROC over findings and recall, with 95 % intervals over patients; core-s = processor "
        "seconds of training; share of the way = from `clip` to `supervised`"
    )
    return "\n".join([*lines, "", f"{note} ({'; '.join(about)})."])


def filled(readme: str, table: str) -> str:
    """Put the table between the README's two marks."""
    before, found, rest = readme.partition(BEGIN)
    inside, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"the README lacks {BEGIN} or {END}")
    del inside
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description="The README's results table, from a file.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--summary", type=Path, default=ROOT / "docs" / "results" / "demo_summary.json"
    )
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args(arguments)
    table = NOTHING
    if options.summary.is_file():
        table = table_of(json.loads(options.summary.read_text(encoding="utf-8")))
    old = options.readme.read_text(encoding="utf-8")
    new = filled(old, table)
    if options.check:
        if new != old:
            sys.stderr.write(f"{options.readme.name} is not what {options.summary.name} says\n")
        return int(new != old)
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
