"""What a whole evaluation costs: the demo's checkpoint through every task, cold and from the cache.

Used by benchmarks/evaluate.py. Features in the cohort's cache are removed first, the stem stays.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from loader import Row, apart, peak_mb, row

BAR_S = 180.0
RECIPE = "t3d_plus"
MORE_PROMPTS = ("ctclip", "hlip", "radfinder")


def once(run: str, cohort: str, out: str, tasks: str, prompts: str) -> dict[str, Any]:
    """Evaluate in this process; CPU and wall seconds, peak and page in MB, seconds by part."""
    from t3d.cohort.store import Cohort
    from t3d.judge.evaluate import Plan, evaluate
    from t3d.show.evaluation import evaluation_page

    opened = Cohort.open(cohort)
    plan = Plan(
        tasks=tuple(filter(None, tasks.split(","))), prompts=tuple(filter(None, prompts.split(",")))
    )
    cpu, wall = time.process_time(), time.perf_counter()
    evaluate(run, opened, Path(out), plan)
    page = evaluation_page(Path(out), opened) if not tasks else None
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "mb": peak_mb(),
        "page_mb": page.stat().st_size / 1e6 if page else 0.0,
        "parts": json.loads((Path(out) / "seconds.json").read_text()),
    }


def measured(demo: Path, out: Path, tasks: str = "", prompts: str = "") -> dict[str, Any]:
    """One evaluation in a process of its own."""
    words = (demo / "runs" / RECIPE, demo / "cohort", out, tasks, prompts)
    told: dict[str, Any] = apart(
        Path(__file__).with_name("evaluate.py"), "--fresh", "whole", *words
    )
    return told


def whole_rows(demo: Path) -> list[Row]:
    """Cold, from the cache, and with more prompt sets."""
    for path in (demo / "cohort" / "cache").glob("frozen-*.npz"):
        path.unlink()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        cold = measured(demo, out / "cold")
        warm = measured(demo, out / "warm")
        one = measured(demo, out / "one", "zero_shot", "template")
        four = measured(demo, out / "four", "zero_shot", ",".join(("template", *MORE_PROMPTS)))
    note = "every task under plain with nulls and the page; baseline: the bar"
    rows = [row("whole evaluation, cold", cold["wall"], "s", BAR_S, note)]
    rows.append(row("whole evaluation, cold, CPU", cold["cpu"], "s", BAR_S))
    rows.append(row("whole evaluation, from the cache, CPU", warm["cpu"], "s", cold["cpu"]))
    rows.append(row("whole evaluation, peak", cold["mb"], "MB"))
    rows.append(row("page", cold["page_mb"], "MB", 6.0, "baseline: what can be mailed"))
    for part, seconds in warm["parts"].items():
        rows.append(row(f"from the cache: {part}", seconds, "CPU-s"))
    extra = (four["cpu"] - one["cpu"]) / len(MORE_PROMPTS)
    note = "no study is encoded; its intervals, matched AUROC and sentences are"
    rows.append(row("each further prompt set, from the cache", extra, "CPU-s", one["cpu"], note))
    return rows
