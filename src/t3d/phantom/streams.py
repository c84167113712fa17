"""One random stream for each part of a patient, so that changing a part changes nothing else."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Give the generator of one named part of one patient.

    The name is hashed (CRC-32) into the spawn key of NumPy's `SeedSequence`, so streams of
    different parts are independent and adding a part moves no other part's numbers.

    Args:
        seed: The patient's seed, 0 or more.
        name: What is drawn from it: "pose", "finding/Lung nodule".

    Returns:
        A generator that starts the same for the same two arguments.
    """
    key = zlib.crc32(name.encode("ascii"))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a plain Python float (a NumPy float64 scalar would widen float32 volumes)."""
    return low + (high - low) * float(rng.random())
