"""Results on disk: `result.json` (a list of results) and `per_study.csv` (one row a study).

Under several protocols the same model has several scores a study: each further protocol has a
table of its own, `per_study-NAME.csv`. JSON has no NaN: a number that is not there is `null` in the
file and NaN in memory.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t3d.errors import ProtocolError
from t3d.judge.outcome import Outcome
from t3d.types import Metric, Result

RESULT_FILE = "result.json"
TABLE_FILE = "per_study.csv"

_NUMBERS = ("value", "low", "high", "chance", "floor", "ceiling")


def write_results(folder: Path, outcomes: Sequence[Outcome]) -> tuple[Result, ...]:
    """Write outcomes of one model side by side.

    Args:
        folder: Made if missing; its `result.json` and `per_study.csv` are replaced.
        outcomes: Of the same split, in the order wanted in the file.

    Returns:
        The results, each with `per_study` set to the table of its protocol.

    Raises:
        ProtocolError: Two outcomes of a protocol have a column of the same name with other values.
    """
    names = list(dict.fromkeys(outcome.result.protocol for outcome in outcomes))
    paths = {name: folder / _table_name(name, first=name == names[0]) for name in names}
    # all tables are made before the first file of an earlier evaluation goes
    tables = {
        path: _table_of([one for one in outcomes if one.result.protocol == name])
        for name, path in paths.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{Path(TABLE_FILE).stem}*.csv"):
        old.unlink()
    for path, table in tables.items():
        path.write_text(table, encoding="utf-8", newline="")
    results = tuple(
        replace(outcome.result, per_study=paths[outcome.result.protocol]) for outcome in outcomes
    )
    rows = [to_json(result) for result in results]
    text = json.dumps(rows, indent=1, ensure_ascii=True, allow_nan=False)
    (folder / RESULT_FILE).write_text(text + "\n", encoding="utf-8")
    return results


def read_results(folder: Path) -> tuple[Result, ...]:
    """Read what `write_results` wrote.

    Args:
        folder: With `result.json`.

    Returns:
        The results, `per_study` set to the table beside the file.

    Raises:
        ProtocolError: The file is missing, or not of that form.
    """
    path = folder / RESULT_FILE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ProtocolError(
            f"{path.name} in folder {folder.name!r}: {type(error).__name__}",
            expected="a JSON list of results",
            fix="run `t3d evaluate` first, or name its folder",
        ) from error
    if not isinstance(rows, list):
        raise ProtocolError(
            f"{path.name} in folder {folder.name!r} holds a {type(rows).__name__}",
            expected="a JSON list of results",
            fix="write it with write_results",
        )
    return tuple(from_json(row, folder) for row in rows)


def finish(outcome: Outcome, out: Path | None) -> Result:
    """Write an outcome where a folder is given, and hand over its result.

    Args:
        outcome: Of a task.
        out: Folder, or None.

    Returns:
        The result.
    """
    return outcome.result if out is None else write_results(out, [outcome])[0]


def to_json(result: Result) -> dict[str, Any]:
    """Give plain dicts and lists; `per_study` is a file name beside `result.json`."""
    return {
        "task": result.task,
        "protocol": result.protocol,
        "metrics": [_metric_to_json(metric) for metric in result.metrics],
        "counts": dict(result.counts),
        "excluded": dict(result.excluded),
        "per_study": None if result.per_study is None else result.per_study.name,
        "provenance": dict(result.provenance),
    }


def from_json(row: Mapping[str, Any], folder: Path) -> Result:
    """Read what `to_json` gave.

    Args:
        row: One result.
        folder: Where its table lies.

    Returns:
        The result.

    Raises:
        ProtocolError: A field is missing.
    """
    try:
        name = row["per_study"]
        return Result(
            task=row["task"],
            protocol=row["protocol"],
            metrics=tuple(_metric_from_json(metric) for metric in row["metrics"]),
            counts=dict(row["counts"]),
            excluded=dict(row["excluded"]),
            per_study=None if name is None else folder / name,
            provenance=dict(row["provenance"]),
        )
    except KeyError as error:
        raise ProtocolError(
            f"a result without the field {error}",
            expected="task, protocol, metrics, counts, excluded, per_study, provenance",
            fix="write it with write_results",
        ) from error


def summary_value(metric: Metric) -> dict[str, float | int | None]:
    """Give a metric as `summary.json` holds it: value, low, high, chance, n."""
    return {
        "value": _or_none(metric.value),
        "low": _or_none(metric.low),
        "high": _or_none(metric.high),
        "chance": _or_none(metric.chance),
        "n": metric.n,
    }


def summary_scores(result: Result) -> dict[str, dict[str, float | int | None]]:
    """Give the AUROC of a classification as `summary.json` holds it.

    Args:
        result: Of the tasks zero_shot or supervised.

    Returns:
        "macro", "large", "small" and every finding -> value, low, high, chance, n.
    """
    prefix = "auroc:"
    return {
        metric.name.removeprefix(prefix): summary_value(metric)
        for metric in result.metrics
        if metric.name.startswith(prefix)
    }


def summary_retrieval(result: Result) -> dict[str, dict[str, float | int | None]]:
    """Give R@K of a retrieval as `summary.json` holds it.

    Args:
        result: Of the task retrieval.

    Returns:
        "t2i_r@5", "t2i_r@5_strict", ... -> value, low, high, chance, n.
    """
    return {
        metric.name: summary_value(metric)
        for metric in result.metrics
        if "_r@" in metric.name and not metric.name.startswith("permuted_")
    }


def read_table(path: Path) -> tuple[dict[str, str], ...]:
    """Read `per_study.csv`: one mapping a study, values as written, "" = not stated."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def _table_name(protocol: str, *, first: bool) -> str:
    """File name of the table of a protocol."""
    return TABLE_FILE if first else f"{Path(TABLE_FILE).stem}-{protocol}.csv"


def _table_of(outcomes: Sequence[Outcome]) -> str:
    """Join the tables of all outcomes by row: a study, or a volume where a task has volumes."""
    patients: dict[str, str] = {}
    cells: dict[str, dict[str, str]] = {}
    for outcome in outcomes:
        table = outcome.table
        patients |= zip(table.study_ids, table.patient_ids, strict=True)
        for name, values in table.columns.items():
            held = cells.setdefault(name, {})
            for row, value in zip(table.study_ids, values, strict=True):
                text = _text(float(value))
                if held.setdefault(row, text) != text:
                    raise ProtocolError(
                        f"two outcomes with different values in column {name!r}",
                        expected="one model and one split a folder",
                        fix="write the outcomes of each model to a folder of its own",
                    )
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["study_id", "patient_id", *cells])
    for row in sorted(patients):
        writer.writerow([row, patients[row], *(held.get(row, "") for held in cells.values())])
    return file.getvalue()


def _text(value: float) -> str:
    """Shortest text that reads back to the same number; "" for NaN, no ".0"."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else repr(value)


def _metric_to_json(metric: Metric) -> dict[str, Any]:
    """A metric as plain values."""
    numbers = {name: _or_none(getattr(metric, name)) for name in _NUMBERS}
    return {"name": metric.name, **numbers, "n": metric.n, "unit": metric.unit}


def _metric_from_json(row: Mapping[str, Any]) -> Metric:
    """A metric from plain values."""
    numbers = {k: math.nan if row[k] is None else float(row[k]) for k in _NUMBERS}
    return Metric(name=row["name"], n=int(row["n"]), unit=row["unit"], **numbers)


def _or_none(value: float) -> float | None:
    """None for a number that is not there."""
    return value if math.isfinite(value) else None
