"""Write the README's figures from the files of docs/results.

    python tools/readme_table.py [--check] [--results FOLDER] [--readme FILE]

demo_summary.json   `demo/summary.json` of a `make demo-full` or `make demo`
traps.json          written by `python tools/traps_table.py`
prepare.json        written by `python benchmarks/prepare.py --json docs/results/prepare.json`

With --check nothing is written and the exit code is 1 when the README is not what the files say.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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


def traps_of(readers: Mapping[str, Mapping[str, int]]) -> str:
    """Give the sentence on what each reader damages, of the traps in formats that it opens."""
    found = ", ".join(
        f"{name} {told['damage']} of {told['traps']}" for name, told in readers.items()
    )
    num = max(told["traps"] for told in readers.values())
    return (
        f"[What {len(readers)} readers do with {num} traps](docs/reference/traps.md) was run, not "
        f"assumed.\nRead wrong, or read although damaged, of those that each can open: {found}."
    )


TARGETS = {
    "A": "1 x 1 x 4 mm, then 256 x 256 x 128",
    "B": "0.75 x 0.75 x 1.5 mm, 480 x 480 x 240",
    "C": "0.5 x 0.5 x 1 mm, whole",
}
SLICES = {"raw": "300 raw DICOM slices, read only", "JPEG 2000": "300 JPEG 2000 slices, read only"}
LOADERS = {
    "gunzip": "gunzip alone",
    "t3d": "t3d",
    "sitk": "SimpleITK",
    "ctclip": "CT-CLIP style",
    "monai": "MONAI",
}


def speed_of(told: Sequence[Mapping[str, Any]]) -> str:
    """Give the table of processor seconds and peak memory as Markdown."""
    value = {row["name"]: row["value"] for row in told}

    def cell(name: str, form: str = ".2f") -> str:
        return format(value[name], form) if name in value else "-"

    head = ("target", *LOADERS.values(), "t3d, peak MB", "MONAI, peak MB")
    rows = [head, ("---",) * len(head)]
    for key, target in TARGETS.items():
        peaks = (cell(f"{name} {key}, peak", ",.0f") for name in ("t3d", "monai"))
        rows.append((target, *(cell(f"{name} {key}") for name in LOADERS), *peaks))
    for key, target in SLICES.items():
        rows.append((target, *(cell(f"dicom {n}, {key}, 300 slices") for n in LOADERS), "-", "-"))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


BLOCKS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "results": ("demo_summary.json", table_of),
    "traps": ("traps.json", traps_of),
    "speed": ("prepare.json", speed_of),
}
"""Name of the README's two marks -> file and what is written of it."""


def filled(readme: str, name: str, text: str) -> str:
    """Put a text between the README's two marks of a name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = readme.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the README lacks {begin} or {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check what stands between the marks."""
    parser = argparse.ArgumentParser(description="The README's figures, from files.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args(arguments)
    old = new = options.readme.read_text(encoding="utf-8")
    for name, (file, write) in BLOCKS.items():
        path = options.results / file
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        new = filled(new, name, NOTHING if told is None else write(told))
    if options.check:
        if new != old:
            sys.stderr.write(f"{options.readme.name} is not what {options.results.name} says\n")
        return int(new != old)
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
