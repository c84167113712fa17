"""Pure formulas for yes / no targets. Legend: N rows, G terms, F findings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def weighted_bce(logits_NG: Tensor, target_NG: Tensor, *, weight_G: Tensor) -> Tensor:
    """Binary cross entropy, each column with its weight, mean over rows and columns.

    Formula: (1 / (N G)) sum_ng w_g [softplus(z_ng) - y_ng z_ng].
    Check: z = [[0, 2]], y = [[1, 0]], w = [1, 0.5] -> (0.693147 + 1.063464) / 2 = 0.878306.

    Args:
        logits_NG: (..., G).
        target_NG: (..., G) in {0, 1}.
        weight_G: (G,).
    """
    per_entry = F.binary_cross_entropy_with_logits(logits_NG, target_NG, reduction="none")
    return (per_entry * weight_G).mean()


def masked_bce(logits_NF: Tensor, target_NF: Tensor) -> Tensor:
    """Binary cross entropy over stated labels; 0 (with a graph) where none is stated.

    Check: z = [[0, 5]], y = [[1, -1]] -> 0.693147.

    Args:
        logits_NF: (..., F).
        target_NF: (..., F) int64: 1, 0, or -1 = not stated.
    """
    stated = (target_NF >= 0).to(logits_NF.dtype)
    target = target_NF.clamp(min=0).to(logits_NF.dtype)
    per_entry = F.binary_cross_entropy_with_logits(logits_NF, target, reduction="none")
    return (per_entry * stated).sum() / stated.sum().clamp(min=1)
