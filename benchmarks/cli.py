"""CPU seconds until `t3d --help` has been shown. Bar: 0.3 s on one server core.

    python benchmarks/cli.py [--runs 9] [--json FILE]

Each run is a fresh process with a warm page cache; CPU is user + system of that process. The
baseline is Python itself (`python -c pass`), the ratio is ours over it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

BAR_S = 0.3
START = "import sys; sys.argv[0] = 't3d'; from t3d.cli import main; sys.exit(main())"
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import t3d": ("-c", "import t3d"),
    "t3d --version": ("-c", START, "--version"),
    "t3d --help": ("-c", START, "--help"),
    "t3d train --help": ("-c", START, "train", "--help"),
}


def cpu_s(arguments: tuple[str, ...]) -> float:
    """Run Python once; give user + system seconds of that process."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(runs: int) -> list[dict[str, object]]:
    """Give one row per command: the median over runs, the first one thrown away."""
    medians = {}
    for name, arguments in COMMANDS.items():
        cpu_s(arguments)  # writes byte code, warms the page cache
        medians[name] = statistics.median(cpu_s(arguments) for _ in range(runs))
    baseline = medians["python -c pass"]
    return [
        {
            "name": name,
            "value": round(value, 4),
            "unit": "CPU s",
            "baseline": round(baseline, 4),
            "ratio": round(value / baseline, 2),
            "note": f"bar {BAR_S} s" if name == "t3d --help" else "",
        }
        for name, value in medians.items()
    ]


def main() -> int:
    """Print the table; exit code 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description="CPU seconds until help has been shown.")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.runs)
    for row in rows:
        sys.stdout.write(
            f"{row['name']:<18} {row['value']:>7} {row['unit']}  x{row['ratio']:<5} {row['note']}\n"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
    values = {row["name"]: row["value"] for row in rows}
    return 0 if float(str(values["t3d --help"])) <= BAR_S else 1


if __name__ == "__main__":
    sys.exit(main())
