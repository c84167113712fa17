"""Make `.venv` and install t3d into it. Standard library only; run by `make`.

    python3 tools/setup.py PROFILE      PROFILE is base, dev or docs

How torch comes in, first way that fits:
  1. an NVIDIA GPU is present (or macOS): pip's default torch;
  2. a wheel that pip is configured to find on this disk (`pip install --no-index torch`);
  3. PyTorch's own CPU index;
  4. otherwise a message that names the two commands a person can run.
There is no way from a machine without a GPU to a CUDA build of several GB.

Everything else follows with torch held to the version that is there. A stamp in `.venv`
remembers what was installed, so a second run has nothing to do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MIN_PYTHON = (3, 11)
EXTRAS = {"base": "", "dev": "[dev]", "docs": "[docs]"}


class SetupError(Exception):
    """What went wrong and what a person can do about it."""


def say(text: str) -> None:
    """One line of progress, at once."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def check_python(version: tuple[int, int]) -> None:
    """Stop where Python is too old. Nothing in this file is too new for it to get here."""
    if version < MIN_PYTHON:
        raise SetupError(
            f"this is Python {version[0]}.{version[1]}\n"
            f"  expected: Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer\n"
            "  fix: install one and name it, as in: make PYTHON=python3.11 demo"
        )


def has_nvidia_gpu(proc: Path = Path("/proc/driver/nvidia/gpus")) -> bool:
    """Say whether the driver lists a GPU; a driver without one does not count."""
    if proc.is_dir() and any(proc.iterdir()):
        return True
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    done = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def torch_ways(*, gpu: bool, platform: str) -> list[tuple[str, list[str]]]:
    """Give the ways to get torch that this machine may try, in order: (name, pip arguments)."""
    if gpu or platform == "darwin":
        return [("its default build", ["torch"])]
    # No dependencies here: they come with everything else, from the usual index.
    return [
        ("a wheel on this disk", ["--no-index", "--no-deps", "torch"]),
        ("PyTorch's CPU index", ["--index-url", TORCH_CPU_INDEX, "--no-deps", "torch"]),
    ]


class Environment:
    """The virtual environment in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"

    def create(self) -> None:
        """Make it where there is none."""
        if self.python.exists():
            return
        say("making .venv with Python {}.{}".format(*sys.version_info[:2]))
        command = [sys.executable, "-m", "venv", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(
                f"python -m venv failed: {(done.stderr or done.stdout).strip()}\n"
                "  fix: install Python's venv module (Debian, Ubuntu: apt-get install python3-venv)"
            )

    def pip(self, arguments: list[str], env: dict[str, str] | None = None) -> str:
        """Install with pip; give what it complained of, "" when it succeeded."""
        # Byte code is made afterwards, on all cores: pip would make it on one.
        flags = ["-qq", "--no-compile", "--disable-pip-version-check"]
        command = [str(self.python), "-m", "pip", "install", *flags, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip() or "unknown" if done.returncode else ""

    def torch_version(self) -> str:
        """Give the version of its torch without importing it; "" = none."""
        code = (
            "import importlib.metadata as m\n"
            "try: print(m.version('torch'))\n"
            "except m.PackageNotFoundError: pass"
        )
        command = [str(self.python), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def compile(self) -> subprocess.Popen[bytes]:
        """Start to make byte code of what is installed, on all cores."""
        command = [str(self.python), "-m", "compileall", "-q", "-j", "0", str(self.folder / "lib")]
        quiet = subprocess.DEVNULL  # some packages carry templates that are no Python
        return subprocess.Popen(command, stdout=quiet, stderr=quiet)


def no_torch() -> SetupError:
    """Build the message for a machine where no way led to a CPU build of torch."""
    return SetupError(
        "no CPU build of torch was found for Python {}.{}\n".format(*sys.version_info[:2])
        + "  expected: a wheel on this disk or PyTorch's CPU index (a CUDA build of several GB\n"
        "    is never taken on a machine without a GPU)\n"
        "  fix: run one of these two, then make again\n"
        f"    .venv/bin/pip install --index-url {TORCH_CPU_INDEX} torch\n"
        "    .venv/bin/pip install --no-deps PATH_OF_A_TORCH_CPU_WHEEL"
    )


def install_torch(venv: Environment) -> str:
    """Make sure that a fitting torch is there; give its version."""
    found = venv.torch_version()
    if found:
        return found
    for name, arguments in torch_ways(gpu=has_nvidia_gpu(), platform=sys.platform):
        say(f"torch: trying {name}")
        env = dict(os.environ)
        if TORCH_CPU_INDEX in arguments:
            # Further indexes of pip's own configuration would offer CUDA builds beside it.
            env["PIP_EXTRA_INDEX_URL"] = TORCH_CPU_INDEX
        if not venv.pip(arguments, env):  # what a way that does not fit says would only confuse
            return venv.torch_version()
    raise no_torch()


def install_project(venv: Environment, profile: str, torch_version: str) -> None:
    """Install t3d in place with the profile's extras, torch held where it is."""
    target = "." + EXTRAS[profile]
    say(f"pip install -e '{target}' (a minute or two the first time)")
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "torch.txt"
        held.write_text(f"torch=={torch_version}\n", encoding="ascii")
        complaint = venv.pip(["-e", target, "--constraint", str(held)])
    if complaint:
        raise SetupError(
            f"pip could not install '{target}':\n{complaint}\n"
            "  fix: check the network or pip's configuration, then make again"
        )


def digest() -> str:
    """Digest of all that decides what is installed."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def setup(profile: str) -> None:
    """Bring `.venv` to the profile; nothing happens when the stamp says it is there."""
    check_python((sys.version_info[0], sys.version_info[1]))
    venv = Environment(ROOT / ".venv")
    stamp = venv.folder / f".t3d-{profile}"
    wanted = digest()
    if venv.python.exists() and stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
        stamp.touch()  # make compares times
        return
    venv.create()
    torch_version = install_torch(venv)
    compiling = venv.compile()  # torch is large: meanwhile pip fetches the rest
    install_project(venv, profile, torch_version)
    compiling.wait()
    venv.compile().wait()
    for name in {"base", profile}:  # every profile holds the base
        (venv.folder / f".t3d-{name}").write_text(wanted, encoding="ascii")


def main() -> int:
    """Entry point; exit code 2 with a message when this machine does not fit."""
    parser = argparse.ArgumentParser(description="Make .venv and install t3d into it.")
    parser.add_argument("profile", choices=sorted(EXTRAS))
    try:
        setup(parser.parse_args().profile)
    except SetupError as problem:
        sys.stderr.write(f"setup: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
