"""Phantoms drawn again: a patient is a function of its seed, so a page can show it finely.

An id alone is not believed: a study is drawn again only where the patient of that seed has the
same labels, sex, age and field of view. Otherwise the page does without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from t3d.ct.geometry import spacing_mm
from t3d.phantom.grids import Frame, Grid
from t3d.phantom.patient import patient, plan
from t3d.phantom.presets import PRESETS, Preset
from t3d.types import Zyx

if TYPE_CHECKING:
    from t3d.show.cases import Fine
    from t3d.types import Volume

FINE_MM = 1.3  # in-plane pitch
CHECKED = ("sex", "age")  # what a cohort of phantoms tells besides the labels
BOX_TOLERANCE_MM = 0.5  # spacings are written with two decimals


class Described(Protocol):
    """A study with everything that tells a phantom."""

    @property
    def study_id(self) -> str:
        """Its pseudonymous id."""
        ...

    @property
    def volume_ids(self) -> tuple[str, ...]:
        """Its volumes."""
        ...

    @property
    def labels(self) -> Mapping[str, int | None]:
        """Finding to 0, 1 or None."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What is known besides."""
        ...


def phantom_redraw(studies: Mapping[str, Described]) -> Fine:
    """Make a function that draws phantoms again on a fine grid.

    Args:
        studies: By study id.

    Returns:
        A function of study id, the volume held of it, and LPS z in mm; it gives None for
        whatever is no phantom of this version.
    """

    def draw(study_id: str, volume: Volume, z_mm: float) -> Volume | None:
        study = studies.get(study_id)
        known = phantom_of(study, volume) if study is not None else None
        if known is None:
            return None
        seed, preset = known
        return patient(seed, preset=preset, grid=slab(seed, preset, z_mm)).volume

    return draw


def phantom_of(study: Described, volume: Volume) -> tuple[int, Preset] | None:
    """Find the seed and preset of a study, if it is a phantom of this version.

    Args:
        study: Any study.
        volume: Its volume; presets share labels, so its field of view tells them apart.

    Returns:
        Seed and preset, or None where no patient of ours has its labels, facts and box.
    """
    named = re.fullmatch(r"phantom-(\d+)", study.study_id)
    if named is None:
        return None
    seed = int(named[1])
    for preset in PRESETS.values():
        drawn = plan(seed, preset=preset)
        same = all(study.facts.get(name) == drawn.facts[name] for name in CHECKED)
        if same and dict(drawn.labels) == dict(study.labels) and fills(volume, drawn.frame):
            return seed, preset
    return None


def fills(volume: Volume, frame: Frame) -> bool:
    """Whether a volume covers the same box, in size and along z.

    Args:
        volume: Any volume, axes (z, y, x).
        frame: The box a phantom lies in.

    Returns:
        True where no edge is off by more than half a millimetre.
    """
    pitch = spacing_mm(volume.world_from_voxel)
    extent = np.multiply(pitch, volume.voxels.shape)
    low_mm = float(volume.world_from_voxel[2, 3]) - pitch.z / 2
    off = [*(extent - np.array(frame.extent_mm)), low_mm - frame.z_world_mm]
    return bool(np.abs(off).max() <= BOX_TOLERANCE_MM)


def slab(seed: int, preset: Preset, z_mm: float) -> Grid:
    """One fine slice over the patient's whole field of view.

    Args:
        seed: The patient's seed.
        preset: Kind of cohort.
        z_mm: LPS z of the slice.

    Returns:
        A grid of one slice.
    """
    extent = plan(seed, preset=preset).frame.extent_mm
    return Grid(
        shape=Zyx(z=1, y=max(1, round(extent.y / FINE_MM)), x=max(1, round(extent.x / FINE_MM))),
        spacing_mm=Zyx(z=FINE_MM, y=FINE_MM, x=FINE_MM),
        z_low_mm=z_mm,
    )
