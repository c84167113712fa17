"""Named kinds of phantom cohorts: grids, how often each finding occurs, how many are large."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy.special import ndtri

from t3d.errors import RecipeError
from t3d.phantom.streams import stream
from t3d.text.findings import CT_RATE_18

GENERATOR = 1
"""Raised by every change that moves a voxel, a label or an item of an existing seed."""

PREVALENCE = (
    *(0.16, 0.28, 0.16, 0.14, 0.26, 0.16, 0.26, 0.20, 0.26),
    *(0.40, 0.34, 0.26, 0.18, 0.14, 0.15, 0.20, 0.14, 0.14),
)
"""In the order of CT_RATE_18; raised where CT-RATE is rare, so that 300 patients measure it."""

FACTORS: tuple[tuple[str, str, float], ...] = (
    ("ageing", "Arterial wall calcification", 0.45),
    ("ageing", "Coronary artery wall calcification", 0.45),
    ("ageing", "Emphysema", 0.30),
    ("ageing", "Hiatal hernia", 0.25),
    ("failure", "Cardiomegaly", 0.45),
    ("failure", "Pleural effusion", 0.45),
    ("failure", "Pericardial effusion", 0.35),
    ("failure", "Interlobular septal thickening", 0.30),
    ("failure", "Atelectasis", 0.25),
    ("infection", "Lung opacity", 0.45),
    ("infection", "Consolidation", 0.45),
    ("infection", "Lymphadenopathy", 0.25),
    ("infection", "Peribronchial thickening", 0.25),
    ("infection", "Bronchiectasis", 0.15),
)
"""Shared factor, finding, loading: what makes findings occur together (our choice)."""

ONLY_LARGE = ("Cardiomegaly", "Mosaic attenuation pattern")
"""A slightly large heart is no finding; a faint mosaic cannot be seen on these grids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Everything that fixes a patient besides its seed."""

    name: str
    slices: tuple[int, int]  # voxels along z, both ends included
    pixels: tuple[int, int]  # voxels along y and x (square)
    slice_mm: tuple[float, float]  # spacing along z
    pixel_mm: tuple[float, float]  # spacing along y and x
    large_share: float  # of the positives whose finding has a small form
    prevalence: tuple[float, ...] = PREVALENCE  # in the order of CT_RATE_18
    factors: tuple[tuple[str, str, float], ...] = FACTORS  # factor, finding, loading
    contrast_share: float = 0.45
    sharp_share: float = 0.40  # sharp kernels: little blur, strong white noise
    table_share: float = 0.70
    generator: int = GENERATOR

    def __post_init__(self) -> None:
        ranges = (self.slices, self.pixels, self.slice_mm, self.pixel_mm)
        shares = (self.large_share, self.contrast_share, self.sharp_share, self.table_share)
        problems = [f"range {low}..{high}" for low, high in ranges if not 0 < low <= high]
        problems += [f"share {s}" for s in (*shares, *self.prevalence) if not 0 <= s <= 1]
        problems += [f"loading {v}" for *_, v in self.factors if not -1 < v < 1]
        problems += [f"finding {f!r}" for _, f, _ in self.factors if f not in CT_RATE_18]
        if len(self.prevalence) != len(CT_RATE_18):
            problems.append(f"{len(self.prevalence)} prevalences")
        if problems:
            raise RecipeError(
                f"phantom preset {self.name!r}: " + ", ".join(problems),
                expected=f"low <= high, shares in 0..1, {len(CT_RATE_18)} prevalences, known names",
                fix="correct the fields named above",
            )

    def to_json(self) -> str:
        """Give the preset as one line of JSON with sorted keys; `from_json` reads it back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preset:
        """Read what `to_json` wrote.

        Args:
            text: A JSON object whose keys are the fields.

        Returns:
            An equal preset.

        Raises:
            RecipeError: A key is unknown or missing, or a value is out of range.
        """
        raw: dict[str, Any] = json.loads(text)
        try:
            return cls(**{key: _tuples(value) for key, value in raw.items()})
        except TypeError as error:
            raise RecipeError(
                f"phantom preset from JSON: {error}",
                expected="the fields " + ", ".join(f.name for f in fields(cls)),
                fix="write the file with Preset.to_json",
            ) from error

    @property
    def digest(self) -> str:
        """Give the first 16 hexadecimal digits of the SHA-256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _tuples(value: Any) -> Any:
    """Turn JSON's lists into tuples, at every depth."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


DEMO = Preset(
    name="demo",
    slices=(32, 32),
    pixels=(64, 64),
    slice_mm=(8.4, 9.6),
    pixel_mm=(5.0, 5.5),
    large_share=0.7,
)
"""What a small model on a CPU can learn from in minutes."""

STANDARD = Preset(
    name="standard",
    slices=(44, 56),
    pixels=(90, 104),
    slice_mm=(5.6, 6.4),
    pixel_mm=(3.35, 3.65),
    large_share=0.5,
)
"""Finer, and of varying shape, so that code that resamples and pads is exercised."""

PRESETS = {preset.name: preset for preset in (DEMO, STANDARD)}


def draw_labels(
    seed: int, preset: Preset, switch: Mapping[str, int] | None = None
) -> tuple[dict[str, int], dict[str, bool]]:
    """Draw which findings a patient has and which of them are large.

    Formula: finding f is present where l g + sqrt(1 - l^2) e < q, with g the factor it
    loads on by l, e its own noise, both standard normal, and q the normal quantile of its
    prevalence. Two findings of one factor have latents that correlate by l1 l2.

    Args:
        seed: The patient's seed.
        preset: Prevalences, loadings and the share of large forms.
        switch: Findings to force to 0 or 1; the others stay as drawn.

    Returns:
        label and large for each of the 18 findings; `large` is False where the label is 0.

    Raises:
        RecipeError: A switched finding is unknown or its value is not 0 or 1.
    """
    wanted = dict(switch or {})
    bad = [f"{k!r}: {v}" for k, v in wanted.items() if k not in CT_RATE_18 or v not in (0, 1)]
    if bad:
        raise RecipeError(
            "phantom switch " + ", ".join(bad),
            expected="names of CT_RATE_18 with values 0 or 1",
            fix='write switch={"Lung nodule": 1}',
        )
    names = dict.fromkeys(name for name, *_ in preset.factors)
    factor = {name: stream(seed, f"factor/{name}").standard_normal() for name in names}
    own = stream(seed, "labels").standard_normal(len(CT_RATE_18))
    coin = stream(seed, "large").random(len(CT_RATE_18))
    loads = {finding: (name, load) for name, finding, load in preset.factors}
    labels, large = {}, {}
    for k, finding in enumerate(CT_RATE_18):
        name, load = loads.get(finding, ("", 0.0))
        latent = load * factor.get(name, 0.0) + np.sqrt(1 - load * load) * own[k]
        drawn = int(latent < _normal_quantile(preset.prevalence[k]))
        labels[finding] = wanted.get(finding, drawn)
        is_large = finding in ONLY_LARGE or bool(coin[k] < preset.large_share)
        large[finding] = labels[finding] == 1 and is_large
    return labels, large


def _normal_quantile(p: float) -> float:
    """Give the standard normal quantile; infinite at 0 and 1."""
    return float(ndtri(p))
