"""Write the tables of docs/howto/plan-ct-rate.md from what `t3d.cohort.plan` reckons.

    python tools/plan_table.py [--check] [--page FILE] [--results FILE]

The measured figures are those of docs/results/plan_ct_rate.json, which
`python benchmarks/plan.py --real FOLDER --json docs/results/plan_ct_rate.json` writes.
With --check nothing is written and the exit code is 1 when the page says something else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from readme_table import filled
from t3d.cohort.plan import describe

ROOT = Path(__file__).resolve().parent.parent


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Give a table as Markdown."""
    lines = [head, ("---",) * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def corpus_of(told: Mapping[str, Any]) -> str:
    """Give the sentence on the corpus."""
    corpus = told["corpus"]
    low, high = corpus["download_tb_between"]
    hours = ", ".join(f"{h:g} h at {r} MB/s" for r, h in corpus["hours_to_read_at_mb_s"].items())
    return (
        f"{corpus['volumes']:,} volumes of {corpus['studies']:,} studies: "
        f"{corpus['decompressed_tib']} TiB decompressed, about {corpus['download_tb']} TB to "
        f"download ({low} to {high}). Reading it once takes {hours}."
    )


def preparations_of(told: Mapping[str, Any]) -> str:
    """Give the table of preparations."""
    head = (
        *("preparation", "CPU s a volume", "core hours", "MB/s of files a core"),
        *("GB stored", "GB at most", "MB a worker"),
    )
    return table(
        head,
        (
            (
                *(f"`{name}`", f"{made['cpu_s_a_volume']:.2f}", f"{made['core_hours']:.0f}"),
                made["mb_s_a_core"],
                *(f"{made['stored_gb']:,.0f}", f"{made['stored_gb_at_most']:,.0f}"),
                f"{made['worker_mb']:,}",
            )
            for name, made in told["preparations"].items()
        ),
    )


def hours_of(told: Mapping[str, Any]) -> str:
    """Give hours by cores and by what the disk gives."""
    made = told["preparations"]
    rates = list(next(iter(made["paper_direct"]["hours"].values())))
    return table(
        ("preparation", "cores", *rates),
        (
            (f"`{name}`", cores.removesuffix(" cores"), *(f"{h:.1f} h" for h in hours.values()))
            for name, one in made.items()
            for cores, hours in one["hours"].items()
        ),
    )


def workers_of(told: Mapping[str, Any]) -> str:
    """Give how many workers one writing process keeps busy."""
    made = told["preparations"]
    ways = list(made["paper_direct"]["useful_workers"])
    return table(
        ("preparation", *ways),
        (
            (f"`{name}`", *(f"{count:,}" for count in one["useful_workers"].values()))
            for name, one in made.items()
        ),
    )


def portions_of(told: Mapping[str, Any]) -> str:
    """Give the number of portions by the size of the disk."""
    made = told["preparations"]
    disks = list(made["paper_direct"]["portions"])
    return table(
        ("preparation", *disks),
        (
            (f"`{name}`", *("none fits" if n is None else n for n in one["portions"].values()))
            for name, one in made.items()
        ),
    )


def measured_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Give the measured figures."""
    lines = ((r["name"], f"{r['value']:.4g} {r['unit']}", r["note"]) for r in rows)
    return table(("measured", "", ""), lines)


def main(arguments: list[str] | None = None) -> int:
    """Write or check what stands between the marks."""
    parser = argparse.ArgumentParser(description="The tables of the page that plans CT-RATE.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "howto" / "plan-ct-rate.md")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results" / "plan_ct_rate.json"
    )
    options = parser.parse_args(arguments)
    old = new = options.page.read_text(encoding="utf-8")
    told = describe()
    for name, write in (
        ("corpus", corpus_of),
        ("preparations", preparations_of),
        ("hours", hours_of),
        ("workers", workers_of),
        ("portions", portions_of),
    ):
        new = filled(new, name, write(told))
    rows = json.loads(options.results.read_text(encoding="utf-8"))
    new = filled(new, "measured", measured_of(rows))
    if options.check:
        if new != old:
            sys.stderr.write(f"{options.page.name} is not what the plan says\n")
        return int(new != old)
    options.page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
