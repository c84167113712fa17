"""Bounds that were set before the numbers were known, and whether the numbers keep them.

Sources: the demo's bounds come from the project's goals for the demo ("What it must show", 1);
the meters of text-informed alignment from its design notes, section 5.5. Both are ours, not the
paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t3d.show.wording import NOT_MEASURED, is_measured, number, short, with_interval
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.show.records import DemoRecord, RecipeRecord

MET = "met"
NOT_MET = "not met"
NOT_MEASURABLE = "not measurable"
REPORTED = "reported"
VERDICT = "_verdict"  # suffix under which the training says what it made of a meter

SUPERVISED_AUROC = 0.80  # the ceiling must be worth the name
CLIP_AUROC = 0.60  # lower end of the interval
CLIP_TIMES_CHANCE = 5.0  # R@10, lower end, in units of chance
PLUS_AUROC = 0.75  # lower end of the interval
PLUS_RECALL = 0.60  # R@10 text to image
SHUFFLED_AUROC = (0.46, 0.54)  # reports permuted between patients must give chance
LEAK = 0.1
LEAK_NEEDS = 5.0  # times 1/n: below this agreement the leak cannot be read
IMAGE_ONLY = 0.5
TEXT_DOMINANCE = 0.1
ENTROPY = 0.7  # of the mean assignment, share of its maximum
ATTENTION_TV = 0.05  # below it the text is not used
POINTING_TIMES_CHANCE = 3.0
AT_LIMIT = ("leak", "image_only", "text_dominance", "attention_tv")  # the limit itself is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One bound, what was found, and whether it is kept."""

    subject: str  # recipe or baseline
    bound: str
    found: str
    state: str  # MET, NOT_MET, NOT_MEASURED, NOT_MEASURABLE, REPORTED


def demo_gates(demo: DemoRecord) -> tuple[Verdict, ...]:
    """Judge the demo's bounds.

    Args:
        demo: What `summary.json` says.

    Returns:
        One verdict a bound; a bound whose number is missing is "not measured".
    """
    supervised = _of(demo.supervised, "macro")
    logistic = _of(demo.logistic, "macro")
    return (
        _verdict(
            "supervised",
            f"AUROC above {SUPERVISED_AUROC:.2f}",
            with_interval(supervised),
            supervised.value - SUPERVISED_AUROC,
        ),
        _verdict(
            "supervised",
            "AUROC above the logistic baseline",
            f"{number(supervised.value, 2)} against {number(logistic.value, 2)}",
            supervised.value - logistic.value,
        ),
        *_clip_gates(demo.recipe("clip")),
        *_plus_gates(demo.recipe("t3d_plus")),
        *_shuffled_gates(demo.shuffled),
    )


def meter_gates(recipe: RecipeRecord) -> tuple[Verdict, ...]:
    """Judge the meters of text-informed alignment of one recipe; other gauges are reported.

    Args:
        recipe: Its gauges may carry a prefix ("tma/leak", "dev.leak"); the last part counts.
            `leak_verdict` and the like are what the training said; where it called a reading
            not measurable, so does the page.

    Returns:
        One verdict a gauge, in the order of the file.
    """
    known = {_short(name): value for name, value in recipe.gauges.items()}
    names = [name for name in recipe.gauges if not name.endswith(VERDICT)]
    return tuple(_meter(recipe.name, name, _short(name), known) for name in names)


def _clip_gates(clip: RecipeRecord | None) -> tuple[Verdict, ...]:
    """The baseline must learn something, or the comparison is empty."""
    macro = clip.score("bank", "macro") if clip else _nothing()
    recall = clip.found("t2i_r@10") if clip else _nothing()
    return (
        _verdict(
            "clip",
            f"lower end of bank AUROC above {CLIP_AUROC:.2f}",
            with_interval(macro),
            macro.low - CLIP_AUROC,
        ),
        _verdict(
            "clip",
            f"lower end of report-to-image R@10 above {CLIP_TIMES_CHANCE:.0f} x chance",
            f"{with_interval(recall)}, chance {number(recall.chance)}",
            recall.low - CLIP_TIMES_CHANCE * recall.chance,
        ),
    )


def _plus_gates(plus: RecipeRecord | None) -> tuple[Verdict, ...]:
    """What our own recipe promised."""
    macro = plus.score("bank", "macro") if plus else _nothing()
    recall = plus.found("t2i_r@10") if plus else _nothing()
    return (
        _verdict(
            "t3d_plus",
            f"lower end of bank AUROC above {PLUS_AUROC:.2f}",
            with_interval(macro),
            macro.low - PLUS_AUROC,
        ),
        _verdict(
            "t3d_plus",
            f"report-to-image R@10 above {PLUS_RECALL:.1f}",
            with_interval(recall),
            recall.value - PLUS_RECALL,
        ),
    )


def _shuffled_gates(shuffled: Mapping[str, Mapping[str, Metric]]) -> tuple[Verdict, ...]:
    """With reports that belong to other patients nothing can be learned."""
    low, high = SHUFFLED_AUROC
    names = tuple(shuffled) or ("bank",)
    metrics = [(name, _of(shuffled.get(name, {}), "macro")) for name in names]
    return tuple(
        _verdict(
            "shuffled reports",
            f"{name} AUROC between {low:.2f} and {high:.2f}",
            with_interval(metric, 3),
            min(metric.value - low, high - metric.value),
        )
        for name, metric in metrics
    )


def _meter(recipe: str, name: str, key: str, gauges: Mapping[str, float | str]) -> Verdict:
    """One gauge against its bound, if it has one."""
    raw = gauges[key]
    if isinstance(raw, str):
        state = NOT_MEASURABLE if NOT_MEASURABLE in raw else REPORTED
        return Verdict(subject=recipe, bound=name, found=raw, state=state)
    bound, margin = _meter_bound(key, raw, gauges)
    what = f"{name} {bound}".strip()
    why = _why_not_measurable(key, gauges)
    if why:
        found = f"{short(raw)}; {why}" if math.isfinite(raw) else why
        return Verdict(subject=recipe, bound=what, found=found, state=NOT_MEASURABLE)
    said = gauges.get(f"{key}{VERDICT}", "")
    if bound == "":
        state = REPORTED if math.isfinite(raw) else NOT_MEASURED
        more = f"; {said}" if key == "text_use" and said not in ("", "pass") else ""
        return Verdict(subject=recipe, bound=what, found=short(raw) + more, state=state)
    state = _state(margin, inclusive=key in AT_LIMIT)
    return Verdict(subject=recipe, bound=what, found=short(raw), state=state)


def _why_not_measurable(key: str, gauges: Mapping[str, float | str]) -> str:
    """The reason why a reading says nothing, or ""."""
    said = gauges.get(f"{key}{VERDICT}", "")
    if isinstance(said, str) and said.startswith(NOT_MEASURABLE):
        return said.removeprefix(NOT_MEASURABLE).lstrip(": ") or NOT_MEASURABLE
    if key in ("leak", "image_only") and not _is_readable(gauges):
        return f"agreement below {LEAK_NEEDS:.0f}/n, so it says nothing"
    return ""


def _meter_bound(key: str, value: float, gauges: Mapping[str, float | str]) -> tuple[str, float]:
    """The bound of a meter in words, and by how much the value keeps it."""
    if key == "leak":
        return f"at most {LEAK}", LEAK - value
    if key == "image_only":
        return f"at least {IMAGE_ONLY}", value - IMAGE_ONLY
    if key == "text_dominance":
        return f"at most {TEXT_DOMINANCE}", TEXT_DOMINANCE - value
    if key == "entropy":
        return f"above {ENTROPY}", value - ENTROPY
    if key == "attention_tv":
        return f"at least {ATTENTION_TV}, or the text is not used", value - ATTENTION_TV
    if key == "pointing":
        chance = _first(gauges, ("pointing_chance", "mask_share"))
        return f"above {POINTING_TIMES_CHANCE:.0f} x chance", (
            value - POINTING_TIMES_CHANCE * chance
        )
    return "", math.nan


def _is_readable(gauges: Mapping[str, float | str]) -> bool:
    """Whether views agree well enough to read a leak; unknown agreement does not forbid it."""
    agreement, n = _first(gauges, ("agreement",)), _first(gauges, ("n",))
    return not (math.isfinite(agreement) and math.isfinite(n)) or agreement >= LEAK_NEEDS / n


def _first(gauges: Mapping[str, float | str], names: tuple[str, ...]) -> float:
    """The first of these gauges that is a number, else NaN."""
    found = (gauges.get(name) for name in names)
    return next((v for v in found if isinstance(v, float)), math.nan)


def _short(name: str) -> str:
    """Last part of a gauge's name, in one spelling."""
    return name.replace(".", "/").split("/")[-1].lower().replace("-", "_").replace(" ", "_")


def _verdict(subject: str, bound: str, found: str, margin: float) -> Verdict:
    """A bound that must be exceeded; the margin is NaN where a number is missing."""
    return Verdict(subject=subject, bound=bound, found=found, state=_state(margin))


def _state(margin: float, *, inclusive: bool = False) -> str:
    """Turn a margin into a word."""
    if not math.isfinite(margin):
        return NOT_MEASURED
    return MET if margin > 0 or (inclusive and margin == 0) else NOT_MET


def _of(metrics: Mapping[str, Metric], name: str) -> Metric:
    """A metric by name, or NaN."""
    metric = metrics.get(name)
    return metric if metric is not None and is_measured(metric) else _nothing()


def _nothing() -> Metric:
    """A metric that was not measured."""
    return Metric(name="", value=math.nan)
