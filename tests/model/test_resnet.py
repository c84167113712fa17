"""MONAI's 3-D ResNet as an encoder: sizes measured once, gradients, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t3d.errors import GeometryError, RecipeError
from t3d.model.encoders.resnet import ResNet3d, ResNetEncoder
from t3d.model.tensors import ViewBlock
from t3d.types import Zyx

SMALL = ResNet3d(depth=10, width=0.125)
SIZE = (16, 32, 32)


def block(voxels: Tensor) -> ViewBlock:
    num_studies, num_views = voxels.shape[:2]
    size = voxels.shape[-3:]
    return ViewBlock(
        voxels=voxels,
        valid=None,
        box_mm=torch.zeros(num_studies, num_views, 2, 3),
        box_vox=torch.zeros(num_studies, num_views, 2, 3, dtype=torch.long),
        full_vox=Zyx(z=size[0], y=size[1], x=size[2]),
    )


def random_block(*shape: int, seed: int = 0) -> ViewBlock:
    return block(torch.rand(*shape, generator=torch.Generator().manual_seed(seed)))


def build(config: ResNet3d = SMALL) -> ResNetEncoder:
    torch.manual_seed(0)
    return config.build()


def on_meta(config: ResNet3d) -> ResNetEncoder:
    with torch.device("meta"):
        return config.build()


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ResNet3d(), 46_158_912),
        (ResNet3d(stem_stride=Zyx(z=1, y=2, x=2)), 46_158_912),
        (ResNet3d(bias_downsample=False), 46_155_072),
        (ResNet3d(width=0.5), 11_559_456),
        (ResNet3d(width=0.25), 2_899_728),
        (ResNet3d(depth=18), 33_160_896),
        (ResNet3d(depth=10, width=0.25), 902_640),
    ],
)
def test_parameter_counts_are_those_measured_before(config: ResNet3d, parameters: int) -> None:
    assert count(on_meta(config)) == parameters


@pytest.mark.parametrize(
    ("stride", "size", "c5"),
    [
        ((1, 1, 1), (128, 256, 256), (8, 16, 16)),
        ((1, 2, 2), (128, 256, 256), (8, 8, 8)),
        ((2, 2, 2), (128, 256, 256), (4, 8, 8)),
        ((1, 1, 1), (64, 128, 128), (4, 8, 8)),
        ((1, 1, 1), (96, 96, 96), (6, 6, 6)),
    ],
)
def test_token_maps_have_the_sizes_measured_before(
    stride: tuple[int, int, int], size: tuple[int, int, int], c5: tuple[int, int, int]
) -> None:
    net = on_meta(ResNet3d(stem_stride=Zyx(*stride)))
    with torch.device("meta"):
        features = net(block(torch.empty(1, 2, 1, *size)), with_levels=True)
    assert features.pooled.shape == (1, 2, 2048)
    assert features.grid.shape == (1, 2, 2048, *c5)
    assert net.pooled_dim == net.grid_dim == 2048
    for stage, level in enumerate(features.levels):
        grown = tuple(n * 2 ** (3 - stage) for n in c5)
        assert level.shape == (1, 2, (256, 512, 1024, 2048)[stage], *grown)
        assert tuple(n // s for n, s in zip(size, net.level_strides[stage], strict=True)) == grown


def test_the_pooled_vector_is_that_of_monais_own_forward() -> None:
    from monai.networks.nets.resnet import resnet10

    net = build().eval()
    torch.manual_seed(0)
    theirs = resnet10(
        pretrained=False, spatial_dims=3, n_input_channels=1, feed_forward=False, widen_factor=0.125
    ).eval()
    views = random_block(2, 1, 1, *SIZE)
    expected = theirs(views.voxels[:, 0])
    torch.testing.assert_close(net(views).pooled[:, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_the_grid_comes_from_the_chosen_stage(stage: int) -> None:
    net = build(replace(SMALL, grid_stage=stage)).eval()
    features = net(random_block(1, 2, 1, *SIZE), with_levels=True)
    assert net.grid_dim == (8, 16, 32, 64)[stage - 1]
    torch.testing.assert_close(features.grid, features.levels[stage - 1])
    assert net(random_block(1, 2, 1, *SIZE)).levels == ()


def test_the_stem_stride_names_our_axes() -> None:
    net = build(replace(SMALL, stem_stride=Zyx(z=1, y=2, x=4)))
    grid = net(random_block(2, 1, 1, 16, 32, 64)).grid
    assert grid.shape[-3:] == (1, 1, 1)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
@pytest.mark.parametrize("depth", [10, 18, 50])
def test_every_parameter_gets_a_gradient(depth: int, norm: Any) -> None:
    net = build(replace(SMALL, depth=depth, norm=norm, num_windows=2, grid_stage=2))
    features = net(random_block(2, 1, 2, *SIZE))
    (features.pooled.square().sum() + features.grid.sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_a_row_alone_equals_the_row_in_a_batch(norm: Any) -> None:
    net = build(replace(SMALL, norm=norm)).eval()
    views = random_block(3, 2, 1, *SIZE)
    together, alone = net(views), net(block(views.voxels[1:2, 1:]))
    # Loose, because a norm over four cells enlarges the rounding of the convolutions.
    torch.testing.assert_close(together.pooled[1:2, 1:], alone.pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.grid[1:2, 1:], alone.grid, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_another_norm_replaces_every_batch_norm(norm: Any) -> None:
    # MONAI's own argument would change the stem only.
    kinds = [type(m) for m in build(replace(SMALL, norm=norm)).modules()]
    assert nn.BatchNorm3d not in kinds
    batch = [type(m) for m in build().modules()].count(nn.BatchNorm3d)
    assert kinds.count(nn.GroupNorm) == batch


def test_activation_checkpointing_changes_neither_gradients_nor_statistics() -> None:
    plain, saving = build(), build(replace(SMALL, checkpoint_activations=True))
    views = random_block(2, 2, 1, *SIZE)
    for net in (plain, saving):
        for _ in range(2):
            net(views).pooled.square().sum().backward()
    for (name, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    for (name, one), two in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_activation_checkpointing_keeps_less_for_the_backward_pass() -> None:
    def kept(config: ResNet3d) -> int:
        total = 0

        def count_bytes(x: Tensor) -> Tensor:
            nonlocal total
            total += x.nbytes
            return x

        net = build(config)
        with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda x: x):
            net(random_block(1, 2, 1, *SIZE))
        return total

    assert kept(replace(SMALL, checkpoint_activations=True)) < kept(SMALL) / 2


def test_weights_and_maps_are_channels_last() -> None:
    net = build(replace(SMALL, num_windows=2))
    kernels = [m.weight for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last_3d) for w in kernels)
    inputs: list[Tensor] = []
    net.stages[1].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    net(random_block(2, 1, 2, *SIZE))
    assert inputs[0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("size", [(15, 32, 32), (16, 32, 40), (16, 8, 32)])
def test_a_size_that_cells_do_not_tile_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match=r"multiples of \(16, 16, 16\)"):
        build()(random_block(1, 1, 1, *size))


def test_an_earlier_stage_takes_smaller_views() -> None:
    net = build(replace(SMALL, grid_stage=3))
    assert net(random_block(1, 2, 1, 24, 24, 24)).grid.shape == (1, 2, 32, 3, 3, 3)


def test_another_number_of_windows_is_refused() -> None:
    with pytest.raises(GeometryError, match="1 windows"):
        build()(random_block(1, 1, 3, *SIZE))


def test_all_bad_settings_are_reported_at_once() -> None:
    config = ResNet3d(depth=34, width=0.0, num_windows=0, grid_stage=5)
    with pytest.raises(RecipeError) as caught:
        config.build()
    assert str(caught.value).startswith("4 problems")
    assert all(name in str(caught.value) for name in ("depth", "width", "num_windows", "stage"))


def test_half_precision_encoding_is_finite() -> None:
    net = build().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        features = net(random_block(1, 2, 1, *SIZE))
    assert features.pooled.isfinite().all()
