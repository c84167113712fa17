"""`statstem`: block statistics of HU windows, then a small 3-D network. Ours, not T3D's.

The stem has no parameters, so its output is computed once per volume and cached. Every
channel is standardised per place with the training mean and deviation of that place:
anatomy dominates the variance of a CT, and what is left is what differs between patients.
Measured effect and the settings that did not help: `docs/concepts/recipes.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from t3d.errors import RecipeError
from t3d.model.tensors import ImageFeatures, ViewBlock
from t3d.types import Zyx

NUM_SD_WINDOWS = 2  # the standard deviation is taken of the first two windows only
SD_FLOOR = 0.05  # added to a place's deviation, in units of a window half-width
BLOCK = Zyx(z=2, y=4, x=4)
GRID = Zyx(z=16, y=16, x=16)
CLAMP = 6.0  # standardised values are kept within +- this


def block_statistics(
    voxels_hu: NDArray[np.int16], *, windows_hu: tuple[tuple[int, int], ...], block: Zyx[int]
) -> NDArray[np.float32]:
    """Describe each block of a volume by the mean, maximum and minimum of each window.

    Windows map to [-1, 1] and clamp. The deviation is added for the first two windows, so
    three windows give 3 x 3 + 2 = 11 channels.

    Args:
        voxels_hu: (Z, Y, X) HU; each size a multiple of the block's.
        windows_hu: Low and high HU of each window.
        block: Voxels per block.

    Returns:
        (channels, Z / block.z, Y / block.y, X / block.x).

    Raises:
        RecipeError: A size is no multiple of the block's.
    """
    shape = voxels_hu.shape
    if any(n % b for n, b in zip(shape, block, strict=True)):
        raise RecipeError(
            f"statstem: the volume has {shape} voxels (z, y, x)",
            expected=f"multiples of the block {tuple(block)}",
            fix="prepare the cohort with the recipe's preparation",
        )
    cells = tuple(n // b for n, b in zip(shape, block, strict=True))
    tiles = voxels_hu.reshape(cells[0], block.z, cells[1], block.y, cells[2], block.x)
    tiles = tiles.transpose(0, 2, 4, 1, 3, 5).reshape(*cells, -1).astype(np.float32)
    channels: list[NDArray[np.float32]] = []
    deviations: list[NDArray[np.float32]] = []
    for index, (low, high) in enumerate(windows_hu):
        scaled = np.clip((tiles - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)
        channels += [scaled.mean(-1), scaled.max(-1), scaled.min(-1)]
        if index < NUM_SD_WINDOWS:
            deviations.append(scaled.std(-1))
    return np.stack(channels + deviations).astype(np.float32)


def standardise(
    channels: NDArray[np.float32], mean: NDArray[np.float32], sd: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Give clamp((s - mean) / (sd + 0.05), -6, 6), place by place; all (channels, z, y, x)."""
    scaled: NDArray[np.float32] = np.clip((channels - mean) / (sd + SD_FLOOR), -CLAMP, CLAMP)
    return scaled


def _positions(block: ViewBlock) -> Tensor:
    """Nine position terms of each cell on the full grid: z, y, x, squares, products."""
    axes = []
    size = block.voxels.shape[-3:]
    for axis, full in enumerate(block.full_vox):
        low = block.box_vox[:, :, 0, axis].reshape(-1, 1)
        cell = torch.arange(size[axis], device=low.device)
        axes.append((low + cell + 0.5).float() * (2.0 / full) - 1.0)  # (B V, n) in [-1, 1]
    z, y, x = axes
    z, y, x = torch.broadcast_tensors(z[:, :, None, None], y[:, None, :, None], x[:, None, None, :])
    return torch.stack([z, y, x, z * z, y * y, x * x, z * y, z * x, y * x], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatStem:
    """Settings of the demo encoder: 171,136 parameters at the defaults."""

    kind: ClassVar[str] = "statstem"

    windows_hu: tuple[tuple[int, int], ...] = ((-1000, -300), (-150, 250), (200, 1500))
    block: Zyx[int] = BLOCK  # voxels
    grid: Zyx[int] = GRID  # cells of the full grid
    width: int = 32

    @property
    def num_channels(self) -> int:
        """Channels of the stem."""
        return 3 * len(self.windows_hu) + min(NUM_SD_WINDOWS, len(self.windows_hu))

    def stem(self, voxels_hu: NDArray[np.int16]) -> NDArray[np.float32]:
        """Give the stem's channels, (channels, z, y, x), not yet standardised."""
        return block_statistics(voxels_hu, windows_hu=self.windows_hu, block=self.block)

    def build(self) -> StatStemNet:
        """Make the network that follows the stem."""
        return StatStemNet(self)


class StatStemNet(nn.Module):
    """1x1x1 convolution with position, strided 3x3x3, residual 3x3x3, max and mean pooling."""

    def __init__(self, config: StatStem) -> None:
        super().__init__()
        width, wide = config.width, 2 * config.width
        self.num_channels = config.num_channels
        self.pooled_dim = 2 * wide
        self.grid_dim = wide
        self.enter = nn.Conv3d(config.num_channels, width, 1, bias=False)
        self.enter_norm = nn.BatchNorm3d(width)
        self.place = nn.Conv3d(9, width, 1, bias=False)
        self.down = nn.Conv3d(width, wide, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.BatchNorm3d(wide)
        self.refine = nn.Conv3d(wide, wide, 3, padding=1, bias=False)
        self.refine_norm = nn.BatchNorm3d(wide)
        self.detect = nn.Conv3d(wide, wide, 1)
        self.detect_norm = nn.BatchNorm1d(wide)

    def forward(self, block: ViewBlock) -> ImageFeatures:
        """Encode standardised stem channels.

        Args:
            block: voxels (B, V, channels, z, y, x), boxes in cells of the full grid.

        Returns:
            pooled (B, V, 128), grid (B, V, 64, z/2, y/2, x/2) at the default width.

        Raises:
            RecipeError: The number of channels is not the stem's.
        """
        num_studies, num_views, num_channels = block.voxels.shape[:3]
        if num_channels != self.num_channels:
            raise RecipeError(
                f"statstem: a view with {num_channels} channels",
                expected=f"{self.num_channels} stem channels",
                fix="cut views with the recipe that names this encoder",
            )
        x = block.voxels.flatten(0, 1).float().contiguous(memory_format=torch.channels_last_3d)
        x = torch.relu(self.enter_norm(self.enter(x))) + self.place(_positions(block))
        x = torch.relu(self.down_norm(self.down(x)))
        x = x + torch.relu(self.refine_norm(self.refine(x)))
        peak = self.detect_norm(self.detect(x).flatten(2).amax(-1).float())
        pooled = torch.cat([peak, x.flatten(2).mean(-1).float()], dim=1)
        return ImageFeatures(
            pooled=pooled.unflatten(0, (num_studies, num_views)),
            grid=x.unflatten(0, (num_studies, num_views)),
        )
