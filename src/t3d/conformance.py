"""Public checks for people who add a part: call one in your own tests.

    from t3d.conformance import check_objective
    check_objective(MyLoss())

Each raises ConformanceError with every promise that the part breaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from t3d.errors import T3DError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from t3d.cohort.listing import Source
    from t3d.learn.parts import Objective
    from t3d.learn.recipe import Recipe
    from t3d.model.tensors import Batch, Encoded, TextBlock, ViewBlock

NUM_STUDIES = 6
EMBED = 16
CLOSE = 1e-4


class ConformanceError(T3DError):
    """A part breaks a promise of its kind."""


@dataclass(slots=True)
class _Promises:
    """Collects what is broken."""

    part: str
    broken: list[str]

    def want(self, held: bool, promise: str) -> bool:
        """Note a promise that does not hold."""
        if not held:
            self.broken.append(promise)
        return held

    def settle(self) -> None:
        """Raise if anything is broken."""
        if self.broken:
            listed = "".join(f"\n  - {promise}" for promise in self.broken)
            raise ConformanceError(
                f"{self.part} breaks {len(self.broken)} promises:{listed}",
                expected="docs: reference, 'Adding a part'",
            )


def check_source(source: Source) -> None:
    """A source lists studies without opening voxels, twice the same, with unique ids."""
    promises = _Promises(type(source).__name__, [])
    first, second = list(source.studies()), list(source.studies())
    promises.want(first == second, "two listings are equal")
    ids = [study.study_id for study in first]
    promises.want(len(set(ids)) == len(ids), "study ids are unique")
    series = [entry.series_id for study in first for entry in study.series]
    promises.want(len(set(series)) == len(series), "series ids are unique")
    promises.want(all(study.patient_id for study in first), "every study has a patient")
    splits = {study.patient_id: set[str]() for study in first}
    for study in first:
        splits[study.patient_id].add(study.split)
    promises.want(all(len(s) == 1 for s in splits.values()), "no patient is in two splits")
    values = {value for study in first for value in study.labels.values()}
    promises.want(values <= {0, 1, None}, "labels are 0, 1 or None")
    promises.want(bool(source.terms), "terms say licence and citation")
    promises.settle()


def check_encoder(config: Any, block: ViewBlock | TextBlock, *build_args: Any) -> None:
    """An encoder's module keeps its declared sizes and treats rows alone as in a batch.

    Args:
        config: Settings of the encoder.
        block: Input of at least two rows.
        build_args: What `build` needs (a vocabulary's size).
    """
    import torch

    promises = _Promises(str(getattr(config, "kind", type(config).__name__)), [])
    promises.want(_is_frozen(config), "settings are a frozen dataclass with a kind")
    torch.manual_seed(0)
    module: nn.Module = config.build(*build_args)
    features = module.eval()(block)
    pooled = features.pooled
    promises.want(pooled.shape[-1] == module.pooled_dim, "pooled has pooled_dim channels")
    if hasattr(features, "grid"):
        promises.want(features.grid.shape[2] == module.grid_dim, "grid has grid_dim channels")
    promises.want(bool(torch.isfinite(pooled).all()), "features are finite")
    alone = module(_row(block, 0)).pooled
    same = torch.allclose(alone[0], pooled[0], atol=CLOSE)
    promises.want(same, "a row alone gives what it gives in a batch (evaluation mode)")
    _check_gradients(promises, module, module.train()(block))
    promises.settle()


def check_objective(config: Objective, *, embed: int = EMBED) -> None:
    """An objective is finite, does not care for the order of studies, and says what it needs.

    Args:
        config: Settings of the objective.
        embed: Width of the shared space it is tried with.
    """
    import torch

    promises = _Promises(config.kind, [])
    promises.want(_is_frozen(config), "settings are a frozen dataclass with a kind")
    promises.want(config.supervision in ("reports", "labels", "none"), "supervision is declared")
    promises.want(config.scope in ("study", "batch"), "scope is declared")
    torch.manual_seed(0)
    batch, encoded = example(config, embed=embed, seed=0)
    module: nn.Module = config.build(example_dims(embed)).eval()
    given = module(batch, encoded)
    if promises.want("loss" in given, "forward gives 'loss'"):
        loss = given["loss"]
        promises.want(loss.ndim == 0, "the loss is a scalar")
        promises.want(bool(torch.isfinite(loss)), "the loss is finite")
        promises.want(loss.requires_grad, "the loss has a gradient")
        order = torch.arange(NUM_STUDIES).flip(0)
        moved = module(*permuted(batch, encoded, order))["loss"]
        same = torch.allclose(moved, loss, atol=CLOSE)
        promises.want(same, "permuting the studies changes nothing")
        lone = torch.tensor([0])
        single = module(*permuted(batch, encoded, lone))["loss"]
        promises.want(bool(torch.isfinite(single)), "a batch of one study is finite")
    promises.settle()


def check_recipe(recipe: Recipe) -> None:
    """A recipe survives JSON, keeps its digest and names where its fields come from."""
    from t3d.learn.recipe import Recipe as Kind

    promises = _Promises(recipe.name, [])
    back = Kind.from_json(recipe.to_json())
    promises.want(back == recipe, "JSON and back gives the same recipe")
    promises.want(back.digest == recipe.digest, "the digest survives JSON")
    promises.want("fields" in recipe.source, "source says how many fields came from it")
    promises.want(recipe.preparation.size_vox is not None, "the preparation has a size")
    promises.settle()


def check_task(run: Any, oracle: Any, blind: Any, cohort: Any, protocol: Any, **more: Any) -> None:
    """A task gives an oracle its ceiling, a blind model its chance, and is repeatable.

    Args:
        run: `run(model, cohort, protocol, **more) -> Result`.
        oracle: A model that knows the truth.
        blind: A model that gives every study the same.
        cohort: Small.
        protocol: Rules.
        more: Further arguments of the task.
    """
    promises = _Promises(run.__module__.rpartition(".")[2], [])
    best, again = run(oracle, cohort, protocol, **more), run(oracle, cohort, protocol, **more)
    # as text, because NaN is not equal to itself
    promises.want(repr(best.metrics) == repr(again.metrics), "two runs give the same numbers")
    blank = {metric.name: metric for metric in run(blind, cohort, protocol, **more).metrics}
    for metric in best.metrics:
        if metric.chance == metric.chance and metric.ceiling == metric.ceiling:
            near = abs(metric.value - metric.ceiling) < CLOSE
            promises.want(near, f"{metric.name}: the oracle reaches the ceiling")
            near = abs(blank[metric.name].value - metric.chance) < CLOSE
            promises.want(near, f"{metric.name}: a blind model gets chance")
    promises.settle()


def check_model(
    model: Any, volume: Any, texts: Sequence[str] = ("No finding.", "A nodule.")
) -> None:
    """A foreign model has a preparation and embeds volumes and texts in one space."""
    import numpy as np

    promises = _Promises(type(model).__name__, [])
    promises.want(hasattr(model, "preparation"), "it has a preparation")
    image = np.asarray(model.embed_volume(volume))
    text = np.asarray(model.embed_text(list(texts)))
    promises.want(image.ndim == 1, "embed_volume gives (D,)")
    promises.want(text.shape == (len(texts), len(image)), "embed_text gives (N, D), the same D")
    finite = bool(np.isfinite(image).all() and np.isfinite(text).all())
    promises.want(finite, "embeddings are finite")
    if hasattr(model, "embed_tokens"):
        tokens, centres_mm = model.embed_tokens(volume)
        promises.want(np.shape(tokens)[0] == np.shape(centres_mm)[0], "a centre for every token")
        promises.want(np.shape(centres_mm)[1] == 3, "centres are (z, y, x) in mm")
    promises.settle()


def example_dims(embed: int = EMBED) -> Any:
    """Sizes that `example` is made with."""
    from t3d.learn.parts import Dims
    from t3d.text.terms import TermTable

    terms = TermTable.fit(
        [("a nodule",), ("no nodule",), ("a nodule", "clear lungs"), ("clear lungs",)],
        [(), (), (), ()],
        min_reports=2,
        max_share=0.9,
        weighted=False,
        seed=0,
    )
    return Dims(image=12, grid=10, text=14, embed=embed, findings=18, terms=terms)


def example(config: Objective, *, embed: int = EMBED, seed: int = 0) -> tuple[Batch, Encoded]:
    """Make a small random batch, already encoded, that holds what an objective needs."""
    import torch

    from t3d.model.tensors import Batch, Encoded

    rng = torch.Generator().manual_seed(seed)
    needs = config.needs
    views = {name: _example_view(rng) for name in needs.views}
    images = {name: _example_images(rng, embed) for name in needs.views}
    blocks = {name: _example_text() for name in needs.texts}
    texts = {name: _example_texts(rng, embed) for name in needs.texts}
    targets = {
        "labels": torch.randint(-1, 2, (NUM_STUDIES, 18), generator=rng),
        "terms": torch.randint(
            0, 2, (NUM_STUDIES, len(example_dims().terms)), generator=rng
        ).float(),
        "same_report": torch.arange(NUM_STUDIES),
        "uniform": torch.rand(NUM_STUDIES, 8, generator=rng),
    }
    chosen = {name: targets[name] for name in needs.targets}
    ids = tuple(f"s{i}" for i in range(NUM_STUDIES))
    batch = Batch(views=views, texts=blocks, targets=chosen, study_ids=ids)
    return batch, Encoded(images=images, texts=texts)


def permuted(batch: Batch, encoded: Encoded, order: Tensor) -> tuple[Batch, Encoded]:
    """Take the studies in another order; fewer are allowed."""
    from dataclasses import replace

    moved = replace(
        batch,
        views={name: _rows(block, order) for name, block in batch.views.items()},
        texts={
            name: replace(_rows(block, order), study=_new_rows(order))
            for name, block in batch.texts.items()
        },
        targets={name: target[order] for name, target in batch.targets.items()},
        study_ids=tuple(batch.study_ids[i] for i in order.tolist()),
    )
    images = {name: _rows(features, order) for name, features in encoded.images.items()}
    texts = {name: _rows(features, order) for name, features in encoded.texts.items()}
    return moved, replace(encoded, images=images, texts=texts)


def _example_view(rng: Any) -> ViewBlock:
    import torch

    from t3d.model.tensors import ViewBlock
    from t3d.types import Zyx

    low = torch.zeros(NUM_STUDIES, 2, 3, dtype=torch.long)
    box = torch.stack([low, low + 4], dim=2)
    return ViewBlock(
        voxels=torch.rand(NUM_STUDIES, 2, 1, 4, 4, 4, generator=rng),
        valid=None,
        box_mm=box.float() * 10.0,
        box_vox=box,
        full_vox=Zyx(z=8, y=8, x=8),
    )


def _example_images(rng: Any, embed: int) -> Any:
    import torch
    import torch.nn.functional as F

    from t3d.model.tensors import ImageFeatures

    def unit(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    return ImageFeatures(
        pooled=unit(NUM_STUDIES, 2, 12).requires_grad_(),
        grid=unit(NUM_STUDIES, 2, 10, 2, 2, 2).requires_grad_(),
        embed=F.normalize(unit(NUM_STUDIES, 2, embed), dim=-1).requires_grad_(),
    )


def _example_text() -> TextBlock:
    import torch

    from t3d.model.tensors import TextBlock

    segment = torch.arange(3).expand(NUM_STUDIES, 3).clone()
    return TextBlock(
        ids=segment + 5, mask=segment >= 0, study=torch.arange(NUM_STUDIES), segment=segment
    )


def _example_texts(rng: Any, embed: int) -> Any:
    import torch
    import torch.nn.functional as F

    from t3d.model.tensors import TextFeatures

    block = _example_text()
    return TextFeatures(
        pooled=torch.randn(NUM_STUDIES, 14, generator=rng).requires_grad_(),
        tokens=torch.randn(NUM_STUDIES, 3, 14, generator=rng).requires_grad_(),
        mask=block.mask,
        segment=block.segment,
        embed=F.normalize(torch.randn(NUM_STUDIES, embed, generator=rng), dim=-1).requires_grad_(),
    )


def _rows(block: Any, order: Tensor) -> Any:
    """Take rows of every tensor of a dataclass."""
    from dataclasses import replace

    import torch

    changed = {
        f.name: getattr(block, f.name)[order]
        for f in fields(block)
        if isinstance(getattr(block, f.name), torch.Tensor)
    }
    return replace(block, **changed)


def _new_rows(order: Tensor) -> Tensor:
    import torch

    return torch.arange(len(order))


def _row(block: Any, index: int) -> Any:
    import torch

    from t3d.model.tensors import TextBlock

    taken = _rows(block, torch.tensor([index]))
    if isinstance(block, TextBlock):
        from dataclasses import replace

        return replace(taken, study=torch.tensor([0]))
    return taken


def _is_frozen(config: Any) -> bool:
    if not is_dataclass(config) or not isinstance(getattr(config, "kind", None), str):
        return False
    params = getattr(type(config), "__dataclass_params__", None)
    return bool(params is not None and params.frozen)


def _check_gradients(promises: _Promises, module: nn.Module, features: Any) -> None:
    """Every parameter that is trained reaches the pooled features or the token map."""
    total = features.pooled.float().square().mean()
    for name in ("grid", "tokens"):
        if hasattr(features, name):
            total = total + getattr(features, name).float().square().mean()
    total.backward()
    idle = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    promises.want(not idle, f"every parameter gets a gradient (none: {', '.join(idle)})")
