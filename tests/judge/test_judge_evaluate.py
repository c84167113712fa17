"""`t3d evaluate`: every task in one call, what cannot run is named, two runs side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from made_aged import FINDINGS, AgedCohort, aged
from t3d.errors import ProtocolError
from t3d.judge import evaluate as module
from t3d.judge.evaluate import Plan, curve_of, evaluate
from t3d.judge.external import read_scores
from t3d.judge.protocols import protocol_named
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.results import read_results, read_table
from t3d.judge.tasks import supervised
from t3d.types import Metric, Report, Result, Sentence


@dataclass(frozen=True, kw_only=True)
class Place(AgedCohort):
    """An aged cohort with a folder, and without any sentence that has a depth."""

    path: Path = Path("nowhere")

    def sentences(self, study_id: str) -> tuple[Sentence, ...]:
        return ()


@dataclass
class Knower:
    """Sees the labels through noise; reports and images of a study share a direction."""

    noise: float = 1.0
    seed: int = 0

    def _own(self, name: str, size: int) -> NDArray[np.float64]:
        return np.random.default_rng([self.seed, *name.encode()]).normal(size=size)

    def embed_studies(self, cohort: Place, names: Sequence[str]) -> NDArray[np.float32]:
        rows = {row.study_id: row.labels for row in cohort.rows}
        signs = [[2.0 * (rows[n][f] or 0) - 1 for f in FINDINGS] for n in names]
        noise = [self.noise * self._own(n, len(FINDINGS)) for n in names]
        return np.asarray(np.array(signs) + np.array(noise), dtype=np.float32)

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), len(FINDINGS)), 1e-3)
        for row, text in zip(rows, texts, strict=True):
            named = [f for f, name in enumerate(FINDINGS) if name.lower() in text.lower()]
            row[named] = -1.0 if text.lower().startswith(("no ", "there is no")) else 1.0
        return rows.astype(np.float32)

    def embed_reports(self, reports: list[Report]) -> NDArray[np.float32]:
        return np.array([self._own(r.findings, len(FINDINGS)) for r in reports], dtype=np.float32)


@pytest.fixture(scope="module")
def cohort() -> Place:
    made = aged({"train": 90, "dev": 60, "test": 90}, seed=3)
    return Place(rows=made.rows, records=made.records, texts=made.texts)


@pytest.fixture(scope="module")
def quick() -> Any:
    """Few draws: their number changes no value."""
    with pytest.MonkeyPatch.context() as patch:
        intervals = replace(PLAIN.intervals, num_draws=60)
        rules = replace(PLAIN, intervals=intervals, num_permutations=5)

        def named(name: str) -> Any:
            return rules if name == "plain" else protocol_named(name)

        patch.setattr(module, "protocol_named", named)
        yield rules


@pytest.fixture(scope="module")
def results(cohort: Place, quick: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("out")
    return out, evaluate(Knower(), cohort, out, Plan(prompts=("template",), by=("sex", "kernel")))


def metric(result: Result, name: str) -> Metric:
    return next(m for m in result.metrics if m.name == name)


def test_one_call_runs_every_task_and_names_those_that_cannot(results: Any) -> None:
    out, found = results
    tasks = [result.task for result in found]
    assert tasks == [
        *("zero_shot", "strata:sex", "strata:kernel", "calibration"),
        *("probe", "probe", "probe", "retrieval", "null:most_frequent_report"),
        *("neighbours", "pools", "localization"),
    ]
    assert [r.task for r in found if not r.metrics] == ["localization"]
    last = found[-1]
    assert any("no sentence has a depth" in reason for reason in last.excluded)
    assert repr(read_results(out)) == repr(found)
    seconds = json.loads((out / "seconds.json").read_text())
    assert {name.partition(" ")[0] for name in seconds} >= {"zero_shot", "probe", "localization"}


def test_nulls_matched_auroc_and_strata_stand_beside_the_model(results: Any) -> None:
    _, found = results
    shot = found[0]
    assert metric(shot, "null:age:auroc:macro").value > 0.6
    gap = metric(shot, "over_null:age:auroc:macro")
    assert gap.value == pytest.approx(
        metric(shot, "auroc:macro").value - metric(shot, "null:age:auroc:macro").value
    )
    assert 0.5 < metric(shot, "matched_auroc:macro").value <= 1
    assert metric(found[1], "auroc:macro|sex=F").n > 0


def test_every_result_says_where_it_comes_from(results: Any) -> None:
    _, found = results
    for result in found:
        for key in ("version", "labels_digest", "protocol"):
            assert result.provenance[key], (result.task, key)
    assert found[0].provenance["prompts_digest"]


def test_unknown_names_are_refused_before_anything_is_computed(cohort: Place, quick: Any) -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    for plan, told in (
        (Plan(tasks=("zero_shoot",)), "task 'zero_shoot'"),
        (Plan(protocols=("plane",)), "protocol 'plane'"),
        (Plan(by=("height",)), "fact 'height'"),
    ):
        with pytest.raises(ProtocolError, match=told):
            evaluate(Untouched(), cohort, Path("never"), plan)
    assert not Path("never").exists()


def test_a_task_that_fails_does_not_stop_the_others(
    cohort: Place, quick: Any, tmp_path: Path
) -> None:
    """Without a train split there is no probe."""
    rows = tuple(row for row in cohort.rows if row.split != "train")
    some = replace(cohort, rows=rows)
    plan = Plan(tasks=("probe", "neighbours"), prompts=("template",))
    found = evaluate(Knower(), some, tmp_path, plan)
    assert [(r.task, bool(r.metrics)) for r in found] == [("probe", False), ("neighbours", True)]
    (reason,) = found[0].excluded
    assert reason == "not run: split 'train' has no study with a volume"
    with pytest.raises(ProtocolError, match="nothing could be measured: not run: split 'train'"):
        evaluate(Knower(), some, tmp_path, Plan(tasks=("probe",)))


def written(path: Path, cohort: Place, *, noise: float, splits: Sequence[str]) -> Path:
    """A file of scores of studies."""
    model = Knower(noise=noise)
    rows = [row for row in cohort.rows if row.split in splits]
    table = model.embed_studies(cohort, [row.study_id for row in rows])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", *FINDINGS])
        for row, values in zip(rows, table.tolist(), strict=True):
            writer.writerow([row.study_id, *(repr(v) for v in values)])
    return path


def test_a_file_of_scores_is_judged_as_a_model_with_these_scores(
    cohort: Place, quick: Any, tmp_path: Path
) -> None:
    path = written(tmp_path / "theirs.csv", cohort, noise=1.0, splits=("dev", "test"))
    plan = Plan(nulls=False)
    found = evaluate(read_scores(path, cohort), cohort, tmp_path / "out", plan)
    ran = {r.task: r for r in found if r.metrics}
    assert set(ran) == {"supervised", "calibration"}
    assert {r.task for r in found if not r.metrics} == {
        *("probe", "retrieval", "neighbours", "pools", "localization")
    }
    model = Knower(noise=1.0)
    pair = [
        model.embed_studies(cohort, [s.study_id for s in cohort.studies(split)]).astype(float)
        for split in ("dev", "test")
    ]
    own = supervised.measure(
        cohort, quick, findings=FINDINGS, scores=(pair[0], pair[1]), name="theirs"
    )
    same = {m.name: m.value for m in own.result.metrics if m.name.startswith("auroc:")}
    assert {m.name: m.value for m in ran["supervised"].metrics if m.name in same} == same
    assert ran["supervised"].provenance["scores_sha256"]
    again = evaluate(str(path), cohort, tmp_path / "again", plan)
    assert repr(again[0].metrics) == repr(found[0].metrics)  # NaN equals NaN


def compare_with(
    cohort: Place, folder: Path, other: Path, noise: float
) -> tuple[Result, tuple[Result, ...]]:
    plan = Plan(tasks=("zero_shot", "retrieval"), prompts=("template",), nulls=False, compare=other)
    found = evaluate(Knower(noise=noise), cohort, folder, plan)
    return next(r for r in found if r.task == "compare:zero_shot"), found


def test_an_evaluation_beside_itself_differs_by_nothing(
    cohort: Place, results: Any, tmp_path: Path
) -> None:
    gap, found = compare_with(cohort, tmp_path, results[0], 1.0)
    assert gap.metrics
    for one in gap.metrics:  # sums over patients leave rounding errors
        assert (one.value, one.low, one.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-8)
    assert any(r.task == "compare:retrieval" for r in found)


def test_a_better_model_differs_by_the_difference_and_both_intervals_exclude_zero(
    cohort: Place, results: Any, tmp_path: Path
) -> None:
    gap, found = compare_with(cohort, tmp_path, results[0], 0.2)
    one, two = metric(found[0], "auroc:macro"), metric(results[1][0], "auroc:macro")
    drawn = metric(gap, "difference:auroc:macro")
    closed = metric(gap, "difference_closed:auroc:macro")
    assert drawn.value == pytest.approx(one.value - two.value, abs=1e-12)
    assert closed.value == drawn.value
    assert drawn.low > 0
    assert closed.low > 0
    assert closed.low == pytest.approx(drawn.low, abs=0.02)
    for finding in FINDINGS:
        apart = metric(found[0], f"auroc:{finding}").value
        apart -= metric(results[1][0], f"auroc:{finding}").value
        assert metric(gap, f"difference:auroc:{finding}").value == pytest.approx(apart)


def test_an_evaluation_of_other_patients_cannot_be_compared(
    cohort: Place, results: Any, tmp_path: Path
) -> None:
    other = aged({"train": 30, "dev": 60, "test": 91}, seed=3)
    more = Place(rows=other.rows, records=other.records, texts=other.texts)
    plan = Plan(tasks=("zero_shot",), prompts=("template",), nulls=False, compare=results[0])
    with pytest.raises(ProtocolError, match="no rows in common"):
        evaluate(Knower(), more, tmp_path, plan)


def test_several_protocols_have_a_table_each(cohort: Place, quick: Any, tmp_path: Path) -> None:
    plan = Plan(protocols=("plain", "spectre"), tasks=("retrieval", "neighbours"), nulls=False)
    found = evaluate(Knower(), cohort, tmp_path, plan)
    held = {r.protocol: r.per_study for r in found if r.metrics}
    assert held["plain"] == tmp_path / "per_study.csv"
    assert held["spectre"] == tmp_path / "per_study-spectre.csv"
    assert all(read_table(path) for path in held.values() if path is not None)


def test_files_under_several_protocols_give_points_and_what_was_refused(
    cohort: Place, quick: Any, tmp_path: Path
) -> None:
    files = [
        written(tmp_path / f"{name}.csv", cohort, noise=noise, splits=("dev", "test"))
        for name, noise in (("sharp", 0.3), ("dull", 2.0))
    ]
    rules = [quick, protocol_named("ctclip")]
    told = json.loads(curve_of(files, cohort, tmp_path, rules).read_text())
    points = {p["model"]: p["value"] for p in told["points"]["auroc:macro"]}
    assert points["sharp"] > points["dull"]
    assert set(told["refused"]) == {"ctclip"}


def test_the_order_of_studies_changes_no_number(cohort: Place, quick: Any, tmp_path: Path) -> None:
    plan = Plan(tasks=("zero_shot", "retrieval"), prompts=("template",))
    one = evaluate(Knower(), cohort, tmp_path / "one", plan)
    turned = replace(cohort, rows=cohort.rows[::-1])
    two = evaluate(Knower(), turned, tmp_path / "two", plan)

    def values(results: Sequence[Result]) -> dict[tuple[str, str], float]:
        return {(r.task, m.name): m.value for r in results for m in r.metrics}

    first, second = values(one), values(two)
    assert first.keys() == second.keys()
    # a solver of the logistic nulls, permutations and random guesses look at the order of rows
    loose = ("null:", "over_null:", "permuted_", "blind:random:")
    for key, value in first.items():
        if not key[1].startswith(loose):
            assert second[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key
