"""MONAI's 3-D ResNet as an image encoder: token map of a chosen stage beside the pooled vector.

The network is MONAI's; this file runs its stem and blocks one by one, because MONAI's own
forward gives the pooled vector only. Legend: B studies, V views, W windows, C features.

On a CPU two things stop the paper's size. Without bf16 instructions torch's own bf16 convolution
was 400 times slower than float32; and oneDNN falls back to plain loops where a map has 2 GiB.
There slabs are convolved in float32 and rounded to the type of the map.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t3d.errors import GeometryError, RecipeError
from t3d.model.tensors import ImageFeatures, ViewBlock
from t3d.types import Zyx

Norm = Literal["batch", "group", "instance"]

DEPTHS: dict[int, int] = {10: 1, 18: 1, 50: 4}
"""Depths offered, and how many times a block widens its planes."""

STAGE_PLANES = (64, 128, 256, 512)
NUM_STAGES = 4
MAX_GROUPS = 32  # channels per group at most so many groups: arXiv:1803.08494
ONEDNN_BYTES = 1 << 31  # oneDNN convolves larger maps by plain loops: hours instead of seconds
SLAB_BYTES = 1 << 28  # of a float32 map convolved at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet3d:
    """MONAI's resnet10, 18 or 50 in three dimensions.

    Source:
        3D ResNet-50, MONAI: a third-party page on T3D v3. Stem stride 1: MONAI's default and
        our choice. Depth 10 at width 0.25 for CPU-size runs: our choice.
    """

    kind: ClassVar[str] = "resnet"
    depth: int = 50  # 10, 18 or 50
    width: float = 1.0  # factor on the channels 64, 128, 256, 512
    num_windows: int = 1  # input channels
    stem_stride: Zyx[int] = field(default_factory=lambda: Zyx(z=1, y=1, x=1))
    grid_stage: int = 4  # stage 1-4 the token map is taken from
    norm: Norm = "batch"
    bias_downsample: bool = True
    checkpoint_activations: bool = False  # recompute blocks in the backward pass

    def build(self) -> ResNetEncoder:
        """Make the module with random weights.

        Raises:
            RecipeError: A setting is outside its range; all problems at once.
        """
        problems = self._problems()
        if problems:
            raise RecipeError(
                f"{len(problems)} problems in encoder 'resnet'\n  " + "\n  ".join(problems),
                expected="settings inside the ranges named above",
                fix="change these fields of ResNet3d",
            )
        return ResNetEncoder(self)

    def _problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (self.depth in DEPTHS, f"depth: {self.depth}, not one of {tuple(DEPTHS)}"),
            (self.width * STAGE_PLANES[0] >= 1, f"width: {self.width} leaves no channel"),
            (self.num_windows >= 1, f"num_windows: {self.num_windows} < 1"),
            (min(self.stem_stride) >= 1, f"stem_stride: {tuple(self.stem_stride)} below 1"),
            (1 <= self.grid_stage <= NUM_STAGES, f"grid_stage: {self.grid_stage}, not 1 to 4"),
            (self.norm in ("batch", "group", "instance"), f"norm: {self.norm!r} is unknown"),
        )
        return [text for fine, text in checks if not fine]


class ResNetEncoder(nn.Module):
    """ViewBlock -> ImageFeatures.

    Attributes:
        pooled_dim: Channels of `ImageFeatures.pooled` (stage 4, mean over space).
        grid_dim: Channels of `ImageFeatures.grid`.
        level_dims: Channels of `ImageFeatures.levels`, stage 1 to 4.
        level_strides: Input voxels of a cell of each level, by axis.
    """

    def __init__(self, config: ResNet3d) -> None:
        super().__init__()
        self.config = config
        self.level_dims = tuple(
            int(planes * config.width) * DEPTHS[config.depth] for planes in STAGE_PLANES
        )
        self.level_strides = tuple(
            Zyx(*(stride * 2 ** (stage + 1) for stride in config.stem_stride))
            for stage in range(NUM_STAGES)
        )
        self.pooled_dim = self.level_dims[-1]
        self.grid_dim = self.level_dims[config.grid_stage - 1]
        net = _monai_resnet(config)
        pool = MaxPool3d(net.maxpool.kernel_size, net.maxpool.stride, net.maxpool.padding)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act, pool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        _replace_norm(self, config.norm)
        _replace_convolutions(self)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, block: ViewBlock, *, with_levels: bool = False) -> ImageFeatures:
        """Encode every view; views share the batch dimension inside.

        Args:
            block: voxels (B, V, W, Z, Y, X).
            with_levels: Also give the maps of stages 1 to 4, each (B, V, C, z, y, x).

        Returns:
            pooled (B, V, C) and grid (B, V, C', z, y, x).

        Raises:
            GeometryError: The number of windows is wrong, or a size is no multiple of the
                stride of the grid's stage (its cells would not tile the view).
        """
        self._check(block.voxels)
        num_studies, num_views = block.voxels.shape[:2]
        x = block.voxels.flatten(0, 1).contiguous(memory_format=torch.channels_last_3d)
        x = self._run(self.stem, x)
        levels = []
        for stage in self.stages:
            # Recomputed block by block: a whole stage of the paper's size does not fit in memory.
            for part in stage.children() if self.config.checkpoint_activations else (stage,):
                x = self._run(part, x)
            levels.append(x)
        pooled = x.flatten(2).mean(dim=2)
        grid = levels[self.config.grid_stage - 1]
        return ImageFeatures(
            pooled=_by_view(pooled, num_studies, num_views),
            grid=_by_view(grid, num_studies, num_views),
            levels=tuple(_by_view(m, num_studies, num_views) for m in levels)
            if with_levels
            else (),
        )

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        """One part, recomputed in the backward pass if the settings say so."""
        if not (self.config.checkpoint_activations and self.training and torch.is_grad_enabled()):
            out: Tensor = part(x)
            return out
        again = partial(_recompute_contexts, part)
        out = checkpoint(part, x, use_reentrant=False, context_fn=again)
        return out

    def _check(self, voxels: Tensor) -> None:
        """Raise unless the voxels fit this network."""
        stride = self.level_strides[self.config.grid_stage - 1]
        if voxels.dim() != 6 or voxels.shape[2] != self.config.num_windows:
            raise GeometryError(
                f"encoder 'resnet' was given voxels of shape {tuple(voxels.shape)}",
                expected=f"(studies, views, {self.config.num_windows} windows, Z, Y, X)",
                fix="make num_windows equal to the number of windows of the recipe",
            )
        size = tuple(voxels.shape[3:])
        if any(n == 0 or n % s for n, s in zip(size, stride, strict=True)):
            raise GeometryError(
                f"encoder 'resnet' was given views of size {size} (z, y, x)",
                expected=f"multiples of {tuple(stride)}, the stride of stage "
                f"{self.config.grid_stage}",
                fix="change the size of the views, or take the grid from an earlier stage",
            )


def _by_view(x: Tensor, num_studies: int, num_views: int) -> Tensor:
    """(B V, ...) back to (B, V, ...)."""
    return x.reshape(num_studies, num_views, *x.shape[1:])


def _monai_resnet(config: ResNet3d) -> Any:
    """MONAI's network, without a head (imported here: it takes seconds)."""
    from monai.networks.nets.resnet import resnet10, resnet18, resnet50

    make = {10: resnet10, 18: resnet18, 50: resnet50}[config.depth]
    return make(
        pretrained=False,
        spatial_dims=3,
        n_input_channels=config.num_windows,
        feed_forward=False,
        conv1_t_stride=tuple(config.stem_stride),  # axes in the order of our arrays: z, y, x
        widen_factor=config.width,
        bias_downsample=config.bias_downsample,
    )


def _replace_norm(module: nn.Module, norm: Norm) -> None:
    """Swap every BatchNorm3d (MONAI's `norm` argument reaches the stem only)."""
    if norm == "batch":
        return
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm3d):
            channels = child.num_features
            groups = channels if norm == "instance" else math.gcd(channels, MAX_GROUPS)
            setattr(module, name, nn.GroupNorm(groups, channels))
        else:
            _replace_norm(child, norm)


def _replace_convolutions(module: nn.Module) -> None:
    """Turn every convolution into `Conv3d`: the same parameters, no random number drawn."""
    for child in module.modules():
        if type(child) is nn.Conv3d:
            child.__class__ = Conv3d


def _recompute_contexts(
    part: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Contexts of the first and of the repeated forward pass."""
    return contextlib.nullcontext(), _running_statistics_kept(part)


@contextlib.contextmanager
def _running_statistics_kept(part: nn.Module) -> Iterator[None]:
    """Without this, each step would enter the running mean and variance twice."""
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm3d)]
    momenta = [m.momentum for m in norms]
    counts = [(m.num_batches_tracked, int(m.num_batches_tracked or 0)) for m in norms]
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum, (counter, before) in zip(norms, momenta, counts, strict=True):
            module.momentum = momentum
            if counter is not None:
                counter.fill_(before)


class MaxPool3d(nn.MaxPool3d):
    """Max pooling that stays in bf16: autocast would copy to float32, and a maximum is exact."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, z, y, x) to the pooled map, in the type it came in."""
        with torch.autocast("cpu", enabled=False):  # autocast on a GPU leaves pooling alone
            pooled: Tensor = super().forward(x)
            return pooled


class Conv3d(nn.Conv3d):
    """A convolution that goes round what torch is slow at on a CPU.

    Bf16 without the instructions, and maps of 2 GiB or more: these are convolved in float32,
    slab by slab. Everything else goes the usual way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, z, y, x) to (N, C', z', y', x'), bf16 under autocast."""
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
            return super().forward(x)
        bf16 = (
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        given = x.bfloat16() if bf16 else x
        map_bytes = given.nbytes * self.out_channels / self.in_channels / math.prod(self.stride)
        if map_bytes < ONEDNN_BYTES and (given.dtype == torch.float32 or fast_bf16()):
            return super().forward(x)
        settings = (self.weight, self.bias, self.stride, self.padding)
        out: Tensor = _SlabConv.apply(given, *settings)  # type: ignore[no-untyped-call]
        return out


@cache
def fast_bf16(device: str = "cpu") -> bool:
    """Say whether a device has bf16; a CPU has it where oneDNN takes it, else torch emulates."""
    if device != "cpu":
        return True
    known = torch.backends.mkldnn.is_available()
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _SlabConv(torch.autograd.Function):
    """Float32 convolution, slab by slab; what comes out is rounded to the type that went in."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.stride, ctx.padding = bias is not None, stride, padding
        plan = _Slabs(x, weight, stride, padding)
        out = x.new_empty(plan.out_shape).contiguous(memory_format=torch.channels_last_3d)
        rounded = weight.to(x.dtype).float()
        with torch.autocast("cpu", enabled=False):
            for slab in plan.slabs:
                out[slab.out] = plan.convolve(slab.take(x), rounded, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan, rounded = _Slabs(x, weight, ctx.stride, ctx.padding), weight.to(x.dtype).float()
        wanted = ctx.needs_input_grad[:2]
        x_grad = torch.zeros_like(x, dtype=torch.float32) if wanted[0] else None
        weight_grad = torch.zeros_like(weight)
        for slab in plan.slabs:
            by_x, by_weight = plan.convolve_back(
                grads[0][slab.out].float(), slab.take(x), rounded, wanted
            )
            if x_grad is not None and by_x is not None:
                x_grad[slab.source] += slab.trim(by_x)
            if by_weight is not None:
                weight_grad += by_weight
        bias_grad = grads[0].sum(dim=(0, 2, 3, 4), dtype=torch.float32) if ctx.has_bias else None
        x_grad = None if x_grad is None else x_grad.to(x.dtype)
        return x_grad, weight_grad, bias_grad, None, None


@dataclass(frozen=True, slots=True)
class _Slab:
    """Slices along z of one volume's output, and the slices of its input they come from."""

    out: tuple[slice, slice, slice]  # volume, channels, z
    source: tuple[slice, slice, slice]
    low: int  # slices of zeros below the input
    high: int  # and above

    def take(self, x: Tensor) -> Tensor:
        """The input of the slab, float32, zeros above and below included."""
        return nn.functional.pad(x[self.source].float(), (0, 0, 0, 0, self.low, self.high))

    def trim(self, padded: Tensor) -> Tensor:
        """Take those zeros off again."""
        return padded[:, :, self.low : padded.shape[2] - self.high]


class _Slabs:
    """A convolution cut along z into pieces that oneDNN is fast at."""

    def __init__(
        self, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> None:
        kernel = weight.shape[2:]
        size = [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(x.shape[2:], padding, kernel, stride, strict=True)
        ]
        self.out_shape = (len(x), len(weight), *size)
        self.stride, self.padding = stride, (0, *padding[1:])
        self.pointwise = set(kernel) == set(stride) == {1}
        depth = max(1, SLAB_BYTES // (4 * len(weight) * size[1] * size[2]))
        self.slabs = [
            _slab(n, (z, min(z + depth, size[0])), x.shape[2], (kernel[0], stride[0], padding[0]))
            for n in range(len(x))
            for z in range(0, size[0], depth)
        ]

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve one slab; 1 x 1 x 1 as a matrix product, which is 5 times faster."""
        if self.pointwise:
            return _as_map(nn.functional.linear(_cells(x), weight.flatten(1), bias), x)
        return nn.functional.conv3d(x, weight, bias, self.stride, self.padding)

    def convolve_back(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of one slab's input and of the weight; None where not wanted."""
        if self.pointwise:
            up = _cells(grad)
            by_x = _as_map(up @ weight.flatten(1), x) if wanted[0] else None
            return by_x, (up.T @ _cells(x)).reshape(weight.shape) if wanted[1] else None
        given = torch.ops.aten.convolution_backward(
            *(grad, x, weight, None, self.stride, self.padding, (1, 1, 1)),
            *(False, (0, 0, 0), 1, (*wanted, False)),
        )
        return given[0], given[1]


def _slab(volume: int, out: tuple[int, int], depth: int, along_z: tuple[int, int, int]) -> _Slab:
    """Find what the output slices `out` of a volume of `depth` slices are made from."""
    kernel, stride, padding = along_z
    low, high = out[0] * stride - padding, (out[1] - 1) * stride - padding + kernel
    row, every = slice(volume, volume + 1), slice(None)
    return _Slab(
        out=(row, every, slice(*out)),
        source=(row, every, slice(max(low, 0), min(high, depth))),
        low=max(-low, 0),
        high=max(high - depth, 0),
    )


def _cells(x: Tensor) -> Tensor:
    """(1, C, z, y, x) to rows (z y x, C); channels lie together, so nothing moves."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """Rows (z y x, C) back to (1, C, z, y, x) of another map's size."""
    return rows.reshape(1, *like.shape[2:], -1).permute(0, 4, 1, 2, 3)
