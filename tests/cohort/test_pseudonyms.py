"""Keyed hashes of identifiers and the file their key lies in."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from t3d.cohort.pseudonyms import ID_DIGITS, Pseudonyms, age_years, key_place, open_pseudonyms
from t3d.errors import SourceError

KEY = bytes(range(32))


def slow_hmac(key: bytes, message: bytes) -> str:
    """HMAC as its definition says: two hashes with the padded key."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner).hexdigest()


def test_an_id_is_the_truncated_keyed_hash_of_kind_and_identifier() -> None:
    told = Pseudonyms(KEY).of("study", "1.2.3", "x")
    assert told == "st" + slow_hmac(KEY, b"study\x001.2.3\x00x")[:20]
    # By hand: HMAC-SHA256 under 32 zero bytes of b"patient\\x001".
    assert Pseudonyms(bytes(32)).of("patient", "1") == "pae00feca8c5b4ed5d028"


def test_the_same_key_gives_the_same_ids_and_another_key_others() -> None:
    assert Pseudonyms(KEY).of("patient", "7") == Pseudonyms(KEY).of("patient", "7")
    assert Pseudonyms(KEY).of("patient", "7") != Pseudonyms(bytes(32)).of("patient", "7")


def test_kinds_and_neighbouring_identifiers_do_not_run_together() -> None:
    one = Pseudonyms(KEY)
    ids = {
        one.of("patient", "12")[-20:],
        one.of("study", "12")[-20:],
        one.of("study", "1", "2")[-20:],
    }
    assert len(ids) == 3


def test_the_spaces_that_dicom_pads_with_do_not_count() -> None:
    assert Pseudonyms(KEY).of("patient", "123 ") == Pseudonyms(KEY).of("patient", "123")


def test_an_identifier_in_any_alphabet_has_an_id() -> None:
    ids = {Pseudonyms(KEY).of("patient", name) for name in ("\u5c71\u7530", "\udcff", "")}
    assert len(ids) == 3


def test_the_stated_odds_are_those_of_so_many_digits() -> None:
    # Birthday bound n^2 / (2 * 16^digits); the module says 4e-13 for a million.
    million, thousand_million = (n**2 / (2 * 16**ID_DIGITS) for n in (1e6, 1e9))
    assert million == pytest.approx(4e-13, rel=0.1)
    assert thousand_million == pytest.approx(4e-7, rel=0.1)


def test_a_hundred_thousand_ids_are_all_different() -> None:
    one = Pseudonyms(KEY)
    assert len({one.of("patient", str(n)) for n in range(100_000)}) == 100_000


def test_the_key_shows_in_no_repr() -> None:
    assert KEY.hex() not in repr(Pseudonyms(KEY))
    assert repr(KEY) not in repr(Pseudonyms(KEY))


def test_a_key_is_made_once_for_its_owner_alone_and_never_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    first = open_pseudonyms(path)
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(content.decode().strip())) == 32
    again = open_pseudonyms(path)
    assert path.read_bytes() == content
    assert first.of("patient", "1") == again.of("patient", "1")
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_a_key_is_made_closed_even_under_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_pseudonyms(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_two_new_keys_differ(tmp_path: Path) -> None:
    one, other = open_pseudonyms(tmp_path / "a"), open_pseudonyms(tmp_path / "b")
    assert one.of("patient", "1") != other.of("patient", "1")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o620, 0o666])
def test_a_key_that_others_may_read_or_write_is_refused_and_left_as_it_is(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "key"
    open_pseudonyms(path)
    content = path.read_bytes()
    path.chmod(mode)
    with pytest.raises(SourceError, match=f"{mode:04o}") as caught:
        open_pseudonyms(path)
    assert content.decode().strip() not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"not hex at all", b"ab" * 31, b"ab" * 33, b"\xff" * 64])
def test_a_file_that_holds_no_key_is_refused_and_never_overwritten(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SourceError, match="holds no key") as caught:
        open_pseudonyms(path)
    assert caught.value.__cause__ is None
    assert path.read_bytes() == content


def test_the_key_lies_in_the_documented_place_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_pseudonyms()
    assert key_place() == tmp_path / ".config" / "t3d" / "key"
    assert key_place().is_file()


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from t3d.cohort.pseudonyms import open_pseudonyms; "
        "print(open_pseudonyms(sys.argv[1]).of('patient', '1'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "key")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0, 0]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("told", "years"),
    [
        *(("036Y", "36"), ("36", "36"), (" 036y ", "36"), ("018M", "1"), ("011M", "0")),
        *(("104W", "2"), ("364D", "0"), ("365D", "1"), ("000Y", "0"), ("093Y", "93")),
        *(("", ""), ("Y", ""), ("-5Y", ""), ("3.5Y", ""), ("36X", ""), ("nan", ""), ("999Y", "")),
        ("\u0663Y", ""),
    ],
)
def test_ages_are_whole_years(told: str, years: str) -> None:
    assert age_years(told) == years


def test_ages_above_the_oldest_become_the_oldest() -> None:
    ages = [age_years(told, oldest=90) for told in ("089Y", "090Y", "091Y", "107Y")]
    assert ages == ["89", "90", "90", "90"]
