"""What every test shares: one thread, no network, real data only where it lies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

# Before numpy or torch is imported by anybody: they read these once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run and no deadline: a slow machine is not a failure.
settings.register_profile(
    "t3d",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("t3d")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the place of the real test data, relative to the root of the repository."""
    parser.addoption(
        "--real-data",
        default=str(Path("..") / "shared" / "data"),
        help="folder with the real test data (INDEX.md, dicom/, nifti/, ...)",
    )


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    """Folder with the real test data; the test is skipped where there is none."""
    folder = (ROOT / str(request.config.getoption("--real-data"))).resolve()
    if not (folder / "INDEX.md").is_file():
        pytest.skip("no real test data here (option --real-data)")
    return folder


@pytest.fixture(scope="session")
def malformed(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the malformed corpus and its `manifest.json`, derived once from the real data."""
    out = tmp_path_factory.mktemp("malformed") / "out"
    # A process of its own: the script changes settings of pydicom and of warnings.
    command = [sys.executable, str(real_data / "make_malformed.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"make_malformed.py failed: {done.stderr[-2000:]}")
    return out


def needs_real_data(item: pytest.Item) -> bool:
    """Say whether a test reads real data: by its marker or by its fixture."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("real") is not None or bool(
        fixtures & {"real_data", "malformed"}
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test on real data into a failure where CI is set: it would prove nothing."""
    report = yield
    if report.skipped and os.environ.get("CI") and needs_real_data(item):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"CI is set, so a test on real data may not be skipped ({reason})"
    return report
