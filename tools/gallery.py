"""Draw docs/gallery: what each finding of the phantoms looks like, beside a real chest CT.

    python tools/gallery.py [--out docs/gallery] [--real-data ../shared/data]

For each finding three patients that have it and the same three with it switched off, at the
depth where most of it lies: a thin slab on a fine grid, and the demo grid that the model saw.
Takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t3d.ct.geometry import spacing_mm
from t3d.ct.regrid import regrid
from t3d.errors import T3DError
from t3d.phantom.grids import Grid
from t3d.phantom.patient import Phantom, patient, plan
from t3d.phantom.presets import DEMO, draw_labels
from t3d.show.figures import LUNG, SOFT, Tile, axial, depth_of, encode, mosaic
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Volume, Zyx

log = logging.getLogger("gallery")

FIRST_SEED = 90_000  # far from the seeds of the demo's splits
LOOKED_AT = 120  # seeds; the rarest finding is in every seventh patient
NUM_PATIENTS = 3
FINE_MM = 1.3  # in-plane pitch of the fine grid
SLAB_MM = 5.0  # a usual slice thickness
SLAB_SLICES = 3
TILE_INCHES = 1.9
DPI = 100
QUALITY = 58
MAX_BYTES = 2_500_000  # of all committed pictures
MODEL_GRID = Preparation(name="demo", size_vox=Zyx(z=32, y=64, x=64))
REAL_SERIES = Path("dicom") / "chest_lungpetctdx_A0001" / "series3_B_j2k"
REAL_SHARES = (0.15, 0.32, 0.45, 0.58, 0.72, 0.88)  # of the scan's height, from below
REAL_CREDIT = (
    "Real CT: Lung-PET-CT-Dx, patient Lung_Dx-A0001 (Li P. et al., The Cancer Imaging Archive, "
    "2020, doi 10.7937/TCIA.2020.NNC20461), CC BY 4.0; cut to slices, windowed and reduced here."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A patient with a finding and its twin without, at one depth."""

    seed: int
    large: bool
    z_mm: float
    fine: tuple[Phantom, Phantom]  # with, without
    demo: tuple[Phantom, Phantom]


def seeds_of(finding: str) -> list[int]:
    """Patients who have a finding by themselves: the first large, the first small, the next."""
    large: list[int] = []
    small: list[int] = []
    for seed in range(FIRST_SEED, FIRST_SEED + LOOKED_AT):
        labels, is_large = draw_labels(seed, DEMO)
        if labels[finding]:
            (large if is_large[finding] else small).append(seed)
    first = [*large[:1], *small[:1]]
    return (first + sorted({*large, *small} - {*first}))[:NUM_PATIENTS]


def pair_of(seed: int, finding: str) -> Pair:
    """Draw one patient with and without a finding, coarse and fine."""
    own = patient(seed)
    z_mm = depth_of(own.volume, int(own.masks[finding].sum(axis=(1, 2)).argmax()))
    grid = fine_grid(seed, z_mm)
    off = {finding: 0}
    return Pair(
        seed=seed,
        large=own.large[finding],
        z_mm=z_mm,
        fine=(patient(seed, grid=grid), patient(seed, switch=off, grid=grid)),
        demo=(own, patient(seed, switch=off)),
    )


def fine_grid(seed: int, z_mm: float) -> Grid:
    """A thin slab over the whole field of view."""
    extent = plan(seed).frame.extent_mm
    pitch = SLAB_MM / SLAB_SLICES
    return Grid(
        shape=Zyx(
            z=SLAB_SLICES, y=max(1, round(extent.y / FINE_MM)), x=max(1, round(extent.x / FINE_MM))
        ),
        spacing_mm=Zyx(z=pitch, y=FINE_MM, x=FINE_MM),
        z_low_mm=z_mm - pitch * (SLAB_SLICES - 1) / 2,
    )


def finding_picture(finding: str) -> bytes:
    """Three pairs: fine lung, fine soft tissue, demo lung (outlined), demo soft tissue."""
    pairs = [pair_of(seed, finding) for seed in seeds_of(finding)]
    rows: list[list[Tile | None]] = [[], [], [], []]
    for pair in pairs:
        size = "large" if pair.large else "small"
        for k, title in enumerate((f"{pair.seed}, {size}", f"{pair.seed}, without")):
            fine = axial(pair.fine[k].volume, pair.z_mm, slab_mm=SLAB_MM)
            mask = pair.demo[k].masks.get(finding)
            demo = axial(pair.demo[k].volume, pair.z_mm, mask=mask)
            plain = axial(pair.demo[k].volume, pair.z_mm)
            rows[0].append(Tile(cut=fine, window=LUNG, title=title))
            rows[1].append(Tile(cut=fine, window=SOFT))
            rows[2].append(Tile(cut=demo, window=LUNG))
            rows[3].append(Tile(cut=plain, window=SOFT))
    return encode(mosaic(rows, tile_inches=TILE_INCHES), dpi=DPI, kind="jpeg", quality=QUALITY)


def read_real(folder: Path) -> Volume | None:
    """The real chest CT through SimpleITK; None where it is not there."""
    if not folder.is_dir():
        return None
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = SimpleITK.DICOMOrient(reader.Execute(), "LPS")
    x, y, z = image.GetSpacing()
    matrix = np.zeros((4, 4))
    matrix[0, 2], matrix[1, 1], matrix[2, 0] = x, y, z
    matrix[:3, 3], matrix[3, 3] = image.GetOrigin(), 1.0
    voxels = np.clip(SimpleITK.GetArrayFromImage(image), -1024, 3071).astype(np.int16)
    return Volume(volume_id="real", voxels=voxels, world_from_voxel=matrix)


def real_picture(volume: Volume) -> bytes:
    """Six levels of the real CT in the same windows, fine and on the demo grid."""
    coarse = regrid(volume, MODEL_GRID)
    height = volume.voxels.shape[0] * spacing_mm(volume.world_from_voxel).z
    low = depth_of(volume, 0.0)
    rows: list[list[Tile | None]] = [[], [], [], []]
    for share in REAL_SHARES:
        z_mm = low + share * height
        fine, demo = axial(volume, z_mm), axial(coarse, z_mm)
        rows[0].append(Tile(cut=fine, window=LUNG, title=f"z {fine.at_mm:.0f} mm"))
        rows[1].append(Tile(cut=fine, window=SOFT))
        rows[2].append(Tile(cut=demo, window=LUNG))
        rows[3].append(Tile(cut=demo, window=SOFT))
    return encode(mosaic(rows, tile_inches=TILE_INCHES), dpi=DPI, kind="jpeg", quality=QUALITY)


def file_name(finding: str) -> str:
    """File name of a finding's picture."""
    return f"{finding.lower().replace(' ', '_')}.jpg"


def page(real: bool) -> str:
    """The gallery's page in MyST markdown."""
    rows = (
        "Rows of every picture: a 5 mm slab drawn at "
        f"{FINE_MM} mm in the lung window and in the soft-tissue window; then the demo grid "
        "(32 x 64 x 64) that the small model saw, in both windows, with the truth outlined in "
        "the lung window."
    )
    parts = [
        "# Phantom gallery",
        "**Synthetic phantoms; not clinical.** Every patient on this page but the one named as "
        "real was made by a program. Plausibility was judged by eye.",
        rows,
        "Columns: three patients who have the finding (seed and size in the title), each beside "
        "its twin: the same patient with this one finding switched off and nothing else changed. "
        "The first pair shows a large form and the second a small one where the finding has both.",
        "R and L are the patient's right and left, A the front, P the back. Windows: lung -1350 "
        "to 150 HU, soft tissue -160 to 240 HU. `python tools/gallery.py` draws this page again.",
        "## A real chest CT in the same windows",
        f"![Six axial levels of a real chest CT, fine and on the demo grid](real.jpg)\n\n"
        f"{REAL_CREDIT}"
        if real
        else "The real chest CT was not at hand when this page was drawn.",
    ]
    for finding in CT_RATE_18:
        alt = f"{finding}: three phantoms with it, each beside its twin without it"
        parts += [f"## {finding}", f"![{alt}]({file_name(finding)})"]
    return "\n\n".join(parts) + "\n"


def draw(out: Path, real_data: Path, findings: Iterable[str]) -> int:
    """Write the pictures and the page; returns the bytes of all pictures in the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for finding in findings:
        (out / file_name(finding)).write_bytes(finding_picture(finding))
        log.info("%s", finding)
    real = read_real(real_data / REAL_SERIES)
    if real is None:
        log.warning("no real CT at %s: the page says so", REAL_SERIES)
    else:
        (out / "real.jpg").write_bytes(real_picture(real))
    (out / "index.md").write_text(page(real is not None), encoding="utf-8")
    return sum(path.stat().st_size for path in out.glob("*.jpg"))


def main() -> int:
    """Draw the gallery; 1 if its pictures are too large to commit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"))
    parser.add_argument("--real-data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--finding", action="append", choices=CT_RATE_18, help="only this one")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        total = draw(given.out, given.real_data, given.finding or CT_RATE_18)
    except T3DError as error:
        log.error("%s", error)
        return 2
    log.info("%d bytes of pictures (at most %d)", total, MAX_BYTES)
    return 1 if total > MAX_BYTES else 0


if __name__ == "__main__":
    raise SystemExit(main())
