"""Frozen features: every study, volume and text is encoded once, whatever is measured afterwards.

Kept in the cohort's cache folder, which goes with a patient who is deleted. A file serves one
checkpoint on one state of the cohort: both digests are part of its name and are compared again when
it is read, as is the digest of its numbers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.writer import CACHE_FOLDER
from t3d.types import Report

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

log = logging.getLogger(__name__)

Rows = NDArray[np.floating]
Places = list[tuple[Rows, Rows]]

_OF_COHORT = ("embed_studies", "pool_studies", "score_studies", "embed_volumes")
_OF_TEXT = ("embed_text", "embed_snippets", "embed_reports")
_OF_PLACES = "embed_volume_tokens"
_SINGLE = ("embed_volume", "embed_tokens")
_VERSION = 1  # of the files


class Still:
    """A cohort that nobody writes while it is judged: its digest is worked out once.

    Every result names the digest, and that of a large cohort takes seconds.

    Args:
        cohort: An open cohort.
    """

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        self.digest = cohort.digest

    def __getattr__(self, name: str) -> Any:
        """Everything else is the cohort's own."""
        return getattr(self._cohort, name)


class Frozen:
    """A model as tasks use it, that encodes nothing twice.

    It has those of the methods that its model has and that mean something: a recipe without a
    classifier has no `score_studies`, one without a text tower no `embed_text`.

    Args:
        model: A checkpoint, or somebody else's model.
        cohort: That it is judged on.
        digest: Of the model; "" = not known: features stay in memory only.
    """

    findings: tuple[str, ...]

    def __init__(self, model: Any, cohort: Cohort, *, digest: str = "") -> None:
        self.model, self.digest = model, digest
        self.num_encoded: dict[str, int] = {}  # method -> items the model was asked for
        self._cohort = cohort
        self._new: set[str] = set()  # methods with rows that no file has
        self._held: dict[str, dict[str, NDArray[Any]]] = {}
        able = {name for name in (*_OF_COHORT, *_OF_TEXT, _OF_PLACES) if hasattr(model, name)}
        able -= _without(model)
        self.aligned = _aligned(model)  # whether images and texts share a space
        for name in able:
            kept = self._rows if name in _OF_COHORT else self._texts
            vars(self)[name] = partial(self._places if name == _OF_PLACES else kept, name)
        for name in _SINGLE:
            if hasattr(model, name):
                vars(self)[name] = getattr(model, name)
        if "score_studies" in able:
            self.findings = tuple(model.findings)

    def __getattr__(self, name: str) -> Any:
        """Everything that is no feature is the model's own: preparation, logit scale, recipe."""
        if name in (*_OF_COHORT, *_OF_TEXT, _OF_PLACES, *_SINGLE, "findings", "model"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def save(self) -> None:
        """Keep what was encoded since it was read; without a digest, or room, nothing is kept."""
        for method in sorted(self._new) if self.digest else ():
            self._write(method)
        self._new.clear()

    def _rows(self, method: str, cohort: Cohort, names: Sequence[str]) -> Rows:
        """One row a study or volume."""
        encode = getattr(self.model, method)
        return np.stack(self._kept(method, list(names), lambda some: encode(cohort, some)))

    def _texts(self, method: str, texts: Sequence[str | Report]) -> Rows:
        """One row a text or report."""
        keys = [_key(text) for text in texts]
        of_key = dict(zip(keys, texts, strict=True))
        encode = getattr(self.model, method)
        return np.stack(self._kept(method, keys, lambda some: encode([of_key[k] for k in some])))

    def _places(self, method: str, cohort: Cohort, names: Sequence[str]) -> Places:
        """Vectors and centres of each volume's places, one array a volume: (L, D + 3)."""

        def encode(some: list[str]) -> list[NDArray[np.float64]]:
            found = self.model.embed_volume_tokens(cohort, some)
            return [np.concatenate(pair, axis=1, dtype=np.float64) for pair in found]

        held = self._kept(method, list(names), encode)
        return [(rows[:, :-3].astype(np.float32), rows[:, -3:]) for rows in held]

    def _kept(
        self, method: str, keys: list[str], encode: Callable[[list[str]], Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        """Rows of keys; those that are not there yet are encoded, all at once."""
        if method not in self._held:
            self._held[method] = self._read(method) if self.digest else {}
        held = self._held[method]
        lacking = [key for key in dict.fromkeys(keys) if key not in held]
        if lacking:
            held.update(zip(lacking, encode(lacking), strict=True))
            self._new.add(method)
            self.num_encoded[method] = self.num_encoded.get(method, 0) + len(lacking)
        return [held[key] for key in keys]

    def _path(self, method: str) -> Path:
        """Where the features of a method are kept."""
        told = f"{_VERSION} {self.digest} {self._cohort.digest} {method}"
        name = f"frozen-{hashlib.sha256(told.encode()).hexdigest()[:24]}.npz"
        return Path(self._cohort.path) / CACHE_FOLDER / name

    def _facts(self, method: str) -> dict[str, str]:
        """What a file must say of itself."""
        return {"method": method, "model": self.digest, "cohort": self._cohort.digest}

    def _read(self, method: str) -> dict[str, NDArray[Any]]:
        """What was kept; nothing where it is not whole, or not of this model and cohort."""
        path = self._path(method)
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                told = json.loads(str(file["facts"]))
                keys, sizes, rows = file["keys"], file["sizes"], file["rows"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s): encoded again", path.name, type(error).__name__)
            return {}
        if told != {**self._facts(method), "sha256": _digest(keys, sizes, rows)}:
            log.warning("%s is damaged or of another model: encoded again", path.name)
            return {}
        parts = np.split(rows, np.cumsum(sizes)[:-1])
        whole = parts if method == _OF_PLACES else list(rows)
        return dict(zip(keys.tolist(), whole, strict=True))

    def _write(self, method: str) -> None:
        """Write to a temporary name, then rename: a reader never sees half a file."""
        held, path = self._held[method], self._path(method)
        keys = np.array(list(held), dtype=str)
        values = list(held.values())
        places = method == _OF_PLACES
        sizes = np.array([len(rows) if places else 1 for rows in values])
        rows = np.concatenate(values) if places else np.stack(values)
        facts = {**self._facts(method), "sha256": _digest(keys, sizes, rows)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, facts=np.array(json.dumps(facts)), keys=keys, sizes=sizes, rows=rows)
            temporary.replace(path)
        except OSError as error:  # a cohort on a disk that is read only
            log.warning("features are not kept: %s", error.strerror)
            temporary.unlink(missing_ok=True)


def _without(model: Any) -> set[str]:
    """Methods of a checkpoint that its recipe does not fill."""
    recipe = getattr(model, "recipe", None)
    if recipe is None:
        return set()
    scored = getattr(recipe, "supervision", "") == "labels"
    lacking = set() if scored else {"score_studies"}
    return lacking | (set() if getattr(recipe, "text", None) is not None else set(_OF_TEXT))


def _aligned(model: Any) -> bool:
    """Whether a model embeds images; a supervised recipe has pooled features only."""
    return getattr(getattr(model, "model", None), "image_head", model) is not None


def _key(text: str | Report) -> str:
    """Name a text without quoting it."""
    told = text if isinstance(text, str) else json.dumps(asdict(text), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _digest(keys: NDArray[Any], sizes: NDArray[Any], rows: NDArray[Any]) -> str:
    """Digest of the numbers and of what they belong to."""
    told = hashlib.sha256("\n".join(keys.tolist()).encode())
    told.update(np.ascontiguousarray(sizes).tobytes())
    told.update(f"{rows.dtype} {rows.shape}".encode())
    told.update(np.ascontiguousarray(rows).tobytes())
    return told.hexdigest()
