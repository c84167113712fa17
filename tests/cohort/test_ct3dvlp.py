"""CT-3DVLP from files to a trained `t3d_v3`: three fabricated trees and three commands.

t3d prepare ct_rate=...,inspect=...,bimcv_r=... COHORT --source ct3dvlp --preparation demo
t3d doctor COHORT
t3d train t3d_v3 --cohort COHORT --out RUN
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import made_ct3dvlp as made
from t3d import cli
from t3d.cohort.listing import LEFT_OUT_ON_PURPOSE
from t3d.cohort.store import Cohort
from t3d.types import Report

MEMBERS = ("ct_rate", "inspect", "bimcv_r")

# By hand, study by study of the three trees (made_ct3dvlp.py says which trap is which).
BY_HAND = """
                  ct_rate  inspect  bimcv_r  together
    prepared
    train              28       14       15        57
    dev                 4        0        1         5
    left out on purpose
    duplicate_text      1        0        1         2
    empty_text          2        1        2         5
    not_asked_for       0        0        2         2
    not_chosen          0        1        1         2
    set aside
    bad_affine          2        1        0         3
    constant            1        0        0         1
    duplicate_key       3        3        2         8
    hu_implausible      2        0        1         3
    missing_file        1        2        1         4
    no_chest            3        0        0         3
    not_3d              1        1        0         2
    split_leak          0        1        0         1
    too_small           2        0        0         2
    unlisted_file       3        1        1         5
    unreadable          1        0        0         1
"""

# What of each tree falls out, and why.
ASIDE = {
    "ct_rate": {
        "bad_affine": "train_1267_a_4 train_29_a",
        "constant": "train_13_a",
        "duplicate_key": "train_15_a train_16_a train_fixed/train_1/twice/train_1_b_1.nii.gz",
        "duplicate_text": "train_8_a",
        "empty_text": "train_4_a train_30_a",
        "hu_implausible": "train_10_a train_11_a",
        "missing_file": "train_6_a",
        "no_chest": "train_5_a train_19_a train_20_a",
        "not_3d": "train_27_a",
        "too_small": "train_9792_a_1 train_26_a",
        "unlisted_file": "train_7_a_1 train_17_a_1 train_fixed/notes.nii.gz",
        "unreadable": "train_18_a",
    },
    "inspect": {
        "bad_affine": "1008",
        "duplicate_key": "1013 PE00aa15 PE00aa24",
        "empty_text": "1015",
        "missing_file": "1009 1099",
        "not_3d": "1007",
        "not_chosen": "PE00aa13",
        "split_leak": "1001",
        "unlisted_file": "PEffffff",
    },
    "bimcv_r": {
        "duplicate_key": (
            "sub-S05_ses-E06_run-1_bp-chest_ct sub-S06_ses-E07_run-1_bp-chest_ct"  # folders, texts
        ),
        "duplicate_text": "sub-S01_ses-E01",
        "empty_text": "sub-S130_ses-E130 sub-S131_ses-E131",
        "hu_implausible": "sub-S132_ses-E132",
        "missing_file": "sub-S03_ses-E04",
        "not_asked_for": "sub-S07_ses-E08 sub-S111_ses-E111",
        "not_chosen": "sub-S01_ses-E01_run-2_bp-chest_ct",
        "unlisted_file": "sub-S04_ses-E05_run-1_bp-chest_ct",
    },
}

STEPS, BATCH = 16, 16
SETTINGS = (
    *(f"num_steps={STEPS}", f"batch_size={BATCH}", "members.inspect.weight=2"),
    'members.bimcv_r.sections=["findings","impression"]',
)
CHANGES = tuple(word for setting in SETTINGS for word in ("--set", setting))


@dataclass(frozen=True)
class Walk:
    """What the three commands left and said."""

    root: Path
    said: dict[str, subprocess.CompletedProcess[str]]

    @property
    def cohort(self) -> Cohort:
        return Cohort.open(self.root / "cohort")


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a person does, in a process of its own."""
    code = "from t3d.cli import main; main()"
    told = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(told, capture_output=True, text=True, check=False)


def here(*words: object) -> int:
    """Run a command in this process."""
    told = list(map(str, words))
    return int(cli.app(told, exit_on_error=False, result_action="return_value") or 0)


def members(root: Path) -> str:
    return ",".join(f"{name}={root / name}" for name in MEMBERS)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Three trees, and the three commands."""
    root = tmp_path_factory.mktemp("ct3dvlp")
    made.fabricate(root)
    cohort, run = root / "cohort", root / "run"
    kind = ("--source", "ct3dvlp", "--preparation", "demo", "--workers", 0)
    return Walk(
        root,
        {
            "prepare": command("prepare", members(root), cohort, *kind),
            "doctor": command("doctor", cohort, "--workers", 1, "--json"),
            "train": command("train", "t3d_v3", "--cohort", cohort, "--out", run, *CHANGES),
        },
    )


def table() -> dict[str, tuple[int, ...]]:
    """Read the table written by hand; headings have no numbers."""
    lines = (line.split() for line in BY_HAND.strip().splitlines())
    return {name: tuple(map(int, n)) for name, *n in lines if n and n[-1].isdigit()}


def counted(cohort: Cohort) -> Counter[tuple[str, str]]:
    """Count what a cohort holds and what it lacks, by split or reason and member."""
    rows = Counter((row.split, row.facts["member"]) for row in cohort.studies())
    return rows + Counter((f.reason, f.study_id.partition("-")[0]) for f in cohort.failures())


# ---- counts --------------------------------------------------------------------------------


def test_the_three_commands_end_as_they_should(walk: Walk) -> None:
    # 1: some studies were set aside; the doctor tells of the same ones.
    codes = {name: done.returncode for name, done in walk.said.items()}
    assert codes == {"prepare": 1, "doctor": 1, "train": 0}, walk.said
    assert not any("Traceback" in done.stderr for done in walk.said.values())


def test_counts_by_member_and_reason_are_those_of_the_table(walk: Walk) -> None:
    found, by_hand = counted(walk.cohort), table()
    cells = {(name, member) for name in by_hand for member in MEMBERS}
    assert set(found) <= cells
    assert {name: tuple(found[name, m] for m in MEMBERS) for name in by_hand} == {
        name: row[:3] for name, row in by_hand.items()
    }
    assert all(sum(row[:3]) == row[3] for row in by_hand.values())
    assert LEFT_OUT_ON_PURPOSE.intersection(by_hand) == set(list(by_hand)[2:6])


def test_each_trap_is_caught_for_its_own_reason(walk: Walk) -> None:
    by_hand = Counter(
        (f"{member}-{key}", reason)
        for member, told in ASIDE.items()
        for reason, keys in told.items()
        for key in keys.split()
    )
    assert Counter((f.study_id, f.reason) for f in walk.cohort.failures()) == by_hand


def test_what_prepare_prints_is_the_same_table(walk: Walk) -> None:
    lines = walk.said["prepare"].stdout.splitlines()
    by_hand = table()
    reasons = {name: row[3] for name, row in by_hand.items() if name not in ("train", "dev")}
    told = dict(line.strip().split(": ") for line in lines[7:] if line.startswith("  "))
    assert {name: int(n) for name, n in told.items()} == reasons
    assert lines[6].startswith("62 studies prepared, 0 there already, 44 set aside")


def test_counts_stand_beside_the_papers(walk: Walk) -> None:
    # Listed: prepared, and what falls out only when its file is opened (8, 3 and 2 of them).
    lines = walk.said["prepare"].stdout.splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["here", "train", "dev", "paper", "whole"],
        ["ct_rate", "40", "36", "4", "25,691", "25,692"],
        ["inspect", "17", "17", "0", "20,400", "23,248"],
        ["bimcv_r", "18", "17", "1", "6,548", "8,069"],
        ["total", "75", "70", "5", "52,639", "57,009"],
    ]
    assert lines[5].startswith("Not the paper's corpus")


def test_the_doctor_of_the_cohort_counts_what_prepare_set_aside(walk: Walk) -> None:
    told = json.loads(walk.said["doctor"].stdout)
    missing = {name: row[3] for name, row in table().items() if name not in ("train", "dev")}
    assert {name: told["counts"].get(name, 0) for name in missing} == missing


def test_preparing_again_adds_nothing(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    before = walk.cohort.digest
    kind = ("--source", "ct3dvlp", "--preparation", "demo", "--workers", 0, "--json")
    here("prepare", members(walk.root), walk.root / "cohort", *kind)
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["there_already"]) == (0, 75)
    assert walk.cohort.digest == before


def test_order_of_rows_files_and_members_gives_the_same_digest(walk: Walk, tmp_path: Path) -> None:
    made.fabricate(tmp_path, seed=4)
    tables = ("*.csv", "*.tsv")
    pairs = [
        (path, walk.root / path.relative_to(tmp_path)) for t in tables for path in tmp_path.rglob(t)
    ]
    assert len(pairs) == 12
    assert all(one.read_bytes() != other.read_bytes() for one, other in pairs if one.stat().st_size)
    told = ",".join(reversed(members(tmp_path).split(",")))
    kind = ("--source", "ct3dvlp", "--preparation", "demo", "--workers", 0, "--json")
    assert here("prepare", told, tmp_path / "cohort", *kind) == 1
    assert Cohort.open(tmp_path / "cohort").digest == walk.cohort.digest


# ---- who is in it, and what of them ---------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a table as it lies on disk."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def draw(patient: str) -> float:
    """Draw a patient of a corpus without splits, from the words of `split_of`."""
    return int(sha256(f"0:{patient}".encode()).hexdigest()[:16], 16) / 2**64


def held_out(root: Path) -> set[str]:
    """Read from the lists on disk whom the corpora hold out; BIMCV-R has none, so by our draw."""
    reports = root / "ct_rate" / "dataset" / "radiology_text_reports"
    volumes = [row["VolumeName"] for row in rows_of(reports / "validation_reports.csv")]
    full = root / "inspect" / "full"
    splits = rows_of(next(full.glob("splits_*")))
    kept_out = {row["impression_id"] for row in splits if row["split"] != "train"}
    mapping = rows_of(next(full.glob("study_mapping_*")))
    table_ = rows_of(next((root / "bimcv_r").rglob("*.csv")))
    names = {Path(row["path"]).name.partition("_ses")[0] for row in table_}
    return {
        *("ct_rate-" + "_".join(volume.split("_")[:2]) for volume in volumes),
        *(f"inspect-{r['person_id']}" for r in mapping if r["impression_id"] in kept_out),
        *(f"bimcv_r-{name}" for name in names if 0.05 <= draw(name) < 0.2),
    }


def test_no_patient_of_an_official_validation_or_test_list_is_in_it(walk: Walk) -> None:
    out = held_out(walk.root)
    assert len(out) == 12 + 6 + 3
    assert {"ct_rate-valid_1", "inspect-p1", "inspect-p2102", "bimcv_r-sub-S111"} <= out
    patients = {row.patient_id for row in walk.cohort.studies()}
    assert len(patients) == 62 - 2  # two studies each of train_1 and sub-S02
    assert not patients & out


def test_every_volume_is_that_of_its_report(walk: Walk) -> None:
    cohort = walk.cohort
    for row in cohort.studies():
        (volume_id,) = row.volume_ids
        found, true = cohort.volume(volume_id), made.phantom_of(row.study_id).volume
        assert np.array_equal(found.voxels, true.voxels), row.study_id
        np.testing.assert_allclose(
            found.world_from_voxel, true.world_from_voxel, atol=1e-3, err_msg=row.study_id
        )


def test_every_text_is_that_of_its_volume(walk: Walk) -> None:
    for row in walk.cohort.studies():
        told = walk.cohort.report(row.study_id)
        assert told is not None
        assert words(told) == words(expected(row.study_id)), row.study_id


def expected(study_id: str) -> Report:
    """Give the report as it must read once a corpus's own way of writing is undone."""
    one = made.phantom_of(study_id)
    findings, impression = one.report.report.findings, one.report.report.impression
    member, _, key = study_id.partition("-")
    if member == "inspect":
        return Report(findings="", impression=f"{impression.upper()} PAGED ON [date].")
    if (member == "bimcv_r" and key != "sub-S08_ses-E09") or key == "train_9_a":
        return Report(findings=f"{findings} {impression}", impression="")
    return Report(findings="" if key == "train_3_a" else findings, impression=impression)


def words(report: Report) -> tuple[list[str], list[str]]:
    return report.findings.split(), report.impression.split()


# ---- what was trained -----------------------------------------------------------------------


def logged(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_losses_are_finite_and_below_chance(walk: Walk) -> None:
    lines = [line for line in logged(walk.root / "run") if "loss" in line]
    assert lines[-1]["step"] == STEPS
    losses = [(line["loss"], *line["terms"].values()) for line in lines]  # type: ignore[attr-defined]
    assert np.isfinite(losses).all()
    # A guess among the batch costs ln 16 = 2.77; what was seen for some epochs costs much less.
    assert lines[-1]["terms"]["contrast"] < 0.75 * math.log(BATCH)  # type: ignore[index]


def test_the_recipe_says_what_it_does_with_each_member(walk: Walk) -> None:
    told = json.loads((walk.root / "run" / "recipe.json").read_text())["members"]
    assert told["inspect"]["weight"] == 2
    assert told["bimcv_r"]["sections"] == ["findings", "impression"]


def test_the_checkpoint_loads_and_embeds_a_scan_and_a_sentence(walk: Walk) -> None:
    import t3d

    model = t3d.load(walk.root / "run")
    scans = sorted((walk.root / "ct_rate" / "dataset" / "valid_fixed").rglob("*.nii.gz"))[:2]
    one, other = (model.embed(t3d.read(scan)) for scan in scans)
    assert one.shape == (128,)
    assert float(np.linalg.norm(one)) == pytest.approx(1.0, abs=1e-5)
    assert float(np.abs(one - other).max()) > 1e-3
    text = model.trained.embed_text(["Large pleural effusion.", "No nodule."])
    assert text.shape == (2, 128)
    assert np.isfinite(text).all()


def test_training_again_takes_no_step_and_another_recipe_is_refused(walk: Walk) -> None:
    from t3d.errors import RecipeError

    run = walk.root / "run"
    before = (run / "log.jsonl").read_bytes()
    words = ("train", "t3d_v3", "--cohort", walk.root / "cohort", "--out", run)
    assert here(*words, *CHANGES) == 0
    assert (run / "log.jsonl").read_bytes() == before
    with pytest.raises(RecipeError, match="another recipe or cohort"):
        here(*words, *CHANGES[:-2])


def own_cohort(walk: Walk, out: Path, setting: str) -> Path:
    """Make a cohort of CT-RATE alone, where its patients go by other ids."""
    kind = ("--source", "ct_rate", "--workers", 0, "--with", setting)
    here("prepare", walk.root / "ct_rate", out, *kind, "--with", "reconstructions=first")
    return out


def test_who_was_trained_on_is_known_again_in_a_cohort_of_ct_rate(
    walk: Walk, tmp_path: Path
) -> None:
    from t3d.errors import ProtocolError

    rows = walk.cohort.studies("train")
    trained_on = {r.patient_id.removeprefix("ct_rate-") for r in rows if "ct_rate" in r.patient_id}
    seen = [name for name in trained_on if draw(name) < 0.5]
    assert 5 < len(seen) < len(trained_on)
    cohort = own_cohort(walk, tmp_path / "drawn", "dev_share=0.5")
    with pytest.raises(ProtocolError, match=f"{len(seen)} of .* dev and test patients"):
        here("evaluate", walk.root / "run", "--out", tmp_path / "out", "--cohort", cohort)


def test_the_checkpoint_is_judged_on_ct_rates_validation_patients(
    walk: Walk, tmp_path: Path
) -> None:
    cohort = own_cohort(walk, tmp_path / "own", "dev_share=0.05")
    words = ("evaluate", walk.root / "run", "--out", tmp_path / "out", "--cohort", cohort)
    assert here(*words) == 0
    results = json.loads((tmp_path / "out" / "result.json").read_text())
    told = [(one["task"], one["counts"].get("studies")) for one in results]
    assert {("zero_shot", 12), ("retrieval", 12)} <= set(told)
    assert {number for task, number in told if task in ("zero_shot", "retrieval")} == {12}


@pytest.mark.slow
def test_what_is_learnt_holds_for_patients_who_were_never_seen(walk: Walk, tmp_path: Path) -> None:
    # 57 studies teach little; a report still finds its own volume more often than another's.
    import t3d

    run = tmp_path / "run"
    words = ("train", "t3d_v3", "--cohort", walk.root / "cohort", "--out", run)
    assert here(*words, "--set", "num_steps=150", "--set", "batch_size=32") == 0
    model = t3d.load(run)
    people = [made.person(seed) for seed in range(1_000_000, 1_000_300)]
    images = np.stack([model.embed(one.volume) for one in people])
    texts = model.trained.embed_reports([one.report.report for one in people])
    cosines = texts @ images.T
    rng = np.random.default_rng(0)
    null = [own_wins(cosines[:, rng.permutation(len(people))]) for _ in range(200)]
    assert np.mean(null) == pytest.approx(0.5, abs=0.01)
    assert own_wins(cosines) > np.mean(null) + 2 * np.std(null)


def own_wins(cosines: np.ndarray) -> float:
    """Give the share of (report, other volume) in which the report's own is nearer; chance 0.5."""
    own = np.diag(cosines)[:, None]
    return float((own > cosines).sum() / (len(cosines) * (len(cosines) - 1)))
