"""The meters read a planted leak and do not read one where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t3d.errors import ProtocolError
from t3d.learn import meters
from t3d.learn.meters import Meters, measure
from t3d.learn.objectives.tma import TMA, TMANet
from t3d.model.tensors import Batch, Encoded, ImageFeatures, TextFeatures

from .toy_agreement import DIMS, text_block, toy

NUM_FINDINGS = 12
DIM = 32
TOY_DIMS = replace(DIMS, grid=NUM_FINDINGS, text=NUM_FINDINGS, embed=DIM)
CONFIG = TMA(queries=4, heads=4, dim=DIM, prototypes=32)
NUM_STEPS, NUM_HELD_OUT = 60, 256


def patients(num: int, seed: int) -> tuple[Batch, Encoded]:
    """Findings light up at places of both views (with noise); each sentence names one."""
    gen = torch.Generator().manual_seed(seed)
    strength = 2 * torch.rand(num, NUM_FINDINGS, generator=gen) + 0.5
    has = torch.rand(num, NUM_FINDINGS, generator=gen) < 0.4
    grid = 0.4 * torch.randn(num, 2, NUM_FINDINGS, 8, generator=gen)
    place = torch.randint(8, (num, 2, NUM_FINDINGS), generator=gen)
    light = F.one_hot(place, 8) * (4 * has * strength)[:, None, :, None]
    sentences = [[int(k) for k in row.nonzero()[:, 0]] for row in has]
    batch, _, _ = toy(sentences, size=(2, 2, 2), seed=seed)
    block = text_block(sentences)
    # The report says how much, so that it tells patients apart as a real one does.
    amount = strength.gather(1, block.ids.clamp(max=NUM_FINDINGS - 1))[..., None]
    tokens = F.one_hot(block.ids, NUM_FINDINGS) * amount * block.mask[..., None]
    text = TextFeatures(
        pooled=tokens.mean(1), tokens=tokens, mask=block.mask, segment=block.segment
    )
    cells = (grid + light).reshape(num, 2, NUM_FINDINGS, 2, 2, 2)
    image = ImageFeatures(pooled=cells.flatten(3).mean(3), grid=cells)
    return batch, Encoded(images={"crops": image}, texts={"report": text})


class LeakyNet(TMANet):
    """Not shipped: the report is added to both views, as a careless reading would have it."""

    PAIRS = (("drop", "text"),)

    def _roles(
        self, batch: Batch, encoded: Encoded, tokens_BVPD: Tensor, place_BVP: Tensor | None
    ) -> dict[str, Tensor]:
        z = self.embed_with_text(tokens_BVPD, *self.sentences(batch, encoded))
        return {"free": self.encode_image(tokens_BVPD), "drop": z, "text": z.detach()}

    def embed_with_text(
        self,
        tokens_BVPD: Tensor,
        text_BSC: Tensor,
        mask_BS: Tensor,
        place_BVP: Tensor | None = None,
    ) -> Tensor:
        query_BKD = self.queries.expand(len(tokens_BVPD), -1, -1)
        tokens = tokens_BVPD.flatten(0, 1)
        query = query_BKD.repeat_interleave(2, dim=0)
        seen, _ = self.look(query, tokens, tokens)
        said = (self.reader.project(text_BSC) * mask_BS[..., None]).sum(1)
        z = self.head(seen.mean(1) + said.repeat_interleave(2, dim=0))
        return F.normalize(z, dim=-1).reshape(-1, 2, DIM)


def trained(kind: type[TMANet], config: TMA) -> TMANet:
    torch.manual_seed(0)
    net = kind(config, TOY_DIMS)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(NUM_STEPS):
        net.before_step(step, NUM_STEPS)
        loss = net(*patients(64, seed=step))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def held_out(num: int = NUM_HELD_OUT) -> Iterator[tuple[Batch, Encoded]]:
    for start in range(0, num, 64):
        yield patients(min(64, num - start), seed=10_000 + start)


@pytest.fixture(scope="module")
def shipped() -> Meters:
    return measure(trained(TMANet, CONFIG), held_out())


def test_the_meter_reads_a_planted_leak() -> None:
    reading = measure(trained(LeakyNet, replace(CONFIG, text_drop=0.0)), held_out())
    assert reading.leak > 0.9
    assert reading.verdicts["leak"] == "stop"
    assert reading.must_stop
    assert reading.text_dominance > 0.9
    assert reading.verdicts["text_dominance"] == "fail"


def test_the_meter_reads_no_leak_in_the_shipped_objective(shipped: Meters) -> None:
    assert shipped.agreement > 5 / NUM_HELD_OUT
    assert shipped.leak < 0.1
    assert shipped.verdicts["leak"] == "pass"
    assert not shipped.must_stop


def test_the_shipped_objective_agrees_without_the_text(shipped: Meters) -> None:
    assert shipped.image_only >= 0.5
    assert shipped.verdicts["image_only"] == "pass"
    assert shipped.text_dominance <= 0.1


def test_the_shipped_objective_has_not_collapsed(shipped: Meters) -> None:
    assert shipped.verdicts["entropy"] == "pass"
    assert shipped.used_prototypes > 16
    assert shipped.effective_rank > 5


def test_meters_leave_the_module_in_training_mode_and_repeat_themselves() -> None:
    torch.manual_seed(0)
    net = TMANet(CONFIG, TOY_DIMS)
    first, second = measure(net, held_out(64)), measure(net, held_out(64))
    assert net.training
    assert first.verdicts == second.verdicts
    assert first.agreement == second.agreement


def test_too_few_studies_are_not_measurable() -> None:
    torch.manual_seed(0)
    reading = measure(TMANet(CONFIG, TOY_DIMS), held_out(64))
    assert reading.verdicts["leak"] == "not measurable: 64 studies, needs 256"
    assert math.isnan(reading.leak)
    assert math.isnan(reading.image_only)


def test_agreement_at_chance_is_not_measurable() -> None:
    def blind() -> Iterator[tuple[Batch, Encoded]]:
        gen = torch.Generator().manual_seed(0)
        for batch, encoded in held_out():
            features = encoded.images["crops"]
            noise = torch.randn(features.grid.shape, generator=gen)
            yield batch, replace(encoded, images={"crops": replace(features, grid=noise)})

    torch.manual_seed(0)
    reading = measure(TMANet(CONFIG, TOY_DIMS), blind())
    assert reading.verdicts["leak"].startswith("not measurable: agreement")
    assert math.isnan(reading.leak)


def test_text_that_moves_no_attention_is_called_unused() -> None:
    torch.manual_seed(0)
    net = TMANet(CONFIG, TOY_DIMS)
    with torch.no_grad():
        net.reader.read.out_proj.weight.zero_()
        net.reader.read.out_proj.bias.zero_()
    reading = measure(net, held_out(64))
    assert reading.verdicts["text_use"] == "text is not used"
    assert reading.attention_tv == pytest.approx(0, abs=1e-6)
    assert reading.text_use == pytest.approx(0, abs=1e-5)


def test_seven_studies_are_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(ProtocolError, match="7 held-out studies"):
        measure(TMANet(CONFIG, TOY_DIMS), held_out(7))


# Formulas


def test_leak_has_the_values_worked_by_hand() -> None:
    assert meters.leak(0.5, 0.75, 4) == pytest.approx(0.5)
    assert meters.leak(0.1, 0.75, 4) == 0.0
    assert meters.leak(1.0, 1.0, 256) == pytest.approx(1.0)
    assert meters.leak(0.5, 0.25, 4) == pytest.approx(1.0)  # agreement at chance counts as 1/n


def test_top1_counts_rows_that_find_themselves() -> None:
    target = torch.eye(4)
    assert meters.top1(target[[0, 1, 3, 2]], target) == 0.5


def test_effective_rank_has_the_values_worked_by_hand() -> None:
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert meters.effective_rank(cross) == pytest.approx(2.0)
    line = torch.tensor([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    assert meters.effective_rank(line) == pytest.approx(1.0)
    assert meters.effective_rank(torch.ones(3, 2)) == pytest.approx(1.0)


def test_pointing_compares_peaks_with_the_share_of_the_mask() -> None:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, 0] = True  # chance 1 / 8
    attention = torch.zeros(4, 8)
    attention[torch.arange(4), torch.tensor([0, 0, 5, 0])] = 1.0
    hit, chance, verdict = meters.pointing(attention, mask)
    assert (hit, chance, verdict) == (0.75, 0.125, "pass")
    assert meters.pointing(attention.roll(1, 1), mask)[2] == "fail"


def test_a_mask_touches_the_cells_that_hold_a_voxel_of_it() -> None:
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[0, 3, 0, 2] = True  # z in the upper half, y lower, x upper
    cells = meters.mask_on_places(mask, (2, 2, 2))
    assert cells[0].nonzero().flatten().tolist() == [1 * 4 + 0 * 2 + 1]
