"""The rules of the house, held by a test each. CONTRIBUTING.md says why they are there."""

from __future__ import annotations

import ast
import importlib
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "t3d"

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60  # docstring not counted; 40 is usual
MAX_POSITIONAL = 6
BANNED_NAMES = {"utils", "util", "common", "helpers", "base", "manager", "factory"}
ROOMS_WITHOUT_TORCH = ("ct", "text", "scores", "cohort", "phantom")
TORCH_NAMES = {"torch", "monai", "transformers"}
PART_FOLDERS = (
    "cohort/sources",
    "model/encoders",
    "learn/objectives",
    "judge/tasks",
    "judge/protocols",
    "recipes",
)
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


# ---- reading the tree ----------------------------------------------------------------------


@cache
def source_files() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that is tracked or would be: what a clone or a reader sees."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: no list of tracked files")
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def place(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{path.relative_to(ROOT)}{line}"


def functions_of(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def docstring_lines(function: Function) -> int:
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def length_of(function: Function) -> int:
    """Lines from `def` to the end, decorators and docstring not counted."""
    return (
        (function.end_lineno or function.lineno) - function.lineno + 1 - docstring_lines(function)
    )


def positional_of(function: Function, *, method: bool) -> int:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (method and names[:1] in (["self"], ["cls"]))


def all_positional(tree: ast.AST) -> Iterator[tuple[Function, int]]:
    methods = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for inner in node.body
    }
    for function in functions_of(tree):
        yield function, positional_of(function, method=id(function) in methods)


def absolute_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node, node.module


# ---- limits --------------------------------------------------------------------------------


def test_no_source_file_is_longer_than_the_limit() -> None:
    lengths = {place(p): len(p.read_text(encoding="utf-8").splitlines()) for p in source_files()}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    long = {
        f"{place(path, function)} {function.name}": length_of(function)
        for path in source_files()
        for function in functions_of(tree_of(path))
        if length_of(function) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_the_length_of_a_function_leaves_the_docstring_out() -> None:
    code = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    b = a\n    return b\n'
    assert length_of(next(functions_of(ast.parse(code)))) == 9 - 4


def test_no_function_takes_too_many_positional_arguments() -> None:
    wide = {
        f"{place(path, function)} {function.name}": count
        for path in source_files()
        for function, count in all_positional(tree_of(path))
        if count > MAX_POSITIONAL
    }
    assert wide == {}


def test_self_is_not_counted_as_an_argument_and_keyword_only_ones_are_not_either() -> None:
    code = "class A:\n    def f(self, a, /, b, *, c): ...\ndef g(self, a): ...\n"
    assert [count for _, count in all_positional(ast.parse(code))] == [2, 2]


def test_no_complexity_limit_is_switched_off_in_the_code() -> None:
    silenced = re.compile(r"#\s*noqa(?!:)|#\s*noqa:[^#]*\b(C901|PLR)|#\s*type:\s*ignore(?!\[)")
    found = [
        place(path) + f":{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if silenced.search(line)
    ]
    assert found == []


# ---- code habits ---------------------------------------------------------------------------


def test_code_is_ascii() -> None:
    found = []
    for path in repository_files():
        if path.suffix in {".py", ".toml"} or path.name in {"Makefile", "run"}:
            text = path.read_text(encoding="utf-8")
            found += [
                f"{place(path)}:{number}"
                for number, line in enumerate(text.splitlines(), 1)
                if not line.isascii()
            ]
    assert found == []


def test_no_module_or_folder_has_a_name_that_says_nothing() -> None:
    names = {path: {*path.relative_to(PACKAGE).parts[:-1], path.stem} for path in source_files()}
    assert [place(path) for path, parts in names.items() if parts & BANNED_NAMES] == []


def test_nothing_is_printed() -> None:
    calls = [
        place(path, node)
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "breakpoint"}
    ]
    assert calls == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def test_no_handler_catches_everything() -> None:
    found = [
        place(path, node)
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert found == []


def test_every_module_postpones_its_annotations() -> None:
    missing = [
        place(path)
        for path in source_files()
        if len(tree_of(path).body) > (ast.get_docstring(tree_of(path)) is not None)
        and not any(
            isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for node in tree_of(path).body
        )
    ]
    assert missing == []


def test_nothing_is_imported_with_a_star() -> None:
    found = [
        place(path, node)
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert found == []


def is_code(comment: str) -> bool:
    """Say whether a comment is a statement that somebody switched off."""
    text = comment.lstrip("#").strip()
    if not re.search(
        r"^(return|import|from|if|for|while|def|class)\b.*[:.\w)]$|\w\(.*\)$|\s=\s", text
    ):
        return False
    try:
        parsed = ast.parse(text).body
    except SyntaxError:
        return False
    call = (ast.Call, ast.Await)
    return any(
        isinstance(node, ast.Assign | ast.Import | ast.ImportFrom | ast.Return)
        or (isinstance(node, ast.Expr) and isinstance(node.value, call))
        for node in parsed
    )


@pytest.mark.parametrize("comment", ["# x = f(3)", "# import os", "# run(a, b)", "# return x"])
def test_a_statement_behind_a_hash_is_seen_as_code(comment: str) -> None:
    assert is_code(comment)


@pytest.mark.parametrize(
    "comment", ["# N = 3 studies here", "# return to the start", "# (B, V, C)"]
)
def test_prose_behind_a_hash_is_not_seen_as_code(comment: str) -> None:
    assert not is_code(comment)


def test_no_code_is_commented_out() -> None:
    found = [
        f"{place(path)}:{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.lstrip().startswith("#") and is_code(line.strip())
    ]
    assert found == []


def public_functions(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Give public functions and classes of a module and the public methods of those classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, kinds) and not inner.name.startswith("_"):
                    yield inner


def is_overload_or_override(node: Function | ast.ClassDef) -> bool:
    """Say whether another definition of the same name carries the docstring."""
    names = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
    # `forward` and `build` are documented by the contract that the class fulfils.
    return bool(names & {"overload", "override", "setter"}) or node.name in {"forward", "build"}


def test_public_functions_and_classes_have_docstrings() -> None:
    missing = [
        f"{place(path, node)} {node.name}"
        for path in source_files()
        for node in public_functions(tree_of(path))
        if not ast.get_docstring(node) and not is_overload_or_override(node)
    ]
    assert missing == []


def test_every_module_says_what_it_is() -> None:
    missing = [
        place(path)
        for path in source_files()
        if path.name != "__init__.py" and not ast.get_docstring(tree_of(path))
    ]
    assert missing == []


# ---- rooms ---------------------------------------------------------------------------------


def test_rooms_below_the_model_import_no_torch() -> None:
    found = [
        f"{place(path, node)} {name}"
        for path in source_files()
        if path.relative_to(PACKAGE).parts[0] in ROOMS_WITHOUT_TORCH
        or path.name in {"types.py", "errors.py"}
        for node, name in absolute_imports(tree_of(path))
        if name.split(".")[0] in TORCH_NAMES
    ]
    assert found == []


def test_importing_the_rooms_below_the_model_loads_no_torch() -> None:
    modules = [
        ".".join(("t3d", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in source_files()
        if path.relative_to(PACKAGE).parts[0] in ROOMS_WITHOUT_TORCH and path.name != "__init__.py"
    ]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"sys.exit(' '.join({TORCH_NAMES!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert modules
    assert (done.returncode, done.stderr) == (0, "")


def test_imports_inside_the_package_are_absolute() -> None:
    found = [
        place(path, node)
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert found == []


def registered_modules(init: Path, package: str) -> set[str]:
    """Modules of a folder of parts from which a name stands in an upper-case tuple of its init."""
    tree = tree_of(init)
    origin: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = node.module.removeprefix(package).lstrip(".")
                origin[alias.asname or alias.name] = inside or alias.name
    used: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(target, ast.Name) and target.id.isupper() for target in targets):
                used |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return {origin[name] for name in used if name in origin}


@pytest.mark.parametrize("folder", PART_FOLDERS)
def test_every_part_stands_in_the_tuple_of_its_folder(folder: str) -> None:
    package = "t3d." + folder.replace("/", ".")
    modules = {
        path.stem
        for path in (PACKAGE / folder).glob("*.py")
        if path.name != "__init__.py" and not path.stem.startswith("_")
    }
    assert modules
    assert modules - registered_modules(PACKAGE / folder / "__init__.py", package) == set()


def test_every_file_of_the_package_is_shipped() -> None:
    """A template or table that no pattern of package-data matches is missing after installation."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["t3d"]
    data = [
        path.relative_to(PACKAGE).as_posix()
        for path in repository_files()
        if path.is_relative_to(PACKAGE) and path.suffix != ".py"
    ]
    loose = [pattern.removeprefix("**/") for pattern in patterns]
    unshipped = [name for name in data if not any(fnmatch(Path(name).name, p) for p in loose)]
    assert unshipped == []


# ---- what crosses a process ----------------------------------------------------------------


def error_kinds() -> list[type[Exception]]:
    errors = importlib.import_module("t3d.errors")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.T3DError)]


@pytest.mark.parametrize("kind", error_kinds(), ids=lambda kind: kind.__name__)
def test_an_error_keeps_its_three_parts_in_another_process(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("found", expected="expected", fix="fix")))
    assert type(error) is kind
    assert (error.found, error.expected, error.fix) == ("found", "expected", "fix")
    assert str(error) == "found\n  expected: expected\n  fix: fix"


def test_every_shared_type_is_frozen_and_has_slots() -> None:
    types = importlib.import_module("t3d.types")
    shared = [kind for kind in vars(types).values() if hasattr(kind, "__dataclass_fields__")]
    assert len(shared) >= 8
    assert [k.__name__ for k in shared if not k.__dataclass_params__.frozen] == []
    assert [k.__name__ for k in shared if "__slots__" not in vars(k)] == []


def test_a_study_survives_the_way_to_a_worker() -> None:
    types = importlib.import_module("t3d.types")
    study = types.Study(
        study_id="s1",
        patient_id="p1",
        series=(types.Series(series_id="a", files=(Path("a.nii.gz"),)),),
        reports=(types.Report(findings="Clear lungs."),),
        labels={"Atelectasis": 0, "Consolidation": None},
        sentences=(types.Sentence(section="findings", start=0, end=12),),
        items=(types.Item(finding="Atelectasis", large=True),),
    )
    preparation = types.Preparation(
        name="demo", size_vox=types.Zyx(z=32, y=64, x=64), spacing_mm=None
    )
    assert pickle.loads(pickle.dumps((study, preparation))) == (study, preparation)


# ---- the repository ------------------------------------------------------------------------


def text_of(path: Path) -> str | None:
    """Text of a file, None where it is binary."""
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        return None
    return data.decode("utf-8", errors="replace")


def test_no_path_of_a_machine_stands_in_a_file() -> None:
    found = [
        f"{place(path)}:{number}"
        for path in repository_files()
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_the_pattern_of_machine_paths_finds_one() -> None:
    assert MACHINE_PATH.search("data in /" + "work/x")
    assert not MACHINE_PATH.search("home/work/x")


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def local_links(text: str) -> list[str]:
    links = (first or second for first, second in LINK.findall(text))
    return [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    links = local_links((ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_links_to_its_rooms() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"make demo", "make test"} <= set(re.findall(r"make [a-z]+", text))
    assert len(local_links(text)) >= 5


def test_what_make_runs_in_the_readme_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        word
        for page in pages
        if "_build" not in page.parts and "_generated" not in page.parts
        for word in re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8"))
    }
    assert {"demo", "demo-full", "test", "slow", "check", "fix", "bench", "docs"} <= targets
    assert named - targets == set()


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="ascii")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_names_the_version_line_of_the_package() -> None:
    version = importlib.import_module("t3d").__version__
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^cff-version: 1\.2\.0$", text, flags=re.M)
    assert re.search(rf"^version: {re.escape(version)}$", text, flags=re.M)
