"""Which sentences and which places belong to which study of a batch.

Legend: N texts, B studies, V views, S sentences, C features, P places (tokens of a view).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from t3d.learn.losses import sentence_means
from t3d.model.tensors import ImageFeatures, TextBlock, TextFeatures, ViewBlock


def sentences_by_study(
    block: TextBlock, features: TextFeatures, num_studies: int
) -> tuple[Tensor, Tensor]:
    """Mean token of each sentence, one row a study.

    Args:
        block: The texts as they entered the encoder; says which text is empty and which
            study it belongs to (at most one text a study).
        features: What the encoder made of them.
        num_studies: Studies of the batch, B.

    Returns:
        (B, S, C) and (B, S) bool; a study with no text, or an empty one, has no sentence.
    """
    mean_NSC, present_NS = sentence_means(features.tokens, features.segment)
    has_words_N = (block.segment >= 0).any(dim=1)
    known_N = (block.study >= 0) & has_words_N
    row = block.study[known_N]
    text_BSC = mean_NSC.new_zeros(num_studies, *mean_NSC.shape[1:])
    mask_BS = present_NS.new_zeros(num_studies, present_NS.shape[1])
    return (
        text_BSC.index_put((row,), mean_NSC[known_N]),
        mask_BS.index_put((row,), present_NS[known_N]),
    )


def valid_places(view: ViewBlock | ImageFeatures, features: ImageFeatures) -> Tensor | None:
    """Which tokens touch the scan, (B, V, P) bool; None = all of them.

    A view that lies outside the scan altogether keeps all its places, so that an attention
    over them is never a division by zero.
    """
    if isinstance(view, ImageFeatures) or view.valid is None:
        return None
    size = features.grid.shape[3:]
    touched = F.adaptive_max_pool3d(view.valid.flatten(0, 1)[:, None].float(), size)
    place_BVP = touched.reshape(*view.valid.shape[:2], -1) > 0
    return place_BVP | ~place_BVP.any(dim=2, keepdim=True)


def places(grid: Tensor) -> Tensor:
    """Token map (B, V, C, z, y, x) as float32 places (B, V, P, C), z slowest.

    Encoders may run in bfloat16; objectives do not.
    """
    return grid.flatten(3).transpose(2, 3).to(torch.promote_types(grid.dtype, torch.float32))
