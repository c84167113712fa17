"""Localization: at which depth of the scan a sentence lies, in mm.

The curve of a sentence is its cosine with every depth cell of its scan; the guess is its peak. LPS
z is compared within one scan only; everything that is carried from patient to patient, such as a
mean place, is a fraction of the prepared volume. Legend: S snippets, Z depth cells, B draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t3d.judge.depths import (
    LEVELS,
    Planes,
    Reading,
    cells_of,
    planes_of,
    preparation_of,
    read,
    text_rows,
)
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of, provenance
from t3d.judge.results import finish
from t3d.judge.snippets import (
    Snippets,
    finding_place,
    mean_place,
    nearest_place,
    snippets_of,
    words_place,
)
from t3d.scores.bootstrap import Draws, interval, paired_difference
from t3d.scores.depth import FLAT_ABOVE
from t3d.scores.places import (
    PLACES,
    RADFINDER_PLACES,
    DepthGrid,
    PlaceRules,
    anywhere,
    at_fractions,
    first_per_scan,
    middle,
    peaks,
    per_scan,
    place_errors,
    random_cells,
)
from t3d.scores.retrieval import exact_mean
from t3d.types import Metric, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Localization, Protocol

Floats = NDArray[np.float64]

LOCALIZATION_FILE = "localization.json"
MAX_PERMUTED = 20  # times that all sentences are handed to other scans
_MEDIANS = ("error_mm", "cell_error_mm")
_PER_SCAN = ("error_mm", "cell_error_mm", "exact")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Located:
    """An outcome with the curves that its numbers summarise; None where nothing was judged."""

    outcome: Outcome
    planes: Planes | None = None
    reading: Reading | None = None
    guess: Floats | None = None  # (S, Z) weights of the peak

    def write_curves(self, folder: Path) -> Path:
        """Write FOLDER/localization.json: one entry a sentence, named by study and place."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCALIZATION_FILE
        text = json.dumps(self.strips(), indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    def strips(self) -> list[dict[str, Any]]:
        """Give what a picture of each sentence needs, as plain values; no words of a report."""
        if self.planes is None or self.reading is None or self.guess is None:
            return []
        told, grid = self.planes.snippets, self.planes.grid
        curves = self.planes.curves()
        return [
            {
                "study_id": told.study_ids[i],
                "volume_id": told.volume_ids[i],
                "finding": told.findings[i],
                "key": told.keys[i],
                "z_mm": told.z_mm[i].tolist(),
                "centres_mm": grid.centres_mm[i, grid.valid[i]].tolist(),
                "curve": np.round(curves[i, grid.valid[i]], 6).tolist(),
                "guess_mm": float((self.guess[i] * np.nan_to_num(grid.centres_mm[i])).sum()),
                **{
                    f"interval_{100 * level:g}_mm": held[i].tolist()
                    for level, held in zip(LEVELS, self.reading.intervals_mm, strict=True)
                },
                "flat_p": float(self.reading.flat_p[i]),
            }
            for i in range(len(told))
        ]


def run(
    model: Any,
    cohort: Cohort,
    protocol: Protocol,
    *,
    train: str = "train",
    dev: str = "dev",
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model by the depth of sentences; see `measure`.

    Args:
        model: A `depths.TokenModel`. Another one is skipped, and the result says so.
        cohort: With sentences whose depth is known.
        protocol: Rules.
        train: Split that mean places are taken from.
        dev: Split that intervals and flatness are set up on.
        test: Split that is scored.
        out: Folder for result.json, per_study.csv and localization.json; None = none is written.

    Returns:
        The result.

    Raises:
        ProtocolError: The protocol has no rules for it, or an embedding cannot be used.
    """
    found = measure(model, cohort, protocol, splits=(train, dev, test))
    if out is not None:
        found.write_curves(out)
    return finish(found.outcome, out)


def measure(
    model: Any,
    cohort: Cohort,
    protocol: Protocol,
    *,
    splits: tuple[str, str, str] = ("train", "dev", "test"),
    snippets: Snippets | None = None,
) -> Located:
    """Judge the depths of sentences, or of boxes that are asked for by a sentence.

    Metrics by name: `error_mm`, `error_cells`, `cell_error_mm`, `exact`, `within_...` as
    `scores.places.place_errors` has them; `inside` (the guessed cell's centre lies between the
    lowest and the highest mm of the place) and `touched` (some of the cell does); `..._median`,
    `..._per_scan` (mean of the scans' means). `chance` is a curve without a peak, `ceiling` the
    cell that holds the place. Each measure of a blind guess is `<measure>:<guess>`: "random",
    "middle", "mean_place" and "finding_place" of the training snippets, "words" (ridge on
    n-grams), "text" (nearest training snippets by the model's text embedding);
    `<headline>:minus:<guess>` compares on the same draws, below 0 = the model is nearer.
    `permuted_...` hands sentences to other scans. `covered_50`, `width_90_mm` and so on are of
    the shortest intervals; `localizable` is the share of curves that are not flat, and
    `<headline>:localizable` the error of those.

    Args:
        model: As for `run`.
        cohort: With the scans.
        protocol: Rules.
        splits: Names of train, dev and test.
        snippets: What is asked, such as boxes; None = the sentences of test with a depth.

    Returns:
        Outcome and curves. Nothing is measured for a model without `embed_tokens` or a split
        without a sentence that has a depth: `excluded` names which.

    Raises:
        ProtocolError: As `run`.
    """
    rules = _rules(protocol.part("localization"))
    prepared = preparation_of(model)
    asked = snippets
    if asked is None:
        asked = snippets_of(cohort, splits[2], preparation=prepared)
    told = provenance(cohort, protocol, train=splits[0], dev=splits[1], test=splits[2])
    # asked by name: from Python 3.12 on `isinstance` does not see what a wrapper hands through
    able = hasattr(model, "embed_tokens") and hasattr(model, "embed_text")
    lacks = "" if able else "the model has no embed_tokens"
    lacks = lacks if len(asked) else "no sentence has a depth"
    if lacks:
        return Located(
            outcome=_nothing(protocol, {lacks: max(1, len(asked)), **asked.excluded}, told)
        )
    if rules.one_per_scan:
        asked = asked.taken(first_per_scan(asked.volume_ids, asked.keys))
    planes = planes_of(model, cells_of(model, cohort, asked.volume_ids), asked)
    if planes is None:
        few = {"fewer than two depth cells": len(asked), **asked.excluded}
        return Located(outcome=_nothing(protocol, few, told))
    known = tuple(snippets_of(cohort, split, preparation=prepared) for split in splits[:2])
    reading = read(model, cohort, planes, known[1], split=splits[1])
    sheet = _Sheet(planes=planes, rules=rules, protocol=protocol)
    guess = peaks(planes.curves(), planes.grid, ties=rules.ties)
    sheet.add_guess("", guess)
    blind = _blind_guesses(model, planes, known[0], rules, seed=protocol.part("localization"))
    for name, weights in blind.items():
        sheet.add_guess(f":{name}", weights)
        sheet.add_difference(name)
    sheet.add_permuted()
    sheet.add_reading(reading)
    result = _result(sheet, asked, reading, told, num_known=len(known[0]))
    outcome = Outcome(result=result, table=sheet.table(), draws=sheet.drawn)
    return Located(outcome=outcome, planes=planes, reading=reading, guess=guess)


def _result(
    sheet: _Sheet, asked: Snippets, reading: Reading, told: Mapping[str, str], *, num_known: int
) -> Result:
    """Put the collected metrics beside what was left out and what they rest on."""
    planes, rules = sheet.planes, sheet.rules
    gone = {
        **asked.excluded,
        "fewer than two depth cells": planes.num_left_out,
        "place outside the model's cells": int(np.isnan(sheet.columns["error_mm"]).sum()),
        **({} if num_known else {"no training sentence with a depth": 1}),
    }
    return Result(
        task="localization",
        protocol=sheet.protocol.name,
        metrics=tuple(sheet.metrics),
        counts=sheet.counts(num_known),
        excluded={name: num for name, num in gone.items() if num},
        provenance={
            **told,
            **reading.facts,
            "headline": sheet.headline,
            # a published rule counts cells as 12 mm whatever they are
            "cell_mm": f"{float(np.median(planes.grid.cell_mm)):.4g}, counted as "
            + ("it is" if rules.cell_mm is None else f"{rules.cell_mm:g}"),
        },
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Sheet:
    """What one run collects."""

    planes: Planes
    rules: PlaceRules
    protocol: Protocol
    metrics: list[Metric] = field(default_factory=list)
    drawn: dict[str, Floats] = field(default_factory=dict)
    columns: dict[str, Floats] = field(default_factory=dict)  # (S,) of the model
    draws: Draws = field(init=False)
    scan_draws: Draws = field(init=False)
    bounds: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        told, grid = self.planes.snippets, self.planes.grid
        self.draws = draws_of(told.patient_ids, self.protocol.intervals)
        patient = dict(zip(told.volume_ids, told.patient_ids, strict=True))
        self.scan_draws = draws_of(
            [patient[scan] for scan in sorted(patient)], self.protocol.intervals
        )
        cell = grid.cells_of(told.z_mm[:, 0])
        best = np.asarray(np.arange(grid.valid.shape[1]) == cell[:, None], dtype=np.float64)
        level = peaks(np.zeros(grid.valid.shape), grid, ties=self.rules.ties)
        chance, ceiling = self._summed(level), self._summed(best)
        self.bounds = {
            name: {"chance": chance[name], "floor": chance[name], "ceiling": ceiling[name]}
            for name in chance
        }

    @property
    def headline(self) -> str:
        """The measure that models and blind guesses are compared by."""
        return "error_mm" if self.rules.cell_mm is None else "cell_error_mm"

    def errors(self, guess: Floats) -> dict[str, Floats]:
        """Columns (S,) of a guess; NaN where the place lies outside the cells."""
        grid, z = self.planes.grid, self.planes.snippets.z_mm
        columns = place_errors(guess, grid, z[:, 0], self.rules)
        low, high = grid.edges_mm
        centres = grid.centres_mm
        with np.errstate(invalid="ignore"):  # NaN = no such cell, which no guess names
            inside = (z[:, 1:2] <= centres) & (centres <= z[:, 2:])
            touched = (low <= z[:, 2:]) & (z[:, 1:2] <= high)
        out = np.isnan(columns["error_mm"])
        for name, hit in (("inside", inside), ("touched", touched)):
            columns[name] = np.where(out, np.nan, (guess * hit).sum(axis=1))
        return columns

    def add_guess(self, suffix: str, guess: Floats) -> None:
        """Note every measure of a guess."""
        columns = self.errors(guess)
        if not suffix:
            self.columns = columns
        scans = self.planes.snippets.volume_ids
        for name, values in columns.items():
            bound = "" if suffix else name
            self._add(f"{name}{suffix}", exact_mean(values), self.draws.mean(values), bound)
        for name in _MEDIANS:
            middle_one = float(np.median(columns[name][np.isfinite(columns[name])]))
            drawn = self.draws.median(columns[name])
            bound = "" if suffix else f"{name}_median"
            self._add(f"{name}_median{suffix}", middle_one, drawn, bound)
        for name in _PER_SCAN:
            means = per_scan(columns[name], scans)
            drawn = self.scan_draws.mean(means)
            bound = "" if suffix else f"{name}_per_scan"
            self._add(f"{name}_per_scan{suffix}", exact_mean(means), drawn, bound)

    def add_difference(self, name: str) -> None:
        """Compare the model with a guess on the same draws."""
        here, there = self.headline, f"{self.headline}:{name}"
        value = {m.name: m.value for m in self.metrics}
        spread = paired_difference(self.drawn[here], self.drawn[there])
        apart = value[here] - value[there]
        self.metrics.append(
            metric_of(
                f"{here}:minus:{name}",
                apart,
                spread,
                self.draws.num_patients,
                bounds={"chance": 0.0},
                unit=self._unit,
            )
        )

    def add_permuted(self) -> None:
        """Note the error when sentences are handed to other scans."""
        rng = np.random.default_rng(self.protocol.seed)
        values = []
        for _ in range(min(self.protocol.num_permutations, MAX_PERMUTED)):
            curves = self.planes.curves(rng.permutation(len(self.planes.snippets)))
            guess = peaks(curves, self.planes.grid, ties=self.rules.ties)
            values.append(exact_mean(self.errors(guess)[self.headline]))
        name = f"permuted_{self.headline}"
        self.metrics.append(
            metric_of(
                name,
                float(np.mean(values)),
                interval(values),
                self.draws.num_patients,
                bounds={"chance": self.bounds[self.headline]["chance"]},
                unit="permutations",
            )
        )

    def add_reading(self, reading: Reading) -> None:
        """Note coverage and width of the intervals, and what can be localized."""
        place = self.planes.snippets.z_mm[:, 0]
        out = np.isnan(self.columns["error_mm"])
        for level, held in zip(LEVELS, reading.intervals_mm, strict=True):
            low, high = held.T
            hit = np.where(out, np.nan, (low <= place) & (place <= high))
            self._add(f"covered_{100 * level:g}", exact_mean(hit), self.draws.mean(hit), "")
            width = high - low
            self._add(f"width_{100 * level:g}_mm", exact_mean(width), self.draws.mean(width), "")
        clear = reading.flat_p <= FLAT_ABOVE
        self._add("localizable", exact_mean(clear), self.draws.mean(clear), "")
        values = np.where(clear, self.columns[self.headline], np.nan)
        name = f"{self.headline}:localizable"
        self._add(name, exact_mean(values), self.draws.mean(values), "")

    def counts(self, num_train: int) -> dict[str, int]:
        """How much there was of everything."""
        told = self.planes.snippets
        return {
            "sentences": len(told),
            "scans": len(set(told.volume_ids)),
            "patients": len(set(told.patient_ids)),
            "training_sentences": num_train,
        }

    def table(self) -> StudyTable:
        """Mean of each study's sentences."""
        told = self.planes.snippets
        patient = dict(sorted(zip(told.study_ids, told.patient_ids, strict=True)))
        columns = {
            f"depth:{name}": per_scan(self.columns[name], told.study_ids)
            for name in dict.fromkeys((self.headline, "within_1_cells", "touched"))
        }
        return StudyTable(
            study_ids=tuple(patient), patient_ids=tuple(patient.values()), columns=columns
        )

    @property
    def _unit(self) -> str:
        """What was resampled."""
        return {"patients": "patients", "rows": "sentences"}.get(
            self.protocol.intervals.resample, "none"
        )

    def _add(self, name: str, value: float, drawn: Floats, bound: str) -> None:
        """Note a number."""
        spread = interval(drawn, rule=self.protocol.intervals.percentiles)
        num = self.draws.num_patients
        bounds = self.bounds.get(bound, {})
        self.metrics.append(metric_of(name, value, spread, num, bounds=bounds, unit=self._unit))
        self.drawn[name] = drawn

    def _summed(self, guess: Floats) -> dict[str, float]:
        """Every summary of a guess."""
        columns = self.errors(guess)
        found = {name: exact_mean(values) for name, values in columns.items()}
        for name in _MEDIANS:
            given = columns[name][np.isfinite(columns[name])]
            found[f"{name}_median"] = float(np.median(given)) if len(given) else float("nan")
        scans = self.planes.snippets.volume_ids
        return found | {f"{n}_per_scan": exact_mean(per_scan(columns[n], scans)) for n in _PER_SCAN}


def _rules(rules: Localization) -> PlaceRules:
    """Numerics of a protocol's rules: those in cells are RadFinder's, one sentence a scan."""
    base = RADFINDER_PLACES if rules.target == "cells" else PLACES
    return replace(base, cell_mm=rules.cell_mm, within_mm=rules.within_mm)


def _blind_guesses(
    model: Any, planes: Planes, train: Snippets, rules: PlaceRules, *, seed: Localization
) -> Mapping[str, Floats]:
    """Guesses that do not look at the image."""
    told, grid = planes.snippets, planes.grid
    fair = rules.ties == "expected"
    guesses = {
        "random": anywhere(grid) if fair else random_cells(grid, seed=seed.baseline_seed),
        "middle": middle(grid),
    }
    if len(train):
        rows = text_rows(model, train.texts)
        places = {
            "mean_place": mean_place(train, told),
            "finding_place": finding_place(train, told),
            "words": words_place(train, told),
            "text": nearest_place(train, rows, planes.text),
        }
        guesses |= {name: _at(place, told, grid) for name, place in places.items()}
    return guesses


def _at(place: Floats, told: Snippets, grid: DepthGrid) -> Floats:
    """Cells at fractions of the prepared volume, which may reach further than the cells do."""
    low, high = told.extent_mm.T
    first, last = grid.ends_mm
    return at_fractions((low + place * (high - low) - first) / (last - first), grid)


def _nothing(protocol: Protocol, excluded: Mapping[str, int], told: Mapping[str, str]) -> Outcome:
    """A task that was skipped, and why."""
    result = Result(
        task="localization",
        protocol=protocol.name,
        metrics=(),
        excluded=excluded,
        provenance=told,
    )
    return Outcome(
        result=result, table=StudyTable(study_ids=(), patient_ids=(), columns={}), draws={}
    )
