"""Mutated headers and cut streams: an answer or a refusal with a reason, never anything else."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from t3d.ct import nifti
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.intensity import INT16_HU
from t3d.ct.plausibility import judge

RAS = np.diag([-0.7, -0.8, 2.5, 1.0])
REASONS = {"unreadable", "not_3d", "bad_affine", "hu_implausible"}
CEILING_BYTES = 32 << 20


def seeds() -> list[bytes]:
    """Small sound files: both versions, both byte orders, whole numbers and floats."""
    voxels = np.arange(990, dtype=np.int16).reshape(11, 10, 9)
    made = []
    for order, kind in (("<", np.int16), (">", np.int16), ("<", np.float32)):
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(kind)
        made.append(nib.Nifti1Image(voxels.astype(kind), RAS, header).to_bytes())
    made.append(nib.Nifti2Image(voxels, RAS).to_bytes())
    return made


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Files with some bytes of header or stream changed, cut off, or both; some packed."""
    rng = np.random.default_rng(seed)
    sound = seeds()
    for _ in range(count):
        raw = bytearray(sound[rng.integers(len(sound))])
        for _ in range(rng.integers(0, 6)):
            place = rng.integers(0, 560)
            raw[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        packed = rng.random() < 0.5
        content = bytearray(gzip.compress(bytes(raw), 1) if packed else raw)
        if rng.random() < 0.2:
            content = content[: rng.integers(0, len(content) + 1)]
        if packed and rng.random() < 0.3:
            content[rng.integers(10, max(11, len(content))) - 1] ^= 1 << rng.integers(8)
        if rng.random() < 0.1:
            content += rng.integers(0, 256, rng.integers(1, 40), dtype=np.uint8).tobytes()
        yield bytes(content)


def outcome(path: Path) -> str:
    """Read every slice of a file: "read", or the reason of its refusal."""
    try:
        with nifti.open_nifti(path) as file:
            for _, stored in file.slabs(4):
                voxels = file.rescale.float32(stored.copy(), INT16_HU)
                whole = file.rescale.int16(stored, nan_hu=INT16_HU[0])
                assert np.abs(voxels - whole).max() <= 0.51
                judge(voxels)
            assert all(file.steps)
            return "read"
    except (RefusedFile, RefusedGrid) as error:
        refusal = error
    assert refusal.found.startswith("v: ")
    assert refusal.expected
    assert refusal.fix
    return refusal.reason


def tried(tmp_path: Path, count: int, seed: int) -> Counter[str]:
    """Outcomes of many mutants, none of which may allocate beyond the ceiling."""
    seen: Counter[str] = Counter()
    path = tmp_path / "v.nii.gz"
    tracemalloc.start()
    try:
        for content in mutants(count, seed):
            path.write_bytes(content)
            tracemalloc.reset_peak()
            seen[outcome(path)] += 1
            assert tracemalloc.get_traced_memory()[1] < CEILING_BYTES
    finally:
        tracemalloc.stop()
    return seen


def test_a_mutated_file_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    seen = tried(tmp_path, 500, seed=1)
    assert set(seen) <= {"read", *REASONS}
    assert set(seen) >= {"read", "unreadable", "not_3d", "bad_affine"}


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    seen = tried(tmp_path, 10_000, seed=2)
    assert set(seen) == {"read", *REASONS}
