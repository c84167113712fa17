"""Yes / no losses: slow twins and numbers checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from t3d.learn.bce import masked_bce, weighted_bce


def slow_bce(logit: float, target: float) -> float:
    p = 1.0 / (1.0 + math.exp(-logit))
    return -(target * math.log(p) + (1.0 - target) * math.log(1.0 - p))


def test_weighted_bce_gives_the_number_of_its_docstring() -> None:
    value = weighted_bce(
        torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]), weight_G=torch.tensor([1.0, 0.5])
    )
    assert value.item() == pytest.approx(0.878306, abs=1e-6)


def test_weighted_bce_equals_its_slow_twin() -> None:
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 7, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 2, (5, 7), generator=rng).double()
    weight = torch.rand(7, generator=rng, dtype=torch.float64)
    total = 0.0
    for n in range(5):
        for g in range(7):
            total += weight[g].item() * slow_bce(logits[n, g].item(), target[n, g].item())
    assert weighted_bce(logits, target, weight_G=weight).item() == pytest.approx(total / 35)


def test_masked_bce_leaves_unstated_labels_out() -> None:
    value = masked_bce(torch.tensor([[0.0, 5.0]]), torch.tensor([[1, -1]]))
    assert value.item() == pytest.approx(math.log(2.0))


def test_masked_bce_equals_its_slow_twin() -> None:
    rng = torch.Generator().manual_seed(4)
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    target = torch.randint(-1, 2, (6, 3), generator=rng)
    terms = [
        slow_bce(logits[i, j].item(), float(target[i, j]))
        for i in range(6)
        for j in range(3)
        if target[i, j] >= 0
    ]
    assert masked_bce(logits, target).item() == pytest.approx(sum(terms) / len(terms))


def test_masked_bce_without_any_label_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    value = masked_bce(logits, torch.full((2, 2), -1))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
