"""A made-up demo folder and patients, small and with numbers that tests know."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.text.findings import CT_RATE_18
from t3d.types import Report, Sentence, Volume

NUM_TEST = 40


def metric(value: float, *, chance: float = 0.5, half: float = 0.015) -> dict[str, float]:
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "chance": chance,
        "n": NUM_TEST,
    }


def recipe(
    bank: float, template: float, recall: float, share: float, **more: Any
) -> dict[str, Any]:
    def scores(level: float) -> dict[str, Any]:
        named = {
            "macro": metric(level),
            "large": metric(level + 0.04),
            "small": metric(level - 0.1),
        }
        spread = np.linspace(-0.2, min(0.2, 0.98 - level), len(CT_RATE_18))
        return named | {
            f: metric(level + float(d)) for f, d in zip(CT_RATE_18, spread, strict=True)
        }

    retrieval = {}
    for name, value in (("t2i", recall), ("i2t", recall - 0.05)):
        for rank, chance in ((5, 0.017), (10, 0.033)):
            got = value * (0.7 if rank == 5 else 1.0)
            retrieval[f"{name}_r@{rank}"] = metric(got, chance=chance, half=0.04)
            retrieval[f"{name}_r@{rank}_strict"] = metric(got - 0.01, chance=chance, half=0.04)
    return {
        "supervision": "reports",
        "encoder": "statstem",
        "steps": 434,
        "seed": 0,
        "core_seconds": 150.4,
        "per_step_s": 0.35,
        "prompts": ["template", "bank"],
        "zero_shot": {"template": scores(template), "bank": scores(bank)},
        "retrieval": retrieval,
        "ceiling_share": metric(share),
        "losses": {"global_contrast": {"final": 2.13, "chance": 4.159}},
        "gauges": {},
    } | more


def summary() -> dict[str, Any]:
    tma = {
        "tma/leak": 0.031,
        "tma/image_only": 0.97,
        "tma/text_dominance": 0.24,
        "tma/text_use": 0.0003,
        "tma/agreement": 0.61,
        "tma/n": 256,
    }
    return {
        "commit": "0123abcd",
        "machine": {"cpu": "Some Processor 9000", "cores": 2},
        "seconds": {
            "install": 96.0,
            "cohort": 131.5,
            "train": 452.25,
            "judge": 20.0,
            "cell:clip": 155.0,
        },
        "cohort": {"digest": "feedc0ffee", "train": 3000, "dev": 256, "test": NUM_TEST},
        "recipes": {
            "clip": recipe(0.689, 0.596, 0.49, 0.0),
            "t3d_v3": recipe(0.683, 0.601, 0.37, -0.03, gauges=tma),
            "t3d_plus": recipe(0.821, 0.661, 0.83, 0.721),
        },
        "supervised": {"macro": metric(0.872), "large": metric(0.915), "small": metric(0.739)},
        "supervised_run": {"steps": 700, "core_seconds": 84.2},
        "logistic": {"macro": metric(0.634), "large": metric(0.66), "small": metric(0.55)},
    }


def log_lines(*, steps: int = 400, seed: int = 0) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    for step in range(steps):
        loss = 4.2 * np.exp(-step / 200) + 0.1 * noise.standard_normal()
        lines.append(
            {
                "step": step,
                "stage": int(step >= steps // 2),
                "loss": loss,
                "terms": {"global_contrast": loss * 0.9},
                "gauges": {"scale": 14.0 + step / 50},
                "lr": 3e-3 * (1 - step / steps),
                "rate": 180.0,
            }
        )
        if step % 50 == 49:
            lines.append({"step": step, "dev": {"bank_macro": 0.5 + 0.3 * step / steps}})
    return lines


def write_run(folder: Path, *, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    recipe_json = {"name": folder.name, "source": "ours", "seed": seed, "facts": {}}
    (folder / "recipe.json").write_text(json.dumps(recipe_json))
    lines = [json.dumps(line) for line in log_lines(seed=seed)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


def study_id(k: int) -> str:
    return f"phantom-{k:03d}"


def truth() -> NDArray[np.int_]:
    """Labels (patients, findings): finding f is there in every (f + 2)-th patient."""
    patients = np.arange(NUM_TEST)[:, None]
    return (patients % (np.arange(len(CT_RATE_18))[None] % 5 + 2) == 0).astype(int)


def write_scores(path: Path) -> None:
    noise = np.random.default_rng(5)
    labels = truth()
    values = labels * 1.2 + noise.standard_normal(labels.shape)
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        scores = [f"score:{name}:{f}" for name in ("bank", "template") for f in CT_RATE_18]
        names = [f"label:{f}" for f in CT_RATE_18]
        out.writerow(["study_id", "patient_id", *scores, *names, "rank:t2i", "rank:i2t"])
        for k in range(NUM_TEST):
            row = [*values[k], *(0.5 * values[k]), *labels[k], k % 12 + 1, k % 9 + 1]
            out.writerow([study_id(k), f"p{k}", *row])


def write_demo(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    told = summary()
    (root / "summary.json").write_text(json.dumps(told))
    for k, name in enumerate(told["recipes"]):
        write_run(root / "runs" / name, seed=k)
        write_scores(root / "results" / name / "per_study.csv")
    return root


def chest(volume_id: str = "phantom-000", *, shape: tuple[int, int, int] = (32, 64, 64)) -> Volume:
    """Two lungs in a body with a spine, 9 x 5.2 x 5.2 mm, and a ball in the left lung."""
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[xx**2 / 0.8 + yy**2 / 0.4 < 1] = 40
    for side in (-1, 1):
        hu[(xx - 0.42 * side) ** 2 / 0.09 + yy**2 / 0.2 + zz**2 / 0.9 < 1] = -850
    hu[xx**2 + (yy - 0.45) ** 2 < 0.015] = 400
    hu[lesion(shape) > 0] = 30
    matrix = np.array(
        [[0, 0, 5.2, -164.0], [0, 5.2, 0, -164.0], [9.0, 0, 0, -300.0], [0, 0, 0, 1.0]]
    )
    return Volume(volume_id=volume_id, voxels=hu.astype(np.int16), world_from_voxel=matrix)


def lesion(shape: tuple[int, int, int] = (32, 64, 64)) -> NDArray[np.uint8]:
    """A ball, marked as a lung nodule, in the slices around index 20."""
    k, j, i = np.indices(shape)
    ball = (k - 20) ** 2 * 3 + (j - 30) ** 2 + (i - 45) ** 2 < 30
    return (ball * (CT_RATE_18.index("Lung nodule") + 1)).astype(np.uint8)


@dataclass(frozen=True)
class FakeStudy:
    study_id: str
    volume_ids: tuple[str, ...]
    labels: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeCohort:
    """Patients whose picture is always the same chest."""

    studies_by_split: dict[str, list[FakeStudy]] = field(
        default_factory=lambda: {
            "test": [FakeStudy(study_id(k), (f"{study_id(k)}_v",)) for k in range(NUM_TEST)]
        }
    )

    def studies(self, split: str) -> list[FakeStudy]:
        return self.studies_by_split[split]

    def volume(self, volume_id: str) -> Volume:
        return chest(volume_id)

    def mask(self, volume_id: str, name: str) -> NDArray[np.uint8] | None:
        return lesion() if name == "lesion" else None

    def report(self, study_id: str) -> Report:
        return Report(
            findings="The trachea is patent. A nodule of 14 mm lies in the left lung.",
            impression="Nodule <left>.",
        )

    def sentences(self, study_id: str) -> tuple[Sentence, ...]:
        return (Sentence(section="findings", start=23, end=63, finding="Lung nodule"),)
