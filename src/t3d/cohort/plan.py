"""What preparing a whole corpus takes: core hours, hours, disk and memory, before it is downloaded.

Costs are measured on our chests (`MEASURED`), counts are the corpus's own (`CT_RATE`); everything
that comes of them is an extrapolation, and `describe` says which is which. A run's own first line
(`preflight.py`) measures the files that are there and is nearer to the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t3d.cohort.preflight import (
    BYTES_A_PLANE_VOX,
    BYTES_AN_OUTPUT_VOX,
    MB,
    STORED_SHARE,
    WORKER_BASE_MB,
)
from t3d.ct.preparations import named_preparation
from t3d.errors import RecipeError
from t3d.types import Preparation, Zyx

GB = 1e9
CORES = (1, 4, 16, 64)
READ_MB_S = (50, 200, 1000, 4000)
DISK_TB = (1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Counts of a data set."""

    name: str
    volumes: int
    studies: int
    voxels: float  # mean of a volume, as stored in its file
    packed_share: float  # size of a file / its voxels as int16
    packed_between: tuple[float, float]  # the same, lowest and highest
    extent_mm: Zyx[float]  # median
    largest_mm: Zyx[float]
    largest_plane_vox: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one worker spends on a study of one series, in one preparation."""

    study_s: float  # CPU, whatever its size
    gigavoxel_s: float  # CPU for 1e9 voxels of its file
    stored_share: float  # size as stored / int16, mean of two chest CTs


CT_RATE = Corpus(
    name="CT-RATE",
    volumes=50_188,
    studies=25_692,
    # 774 GiB of int16 in the 3,039 volumes of valid; train by proportion.
    voxels=774 * 2**30 / 2 / 3_039,
    # Three chest CTs at zlib level 1 shrink 1.73, 1.95 and 2.18 times.
    packed_share=1 / 1.95,
    packed_between=(1 / 2.18, 1 / 1.73),
    extent_mm=Zyx(z=1.25 * 256, y=0.68 * 512, x=0.68 * 512),
    largest_mm=Zyx(z=1213.0, y=500.0, x=500.0),
    largest_plane_vox=1024 * 1024,
)
"""Counted on the public tables; of train, sizes are those of valid."""

MEASURED: Mapping[str, Cost] = {
    "paper": Cost(study_s=0.202, gigavoxel_s=4.7, stored_share=0.39),
    "paper_direct": Cost(study_s=0.102, gigavoxel_s=5.9, stored_share=0.40),
    "fine": Cost(study_s=0.0, gigavoxel_s=10.3, stored_share=0.37),
    "demo": Cost(study_s=0.024, gigavoxel_s=5.7, stored_share=0.465),
}
"""Of docs/results/plan_ct_rate.json."""

RECORD_S = 0.00094  # of the one writing process, for a study; wall
EMPTY_S = 0.083  # more, where its files are deleted: committed alone, read back
HAND_OUT_S: Mapping[str, float] = {"local": 0.0001, "ray": 0.00035}  # of the same process; CPU


@dataclass(frozen=True, slots=True)
class Plan:
    """One corpus in one preparation."""

    corpus: Corpus
    preparation: Preparation
    cost: Cost

    @property
    def volume_s(self) -> float:
        """CPU seconds of a volume of mean size."""
        return self.cost.study_s + self.cost.gigavoxel_s * self.corpus.voxels / 1e9

    @property
    def core_hours(self) -> float:
        """CPU hours of all volumes."""
        return self.volume_s * self.corpus.volumes / 3600

    @property
    def download_gb(self) -> float:
        """Size of all files."""
        return self.corpus.volumes * self.corpus.voxels * 2 * self.corpus.packed_share / GB

    @property
    def core_mb_s(self) -> float:
        """MB of files that one core takes in a second."""
        return self.download_gb * GB / MB / (self.core_hours * 3600)

    @property
    def stored_gb(self) -> float:
        """Size of the cohort's volumes."""
        grid = _voxels(self.preparation, self.corpus.extent_mm)
        return self.corpus.volumes * grid * 2 * self.cost.stored_share / GB

    @property
    def stored_gb_at_most(self) -> float:
        """The same as `prepare` reckons before it starts."""
        return self.stored_gb * STORED_SHARE / self.cost.stored_share

    @property
    def worker_mb(self) -> float:
        """Memory of a worker with the largest upright scan."""
        grid = _voxels(self.preparation, self.corpus.largest_mm)
        need = BYTES_A_PLANE_VOX * self.corpus.largest_plane_vox + BYTES_AN_OUTPUT_VOX * grid
        return WORKER_BASE_MB + need / MB

    def read_hours(self, read_mb_s: float) -> float:
        """Hours to read every file once."""
        return self.download_gb * GB / MB / read_mb_s / 3600

    def hours(self, cores: int, read_mb_s: float) -> float:
        """Hours at best: whichever is slower, the cores or the disk.

        Formula: max(core hours / cores, GB / (GB/s)).
        Check: 100 core hours and 3,600 GB; 10 cores, 500 MB/s -> 10; 100 cores -> 2.
        """
        return max(self.core_hours / cores, self.read_hours(read_mb_s))

    def useful_workers(self, engine: str, *, deleting: bool = False) -> int:
        """Workers that the one writing process can keep busy.

        Formula: seconds of a study in a worker / seconds of the writer for it.
        """
        study_s = self.volume_s * self.corpus.volumes / self.corpus.studies
        return int(study_s / (RECORD_S + HAND_OUT_S[engine] + EMPTY_S * deleting))

    def portions(self, disk_gb: float) -> int | None:
        """Portions in which a download fits beside the growing cohort; None = it never does.

        Formula: ceil(download / (disk - cohort)).
        Check: 100 GB to download, 10 GB of cohort: 30 GB of disk -> 5; 110 GB -> 1; 10 GB -> None.
        """
        room = disk_gb - self.stored_gb
        return math.ceil(self.download_gb / room) if room > 0 else None


def plan(corpus: Corpus, preparation: Preparation, cost: Cost | None = None) -> Plan:
    """Reckon what a corpus takes.

    Args:
        corpus: Its counts.
        preparation: The target grid.
        cost: What a study costs; None = as measured, for the preparations that were.

    Raises:
        RecipeError: This preparation was not measured.

    Source:
        docs/howto/plan-ct-rate.md; benchmarks/plan.py.
    """
    if cost is None and preparation.name not in MEASURED:
        raise RecipeError(
            f"what preparation {preparation.name!r} costs was not measured",
            expected=f"one of {', '.join(MEASURED)}",
            fix="give a Cost of your own: time `prepare` on some of your files",
        )
    return Plan(corpus, preparation, cost or MEASURED[preparation.name])


def _voxels(preparation: Preparation, extent_mm: Zyx[float]) -> float:
    """Count the voxels of a prepared volume; without a size, from the extent."""
    if preparation.size_vox is not None:
        return float(math.prod(preparation.size_vox))
    spacing = preparation.spacing_mm or Zyx(z=1.0, y=1.0, x=1.0)
    return math.prod(e / s for e, s in zip(extent_mm, spacing, strict=True))


def describe(corpus: Corpus = CT_RATE) -> dict[str, Any]:
    """Give the plans of every measured preparation as data, for a person or a program.

    Returns:
        What is measured, what is counted, what is extrapolated; by preparation the figures of
        `Plan`.
    """
    plans = {name: plan(corpus, named_preparation(name)) for name in MEASURED}
    one = next(iter(plans.values()))
    low, high = (one.download_gb * share / corpus.packed_share for share in corpus.packed_between)
    return {
        "corpus": {
            "name": corpus.name,
            "volumes": corpus.volumes,
            "studies": corpus.studies,
            "decompressed_tib": round(corpus.volumes * corpus.voxels * 2 / 2**40, 1),
            "download_tb": round(one.download_gb / 1000, 1),
            "download_tb_between": [round(low / 1000, 1), round(high / 1000, 1)],
            "hours_to_read_at_mb_s": {str(r): round(one.read_hours(r), 1) for r in READ_MB_S},
        },
        "preparations": {name: _described(made) for name, made in plans.items()},
        "measured": "CPU of a study, its stored size, the writing process: benchmarks/plan.py",
        "counted": "volumes, studies, voxels of valid: the public tables",
        "extrapolated": "voxels of train (as valid); compressed size (three chest CTs); hours "
        "(cores as fast together as alone, nothing else at work); sizes from two chest CTs",
    }


def _described(made: Plan) -> dict[str, Any]:
    """Give the figures of one plan."""
    return {
        "cpu_s_a_volume": round(made.volume_s, 2),
        "core_hours": round(made.core_hours, 1),
        "mb_s_a_core": round(made.core_mb_s),
        "stored_gb": round(made.stored_gb, 1),
        "stored_gb_at_most": round(made.stored_gb_at_most, 1),
        "worker_mb": round(made.worker_mb),
        "hours": {
            f"{cores} cores": {f"{r} MB/s": round(made.hours(cores, r), 1) for r in READ_MB_S}
            for cores in CORES
        },
        "useful_workers": {
            f"{engine}{', deleting' * deleting}": made.useful_workers(engine, deleting=deleting)
            for engine in HAND_OUT_S
            for deleting in (False, True)
        },
        "portions": {f"{tb} TB of disk": made.portions(1000 * tb) for tb in DISK_TB},
    }
