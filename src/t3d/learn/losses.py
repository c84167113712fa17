"""Pure formulas: tensors in, tensors out, no parameters and no state.

Legend: N, M rows of two sides, C features, B studies of a batch, K prototypes, L tokens of a
text, S sentences, V views, P places (tokens of an image).

Each formula has a slow twin in `tests/learn/test_losses.py` and a number that can be checked
by hand. Sums run over all ranks where the docstring says so.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def contrast_one_way(
    query_NC: Tensor, key_MC: Tensor, *, scale: Tensor | float, positive_NM: Tensor
) -> Tensor:
    """Cross entropy of picking each query's positives among all keys, mean over queries.

    Formula: -(1/N) sum_i (1/|P_i|) sum_{j in P_i} log softmax_j(scale <q_i, k_j>).
    A query with no positive is skipped; with no query left the result is 0, never NaN.
    Check: q = k = [[1,0],[0,1]], scale 1, P = identity -> 0.313262.

    Args:
        query_NC: (N, C), unit length.
        key_MC: (M, C), unit length; M >= N when past batches are kept in a queue.
        scale: Inverse temperature.
        positive_NM: (N, M) bool, True where key j is a right answer for query i.

    Source: InfoNCE, arXiv:1807.03748; several positives: target mass spread evenly
        (our choice).
    """
    return spread_cross_entropy(scale * (query_NC @ key_MC.T), positive_NM)


def spread_cross_entropy(logits_NM: Tensor, positive_NM: Tensor) -> Tensor:
    """Cross entropy against a target that spreads its mass evenly over a row's positives.

    Rows without a positive are skipped; no row left gives 0 with a graph.
    Check: logits [[0, 0]], both positive -> log 2 = 0.693147.
    """
    target_NM = positive_NM.to(logits_NM.dtype)
    count_N = target_NM.sum(dim=1)
    log_prob_NM = F.log_softmax(logits_NM, dim=1)
    per_row_N = -(target_NM * log_prob_NM).sum(dim=1) / count_N.clamp(min=1)
    return per_row_N.sum() / (count_N > 0).sum().clamp(min=1)


def info_nce(x_NC: Tensor, y_NC: Tensor, *, scale: Tensor | float) -> Tensor:
    """Contrast of N pairs, mean of both directions; row i of one side belongs to row i.

    Formula: (CE(scale x y', i) + CE(scale y x', i)) / 2.
    Check: x = y = [[1,0],[0,1]]: scale 1 -> 0.313262; scale 0 -> log 2 = 0.693147.
    Source: CLIP, arXiv:2103.00020; InfoNCE, arXiv:1807.03748.
    """
    row_N = torch.arange(len(x_NC), device=x_NC.device)
    return info_nce_multi_positive(x_NC, y_NC, scale=scale, group_N=row_N)


def info_nce_multi_positive(
    x_NC: Tensor, y_NC: Tensor, *, scale: Tensor | float, group_N: Tensor
) -> Tensor:
    """Contrast of N pairs where rows of one group are all right answers for each other.

    Formula: `info_nce` with the target mass of row i spread evenly over {j: g_j = g_i}.
    Check: x = y = I (2 x 2), one group, scale 1 -> 0.813262 (0.313262 + 1/2).

    Args:
        x_NC: (N, C), unit length.
        y_NC: (N, C), unit length.
        scale: Inverse temperature.
        group_N: (N,) int64, equal = the same normalised report.

    Source: Our choice.
    """
    same_NN = same_group(group_N, group_N)
    one_way = contrast_one_way(x_NC, y_NC, scale=scale, positive_NM=same_NN)
    return (one_way + contrast_one_way(y_NC, x_NC, scale=scale, positive_NM=same_NN)) / 2


def same_group(row_N: Tensor, column_M: Tensor) -> Tensor:
    """(N, M) bool, True where a row's and a column's group ids are equal."""
    return row_N[:, None] == column_M[None, :]


@torch.no_grad()
def sinkhorn(scores_BK: Tensor, *, eps: float, steps: int) -> Tensor:
    """Codes that use all prototypes equally: each row sums to 1, each column to B / K.

    Works in log space and at least float32, so no exponential can overflow. Sums run over
    the rows of all ranks when torch.distributed is initialised; no gradient.

    Formula: M = exp(scores' / eps); repeat `steps` times: rows (prototypes) to 1/K, columns
    (samples) to 1/B; q = B M'.
    Check: [[.9,.1],[.8,.2],[.7,.3]], eps .05, 3 steps -> [[.9820,.0180],[.5,.5],[.0180,.9820]].

    Args:
        scores_BK: (B, K) cosines of this rank's samples and the prototypes; B may differ
            between ranks, but not be 0 on all.
        eps: Sharpness; smaller = harder codes.
        steps: Rounds of normalisation.

    Returns:
        (B, K), float32 (float64 for float64 scores).

    Source: SwAV, arXiv:2006.09882; rows first, columns last: our choice.
    """
    dtype = torch.promote_types(scores_BK.dtype, torch.float32)
    log_BK = scores_BK.to(dtype) / eps
    log_num_K = torch.tensor(log_BK.shape[1], dtype=dtype, device=log_BK.device).log()
    for _ in range(steps):
        log_BK = log_BK - _log_sum_exp_over_ranks(log_BK) - log_num_K
        log_BK = log_BK - log_BK.logsumexp(dim=1, keepdim=True)  # 1/B and the final B cancel
    return log_BK.exp()


def _log_sum_exp_over_ranks(log_BK: Tensor) -> Tensor:
    """log sum_b exp over this and every other rank's rows, (1, K)."""
    if not (dist.is_available() and dist.is_initialized()):
        return log_BK.logsumexp(dim=0, keepdim=True)
    floor_1K = log_BK.new_full((1, log_BK.shape[1]), torch.finfo(log_BK.dtype).min)
    top_1K = torch.cat([log_BK, floor_1K]).amax(dim=0, keepdim=True)
    dist.all_reduce(top_1K, op=dist.ReduceOp.MAX)
    sum_1K = (log_BK - top_1K).exp().sum(dim=0, keepdim=True)
    dist.all_reduce(sum_1K, op=dist.ReduceOp.SUM)
    return top_1K + sum_1K.log()


def swapped_prediction(scores_BK: Tensor, code_BK: Tensor, *, tau: float) -> Tensor:
    """Cross entropy of one view's prototype probabilities against another view's code.

    Formula: (1/B) sum_b -sum_k q_bk log softmax_k(scores_bk / tau), q without gradient.
    Check: scores [[.9,.1],[.8,.2],[.7,.3]], their own Sinkhorn code, tau .1 -> 2.3643;
    uniform scores -> log K.

    Args:
        scores_BK: (B, K) cosines of the student's samples and the prototypes.
        code_BK: (B, K) rows that sum to 1, from `sinkhorn`.
        tau: Temperature of the student.

    Source: SwAV, arXiv:2006.09882.
    """
    log_prob_BK = F.log_softmax(scores_BK.to(code_BK.dtype) / tau, dim=1)
    return -(code_BK.detach() * log_prob_BK).sum(dim=1).mean()


def sentence_means(tokens_NLC: Tensor, segment_NL: Tensor) -> tuple[Tensor, Tensor]:
    """Mean token of each sentence.

    Args:
        tokens_NLC: (N, L, C) token features.
        segment_NL: (N, L) int64 sentence of each token, -1 = none.

    Returns:
        (N, S, C) means in at least float32, 0 where there is no such sentence, and (N, S) bool,
        True = present; S is the largest sentence number + 1 and at least 1.
    """
    num = max(int(segment_NL.max()) + 1, 1) if segment_NL.numel() else 1
    dtype = torch.promote_types(tokens_NLC.dtype, torch.float32)  # bfloat16 counts to 256 only
    one_hot_NLS = F.one_hot(segment_NL + 1, num + 1)[..., 1:].to(dtype)
    count_NS = one_hot_NLS.sum(dim=1)
    sum_NSC = one_hot_NLS.transpose(1, 2) @ tokens_NLC.to(dtype)
    return sum_NSC / count_NS.clamp(min=1)[..., None], count_NS > 0


def sentence_attention(query_SC: Tensor, key_BPC: Tensor, place_BP: Tensor | None = None) -> Tensor:
    """Where each sentence looks in each image: softmax_p(<q_s, k_bp> / sqrt(C)), (S, B, P).

    Check: C = 4, q = (2,0,0,0), keys (1,0,0,0) and 0 -> softmax(1, 0) = (.7311, .2689).

    Args:
        query_SC: (S, C) one query a sentence.
        key_BPC: (B, P, C) one key a place.
        place_BP: (B, P) bool, True = inside the scan; each row has at least one.
    """
    logits_SBP: Tensor = torch.einsum("sc,bpc->sbp", query_SC, key_BPC)
    logits_SBP = logits_SBP / query_SC.shape[1] ** 0.5
    if place_BP is not None:
        logits_SBP = logits_SBP.masked_fill(~place_BP, float("-inf"))
    return logits_SBP.softmax(dim=2)


def sentence_cosines(attention_SBP: Tensor, value_BPC: Tensor, text_SC: Tensor) -> Tensor:
    """How well each sentence finds what it says in each image, (S, B).

    Formula: cos(sum_p a_sbp v_bp, t_s).
    Check: attention (1, 0), values (3,4) and (0,1), text (1,0) -> 0.6.

    Args:
        attention_SBP: (S, B, P) from `sentence_attention`.
        value_BPC: (B, P, C) what each place holds, from the image alone.
        text_SC: (S, C) what each sentence says.

    Source: Ours, not T3D's.
    """
    found_SBC = torch.einsum("sbp,bpc->sbc", attention_SBP, value_BPC)
    return F.cosine_similarity(found_SBC, text_SC[:, None], dim=2, eps=1e-8)


def mean_by_report(cosine_SB: Tensor, row_S: Tensor, num_rows: int) -> Tensor:
    """Mean over the sentences of each report, (N, B); 0 for a report without a sentence.

    Check: cosines (1, 3, 5), reports (0, 2, 0), N = 3 -> (3, 0, 3).

    Args:
        cosine_SB: (S, B) from `sentence_cosines`.
        row_S: (S,) int64 report of each sentence.
        num_rows: Number of reports N.
    """
    sum_NB = cosine_SB.new_zeros(num_rows, cosine_SB.shape[1]).index_add(0, row_S, cosine_SB)
    return sum_NB / torch.bincount(row_S, minlength=num_rows).clamp(min=1)[:, None]


def match_loss(scores_NN: Tensor, *, tau: float, positive_NN: Tensor, present_N: Tensor) -> Tensor:
    """Both directions of matching reports (rows) to images (columns), absent rows skipped.

    Formula: (CE_j(S_i. / tau) + CE_i(S_.j / tau)) / 2 over the present rows and columns.
    Check: S = [[1,0],[0,1]], tau 1, identity -> 0.313262.

    Args:
        scores_NN: (N, N), report i against image j of the same studies.
        tau: Temperature.
        positive_NN: (N, N) bool, True where report i also describes image j.
        present_N: (N,) bool, False = the report has no sentence.

    Returns:
        A scalar; 0 (with a graph) when no row is present.

    Source: Ours, not T3D's.
    """
    logits_NN = scores_NN[present_N][:, present_N] / tau
    right_NN = positive_NN[present_N][:, present_N]
    by_text = spread_cross_entropy(logits_NN, right_NN)
    return (by_text + spread_cross_entropy(logits_NN.T, right_NN.T)) / 2


def token_match_loss(
    student_BMC: Tensor, target_BPC: Tensor, *, tau: float, positive_BM: Tensor
) -> Tensor:
    """Each token of one view picks its place among all tokens of another view of its study.

    Formula: mean over (b, u) with positive_bu >= 0 of CE(student_bu . target_b / tau, positive_bu).
    Check: B = 1, student = target = I (2 x 2), tau 1, positive (0, 1) -> 0.313262; all -1 -> 0.

    Args:
        student_BMC: (B, M, C), unit length.
        target_BPC: (B, P, C), unit length; no gradient flows into it.
        tau: Temperature.
        positive_BM: (B, M) int64 index into the study's target, -1 = token has no partner.

    Source: Ours, not T3D's.
    """
    logits_BMP = student_BMC @ target_BPC.detach().transpose(1, 2) / tau
    index_P = torch.arange(target_BPC.shape[1], device=positive_BM.device)
    right_BMP = positive_BM[..., None] == index_P
    return spread_cross_entropy(logits_BMP.flatten(0, 1), right_BMP.flatten(0, 1))
