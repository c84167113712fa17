"""Set-up and the README's figures, without installing anything."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str) -> ModuleType:
    """Load a script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look
    spec.loader.exec_module(module)
    return module


setup = tool("setup")
readme_table = tool("readme_table")
traps_table = tool("traps_table")


# ---- set-up --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(2, 7), (3, 10)])
def test_an_old_python_is_told_which_one_is_needed(version: tuple[int, int]) -> None:
    with pytest.raises(setup.SetupError, match=r"this is Python .*\n.*3\.11 or newer\n +fix: "):
        setup.check_python(version)


def test_python_3_11_and_newer_are_fine() -> None:
    setup.check_python((3, 11))
    setup.check_python((4, 0))


def test_without_a_gpu_on_linux_no_way_can_end_in_a_cuda_build() -> None:
    ways = setup.torch_ways(gpu=False, platform="linux")
    assert len(ways) == 2
    for _, arguments in ways:
        index = arguments[arguments.index("--index-url") + 1 :][:1] if len(arguments) > 3 else []
        assert "--no-index" in arguments or index == [setup.TORCH_CPU_INDEX]


def test_with_a_gpu_or_on_a_mac_the_default_build_is_taken() -> None:
    for gpu, platform in ((True, "linux"), (False, "darwin")):
        assert [args for _, args in setup.torch_ways(gpu=gpu, platform=platform)] == [["torch"]]


def test_a_driver_without_a_gpu_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not setup.has_nvidia_gpu(tmp_path / "absent")
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    assert not setup.has_nvidia_gpu(gpus)
    (gpus / "0000:01:00.0").mkdir()
    assert setup.has_nvidia_gpu(gpus)


def test_nvidia_smi_is_believed_only_when_it_lists_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    smi = tmp_path / "nvidia-smi"
    for text, code, there in (("GPU 0: x", 0, True), ("No devices", 0, False), ("GPU", 9, False)):
        smi.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
        smi.chmod(0o755)
        assert setup.has_nvidia_gpu(tmp_path / "absent") is there


class FakeVenv:
    """A venv whose pip succeeds for chosen arguments only."""

    def __init__(self, found: str, works: str = "") -> None:
        self.found, self.works, self.calls = found, works, []  # type: ignore[var-annotated]

    def torch_version(self) -> str:
        return self.found

    def pip(self, arguments: list[str], env: dict[str, str] | None = None) -> str:
        self.calls.append((arguments, env))
        if self.works and self.works in arguments:
            self.found = "2.13.0+cpu"
            return ""
        return "no such thing"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(setup.sys, "platform", "linux")


@pytest.mark.usefixtures("no_gpu")
def test_a_torch_that_is_there_is_left_alone() -> None:
    venv = FakeVenv("2.9.1")
    assert setup.install_torch(venv) == "2.9.1"
    assert venv.calls == []


@pytest.mark.usefixtures("no_gpu")
def test_a_wheel_on_the_disk_comes_before_the_network() -> None:
    venv = FakeVenv("", works="--no-index")
    assert setup.install_torch(venv) == "2.13.0+cpu"
    assert len(venv.calls) == 1


@pytest.mark.usefixtures("no_gpu")
def test_at_the_cpu_index_no_further_index_is_asked() -> None:
    venv = FakeVenv("", works=setup.TORCH_CPU_INDEX)
    assert setup.install_torch(venv) == "2.13.0+cpu"
    _, env = venv.calls[1]
    assert env["PIP_EXTRA_INDEX_URL"] == setup.TORCH_CPU_INDEX


@pytest.mark.usefixtures("no_gpu")
def test_where_no_way_fits_two_commands_are_named() -> None:
    with pytest.raises(setup.SetupError) as caught:
        setup.install_torch(FakeVenv(""))
    assert str(caught.value).count(".venv/bin/pip install") == 2


def test_a_stamp_that_fits_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    done: list[str] = []
    monkeypatch.setattr(setup.Environment, "create", lambda self: done.append("create"))
    monkeypatch.setattr(setup, "install_torch", lambda venv: "2.13.0")
    monkeypatch.setattr(setup, "install_project", lambda venv, p, t: done.append(f"{p} {t}"))

    class Finished:
        def wait(self) -> int:
            return 0

    monkeypatch.setattr(setup.Environment, "compile", lambda self: Finished())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    setup.setup("dev")
    assert done == ["create", "dev 2.13.0"]
    setup.setup("dev")
    setup.setup("base")  # dev holds the base
    assert done == ["create", "dev 2.13.0"]
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 't3d'\n")
    setup.setup("dev")
    assert done == ["create", "dev 2.13.0"] * 2


# ---- the README's figures ------------------------------------------------------------------


def metric(value: float, chance: float = 0.5) -> dict[str, float | int]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "chance": chance, "n": 300}


def summary() -> dict[str, object]:
    scores = {"macro": metric(0.7), "large": metric(0.75), "small": metric(0.6)}
    cell = {
        "supervision": "reports",
        "steps": 240,
        "core_seconds": 165.7,
        "zero_shot": {"bank": scores, "template": {"macro": metric(0.62)}},
        "retrieval": {"t2i_r@10": metric(0.5, chance=0.0333)},
        "ceiling_share": metric(0.25),
    }
    return {
        "commit": "0123456789abcdef",
        "machine": "2 cores",
        "seconds": {"phantoms": 60.0, "train_and_judge": 300.0, "cell:clip": 250.0},
        "cohort": {"digest": "f" * 64, "train": 3000, "dev": 256, "test": 300},
        "recipes": {"clip": cell},
        "supervised": {"macro": metric(0.87), "large": metric(0.9), "small": metric(0.7)},
        "shuffled": {"bank": {"macro": metric(0.49)}},
    }


TRAPS = {"t3d": {"traps": 9, "damage": 1}, "MONAI": {"traps": 8, "damage": 5}}
SPEED = [
    {"name": "t3d A", "value": 0.56},
    {"name": "monai A, peak", "value": 2024.9258},
    {"name": "dicom sitk, raw, 300 slices", "value": 0.9},
]
README = "# Title\n" + "".join(
    f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->\nafter\n" for name in readme_table.BLOCKS
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, told in (("demo_summary", summary()), ("traps", TRAPS), ("prepare", SPEED)):
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    (tmp_path / "README.md").write_text(README)
    return ["--results", str(tmp_path), "--readme", str(tmp_path / "README.md")]


def test_the_table_has_a_row_per_recipe_baseline_and_chance(
    files: list[str], tmp_path: Path
) -> None:
    assert readme_table.main(files) == 0
    text = (tmp_path / "README.md").read_text()
    lines = text.partition("<!-- results:end -->")[0].splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [row[0].strip() for row in rows[2:]] == [
        "`clip`",
        "`t3d_plus`",
        "supervised",
        "chance",
    ]
    assert rows[2][3].strip() == "166"
    assert rows[2][4].strip() == ".700 [.680, .720]"
    assert rows[3][1].strip() == "shuffled reports"
    assert rows[-1][8].strip() == ".033"
    assert "6.0 min" in text
    assert "old" not in text
    assert text.endswith("after\n")


def test_traps_and_speed_are_those_of_their_files(files: list[str], tmp_path: Path) -> None:
    assert readme_table.main(files) == 0
    text = (tmp_path / "README.md").read_text()
    assert "What 2 readers do with 9 traps" in text
    assert "t3d 1 of 9, MONAI 5 of 8." in text
    rows = [line.split("|")[1:-1] for line in text.partition("speed:begin")[2].splitlines()[1:7]]
    assert [cell.strip() for cell in rows[0][2:]] == [
        *("t3d", "SimpleITK", "CT-CLIP style", "MONAI", "t3d, peak MB", "MONAI, peak MB"),
    ]
    assert [cell.strip() for cell in rows[2][1:]] == ["-", "0.56", "-", "-", "-", "-", "2,025"]
    assert [cell.strip() for cell in rows[5][1:]] == ["-", "-", "0.90", "-", "-", "-", "-"]


def test_the_counts_on_the_page_of_traps_are_those_in_its_file() -> None:
    told = json.loads((ROOT / "docs" / "results" / "traps.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "reference" / "traps.md").read_text(encoding="utf-8")
    assert "\n".join(["", *traps_table.counted(told), ""]) in page


def test_a_stale_table_is_told(files: list[str]) -> None:
    assert readme_table.main([*files, "--check"]) == 1
    assert readme_table.main(files) == 0
    assert readme_table.main([*files, "--check"]) == 0


def test_without_a_summary_the_readme_says_that_there_is_none(
    files: list[str], tmp_path: Path
) -> None:
    (tmp_path / "demo_summary.json").unlink()
    assert readme_table.main(files) == 0
    assert readme_table.NOTHING in (tmp_path / "README.md").read_text()


def test_a_readme_without_the_marks_is_refused(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n")
    with pytest.raises(SystemExit, match="lacks"):
        readme_table.main(files)
