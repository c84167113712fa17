"""Scores and embeddings made elsewhere: judged as a model's own, or refused with a reason."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_aged import FINDINGS, AgedCohort, aged, noise, oracle, table_of
from t3d.errors import ProtocolError
from t3d.judge.external import Foreign, read_scores
from t3d.judge.outcome import Outcome
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.vlm3d import VLM3D
from t3d.judge.steps import STEPS, Bench
from t3d.judge.tasks import retrieval
from t3d.judge.units import judge_scores

QUICK = replace(
    PLAIN,
    name="quick",
    intervals=replace(PLAIN.intervals, num_draws=20),
    num_permutations=2,
)
Change = Callable[[list[dict[str, str]]], object]


@pytest.fixture(scope="module")
def cohort() -> AgedCohort:
    return aged({"train": 6, "dev": 60, "test": 75})


def rows_of(cohort: AgedCohort, *, key: str = "volume_id") -> list[dict[str, str]]:
    """One row a volume or study of dev and test."""
    told = []
    for study in cohort.studies():
        if study.split != "train":
            names = study.volume_ids if key != "study_id" else (study.study_id,)
            scores = {f: repr(oracle(study, f)) for f in FINDINGS}
            told += [{key: name, **scores} for name in names]
    return told


def written(path: Path, rows: list[dict[str, str]], change: Change | None = None) -> Path:
    if change is not None:
        change(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def judged(
    read: Foreign, cohort: AgedCohort, protocol: Protocol, *, allow_missing: bool = False
) -> Outcome:
    """Judge a file as `evaluate --scores` does."""
    bench = Bench(
        judged=read,
        cohort=cohort,
        out=Path(),
        prompts=(),
        own_prompts=False,
        nulls=False,
        by=(),
        allow_missing=allow_missing,
    )
    task = "supervised" if read.tables["test"].positive is None else "zero_shot"
    (outcome,) = STEPS[task][1](bench, protocol)
    return outcome


def numbers(result: Any) -> dict[str, tuple[float, float, float]]:
    return {m.name: (m.value, m.low, m.high) for m in result.metrics}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_csv_is_judged_to_the_digit_as_the_same_scores_of_a_model(
    cohort: AgedCohort, tmp_path: Path, reverse: bool
) -> None:
    tables = tuple(table_of(cohort, split, oracle) for split in ("dev", "test"))
    own = judge_scores(cohort, QUICK, tables=tables, task="supervised", column="scores", facts={})
    change = list.reverse if reverse else None
    path = written(tmp_path / "scores.csv", rows_of(cohort), change)
    read = read_scores(path, cohort)
    told = judged(read, cohort, QUICK)
    assert read.counts == {}
    with_matched = numbers(told.result)
    np.testing.assert_equal({n: with_matched[n] for n in numbers(own.result)}, numbers(own.result))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told.result.provenance["scores_sha256"] == digest


@pytest.mark.parametrize("key", ["study_id", "VolumeName"])
def test_a_row_may_be_a_study_or_a_file(cohort: AgedCohort, tmp_path: Path, key: str) -> None:
    rows = rows_of(cohort, key=key)
    if key == "VolumeName":
        rows = [{**row, key: f"{row[key]}.nii.gz"} for row in rows]
    told = judged(read_scores(written(tmp_path / "s.csv", rows), cohort), cohort, QUICK)
    assert told.metric("auroc:macro").value > 0.95
    assert told.result.counts["studies"] == 75


def test_cosines_of_both_sides_become_a_difference_or_a_softmax(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    rows = [
        {
            "volume_id": row["volume_id"],
            **{f"positive:{f}": row[f] for f in FINDINGS},
            **{f"negative:{f}": "0.5" for f in FINDINGS},
        }
        for row in rows_of(cohort)
    ]
    read = read_scores(written(tmp_path / "c.csv", rows), cohort, logit_scale=100.0)
    told = judged(read, cohort, QUICK)
    own = {row["volume_id"]: float(row[FINDINGS[0]]) for row in rows_of(cohort)}
    first = {s.study_id: s.volume_ids[0] for s in cohort.studies("test")}
    column = told.table.columns[f"score:c:{FINDINGS[0]}"]
    for study, value in zip(told.table.study_ids, column, strict=True):
        assert value == pytest.approx(own[first[study]] - 0.5, abs=2e-6)
    five = replace(VLM3D.classes, findings="", scored="")
    soft = judged(read, cohort, replace(VLM3D, classification=five, num_permutations=2))
    assert soft.result.provenance["logit_scale"] == "100.0"
    volume = soft.table.study_ids[0]
    value = soft.table.columns[f"score:c:{FINDINGS[0]}"][0]
    assert value == pytest.approx(1 / (1 + np.exp(-100 * (own[volume] - 0.5))), rel=1e-3)


def test_missing_scores_are_counted_named_refused_and_on_request_the_worst(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        del rows[-1]
        rows[-2][FINDINGS[1]] = ""
        rows[-3][FINDINGS[1]] = "nan"

    path = written(tmp_path / "gaps.csv", rows_of(cohort, key="study_id"), change)
    read = read_scores(path, cohort)
    assert read.counts == {"missing rows: test": 1, f"NaN: {FINDINGS[1]}": 2}
    with pytest.raises(ProtocolError, match="1 of 75 studies have no row"):
        judged(read, cohort, QUICK)
    told = judged(read, cohort, QUICK, allow_missing=True)
    assert told.result.protocol == "quick@allow-missing"
    assert told.result.counts[f"score missing: {FINDINGS[1]}"] == 3
    whole = read_scores(written(tmp_path / "w.csv", rows_of(cohort, key="study_id")), cohort)
    name = f"auroc:{FINDINGS[1]}"
    assert told.metric(name).value < judged(whole, cohort, QUICK).metric(name).value


def change_cell(value: str) -> Change:
    return lambda rows: rows[3].update({FINDINGS[0]: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].update(volume_id="John-Doe"), "1 of .* rows name no volume"),
        (lambda rows: rows.append(rows[0]), "1 rows repeat a volume"),
        (change_cell("high"), "holds no finite number"),
        (change_cell("inf"), "holds no finite number"),
        (lambda rows: [r.update(age="3") for r in rows], "columns are no finding.*'age'"),
        (lambda rows: [r.update({"positive:Emphysema": "1"}) for r in rows], "columns of cosines"),
        (lambda rows: [r.pop("volume_id") for r in rows], "no column names the volume"),
        (lambda rows: rows.clear(), "no column names the volume"),
        (lambda rows: [r.pop(f) for r in rows for f in FINDINGS], "0 of 0 columns are no finding"),
    ],
    ids=["unknown", "twice", "word", "infinite", "column", "mixed", "no id", "empty", "no scores"],
)
def test_a_table_that_cannot_be_trusted_is_refused_with_the_reason(
    cohort: AgedCohort, tmp_path: Path, change: Change, message: str
) -> None:
    rows = rows_of(cohort)
    path = written(tmp_path / "scores.csv", rows, change)
    with pytest.raises(ProtocolError, match=message) as told:
        read_scores(path, cohort)
    assert "John-Doe" not in str(told.value)


def test_one_side_of_cosines_is_refused(cohort: AgedCohort, tmp_path: Path) -> None:
    rows = [{"study_id": s.study_id, "positive:Emphysema": "1"} for s in cohort.studies("test")]
    with pytest.raises(ProtocolError, match=r"'negative:Emphysema' is missing"):
        read_scores(written(tmp_path / "one.csv", rows), cohort)


def test_a_patient_that_is_not_the_studys_is_refused(cohort: AgedCohort, tmp_path: Path) -> None:
    rows = [{**row, "patient_id": "p"} for row in rows_of(cohort)]
    read = read_scores(written(tmp_path / "p.csv", rows), cohort)
    with pytest.raises(ProtocolError, match="another patient"):
        judged(read, cohort, QUICK)


def test_rows_of_training_studies_are_counted_and_left_aside(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    extra = cohort.studies("train")[0].volume_ids[0]
    change = lambda rows: rows.append({**rows[0], "volume_id": extra})  # noqa: E731
    read = read_scores(written(tmp_path / "t.csv", rows_of(cohort), change), cohort)
    assert read.counts == {"rows of other splits": 1}
    only = [{"volume_id": extra, FINDINGS[0]: "1"}]
    with pytest.raises(ProtocolError, match="no row belongs to split"):
        read_scores(written(tmp_path / "only.csv", only), cohort)


def test_a_file_without_dev_rows_serves_protocols_that_need_none(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    rows = [row for row in rows_of(cohort) if row["volume_id"].startswith("test")]
    read = read_scores(written(tmp_path / "x.csv", rows), cohort)
    assert set(read.tables) == {"test"}
    with pytest.raises(ProtocolError, match="no dev scores"):
        judged(read, cohort, QUICK)
    five = replace(VLM3D.classes, findings="", scored="")
    fixed: Protocol = replace(VLM3D, classification=five, num_permutations=2)
    assert judged(read, cohort, fixed).metric("auroc:macro").value > 0.95


def arrays_of(cohort: AgedCohort, size: int = 12) -> dict[str, Any]:
    """Embeddings that know: the labels as signs, then a direction of the study's own."""
    studies = [s for s in cohort.studies() if s.split != "train"]
    own = np.array([[noise(s, f"d{k}") - 0.5 for k in range(size)] for s in studies])
    signs = np.array([[1.0 if s.labels[f] else -1.0 for f in FINDINGS] for s in studies])
    near = np.concatenate([np.eye(len(FINDINGS)), np.zeros((len(FINDINGS), size))], axis=1)
    return {
        "ids": np.array([s.study_id for s in studies]),
        "image": np.concatenate([0.3 * signs, own], axis=1),
        "text": np.concatenate([np.zeros_like(signs), own], axis=1),
        "prompts": np.stack([near, -near], axis=1),
        "findings": np.array(FINDINGS),
        "logit_scale": np.array(10.0),
    }


def test_an_npz_serves_classification_and_retrieval(cohort: AgedCohort, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **arrays_of(cohort))
    read = read_scores(path, cohort)
    told = judged(read, cohort, QUICK)
    assert told.metric("auroc:macro").value == pytest.approx(1.0)
    assert read.tables["test"].logit_scale == 10.0
    found = retrieval.measure(cohort, QUICK, embedded=read.embeddings["test"])
    assert found.metric("t2i_r@5").value > 0.9
    assert read.embeddings["test"].study_ids == tuple(s.study_id for s in cohort.studies("test"))


def test_text_that_is_all_nan_is_a_study_without_a_report(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    arrays = arrays_of(cohort)
    arrays["text"][-1] = np.nan
    np.savez(tmp_path / "m.npz", **arrays)
    rows = read_scores(tmp_path / "m.npz", cohort).embeddings["test"]
    assert rows.has_report.tolist() == [True] * 74 + [False]


def test_tokens_keep_their_centres(cohort: AgedCohort, tmp_path: Path) -> None:
    arrays = arrays_of(cohort)
    num, dim = arrays["image"].shape
    arrays["tokens"] = np.arange(num * 2 * dim, dtype=np.float64).reshape(num, 2, dim)
    arrays["centres_mm"] = np.zeros((num, 2, 3))
    np.savez(tmp_path / "t.npz", **arrays)
    tokens, centres = read_scores(tmp_path / "t.npz", cohort).tokens["dev"]
    assert np.array_equal(tokens, arrays["tokens"][:60])
    assert centres.shape == (60, 2, 3)


def without(name: str) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("ids"), "holds image"),
        (without("findings"), "prompts without findings"),
        (lambda a: {**a, "image": a["image"][:5]}, r"image \(5, 17\)"),
        (lambda a: {**a, "text": a["text"][:, :4]}, r"text \(135, 4\)"),
        (lambda a: {**a, "prompts": a["prompts"][:, :1]}, r"prompts \(5, 1, 17\)"),
        (lambda a: {**a, "image": a["image"].astype(str)}, "image no number"),
        (lambda a: {**a, "image": np.zeros_like(a["image"])}, "have no direction"),
        (lambda a: {**a, "ids": a["ids"].astype(object)}, "cannot be read"),
        (lambda a: {**a, "ids": np.array(["x", *a["ids"][1:]])}, "name no study"),
        (lambda a: {**a, "findings": np.array(["x", *FINDINGS[1:]])}, "are no finding"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    cohort: AgedCohort,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Mapping[str, Any]],
    message: str,
) -> None:
    np.savez(tmp_path / "m.npz", **change(arrays_of(cohort)))
    with pytest.raises(ProtocolError, match=message):
        read_scores(tmp_path / "m.npz", cohort)


def test_what_is_no_npz_or_another_kind_of_file_is_refused(
    cohort: AgedCohort, tmp_path: Path
) -> None:
    held = io.BytesIO()
    np.savez(held, **arrays_of(cohort))
    (tmp_path / "cut.npz").write_bytes(held.getvalue()[:400])
    with pytest.raises(ProtocolError, match="cannot be read"):
        read_scores(tmp_path / "cut.npz", cohort)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ProtocolError, match="holds none of the arrays"):
        read_scores(tmp_path / "one.npz", cohort)
    (tmp_path / "scores.txt").write_text("a\n")
    for name in ("scores.txt", "absent.csv"):
        with pytest.raises(ProtocolError, match="neither CSV nor NPZ"):
            read_scores(tmp_path / name, cohort)
