"""Small NIfTI files for fabricated corpora: a chest of sorts, and what is no volume at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t3d.ct import nifti

SIZE = (20, 40, 40)  # z, y, x


def hounsfield(name: str, num_slices: int = SIZE[0]) -> NDArray[np.int16]:
    """Air, a body of 40 HU, a lung on the patient's left, bone in front; noise by name."""
    rng = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[2] * 1j]
    plane = np.where(y**2 + x**2 < 0.8, 40, -1000)
    plane[(y**2 + (x - 0.4) ** 2) < 0.08] = -850
    plane[(y + 0.6) ** 2 + x**2 < 0.02] = 700
    noise = rng.normal(0, 12, (num_slices, *SIZE[1:]))
    return np.rint(plane[None] + noise).astype(np.int16)


def write_volume(
    path: Path,
    *,
    spacing: tuple[float, float, float] = (3.0, 0.8, 0.8),
    num_slices: int = SIZE[0],
    times: int = 0,
    flat: bool = False,
) -> Path:
    """Write one file.

    Args:
        path: Its folder is made.
        spacing: z, y, x in mm.
        num_slices: Along z.
        times: A fourth axis of this length; 0 = none.
        flat: Give it an affine whose axes lie in one plane.
    """
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = hounsfield(path.name, num_slices)
    if not times and not flat:
        z, y, x = spacing
        world = np.array([[0, 0, x, -14.0], [0, y, 0, -10.0], [z, 0, 0, 30.0], [0, 0, 0, 1.0]])
        nifti.write(path, voxels, world)
        return path
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    if flat:
        affine[:3, 2] = affine[:3, 1]
    held = voxels.T if not times else np.repeat(voxels.T[..., None], times, axis=3)
    image = nibabel.Nifti1Image(held, None)
    image.header.set_sform(affine, 1)
    image.header["qform_code"] = 0
    nibabel.save(image, path)
    return path
