"""Small batches with a text table that stands for a text encoder, for tests of objectives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from t3d.learn.parts import Dims
from t3d.model.tensors import (
    Batch,
    Encoded,
    ImageFeatures,
    TextBlock,
    TextFeatures,
    ViewBlock,
)
from t3d.types import Zyx

DIMS = Dims(image=6, grid=6, text=5, embed=16)
WORDS = 50
TOKENS_PER_SENTENCE = 2


def text_block(sentences: list[list[int]]) -> TextBlock:
    """Each sentence is one number; a token is that number, given twice."""
    longest = max([len(row) for row in sentences] + [1]) * TOKENS_PER_SENTENCE
    ids = torch.zeros(len(sentences), longest, dtype=torch.long)
    segment = torch.full((len(sentences), longest), -1)
    for number, row in enumerate(sentences):
        for s, word in enumerate(row):
            span = slice(s * TOKENS_PER_SENTENCE, (s + 1) * TOKENS_PER_SENTENCE)
            ids[number, span], segment[number, span] = word, s
    study = torch.arange(len(sentences))
    return TextBlock(ids=ids, mask=segment >= 0, study=study, segment=segment)


def encode_text(block: TextBlock, table: nn.Embedding) -> TextFeatures:
    """Look tokens up."""
    tokens = table(block.ids)
    weight = block.mask[..., None].float()
    pooled = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
    return TextFeatures(pooled=pooled, tokens=tokens, mask=block.mask, segment=block.segment)


def toy(
    sentences: list[list[int]],
    *,
    views: int = 2,
    size: tuple[int, int, int] = (2, 2, 3),
    seed: int = 0,
    uniform: Tensor | None = None,
) -> tuple[Batch, Encoded, nn.Embedding]:
    """Random images and the given reports; nothing of a report shows in its image."""
    gen = torch.Generator().manual_seed(seed)
    num = len(sentences)
    grid = torch.randn(num, views, DIMS.grid, *size, generator=gen)
    low = torch.rand(num, views, 1, 3, generator=gen) * 20
    view = ViewBlock(
        voxels=torch.zeros(num, views, 1, 2, 2, 2),
        valid=None,
        box_mm=torch.cat([low, low + 30], dim=2),
        box_vox=torch.zeros(num, views, 2, 3, dtype=torch.long),
        full_vox=Zyx(z=8, y=8, x=8),
    )
    block = text_block(sentences)
    table = nn.Embedding(WORDS, DIMS.text)
    with torch.no_grad():
        table.weight.copy_(torch.randn(WORDS, DIMS.text, generator=gen))
    drawn = torch.rand(num, 8, generator=gen) if uniform is None else uniform
    batch = Batch(
        views={"crops": view},
        texts={"report": block},
        targets={"uniform": drawn, "same_report": torch.arange(num)},
        study_ids=tuple(f"s{i}" for i in range(num)),
    )
    pooled = grid.flatten(3).mean(3)
    images = {"crops": ImageFeatures(pooled=pooled, grid=grid)}
    return batch, Encoded(images=images, texts={"report": encode_text(block, table)}), table


def permuted(batch: Batch, encoded: Encoded, order: Tensor) -> tuple[Batch, Encoded]:
    """The same studies in another order."""
    view, features = batch.views["crops"], encoded.images["crops"]
    assert isinstance(view, ViewBlock)
    block, text = batch.texts["report"], encoded.texts["report"]
    moved = replace(view, voxels=view.voxels[order], box_mm=view.box_mm[order])
    return (
        replace(
            batch,
            views={"crops": moved},
            texts={
                "report": replace(
                    block,
                    ids=block.ids[order],
                    mask=block.mask[order],
                    segment=block.segment[order],
                )
            },
            targets={name: value[order] for name, value in batch.targets.items()},
        ),
        Encoded(
            images={
                "crops": replace(features, pooled=features.pooled[order], grid=features.grid[order])
            },
            texts={
                "report": replace(
                    text,
                    pooled=text.pooled[order],
                    tokens=text.tokens[order],
                    mask=text.mask[order],
                    segment=text.segment[order],
                )
            },
        ),
    )
