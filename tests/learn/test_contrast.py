"""Global alignment: directions, duplicates, several views, the queue."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t3d.conformance import example, example_dims
from t3d.learn.objectives.contrast import Contrast, ContrastModule
from t3d.model.tensors import Batch, Encoded


def made(image: Tensor, text: Tensor, group: Tensor | None = None) -> tuple[Batch, Encoded]:
    """A batch whose embeddings are given: image (B, V, D), text (B, D)."""
    batch, encoded = example(Contrast(), embed=text.shape[-1])
    rows = torch.arange(len(text)) if group is None else group
    features = replace(encoded.images["whole"], embed=image)
    words = replace(encoded.texts["report"], embed=text)
    moved = replace(batch, targets={"same_report": rows})
    return moved, Encoded(images={"whole": features}, texts={"report": words})


def build(config: Contrast, embed: int) -> ContrastModule:
    return config.build(replace(example_dims(), embed=embed))


def slow_contrast(image: Tensor, text: Tensor, group: list[int], scale: float) -> float:
    """Loops from the definition: both directions, mean over studies; mass spread over positives."""
    n = len(text)
    total = 0.0
    for x, y in ((image, text), (text, image)):
        for i in range(n):
            logits = [
                scale * sum(float(a) * float(b) for a, b in zip(x[i], y[j], strict=True))
                for j in range(n)
            ]
            norm = math.log(sum(math.exp(value) for value in logits))
            mates = [j for j in range(n) if group[j] == group[i]]
            total += sum(norm - logits[j] for j in mates) / len(mates) / n / 2
    return total


def test_two_orthogonal_pairs_give_the_number_worked_out_by_hand() -> None:
    eye = torch.eye(2)
    module = build(Contrast(temperature=1.0), 2).eval()
    given = module(*made(eye[:, None], eye))
    assert given["loss"].item() == pytest.approx(0.313262, abs=1e-6)


@pytest.mark.parametrize("group", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 1]])
def test_loss_equals_its_slow_twin(group: list[int]) -> None:
    rng = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(5, 4, generator=rng, dtype=torch.float64), dim=1)
    text = F.normalize(torch.randn(5, 4, generator=rng, dtype=torch.float64), dim=1)
    module = build(Contrast(temperature=0.1, learned=False), 4).eval()
    given = module(*made(image[:, None], text, torch.tensor(group)))
    assert given["loss"].item() == pytest.approx(slow_contrast(image, text, group, 10.0), rel=1e-5)


def test_several_views_are_averaged() -> None:
    rng = torch.Generator().manual_seed(1)
    image = F.normalize(torch.randn(4, 2, 3, generator=rng), dim=-1)
    text = F.normalize(torch.randn(4, 3, generator=rng), dim=-1)
    module = build(Contrast(), 3).eval()
    both = module(*made(image, text))["loss"]
    each = [module(*made(image[:, v : v + 1], text))["loss"] for v in (0, 1)]
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-5)


def test_past_batches_are_further_negatives_in_training_only() -> None:
    rng = torch.Generator().manual_seed(2)
    module = build(Contrast(queue=2, queue_rows=3, learned=False, temperature=1.0), 4)
    past = [F.normalize(torch.randn(3, 4, generator=rng), dim=-1) for _ in range(4)]
    module.train()
    module(*made(past[0][:, None], past[1], torch.tensor([10, 11, 12])))
    image, text = past[2], past[3]
    trained = module(*made(image[:, None], text, torch.tensor([0, 1, 2])))["loss"]
    keys_text, keys_image = torch.cat([text, past[1]]), torch.cat([image, past[0]])
    expected = 0.0
    for query, keys in ((image, keys_text), (text, keys_image)):
        logits = query @ keys.T
        expected += F.cross_entropy(logits, torch.arange(3)).item() / 2
    assert trained.item() == pytest.approx(expected, rel=1e-5)
    alone = module.eval()(*made(image[:, None], text, torch.tensor([0, 1, 2])))["loss"]
    assert alone.item() < trained.item()


def test_the_queue_forgets_the_oldest_batch_and_lies_in_the_state() -> None:
    module = build(Contrast(queue=2, queue_rows=2), 2).train()
    eye = torch.eye(2)
    for start in (0, 10, 20):
        module(*made(eye[:, None], eye, torch.tensor([start, start + 1])))
    assert sorted(module.queue_group.flatten().tolist()) == [10, 11, 20, 21]
    assert "queue_text" in module.state_dict()


def test_the_scale_is_capped() -> None:
    module = build(Contrast(temperature=1e-4), 2).eval()
    given = module(*made(torch.eye(2)[:, None], torch.eye(2)))
    assert given["scale"].item() == pytest.approx(100.0)
