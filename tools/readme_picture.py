"""Draw the README's picture from a run's summary and a phantom.

    python tools/readme_picture.py [--summary FILE] [--out FILE]

Left: what is learned from, a synthetic slice and the sentence about it. Right: what came out,
zero-shot AUROC of each recipe between chance and the supervised ceiling. Both from files and
seeds; nobody types a figure.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gallery import fine_grid, seeds_of
from t3d.phantom.patient import patient
from t3d.show.figures import LUNG, SOFT, Tile, axial, draw, encode
from t3d.show.records import DemoRecord, read_demo

ROOT = Path(__file__).resolve().parent.parent
FINDING = "Pleural effusion"
SHOWN = ("clip", "clip_crops", "t3d_v3", "t3d_v3_match", "t3d_plus")


def slices(figure: Figure) -> None:
    """Draw a synthetic patient finely in two windows, with the sentence of its report."""
    seed = seeds_of(FINDING)[0]
    made = patient(seed)
    sentence = next(s for s in made.report.sentences if s.finding == FINDING)
    assert sentence.z_mm is not None
    z_mm = sentence.z_mm[0]
    fine = patient(seed, grid=fine_grid(seed, z_mm)).volume
    for left, window in ((0.01, LUNG), (0.245, SOFT)):
        axes = figure.add_axes((left, 0.2, 0.225, 0.72))
        draw(axes, Tile(cut=axial(fine, z_mm), window=window, title=""), smooth=True)
    text = made.report.report.findings[sentence.start : sentence.end]
    quoted = "\n".join(textwrap.wrap(f'"{text}"', 62))
    figure.text(0.24, 0.1, quoted, ha="center", va="center", style="italic", fontsize=9)
    figure.text(0.24, 0.95, "a synthetic patient and its report", ha="center", fontsize=10)


def scores(axes: Axes, demo: DemoRecord) -> None:
    """Draw each recipe's macro AUROC with its interval, chance and ceiling as lines."""
    recipes = [r for name in SHOWN if (r := demo.recipe(name)) is not None]
    for place, recipe in enumerate(reversed(recipes)):
        macro = recipe.score("bank", "macro")
        axes.plot([macro.low, macro.high], [place, place], color="#1f6f8b", linewidth=3)
        axes.plot([macro.value], [place], "o", color="#0b3c49")
    axes.set_yticks(range(len(recipes)), [r.name for r in reversed(recipes)])
    lines = (
        ("chance", 0.5, "left"),
        ("logistic (labels)", demo.logistic["macro"].value, "right"),
        ("ceiling (labels)", demo.supervised["macro"].value, "center"),
    )
    for name, value, side in lines:
        axes.axvline(value, color="#888888", linestyle=":")
        axes.text(value, len(recipes) - 0.4, name, ha=side, va="bottom", fontsize=8)
    axes.set_xlim(0.48, 0.9)
    axes.set_ylim(-0.6, len(recipes) - 0.45)
    axes.set_xlabel("zero-shot AUROC, mean of 18 findings, 95 % interval (phantoms, not clinical)")
    axes.xaxis.label.set_size(8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    results = ROOT / "docs" / "results"
    parser.add_argument("--summary", type=Path, default=results / "demo_summary.json")
    parser.add_argument("--out", type=Path, default=results / "demo.png")
    asked = parser.parse_args()
    figure = Figure(figsize=(10.5, 3.1), facecolor="white")
    slices(figure)
    scores(figure.add_axes((0.6, 0.2, 0.38, 0.66)), read_demo(asked.summary))
    asked.out.write_bytes(encode(figure, dpi=130))


if __name__ == "__main__":
    main()
