"""Sphinx settings. `make docs` builds with warnings as errors."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

import t3d

project = "t3d"
author = "The t3d contributors"
project_copyright = "The t3d contributors, Apache-2.0"
version = release = t3d.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "results/*"]
html_theme = "furo"
html_title = "t3d"

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source", "Formula", "Check", "Legend", "Cost"]
default_role = "code"  # our docstrings put code into single backticks
suppress_warnings = ["ref.python"]  # short annotations: two rooms may use one class name

ROOMS = {
    "api": ("The top", ("api", "cli", "conformance")),
    "show": ("show: figures and pages", ("show",)),
    "judge": ("judge: tasks and protocols", ("judge",)),
    "recipes": ("recipes: named trainings", ("recipes",)),
    "learn": ("learn: views, losses, the loop", ("learn",)),
    "model": ("model: tensors, encoders, heads", ("model",)),
    "cohort": ("cohort: studies on disk", ("cohort",)),
    "phantom": ("phantom: synthetic patients", ("phantom",)),
    "ct": ("ct: files to HU with geometry", ("ct",)),
    "text": ("text: reports", ("text",)),
    "scores": ("scores: metrics and intervals", ("scores",)),
    "types": ("types and errors", ("types", "errors")),
}


def modules_of(parts: tuple[str, ...]) -> list[str]:
    """Name every module of some rooms, in the order of the tree."""
    package = HERE.parent / "src" / "t3d"
    found = []
    for part in parts:
        files = [package / f"{part}.py"] if (package / f"{part}.py").is_file() else []
        files += sorted((package / part).rglob("*.py")) if (package / part).is_dir() else []
        for file in files:
            names = file.relative_to(package.parent).with_suffix("").parts
            found.append(".".join(name for name in names if name != "__init__"))
    return found


def write_reference(app: Sphinx) -> None:
    """Write one page per room with every module in it, so that none can be forgotten."""
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    for name, (title, parts) in ROOMS.items():
        lines = [f"# {title}", ""]
        for module in modules_of(parts):
            lines += [f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}"]
            lines += ["   :members:", "   :show-inheritance:", "```", ""]
        text = "\n".join(lines)
        page = folder / f"{name}.md"
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


# Shape suffixes (`x_`), absolute values (|r|) and stars are notation in our docstrings, not markup.
_MARKUP = re.compile(r"(?<=\w)_(?=[\s,.;:)\]]|$)|\*+(?=\w)|\|")


def keep_drawings(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Show an indented block that stands by itself as it is: a tree, a formula, a command."""
    if what == "module":  # a drawing at its end would be taken for the margin and lose its indent
        paragraphs = (getattr(obj, "__doc__", None) or "").split("\n\n")
        drawn = [re.search(r"^[|`]-", text, flags=re.M) for text in paragraphs]
        indented = [
            textwrap.indent(t, "    ") if d else t for t, d in zip(paragraphs, drawn, strict=True)
        ]
        lines[:] = "\n\n".join(indented).splitlines()
    for number in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:number]) if line.strip()), "")
        starts = lines[number].startswith(" ") and not lines[number - 1].strip()
        if starts and not above.startswith(" "):
            lines[number:number] = ["::", ""]


def escape_notation(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep what is notation in a docstring from being read as reStructuredText."""
    drawing = False
    for number, line in enumerate(lines):
        drawing = line == "::" or (drawing and (not line.strip() or line.startswith(" ")))
        if drawing:
            continue
        pieces = re.split(r"(`+[^`]*`+)", line)
        pieces[::2] = [_MARKUP.sub(lambda hit: "\\" + hit.group(0), piece) for piece in pieces[::2]]
        lines[number] = "".join(pieces)


def setup(app: Sphinx) -> None:
    """Connect the steps above: drawings before napoleon reads the sections, notation after it."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", keep_drawings, priority=400)
    app.connect("autodoc-process-docstring", escape_notation, priority=600)
