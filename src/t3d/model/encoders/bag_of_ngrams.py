"""A text tower that sees which n-grams a sentence holds. Ours; every demo-size recipe uses it.

Why not a transformer: at equal time a one-layer transformer reached bank AUROC .659 and this
tower .700 (dev, 250 phantom patients, one seed). The tested stand-in for MedCPT is `hf_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from t3d.model.tensors import TextBlock, TextFeatures
from t3d.text.ngrams import NGramVocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class BagOfNGrams:
    """Settings; 194,240 parameters with a vocabulary of 1,892 n-grams."""

    kind: ClassVar[str] = "bag_of_ngrams"

    min_share: float = 8 / 3000  # of the training reports that hold an n-gram
    width: int = 96
    dim: int = 128

    def build(self, vocabulary_size: int) -> BagOfNGramsNet:
        """Make the tower for a vocabulary."""
        return BagOfNGramsNet(self, vocabulary_size)


class BagOfNGramsNet(nn.Module):
    """Sum of n-gram embeddings, layer norm, linear; a report is the mean of its sentences."""

    def __init__(self, config: BagOfNGrams, vocabulary_size: int) -> None:
        super().__init__()
        self.pooled_dim = config.dim
        self.embedding = nn.EmbeddingBag(vocabulary_size, config.width, mode="sum")
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.dim)

    def forward(self, block: TextBlock) -> TextFeatures:
        """Encode texts; here the tokens that come out are sentences.

        Args:
            block: ids (N, L), `segment` gives each n-gram's sentence, 0 .. S - 1.

        Returns:
            pooled (N, dim), tokens (N, S, dim), mask (N, S), segment (N, S). A text with no
            known n-gram has one sentence whose sum is zero, so nothing is ever NaN.
        """
        num_texts = len(block.ids)
        num_sentences = max(int(block.segment.max()) + 1, 1) if block.segment.numel() else 1
        row = torch.arange(num_texts, device=block.ids.device)[:, None] * num_sentences
        sentence = (row + block.segment)[block.mask]
        order = torch.argsort(sentence, stable=True)
        counts = torch.bincount(sentence, minlength=num_texts * num_sentences)
        offsets = torch.cumsum(counts, 0) - counts
        sums = self.embedding(block.ids[block.mask][order], offsets)
        tokens = self.project(self.norm(sums)).unflatten(0, (num_texts, num_sentences))
        mask = (counts > 0).unflatten(0, (num_texts, num_sentences))
        mask = mask | (
            ~mask.any(1, keepdim=True) & (torch.arange(num_sentences, device=row.device) == 0)
        )
        weight = mask.to(tokens.dtype).unsqueeze(-1)
        segment = torch.where(mask, torch.arange(num_sentences, device=row.device), -1)
        return TextFeatures(
            pooled=(tokens * weight).sum(1) / weight.sum(1),
            tokens=tokens,
            mask=mask,
            segment=segment,
        )


def tokenise(texts: Sequence[Sequence[str]], vocabulary: NGramVocabulary) -> TextBlock:
    """Turn texts (each a list of sentences) into ids, padded to the longest.

    Args:
        texts: N lists of sentences; an empty list is allowed.
        vocabulary: Fitted on training reports.

    Returns:
        A TextBlock on the CPU whose `study` is 0 .. N - 1.
    """
    rows = [[vocabulary.ids(sentence) for sentence in sentences] for sentences in texts]
    longest = max([sum(map(len, row)) for row in rows] + [1])
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    segment = torch.full((len(texts), longest), -1, dtype=torch.long)
    for index, row in enumerate(rows):
        flat = [gram for sentence in row for gram in sentence]
        owner = [number for number, sentence in enumerate(row) for _ in sentence]
        ids[index, : len(flat)] = torch.tensor(flat, dtype=torch.long)
        segment[index, : len(owner)] = torch.tensor(owner, dtype=torch.long)
    return TextBlock(ids=ids, mask=segment >= 0, study=torch.arange(len(texts)), segment=segment)
