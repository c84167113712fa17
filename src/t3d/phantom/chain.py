"""The scanner: blur and noise of a reconstruction kernel, then whole HU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.streams import stream, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.phantom.shapes import Field

LOW_HU, HIGH_HU = -1024, 3071
GRAIN_VOX = 0.6
"""In-plane correlation of the noise of soft kernels, standard deviation in voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a reconstruction does to a volume."""

    name: str  # "sharp" or "soft"
    blur_vox: float  # standard deviation of the point spread, voxels
    noise_hu: float  # standard deviation in soft tissue


def draw_kernel(seed: int, sharp_share: float) -> Kernel:
    """Draw a kernel: sharp ones blur little and show strong white noise."""
    rng = stream(seed, "kernel")
    if rng.random() < sharp_share:
        return Kernel(
            name="sharp", blur_vox=uniform(rng, 0.25, 0.45), noise_hu=uniform(rng, 12, 26)
        )
    return Kernel(name="soft", blur_vox=uniform(rng, 0.5, 0.75), noise_hu=uniform(rng, 6, 14))


def smooth(values: Field, sigma_vox: float, axes: tuple[int, ...]) -> Field:
    """Blur along axes with three taps (a, 1 - 2a, a) of the wanted variance, a = sigma^2 / 2.

    The edge voxel is repeated outside. Two passes where sigma > 0.55, since taps of more
    than 0.15 would no longer look like a Gaussian.

    Check: sigma 0.4 -> a = 0.08; a unit voxel becomes 0.08, 0.84, 0.08.
    """
    passes = 2 if sigma_vox > 0.55 else 1
    a = np.float32(sigma_vox * sigma_vox / (2 * passes))
    out: Field = values.copy()
    for axis in axes:
        if out.shape[axis] < 2:
            continue
        view = np.moveaxis(out, axis, 0)
        for _ in range(passes):
            step = (view[1:] - view[:-1]) * a
            view[:-1] += step
            view[1:] -= step
    return out


def scan(hu: Field, seed: int, kernel: Kernel | None) -> NDArray[np.int16]:
    """Blur, add noise (less of it in air), round and clip.

    Only the white noise depends on the grid; its stream is "noise/scan".

    Args:
        hu: What was painted, (z, y, x).
        seed: The patient's seed.
        kernel: The reconstruction; None = neither blur nor noise (a clean phantom).

    Returns:
        int16 HU in [-1024, 3071].
    """
    if kernel is not None:
        hu = smooth(hu, kernel.blur_vox, (0, 1, 2))
        noise = stream(seed, "noise/scan").standard_normal(hu.shape, dtype=np.float32)
        level = kernel.noise_hu
        if kernel.name == "soft":
            noise = smooth(noise, GRAIN_VOX, (1, 2))
            level /= _remaining(GRAIN_VOX) ** 2  # one factor for each of two axes
        damped = np.clip((hu + np.float32(1000)) * np.float32(1 / 800), 0.3, 1)
        hu = hu + noise * damped * np.float32(level)
    return np.clip(np.rint(hu), LOW_HU, HIGH_HU).astype(np.int16)


def _remaining(sigma_vox: float) -> float:
    """Give the standard deviation that white noise keeps after `smooth` along one axis."""
    impulse = np.zeros(9, np.float32)
    impulse[4] = 1
    return float(np.linalg.norm(smooth(impulse, sigma_vox, (0,))))
