"""Prepare, then delete: nothing goes that is not safe; portions make the cohort of the whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import made_amos
import made_bimcv_r
import made_ct_rate
import made_inspect
import made_merlin
import made_msd
import made_rad_chestct
import made_rexgrounding
from t3d import cli
from t3d.cohort import emptying
from t3d.cohort.emptying import MANIFEST, Emptier, Size
from t3d.cohort.listing import Source
from t3d.cohort.prepare import PrepareSummary, prepare
from t3d.cohort.shards import Shard, shards_of
from t3d.cohort.sources import (
    Amos,
    BimcvR,
    CtRate,
    DicomFolder,
    Folder,
    Inspect,
    Merlin,
    Msd,
    RadChestCt,
    ReXGrounding,
)
from t3d.cohort.store import Cohort
from t3d.cohort.union import Rules, Union
from t3d.errors import RecipeError, SourceError
from t3d.types import Preparation, Series, Study, Zyx

MakeFolder = Callable[..., Path]
Open = Callable[[Path], Source]
ROOT = Path(__file__).resolve().parents[2]


def whole_corpus(root: Path) -> Path:
    """A corpus without traps, so that everything can be deleted."""
    volumes = [v for v in made_ct_rate.VOLUMES if v.in_tables and v.on_disk]
    return made_ct_rate.fabricate(root, [v for v in volumes if v.patient != "train_5"])


def both_of(root: Path) -> Union:
    return Union({"a": CtRate(root / "ct-rate"), "b": Inspect(root / "inspect")})


def fabricate_both(root: Path) -> Path:
    made_ct_rate.fabricate(root / "ct-rate")
    made_inspect.fabricate(root / "inspect")
    return root


def rex(root: Path) -> ReXGrounding:
    return ReXGrounding(root, volumes=str(root / "ct-rate"))


CORPORA: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "amos": (made_amos.fabricate, Amos),
    "bimcv_r": (made_bimcv_r.fabricate, BimcvR),
    "ct_rate": (made_ct_rate.fabricate, CtRate),
    "ct_rate, first release": (lambda r: made_ct_rate.fabricate(r, version=1), CtRate),
    "inspect": (made_inspect.fabricate, Inspect),
    "inspect, older": (made_inspect.fabricate_older, Inspect),
    "merlin": (made_merlin.fabricate, Merlin),
    "msd": (made_msd.fabricate, Msd),
    "rad_chestct": (made_rad_chestct.fabricate, RadChestCt),
    "rexgrounding": (made_rexgrounding.fabricate, rex),
    "union": (fabricate_both, both_of),
}


def volumes_of(source: Source) -> list[Path]:
    """The files of all series that are there."""
    files = (f for study in source.studies() for one in study.series for f in one.files)
    return [file for file in files if file.exists()]


def reasons_of(cohort: Cohort) -> list[tuple[str, str, str]]:
    """What was set aside and why; of several missing files the first one is told."""
    return [(told.study_id, told.volume_id, told.reason) for told in cohort.failures()]


def empty(
    source: Source, cohort: Path, preparation: Preparation, **more: bool
) -> tuple[PrepareSummary, Emptier]:
    """Prepare and delete."""
    emptier = Emptier(source, cohort, **more)
    return prepare(source, cohort, preparation, workers=0, after=emptier), emptier


def without(files: Iterable[Path], root: Path, store: Path) -> None:
    """Take files out of a tree, as if they had not been downloaded yet."""
    for file in files:
        kept = store / file.relative_to(root)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, kept)


def test_the_sources_that_need_no_files_to_be_listed_are_all_tested() -> None:
    kinds = {name.partition(",")[0] for name in CORPORA}
    assert kinds - {"union"} == set(MANIFEST)


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_in_three_portions_makes_the_cohort_of_the_whole(
    name: str, tmp_path: Path, tiny: Preparation
) -> None:
    fabricate, opened = CORPORA[name]
    at_once, root = fabricate(tmp_path / "at once"), fabricate(tmp_path / "portions")
    whole = prepare(opened(at_once), tmp_path / "whole", tiny, workers=0)
    files = volumes_of(opened(root))
    left, out, done = len(files), tmp_path / "cohort", 0
    shares = [share for n in range(3) if (share := files[n::3])]
    for n, share in enumerate(shares):
        without(share, root, tmp_path / str(n))
    for n, share in enumerate(shares):
        shutil.copytree(tmp_path / str(n), root, dirs_exist_ok=True)  # the next download
        made, emptier = empty(opened(root), out, tiny)
        again, idle = empty(opened(root), out, tiny)
        assert (again.done, idle.deleted) == (0, Size(0, 0))
        left -= emptier.deleted.files
        done += made.done
        assert emptier.deleted.files <= len(share)
        assert emptier.kept == {}
    assert done >= whole.done > 0
    cohort = Cohort.open(out)
    assert cohort.verify() == ()
    assert reasons_of(cohort) == reasons_of(Cohort.open(tmp_path / "whole"))
    assert cohort.digest == Cohort.open(tmp_path / "whole").digest
    # What is left on the disk is what could not be prepared, and everything that is no volume.
    assert len(volumes_of(opened(root))) == left == len(files) - cohort.counts["volume"]
    gone = {f.relative_to(at_once) for f in at_once.rglob("*") if f.is_file()}
    gone -= {f.relative_to(root) for f in root.rglob("*") if f.is_file()}
    assert gone <= {f.relative_to(root) for f in files}


def test_a_failed_series_keeps_its_files_and_its_study_loses_the_others(
    tmp_path: Path, tiny: Preparation
) -> None:
    root = whole_corpus(tmp_path / "source")
    broken = root / "train_fixed/train_1/train_1_a/train_1_a_2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    _, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert volumes_of(CtRate(root)) == [broken]
    assert emptier.deleted.files == Cohort.open(tmp_path / "c").counts["volume"]
    assert not (broken.parent / "train_1_a_1.nii.gz").exists()


def test_a_survey_counts_files_and_bytes_and_deletes_nothing(
    tmp_path: Path, tiny: Preparation
) -> None:
    root = whole_corpus(tmp_path / "source")
    files = volumes_of(CtRate(root))
    total = sum(file.stat().st_size for file in files)
    before = Emptier(CtRate(root), tmp_path / "c").survey()
    assert before == {"not_recorded": Size(len(files), total)}
    assert not (tmp_path / "c").exists()
    prepare(CtRate(root), tmp_path / "c", tiny, workers=0)
    files[0].write_bytes(files[0].read_bytes() + b"\0")
    after = Emptier(CtRate(root), tmp_path / "c").survey()
    size = files[0].stat().st_size
    assert after == {"": Size(len(files) - 1, total + 1 - size), "changed": Size(1, size)}
    assert volumes_of(CtRate(root)) == files


# Prepares and deletes; dies at the first file that is about to be deleted.
KILLED = """
import os, signal, sys
from pathlib import Path
from t3d.cohort import emptying
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import CtRate
from t3d.types import Preparation, Zyx

def die(self, file):
    os.kill(os.getpid(), signal.SIGKILL)

emptying.Emptier._delete = die
source, out = CtRate(sys.argv[1]), Path(sys.argv[2])
tiny = Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=10))
prepare(source, out, tiny, workers=0, after=emptying.Emptier(source, out))
"""


def test_a_kill_between_record_and_deletion_loses_nothing_and_the_next_run_deletes(
    tmp_path: Path, tiny: Preparation
) -> None:
    root = whole_corpus(tmp_path / "source")
    files = volumes_of(CtRate(root))
    command = [sys.executable, "-c", KILLED, str(root), str(tmp_path / "c")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    assert volumes_of(CtRate(root)) == files
    assert Cohort.open(tmp_path / "c").counts["study"] == 1  # the record had been committed
    made, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert made.skipped == 1
    assert emptier.deleted.files == len(files)
    assert volumes_of(CtRate(root)) == []
    prepare(CtRate(whole_corpus(tmp_path / "again")), tmp_path / "whole", tiny, workers=0)
    assert Cohort.open(tmp_path / "c").digest == Cohort.open(tmp_path / "whole").digest


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_files_stay_when_what_was_stored_does_not_read_back(
    how: str, tmp_path: Path, tiny: Preparation
) -> None:
    root = whole_corpus(tmp_path / "source")
    files = volumes_of(CtRate(root))
    prepare(CtRate(root), tmp_path / "c", tiny, workers=0)
    stored = tmp_path / "c/volumes/tiny" / f"{files[0].name.removesuffix('.nii.gz')}.b2nd"
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.unlink()
    if how != "gone":
        stored.write_bytes(content if how == "flipped" else content[:-9])
    survey = Emptier(CtRate(root), tmp_path / "c").survey()
    assert survey["damaged_store"].files == 1
    if how == "gone":
        return  # the next run prepares it again
    _, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert emptier.kept == {"damaged_store": 1}
    assert volumes_of(CtRate(root)) == files[:1]


def test_files_stay_while_another_preparation_of_the_cohort_lacks_them(
    tmp_path: Path, tiny: Preparation
) -> None:
    root = whole_corpus(tmp_path / "source")
    files = volumes_of(CtRate(root))
    other = Preparation(name="other", size_vox=Zyx(z=9, y=9, x=9))
    prepare(CtRate(root, splits=("valid",)), tmp_path / "c", other, workers=0)
    _, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert emptier.deleted.files == 2  # of valid, which is there in both
    assert emptier.kept == {"not_recorded": len(files) - 2}
    empty(CtRate(root), tmp_path / "c", other)
    assert volumes_of(CtRate(root)) == []


def test_a_file_that_is_another_one_by_now_stays(tmp_path: Path, tiny: Preparation) -> None:
    """As where v1 and v2 lie side by side: when v2 is gone, v1 is listed in its place."""
    root = whole_corpus(tmp_path / "source")
    (fixed, *_) = volumes_of(CtRate(root))
    first = made_ct_rate.write_volume(root, made_ct_rate.VOLUMES[0], version=1)
    assert first.name == fixed.name
    empty(CtRate(root), tmp_path / "c", tiny)
    assert not fixed.exists()
    made, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert (made.done, emptier.kept) == (0, {"changed": 1})
    assert first.exists()


def test_no_link_leads_out_of_the_source(tmp_path: Path, tiny: Preparation) -> None:
    root = whole_corpus(tmp_path / "source")
    found = {file.name.removesuffix(".nii.gz"): file for file in volumes_of(CtRate(root))}
    one, two, three, four = (
        found[f"{n}_a_1"] for n in ("train_1", "valid_1", "train_2", "train_3")
    )
    outside = tmp_path / "elsewhere" / one.name
    outside.parent.mkdir()
    shutil.move(one, outside)
    one.symlink_to(outside)  # a file's link out of the source
    shutil.move(two.parent.parent, tmp_path / "other")
    two.parent.parent.symlink_to(tmp_path / "other")  # a folder's
    inside = root / "store" / three.name
    inside.parent.mkdir()
    shutil.move(three, inside)
    three.symlink_to(os.path.relpath(inside, three.parent))  # a link that stays inside
    os.link(four, tmp_path / "second name")
    _, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert outside.exists()
    assert one.is_symlink()
    assert two.exists()
    assert emptier.kept == {"outside": 2}
    assert not inside.exists()
    assert not three.is_symlink()
    assert not four.exists()  # as any file; its other name is another's
    assert (tmp_path / "second name").exists()


def test_a_source_that_is_a_link_itself_is_emptied(tmp_path: Path, tiny: Preparation) -> None:
    root = whole_corpus(tmp_path / "source")
    (tmp_path / "link").symlink_to(root)
    empty(CtRate(tmp_path / "link"), tmp_path / "c", tiny)
    assert volumes_of(CtRate(root)) == []


class TwoOfOneFile:
    """Lists one file for two series, one of which cannot be prepared."""

    kind = "made_here"
    terms = Folder.terms

    def __init__(self, root: Path) -> None:
        self.root = root

    def studies(self) -> Iterable[Study]:
        for study in Folder(self.root).studies():
            (series,) = study.series
            twin = Series(series_id=f"{series.series_id}_twin", files=series.files)
            yield Study(study_id=study.study_id, patient_id="p", series=(series, twin))


def test_a_file_of_two_series_stays(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = TwoOfOneFile(make_folder(2))
    _, emptier = empty(source, tmp_path / "c", tiny, force=True)  # type: ignore[arg-type]
    assert emptier.deleted.files == 0
    assert emptier.kept == {"shared": 4}


def test_a_file_that_may_not_be_deleted_is_told_and_the_run_goes_on(
    tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = whole_corpus(tmp_path / "source")
    count = len(volumes_of(CtRate(root)))
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "train_1_a_1.nii.gz":
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    made, emptier = empty(CtRate(root), tmp_path / "c", tiny)
    assert emptier.kept == {"not_permitted": 1}
    assert emptier.deleted.files == count - 1
    assert made.done == Cohort.open(tmp_path / "c").counts["study"] > 5


def test_each_shard_deletes_what_it_has_recorded(tmp_path: Path, tiny: Preparation) -> None:
    root = whole_corpus(tmp_path / "source")
    left = len(volumes_of(CtRate(root)))
    for number in (1, 2):
        part = Shard(number, 2)
        emptier = Emptier(CtRate(root), part.folder(tmp_path / "c"))
        prepare(CtRate(root), tmp_path / "c", tiny, workers=0, shard=part, after=emptier)
        left -= emptier.deleted.files
        assert len(volumes_of(CtRate(root))) == left
    assert left == 0
    assert len(shards_of(tmp_path / "c")) == 2


def test_a_persons_own_folder_must_be_forced(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    shutil.rmtree(root / "masks", ignore_errors=True)
    with pytest.raises(SourceError, match="your own data") as caught:
        Emptier(Folder(root), tmp_path / "c")
    assert "--delete-sources force" in caught.value.fix
    empty(Folder(root), tmp_path / "c", tiny, force=True)
    assert volumes_of(Folder(root)) == []
    assert (root / "studies.csv").is_file()
    digest = Cohort.open(tmp_path / "c").digest
    made, _ = empty(Folder(root), tmp_path / "c", tiny, force=True)
    assert (made.done, Cohort.open(tmp_path / "c").digest) == (0, digest)


def test_sources_that_would_list_other_studies_afterwards_are_refused_whatever_is_said(
    make_folder: MakeFolder, real_data: Path, tmp_path: Path
) -> None:
    root = make_folder(2)
    volume = volumes_of(Folder(root))[0]
    (root / "masks").mkdir(exist_ok=True)
    shutil.copy(volume, root / "masks" / f"{volume.name.removesuffix('.nii.gz')}_lung.nii.gz")
    by_depth = Union({"ct_rate": CtRate(whole_corpus(tmp_path / "c"))}, rules=Rules(min_slices=9))
    dicom = next((real_data / "dicom").iterdir())
    with DicomFolder(dicom, key=tmp_path / "key") as tree:
        nested = [Union({"ours": one}) for one in (by_depth, tree)]
        for source in (Folder(root), by_depth, tree, *nested):
            with pytest.raises(SourceError, match="cannot be deleted while preparing"):
                Emptier(source, tmp_path / "cohort", force=True)


def test_the_command_says_deletes_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = whole_corpus(tmp_path / "source"), tmp_path / "c"
    files = volumes_of(CtRate(root))
    total = sum(file.stat().st_size for file in files)

    def told(*words: str) -> str:
        command = ["prepare", str(root), str(out), "--workers", "0", "--delete-sources", *words]
        cli.app(command, exit_on_error=False, result_action="return_value")
        return capsys.readouterr().out

    assert f"{len(files)} files" in told("dry-run")
    assert volumes_of(CtRate(root)) == files
    assert json.loads(told("yes", "--json"))["source_files"] == {
        "deleted": {"files": len(files), "bytes": total},
        "kept": {},
    }
    assert "0 source files deleted" in told("yes")
    assert "no files of volumes are here" in told("dry-run")
    with pytest.raises(RecipeError, match="perhaps"):
        told("perhaps")


def test_every_reason_to_keep_a_file_is_told_in_words() -> None:
    assert all(len(told.split()) > 3 for told in emptying.REASONS.values())
