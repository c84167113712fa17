"""Are these numbers a CT in HU? A verdict each for what they look like instead, with evidence.

Looks at values only, never at places. Air is -1000, fat about -100, water 0, soft tissue about
40: a scan of a person has them where they belong. Named but never refused: padding, coarse
steps. Two things cannot be told from values and pass: an MR without an exact zero background
whose median looks like enhanced tissue, and a scan that shows nothing but lung.

All thresholds are our choice, set between what real scans, random crops of them and their
damaged copies show; `tests/ct/test_ct_plausibility.py` measures both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLE = 50_000  # more voxels change no verdict

# Fat to soft tissue and unenhanced blood. Real scans: at least 6 % of all voxels, a head in a
# wide field; shifted twice, only dense bone falls here: at most 1.4 %.
TISSUE_HU = (-150.0, 150.0)
FEW_TISSUE = 0.03
# Air, lung and fat with their edges. Random crops of real scans that lack them look like
# tissue alone; MR, PET, windowed and never shifted data lack them altogether.
LIGHT_HU = (-1100.0, -40.0)
FEW_LIGHT = 0.02
# Below air, above every padding seen: air shifted twice lies at -2000 with its noise.
TWICE_AIR_HU = (-2300.0, -1100.0)
MUCH_TWICE_AIR = 0.05
# Clipped at air after the second shift: soft tissue is left between the floor and lung, and
# above it the density only falls; a scan of a body has a hill at tissue and is thin below it.
CLIPPED_FLOOR = 0.2
CLIPPED_FEW_TISSUE = 0.02  # a crop of lung with a sharp kernel, cut at -1024, has 2.1 %
CLIPPED_TISSUE_HU = (-1023.0, -900.0)
PARTIAL_HU = (-600.0, -200.0)
NOTHING_ABOVE_HU = -500.0  # brightest 0.1 %; a pure lung crop with a sharp kernel has -240
# Fat and soft tissue 1000 or 1024 too high; in a crop of a skull bone is as thick above.
UNSHIFTED_HU = (850.0, 1200.0)
UNSHIFTED_ABOVE_HU = (1250.0, 1650.0)
UNSHIFTED_BELOW_HU = (350.0, 750.0)  # lung's edges if shifted, spongy bone if not
MUCH_UNSHIFTED = 0.05
UNSHIFTED_MEDIAN_HU = 700.0  # a crop of nothing but bone or contrast stays below
# Without air and fat a crop is tissue: its dark end, its median and its bright end.
CROP_P01_HU = 150.0
CROP_MEDIAN_HU = (-60.0, 600.0)
CROP_P99_HU = 2500.0
WATER_HU = 20.0  # a median below it comes with noise on both sides of 0
FEW_NEGATIVE = 0.01
# One value that ends the range from below or above: a window was burnt in. Air may end it.
BURNT_FLOOR_HU, BURNT_FLOOR = -700.0, 0.05
BURNT_TOP_HU, BURNT_TOP = 900.0, 0.01
BURNT_STEP = 20.0  # and it is so many times as frequent as its neighbour; brain in 8 bits: 5
CROP_FLOOR = 0.01
SCALED_MAX = 20.0  # 0..1, -1..1, z-scores; a CT without noise is no CT
LABEL_VALUES, LABEL_SHARE = 128, 0.85  # so many whole numbers, the ten commonest hold so much
PADDING_HU, PADDING = -1100.0, 0.001
COARSE_VALUES, COARSE_RANGE_HU = 256, 500.0  # 8 bits over a whole CT's range

_OVERRIDE = "state slope and intercept through a HeaderOverride"
_OTHER_FILE = "find the CT in HU that this was made from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What values look like instead of a CT in HU, or what is worth knowing about them."""

    code: str  # "rescaled_twice", "padding", ...
    refuse: bool  # False: legal, only named
    found: str  # the evidence, in numbers
    expected: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    """A sample as its values in order, with how often each occurs."""

    values: NDArray[np.float64]  # (V,) HU, rising
    upto: NDArray[np.int64]  # (V,) voxels at or below each value
    stored_bytes: int  # 0 = not known

    @property
    def low(self) -> float:
        """The lowest value."""
        return float(self.values[0])

    @property
    def high(self) -> float:
        """The highest value."""
        return float(self.values[-1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each value occurs."""
        return np.diff(self.upto, prepend=0)

    @property
    def floor(self) -> float:
        """Share of voxels at the lowest value."""
        return float(self.upto[0] / self.upto[-1])

    @property
    def top(self) -> float:
        """Share of voxels at the highest value."""
        return float(1.0 - (self.upto[-2] if len(self.upto) > 1 else 0) / self.upto[-1])

    @property
    def spikes(self) -> tuple[float, float]:
        """Shares at the lowest and the highest value where they stick out, else 0."""
        counts = self.counts
        low = counts[0] >= BURNT_STEP * counts[min(1, len(counts) - 1)]
        high = counts[-1] >= BURNT_STEP * counts[max(-2, -len(counts))]
        return self.floor * bool(low), self.top * bool(high)

    @property
    def whole(self) -> bool:
        """All values are whole numbers."""
        return bool(np.all(self.values == np.rint(self.values)))

    def share(self, span: tuple[float, float]) -> float:
        """Share of voxels within [low, high], those at the lowest value left out."""
        first = max(1, int(np.searchsorted(self.values, span[0], "left")))
        last = int(np.searchsorted(self.values, span[1], "right"))
        if last <= first:
            return 0.0
        return float((self.upto[last - 1] - self.upto[first - 1]) / self.upto[-1])

    def percentile(self, share: float) -> float:
        """The value below which that share (in percent) of voxels lies."""
        place = int(np.searchsorted(self.upto, share / 100.0 * self.upto[-1], "left"))
        return float(self.values[min(place, len(self.values) - 1)])


def judge(sample_hu: NDArray[Any], *, stored: np.dtype[Any] | None = None) -> tuple[Verdict, ...]:
    """Say what a subsample of a volume looks like, the gravest first; () = a plain CT.

    Args:
        sample_hu: Any shape, HU after scaling, not clipped where possible; not-a-numbers are
            left out. At least some thousand voxels from all over the volume.
        stored: The type in the file, where known: 8 bits make a picture likelier.

    Returns:
        At most one verdict with `refuse`, and what is only worth naming.

    Source:
        Our choice; see the module's constants.
    """
    flat = np.asarray(sample_hu, dtype=np.float64).ravel()
    flat = flat[:: max(1, flat.size // MAX_SAMPLE)]
    flat = flat[np.isfinite(flat)]
    if flat.size == 0 or flat.min() == flat.max():
        at = f" ({flat[0]:g})" if flat.size else ""
        return (
            Verdict(
                code="constant",
                refuse=True,
                found=f"every voxel looked at has the same value{at}",
                expected="a CT",
                fix="leave this file out; it may be an empty export",
            ),
        )
    values, counts = np.unique(flat, return_counts=True)
    look = _Look(values, np.cumsum(counts), 0 if stored is None else stored.itemsize)
    refused = next((v for rule in _RULES if (v := rule(look)) is not None), None)
    named = tuple(v for rule in _NOTES if (v := rule(look)) is not None)
    return named if refused is None else (refused, *named)


def _scaled(look: _Look) -> Verdict | None:
    """0..1, -1..1, z-scores."""
    if max(abs(look.low), abs(look.high)) > SCALED_MAX or look.whole:
        return None
    return Verdict(
        code="scaled",
        refuse=True,
        found=f"all values lie between {look.low:.3g} and {look.high:.3g}: scaled or normalised",
        expected="HU",
        fix=_OTHER_FILE,
    )


def _label_map(look: _Look) -> Verdict | None:
    """Few distinct whole numbers from 0 on."""
    if not look.whole or look.low < 0 or len(look.values) > LABEL_VALUES:
        return None
    commonest = np.sort(look.counts)[-10:].sum() / look.upto[-1]
    if look.high > 1000 or commonest < LABEL_SHARE:
        return None
    return Verdict(
        code="label_map",
        refuse=True,
        found=f"{len(look.values)} distinct whole numbers from {look.low:g} to {look.high:g}: "
        "a label map",
        expected="HU",
        fix="give the CT itself; label maps belong in masks/",
    )


def _twice(look: _Look) -> Verdict | None:
    """Air at -2000 or clipped away, bone where tissue should be."""
    bright = look.percentile(99.9)
    tissue = look.share(TISSUE_HU)
    if tissue >= FEW_TISSUE:
        return None
    air = look.share(TWICE_AIR_HU)
    commonest = look.values[look.counts.argmax()]
    if TWICE_AIR_HU[0] <= commonest <= TWICE_AIR_HU[1] and commonest != look.low:
        air -= float(look.counts.max() / look.upto[-1])  # one value is padding, not air
    if air >= MUCH_TWICE_AIR:
        why = f"{air:.0%} of the voxels lie {_between(TWICE_AIR_HU)}, where air shifted twice lies"
    elif bright < NOTHING_ABOVE_HU and (look.low < LIGHT_HU[0] or look.floor >= CLIPPED_FLOOR):
        why = f"99.9 % of the voxels are below {bright:.0f}"
    elif _is_clipped_twice(look, tissue):
        why = f"{look.floor:.0%} of the voxels are at {look.low:.0f}"
    else:
        return None
    return Verdict(
        code="rescaled_twice",
        refuse=True,
        found=f"{why}, and {tissue:.1%} {_between(TISSUE_HU)}, where tissue lies: looks shifted "
        "to HU twice",
        expected=f"at least {FEW_TISSUE:.0%} {_between(TISSUE_HU)} HU",
        fix=_OVERRIDE,
    )


def _between(span_hu: tuple[float, float]) -> str:
    """A range in words."""
    return "between {:g} and {:g}".format(*span_hu)


def _is_clipped_twice(look: _Look, tissue: float) -> bool:
    """Say whether air, lung and fat were clipped to one value and bone lies where tissue does."""
    width = (PARTIAL_HU[1] - PARTIAL_HU[0]) / (TISSUE_HU[1] - TISSUE_HU[0])
    partial = look.share(PARTIAL_HU)
    return (
        look.floor >= CLIPPED_FLOOR
        and tissue < CLIPPED_FEW_TISSUE
        and partial >= width * tissue
        and look.share(CLIPPED_TISSUE_HU) >= 2 * partial > 0
    )


def _never(look: _Look) -> Verdict | None:
    """No air, lung or fat below 0, but tissue a thousand or more too high."""
    light = look.share(LIGHT_HU)
    here, above = look.share(UNSHIFTED_HU), look.share(UNSHIFTED_ABOVE_HU)
    median = look.percentile(50)
    below = look.share(UNSHIFTED_BELOW_HU)
    peaked = here >= max(MUCH_UNSHIFTED, 3 * above, below)
    if light >= FEW_LIGHT or not (peaked or median > UNSHIFTED_MEDIAN_HU):
        return None
    if not peaked and look.percentile(99) - look.percentile(1) > 3500:
        return None  # wider than any CT: not merely shifted
    maybe = "" if peaked else ", or is no CT"
    return Verdict(
        code="never_rescaled",
        refuse=True,
        found=f"{light:.1%} of the voxels lie {_between(LIGHT_HU)} (air, lung, fat), {here:.0%} "
        f"{_between(UNSHIFTED_HU)}, the median is {median:.0f}: looks never shifted to HU{maybe}",
        expected="air near -1000, fat near -100",
        fix=f"{_OVERRIDE} (often -1024, -1000 or -8192: the header of the original says which)",
    )


def _window(look: _Look) -> Verdict | None:
    """One value ends the range where tissue goes on."""
    lowest, highest = look.spikes
    floor = look.low > BURNT_FLOOR_HU and lowest >= BURNT_FLOOR
    top = look.high < BURNT_TOP_HU and highest >= BURNT_TOP
    bits8 = look.low >= 0 and look.high <= 255 and look.whole
    full = (look.low, look.high) == (0.0, 255.0)
    if not (floor or top or (bits8 and (full or look.stored_bytes == 1))):
        return None
    bits = " (8 bits)" if bits8 else ""
    background = floor and not top and look.high > 255
    what = "a background of one value" if background else "a window was burnt in"
    return Verdict(
        code="not_ct" if background else "window_burnt_in",
        refuse=True,
        found=f"values from {look.low:g} to {look.high:g}{bits}, {look.floor:.0%} at the lowest "
        f"and {look.top:.0%} at the highest: {what}",
        expected="air near -1000, bone above 300 HU, no value that ends the range",
        fix=_OTHER_FILE,
    )


def _other(look: _Look) -> Verdict | None:
    """Neither air nor fat, and no crop of tissue alone either."""
    if look.share(LIGHT_HU) >= FEW_LIGHT or look.low <= BURNT_FLOOR_HU:
        return _nothing_dense(look)
    p01, median, p99 = (look.percentile(share) for share in (1, 50, 99))
    negative = look.share((-np.inf, -1e-9))
    if (
        p01 <= CROP_P01_HU
        and CROP_MEDIAN_HU[0] <= median <= CROP_MEDIAN_HU[1]
        and p99 <= CROP_P99_HU
        and look.floor < CROP_FLOOR
        and look.share(TISSUE_HU) >= FEW_TISSUE
        and (median >= WATER_HU or negative >= FEW_NEGATIVE)
    ):
        return None
    return Verdict(
        code="not_ct",
        refuse=True,
        found=f"no air, lung or fat, and percentiles 1, 50, 99 at {p01:.4g}, {median:.4g}, "
        f"{p99:.4g}: no tissue in HU looks so",
        expected="a CT in HU",
        fix="leave this file out: it may be an MR, a PET, or a derived map",
    )


def _nothing_dense(look: _Look) -> Verdict | None:
    """Air and nothing else."""
    bright = look.percentile(99.9)
    if bright >= NOTHING_ABOVE_HU:
        return None
    return Verdict(
        code="not_ct",
        refuse=True,
        found=f"99.9 % of the voxels are below {bright:.0f}: nothing but air",
        expected="a CT of a person",
        fix="leave this file out",
    )


def _padding(look: _Look) -> Verdict | None:
    """One value far below air."""
    below = look.values < PADDING_HU
    if not below.any():
        return None
    place = int(np.where(below, look.counts, 0).argmax())
    share = float(look.counts[place] / look.upto[-1])
    if share < PADDING:
        return None
    return Verdict(
        code="padding",
        refuse=False,
        found=f"{share:.0%} of the voxels are {look.values[place]:.0f}: padding outside the "
        "field of view",
        fix="nothing: it is clipped to air",
    )


def _coarse(look: _Look) -> Verdict | None:
    """So few values over so wide a range that 8 bits were all there was."""
    if len(look.values) > COARSE_VALUES or look.high - look.low < COARSE_RANGE_HU:
        return None
    if look.upto[-1] < 20 * COARSE_VALUES:
        return None  # too few voxels to say
    step = float(np.median(np.diff(look.values)))
    if step < 2.0:
        return None
    return Verdict(
        code="coarse",
        refuse=False,
        found=f"{len(look.values)} distinct values in steps of {step:.3g} HU",
        expected="steps of 1 HU",
        fix="prefer the original series",
    )


_RULES: tuple[Callable[[_Look], Verdict | None], ...] = (
    _scaled,
    _label_map,
    _twice,
    _never,
    _window,
    _other,
)
_NOTES: tuple[Callable[[_Look], Verdict | None], ...] = (_padding, _coarse)
