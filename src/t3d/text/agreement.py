"""How far two readings of the same reports agree: counts first, then ratios with intervals.

A reading gives each finding of each report one of three values: 1 present, 0 denied, None not
stated. "Not stated" is a value like the others here: a rule that misses a finding has not agreed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

VALUES: tuple[int | None, ...] = (1, 0, None)
_Z = 1.959963984540054  # 97.5 % point of the normal distribution


class Ratio(NamedTuple):
    """A ratio of counts with its 95 % interval; NaN where nothing was counted."""

    value: float
    low: float
    high: float
    hits: int
    n: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """One finding, read twice: how often the first said a and the second said b."""

    counts: Counter[tuple[int | None, int | None]]  # (reference, answer) -> reports

    @property
    def num_reports(self) -> int:
        """Reports read twice."""
        return self.counts.total()

    def precision(self, value: int = 1) -> Ratio:
        """Of the reports whose answer is `value`, those whose reference says so too."""
        answered = sum(self.counts[reference, value] for reference in VALUES)
        return wilson(self.counts[value, value], answered)

    def recall(self, value: int = 1) -> Ratio:
        """Of the reports whose reference is `value`, those whose answer says so too."""
        stated = sum(self.counts[value, answer] for answer in VALUES)
        return wilson(self.counts[value, value], stated)

    def kappa(self, of: str = "values") -> Ratio:
        """Cohen's kappa: agreement beyond what the two margins give by chance.

        Args:
            of: "values" = all three; "present" = 1 against the other two, for labels that never
                say "not stated"; "stated" = 1 against 0 where both readings state one.

        Returns:
            Kappa with its interval, and the reports that agree; NaN where chance alone agrees
            always (a single value).

        Formula: (p - e) / (1 - e), p = share that agrees, e = share expected from the margins;
        the interval is Wilson's of p with e as it is, so that full agreement of few reports does
        not look certain.

        Check: counts 20, 5 / 10, 15 -> p .7, e .5, kappa .4, .124993 to .617929.
        Source: Cohen 1960, Educational and Psychological Measurement 20:37; interval our choice.
        """
        held: Counter[tuple[int | None, int | None]] = Counter()
        for (a, b), count in self.counts.items():
            if of == "present":
                held[int(a == 1), int(b == 1)] += count
            elif of == "values" or (a is not None and b is not None):
                held[a, b] += count
        n, hits = held.total(), sum(held[v, v] for v in VALUES)
        first, second = Counter[int | None](), Counter[int | None]()
        for (a, b), count in held.items():
            first[a] += count
            second[b] += count
        chance = sum(first[v] * second[v] for v in VALUES)
        if n == 0 or chance == n * n:
            return Ratio(math.nan, math.nan, math.nan, hits, n)
        expected = chance / n**2
        share = wilson(hits, n)
        kappa, low, high = ((p - expected) / (1 - expected) for p in share[:3])
        return Ratio(kappa, max(-1.0, low), high, hits, n)


def agreement(pairs: Iterable[tuple[int | None, int | None]]) -> Agreement:
    """Count how two readings of one finding agree.

    Args:
        pairs: (reference, answer) of each report, each 1, 0 or None.
    """
    return Agreement(Counter(pairs))


def pooled(parts: Iterable[Agreement]) -> Agreement:
    """Add up the counts of several findings.

    Args:
        parts: One for each finding.
    """
    total: Counter[tuple[int | None, int | None]] = Counter()
    for part in parts:
        total.update(part.counts)
    return Agreement(total)


def wilson(hits: int, n: int) -> Ratio:
    """Give a share of counts with Wilson's 95 % interval.

    Args:
        hits: How many of them.
        n: How many in all.

    Returns:
        NaN for everything where n = 0.

    Formula: (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n), z = 1.95996.
    Check: 8 of 10 -> .8, .490162 to .943318.
    Source: Wilson 1927, Journal of the American Statistical Association 22:209.
    """
    if n == 0:
        return Ratio(math.nan, math.nan, math.nan, hits, n)
    share = hits / n
    scale = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / scale
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n)) / scale
    return Ratio(share, max(0.0, centre - half), min(1.0, centre + half), hits, n)


def agreement_table(rows: Iterable[tuple[str, Agreement]]) -> str:
    """Print agreement finding by finding, and all of them together.

    Args:
        rows: Name of a finding and its counts.

    Returns:
        A line for each finding: how often the reference says 1 and 0, precision and recall of 1
        and of 0 with 95 % intervals, kappa over three values.
    """
    held = list(rows)
    head: tuple[str, ...] = (
        "finding",
        "1",
        "0",
        "precision 1",
        "recall 1",
        "precision 0",
        "recall 0",
    )
    head += ("kappa of 1", "kappa of 1, 0, -")
    lines = [head]
    for name, one in [*held, ("all", pooled(part for _, part in held))]:
        ratios = [one.precision(1), one.recall(1), one.precision(0), one.recall(0)]
        lines.append(
            (
                name,
                str(ratios[1].n),
                str(ratios[3].n),
                *(_shown(ratio, counts=True) for ratio in ratios),
                *(_shown(one.kappa(of), counts=False) for of in ("present", "values")),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _shown(ratio: Ratio, *, counts: bool) -> str:
    """Write a ratio with its interval; "-" where there is none."""
    if math.isnan(ratio.value):
        return "-"
    told = f"{ratio.hits}/{ratio.n} " if counts else ""
    return f"{told}{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
