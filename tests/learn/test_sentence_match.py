"""Sentence matching and the text warm-up: what they skip, what they count as right."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t3d.errors import RecipeError
from t3d.learn.losses import mean_by_report, sentence_attention, sentence_cosines
from t3d.learn.objectives.sentence_match import SentenceMatch, SentenceMatchNet
from t3d.learn.objectives.text_warmup import TextWarmup
from t3d.model.tensors import Batch, Encoded, ViewBlock

from .toy_agreement import DIMS, encode_text, permuted, text_block, toy

REPORTS = [[1, 2, 3], [4, 5], [6], [7, 8]]


def build() -> SentenceMatchNet:
    torch.manual_seed(0)
    net = SentenceMatch().build(DIMS)
    assert isinstance(net, SentenceMatchNet)
    return net


def slow_loss(net: SentenceMatchNet, batch: Batch, encoded: Encoded) -> float:
    """Loops in float64 over reports, images, sentences and places; no shared code."""
    grid = encoded.images["crops"].grid.double()
    text, segment = encoded.texts["report"].tokens.double(), encoded.texts["report"].segment
    net = net.double()
    scores: dict[tuple[int, int], float] = {}
    present = [i for i in range(len(grid)) if (segment[i] >= 0).any()]
    for i in present:
        for j in present:
            found = []
            for s in range(int(segment[i].max()) + 1):
                sentence = text[i][segment[i] == s].mean(0)
                query, logits, values = net.query(sentence), [], []
                for view in grid[j]:
                    for cell in view.flatten(1).T:
                        token = net.to_tokens(cell)
                        logits.append(float((query * net.key(token)).sum()) / math.sqrt(len(query)))
                        values.append(net.value(token))
                total = math.fsum(math.exp(value) for value in logits)
                seen = sum(math.exp(a) / total * v for a, v in zip(logits, values, strict=True))
                assert isinstance(seen, Tensor)
                meaning = net.meaning(sentence)
                found.append(float((seen * meaning).sum() / (seen.norm() * meaning.norm())))
            scores[i, j] = math.fsum(found) / len(found)
    net.float()
    group = batch.targets["same_report"].tolist()

    def cross_entropy(of: int, score: dict[int, float]) -> float:
        total = math.fsum(math.exp(value / net.config.tau) for value in score.values())
        right = [k for k in score if group[k] == group[of]]
        log_prob = [score[k] / net.config.tau - math.log(total) for k in right]
        return -math.fsum(log_prob) / len(right)

    by_text = [cross_entropy(i, {j: scores[i, j] for j in present}) for i in present]
    by_image = [cross_entropy(j, {i: scores[i, j] for i in present}) for j in present]
    return math.fsum([*by_text, *by_image]) / (2 * len(present))


def test_the_loss_equals_loops_over_sentences_and_places() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    with torch.no_grad():
        loss = net(batch, encoded)["loss"].item()
        assert loss == pytest.approx(slow_loss(net, batch, encoded), abs=1e-5)


def test_loops_agree_with_repeated_reports_and_a_study_without_a_sentence() -> None:
    batch, encoded, _ = toy([[1, 2], [], [1, 2], [6, 7]])
    batch = replace(batch, targets=batch.targets | {"same_report": torch.tensor([0, 1, 0, 2])})
    net = build()
    with torch.no_grad():
        loss = net(batch, encoded)["loss"].item()
        assert loss == pytest.approx(slow_loss(net, batch, encoded), abs=1e-5)


def test_permuting_the_studies_changes_nothing() -> None:
    batch, encoded, _ = toy(REPORTS)
    moved = permuted(batch, encoded, torch.tensor([2, 0, 3, 1]))
    net = build()
    torch.testing.assert_close(net(batch, encoded)["loss"], net(*moved)["loss"])


def test_every_parameter_and_the_text_get_a_gradient() -> None:
    batch, encoded, table = toy(REPORTS)
    net = build()
    net(batch, encoded)["loss"].backward()
    parameters = [*net.named_parameters(), *table.named_parameters(prefix="table")]
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


def test_the_same_report_is_right_and_not_a_negative() -> None:
    # Two studies with one text: every image of theirs is right, so nothing is left to learn
    # between them and the loss is that of picking one of two alike.
    batch, encoded, _ = toy([[1, 2], [1, 2]])
    batch = replace(batch, targets=batch.targets | {"same_report": torch.zeros(2).long()})
    features = encoded.images["crops"]
    alike = features.grid[:1].expand_as(features.grid)
    encoded = replace(encoded, images={"crops": replace(features, grid=alike)})
    out = build()(batch, encoded)
    assert out["loss"].item() == pytest.approx(math.log(2), abs=1e-6)
    assert out["accuracy"].item() == 1.0


@pytest.mark.parametrize("reports", [[[]], [[], []], [[1]], [[1], []]])
def test_with_fewer_than_two_reports_the_loss_is_zero(reports: list[list[int]]) -> None:
    batch, encoded, _ = toy(reports)
    net = build()
    out = net(batch, encoded)
    out["loss"].backward()
    assert out["loss"].item() == 0.0
    assert all(value.isfinite() for value in out.values())


def test_a_study_without_a_sentence_leaves_the_others_as_they_are() -> None:
    whole, whole_encoded, _ = toy([[1, 2], [], [4], [5, 6]])
    order = torch.tensor([0, 2, 3])
    batch, encoded = permuted(whole, whole_encoded, order)
    batch = replace(batch, texts={"report": replace(batch.texts["report"], study=torch.arange(3))})
    net = build()
    torch.testing.assert_close(net(whole, whole_encoded)["loss"], net(batch, encoded)["loss"])


def test_places_outside_the_scan_are_not_searched() -> None:
    batch, encoded, _ = toy(REPORTS)
    view, features = batch.views["crops"], encoded.images["crops"]
    assert isinstance(view, ViewBlock)
    valid = torch.ones(4, 2, 4, 4, 6, dtype=torch.bool)
    valid[:, :, 2:] = False
    batch = replace(batch, views={"crops": replace(view, valid=valid)})
    grid = features.grid.clone()
    grid[:, :, :, 1] = torch.randn(4, 2, 6, 2, 3) * 10
    changed = replace(encoded, images={"crops": replace(features, grid=grid)})
    net = build()
    torch.testing.assert_close(net(batch, encoded)["loss"], net(batch, changed)["loss"])


def test_a_repeated_sentence_is_looked_up_once_with_the_same_gradient() -> None:
    batch, encoded, table = toy([[1, 2, 1], [2, 3], [1]])
    net = build()
    tokens, _ = net.tokens(batch, encoded)
    text, mask = net.sentences(batch, encoded)
    weight = torch.arange(9.0).reshape(3, 3)  # a different pull on every entry
    scores = net.scores(tokens, text, mask)
    fast = torch.autograd.grad((scores * weight).sum(), table.weight, retain_graph=True)[0]
    places, every = tokens.flatten(1, 2), text[mask]
    attention = sentence_attention(net.query(every), net.key(places))
    cosine = sentence_cosines(attention, net.value(places), net.meaning(every))
    plain = mean_by_report(cosine, mask.nonzero()[:, 0], 3)
    slow = torch.autograd.grad((plain * weight).sum(), table.weight)[0]
    torch.testing.assert_close(scores, plain)
    torch.testing.assert_close(fast, slow)


def test_bfloat16_features_give_a_float32_loss() -> None:
    batch, encoded, _ = toy(REPORTS)
    features, text = encoded.images["crops"], encoded.texts["report"]
    half = Encoded(
        images={"crops": replace(features, grid=features.grid.bfloat16())},
        texts={"report": replace(text, tokens=text.tokens.bfloat16())},
    )
    net = build()
    loss = net(batch, half)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(net(batch, encoded)["loss"].item(), rel=0.05)


def test_attention_is_a_distribution_over_the_places_of_the_own_image() -> None:
    batch, encoded, _ = toy(REPORTS)
    net = build()
    tokens, _ = net.tokens(batch, encoded)
    text, _ = net.sentences(batch, encoded)
    attention = net.attention(tokens[:, 0], text[:, 0])
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(4))
    alone = net.attention(tokens[1:2, 0], text[1:2, 0])
    torch.testing.assert_close(attention[1:2], alone)


def test_it_learns_which_place_a_sentence_speaks_of() -> None:
    # Sentence k is true where channel k lights up at one place; 4 findings, chance log 16.
    gen = torch.Generator().manual_seed(0)
    net, (batch, encoded, table) = build(), toy([[k % 4] for k in range(16)])
    finding = torch.arange(16) % 4
    batch = replace(batch, targets=batch.targets | {"same_report": finding})
    optimiser = torch.optim.Adam([*net.parameters(), *table.parameters()], lr=1e-2)
    for _ in range(120):
        place = torch.randint(12, (16,), generator=gen)
        cells = 0.1 * torch.randn(16, 1, 6, 12, generator=gen)
        cells[torch.arange(16), 0, finding, place] += 3
        features = replace(encoded.images["crops"], grid=cells.unflatten(3, (2, 2, 3)))
        step = Encoded(
            images={"crops": features},
            texts={"report": encode_text(batch.texts["report"], table)},
        )
        out = net(batch, step)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
    tokens, _ = net.tokens(batch, step)
    text, _ = net.sentences(batch, step)
    looked = net.attention(tokens[:, 0], text[:, 0]).argmax(dim=1)
    assert (looked == place).double().mean() > 0.9  # chance 1 / 12
    assert out["accuracy"].item() > 0.9


# Text warm-up


def warmup(
    findings: list[list[int]], impression: list[list[int]], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    blocks = {"findings": text_block(findings), "impression": text_block(impression)}
    table = torch.nn.Embedding(50, 5)
    texts = {name: encode_text(block, table) for name, block in blocks.items()}
    embedded = {"findings": x, "impression": y}
    texts = {name: replace(text, embed=embedded[name]) for name, text in texts.items()}
    net = TextWarmup(scale=1.0).build(DIMS)
    out = net(Batch(views={}, texts=blocks), Encoded(images={}, texts=texts))
    assert isinstance(out, dict)
    return out


def test_warm_up_has_the_worked_value_of_two_pairs() -> None:
    out = warmup([[1], [2]], [[3], [4]], torch.eye(2), torch.eye(2))
    assert out["loss"].item() == pytest.approx(0.313262, abs=1e-6)
    assert out["chance"].item() == pytest.approx(math.log(2))


def test_warm_up_skips_studies_without_one_of_the_sections() -> None:
    x = F.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    whole = warmup([[1], [], [2], [5]], [[3], [4], [], [6]], x, x.roll(1, 1))
    kept = torch.tensor([0, 3])
    alone = warmup([[1], [5]], [[3], [6]], x[kept], x.roll(1, 1)[kept])
    torch.testing.assert_close(whole["loss"], alone["loss"])


def test_warm_up_counts_equal_impressions_as_right() -> None:
    out = warmup([[1], [2]], [[3, 4], [3, 4]], torch.eye(2), torch.eye(2))
    assert out["loss"].item() == pytest.approx(0.813262, abs=1e-6)


def test_warm_up_of_nothing_is_zero() -> None:
    out = warmup([[], []], [[1], [2]], torch.eye(2), torch.eye(2))
    assert out["loss"].item() == 0.0


def test_warm_up_without_a_text_head_is_refused() -> None:
    blocks = {name: text_block([[1], [2]]) for name in ("findings", "impression")}
    texts = {name: encode_text(block, torch.nn.Embedding(50, 5)) for name, block in blocks.items()}
    with pytest.raises(RecipeError, match="not projected"):
        TextWarmup().build(DIMS)(Batch(views={}, texts=blocks), Encoded(images={}, texts=texts))
