"""The agreement term keeps its eight rules, numbered as they were set down."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from t3d.errors import RecipeError, T3DWarning
from t3d.learn.losses import sinkhorn
from t3d.learn.objectives.tma import (
    TMA,
    TMANet,
    check_tma,
)
from t3d.learn.parts import Dims
from t3d.model.tensors import Batch, Encoded, TextFeatures, ViewBlock

from .toy_agreement import DIMS, permuted, toy

REPORTS = [[1, 2, 3], [4, 5], [6], [7, 8]]
SMALL = TMA(queries=4, heads=4, dim=8, prototypes=6)
PROTOTYPES = 6


def build(config: TMA = SMALL, seed: int = 0) -> TMANet:
    torch.manual_seed(seed)
    net = config.build(DIMS)
    assert isinstance(net, TMANet)
    return net


class BothSidesNet(TMANet):
    """Not shipped: text on both sides."""

    PAIRS = (("drop", "text"),)


# The whole formula


def slow_loss(net: TMANet, batch: Batch, encoded: Encoded) -> float:
    """Loops in float64 from the vectors on: Sinkhorn, log-softmax, all ordered pairs."""
    tokens, place = net.tokens(batch, encoded)
    text, mask = net.sentences(batch, encoded)
    shown = mask & (batch.targets["uniform"][:, 0] >= net.config.text_drop)[:, None]
    role = {
        "free": net.encode_image(tokens, place),
        "text": net.embed_with_text(tokens, text, mask, place),
        "drop": net.embed_with_text(tokens, text, shown, place),
    }
    rows = net.prototypes.detach().tolist()
    rows = [[v / math.sqrt(math.fsum(w * w for w in row)) for v in row] for row in rows]

    def score(z: Tensor) -> list[float]:
        values = z.detach().tolist()
        return [math.fsum(a * b for a, b in zip(values, row, strict=True)) for row in rows]

    terms = []
    for student, target in (("free", "text"), ("drop", "free")):
        for b in (0, 1):
            code = slow_code([score(z) for z in role[target][:, b]], net.config.eps)
            for a in range(tokens.shape[1]):
                if a == b:
                    continue
                for study in range(len(tokens)):
                    logit = [value / net.config.tau for value in score(role[student][study, a])]
                    log_sum = math.log(math.fsum(math.exp(value) for value in logit))
                    terms.append(
                        -math.fsum(
                            q * (value - log_sum)
                            for q, value in zip(code[study], logit, strict=True)
                        )
                    )
    return math.fsum(terms) / len(terms)


def slow_code(scores: list[list[float]], eps: float) -> list[list[float]]:
    top = max(max(row) for row in scores)
    code = [[math.exp((value - top) / eps) for value in row] for row in scores]
    for _ in range(3):
        for k in range(len(code[0])):
            total = len(code[0]) * math.fsum(row[k] for row in code)
            for row in code:
                row[k] /= total
        code = [[value / (len(code) * math.fsum(row)) for value in row] for row in code]
    return [[value / math.fsum(row) for value in row] for row in code]


@pytest.mark.parametrize("views", [2, 3])
def test_the_loss_equals_loops_over_ordered_pairs_of_views(views: int) -> None:
    batch, encoded, _ = toy(REPORTS, views=views)
    net = build().eval()
    loss = net(batch, encoded)["loss"].item()
    assert loss == pytest.approx(slow_loss(net, batch, encoded), abs=1e-5)


def test_permuting_the_studies_changes_nothing() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build().eval()
    moved = permuted(batch, encoded, torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(net(batch, encoded)["loss"], net(*moved)["loss"])


def test_identical_views_have_a_lower_loss_than_views_of_other_studies() -> None:
    batch, encoded, _ = toy(REPORTS, uniform=torch.zeros(4, 8))
    grid = encoded.images["crops"].grid
    net = build().eval()

    def loss(second: Tensor) -> float:
        features = replace(encoded.images["crops"], grid=torch.stack([grid[:, 0], second], 1))
        return net(batch, replace(encoded, images={"crops": features}))["loss"].item()

    assert loss(grid[:, 0]) < loss(grid[:, 0].roll(1, 0))


def test_every_parameter_gets_a_gradient() -> None:
    batch, encoded, _ = toy(REPORTS, uniform=torch.tensor([0.1, 0.9, 0.1, 0.9])[:, None])
    net = build()
    net(batch, encoded)["loss"].backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_parts_have_their_counted_sizes_at_paper_size() -> None:
    with torch.device("meta"):
        net = TMA().build(Dims(image=2048, grid=2048, text=768, embed=512))
    assert isinstance(net, TMANet)

    def count(part: nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    assert count(net.to_tokens.project) == 1_049_088
    assert count(net.reader.project) == 393_728
    assert count(net.reader.read) == count(net.look) == 1_050_624
    assert count(net.head) == 1_316_992
    assert net.prototypes.numel() == 65_536


# Rule 1: no pair has text on both sides


def test_rule_1_the_shipped_pairs_pass_the_check() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    check_tma(net, batch, encoded)
    assert net.training


def test_rule_1_text_on_both_sides_fails_the_check() -> None:
    batch, encoded, _ = toy(REPORTS)
    torch.manual_seed(0)
    with pytest.raises(RecipeError, match=r"text on both sides of \[\('drop', 'text'\)\]"):
        check_tma(BothSidesNet(SMALL, DIMS), batch, encoded)


@pytest.mark.parametrize("mode", [True, False])
def test_rule_1_the_text_free_vector_has_no_gradient_to_any_text_parameter(mode: bool) -> None:
    batch, encoded, table = toy(REPORTS)
    net = build().train(mode)
    tokens, place = net.tokens(batch, encoded)
    net.embed_with_text(tokens, *net.sentences(batch, encoded))
    net.encode_image(tokens, place).square().mul(torch.arange(8)).sum().backward()
    text_parameters = [*table.parameters(), *net.reader.parameters()]
    assert all(p.grad is None or not p.grad.any() for p in text_parameters)
    assert net.look.in_proj_weight.grad is not None  # the image side did get one


def test_rule_1_the_text_free_students_loss_reaches_no_text_parameter() -> None:
    class FirstPairNet(TMANet):
        PAIRS = (("free", "text"),)

    batch, encoded, table = toy(REPORTS)
    torch.manual_seed(0)
    net = FirstPairNet(SMALL, DIMS)
    net(batch, encoded)["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in net.reader.parameters())
    assert table.weight.grad is None or not table.weight.grad.any()


def test_text_chooses_where_to_look_but_is_not_in_the_answer() -> None:
    # All places alike: whatever the report asks for, the same thing is seen.
    batch, encoded, _ = toy(REPORTS)
    features = encoded.images["crops"]
    flat = features.grid[..., :1, :1, :1].expand_as(features.grid)
    encoded = replace(encoded, images={"crops": replace(features, grid=flat)})
    net = build().eval()
    tokens, _ = net.tokens(batch, encoded)
    with_text = net.embed_with_text(tokens, *net.sentences(batch, encoded))
    torch.testing.assert_close(with_text, net.encode_image(tokens), atol=1e-5, rtol=0)


# Rule 2: targets


def test_rule_2_targets_are_float32_and_finite_under_low_precision() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens, _ = net.tokens(batch, encoded)
        assert net.scores(net.encode_image(tokens)).dtype == torch.float32
        loss = net(batch, encoded)["loss"]
    assert loss.isfinite()


def test_rule_2_bfloat16_features_give_a_float32_loss() -> None:
    batch, encoded, _ = toy(REPORTS)
    features, text = encoded.images["crops"], encoded.texts["report"]
    half = Encoded(
        images={"crops": replace(features, grid=features.grid.bfloat16())},
        texts={"report": replace(text, tokens=text.tokens.bfloat16())},
    )
    net = build().eval()
    loss = net(batch, half)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(net(batch, encoded)["loss"].item(), rel=0.05)


def test_rule_2_no_gradient_flows_through_a_target() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build().eval()
    tokens, _ = net.tokens(batch, encoded)
    codes = net._codes(net.encode_image(tokens), 0)
    assert not any(code.requires_grad for code in codes)


# Rule 3: prototypes


def test_rule_3_prototypes_are_put_back_on_the_sphere_before_each_step() -> None:
    net = build()
    with torch.no_grad():
        net.prototypes.mul_(3)
    batch, encoded, _ = toy(REPORTS)
    scaled = net.eval()(batch, encoded)["loss"].item()
    net.before_step(1000, 10_000)
    torch.testing.assert_close(net.prototypes.norm(dim=1), torch.ones(PROTOTYPES))
    assert net(batch, encoded)["loss"].item() == pytest.approx(scaled, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "num_steps", "frozen"),
    [(0, 200, True), (19, 200, True), (20, 200, False), (299, 9000, True), (300, 9000, False)],
)
def test_rule_3_prototypes_stand_still_for_300_steps_or_a_tenth_of_the_run(
    step: int, num_steps: int, frozen: bool
) -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    net.before_step(step, num_steps)
    before = net.prototypes.detach().clone()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.05)
    net(batch, encoded)["loss"].backward()
    optimiser.step()
    moved = (F.normalize(net.prototypes.detach()) - before).abs().max().item()
    assert (moved < 1e-6) is frozen


# Rule 4: enough rows for the prototypes


def test_rule_4_too_many_prototypes_are_warned_about_once() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build(replace(SMALL, prototypes=33))  # 4 x 4 studies x 2 views = 32
    with pytest.warns(T3DWarning, match="33 prototypes for 8 rows"):
        net(batch, encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(batch, encoded)


@pytest.mark.parametrize("change", [{"prototypes": 32}, {"prototypes": 33, "queue": 1}])
def test_rule_4_enough_rows_or_a_queue_are_not_warned_about(change: dict[str, int]) -> None:
    batch, encoded, _ = toy(REPORTS)
    assert build(replace(SMALL, **change))(batch, encoded)["loss"].isfinite()


def test_rule_4_past_rows_share_in_a_code_and_the_oldest_fall_out() -> None:
    net = build(replace(SMALL, queue=6))
    first = F.normalize(torch.randn(4, 2, 8), dim=-1)
    second = F.normalize(torch.randn(4, 2, 8), dim=-1)
    third = F.normalize(torch.randn(4, 2, 8), dim=-1)
    net._codes(first, 0)
    net._codes(second, 0)
    code = net._codes(third, 0)[1]
    past = torch.cat([second[:, 1], first[:2, 1]])
    whole = sinkhorn(net.scores(torch.cat([third[:, 1], past])), eps=0.05, steps=3)
    torch.testing.assert_close(code, whole[:4])
    assert net.num_past[1].tolist() == [0, 0]  # the other pair has a queue of its own


def test_rule_4_the_queue_starts_late_and_rests_in_evaluation() -> None:
    net = build(replace(SMALL, queue=6, queue_start_step=5))
    z = F.normalize(torch.randn(4, 2, 8), dim=-1)
    net.before_step(4, 100)
    net._codes(z, 0)
    assert net.num_past.sum() == 0
    net.before_step(5, 100)
    net.eval()._codes(z, 0)
    assert net.num_past.sum() == 0
    net.train()._codes(z, 0)
    assert net.num_past[0].tolist() == [4, 4]


# Rule 6: small and empty batches


@pytest.mark.parametrize("reports", [[[1]], [[]], [[], []], [[1], []]])
def test_rule_6_small_batches_and_empty_reports_stay_finite(reports: list[list[int]]) -> None:
    batch, encoded, _ = toy(reports)
    net = build(replace(SMALL, prototypes=4))
    out = net(batch, encoded)
    out["loss"].backward()
    assert all(value.isfinite() for value in out.values())
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


def test_rule_6_a_study_without_a_text_reads_the_null_token() -> None:
    batch, encoded, _ = toy([[1, 2], []])
    net = build().eval()
    tokens, _ = net.tokens(batch, encoded)
    text, mask = net.sentences(batch, encoded)
    z = net.embed_with_text(tokens, text, mask)
    null = net.embed_with_text(tokens, torch.zeros_like(text), torch.zeros_like(mask))
    torch.testing.assert_close(z[1], null[1])
    assert not torch.allclose(z[0], null[0])
    with torch.no_grad():
        net.reader.null.add_(1.0)
    moved = net.embed_with_text(tokens, text, mask)
    torch.testing.assert_close(moved[0], z[0])  # a report is read without the null token
    assert not torch.allclose(moved[1], z[1])


def test_text_is_dropped_where_the_first_random_number_is_small() -> None:
    uniform = torch.tensor([0.49, 0.5, 0.0, 0.99])[:, None]
    batch, encoded, _ = toy(REPORTS, uniform=uniform)
    net = build().eval()
    tokens, place = net.tokens(batch, encoded)
    text, mask = net.sentences(batch, encoded)
    roles = net._roles(batch, encoded, tokens, place)
    null = net.embed_with_text(tokens, text, torch.zeros_like(mask))
    torch.testing.assert_close(roles["drop"][[0, 2]], null[[0, 2]])
    torch.testing.assert_close(roles["drop"][[1, 3]], roles["text"][[1, 3]])


def test_the_loss_does_not_use_the_global_random_state() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    state = torch.get_rng_state()
    net(batch, encoded)
    assert torch.equal(state, torch.get_rng_state())


def test_places_outside_the_scan_change_nothing() -> None:
    batch, encoded, _ = toy(REPORTS)
    view = batch.views["crops"]
    assert isinstance(view, ViewBlock)
    valid = torch.ones(4, 2, 4, 4, 6, dtype=torch.bool)
    valid[:, :, 2:] = False  # the upper half of the voxels, so z = 1 of the 2 x 2 x 3 places
    batch = replace(batch, views={"crops": replace(view, valid=valid)})
    features = encoded.images["crops"]
    grid = features.grid.clone()
    grid[:, :, :, 1] = 100.0
    changed = replace(encoded, images={"crops": replace(features, grid=grid)})
    net = build().eval()
    torch.testing.assert_close(net(batch, encoded)["loss"], net(batch, changed)["loss"])


# Rule 7: several processes


OTHER_RANK = """
import sys, torch, torch.distributed as dist
from t3d.learn.losses import sinkhorn
rendezvous, scores, out = sys.argv[1:]
dist.init_process_group("gloo", init_method=rendezvous, rank=1, world_size=2)
torch.save(sinkhorn(torch.load(scores, weights_only=True), eps=0.05, steps=3), out)
dist.destroy_process_group()
"""


def test_rule_7_two_processes_give_the_codes_of_one(tmp_path: Path) -> None:
    scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).tanh()
    alone = sinkhorn(scores, eps=0.05, steps=3)
    torch.save(scores[3:], tmp_path / "scores.pt")
    rendezvous = f"file://{tmp_path / 'meet'}"
    files = [str(tmp_path / "scores.pt"), str(tmp_path / "codes.pt")]
    child = subprocess.Popen([sys.executable, "-c", OTHER_RANK, rendezvous, *files])
    dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=2)
    try:
        mine = sinkhorn(scores[:3], eps=0.05, steps=3)
    finally:
        dist.destroy_process_group()
    assert child.wait(timeout=60) == 0
    theirs = torch.load(tmp_path / "codes.pt", weights_only=True)
    assert [len(mine), len(theirs)] == [3, 5]
    torch.testing.assert_close(torch.cat([mine, theirs]), alone, atol=1e-6, rtol=0)


# Rule 8: evaluation is free of text


def test_rule_8_evaluation_cannot_be_given_a_text() -> None:
    signature = inspect.signature(TMANet.encode_image, eval_str=True)
    assert list(signature.parameters) == ["self", "tokens_BVPD", "place_BVP"]
    hints = {p.annotation for p in signature.parameters.values()}
    assert not any(TextFeatures is hint for hint in hints)


# Settings


def test_one_view_is_refused() -> None:
    batch, encoded, _ = toy(REPORTS, views=1)
    with pytest.raises(RecipeError, match="1 view of each study"):
        build()(batch, encoded)


def test_heads_that_do_not_divide_the_space_are_refused() -> None:
    with pytest.raises(RecipeError, match="5 heads do not divide"):
        TMA(heads=5).build(DIMS)


def test_what_it_needs_follows_from_its_settings() -> None:
    needs = TMA(views="local", text="findings").needs
    assert (needs.views, needs.texts, needs.targets) == (("local",), ("findings",), ("uniform",))
