"""Checkpoints: safetensors and JSON only, verified by their hashes before anything is loaded.

`RUN/best` is one line, the name of the best step's folder. In `RUN/checkpoints/step-N/` lie

- `model.safetensors`: towers, heads and objectives;
- `training.safetensors`, `training.json`: what resuming needs;
- `recipe.json`, `preparation.json`, `fitted.json`, `fitted.npz`;
- `patients.json`: keyed hashes of what the training patients are known by;
- `sha256.json`: of every other file; written last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from t3d.errors import CheckpointError
from t3d.learn import codec
from t3d.learn.domain import DomainRule
from t3d.learn.fitted import Fitted
from t3d.learn.grids import StemMaps
from t3d.learn.recipe import Recipe
from t3d.text.ngrams import NGramVocabulary
from t3d.text.terms import TermTable

HASHES = "sha256.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What resuming needs beside the model."""

    step: int
    tensors: Mapping[str, Tensor]  # optimiser moments and the random state
    numbers: Mapping[str, Any]  # best score and step, core seconds so far


def save(
    run: Path,
    *,
    recipe: Recipe,
    fitted: Fitted,
    model: Mapping[str, Tensor],
    state: State,
    people: Iterable[str],
    earlier: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any],
    write_parts: Callable[[Path], None],
) -> Path:
    """Write a checkpoint to a temporary name, sync it, then rename it.

    Args:
        run: The run's folder.
        recipe: What is being trained.
        fitted: What was fitted before the first step.
        model: Towers, heads and objectives by name.
        state: What resuming needs.
        people: What the training patients are known by (`t3d.cohort.people`); only keyed hashes
            are written.
        earlier: What `load_people` gave for the checkpoint that the run began with.
        extra: Cohort digest and other facts, written into training.json.
        write_parts: Writes files a part needs to be built again (tokenizer, configuration).

    Returns:
        RUN/checkpoints/step-N.
    """
    target = run / "checkpoints" / f"step-{state.step}"
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(model), temporary / "model.safetensors")
    save_file(_contiguous(state.tensors), temporary / "training.safetensors")
    _write(temporary / "training.json", {"step": state.step, **state.numbers, **extra})
    _write(temporary / "recipe.json", recipe.to_json())
    _write(temporary / "preparation.json", codec.to_json(recipe.preparation))
    seen = hash_people(people) | ({"earlier": list(earlier)} if earlier else {})
    _write(temporary / "patients.json", seen)
    save_fitted(fitted, temporary)
    write_parts(temporary)
    seal(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return target


def seal(folder: Path) -> None:
    """Write the hashes of all files of a checkpoint and sync everything to disk."""
    hashes = {}
    for file in sorted(folder.iterdir()):
        if file.name != HASHES:
            hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            _sync(file)
    _write(folder / HASHES, hashes)
    _sync(folder / HASHES)


def verify(folder: Path) -> None:
    """Compare every file with its hash.

    Raises:
        CheckpointError: The folder is no checkpoint, or a file is missing or changed.
    """
    path = folder / HASHES
    if not path.is_file():
        raise CheckpointError(
            f"{folder.name}: no {HASHES}, so this is no finished checkpoint",
            expected="a folder RUN/checkpoints/step-N, or RUN with a 'best' file",
        )
    for name, expected in json.loads(path.read_text()).items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise CheckpointError(
                f"{folder.name}: {name} is missing or not the file that was written",
                expected=f"sha256 {expected[:12]}...",
                fix="use another step of the run, or copy the checkpoint again",
            )


def resolve(path: Path) -> Path:
    """Turn RUN, or a step's folder, into the step's folder.

    Raises:
        CheckpointError: There is none.
    """
    if (path / HASHES).is_file():
        return path
    if (path / "best").is_file():
        return path / "checkpoints" / (path / "best").read_text().strip()
    steps = list_steps(path)
    if steps:
        return steps[-1]
    raise CheckpointError(
        f"no checkpoint in {path.name or path}",
        expected="a run's folder or RUN/checkpoints/step-N",
        fix="train one: t3d train RECIPE --cohort COHORT --out RUN",
    )


def list_steps(run: Path) -> list[Path]:
    """List a run's finished checkpoints, oldest first."""
    found = [p for p in (run / "checkpoints").glob("step-*") if (p / HASHES).is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def load_recipe(folder: Path) -> Recipe:
    """Read a checkpoint's recipe."""
    return Recipe.from_json(json.loads((folder / "recipe.json").read_text()))


def load_model(folder: Path) -> dict[str, Tensor]:
    """Read towers, heads and objectives by name."""
    return load_file(folder / "model.safetensors")


def load_facts(folder: Path) -> dict[str, Any]:
    """Read training.json: step, best score, cohort digest, precision."""
    facts: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return facts


def load_state(folder: Path) -> State:
    """Read what resuming needs."""
    numbers = load_facts(folder)
    tensors = load_file(folder / "training.safetensors")
    return State(step=numbers.pop("step"), tensors=tensors, numbers=numbers)


def save_fitted(fitted: Fitted, folder: Path) -> None:
    """Write vocabulary, terms, stem maps and domain rule."""
    data = {
        "vocabulary": fitted.vocabulary.to_json() if fitted.vocabulary else None,
        "terms": fitted.terms.to_json() if fitted.terms else None,
    }
    _write(folder / "fitted.json", data)
    arrays: dict[str, Any] = {}
    for owner, settings in (("maps", fitted.maps), ("domain", fitted.domain)):
        if settings is not None:
            names = [f.name for f in dataclasses.fields(settings)]
            arrays |= {f"{owner}.{name}": getattr(settings, name) for name in names}
    np.savez(folder / "fitted.npz", allow_pickle=False, **arrays)


def load_fitted(folder: Path) -> Fitted:
    """Read vocabulary, terms and stem maps."""
    data = json.loads((folder / "fitted.json").read_text())
    with np.load(folder / "fitted.npz", allow_pickle=False) as arrays:
        maps = _read_arrays(arrays, "maps", StemMaps)
        domain = _read_arrays(arrays, "domain", DomainRule)
    return Fitted(
        vocabulary=NGramVocabulary.from_json(data["vocabulary"]) if data["vocabulary"] else None,
        terms=TermTable.from_json(data["terms"]) if data["terms"] else None,
        maps=maps,
        domain=domain,
    )


def _read_arrays(arrays: Mapping[str, Any], owner: str, kind: type[T]) -> T | None:
    values = {
        name.removeprefix(f"{owner}."): arrays[name]
        for name in arrays
        if name.startswith(f"{owner}.")
    }
    return kind(**values) if values else None


def hash_people(people: Iterable[str]) -> dict[str, Any]:
    """Hash what people are known by, with a key of this checkpoint's own.

    Pseudonyms, not anonymity: who has a list of names can hash it and compare.
    """
    every = sorted(set(people))
    key = hashlib.sha256("\n".join(every).encode()).hexdigest()[:32]
    return {"key": key, "people": sorted(_hash(key, name) for name in every)}


def load_people(folder: Path) -> tuple[dict[str, Any], ...]:
    """Read the keyed hashes of all patients a checkpoint has seen, one entry a training.

    Raises:
        CheckpointError: It was written before people were named across cohorts.
    """
    stored = json.loads((folder / "patients.json").read_text())
    if "people" not in stored:
        raise CheckpointError(
            f"{folder.name}: its training patients are named as one cohort named them",
            expected="a checkpoint written by this version of t3d",
            fix="train again with this version",
        )
    earlier = stored.pop("earlier", [])
    return (stored, *earlier)


def seen_people(folder: Path, people: Iterable[str]) -> set[str]:
    """Say which of these a checkpoint was trained on, or the one that it began with.

    Args:
        folder: Of the checkpoint.
        people: As `t3d.cohort.people` names them.

    Raises:
        CheckpointError: It was written before people were named across cohorts.
    """
    names = set(people)
    seen: set[str] = set()
    for training in load_people(folder):
        known = set(training["people"])
        seen |= {name for name in names if _hash(training["key"], name) in known}
    return seen


def remove(folder: Path) -> None:
    """Delete a checkpoint; its hashes go first, so a half-deleted one is never loaded."""
    (folder / HASHES).unlink()
    shutil.rmtree(folder)


def write_best(run: Path, folder: Path) -> None:
    """Name the best step."""
    temporary = run / f".best.{os.getpid()}"
    temporary.write_text(folder.name + "\n")
    temporary.replace(run / "best")


def _hash(key: str, name: str) -> str:
    return hmac.new(key.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
