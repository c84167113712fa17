"""The archives of the malformed corpus, case by case, against what its manifest expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3d.ct.dicom.archive import dicom_files
from t3d.ct.guard import RefusedFile

READ = {  # case -> files that come out
    "ok_reference.zip": 4,
    # "repair": names never leave the archive, so there is nothing to repair.
    "control_chars.zip": 5,
    "markup_name.zip": 5,
    "case_clash.zip": 5,
}
REFUSED = {  # case -> rule that is named, or the reason where no rule is broken
    "traversal.zip": "traversal",
    "traversal_hidden.zip": "traversal",
    "absolute.zip": "absolute",
    "backslash.zip": "traversal",
    "drive.zip": "drive",
    "symlink.zip": "link",
    "long_name.zip": "long name",
    "same_name_twice.zip": "duplicate",
    "nested.zip": "nested",
    "no_images.zip": "not_dicom",
    "empty.zip": "not_dicom",
    "cut.zip": "unreadable",
    "crc.zip": "unreadable",
    "encrypted_flag.zip": "encrypted",
    # Not by the number of entries, which a whole examination reaches, but of empty ones.
    "many_entries.zip": "empty entries",
    "bomb.zip": "ratio",
    # Not as a bomb: reading stops at the 1000 bytes claimed, where the checksum does not fit.
    "bomb_lying_size.zip": "unreadable",
    "traversal.tar.gz": "traversal",
}


def test_every_archive_of_the_manifest_is_decided_as_it_expects(malformed: Path) -> None:
    rows = json.loads((malformed / "manifest.json").read_text(encoding="utf-8"))
    cases = {row["path"][4:]: row for row in rows if row["path"].startswith("zip/")}
    assert set(cases) == {*READ, *REFUSED}
    assert len(cases) == 22
    for name, row in cases.items():
        assert (row["expect"] == "reject") == (name in REFUSED), name
        assert row.get("slices", READ.get(name)) == READ.get(name), name


@pytest.mark.parametrize("name", READ)
def test_archives_that_are_read_give_their_files_under_our_names(
    malformed: Path, name: str
) -> None:
    with dicom_files(malformed / "zip" / name) as files:
        assert [p.name for p in files] == [f"{i:04d}.dcm" for i in range(1, READ[name] + 1)]
        assert all(p.read_bytes()[128:132] == b"DICM" for p in files)
        assert files.left_out == {}


@pytest.mark.parametrize("name", REFUSED)
def test_archives_that_are_refused_say_which_rule_they_break(
    malformed: Path, tmp_path: Path, name: str
) -> None:
    with (
        pytest.raises(RefusedFile) as caught,
        dicom_files(malformed / "zip" / name, scratch=tmp_path),
    ):
        pass
    error = caught.value
    told = error.found.split("'")[1] if error.reason == "unsafe_archive" else error.reason
    assert told == REFUSED[name]
    assert "evil" not in str(error)
    assert str(error).replace("\n", "").isprintable()
    assert error.expected
    assert error.fix
    assert list(tmp_path.iterdir()) == []
