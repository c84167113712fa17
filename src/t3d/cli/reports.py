"""Verbs that read reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from t3d.cli.app import app, print_out
from t3d.errors import SourceError

if TYPE_CHECKING:
    from t3d.cohort.labels import Labelling
    from t3d.cohort.questions import Service


@app.command
def mine(
    cohort: Path,
    *,
    table: Path | None = None,
    dry_run: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Turn citations in reports ("series 4, image 38") into depths, and take them out of the text.

    Args:
        cohort: Prepared from DICOM, whose series and instance numbers it keeps.
        table: A CSV to write: one line per cited image, without words of a report.
        dry_run: Only count; the cohort is not changed.
        as_json: Print counts as JSON.
    """
    from t3d.cohort.mine import REASONS
    from t3d.cohort.mine import mine as run

    found = run(cohort, table=table, dry_run=dry_run)
    counts = {"studies": found.studies, "citing": found.citing, **found.outcomes}
    if as_json:
        print_out(json.dumps(counts))
        return 0
    print_out(f"{found.citing} of {found.studies} studies cite images; {found.kept} depths kept")
    for outcome, number in sorted(found.outcomes.items()):
        print_out(f"  {number} {outcome}: {REASONS[outcome]}")
    return 0


@app.command
def label(
    cohort: Path,
    *,
    findings: str = "ct_rate18",
    table: Path | None = None,
    answers: str = "",
    model: str = "",
    key_file: Path | None = None,
    origin: str = "",
    against: str = "",
    page: Path | None = None,
) -> int:
    """Read findings from the reports of a cohort: by rules, from a table, or by asking a model.

    Labels of several origins live side by side; each value names the passage that says so.

    Args:
        cohort: The cohort; its reports stay as they are.
        findings: ct_rate18, or a TOML file with findings of your own.
        table: Take the labels of this CSV instead.
        answers: Ask the model behind this OpenAI-compatible address instead; reports are sent.
        model: Name of that model.
        key_file: File with the key of that address.
        origin: Name under which the labels are kept; default: how they were made.
        against: Print the agreement with the labels of this origin ("source" = stated ones).
        page: File to write: a random sample of labels with their passages, to check by eye.
    """
    from t3d.cohort.labels import comparison_text
    from t3d.cohort.store import Cohort
    from t3d.show.label_audit import label_audit

    if table is not None and answers:
        raise SourceError("both --table and --answers", expected="one of them")
    made = _labelled(cohort, findings, table, _service(answers, model, key_file), origin)
    print_out(str(made))
    if against:
        print_out(comparison_text(Cohort.open(cohort), against, made.origin))
    if page is not None:
        print_out(f"page: {label_audit(Cohort.open(cohort), made.origin, page)}")
    return 0


def _service(url: str, model: str, key_file: Path | None) -> Service | None:
    """Say where a model is to be asked; None = nowhere."""
    from t3d.cohort.questions import Service

    if not url:
        return None
    if not model:
        raise SourceError("--answers without --model", expected="the name of a model there")
    if key_file is not None and not key_file.is_file():
        raise SourceError(f"no file {key_file.name}", expected="a file with the key of the address")
    key = "" if key_file is None else key_file.read_text("utf-8").strip()
    return Service(url=url, model=model, key=key)


def _labelled(
    cohort: Path, findings: str, table: Path | None, service: Service | None, origin: str
) -> Labelling:
    """Label a cohort in the way asked for."""
    from t3d.cohort.labels import finding_set, label_by_rule, label_by_table
    from t3d.cohort.questions import label_by_model

    if table is not None:
        return label_by_table(cohort, table, origin=origin)
    if service is not None:
        return label_by_model(cohort, finding_set(findings), service, origin=origin)
    return label_by_rule(cohort, finding_set(findings), origin=origin)
