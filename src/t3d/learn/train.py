"""The training loop: stages, term schedules, checkpoints, the best one chosen on dev.

A run is a function of (recipe, cohort). Resumed from a checkpoint it continues
bit-identically on a CPU: batches depend on the step alone, and optimiser, queue and random
state are in the checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t3d.cohort.people import people
from t3d.cohort.store import Cohort
from t3d.errors import RecipeError
from t3d.learn import checkpoint
from t3d.learn.build import build_model, build_objectives, objective_name
from t3d.learn.checkpoint import State
from t3d.learn.corpus import Corpus, members_of, read_corpus
from t3d.learn.fitted import Fitted, fit
from t3d.learn.optim import load_state_tensors, make_optimiser, set_rates, state_tensors
from t3d.learn.parts import StepAware
from t3d.learn.precision import pick_device, resolve_precision
from t3d.learn.recipe import Recipe, Stage, check
from t3d.learn.shares import labelled_studies
from t3d.learn.start import Start, open_start
from t3d.learn.texts import text_reader
from t3d.learn.trained import Trained, check_preparation, open_grids
from t3d.learn.views import Loader
from t3d.model.encoders.hf_text import HFTextNet, ReportReader
from t3d.model.encoders.resnet import fast_bf16
from t3d.model.tensors import Batch, Encoded, to_device
from t3d.text.findings import CT_RATE_18

log = logging.getLogger(__name__)

SELECT = "select"  # the dev score that chooses the best checkpoint; higher is better
DevScore = Callable[[Trained], Mapping[str, float]]
Progress = Callable[["Report"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run is watched; nothing here changes what is learnt."""

    log_every: int = 10  # steps
    num_evaluations: int = 4  # dev scores over the run, evenly; the last step is always one
    keep_last: int = 2  # checkpoints kept beside the best
    tensorboard: bool = True
    stop_after: int | None = None  # steps; to cut a run short as a kill would


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a person sees while a run goes on."""

    step: int
    num_steps: int
    loss: float
    rate: float  # studies per second
    eta_s: float
    gauges: Mapping[str, float] = field(default_factory=dict)


def train(
    recipe: Recipe,
    cohort: Cohort,
    out: Path,
    *,
    init: Path | None = None,
    dev: DevScore | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe on a cohort's train split; continue where a run in `out` stopped.

    Args:
        recipe: What to train.
        cohort: Holds the recipe's preparation, and the members it names.
        out: The run's folder.
        init: The checkpoint that the recipe's `init` names; not needed to continue a run.
        dev: Scores a model on the dev split; its entry "select" chooses the best
            checkpoint. None = the last step is the best.
        plan: How the run is watched.
        progress: Called every few steps.

    Returns:
        The best checkpoint's folder.

    Raises:
        RecipeError: The recipe cannot run on this cohort, `out` holds a run of another recipe or
            cohort, or nothing can be learnt.
        CheckpointError: The checkpoint to resume from is damaged.
    """
    run = Run(recipe, cohort, out, init=init, dev=dev, plan=plan or Plan(), progress=progress)
    run.resume()
    run.go()
    return checkpoint.resolve(out)


class Run:
    """The state of one training."""

    def __init__(
        self,
        recipe: Recipe,
        cohort: Cohort,
        out: Path,
        *,
        init: Path | None,
        dev: DevScore | None,
        plan: Plan,
        progress: Progress | None,
    ) -> None:
        self.recipe, self.cohort, self.out = recipe, cohort, out
        self.dev, self.plan, self.progress = dev, plan, progress
        check(recipe, cohort=cohort.path.name, members=members_of(cohort))
        out.mkdir(parents=True, exist_ok=True)
        steps = checkpoint.list_steps(out)
        self.last = steps[-1] if steps else None
        self._check_same()
        shuffle = recipe.seed if recipe.shuffle_reports else None
        reports = recipe.supervision == "reports"
        self.corpus: Corpus = read_corpus(
            cohort,
            "train",
            with_reports=reports,
            members=recipe.members,
            only=self._labelled(),
            shuffle_seed=shuffle,
        )
        start = open_start(recipe, init) if self.last is None else None
        self.earlier = self._earlier(start)
        self.fitted: Fitted = self._fitted(start)
        self.model = build_model(recipe, self.fitted, self.last)
        if start is not None:
            start.load_into(self.model)
        self.objectives = build_objectives(recipe, self.model, self.fitted)
        self.device = pick_device()
        self.model.to(self.device)
        self.objectives.to(self.device)
        parts = self._sides().values()
        self.frozen = {p for part in parts for p in part.parameters() if not p.requires_grad}
        by_layer = any(stage.optim.layer_decay < 1 for stage in recipe.stages)
        self.optimiser = make_optimiser(self._sides(), recipe.stages[0].optim, by_layer=by_layer)
        self.precision = resolve_precision(recipe.precision)
        self.grids = open_grids(recipe, cohort, self.fitted)
        self.reader = text_reader(recipe, self.fitted) if recipe.text is not None else None
        self.step = 0
        self.stops = self._stops()
        self.best: tuple[float, int] | None = None
        self.core_seconds = 0.0
        self.writer = _writer(out) if plan.tensorboard else None
        torch.manual_seed(recipe.seed)

    def _labelled(self) -> tuple[str, ...] | None:
        """Studies of the share of patients whose labels are read; None = all."""
        told = self.recipe.labels
        if told.share == 1:
            return None
        found = labelled_studies(self.cohort, CT_RATE_18, share=told.share, seed=told.seed)
        log.info("labels of %d patients, %d for rare findings", found.num_patients, found.num_added)
        return found.study_ids

    def _earlier(self, start: Start | None) -> tuple[dict[str, Any], ...]:
        """Whom the encoder had seen before this run."""
        if start is not None:
            return start.people
        begun = self.last if self.recipe.init else None
        return () if begun is None else checkpoint.load_people(begun)[1:]

    def _fitted(self, start: Start | None) -> Fitted:
        if self.last is None:
            check_preparation(self.recipe.preparation, self.cohort)
            maps = None if start is None else start.maps
            return fit(self.recipe, self.cohort, self.corpus, maps=maps)
        return checkpoint.load_fitted(self.last)

    def _stops(self) -> set[int]:
        """Steps with a dev score; those of early stopping are the recipe's own."""
        early, total = self.recipe.early_stop, self.recipe.num_steps
        if early is None:
            return evaluation_steps(total, self.plan.num_evaluations)
        if self.dev is None:
            raise RecipeError(
                f"recipe '{self.recipe.name}' stops early, and nothing scores it on dev",
                expected="a cohort with a dev split, or a recipe without early_stop",
                fix="prepare dev patients, or --set early_stop=null",
            )
        return {*range(early.every, total, early.every), total}

    def _sides(self) -> dict[str, nn.Module]:
        image = [m for m in (self.model.image, self.model.image_head) if m is not None]
        text = [m for m in (self.model.text, self.model.text_head) if m is not None]
        sides: dict[str, nn.Module] = {"image": nn.ModuleList(image)}
        if text:
            sides["text"] = nn.ModuleList(text)
        return sides | {"objectives": self.objectives}

    def _check_same(self) -> None:
        """Refuse a folder with another run, before a model is built from what it holds."""
        if self.last is None:
            return
        checkpoint.verify(self.last)
        before = checkpoint.load_recipe(self.last)
        cohort = checkpoint.load_facts(self.last)["cohort"]
        if before.digest != self.recipe.digest or cohort != self.cohort.digest:
            raise RecipeError(
                f"{self.out.name} holds '{before.name}' with another recipe or cohort",
                expected="the same recipe and cohort, to continue it",
                fix="give another --out",
            )

    def resume(self) -> None:
        """Load the newest checkpoint of the run's folder, if there is one."""
        if self.last is None:
            (self.out / "recipe.json").write_text(json.dumps(self.recipe.to_json(), indent=1))
            return
        state = checkpoint.load_state(self.last)
        tensors = checkpoint.load_model(self.last)
        self._module().load_state_dict(tensors)
        load_state_tensors(self.optimiser, state.tensors)
        torch.set_rng_state(state.tensors["rng"])
        self.step = state.step
        self.core_seconds = state.numbers["core_seconds"]
        best = state.numbers["best"]
        self.best = (best[0], best[1]) if best else None
        _cut_log(self.out / "log.jsonl", self.step)
        log.info("continuing at step %d of %d", self.step, self.recipe.num_steps)

    def _module(self) -> nn.Module:
        return nn.ModuleDict({"model": self.model, "objectives": self.objectives})

    def go(self) -> None:
        """Take the steps that are left."""
        stops, first = self.stops, 0
        for number, stage in enumerate(self.recipe.stages):
            last = first + stage.num_steps
            if self.step < last:
                self._stage(number, stage, first, stops)
            if self._stopped():
                return
            first = last

    def _stopped(self) -> bool:
        if self.plan.stop_after is not None and self.step >= self.plan.stop_after:
            return True
        return (
            self.recipe.early_stop is not None and self._waited() >= self.recipe.early_stop.patience
        )

    def _waited(self) -> int:
        """Dev scores since the best one; told by what a checkpoint keeps, so it resumes."""
        best = self.best[1] if self.best else 0
        return sum(best < stop <= self.step for stop in self.stops)

    def _stage(self, number: int, stage: Stage, first: int, stops: set[int]) -> None:
        loader = Loader(
            recipe=self.recipe,
            stage=number,
            corpus=self.corpus,
            fitted=self.fitted,
            grids=self.grids,
            reader=self.reader,
        )
        for side, module in self._sides().items():
            for param in module.parameters():
                param.requires_grad_(side in stage.trainable and param not in self.frozen)
        while self.step < first + stage.num_steps and not self._stopped():
            wall, cpu = time.perf_counter(), time.process_time()
            gauges = self._take_step(loader, stage, self.step - first)
            self.core_seconds += time.process_time() - cpu
            self.step += 1
            studies = loader.batch_size * stage.optim.accumulate
            self._note(number, gauges, studies / (time.perf_counter() - wall))
            if self.step in stops:
                self._evaluate()

    def _take_step(self, loader: Loader, stage: Stage, local: int) -> dict[str, float]:
        """Take one optimiser step; give losses and gauges."""
        for side, module in self._sides().items():  # a frozen batch norm must not follow the batch
            module.train(side in stage.trainable)
        rate = set_rates(self.optimiser, stage.optim, local, stage.num_steps)
        for term in stage.terms:
            module = self.objectives[objective_name(term.objective)]
            if isinstance(module, StepAware):
                module.before_step(local, stage.num_steps)
        self.optimiser.zero_grad(set_to_none=True)
        gauges: dict[str, float] = {"lr": rate}
        for part in range(stage.optim.accumulate):
            number = local * stage.optim.accumulate + part
            batch = to_device(loader.batch(number), self.device)
            loss = self._loss(batch, stage, local, gauges)
            (loss / stage.optim.accumulate).backward()
        params = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(params, stage.optim.clip_norm)
        gauges["grad_norm"] = float(norm)
        if not torch.isfinite(norm):
            raise RecipeError(
                f"step {self.step}: the gradient is not finite (losses {gauges})",
                fix="lower optim.lr, or set precision to fp32; earlier checkpoints are intact",
            )
        self.optimiser.step()
        return gauges

    def _loss(self, batch: Batch, stage: Stage, local: int, gauges: dict[str, float]) -> Tensor:
        encoded = self._encode(batch, stage)
        total = torch.zeros((), device=self.device)
        for term in stage.terms:
            given = self.objectives[objective_name(term.objective)](batch, encoded)
            weight = term.weight_at(local)
            if weight:
                total = total + weight * given["loss"]
            for name, value in given.items():
                gauges[f"{term.objective.kind}.{name}"] = float(value.detach())
        gauges["loss"] = float(total.detach())
        return total

    def _encode(self, batch: Batch, stage: Stage) -> Encoded:
        """Encode in the run's precision; text in float32 where bf16 products are emulated."""
        needs, device = stage.needs, self.device.type
        bf16 = self.precision == "bf16"
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            images = self.model(batch, needs.views, ()).images
        with torch.autocast(device, torch.bfloat16, enabled=bf16 and fast_bf16(device)):
            texts = self.model(batch, (), needs.texts).texts
        return Encoded(images=images, texts=texts)

    def _note(self, stage: int, gauges: Mapping[str, float], rate: float) -> None:
        if self.step % self.plan.log_every and self.step != self.recipe.num_steps:
            return
        terms = {k.removesuffix(".loss"): v for k, v in gauges.items() if k.endswith(".loss")}
        others = {k: v for k, v in gauges.items() if not k.endswith("loss") and k != "lr"}
        line = {"step": self.step, "stage": stage, "loss": gauges["loss"], "terms": terms}
        self._append({**line, "gauges": others, "lr": gauges["lr"], "rate": rate})
        for name, value in gauges.items():
            self._scalar(f"train/{name}", value)
        if self.progress is not None:
            left = self.recipe.num_steps - self.step
            batch = self.recipe.stages[stage].batch_size
            self.progress(
                Report(
                    step=self.step,
                    num_steps=self.recipe.num_steps,
                    loss=gauges["loss"],
                    rate=rate,
                    eta_s=left * batch / max(rate, 1e-9),
                    gauges=others,
                )
            )

    def _evaluate(self) -> None:
        """Score on dev, write a checkpoint, keep the best."""
        self.model.eval()
        self.objectives.eval()
        trained = Trained(
            recipe=self.recipe, fitted=self.fitted, model=self.model, objectives=self.objectives
        )
        scores = dict(self.dev(trained)) if self.dev is not None else {}
        if scores:
            self._append({"step": self.step, "dev": scores, "core_seconds": self.core_seconds})
            for name, value in scores.items():
                self._scalar(f"dev/{name}", value)
        score = scores.get(SELECT, float(self.step))
        better = self._is_better(score)
        if better:
            self.best = (score, self.step)
        folder = self._save()
        if self.writer is not None:
            self.writer.flush()  # the run may end here
        if better:
            checkpoint.write_best(self.out, folder)
        self._drop_old()

    def _is_better(self, score: float) -> bool:
        """Compare a dev score with the best; an equal one is none where patience is counted."""
        if self.best is None or math.isnan(self.best[0]):
            return True
        best = self.best[0]
        return score >= best if self.recipe.early_stop is None else score > best

    def _save(self) -> Path:
        numbers: dict[str, Any] = {"best": self.best, "core_seconds": self.core_seconds}
        tensors = {**state_tensors(self.optimiser), "rng": torch.get_rng_state()}
        return checkpoint.save(
            self.out,
            recipe=self.recipe,
            fitted=self.fitted,
            model=self._module().state_dict(),
            state=State(step=self.step, tensors=tensors, numbers=numbers),
            people=self._people,
            earlier=self.earlier,
            extra={"cohort": self.cohort.digest, "precision": self.precision},
            write_parts=self._write_parts,
        )

    @cached_property
    def _people(self) -> set[str]:
        """The training patients as any cohort may know them; the cohort is asked once a run."""
        known = people(self.cohort, "train")
        return {name for study_id in self.corpus.study_ids for name in known[study_id]}

    def _write_parts(self, folder: Path) -> None:
        if isinstance(self.model.text, HFTextNet):
            self.model.text.save_config(folder)
        if isinstance(self.reader, ReportReader):
            self.reader.save(folder)

    def _drop_old(self) -> None:
        steps = checkpoint.list_steps(self.out)
        best = checkpoint.resolve(self.out).name
        for folder in steps[: -self.plan.keep_last]:
            if folder.name != best:
                checkpoint.remove(folder)

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _scalar(self, name: str, value: float) -> None:
        if self.writer is not None:
            self.writer.add_scalar(name, value, self.step)


def evaluation_steps(num_steps: int, count: int) -> set[int]:
    """Spread `count` evaluations evenly; the last step is always one. Check: 10, 4: 2 5 8 10."""
    return {round(num_steps * (i + 1) / max(count, 1)) for i in range(max(count, 1))} - {0}


def _writer(out: Path) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(out / "tensorboard"))


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines after a step: they are written again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in lines))
