"""What a training step costs: every stage of every recipe beside a plain CLIP step.

    python benchmarks/step.py                              # demo size
    python benchmarks/step.py --size demo --size phantom --rounds 5
    python benchmarks/step.py --size paper --keep FOLDER   # two real steps of `t3d_v3`; minutes

demo, phantom   The peer is written here: the same towers, torch's cross entropy both ways and
                AdamW, nothing around them. It steps on the whole volumes of as many studies.
                Times are medians over rounds in which all of them take turns, one thread; the
                batch is cut beforehand, what cutting costs has rows of its own. Peak memory is
                that of a process of its own, libraries and cohort included.
paper           128 x 256 x 256, ResNet-50, a text encoder of MedCPT's shape with random
                weights, batch 2, bf16, activation checkpointing, through `t3d.learn.train`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.learn.corpus import read_corpus
from t3d.learn.fitted import fit
from t3d.learn.recipe import Recipe, Stage, override
from t3d.learn.texts import text_reader
from t3d.learn.train import Plan, Report, Run, train
from t3d.learn.trained import open_grids
from t3d.learn.views import Loader
from t3d.model.encoders.hf_text import train_wordpiece
from t3d.model.encoders.resnet import fast_bf16
from t3d.model.tensors import Batch
from t3d.phantom.layouts import write_folder
from t3d.phantom.presets import DEMO, STANDARD, Preset
from t3d.recipes import recipe

Row = dict[str, object]
Step = Callable[[], object]

NAMES = ("clip", "clip_crops", "t3d_v3", "t3d_v3_match", "t3d_plus", "supervised")
PLAIN = "plain CLIP"
WARM_UP = 4  # rounds; the queue of `t3d_plus/contrast` is full after three
STUDIES = {"demo": 72, "phantom": 40}  # a batch is at most 64 and 32
PRESETS = {"demo": DEMO, "phantom": STANDARD}

PAPER_STUDIES = 3
PAPER_STEPS = 2
PAPER_BATCH = 2
PAPER_PHANTOMS = Preset(
    name="paper_size",
    slices=(64, 64),
    pixels=(128, 128),
    slice_mm=(4.4, 4.6),
    pixel_mm=(2.6, 2.7),
    large_share=0.5,
)
MEDCPT_SHAPE: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
WORDPIECES = 3000
PAPER_SETTINGS = {
    "num_steps": str(PAPER_STEPS),
    "batch_size": str(PAPER_BATCH),
    "precision": "bf16",
    "image.checkpoint_activations": "true",
    # The recipe's agreement term starts after a tenth of 8000 steps: here it must take part.
    "stages.0.terms.1.start_step": "0",
    # 512 prototypes want 128 rows; past ones make up for the small batch.
    "stages.0.terms.1.objective.queue": "62",
}


def row(
    name: str, value: float, unit: str, *, baseline: float | None = None, note: str = ""
) -> Row:
    """One line of the table; `ratio` is value / baseline."""
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 4),
        "ratio": None if not baseline else round(value / baseline, 3),
        "note": note,
    }


def memory_mb(field: str = "VmHWM") -> float:
    """This process's peak memory (VmHWM) or memory now (VmRSS) in MB.

    Not getrusage: its maximum is handed down from the process that started this one.
    """
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def cases(size: str) -> dict[str, tuple[Recipe, int]]:
    """Every stage: label -> recipe and number; a stage is named by its first objective."""
    found = {}
    for made in (recipe(name, size) for name in NAMES):
        for number, stage in enumerate(made.stages):
            kind = f"/{stage.terms[0].objective.kind}" if len(made.stages) > 1 else ""
            found[made.name + kind] = (made, number)
    return found


# ---- steps ---------------------------------------------------------------------------------


class PlainClip(nn.Module):
    """The peer: two towers, two heads, a learned scale."""

    def __init__(self, made: Recipe, num_ngrams: int) -> None:
        super().__init__()
        self.image = made.image.build().to(memory_format=torch.channels_last_3d)
        self.text = made.text.build(num_ngrams)
        self.image_head = made.image_head.build(self.image.pooled_dim)
        self.text_head = made.text_head.build(self.text.pooled_dim)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, batch: Batch) -> Tensor:
        """Cross entropy of the right report for each volume and the other way round."""
        image = self.image_head(self.image(batch.views["whole"]).pooled[:, 0])
        text = self.text_head(self.text(batch.texts["report"]).pooled)
        logits = self.log_scale.exp() * image @ text.T
        right = torch.arange(len(logits))
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def loader_of(made: Recipe, cohort: Cohort, number: int = 0) -> Loader:
    """Everything a recipe's batches need, without its model."""
    corpus = read_corpus(cohort, "train", with_reports=made.supervision == "reports")
    fitted = fit(made, cohort, corpus)
    reader = text_reader(made, fitted) if made.text is not None else None
    grids = open_grids(made, cohort, fitted)
    return Loader(
        recipe=made, stage=number, corpus=corpus, fitted=fitted, grids=grids, reader=reader
    )


def plain_step(size: str, cohort: Cohort, batch_size: int) -> Step:
    """The peer's step on the whole volumes of one batch."""
    made = override(recipe("clip", size), {"batch_size": str(batch_size)})
    batch = loader_of(made, cohort).batch(0)
    ids = batch.texts["report"].ids
    model = PlainClip(made, max(int(ids.max()) + 1, num_ngrams(made, cohort))).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        model(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def num_ngrams(made: Recipe, cohort: Cohort) -> int:
    """Words of the text tower's vocabulary."""
    vocabulary = fit(made, cohort, read_corpus(cohort, "train", with_reports=True)).vocabulary
    assert vocabulary is not None
    return len(vocabulary)


class Fixed:
    """A loader that always gives the batch it was made with."""

    def __init__(self, batch: Batch) -> None:
        self.given = batch
        self.batch_size = len(batch.study_ids)

    def batch(self, step: int) -> Batch:
        """Give the batch."""
        return self.given


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """One stage of a recipe, ready to step."""

    step: Step
    cut: Step  # cuts one more batch
    batch_size: int


def our_step(label: str, size: str, cohort: Cohort, out: Path) -> Ours:
    """A stage's step as `train` takes it, in the middle of the stage, so every term counts."""
    made, number = cases(size)[label]
    run = Run(made, cohort, out, dev=None, plan=Plan(tensorboard=False), progress=None)
    stage = made.stages[number]
    open_stage(run, stage)
    loader = loader_of(made, cohort, number)
    fixed: Any = Fixed(loader.batch(0))
    middle = stage.num_steps // 2
    steps = iter(range(1, 10**9))
    return Ours(
        step=lambda: run._take_step(fixed, stage, middle),
        cut=lambda: loader.batch(next(steps)),
        batch_size=loader.batch_size,
    )


def open_stage(run: Run, stage: Stage) -> None:
    """Let the parts of a stage learn, as the loop does when it begins one."""
    for side, module in run._sides().items():
        for param in module.parameters():
            param.requires_grad_(side in stage.trainable and param not in run.frozen)


# ---- demo and phantom size -----------------------------------------------------------------


def make_cohort(folder: Path, size: str) -> Cohort:
    """Draw and prepare a small cohort."""
    made = recipe("clip", size)
    source = folder / "source"
    write_folder(source, PRESETS[size], train=STUDIES[size], dev=0, test=0, masks=())
    prepare(Folder(source), folder / "cohort", made.preparation)
    return Cohort.open(folder / "cohort")


def take_turns(steps: Mapping[str, Step], rounds: int) -> dict[str, tuple[float, float]]:
    """Median (CPU, wall) seconds of each step over rounds in which all take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(WARM_UP + rounds):
        for name, step in steps.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    kept = {name: entries[WARM_UP:] for name, entries in times.items()}
    return {
        name: (statistics.median(c for c, _ in rows), statistics.median(w for _, w in rows))
        for name, rows in kept.items()
    }


def time_rows(size: str, cohort: Cohort, folder: Path, rounds: int) -> list[Row]:
    """Step times of every stage beside the plain step with as many studies."""
    ours = {
        label: our_step(label, size, cohort, folder / label.replace("/", "-"))
        for label in cases(size)
    }
    batches = sorted({entry.batch_size for entry in ours.values()})
    plain = {f"{PLAIN}, {n} studies": plain_step(size, cohort, n) for n in batches}
    steps = take_turns(plain | {label: entry.step for label, entry in ours.items()}, rounds)
    cuts = take_turns({label: entry.cut for label, entry in ours.items()}, rounds)
    rows = []
    for place, unit in enumerate(("CPU s", "wall s")):
        rows += [row(f"step, {name}", steps[name][place], unit) for name in plain]
        for label, entry in ours.items():
            base = steps[f"{PLAIN}, {entry.batch_size} studies"][place]
            note = f"{entry.batch_size} studies"
            rows.append(row(f"step, {label}", steps[label][place], unit, baseline=base, note=note))
    for label in ours:
        base = steps[label][0]
        note = "baseline: the stage's own step"
        rows.append(row(f"cut a batch, {label}", cuts[label][0], "CPU s", baseline=base, note=note))
    return rows


def memory_rows(size: str, cohort: Cohort, folder: Path) -> list[Row]:
    """Peak memory of each stage in a process of its own, beside the plain step's."""
    sizes = {label: batch_size_of(label, size, cohort) for label in cases(size)}
    plain = {n: alone(f"{PLAIN}/{n}", size, cohort, folder) for n in sorted(set(sizes.values()))}
    rows = [
        row(f"peak memory, {PLAIN}, {n} studies", told["peak"], "MB", note=above(told))
        for n, told in plain.items()
    ]
    for label, number in sizes.items():
        told, base = alone(label, size, cohort, folder), plain[number]["peak"]
        note = above(told)
        rows.append(row(f"peak memory, {label}", told["peak"], "MB", baseline=base, note=note))
    return rows


def above(told: Mapping[str, float]) -> str:
    """What the steps themselves took."""
    return f"{told['peak'] - told['before']:.0f} MB above the memory before the first step"


def batch_size_of(label: str, size: str, cohort: Cohort) -> int:
    """Studies of a stage's batch on this cohort."""
    made, number = cases(size)[label]
    return min(made.stages[number].batch_size, len(cohort.studies("train")))


def alone(label: str, size: str, cohort: Cohort, folder: Path) -> dict[str, float]:
    """Peak memory of some steps in a process of its own, and memory before them, MB."""
    out = folder / f"alone-{label.replace('/', '-').replace(' ', '-')}"
    command = [sys.executable, __file__, "--size", size, "--alone", label]
    command += ["--cohort", str(cohort.path), "--keep", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def step_alone(label: str, size: str, cohort: Cohort, out: Path) -> None:
    """Take some steps and write what memory they took."""
    if label.startswith(PLAIN):
        step = plain_step(size, cohort, int(label.rpartition("/")[2]))
    else:
        step = our_step(label, size, cohort, out).step
    before = memory_mb("VmRSS")
    for _ in range(WARM_UP):
        step()
    sys.stdout.write(json.dumps({"before": before, "peak": memory_mb()}))


# ---- paper size ----------------------------------------------------------------------------


def paper_cohort(folder: Path) -> Cohort:
    """Few phantoms, drawn finer than usual, on the paper's grid."""
    source = folder / "source"
    write_folder(source, PAPER_PHANTOMS, train=PAPER_STUDIES, dev=0, test=0, masks=())
    prepare(Folder(source), folder / "cohort", recipe("t3d_v3", "paper").preparation)
    return Cohort.open(folder / "cohort")


def paper_recipe(cohort: Cohort, tokenizer: Path) -> Recipe:
    """`t3d_v3` at paper size, two steps; the tokenizer is trained on the cohort's reports."""
    corpus = read_corpus(cohort, "train", with_reports=True)
    sections = ("findings", "impression")
    sentences = [text for i in range(len(corpus)) for text in corpus.sentences(i, sections)]
    tokenizer.mkdir(parents=True, exist_ok=True)
    train_wordpiece(sentences, WORDPIECES).save(str(tokenizer / "tokenizer.json"))
    made = override(recipe("t3d_v3", "paper"), PAPER_SETTINGS)
    text = replace(made.text, name_or_path=str(tokenizer), config=MEDCPT_SHAPE)
    return replace(made, text=text)


def paper_rows(keep: Path) -> list[Row]:
    """Take the steps and say what they cost; the run stays in `keep`/run."""
    torch.set_num_threads(os.cpu_count() or 1)
    cohort = paper_cohort(keep)
    made = paper_recipe(cohort, keep / "tokenizer")
    before, cpu, wall = memory_mb("VmRSS"), time.process_time(), time.perf_counter()

    def progress(report: Report) -> None:
        told = f"step {report.step}: loss {report.loss:.4f}, peak {memory_mb():.0f} MB\n"
        sys.stdout.write(told)
        sys.stdout.flush()

    plan = Plan(log_every=1, num_evaluations=1, tensorboard=False)
    train(made, cohort, keep / "run", plan=plan, progress=progress)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    lines = [json.loads(text) for text in (keep / "run" / "log.jsonl").read_text().splitlines()]
    note = f"{bf16_note()}; {torch.get_num_threads()} threads"
    rows = [
        row(f"step {line['step']}, t3d_v3 at paper size", PAPER_BATCH / line["rate"], "wall s")
        for line in lines
    ]
    rows.append(row("both steps, fitting and checkpoint", wall, "wall s", note=note))
    rows.append(row("both steps, fitting and checkpoint", cpu, "CPU s", note=note))
    told = f"{memory_mb() - before:.0f} MB above the memory before"
    rows.append(row("peak memory, t3d_v3 at paper size", memory_mb(), "MB", note=told))
    return rows


def bf16_note() -> str:
    """How this processor does bf16."""
    if fast_bf16():
        return "bf16 by the processor's instructions"
    return "no bf16 instructions: convolutions in float32, maps stored in bf16"


# ---- table ---------------------------------------------------------------------------------


def show(rows: Sequence[Row]) -> None:
    """Write the table."""
    for told in rows:
        ratio = "" if told["ratio"] is None else f"x {told['ratio']} of {told['baseline']}"
        line = f"{told['name']!s:46} {told['value']!s:>10} {told['unit']!s:6} {ratio:22}"
        sys.stdout.write(f"{line} {told['note']}\n".rstrip() + "\n")


def paper_alone(folder: Path, keep: Path) -> list[Row]:
    """Measure the paper's size in a process of its own, with pages of 2 MiB.

    Maps of gigabytes come and go all the time; in pages of 4 KiB a quarter of the time went
    into making them.
    """
    told = folder / "paper.json"
    command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), __file__]
    command += ["--size", "paper", "--alone", "paper", "--keep", str(keep), "--json", str(told)]
    subprocess.run(command, check=True, env={**os.environ, "THP_MEM_ALLOC_ENABLE": "1"})
    rows: list[Row] = json.loads(told.read_text())
    return rows


def measure(size: str, rounds: int, keep: Path | None) -> list[Row]:
    """Give every row of a size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if size == "paper":
            return paper_alone(folder, keep or folder)
        cohort = make_cohort(folder, size)
        rows = time_rows(size, cohort, folder, rounds) + memory_rows(size, cohort, folder)
        return [{**told, "name": f"{size}: {told['name']}"} for told in rows]


def main() -> None:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    sizes = ("demo", "phantom", "paper")
    parser.add_argument("--size", choices=sizes, action="append", help="default: demo")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the run at paper size")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--cohort", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.alone == "paper":
        told.json.write_text(json.dumps(paper_rows(told.keep)), encoding="utf-8")
        return
    if told.alone is not None:
        step_alone(told.alone, told.size[0], Cohort.open(told.cohort), told.keep)
        return
    rows = [row for size in told.size or ["demo"] for row in measure(size, told.rounds, told.keep)]
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
