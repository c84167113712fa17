"""What a person gets from `pip install .`: every file, the command, the right torch."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import t3d

ROOT = Path(__file__).resolve().parent.parent


def run(command: Sequence[str | Path], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout, so that only what is installed is found."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads; building leaves traces that the checkout should not get."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def wheel(clone: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = run([*command, "--no-index", "-w", "dist", "."], cwd=clone)
    assert done.returncode == 0, done.stderr
    (built,) = (clone / "dist").glob("*.whl")
    return built


def test_a_wheel_has_every_file_of_the_package_and_nothing_else(clone: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    source = {
        path.relative_to(clone / "src").as_posix()
        for path in (clone / "src").rglob("*")
        if path.is_file() and ".egg-info" not in str(path)
    }
    assert names == source


def test_a_wheel_says_its_licence_and_leaves_torch_unpinned(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        (metadata,) = (n for n in content.namelist() if n.endswith(".dist-info/METADATA"))
        lines = content.read(metadata).decode().splitlines()
        assert any(name.endswith("/LICENSE") for name in content.namelist())
    assert "License-Expression: Apache-2.0" in lines
    assert f"Version: {t3d.__version__}" in lines
    assert "Requires-Dist: torch>=2.8" in lines
    assert [line for line in lines if line.startswith("Requires-Dist") and "==" in line] == [
        line for line in lines if "extra ==" in line
    ]


@pytest.mark.slow
def test_pip_install_into_a_clean_environment_gives_the_command(clone: Path) -> None:
    """Torch is held to the wheel on this disk: the test must not fetch a CUDA build."""
    venv = clone.parent / "venv"
    made = run([sys.executable, "-m", "venv", venv], cwd=clone)
    assert made.returncode == 0, made.stderr
    pip = [venv / "bin" / "python", "-m", "pip", "install", "-qq", "--no-compile"]
    version = importlib.metadata.version("torch")
    if run([*pip, "--no-index", "--no-deps", f"torch=={version}"], cwd=clone).returncode:
        pytest.skip("pip is configured with no torch wheel on this disk")
    held = clone / "held.txt"
    held.write_text(f"torch=={version}\n")
    done = run([*pip, ".", "--constraint", held], cwd=clone)
    assert done.returncode == 0, done.stderr
    told = run([venv / "bin" / "t3d", "--version"], cwd=venv)
    assert (told.returncode, told.stdout.strip()) == (0, t3d.__version__), told.stderr
    recipes = run([venv / "bin" / "t3d", "info", "recipes"], cwd=venv)
    assert recipes.returncode == 0, recipes.stderr
    assert "t3d_v3" in recipes.stdout
    assert run([venv / "bin" / "python", "-m", "pip", "check"], cwd=venv).returncode == 0
