"""Merging: the digest of one run over everything, whatever the shards went through."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import made_ct_rate
from made_folder import rows_of, write_table
from t3d.cohort import records, shelf
from t3d.cohort.labels import finding_set, label_by_rule
from t3d.cohort.listing import Source
from t3d.cohort.merge import merge
from t3d.cohort.prepare import prepare
from t3d.cohort.schema import LabelRow
from t3d.cohort.shards import shards_of
from t3d.cohort.sources import CtRate, Folder
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import SourceError, StoreError
from t3d.types import Preparation, Zyx

MakeFolder = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
FLAT = Preparation(name="flat", size_vox=Zyx(z=3, y=9, x=10), filter="linear")


def prepare_shards(
    source: Source, out: Path, preparations: Sequence[Preparation], count: int
) -> tuple[Path, ...]:
    """Prepare all shards, the last one first; give their folders."""
    for number in range(count, 0, -1):
        for preparation in preparations:
            prepare(source, out, preparation, workers=0, shard=(number, count))
    return shards_of(out)


def digest_of(path: Path) -> str:
    """Give a cohort's digest, and see that it is sound."""
    cohort = Cohort.open(path)
    assert cohort.verify() == ()
    digest = cohort.digest
    cohort.close()
    return digest


@pytest.fixture
def troubled(make_folder: MakeFolder) -> Folder:
    """Eleven studies: three of one patient, one of two series, four files that are no use."""
    root = make_folder(12)
    rows = rows_of(root)
    for number in (4, 7):
        rows[number] |= {"patient": "patient1", "split": rows[1]["split"]}
    shared = {k: rows[2][k] for k in ("patient", "split", "Lung nodule", "Pleural effusion")}
    rows[3] |= {**shared, "study": "p0002"}
    rows[2]["study"] = "p0002"
    write_table(root, [{"study": "", **row} for row in rows])
    volumes = root / "volumes"
    (volumes / "p0003.nii.gz").write_bytes(b"broken")  # its study has another one
    (volumes / "p0005.nii.gz").write_bytes(b"<!doctype html>")
    (volumes / "p0006.nii.gz").unlink()
    (volumes / "extra.nii.gz").write_bytes(b"")
    return Folder(root)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_merged_shards_of_a_folder_have_the_digest_of_one_run(
    troubled: Folder, tmp_path: Path, tiny: Preparation, count: int
) -> None:
    for preparation in (tiny, FLAT):
        prepare(troubled, tmp_path / "whole", preparation, workers=0)
    shards = prepare_shards(troubled, tmp_path / "c", (tiny, FLAT), count)
    assert len(shards) == count
    made = merge(shards[::-1], tmp_path / "c")
    assert (made.shards, made.studies) == (count, 9)
    # Each in both preparations: p0003 and p0005, p0006, extra.
    assert made.failed == {"missing_file": 2, "unlisted_file": 2, "unreadable": 4}
    whole, merged = Cohort.open(tmp_path / "whole"), Cohort.open(tmp_path / "c")
    assert merged.facts == whole.facts
    assert merged.failures() == whole.failures()
    assert merged.counts == whole.counts
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")
    # One run over the merged cohort finds nothing to do and changes nothing.
    again = prepare(troubled, tmp_path / "c", tiny, workers=0)
    assert (again.done, again.skipped) == (0, 11)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_merged_shards_of_ct_rate_have_the_digest_of_one_run(
    tmp_path: Path, tiny: Preparation, count: int
) -> None:
    source = CtRate(made_ct_rate.fabricate(tmp_path / "ct-rate"))
    whole = prepare(source, tmp_path / "whole", tiny, workers=0)
    assert sum(whole.failed.values()) > 2
    merge(prepare_shards(source, tmp_path / "c", (tiny,), count), tmp_path / "c")
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


KILLED = """
import os, signal, sys
from t3d.cohort.merge import merge
from t3d.cohort.prepare import prepare
from t3d.cohort.shards import shards_of
from t3d.cohort.sources import Folder
from t3d.types import Preparation, Zyx

def kill(*told):
    done = told[0] if isinstance(told[0], int) else told[0].done
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    tiny = Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=10))
    if sys.argv[1] == "merge":
        merge(shards_of(sys.argv[3]), sys.argv[3], progress=kill)
    else:
        prepare(Folder(sys.argv[2]), sys.argv[3], tiny, workers=0, shard=(2, 3), progress=kill)
"""


def run_until_killed(what: str, source: Path, out: Path, after: int) -> None:
    """Prepare shard 2 of 3, or merge, in a process that kills itself after so many studies."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, what, str(source), str(out), str(after)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == -9


def test_a_shard_that_was_killed_is_not_merged_until_it_was_run_again(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(12))
    for number in (1, 3):
        prepare(source, tmp_path / "c", tiny, workers=0, shard=(number, 3))
    run_until_killed("prepare", source.root, tmp_path / "c", 2)
    with pytest.raises(StoreError, match=r"shard not finished: 2/3 \(tiny\)"):
        merge(shards_of(tmp_path / "c"), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    prepare(source, tmp_path / "c", tiny, workers=0, shard=(2, 3))
    merge(shards_of(tmp_path / "c"), tmp_path / "c")
    prepare(source, tmp_path / "whole", tiny, workers=0)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def test_a_merge_that_was_killed_goes_on_to_the_same_digest(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(10))
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 3)
    run_until_killed("merge", source.root, tmp_path / "c", 7)
    made = merge(shards, tmp_path / "c")
    assert (made.studies, made.new) == (10, 10)  # none of the first seven was committed
    prepare(source, tmp_path / "whole", tiny, workers=0)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def test_a_merge_that_was_interrupted_between_two_rows_goes_on(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Folder(make_folder(10))
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 3)
    prepare(source, tmp_path / "whole", tiny, workers=0)
    real, calls = shelf.share, 0

    def interrupted(file: Path, path: Path, sha256: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:  # the mask of the fifth study
            raise KeyboardInterrupt
        real(file, path, sha256)

    monkeypatch.setattr("t3d.cohort.writer.share", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(shards, tmp_path / "c")
    monkeypatch.undo()
    cohort = Cohort.open(tmp_path / "c")
    assert (len(cohort.studies()), cohort.verify()) == (4, ())
    cohort.close()
    made = merge(shards, tmp_path / "c")
    assert made.new == 6  # four were committed on the way out
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def test_volumes_are_linked_and_survive_the_shards(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    shards = prepare_shards(Folder(make_folder(4)), tmp_path / "c", (tiny,), 2)
    merge(shards, tmp_path / "c")
    files = sorted((tmp_path / "c").rglob("*.b2nd"))
    assert len(files) == 8  # a volume and a mask each
    assert {file.stat().st_nlink for file in files} == {2}
    before = digest_of(tmp_path / "c")
    shutil.rmtree(tmp_path / "c.shards")
    assert digest_of(tmp_path / "c") == before


def test_across_disks_volumes_are_copied(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Folder(make_folder(4))
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 2)

    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", link)
    merge(shards, tmp_path / "c")
    assert {file.stat().st_nlink for file in (tmp_path / "c").rglob("*.b2nd")} == {1}
    prepare(source, tmp_path / "whole", tiny, workers=0)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def test_a_disk_that_refuses_a_link_for_another_reason_stops_the_merge(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = prepare_shards(Folder(make_folder(2)), tmp_path / "c", (tiny,), 1)

    def link(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match="No space left"):
        merge(shards, tmp_path / "c")


@pytest.mark.parametrize("damage", ["lost", "changed", "mask"])
def test_a_damaged_file_of_a_shard_is_named_and_not_merged(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, damage: str
) -> None:
    shards = prepare_shards(Folder(make_folder(5)), tmp_path / "c", (tiny,), 1)
    file = shards[0] / "volumes" / "tiny" / "p0003.b2nd"
    if damage == "mask":
        file = shards[0] / "masks" / "tiny" / "p0003.body.b2nd"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    if damage != "lost":
        file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{file.name} of 001-of-001 is lost or damaged"):
        merge(shards, tmp_path / "c")
    cohort = Cohort.open(tmp_path / "c")
    assert [row.study_id for row in cohort.studies()] == ["p0000", "p0001", "p0002"]
    assert cohort.verify() == ()
    cohort.close()
    if damage != "lost":
        file.unlink()
    prepare(Folder(tmp_path / "source"), tmp_path / "c", tiny, workers=0, shard=(1, 1))
    merge(shards, tmp_path / "c")
    assert len(Cohort.open(tmp_path / "c").studies()) == 5


def test_labels_of_every_origin_and_their_facts_are_merged(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(6))
    prepare(source, tmp_path / "whole", tiny, workers=0)
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 2)
    for path in (tmp_path / "whole", *shards):
        label_by_rule(path, finding_set("ct_rate18"))
        with CohortWriter(path) as writer:
            rows = [
                LabelRow(study_id=row.study_id, name="Lung nodule", value=0, end=3)
                for row in Cohort.open(path).studies()
            ]
            writer.put_labels("reader/1", rows, told="read twice")
            writer.list_labels_of("reader/1")
    merge(shards, tmp_path / "c")
    merged = Cohort.open(tmp_path / "c")
    assert merged.label_origins == ("reader/1", "rule/ct_rate18", "source")
    assert {row.labels["Lung nodule"] for row in merged.studies()} == {0}
    assert merged.facts["labels/reader/1"] == "read twice"
    assert merged.digest == digest_of(tmp_path / "whole")


def test_every_table_is_merged(make_folder: MakeFolder, tmp_path: Path, tiny: Preparation) -> None:
    """Also those that few sources fill: rows are put into them by hand, in one shard."""
    source = Folder(make_folder(4))
    prepare(source, tmp_path / "whole", tiny, workers=0)
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 2)
    (held,) = (p for p in shards if Cohort.open(p).rows("p0001")["study"])
    for path in (tmp_path / "whole", held):
        with closing(sqlite3.connect(path / "cohort.sqlite")) as tables, tables:
            tables.execute("INSERT INTO slice VALUES ('p0001', 7, 12.5)")
            tables.execute("INSERT INTO box VALUES ('p0001', 0, 'Lung nodule', '[1]', '[2]')")
            tables.execute("INSERT INTO twin VALUES ('p0001', 'p0002', 'Lung nodule')")
    merge(shards, tmp_path / "c")
    merged = Cohort.open(tmp_path / "c")
    assert all(count for table, count in merged.counts.items() if table != "failure")
    assert merged.digest == digest_of(tmp_path / "whole")


def test_a_second_merge_adds_what_is_new_and_drops_what_is_mended(
    troubled: Folder, make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    merge(prepare_shards(troubled, tmp_path / "c", (tiny,), 3), tmp_path / "c")
    shutil.copy(
        troubled.root / "volumes" / "p0000.nii.gz", troubled.root / "volumes" / "p0006.nii.gz"
    )
    rows = rows_of(troubled.root)
    extra = {**rows[0], "volume": "extra", "patient": "new"}
    write_table(troubled.root, [*rows, extra])
    shutil.copy(
        troubled.root / "volumes" / "p0001.nii.gz", troubled.root / "volumes" / "extra.nii.gz"
    )
    for number in (1, 2, 3):
        prepare(troubled, tmp_path / "c", tiny, workers=0, shard=(number, 3), retry_failed=True)
    made = merge(shards_of(tmp_path / "c"), tmp_path / "c")
    assert (made.studies, made.new) == (11, 2)
    assert made.failed == {"unreadable": 2}
    prepare(troubled, tmp_path / "whole", tiny, workers=0)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def test_a_preparation_is_added_to_a_merged_cohort(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(5))
    merge(prepare_shards(source, tmp_path / "c", (tiny,), 2), tmp_path / "c")
    merge(prepare_shards(source, tmp_path / "c", (FLAT,), 2), tmp_path / "c")
    for preparation in (tiny, FLAT):
        prepare(source, tmp_path / "whole", preparation, workers=0)
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")


def refusal(shards: Sequence[Path], out: Path) -> str:
    """Give what merging says; nothing may have been written."""
    before = digest_of(out) if out.exists() else None
    with pytest.raises((StoreError, SourceError)) as caught:
        merge(shards, out)
    assert (digest_of(out) if out.exists() else None) == before
    return caught.value.found


def test_shards_that_do_not_belong_together_are_refused_by_name(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source, out = Folder(make_folder(6)), tmp_path / "m"
    one, two, three = prepare_shards(source, tmp_path / "c", (tiny,), 3)
    (half, _) = prepare_shards(source, tmp_path / "d", (tiny,), 2)
    prepare(source, tmp_path / "whole", tiny, workers=0)
    assert refusal((), out) == "no shards to merge"
    assert refusal((one, three), out) == "shard missing: 2/3"
    assert refusal((three,), out) == "shards missing: 1/3, 2/3"
    assert refusal((one, two, three, two), out) == "shard there twice: 2/3"
    assert refusal((half, two, three), out) == "shards of 2 and of 3"
    assert refusal((one, two, tmp_path / "whole"), out) == "cohort whole is no shard"
    assert refusal((one, two, three), one) == "cohort 001-of-003 is shard 1/3"
    prepare(source, tmp_path / "c", FLAT, workers=0, shard=(3, 3))
    assert refusal((one, two, three), out) == (
        "shard 3/3 has other preparations than shard 1/3: flat"
    )


def test_shards_of_another_source_or_grid_are_refused_by_name(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root, out = make_folder(6), tmp_path / "m"
    source = Folder(root)
    one, two = prepare_shards(source, tmp_path / "c", (tiny,), 2)
    other = Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=11))
    _, wide = prepare_shards(source, tmp_path / "wide", (other,), 2)
    assert refusal((one, wide), out) == "shard 2/2 has other preparations than shard 1/2: tiny"
    prepare(source, tmp_path / "loss", tiny, workers=0, shard=(2, 2), loss_hu=1)
    (loss,) = shards_of(tmp_path / "loss")
    assert refusal((one, loss), out) == "shard 2/2 has other preparations than shard 1/2: tiny"
    (root / "terms.json").write_text('{"licence": "CC BY", "citation": "nobody"}')
    _, free = prepare_shards(source, tmp_path / "free", (tiny,), 2)
    assert (
        refusal((one, free), out) == "shard 2/2 has other facts than shard 1/2: licence, synthetic"
    )
    (root / "terms.json").write_text('{"licence": "CC0", "citation": "nobody", "synthetic": true}')
    make_folder(1, first=6)
    prepare(source, tmp_path / "c", tiny, workers=0, shard=(2, 2))
    assert refusal((one, two), out) == "shard 2/2 has another listing than shard 1/2: tiny"
    prepare(source, tmp_path / "c", tiny, workers=0, shard=(1, 2))
    assert merge((one, two), out).studies == 7
    label_by_rule(two, finding_set("ct_rate18"))
    assert refusal((one, two), out) == (
        "shard 2/2 has other facts than shard 1/2: labels/rule/ct_rate18"
    )


def test_one_study_in_two_shards_is_refused_by_name(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    one, _ = prepare_shards(Folder(make_folder(6)), tmp_path / "c", (tiny,), 2)
    shutil.copytree(one, tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy" / "cohort.sqlite")) as tables, tables:
        tables.execute("UPDATE meta SET value = '2/2' WHERE key = 'shard'")
    first = Cohort.open(one).studies()[0].study_id
    assert refusal((one, tmp_path / "copy"), tmp_path / "m") == (
        f"study {first} is in shard 1/2 and in shard 2/2"
    )


def test_a_cohort_that_says_something_else_is_not_merged_into(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(4)
    source = Folder(root)
    shards = prepare_shards(source, tmp_path / "c", (tiny,), 2)
    text, label, voxel, split, fact = (tmp_path / n for n in ("t", "l", "v", "s", "f"))
    for path in (text, label, voxel, fact):
        merge(shards, path)
    with CohortWriter(text) as writer:
        writer.restate("p0002", Cohort.open(text).reports("p0002"), ())
    assert refusal(shards, text) == "study p0002 is there already with another sentence"
    for path, table, change in (
        (label, "label", "value = 0 WHERE study_id = 'p0001' AND name = 'Lung nodule'"),
        (voxel, "volume", "sha256 = 'another' WHERE volume_id = 'p0001'"),
    ):
        with closing(sqlite3.connect(path / "cohort.sqlite")) as tables, tables:
            tables.execute(f"UPDATE {table} SET {change}")
        with pytest.raises(StoreError, match=f"study p0001 is there already with another {table}"):
            merge(shards, path)
    with closing(sqlite3.connect(fact / "cohort.sqlite")) as tables, tables:
        tables.execute("UPDATE meta SET value = 'ct_rate' WHERE key = 'source_kind'")
    assert refusal(shards, fact).startswith("cohort f has another source_kind")
    rows = rows_of(root)
    write_table(root, [{**rows[1], "split": "test", "study": "later"}])
    (root / "positions.jsonl").unlink()
    (root / "items.jsonl").unlink()
    prepare(source, split, tiny, workers=0)
    assert refusal(shards, split).startswith("split_leak: 1 studies")


def test_a_volume_of_another_study_is_not_taken_over(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    write_table(root, [{**row, "study": f"s{row['volume']}"} for row in rows_of(root)])
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    make_folder(3)
    shards = prepare_shards(Folder(root), tmp_path / "c", (tiny,), 1)
    with pytest.raises(StoreError, match="volume p0000 of study p0000 belongs to study sp0000"):
        merge(shards, tmp_path / "c")


def test_a_shard_that_is_being_written_is_not_merged(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    shards = prepare_shards(Folder(make_folder(4)), tmp_path / "c", (tiny,), 2)
    with CohortWriter(shards[1]), pytest.raises(StoreError, match="002-of-002 is being written"):
        merge(shards, tmp_path / "c")
    assert merge(shards, tmp_path / "c").studies == 4


def test_a_failure_does_not_return_for_a_volume_that_was_mended_after_merging(
    troubled: Folder, tmp_path: Path, tiny: Preparation
) -> None:
    shards = prepare_shards(troubled, tmp_path / "c", (tiny,), 2)
    merge(shards, tmp_path / "c")
    volumes = troubled.root / "volumes"
    shutil.copy(volumes / "p0000.nii.gz", volumes / "p0003.nii.gz")
    assert prepare(troubled, tmp_path / "c", tiny, workers=0, retry_failed=True).done == 1
    mended = digest_of(tmp_path / "c")
    assert merge(shards, tmp_path / "c").new == 0
    assert digest_of(tmp_path / "c") == mended


def cli(*told: object) -> tuple[int, str]:
    """Run the command line; give its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", "from t3d.cli import main; main()", *map(str, told)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_line_prepares_shards_and_merges_them(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder(4)
    (root / "volumes" / "p0002.nii.gz").write_bytes(b"broken")
    told = ("prepare", root, tmp_path / "c", "--workers", "0", "--json")
    codes = [cli(*told, "--shard", f"{number}/2")[0] for number in (1, 2)]
    assert sorted(codes) == [0, 1]  # the broken one is in one of them
    code, text = cli(*told, "--merge")
    assert code == 1
    counts = json.loads(text)
    assert (counts["done"], counts["there_already"]) == (0, 4)
    assert counts["merged"]["failed"] == {"unreadable": 1}
    assert counts["merged"]["studies"] == counts["merged"]["new"] - 1 == 3
    cli("prepare", root, tmp_path / "whole", "--workers", "0")
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "whole")
    code, text = cli(*told, "--merge", "--preparation", "paper")
    assert (code, "not prepared as 'paper'" in text) == (2, True)
    code, text = cli(*told, "--merge", "--shard", "1/2")
    assert (code, "at once" in text) == (2, True)


def test_rows_are_taken_over_once(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    shards = prepare_shards(Folder(make_folder(3)), tmp_path / "c", (tiny,), 1)
    assert merge(shards, tmp_path / "c").new == 3
    assert merge(shards, tmp_path / "c").new == 0
    with closing(sqlite3.connect(tmp_path / "c" / "cohort.sqlite")) as tables:
        rows = Cohort.open(shards[0]).rows("p0001")
        assert records.adopt(tables, "p0001", rows, ("tiny",)) is False
        assert tables.total_changes == 0
