"""Settings to JSON and back: frozen dataclasses, triples and parts named by their `kind`.

Problems are collected with the path of the field, so a person sees all of them at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from t3d.types import Zyx

Parts = Mapping[str, type]  # kind -> settings class


def to_json(value: Any) -> Any:
    """Turn settings into what `json.dumps` takes; parts get their "kind" first."""
    if isinstance(value, Zyx):
        return {"z": value.z, "y": value.y, "x": value.x}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        body = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = getattr(value, "kind", None)
        return {"kind": kind, **body} if kind is not None else body
    if isinstance(value, tuple | list):
        return [to_json(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    return value


def digest(value: Any) -> str:
    """Give the sha256 of settings as canonical JSON, 64 hexadecimal digits."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """Say which known name is meant, "" if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; nearest: '{found[0]}'" if found else ""


class Reader:
    """Reads JSON into settings and keeps a list of what was wrong."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.problems: list[str] = []

    def read(self, hint: Any, data: Any, path: str) -> Any:
        """Read one value of a declared type; on a problem note it and give the data back."""
        origin = get_origin(hint)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(get_args(hint)[1], data, path)
        if isinstance(data, Mapping) and "kind" in data:
            return self._part(data, path)
        if origin in (Union, types.UnionType):
            return self._optional(hint, data, path)
        if hint is Zyx or origin is Zyx:
            return self._triple(hint, data, path)
        if origin is tuple:
            return self._tuple(get_args(hint), data, path)
        if origin is Literal:
            return self._choice(get_args(hint), data, path)
        if dataclasses.is_dataclass(hint):
            return self.settings(hint, data, path)
        return self._scalar(hint, data, path)

    def settings(self, kind: Any, data: Any, path: str) -> Any:
        """Read a dataclass; unknown and missing fields are problems."""
        if not isinstance(data, Mapping):
            self.problems.append(f"{path}: found {data!r}, expected the fields of {kind.__name__}")
            return data
        hints = get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        for name in data:
            if name not in fields and name != "kind":
                self.problems.append(
                    f"{path}.{name}: unknown field{nearest(name, fields)}".lstrip(".")
                )
        values = {
            name: self.read(hints[name], data[name], f"{path}.{name}".lstrip("."))
            for name in fields
            if name in data
        }
        before = len(self.problems)
        missing = [
            name
            for name, f in fields.items()
            if name not in values
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        ]
        self.problems += [f"{path}.{name}: missing".lstrip(".") for name in missing]
        return kind(**values) if len(self.problems) == before else data

    def _part(self, data: Mapping[str, Any], path: str) -> Any:
        kind = data["kind"]
        found = self.parts.get(kind) or foreign_part(kind)
        if found is None:
            self.problems.append(
                f"{path}.kind: unknown part '{kind}'{nearest(str(kind), dict(self.parts))}"
            )
            return data
        return self.settings(found, data, path)

    def _optional(self, hint: Any, data: Any, path: str) -> Any:
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        return None if data is None else self.read(choices[0], data, path)

    def _mapping(self, hint: Any, data: Any, path: str) -> Any:
        if not isinstance(data, Mapping):
            self.problems.append(f"{path}: found {data!r}, expected entries by name")
            return data
        return {key: self.read(hint, entry, f"{path}.{key}") for key, entry in data.items()}

    def _triple(self, hint: Any, data: Any, path: str) -> Any:
        if not isinstance(data, Mapping) or set(data) != {"z", "y", "x"}:
            self.problems.append(f"{path}: found {data!r}, expected {{z, y, x}}")
            return data
        inner = (get_args(hint) or (float,))[0]
        return Zyx(**{axis: self._scalar(inner, data[axis], f"{path}.{axis}") for axis in "zyx"})

    def _tuple(self, hints: tuple[Any, ...], data: Any, path: str) -> Any:
        if not isinstance(data, list | tuple):
            self.problems.append(f"{path}: found {data!r}, expected a list")
            return data
        if len(hints) == 2 and hints[1] is Ellipsis:
            hints = (hints[0],) * len(data)
        if len(hints) != len(data):
            self.problems.append(f"{path}: found {len(data)} entries, expected {len(hints)}")
            return data
        return tuple(
            self.read(hint, entry, f"{path}.{index}")
            for index, (hint, entry) in enumerate(zip(hints, data, strict=True))
        )

    def _choice(self, choices: tuple[Any, ...], data: Any, path: str) -> Any:
        if data not in choices:
            self.problems.append(f"{path}: found {data!r}, expected one of {choices}")
        return data

    def _scalar(self, hint: Any, data: Any, path: str) -> Any:
        if hint is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        if hint in (int, float, str, bool) and type(data) is not hint:
            self.problems.append(f"{path}: found {data!r}, expected {hint.__name__}")
        return data


def foreign_part(kind: Any) -> type | None:
    """Find a part that lies in somebody else's file: kind = "path/to/file.py:ClassName"."""
    if not isinstance(kind, str) or ":" not in kind:
        return None
    found = load_attribute(kind)
    return found if isinstance(found, type) else None


def load_attribute(where: str) -> Any:
    """Load `name` from "file.py:name"; None where file or name are absent."""
    file, _, name = where.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        return None
    module_name = f"t3d_foreign_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        loader.exec_module(module)
    return getattr(module, name, None)
