"""What was found, in plain words, including what lost; every sentence is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t3d.show.gates import NOT_MET, Verdict
from t3d.show.wording import (
    NOT_MEASURED,
    has_interval,
    is_measured,
    listed,
    number,
    percent,
    with_interval,
)
from t3d.text.findings import CT_RATE_18
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.show.records import DemoRecord, RecipeRecord

BASELINE = "clip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The page's opening: one sentence, the facts beside it, and what did not work."""

    lead: str
    facts: tuple[str, ...]
    lost: tuple[str, ...]


def headline(demo: DemoRecord, verdicts: Sequence[Verdict]) -> Headline:
    """Say what the demo found.

    Args:
        demo: What `summary.json` says.
        verdicts: The demo's bounds, judged.

    Returns:
        Sentences; numbers that are missing are named as not measured.
    """
    best = best_recipe(demo)
    if best is None:
        lead = "No recipe has a measured zero-shot score yet."
        return Headline(lead=lead, facts=(), lost=tuple(_failed(verdicts)))
    lost = [*_duel_sentences(demo, ("worse", "same")), *_weak_spots(best), *_failed(verdicts)]
    facts = [*_facts(best, demo), *_duel_sentences(demo, ("better",))]
    return Headline(lead=_lead(best, demo), facts=tuple(facts), lost=tuple(lost))


def best_recipe(demo: DemoRecord) -> RecipeRecord | None:
    """The recipe with the highest macro AUROC under bank prompts, if any has one.

    Args:
        demo: What `summary.json` says.

    Returns:
        The record, or None where nothing was measured.
    """
    known = [r for r in demo.recipes if is_measured(r.score("bank", "macro"))]
    return max(known, key=lambda r: r.score("bank", "macro").value, default=None)


def compare(challenger: Metric, baseline: Metric, difference: Metric | None = None) -> str:
    """Compare two metrics by their paired difference, or else by their intervals.

    Args:
        challenger: The one that should be better.
        baseline: The one it is held against.
        difference: Challenger minus baseline on the same draws of patients, if it is known.

    Returns:
        "better" or "worse" where the difference's interval excludes 0, or, without a
        difference, where the intervals do not touch; else "same"; "" without intervals.
    """
    if difference is not None and has_interval(difference):
        if difference.low > 0:
            return "better"
        return "worse" if difference.high < 0 else "same"
    if not (has_interval(challenger) and has_interval(baseline)):
        return ""
    if challenger.low > baseline.high:
        return "better"
    return "worse" if challenger.high < baseline.low else "same"


def _lead(best: RecipeRecord, demo: DemoRecord) -> str:
    """The one sentence to remember."""
    macro = best.score("bank", "macro")
    patients = demo.cohort.get("test") or NOT_MEASURED
    source = "reports alone" if best.supervision == "reports" else best.supervision or "reports"
    return (
        f"Trained on {source}, {best.name} tells findings apart with an AUROC of "
        f"{with_interval(macro)} on {patients} synthetic test patients it has never seen; "
        f"guessing gives {number(macro.chance, 2)}."
    )


def _facts(best: RecipeRecord, demo: DemoRecord) -> list[str]:
    """Baselines, ceiling, retrieval."""
    facts = []
    clip = demo.recipe(BASELINE)
    if clip is not None and clip is not best:
        found = with_interval(clip.score("bank", "macro"))
        facts.append(f"The plain baseline {BASELINE} reaches {found}.")
    supervised = demo.supervised.get("macro", Metric(name="macro", value=math.nan))
    logistic = demo.logistic.get("macro", Metric(name="macro", value=math.nan))
    facts.append(
        f"The same image encoder trained on labels, the ceiling, reaches "
        f"{with_interval(supervised)}; logistic regression on simple features "
        f"{with_interval(logistic)}."
    )
    share = best.ceiling_share
    if clip is not best:
        facts.append(
            f"Of the way from {BASELINE} to that ceiling, {best.name} covers "
            f"{percent(share.value)}."
        )
    facts.append(_recall_fact(best))
    return facts


def _recall_fact(best: RecipeRecord) -> str:
    """Retrieval for people who do not know R@10."""
    recall = best.found("t2i_r@10")
    if not is_measured(recall):
        return f"Finding a patient by the report: {NOT_MEASURED}."
    return (
        f"Given a report, {best.name} has the right patient among its first 10 in "
        f"{percent(recall.value)} of cases; by chance it would be {percent(recall.chance)}."
    )


def _duel_sentences(demo: DemoRecord, verdicts: Sequence[str]) -> list[str]:
    """What the duels with one of these verdicts found."""
    sentences = []
    for name, other in _duels(demo):
        first, second = demo.recipe(name), demo.recipe(other)
        if first is None or second is None:
            continue
        paired = demo.differences.get(f"{name} - {other}", {})
        for label, key, a, b in (
            (
                "bank AUROC",
                "bank_macro",
                first.score("bank", "macro"),
                second.score("bank", "macro"),
            ),
            ("report-to-image R@10", "t2i_r@10", first.found("t2i_r@10"), second.found("t2i_r@10")),
        ):
            verdict = compare(a, b, paired.get(key))
            if verdict in verdicts:
                numbers = f"{label} {with_interval(a)} against {with_interval(b)}"
                sentences.append(_duel(verdict, name, other, numbers, paired.get(key)))
    return sentences


def _duel(verdict: str, name: str, other: str, numbers: str, difference: Metric | None) -> str:
    """One duel in words."""
    if difference is not None:
        numbers += f"; paired difference {with_interval(difference, 3)}"
    if verdict == "better":
        return f"{name} gains over {other}: {numbers}."
    if verdict == "worse":
        return f"{name} loses to {other}: {numbers}."
    reason = "the intervals overlap" if difference is None else "which includes 0"
    return f"{name} shows no clear gain over {other}: {numbers}, {reason}."


def _duels(demo: DemoRecord) -> list[tuple[str, str]]:
    """Who is held against whom: everyone against clip, and each step against the one before."""
    duels = [
        (r.name, BASELINE)
        for r in demo.recipes
        if r.name != BASELINE and not r.name.endswith("_equal_steps")
    ]
    duels += [
        ("t3d_v3", "clip_crops"),
        ("t3d_v3_match", "t3d_v3"),
        ("t3d_v3_equal_steps", "clip_crops_equal_steps"),
    ]
    return duels


def _weak_spots(best: RecipeRecord) -> list[str]:
    """Findings not learned, small forms, and the price of the wording."""
    spots = []
    scores = [(finding, best.score("bank", finding)) for finding in CT_RATE_18]
    weak = [f for f, m in scores if has_interval(m) and m.low <= 0.5]
    if weak:
        spots.append(f"{best.name} does not tell these from chance: {listed(weak)}.")
    large, small = best.score("bank", "large"), best.score("bank", "small")
    if small.value < large.value:
        spots.append(
            f"Small findings are harder: {with_interval(small)} against "
            f"{with_interval(large)} for large ones ({best.name}, bank)."
        )
    bank, template = best.score("bank", "macro"), best.score("template", "macro")
    if template.value < bank.value:
        spots.append(
            f"Wording matters: with class names in sentences {best.name} falls from "
            f"{with_interval(bank)} to {with_interval(template)}."
        )
    return spots


def _failed(verdicts: Sequence[Verdict]) -> list[str]:
    """Bounds that were not kept."""
    return [
        f"Bound not met by {v.subject}: {v.bound}; found {v.found}."
        for v in verdicts
        if v.state == NOT_MET
    ]
