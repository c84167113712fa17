"""Batches: every one a function of (seed, stage, step, study), so a run resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t3d.learn.corpus import Corpus
from t3d.learn.fitted import Fitted
from t3d.learn.grids import Grids
from t3d.learn.order import Order
from t3d.learn.parts import NUM_UNIFORM
from t3d.learn.recipe import Augment, Recipe, Stage, TextPlan, View
from t3d.learn.texts import TextReader
from t3d.model.tensors import Batch, TextBlock, ViewBlock
from t3d.types import Zyx

BOX_TRIES = 10  # draws of a box that must hold enough body; the last one is taken as it is
STUDY = 2  # stream of random numbers; those of order.py are others


class Loader:
    """Cuts the batches of one stage."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        stage: int,
        corpus: Corpus,
        fitted: Fitted,
        grids: Grids,
        reader: TextReader | None,
        augmented: bool = True,
    ) -> None:
        self.recipe = recipe
        self.augment = recipe.augment if augmented else Augment()
        self.text_plan = recipe.text_plan if augmented else replace(recipe.text_plan, drop=0.0)
        self.number = stage
        self.stage: Stage = recipe.stages[stage]
        self.corpus = corpus
        self.grids = grids
        self.reader = reader
        self.batch_size = min(self.stage.batch_size, len(corpus))
        self.order = Order(
            corpus.members,
            recipe.members,
            batch_size=self.batch_size,
            seed=recipe.seed,
            stage=stage,
        )
        needs = self.stage.needs
        self.term_targets = _term_targets(fitted, corpus) if "terms" in needs.targets else None

    def batch(self, step: int) -> Batch:
        """Cut the batch of a step of the stage, counted from 0."""
        return self.batch_of(self.order.rows(step), step)

    def batch_of(self, rows: NDArray[np.int64], step: int) -> Batch:
        """Cut a batch of given rows of the corpus; `step` picks the random numbers."""
        streams = [
            np.random.default_rng([self.recipe.seed, STUDY, self.number, step, int(row)])
            for row in rows
        ]
        views = {view.name: self._cut(view, rows, streams) for view in self.stage.views}
        needs = self.stage.needs
        texts = {name: self._texts(name, rows, streams) for name in needs.texts}
        targets = {name: self._target(name, rows, streams) for name in needs.targets}
        ids = tuple(self.corpus.study_ids[row] for row in rows)
        return Batch(views=views, texts=texts, targets=targets, study_ids=ids)

    def _cut(
        self, view: View, rows: NDArray[np.int64], streams: Sequence[np.random.Generator]
    ) -> ViewBlock:
        volumes = [self.corpus.volume_ids[row] for row in rows]
        boxes = [
            [draw_box(view, self.grids, volume, rng) for _ in range(view.count)]
            for volume, rng in zip(volumes, streams, strict=True)
        ]
        cut = [
            np.stack([augment(self.grids.read(volume, *box), self.augment, rng) for box in several])
            for volume, several, rng in zip(volumes, boxes, streams, strict=True)
        ]
        return view_block(np.stack(cut), boxes, volumes, self.grids)

    def _texts(
        self, name: str, rows: NDArray[np.int64], streams: Sequence[np.random.Generator]
    ) -> TextBlock:
        plan = self.text_plan
        assert self.reader is not None
        texts = []
        for row, rng in zip(rows, streams, strict=True):
            of_report = self.corpus.sections[row] or plan.sections
            sections = of_report if name == "report" else (name,)
            parts = [
                keep_some(getattr(self.corpus, section)[row], plan, rng)
                if section in sections
                else ()
                for section in ("findings", "impression")
            ]
            texts.append((parts[0], parts[1]))
        return self.reader(texts)

    def _target(
        self, name: str, rows: NDArray[np.int64], streams: Sequence[np.random.Generator]
    ) -> Tensor:
        if name == "labels":
            return torch.from_numpy(self.corpus.labels[rows])
        if name == "same_report":
            return torch.from_numpy(self.corpus.same_report[rows])
        if name == "uniform":
            drawn = np.stack([rng.random(NUM_UNIFORM, dtype=np.float32) for rng in streams])
            return torch.from_numpy(drawn)
        assert name == "terms", name
        assert self.term_targets is not None
        return torch.from_numpy(self.term_targets[rows].astype(np.float32))


def whole(volume_ids: Sequence[str], grids: Grids) -> ViewBlock:
    """Give whole grids of several volumes, one view each, without augmentation."""
    box = (Zyx(z=0, y=0, x=0), grids.full_vox)
    cut = np.stack([grids.read(volume_id, *box)[None] for volume_id in volume_ids])
    return view_block(cut, [[box]] * len(volume_ids), volume_ids, grids)


def view_block(
    voxels: NDArray[np.float32],
    boxes: Sequence[Sequence[tuple[Zyx[int], Zyx[int]]]],
    volume_ids: Sequence[str],
    grids: Grids,
) -> ViewBlock:
    """Put (B, V, W, z, y, x) values and their boxes into a ViewBlock."""
    edges_mm = [
        [grids.box_mm(volume, *box) for box in several]
        for volume, several in zip(volume_ids, boxes, strict=True)
    ]
    return ViewBlock(
        voxels=torch.from_numpy(voxels),
        valid=None,
        box_mm=torch.from_numpy(np.array(edges_mm, dtype=np.float32)),
        box_vox=torch.tensor(boxes, dtype=torch.long),
        full_vox=grids.full_vox,
    )


def draw_box(
    view: View, grids: Grids, volume_id: str, rng: np.random.Generator
) -> tuple[Zyx[int], Zyx[int]]:
    """Draw a box's low and high cell; uniform over all places where it fits."""
    full = grids.full_vox
    if view.size is None:
        return Zyx(z=0, y=0, x=0), full
    size = Zyx(*(min(s, n) for s, n in zip(view.size, full, strict=True)))
    for _ in range(BOX_TRIES):
        low = Zyx(*(int(rng.integers(n - s + 1)) for s, n in zip(size, full, strict=True)))
        high = Zyx(*(a + s for a, s in zip(low, size, strict=True)))
        if view.min_body == 0.0 or grids.body_share(volume_id, low, high) >= view.min_body:
            break
    return low, high


def augment(
    values: NDArray[np.float32], plan: Augment, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Change intensities, channel by channel; (channels, z, y, x) in and out."""
    shape = (len(values), 1, 1, 1)
    if plan.gamma:
        values = np.clip(values, 0.0, 1.0) ** np.exp(rng.uniform(-plan.gamma, plan.gamma))
    if plan.gain or plan.offset:
        gain = rng.uniform(1 - plan.gain, 1 + plan.gain, shape).astype(np.float32)
        offset = rng.uniform(-plan.offset, plan.offset, shape).astype(np.float32)
        values = values * gain + offset
    if plan.noise:
        values = values + rng.normal(0.0, plan.noise, values.shape).astype(np.float32)
    return values.astype(np.float32)


def keep_some(
    sentences: Sequence[str], plan: TextPlan, rng: np.random.Generator
) -> tuple[str, ...]:
    """Leave out up to `plan.drop` of the sentences, at least one stays; shuffle the rest."""
    if not sentences:
        return ()
    num_kept = len(sentences) - int(rng.uniform(0.0, plan.drop) * len(sentences))
    order = rng.permutation(len(sentences))[: max(num_kept, 1)]
    chosen = order if plan.shuffle else np.sort(order)
    return tuple(sentences[i] for i in chosen)


def _term_targets(fitted: Fitted, corpus: Corpus) -> NDArray[np.uint8]:
    table = fitted.terms
    assert table is not None
    both = ("findings", "impression")
    return np.stack([table.targets(corpus.sentences(i, both)) for i in range(len(corpus))])
