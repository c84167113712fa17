"""One table of limits: complete, without a second copy, and printed in the docs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from t3d.ct import limits as module
from t3d.ct.limits import Limit, limits

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "limits.md"
ROOMS = ("ct", "cohort", "text", "scores")


def assigned(path: Path) -> Iterator[tuple[str, object]]:
    """Every constant of a module with its value, where the value is plain arithmetic."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            code = compile(ast.Expression(node.value), str(path), "eval")
            if not code.co_names:
                yield node.targets[0].id, eval(code, {})


def row(limit: Limit) -> str:
    """One line of the table in the documentation."""
    value = f"{limit.value:,}".replace(",", " ")
    return f"| `{limit.name}` | {value} {limit.unit} | {limit.why} |"


def test_every_constant_is_in_the_table_once_and_with_a_reason() -> None:
    constants = {name: value for name, value in vars(module).items() if name.isupper()}
    constants.pop("_LIMITS")
    listed = limits()
    assert {limit.name: limit.value for limit in listed} == constants
    assert len({limit.name for limit in listed}) == len(listed)
    assert all(limit.unit and limit.why and limit.group and limit.value > 0 for limit in listed)


def test_no_other_module_holds_a_limit_of_its_own() -> None:
    known = {limit.name for limit in limits()}
    copies = {
        f"{path.name}: {name} = {value}"
        for room in ROOMS
        for path in (ROOT / "src" / "t3d" / room).rglob("*.py")
        for name, value in assigned(path)
        if name.lstrip("_") in known and path.name != "limits.py"
    }
    assert copies == set()


def test_a_copy_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("_MAX_VOXELS = 2 ** 28\nOTHER = [1]\nX = len('a')\n")
    assert dict(assigned(tmp_path / "m.py")) == {"_MAX_VOXELS": 2**28, "OTHER": [1]}


@pytest.mark.parametrize("group", sorted({limit.group for limit in limits()}))
def test_the_page_prints_the_table(group: str) -> None:
    page = PAGE.read_text("utf-8")
    section = page.split(f"\n## {group[0].upper()}{group[1:]}\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    assert found == [row(limit) for limit in limits() if limit.group == group]


def test_reading_the_limits_loads_nothing_heavy() -> None:
    code = (
        "import sys, t3d.ct.limits; print(sorted({'numpy', 'torch', 'nibabel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
