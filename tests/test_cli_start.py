"""A person who asks for help does not wait for torch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# What takes from 0.1 s (numpy) to 5 s (MONAI) to import.
HEAVY = ("torch", "monai", "transformers", "numpy", "scipy", "matplotlib", "blosc2", "sklearn")

REPORT = f"""
import sys
heavy = [name for name in {HEAVY!r} if name in sys.modules]
sys.stderr.write("LOADED " + " ".join(heavy))
"""


def loaded_after(code: str) -> tuple[str, set[str]]:
    """Run code in a fresh interpreter; give what it printed and the heavy modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, found, names = done.stderr.rpartition("LOADED ")
    assert found, done.stderr
    return done.stdout, set(names.split())


def run_cli(*arguments: str) -> str:
    """Code that runs the command line in this process and goes on after it."""
    return (
        f"import sys; sys.argv = ['t3d', *{list(arguments)!r}]\n"
        "from t3d.cli import main\n"
        "try:\n    code = main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "assert not code, code\n"
    )


def test_the_report_of_loaded_modules_sees_numpy() -> None:
    assert "numpy" in loaded_after("import numpy\n")[1]


def test_importing_t3d_loads_nothing_heavy() -> None:
    assert loaded_after("import t3d; assert t3d.__version__\n")[1] == set()


def test_the_shared_types_and_errors_load_nothing_heavy() -> None:
    assert loaded_after("import t3d.types, t3d.errors\n")[1] == set()


def test_help_loads_nothing_heavy_and_names_the_verbs() -> None:
    text, heavy = loaded_after(run_cli("--help"))
    assert heavy == set()
    verbs = "phantom prepare doctor label mine train evaluate screen bench info"
    assert not set(verbs.split()) - set(text.split())


def test_help_of_prepare_names_every_source() -> None:
    from t3d.cohort.sources import SOURCES

    text, heavy = loaded_after(run_cli("prepare", "--help"))
    assert heavy == set()
    assert not {source.kind for source in SOURCES} - set(re.findall(r"\w+", text))


@pytest.mark.parametrize("verb", ["doctor", "label", "mine", "train", "screen"])
def test_help_of_a_verb_loads_nothing_heavy(verb: str) -> None:
    assert loaded_after(run_cli(verb, "--help"))[1] == set()


def test_version_is_that_of_the_package() -> None:
    import t3d

    text, heavy = loaded_after(run_cli("--version"))
    assert text.strip() == t3d.__version__
    assert heavy == set()
