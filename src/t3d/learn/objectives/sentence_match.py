"""Every sentence looks for its place in every image; the right report must find it best.

Ours, not T3D's. Text i meets image j for all i and j, so reading the text
alone scores every image alike: nothing can leak. Legend: B studies, V views, P places, S
sentences, C features of an encoder, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from t3d.learn.losses import (
    match_loss,
    mean_by_report,
    same_group,
    sentence_attention,
    sentence_cosines,
)
from t3d.learn.pairing import places, sentences_by_study, valid_places
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceMatch:
    """Settings of the matching term.

    Source: Our choice, with weight 0.5 beside the global contrast.
    """

    kind: ClassVar[str] = "sentence_match"
    scope: ClassVar[Scope] = "batch"
    supervision: ClassVar[Supervision] = "reports"

    views: str = "crops"  # places of all views of a study are searched together
    text: str = "report"
    tau: float = 0.07

    @property
    def needs(self) -> Needs:
        """Views, the report, and which reports are the same text."""
        return Needs(views=(self.views,), texts=(self.text,), targets=("same_report",))

    def build(self, dims: Dims) -> nn.Module:
        """Make the module."""
        return SentenceMatchNet(self, dims)


class SentenceMatchNet(nn.Module):
    """Queries and meanings from sentences; keys and values from places, of the image alone."""

    def __init__(self, config: SentenceMatch, dims: Dims) -> None:
        super().__init__()
        self.config = config
        self.to_tokens = nn.Sequential(nn.Linear(dims.grid, dims.embed), nn.LayerNorm(dims.embed))
        self.query = nn.Linear(dims.text, dims.embed)
        self.key = nn.Linear(dims.embed, dims.embed, bias=False)
        # One matrix for value and output: attention weights sum to 1, so they commute.
        self.value = nn.Linear(dims.embed, dims.embed)
        self.meaning = nn.Linear(dims.text, dims.embed)

    def tokens(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, V, P, D) of the views and which are inside the scan (None = all)."""
        features = encoded.images[self.config.views]
        place_BVP = valid_places(batch.views[self.config.views], features)
        tokens: Tensor = self.to_tokens(places(features.grid))
        return tokens, place_BVP

    def sentences(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Sentences (B, S, C) of each study's report and which exist."""
        num_studies = len(encoded.images[self.config.views].grid)
        name = self.config.text
        return sentences_by_study(batch.texts[name], encoded.texts[name], num_studies)

    def attention(self, tokens_BPD: Tensor, sentence_BC: Tensor) -> Tensor:
        """Where one sentence looks in its own image, (B, P)."""
        query_BD, key_BPD = self.query(sentence_BC), self.key(tokens_BPD)
        attention_SBP = sentence_attention(query_BD, key_BPD)
        return attention_SBP.diagonal().T

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Match every report with every image of the batch.

        Returns:
            "loss" (0 when no study has a sentence), "chance" (log of the studies with one,
            exact where no two reports are the same) and "accuracy": share of reports whose
            best image is their own or one of the same text.
        """
        tokens_BVPD, place_BVP = self.tokens(batch, encoded)
        text_BSC, mask_BS = self.sentences(batch, encoded)
        scores_BB = self.scores(tokens_BVPD, text_BSC, mask_BS, place_BVP)
        group_B = batch.targets["same_report"]
        present_B, same_BB = mask_BS.any(dim=1), same_group(group_B, group_B)
        loss = match_loss(scores_BB, tau=self.config.tau, positive_NN=same_BB, present_N=present_B)
        among = scores_BB.detach().masked_fill(~present_B[None, :], -2.0)  # below any cosine
        best_B = among.argmax(dim=1)[present_B]
        right = same_BB[present_B].gather(1, best_B[:, None]).sum()
        count = present_B.sum()
        return {
            "loss": loss,
            "chance": count.clamp(min=1).float().log(),
            "accuracy": right / count.clamp(min=1),
        }

    def scores(
        self,
        tokens_BVPD: Tensor,
        text_BSC: Tensor,
        mask_BS: Tensor,
        place_BVP: Tensor | None = None,
    ) -> Tensor:
        """Score (B, B) of report i (row) against image j, in float32."""
        tokens_BPD = tokens_BVPD.flatten(1, 2)
        place_BP = None if place_BVP is None else place_BVP.flatten(1, 2)
        row_S, _ = mask_BS.nonzero(as_tuple=True)
        sentence_UC, number_S = _distinct(text_BSC[mask_BS])
        query_UD, key_BPD = self.query(sentence_UC), self.key(tokens_BPD)
        attention_UBP = sentence_attention(query_UD.float(), key_BPD.float(), place_BP)
        cosine_UB = sentence_cosines(
            attention_UBP, self.value(tokens_BPD).float(), self.meaning(sentence_UC).float()
        )
        return mean_by_report(cosine_UB[number_S], row_S, len(mask_BS))


def _distinct(sentence_SC: Tensor) -> tuple[Tensor, Tensor]:
    """Each different sentence once, and its number for every sentence.

    Reports repeat themselves, and a sentence costs a look into every image. A repeated one
    stands for all its copies, so what its gradient says reaches the same weights.
    """
    distinct, number_S = torch.unique(sentence_SC.detach(), dim=0, return_inverse=True)
    order_S = torch.arange(len(number_S), device=number_S.device)
    first_U = order_S.new_zeros(len(distinct)).scatter_reduce(
        0, number_S, order_S, reduce="amin", include_self=False
    )
    return sentence_SC[first_U], number_S
