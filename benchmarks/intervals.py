"""How often a 95 % interval holds the true value: simulated cohorts whose truth is known.

    python benchmarks/intervals.py                                     # about 20 minutes
    python benchmarks/intervals.py --cohorts 200 --patients 100 300    # a look
    python benchmarks/intervals.py --json docs/results/coverage.json

Each cohort has the sibling structure of CT-RATE's validation set: 1.2 studies a patient, 1 to 6
reconstructions a study. A finding is one of the study; it comes more often to the same patient.
Scores are normal; a patient, a study and a volume each have a part in them (variances .3, .5, .2),
so siblings agree. Positives lie so much higher that the AUROC is the one asked for. Macro cohorts
have 18 findings with CT-RATE's prevalences and AUROCs from .65 to .9, correlated with each other.

percentile, patients   percentile bootstrap, 1,000 draws of patients
percentile, volumes    the same with volumes drawn as if they were independent
closed, logit / wald   Obuchowski's form by patient, on the log odds or plain; Student's t
closed, normal         the first of them with 1.96 errors, as often done
closed, volumes        the same (logit) with volumes as if they were independent: DeLong

"patients with the finding" is their mean number, for macro cohorts that of the rarest finding.
A cohort without an interval (fewer than two patients with or without the finding) counts as one
that misses. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from loader import Row, row, show
from t3d.scores.bootstrap import Draws, interval, mean_over_findings
from t3d.scores.clustered import Estimate, clustered_auroc
from t3d.scores.ratio import ratio
from t3d.scores.resample import judged_at, refitted
from t3d.scores.thresholds import RULES

Floats = NDArray[np.float64]

COHORTS = 2000
DRAWS = 1000
BATCH = 50  # cohorts of one structure that share their draws
PATIENTS = (100, 300, 1304)
LARGE = 1000  # patients; from here on volumes are not drawn, and of the macro cohorts only
LARGE_DRAWN = 500  # so many are resampled; the closed forms are on all
SINGLE = ((0.03, 0.75), (0.1, 0.75), (0.3, 0.75), (0.1, 0.95))  # prevalence and AUROC
RECONSTRUCTIONS = {1: 132, 2: 1415, 3: 4, 4: 1, 5: 11, 6: 1}  # studies of CT-RATE's valid
STUDIES_A_PATIENT = 1564 / 1304
POSITIVE_STUDIES = (
    *(158, 435, 164, 110, 388, 218, 398, 305, 364),
    *(704, 606, 427, 189, 126, 175, 298, 169, 124),
)
PARTS = (0.3, 0.5, 0.2)  # variance of a score by patient, study and volume
SAME_PATIENT = 0.5  # share of a finding's latent variance that a patient's studies have in common
METHODS = (
    "percentile, patients",
    "percentile, volumes",
    "closed, logit",
    "closed, wald",
    "closed, normal",
    "closed, volumes",
)
REFITTED = "balanced accuracy, threshold refitted"
FIXED = "balanced accuracy, threshold known"
PRECISION = "average precision"


@dataclass(frozen=True)
class Structure:
    """Who has which studies and volumes."""

    patient: NDArray[np.intp]  # (studies,)
    study: NDArray[np.intp]  # (volumes,)

    @property
    def ids(self) -> list[str]:
        """Patient of every volume."""
        return [f"p{p:05}" for p in self.patient[self.study]]


@dataclass
class Tally:
    """How often each method's interval held the truth."""

    held: dict[str, int] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    cohorts: int = 0
    positive_patients: int = 0
    widths: dict[str, float] = field(default_factory=dict)

    def note(self, method: str, bounds: tuple[float, float], truth: float) -> None:
        """Count one interval."""
        held = bounds[0] <= truth <= bounds[1]  # NaN holds nothing
        self.held[method] = self.held.get(method, 0) + int(held)
        self.tries[method] = self.tries.get(method, 0) + 1
        if math.isfinite(bounds[1] - bounds[0]):
            self.widths[method] = self.widths.get(method, 0.0) + bounds[1] - bounds[0]


def structure(patients: int, rng: np.random.Generator) -> Structure:
    """Draw a cohort's patients, studies and reconstructions."""
    more = round(patients * (STUDIES_A_PATIENT - 1))
    patient = np.concatenate((np.arange(patients), rng.integers(0, patients, more)))
    if len(patient) == sum(RECONSTRUCTIONS.values()):
        count = rng.permutation(np.repeat(list(RECONSTRUCTIONS), list(RECONSTRUCTIONS.values())))
    else:
        share = np.array(list(RECONSTRUCTIONS.values())) / sum(RECONSTRUCTIONS.values())
        count = rng.choice(list(RECONSTRUCTIONS), len(patient), p=share)
    return Structure(patient=patient, study=np.repeat(np.arange(len(patient)), count))


def effects(
    cut: Structure, columns: int, rng: np.random.Generator, parts: Sequence[float]
) -> Floats:
    """(volumes, columns) normal numbers with a part by patient, by study and by volume."""
    sizes = (int(cut.patient.max()) + 1, len(cut.patient), len(cut.study))
    own = [math.sqrt(v) * rng.normal(size=(n, columns)) for v, n in zip(parts, sizes, strict=True)]
    return np.asarray(own[0][cut.patient[cut.study]] + own[1][cut.study] + own[2])


def simulate(
    cut: Structure, prevalence: Floats, aurocs: Floats, rng: np.random.Generator, *, shared: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Scores and labels (volumes, columns); `shared`: variance that all columns have in common."""
    tables = []
    for parts in ((SAME_PATIENT, 1 - SAME_PATIENT, 0.0), PARTS):
        common = effects(cut, 1, rng, parts) if shared else 0.0
        own = effects(cut, len(prevalence), rng, parts)
        tables.append(math.sqrt(shared) * common + math.sqrt(1 - shared) * own)
    labels = (tables[0] < ndtri(prevalence)).astype(np.int64)
    return tables[1] + labels * math.sqrt(2) * ndtri(aurocs), labels


def bootstrapped(drawn: Floats) -> tuple[float, float]:
    """Percentile interval of draws."""
    spread = interval(drawn)
    return spread.low, spread.high


def true_precision(prevalence: float, auroc: float) -> float:
    """Average precision of two normal distributions."""
    shift = math.sqrt(2) * ndtri(auroc)

    def precision(recall: float) -> float:
        wrong = (1 - prevalence) * ndtr(-(shift - ndtri(recall)))
        return prevalence * recall / (prevalence * recall + wrong)

    return float(quad(precision, 0, 1)[0])


def single(patients: int, prevalence: float, auroc: float, cohorts: int) -> Tally:
    """Intervals of one finding over many cohorts."""
    rng = np.random.default_rng((0, patients, round(1000 * prevalence), round(1000 * auroc)))
    tally = Tally()
    for first in range(0, cohorts, BATCH):
        num = min(BATCH, cohorts - first)
        cut = structure(patients, rng)
        each = np.ones(num)
        scores, labels = simulate(cut, prevalence * each, auroc * each, rng, shared=0.0)
        closed = clustered_auroc(scores, labels, cut.ids)
        apart = clustered_auroc(scores, labels, [str(i) for i in range(len(scores))])
        for c in range(num):
            note_closed(tally, auroc, closed.column(c), apart.column(c))
        note_drawn(tally, (scores, labels), cut, (prevalence, auroc), seed=first)
        tally.cohorts += num
        tally.positive_patients += int(closed.patients[0].sum())
    return tally


def note_drawn(
    tally: Tally,
    cohort: tuple[Floats, NDArray[np.int64]],
    cut: Structure,
    true: tuple[float, float],
    *,
    seed: int,
) -> None:
    """Count percentile intervals of cohorts, a column each; `true` is prevalence and AUROC."""
    scores, labels = cohort
    draws = Draws.of(cut.ids, num_draws=DRAWS, seed=seed)
    found = refitted(scores, labels, draws, RULES["youden"])
    middle = ndtri(true[1]) / math.sqrt(2)  # half-way between the two means
    best = float(ndtr(middle))
    kinds = [
        (METHODS[0], found.auroc, true[1]),
        (PRECISION, found.average_precision, true_precision(*true)),
        (FIXED, balanced_at(scores >= middle, labels == 1, draws), best),
        (REFITTED, found.answers.balanced_accuracy, best),
    ]
    if int(cut.patient.max()) + 1 < LARGE:
        rows = Draws.of_rows(len(scores), num_draws=DRAWS, seed=seed)
        nowhere = np.full(scores.shape[1], np.inf)
        by_row = judged_at(scores, labels, rows, nowhere).auroc
        kinds.insert(1, (METHODS[1], by_row, true[1]))
    for name, drawn, truth in kinds:
        for column in drawn.T:
            tally.note(name, bootstrapped(column), truth)


def balanced_at(called: NDArray[np.bool_], present: NDArray[np.bool_], draws: Draws) -> Floats:
    """Balanced accuracy (draws, columns) of given answers."""
    sums = [draws.total(side) for side in (present, ~present, present & called, ~present & ~called)]
    return (ratio(sums[2], sums[0]) + ratio(sums[3], sums[1])) / 2


def note_closed(tally: Tally, truth: float, own: Estimate, apart: Estimate) -> None:
    """Count the closed intervals of an estimate by patient and by volume."""
    normal = replace(own, df=math.inf)
    found = (own.interval("logit"), own.interval("wald"), normal.interval(), apart.interval())
    for method, bounds in zip(METHODS[2:], found, strict=True):
        tally.note(method, bounds, truth)


def macro(patients: int, cohorts: int) -> Tally:
    """Intervals of the mean over 18 findings."""
    rng = np.random.default_rng((1, patients))
    tally = Tally()
    prevalence = np.array(POSITIVE_STUDIES) / sum(RECONSTRUCTIONS.values())
    aurocs = np.linspace(0.65, 0.9, len(prevalence))
    for cohort in range(cohorts):
        if cohort % BATCH == 0:
            cut = structure(patients, rng)
            draws = Draws.of(cut.ids, num_draws=DRAWS, seed=cohort)
        scores, labels = simulate(cut, prevalence, aurocs, rng, shared=0.2)
        closed = clustered_auroc(scores, labels, cut.ids)
        apart = clustered_auroc(scores, labels, [str(i) for i in range(len(scores))])
        defined = np.isfinite(closed.values)
        # a finding that the cohort does not have is left out of its mean and of the truth
        truth = float(aurocs[defined].mean())
        nowhere = np.full(len(aurocs), np.inf)
        if patients < LARGE or cohort < LARGE_DRAWN:
            drawn = judged_at(scores, labels, draws, nowhere).auroc
            tally.note(METHODS[0], bootstrapped(mean_over_findings(drawn)), truth)
        note_closed(tally, truth, closed.mean(), apart.mean())
        tally.cohorts += 1
        tally.positive_patients += int(closed.patients[0].min())
    return tally


def band(cohorts: int, share: float = 0.99) -> tuple[float, float]:
    """Where the coverage of an exact 95 % interval falls with this probability, in percent."""
    low, high = binom.interval(share, cohorts, 0.95)
    return 100 * low / cohorts, 100 * high / cohorts


def rows_of(name: str, tally: Tally) -> list[Row]:
    """One row a method."""
    positive = tally.positive_patients / tally.cohorts
    rows = []
    for method in (m for m in (*METHODS, PRECISION, FIXED, REFITTED) if m in tally.held):
        held = tally.held[method]
        tries = tally.tries[method]
        width = tally.widths.get(method, math.nan) / tries
        note = f"{tries} cohorts, {positive:.1f} patients with the finding, mean width {width:.3f}"
        rows.append(row(f"{name}: {method}", 100 * held / tries, "%", 95.0, note))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a cohort and finding, a column a method; bold = outside the band."""
    cells: dict[str, dict[str, str]] = {}
    methods: list[str] = []
    for told in rows:
        name, _, method = str(told["name"]).rpartition(": ")
        cohorts, positive = str(told["note"]).split(", ")[:2]
        low, high = band(int(cohorts.split()[0]))
        value = float(told["value"])
        text = f"{value:.1f}"
        line = cells.setdefault(name, {"patients with the finding": positive.split()[0]})
        line[method] = text if low <= value <= high else f"**{text}**"
        methods += [] if method in methods else [method]
    head = ["cohort", "patients with the finding", *methods]
    lines = [" | ".join(("", *head, "")).strip(), "|" + "---|" * len(head)]
    for name, line in cells.items():
        lines.append(" | ".join(("", name, *(line.get(key, "") for key in head[1:]), "")).strip())
    return "\n".join(lines)


def main() -> None:
    """Simulate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cohorts", type=int, default=COHORTS)
    parser.add_argument("--patients", type=int, nargs="+", default=PATIENTS)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    began = time.process_time()
    rows: list[Row] = []
    for patients in told.patients:
        for prevalence, auroc in SINGLE:
            name = f"{patients} patients, AUROC {auroc:g}, prevalence {prevalence:g}"
            rows += rows_of(name, single(patients, prevalence, auroc, told.cohorts))
        name = f"{patients} patients, macro AUROC of 18 findings"
        rows += rows_of(name, macro(patients, told.cohorts))
        if told.json is not None:
            told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)
    show([row("CPU time", time.process_time() - began, "s")])


if __name__ == "__main__":
    main()
