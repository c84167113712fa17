"""Results on disk: what is written is what is read, and it is strict JSON."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.embeddings import embed_split
from t3d.judge.prompts import PromptSet
from t3d.judge.protocol import Protocol
from t3d.judge.results import (
    from_json,
    read_results,
    read_table,
    summary_value,
    to_json,
    write_results,
)
from t3d.judge.tasks import TASKS, retrieval, zero_shot
from t3d.types import Metric, Result

NAN = float("nan")


def same(one: Result, two: Result) -> bool:
    """Equal in every field; NaN equals NaN."""
    return repr(one) == repr(two)


@pytest.fixture
def outcomes(guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet) -> list[Any]:
    dev, test = (embed_split(guess, cohort, split) for split in ("dev", "test"))
    shot = zero_shot.measure(guess, cohort, quick, prompts, embedded=(dev, test))
    return [shot, retrieval.measure(cohort, quick, embedded=test)]


def test_a_result_survives_json_with_its_missing_numbers() -> None:
    metrics = (Metric(name="a", value=0.5, n=3, unit="patients"), Metric(name="b", value=NAN))
    result = Result(task="t", protocol="p", metrics=metrics, counts={"studies": 3})
    text = json.dumps(to_json(result), allow_nan=False)
    assert same(from_json(json.loads(text), Path("x")), result)


def test_written_results_read_back_equal(tmp_path: Path, outcomes: list[Any]) -> None:
    written = write_results(tmp_path / "out", outcomes)
    again = read_results(tmp_path / "out")
    assert len(again) == 2
    assert all(same(one, two) for one, two in zip(written, again, strict=True))
    assert again[0].per_study == tmp_path / "out" / "per_study.csv"


def test_a_result_file_is_strict_json_without_a_path(tmp_path: Path, outcomes: list[Any]) -> None:
    write_results(tmp_path, outcomes)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    rows = json.loads(text, parse_constant=refuse)
    assert [row["task"] for row in rows] == ["zero_shot", "retrieval"]
    assert str(tmp_path) not in text
    fields = {"name", "value", "low", "high", "n", "unit", "chance", "floor", "ceiling"}
    assert all(set(m) == fields for row in rows for m in row["metrics"])
    for key in ("cohort", "protocol", "seed", "num_draws", "prompts_digest", "dev", "test"):
        assert rows[0]["provenance"][key]


def test_the_table_has_one_row_a_study_with_scores_labels_and_ranks(
    tmp_path: Path, outcomes: list[Any], cohort: Any
) -> None:
    write_results(tmp_path, outcomes)
    rows = read_table(tmp_path / "per_study.csv")
    assert [row["study_id"] for row in rows] == [s.study_id for s in cohort.studies("test")]
    columns = list(rows[0])
    assert columns[:3] == ["study_id", "patient_id", "score:template:Lung nodule"]
    assert columns[-2:] == ["rank:t2i", "rank:i2t"]
    for i, (row, study) in enumerate(zip(rows, cohort.studies("test"), strict=True)):
        label = study.labels["Lung nodule"]
        assert row["label:Lung nodule"] == ("" if label is None else str(label))
        score = outcomes[0].table.columns["score:template:Lung nodule"][i]
        assert float(row["score:template:Lung nodule"]) == score
    assert rows[-1]["rank:t2i"] == ""
    with (tmp_path / "per_study.csv").open(encoding="utf-8", newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {len(columns)}


def test_two_writings_are_the_same_bytes(tmp_path: Path, outcomes: list[Any]) -> None:
    for name in ("a", "b"):
        write_results(tmp_path / name, outcomes)
    for file in ("result.json", "per_study.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_two_prompt_sets_stand_side_by_side(
    tmp_path: Path, guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    both = (embed_split(guess, cohort, "dev"), embed_split(guess, cohort, "test"))
    other = replace(prompts, name="bank", positive=prompts.negative, negative=prompts.positive)
    pair = [zero_shot.measure(guess, cohort, quick, p, embedded=both) for p in (prompts, other)]
    write_results(tmp_path, pair)
    row = read_table(tmp_path / "per_study.csv")[0]
    one, two = row["score:template:Lung nodule"], row["score:bank:Lung nodule"]
    assert float(one) == pytest.approx(-float(two))


def test_two_models_in_one_folder_are_refused(tmp_path: Path, outcomes: list[Any]) -> None:
    table = outcomes[1].table
    moved = replace(table, columns={k: v + 1 for k, v in table.columns.items()})
    with pytest.raises(ProtocolError, match="different values in column 'rank:t2i'"):
        write_results(tmp_path, [outcomes[1], replace(outcomes[1], table=moved)])


def test_run_writes_where_a_folder_is_given(
    tmp_path: Path, guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    assert zero_shot.run in TASKS
    result = zero_shot.run(guess, cohort, quick, prompts=prompts, out=tmp_path)
    assert same(read_results(tmp_path)[0], result)
    assert zero_shot.run(guess, cohort, quick, prompts=prompts).per_study is None
    found = retrieval.run(guess, cohort, quick, out=tmp_path / "pairs")
    assert found.per_study == tmp_path / "pairs" / "per_study.csv"


@pytest.mark.parametrize("text", ["{", '{"task": 1}', None])
def test_a_folder_without_a_list_of_results_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(ProtocolError, match="a JSON list of results"):
        read_results(tmp_path)


def test_a_result_with_a_missing_field_is_refused() -> None:
    with pytest.raises(ProtocolError, match="without the field 'task'"):
        from_json({"per_study": None}, Path("x"))


def test_a_summary_value_has_null_for_what_is_not_there() -> None:
    value = summary_value(Metric(name="a", value=0.25, n=4))
    assert value == {"value": 0.25, "low": None, "high": None, "chance": None, "n": 4}
    assert not any(isinstance(v, float) and math.isnan(v) for v in value.values())


def test_numbers_in_the_table_read_back_to_the_same_float(outcomes: list[Any]) -> None:
    from t3d.judge.results import _text

    values = np.random.default_rng(0).normal(size=50)
    assert all(float(_text(float(v))) == v for v in values)
    assert _text(3.0) == "3"
    assert _text(NAN) == ""
