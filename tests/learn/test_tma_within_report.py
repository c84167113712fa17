"""Agreement of places inside one report: partners by hand and by loops, gradients, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from t3d.errors import RecipeError
from t3d.learn.objectives.tma import TMA, WithinReportNet, partner_cells
from t3d.model.tensors import ImageFeatures, ViewBlock

from .toy_agreement import DIMS, toy

REPORTS = [[1, 2, 3], [4, 5], [6], [7, 8]]


def test_partner_cells_have_the_values_worked_by_hand() -> None:
    # Cells of 2 mm; the other box lies 2 mm higher in z, so cell 1 becomes cell 0.
    box = torch.tensor([[[0.0, 0.0, 0.0], [4.0, 2.0, 2.0]]])
    moved = box + torch.tensor([2.0, 0.0, 0.0])
    grid = torch.zeros(2, 1, 1)
    assert partner_cells(box, moved, grid).tolist() == [[-1, 0]]
    assert partner_cells(moved, box, grid).tolist() == [[1, -1]]
    assert partner_cells(box, box, grid).tolist() == [[0, 1]]


def test_partner_cells_are_the_nearest_centres_within_half_a_cell() -> None:
    gen = torch.Generator().manual_seed(0)
    low = torch.rand(3, 2, 3, generator=gen, dtype=torch.float64) * 20
    size = (2, 3, 4)
    boxes = torch.stack([low, low + 25], dim=2)  # (study, view, edge, axis)
    found = partner_cells(boxes[:, 0], boxes[:, 1], torch.zeros(size))
    cells = [(z, y, x) for z in range(2) for y in range(3) for x in range(4)]
    for study in range(3):
        centre = [
            [
                [
                    float(boxes[study, view, 0, axis]) + (cell[axis] + 0.5) * 25 / size[axis]
                    for axis in range(3)
                ]
                for cell in cells
            ]
            for view in (0, 1)
        ]
        for u, here in enumerate(centre[0]):
            near = [
                p
                for p, there in enumerate(centre[1])
                if all(abs(here[k] - there[k]) <= 12.5 / size[k] for k in range(3))
            ]
            assert found[study, u].item() == (near[0] if near else -1)


def within() -> WithinReportNet:
    torch.manual_seed(0)
    net = TMA(queries=4, heads=4, dim=8, within_report=True).build(DIMS)
    assert isinstance(net, WithinReportNet)
    return net


def test_within_report_trains_every_parameter() -> None:
    batch, encoded, _ = toy(REPORTS, uniform=torch.tensor([0.1, 0.9, 0.1, 0.9])[:, None])
    net = within()
    out = net(batch, encoded)
    out["loss"].backward()
    assert 0 < out["partners"] < 1
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_within_report_gives_zero_where_no_crops_overlap() -> None:
    batch, encoded, _ = toy(REPORTS)
    view = batch.views["crops"]
    assert isinstance(view, ViewBlock)
    apart = view.box_mm.clone()
    apart[:, 1] += 1000
    batch = replace(batch, views={"crops": replace(view, box_mm=apart)})
    out = within()(batch, encoded)
    assert out["loss"].item() == 0.0
    assert out["partners"].item() == 0.0


def test_within_report_refuses_frozen_features() -> None:
    batch, encoded, _ = toy(REPORTS)
    frozen = encoded.images["crops"]
    assert isinstance(frozen, ImageFeatures)
    with pytest.raises(RecipeError, match="carry no boxes"):
        within()(replace(batch, views={"crops": frozen}), encoded)
