"""What retrieval at scale costs: ranks, neighbours and pools from embeddings, exact.

    python benchmarks/evaluate.py --part retrieval                     # 50,000 studies, D = 512
    python benchmarks/evaluate.py --part retrieval --studies 10000 --json out.json

ranks       study-level and strict, text to volume and back: four rankings in one pass
naive       a float32 table and an argsort each way, on few studies; time scaled with their square
neighbours  volume to volume by the rules of CT-CLIP (siblings left out) and of SPECTRE
pools       5,137 pairs: 100 partitions into pools of 32, 64 and 128, beside the closed form

Each row comes from a process of its own: CPU seconds of one thread, peak memory with imports and
embeddings. Nine minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loader import Row, apart, row
from t3d.scores.neighbours import CTCLIP, SPECTRE, neighbours
from t3d.scores.pools import RADFINDER_POOLS, expected_in_pools, partitions
from t3d.scores.retrieval import Pairing, rank_all
from t3d.scores.similarity import RowSimilarity

DIMS = 512
NAIVE_STUDIES = 5_000
MERLIN_STUDIES = 5_137
Rows = NDArray[np.float32]


def unit(rng: np.random.Generator, num: int) -> Rows:
    """Random directions."""
    rows = rng.standard_normal((num, DIMS), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def pairs(num: int) -> tuple[Rows, Rows]:
    """Texts and images that resemble each other a little; two images a study."""
    rng = np.random.default_rng(0)
    image = unit(rng, num)
    text = 8 * unit(rng, num) + image
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return text, image


def ranked(num: int) -> str:
    """Four rankings; says R@10 of text to volume, strict."""
    text, image = pairs(num)
    studies, own = np.arange(num) // 2, np.arange(num)
    pairings = [
        Pairing(queries=names, candidates=names, backward=way)
        for names in (own, studies)
        for way in (False, True)
    ]
    found = rank_all(RowSimilarity.of(text, image, decimals=6), pairings)
    return f"R@10 {found[0].credit(10).mean():.4f}, volume to text {found[1].credit(10).mean():.4f}"


def naive(num: int) -> str:
    """The whole table and two sorts; two rankings."""
    text, image = pairs(num)
    table = text @ image.T
    hits = [
        (np.argsort(-oriented, axis=1)[:, :10] == np.arange(num)[:, None]).any(axis=1).mean()
        for oriented in (table, table.T)
    ]
    return f"R@10 {hits[0]:.4f}, volume to text {hits[1]:.4f}"


def found_by(num: int, *, spectre: bool) -> str:
    """Volume to volume; says the value at K = 10."""
    rng = np.random.default_rng(0)
    image = unit(rng, num)
    labels = rng.random((num // 2, 18)) < 0.19
    studies = np.arange(num) // 2
    rules = SPECTRE if spectre else CTCLIP
    similarity = RowSimilarity.of(image, image, decimals=6)
    found = neighbours(similarity, labels[studies], rules, siblings=studies)
    return f"K = 10: {found.mean()[rules.ks.index(10)]:.4f}, {found.num_queries} queries"


def dealt(num: int) -> str:
    """All partitions; says R@1 in pools of 128."""
    text, image = pairs(num)
    found = partitions(RowSimilarity.of(text, image, decimals=6), RADFINDER_POOLS)
    return f"R@1 in 128: {found.mean()[2, 0]:.4f}"


def closed(num: int) -> str:
    """The closed form for the same sizes."""
    text, image = pairs(num)
    own = Pairing(queries=np.arange(num), candidates=np.arange(num))
    ranks = rank_all(RowSimilarity.of(text, image, decimals=6), [own])[0]
    rules = RADFINDER_POOLS
    credit = [
        expected_in_pools(ranks, num, size=size, k=k).mean()
        for size in rules.sizes
        for k in rules.ks
    ]
    return f"R@1 in 128: {credit[4]:.4f}"


CASES: dict[str, Callable[[int], str]] = {
    "ranks": ranked,
    "naive": naive,
    "neighbours, ctclip": lambda num: found_by(num, spectre=False),
    "neighbours, spectre": lambda num: found_by(num, spectre=True),
    "pools": dealt,
    "pools, closed form": closed,
}


def measured(case: str, num: int) -> tuple[float, float, str]:
    """CPU seconds, MB and finding of a case in a process of its own."""
    seconds, peak, told = apart(Path(__file__).with_name("evaluate.py"), "--fresh", case, num)
    return seconds, peak, told


def retrieval_rows(num: int) -> list[Row]:
    """Ranks beside the naive way, then neighbours."""
    small, _, told = measured("naive", NAIVE_STUDIES)
    factor = (num / NAIVE_STUDIES) ** 2
    scaled, table_mb = small * factor, num**2 * (4 + 8) / 1e6
    note = f"{NAIVE_STUDIES} studies: {told}; the rest scaled with the square"
    rows = [row("naive, two rankings", small, "s", note=note)]
    for case in ("ranks", "neighbours, ctclip", "neighbours, spectre"):
        seconds, peak, told = measured(case, num)
        beside = (scaled, table_mb) if case == "ranks" else (None, None)
        rows.append(row(f"{case}, {num} studies", seconds, "s", beside[0], told))
        rows.append(row(f"{case}, peak", peak, "MB", beside[1]))
    return rows


def pool_rows() -> list[Row]:
    """Repeated partitions and the closed form."""
    rows = []
    dealt_s, _, dealt_told = measured("pools", MERLIN_STUDIES)
    exact_s, _, exact_told = measured("pools, closed form", MERLIN_STUDIES)
    rows.append(row(f"pools, {MERLIN_STUDIES} pairs", dealt_s, "s", note=dealt_told))
    rows.append(row("pools, closed form with ranks", exact_s, "s", dealt_s, exact_told))
    return rows
