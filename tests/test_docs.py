"""What the documentation shows runs, and what it tells a person to type is understood."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"))
    if not {"_build", "_generated", "results"} & set(page.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```(?P<kind>[a-z]+)\n(?P<code>.*?)^```$", flags=re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, kind: str) -> list[str]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [match["code"] for match in found if match["kind"] == kind]


def commands(page: Path) -> list[list[str]]:
    """Every `t3d ...` line of a page's shell blocks, as words after `t3d`."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["t3d"]]


COMMANDS = [(name_of(page), words) for page in PAGES for words in commands(page)]
PAGES_WITH_CODE = [page for page in PAGES if blocks(page, "python")]


def test_the_pages_have_code_and_commands() -> None:
    assert len(PAGES_WITH_CODE) >= 5
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_the_python_on_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": page.stem}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{name_of(page)}, block {number}", "exec"), space)


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_command_on_a_page_is_one_that_t3d_understands(page: str, words: list[str]) -> None:
    from t3d.cli import app

    function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert callable(function)
    if not words[0].startswith("--"):
        assert function.__name__.rstrip("_") == words[0], page
        assert bound.arguments or len(words) == 1


def test_a_command_that_t3d_does_not_understand_is_seen() -> None:
    from cyclopts import CycloptsError

    from t3d.cli import app

    with pytest.raises(CycloptsError):
        app.parse_args(["prepare", "a", "b", "--no-such"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link.split("#")[0] for link in LINK.findall(prose) if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_reached_from_the_index() -> None:
    listed = set()
    for index in (DOCS / "index.md", DOCS / "reference" / "index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(), flags=re.S):
            lines = (line for line in block.splitlines() if line and not line.startswith(":"))
            listed |= {(index.parent / line).resolve() for line in lines}
    pages = {page.with_suffix("") for page in PAGES if page.is_relative_to(DOCS)}
    assert pages - listed - {DOCS / "index"} == set()


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    command = [sys.executable, str(ROOT / "tools" / "readme_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
