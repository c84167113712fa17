"""What judging costs: resampled classification, the closed form, retrieval at scale.

    python benchmarks/evaluate.py                              # both parts, ten minutes
    python benchmarks/evaluate.py --part classification --json docs/results/evaluate.json

classification   18 findings x 3,039 volumes with the patients, siblings and positives of CT-RATE's
                 validation set, simulated scores: 10,000 draws of patients with thresholds
                 refitted in every draw, beside a loop over scikit-learn in the same run on few
                 draws, scaled; results on those draws must be equal. Each rule in a process of
                 its own: CPU seconds of one thread, peak memory with imports
retrieval        benchmarks/evaluate_retrieval.py, nine minutes: --studies
whole            benchmarks/evaluate_whole.py, on the folder of `t3d bench demo`: --demo FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from evaluate_retrieval import CASES, pool_rows, retrieval_rows
from evaluate_whole import once, whole_rows
from intervals import POSITIVE_STUDIES, simulate, structure
from loader import Row, apart, peak_mb, row, show
from t3d.scores.bootstrap import Draws
from t3d.scores.clustered import clustered_auroc
from t3d.scores.matched import matched_auroc
from t3d.scores.resample import Resampled, judged_at, refitted
from t3d.scores.thresholds import GRID, rule_named

BAR_S = 10.0
BAR_CLOSED_MS = 20.0
PATIENTS = 1304
DRAWS = 10_000
MATCHED_DRAWS = 1000
PLAIN_DRAWS = {"radfinder_youden": 10, "ctclip_grid": 1}
RULES = ("radfinder_youden", "ctclip_grid", "youden", "f1")
CLOSED_REPEATS = 15
Floats = NDArray[np.float64]
Table = tuple[Floats, NDArray[np.int64], list[str]]


def cohort() -> Table:
    """Probabilities and labels (volumes, findings), and the patient of every volume."""
    rng = np.random.default_rng(0)
    cut = structure(PATIENTS, rng)
    prevalence = np.array(POSITIVE_STUDIES) / len(cut.patient)
    scores, labels = simulate(cut, prevalence, np.full(18, 0.8), rng, shared=0.2)
    return 1 / (1 + np.exp(-scores)), labels, cut.ids


def refit(rule: str, num: int = DRAWS) -> tuple[float, Resampled]:
    """CPU seconds of drawing patients and scoring every draw, and the scores."""
    scores, labels, ids = cohort()
    began = time.process_time()
    found = refitted(scores, labels, Draws.of(ids, num_draws=num, seed=0), rule_named(rule))
    return time.process_time() - began, found


def plain_threshold(scores: Floats, labels: NDArray[np.int64], rule: str) -> float:
    """Find a threshold as the published loops do."""
    if rule == "radfinder_youden":
        across, up, thresholds = sk.roc_curve(labels, scores)
        best = float(thresholds[np.argmax(up - across)])
        return best if math.isfinite(best) else 0.5
    best, chosen = math.inf, math.nan
    for threshold in GRID:
        tn, fp, fn, tp = sk.confusion_matrix(labels, scores > threshold).ravel()
        away = math.sqrt((1 - tp / (tp + fn)) ** 2 + (fp / (fp + tn)) ** 2)
        if away <= best:
            best, chosen = away, float(threshold)
    return chosen


def plain(rule: str, num: int) -> tuple[float, Floats]:
    """CPU seconds and (draws, findings, 5): AUROC, AP, threshold, weighted F1, bal. accuracy."""
    scores, labels, ids = cohort()
    weights = Draws.of(ids, num_draws=num, seed=0).weights.astype(int)
    out = np.empty((num, scores.shape[1], 5))
    began = time.process_time()
    for b, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(scores)), weight)
        for f in range(scores.shape[1]):
            s, y = scores[rows, f], labels[rows, f]
            at = plain_threshold(s, y, rule)
            called = s > at if rule_named(rule).strict else s >= at
            out[b, f] = (
                sk.roc_auc_score(y, s),
                sk.average_precision_score(y, s),
                at,
                sk.f1_score(y, called, average="weighted", zero_division=0.0),
                sk.balanced_accuracy_score(y, called),
            )
    return time.process_time() - began, out


def gap(rule: str, values: Floats) -> float:
    """Largest difference between the two on the same draws."""
    found = refit(rule, len(values))[1]
    own = np.stack(
        [
            found.auroc,
            found.average_precision,
            found.thresholds,
            found.answers.f1_weighted,
            found.answers.balanced_accuracy,
        ],
        axis=2,
    )
    return float(np.abs(own - values).max())


def on_dev_draws() -> float:
    """CPU seconds with one threshold a draw and finding that was found elsewhere."""
    scores, labels, ids = cohort()
    draws = Draws.of(ids, num_draws=DRAWS, seed=0)
    thresholds = np.random.default_rng(1).choice(np.linspace(0.4, 0.7, 200), (DRAWS, 18))
    began = time.process_time()
    judged_at(scores, labels, draws, thresholds)
    return time.process_time() - began


def closed_ms() -> list[float]:
    """Milliseconds of the closed form, patients' ids included, several times."""
    scores, labels, ids = cohort()
    spent = []
    for _ in range(CLOSED_REPEATS):
        began = time.process_time()
        clustered_auroc(scores, labels, ids)
        spent.append(1000 * (time.process_time() - began))
    return spent


def matched_s() -> float:
    """CPU seconds of matched AUROC with draws; ages and sexes are random."""
    scores, labels, ids = cohort()
    rng = np.random.default_rng(2)
    patients, row_patient = np.unique(ids, return_inverse=True)
    ages = rng.integers(18, 90, len(patients))[row_patient]
    sexes = rng.choice(["F", "M"], len(patients))[row_patient].tolist()
    draws = Draws.of(ids, num_draws=MATCHED_DRAWS, seed=0)
    began = time.process_time()
    matched_auroc(scores, labels, draws, age_years=ages, sex=sexes)
    return time.process_time() - began


def fresh(case: str, *words: str) -> object:
    """Run one case in this process; CPU seconds, peak in MB, and what it found."""
    if case == "whole":
        return once(*words)
    if case in CASES:
        began = time.process_time()
        told = CASES[case](int(words[0]))
        return time.process_time() - began, peak_mb(), told
    seconds = refit(case)[0] if case in RULES else OTHERS[case]()
    return seconds, peak_mb()


OTHERS = {"dev": on_dev_draws, "matched": matched_s}


def classification_rows() -> list[Row]:
    """Refitted draws by rule, the plain loop, the closed form, matched AUROC."""
    rows: list[Row] = []
    for rule in RULES:
        seconds, peak = apart(__file__, "--fresh", rule)
        rows.append(row(f"{rule}, {DRAWS} draws", seconds, "s", BAR_S, "baseline: the bar"))
        rows.append(row(f"{rule}, peak", peak, "MB"))
        if rule in PLAIN_DRAWS:
            num = PLAIN_DRAWS[rule]
            spent, values = plain(rule, num)
            note = f"loop over scikit-learn, {num} draws scaled; baseline: ours; "
            note += f"largest difference {gap(rule, values):.1e}"
            rows.append(row(f"{rule}, plain loop", spent * DRAWS / num, "s", seconds, note))
    seconds, _ = apart(__file__, "--fresh", "dev")
    rows.append(row(f"thresholds of dev draws, {DRAWS} draws", seconds, "s", BAR_S))
    spent = closed_ms()
    note = f"median of {len(spent)}, {min(spent):.1f} to {max(spent):.1f}; baseline: the bar"
    rows.append(row("closed form", statistics.median(spent), "ms", BAR_CLOSED_MS, note))
    seconds, peak = apart(__file__, "--fresh", "matched")
    rows.append(
        row(f"matched AUROC, {MATCHED_DRAWS} draws", seconds, "s", note=f"peak {peak:.0f} MB")
    )
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=("classification", "retrieval"), action="append")
    parser.add_argument(
        "--demo", type=Path, help="folder of t3d bench demo: adds the whole evaluation"
    )
    parser.add_argument("--studies", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fresh", nargs="+", help=argparse.SUPPRESS)
    told = parser.parse_args(words)
    if told.fresh is not None:
        sys.stdout.write(json.dumps(fresh(*told.fresh)))
        return
    parts = told.part or ["classification", "retrieval"]
    rows = classification_rows() if "classification" in parts else []
    if "retrieval" in parts:
        rows += [*retrieval_rows(told.studies), *pool_rows()]
    if told.demo is not None:
        rows += whole_rows(told.demo)
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
