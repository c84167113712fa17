"""Formulas of `learn/losses.py` against slow twins (plain loops, float64) and hand numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from t3d.learn import losses

EYE = torch.eye(2, dtype=torch.float64)
SCORES = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], dtype=torch.float64)
LOG_2 = math.log(2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(random(*shape, seed=seed), dim=-1)


# Slow twins: written from the definitions, sharing no code with the package.


def slow_log_softmax(row: Sequence[float]) -> list[float]:
    total = math.fsum(math.exp(value) for value in row)
    return [value - math.log(total) for value in row]


def slow_spread_cross_entropy(logits: list[list[float]], right: list[list[bool]]) -> float:
    terms = []
    for row, answers in zip(logits, right, strict=True):
        chosen = [j for j, answer in enumerate(answers) if answer]
        if chosen:
            log_prob = slow_log_softmax(row)
            terms.append(-math.fsum(log_prob[j] for j in chosen) / len(chosen))
    return math.fsum(terms) / len(terms) if terms else 0.0


def slow_sinkhorn(scores: list[list[float]], eps: float, steps: int) -> list[list[float]]:
    num, width = len(scores), len(scores[0])
    top = max(max(row) for row in scores)
    mass = [[math.exp((scores[b][k] - top) / eps) for b in range(num)] for k in range(width)]
    for _ in range(steps):
        for k in range(width):
            total = width * math.fsum(mass[k])
            mass[k] = [value / total for value in mass[k]]
        for b in range(num):
            total = num * math.fsum(mass[k][b] for k in range(width))
            for k in range(width):
                mass[k][b] /= total
    return [[num * mass[k][b] for k in range(width)] for b in range(num)]


def slow_swapped(scores: list[list[float]], code: list[list[float]], tau: float) -> float:
    terms = []
    for row, target in zip(scores, code, strict=True):
        log_prob = slow_log_softmax([value / tau for value in row])
        terms.append(-math.fsum(q * p for q, p in zip(target, log_prob, strict=True)))
    return math.fsum(terms) / len(terms)


def slow_cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def slow_match_scores(
    query: list[list[float]],
    key: list[list[list[float]]],
    value: list[list[list[float]]],
    text: list[list[float]],
    row: list[int],
    num_rows: int,
) -> list[list[float]]:
    out = [[0.0] * len(key) for _ in range(num_rows)]
    for i in range(num_rows):
        mine = [s for s, owner in enumerate(row) if owner == i]
        for j in range(len(key)):
            for s in mine:
                logits = [
                    math.fsum(a * b for a, b in zip(query[s], k, strict=True))
                    / math.sqrt(len(query[s]))
                    for k in key[j]
                ]
                weight = [math.exp(value) for value in slow_log_softmax(logits)]
                found = [
                    math.fsum(w * v[c] for w, v in zip(weight, value[j], strict=True))
                    for c in range(len(text[s]))
                ]
                out[i][j] += slow_cosine(found, text[s]) / len(mine)
    return out


# Contrast


def test_info_nce_has_the_values_of_its_docstring() -> None:
    assert losses.info_nce(EYE, EYE, scale=1.0).item() == pytest.approx(0.313262, abs=1e-6)
    assert losses.info_nce(EYE, EYE, scale=0.0).item() == pytest.approx(LOG_2, abs=1e-12)


def test_one_group_adds_half_the_score_gap_to_the_loss() -> None:
    group = torch.tensor([3, 3])
    loss = losses.info_nce_multi_positive(EYE, EYE, scale=1.0, group_N=group)
    assert loss.item() == pytest.approx(0.813262, abs=1e-6)


def test_contrast_equals_its_slow_twin() -> None:
    x, y, group = unit(6, 4, seed=1), unit(6, 4, seed=2), torch.tensor([0, 1, 1, 2, 0, 3])
    fast = losses.info_nce_multi_positive(x, y, scale=7.0, group_N=group).item()
    logits = [
        [7.0 * math.fsum(a * b for a, b in zip(p, q, strict=True)) for q in y.tolist()]
        for p in x.tolist()
    ]
    same = [[a == b for b in group.tolist()] for a in group.tolist()]
    flipped = [list(column) for column in zip(*logits, strict=True)]
    slow = (slow_spread_cross_entropy(logits, same) + slow_spread_cross_entropy(flipped, same)) / 2
    assert fast == pytest.approx(slow, abs=1e-10)


def test_queued_keys_equal_the_slow_twin() -> None:
    query, key = unit(3, 4, seed=1), unit(8, 4, seed=2)
    positive = torch.zeros(3, 8, dtype=torch.bool)
    positive[0, 0] = positive[0, 6] = positive[2, 2] = True  # the second row has none
    fast = losses.contrast_one_way(query, key, scale=5.0, positive_NM=positive).item()
    slow = slow_spread_cross_entropy((5.0 * query @ key.T).tolist(), positive.tolist())
    assert fast == pytest.approx(slow, abs=1e-10)


def test_distinct_groups_are_plain_info_nce() -> None:
    x, y = unit(5, 3, seed=3), unit(5, 3, seed=4)
    plain = F.cross_entropy(4 * x @ y.T, torch.arange(5))
    plain = (plain + F.cross_entropy(4 * y @ x.T, torch.arange(5))) / 2
    assert losses.info_nce(x, y, scale=4.0).item() == pytest.approx(plain.item(), abs=1e-12)


def test_no_positive_at_all_gives_zero_with_a_gradient() -> None:
    logits = random(2, 3).requires_grad_()
    loss = losses.spread_cross_entropy(logits, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_no_row_at_all_gives_zero() -> None:
    empty = losses.spread_cross_entropy(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.bool))
    assert empty.item() == 0.0


# Sinkhorn and swapped prediction


def test_sinkhorn_has_the_worked_values() -> None:
    expected = torch.tensor([[0.9820, 0.0180], [0.5, 0.5], [0.0180, 0.9820]], dtype=torch.float64)
    code = losses.sinkhorn(SCORES, eps=0.05, steps=3)
    torch.testing.assert_close(code, expected, atol=5e-5, rtol=0)


def test_sinkhorn_has_settled_after_three_steps_in_the_worked_example() -> None:
    few = losses.sinkhorn(SCORES, eps=0.05, steps=3)
    many = losses.sinkhorn(SCORES, eps=0.05, steps=50)
    torch.testing.assert_close(few, many, atol=5e-5, rtol=0)


@pytest.mark.parametrize("shape", [(5, 4), (3, 7), (1, 4), (6, 1)])
def test_sinkhorn_equals_its_slow_twin(shape: tuple[int, int]) -> None:
    scores = random(*shape).tanh()
    fast = losses.sinkhorn(scores, eps=0.05, steps=3)
    slow = torch.tensor(slow_sinkhorn(scores.tolist(), 0.05, 3), dtype=torch.float64)
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
def test_each_code_sums_to_one_and_prototypes_share_the_mass(seed: int, b: int, k: int) -> None:
    code = losses.sinkhorn(random(b, k, seed=seed).tanh(), eps=0.5, steps=200)
    torch.testing.assert_close(code.sum(dim=1), torch.ones(b, dtype=torch.float64))
    share = torch.full((k,), 1 / k, dtype=torch.float64)
    torch.testing.assert_close(code.mean(dim=0), share, atol=1e-6, rtol=0)


def test_permuting_the_batch_permutes_the_codes() -> None:
    scores, order = random(6, 4).tanh(), torch.tensor([3, 1, 5, 0, 2, 4])
    whole = losses.sinkhorn(scores, eps=0.05, steps=3)
    torch.testing.assert_close(losses.sinkhorn(scores[order], eps=0.05, steps=3), whole[order])


def test_uniform_scores_give_even_codes_and_a_loss_of_log_k() -> None:
    scores = torch.full((3, 5), 0.4, dtype=torch.float64)
    code = losses.sinkhorn(scores, eps=0.05, steps=3)
    torch.testing.assert_close(code, torch.full_like(code, 0.2))
    loss = losses.swapped_prediction(scores, code, tau=0.1)
    assert loss.item() == pytest.approx(math.log(5), abs=1e-12)


def test_half_precision_scores_become_finite_float32_codes() -> None:
    # exp(1 / 0.05) = 4.85e8 is beyond float16's 65,504.
    code = losses.sinkhorn(torch.eye(4, dtype=torch.float16), eps=0.05, steps=3)
    assert code.dtype == torch.float32
    torch.testing.assert_close(code, torch.eye(4), atol=1e-4, rtol=0)


def test_a_very_sharp_code_stays_finite() -> None:
    code = losses.sinkhorn(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), eps=1e-3, steps=3)
    torch.testing.assert_close(code, torch.eye(2))


def test_codes_carry_no_gradient() -> None:
    scores = random(3, 2).requires_grad_()
    assert not losses.sinkhorn(scores, eps=0.05, steps=3).requires_grad


def test_swapped_prediction_has_the_worked_value() -> None:
    code = losses.sinkhorn(SCORES, eps=0.05, steps=3)
    loss = losses.swapped_prediction(SCORES, code, tau=0.1)
    assert loss.item() == pytest.approx(2.3643, abs=5e-5)


def test_swapped_prediction_equals_its_slow_twin() -> None:
    student, target = random(5, 4, seed=1).tanh(), random(5, 4, seed=2).tanh()
    code = losses.sinkhorn(target, eps=0.05, steps=3)
    slow_code = slow_sinkhorn(target.tolist(), 0.05, 3)
    fast = losses.swapped_prediction(student, code, tau=0.1).item()
    assert fast == pytest.approx(slow_swapped(student.tolist(), slow_code, 0.1), abs=1e-10)


def test_agreeing_views_have_the_lower_loss() -> None:
    view, other = random(16, 8, seed=1).tanh(), random(16, 8, seed=2).tanh()
    code = losses.sinkhorn(view, eps=0.05, steps=3)
    same = losses.swapped_prediction(view, code, tau=0.1)
    assert same < losses.swapped_prediction(other, code, tau=0.1)


# Sentences


def test_sentence_means_are_means_of_their_tokens() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [5.0], [9.0]], [[2.0], [4.0], [7.0], [8.0]]])
    segment = torch.tensor([[0, 0, 2, -1], [1, 1, -1, -1]])
    mean, present = losses.sentence_means(tokens, segment)
    assert mean[..., 0].tolist() == [[2.0, 0.0, 5.0], [0.0, 3.0, 0.0]]
    assert present.tolist() == [[True, False, True], [False, True, False]]


def test_long_sentences_are_counted_exactly_in_low_precision() -> None:
    tokens = torch.ones(1, 700, 1, dtype=torch.bfloat16)  # bfloat16 cannot count past 256
    mean, _ = losses.sentence_means(tokens, torch.zeros(1, 700, dtype=torch.long))
    assert mean.item() == 1.0


def test_texts_without_a_sentence_have_one_absent_sentence() -> None:
    mean, present = losses.sentence_means(torch.ones(2, 3, 4), torch.full((2, 3), -1))
    assert mean.shape == (2, 1, 4)
    assert not present.any()


def test_sentence_attention_has_the_worked_value() -> None:
    query = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    key = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    weight = losses.sentence_attention(query, key)[0, 0]
    torch.testing.assert_close(weight, torch.tensor([0.7311, 0.2689]), atol=5e-5, rtol=0)


def test_places_outside_the_scan_get_no_attention() -> None:
    place = torch.tensor([[True, False, True]])
    weight = losses.sentence_attention(torch.ones(1, 2), torch.ones(1, 3, 2), place)
    assert weight[0, 0].tolist() == [0.5, 0.0, 0.5]


def test_sentence_cosines_and_their_means_have_the_worked_values() -> None:
    attention = torch.tensor([[[1.0, 0.0]]])
    value = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    cosine = losses.sentence_cosines(attention, value, torch.tensor([[1.0, 0.0]]))
    assert cosine.item() == pytest.approx(0.6)
    cosines = torch.tensor([[1.0], [3.0], [5.0]])
    assert losses.mean_by_report(cosines, torch.tensor([0, 2, 0]), 3).flatten().tolist() == [
        3,
        0,
        3,
    ]


def test_matching_scores_equal_their_slow_twin() -> None:
    query, text, row = random(5, 4, seed=1), random(5, 3, seed=2), torch.tensor([0, 2, 0, 1, 2])
    key, value = random(3, 6, 4, seed=3), random(3, 6, 3, seed=4)
    attention = losses.sentence_attention(query, key)
    fast = losses.mean_by_report(losses.sentence_cosines(attention, value, text), row, 4)
    slow = slow_match_scores(
        query.tolist(), key.tolist(), value.tolist(), text.tolist(), row.tolist(), 4
    )
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), atol=1e-10, rtol=0)
    assert fast[3].abs().max() == 0  # the fourth report has no sentence


def test_match_loss_has_the_worked_value() -> None:
    everyone = torch.ones(2, dtype=torch.bool)
    loss = losses.match_loss(EYE, tau=1.0, positive_NN=EYE.bool(), present_N=everyone)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)


def test_match_loss_of_the_present_rows_equals_the_slow_twin() -> None:
    scores, present = random(4, 4).tanh(), torch.tensor([True, False, True, True])
    same = losses.same_group(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 0]))
    fast = losses.match_loss(scores, tau=0.07, positive_NN=same, present_N=present).item()
    kept = [0, 2, 3]
    rows = [[float(scores[i, j]) / 0.07 for j in kept] for i in kept]
    columns = [list(column) for column in zip(*rows, strict=True)]
    right = [[bool(same[i, j]) for j in kept] for i in kept]
    slow = (slow_spread_cross_entropy(rows, right) + slow_spread_cross_entropy(columns, right)) / 2
    assert fast == pytest.approx(slow, abs=1e-10)


@pytest.mark.parametrize("present", [[False, False], [True, False]])
def test_fewer_than_two_reports_give_a_loss_of_zero(present: list[bool]) -> None:
    scores = random(2, 2).requires_grad_()
    loss = losses.match_loss(
        scores, tau=0.07, positive_NN=EYE.bool(), present_N=torch.tensor(present)
    )
    loss.backward()
    assert loss.item() == 0.0


def test_token_match_has_the_worked_values() -> None:
    both = torch.tensor([[0, 1]])
    loss = losses.token_match_loss(EYE[None], EYE[None], tau=1.0, positive_BM=both)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    none = torch.tensor([[-1, -1]])
    assert losses.token_match_loss(EYE[None], EYE[None], tau=1.0, positive_BM=none).item() == 0.0


def test_token_match_equals_its_slow_twin_and_leaves_the_target_alone() -> None:
    student = unit(2, 3, 4, seed=1)
    target = unit(2, 5, 4, seed=2).requires_grad_()
    positive = torch.tensor([[4, -1, 0], [2, 2, -1]])
    terms = []
    for b in range(2):
        for u in range(3):
            if positive[b, u] >= 0:
                logits = [
                    math.fsum(
                        float(x) * float(y)
                        for x, y in zip(student[b, u], target[b, p].detach(), strict=True)
                    )
                    / 0.1
                    for p in range(5)
                ]
                terms.append(-slow_log_softmax(logits)[int(positive[b, u])])
    fast = losses.token_match_loss(student, target, tau=0.1, positive_BM=positive)
    assert fast.item() == pytest.approx(math.fsum(terms) / len(terms), abs=1e-10)
    assert not fast.requires_grad


def test_a_student_that_sees_only_the_report_picks_right_once_in_the_number_of_places() -> None:
    student = unit(1, 1, 4).expand(1, 5, 4)  # the report is one for all places of a volume
    target, positive = unit(1, 5, 4, seed=1), torch.arange(5)[None]
    picked = (student @ target.transpose(1, 2)).argmax(dim=2)
    assert (picked == positive).double().mean().item() == pytest.approx(1 / 5)
    loss = losses.token_match_loss(student, target, tau=0.1, positive_BM=positive)
    assert loss.item() >= math.log(5)
