"""A skipped test on real data is counted, and in CI it is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent / "conftest.py"

SUITE = """
import pytest

def test_by_fixture(real_data):
    assert (real_data / "INDEX.md").is_file()

@pytest.mark.real
def test_by_marker():
    pytest.importorskip("no_such_decoder")

def test_something_else():
    pytest.skip("not about real data")
"""


def outcomes(folder: Path, *arguments: str, ci: bool) -> str:
    """Run the small suite with our conftest; give pytest's closing line."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = real: reads real data\n")
    env = {key: value for key, value in os.environ.items() if key != "CI"}
    env |= {"CI": "true"} if ci else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1].split(" in ")[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "INDEX.md").write_text("# Index\n")
    return folder


def test_absent_data_are_counted_skips(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "--real-data", "absent", ci=False) == "3 skipped"


def test_absent_data_are_failures_in_ci(tmp_path: Path) -> None:
    told = outcomes(tmp_path, "--real-data", "absent", ci=True)
    assert told == "1 failed, 1 skipped, 1 error"  # a fixture's skip comes before the call


def test_a_missing_decoder_is_a_failure_in_ci_although_the_data_are_there(
    tmp_path: Path, data: Path
) -> None:
    told = outcomes(tmp_path, "--real-data", str(data), ci=True)
    assert told == "1 failed, 1 passed, 1 skipped"
