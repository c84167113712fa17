"""Keyed hashes instead of identifiers: same key, same ids; without the key, no way back.

An id is a prefix for what it names and the first 20 hex digits (80 bits) of
HMAC-SHA256(key, kind, 0, identifier). Two of n identifiers share an id with odds of about
n * n / 2**81: 4e-13 for a million, 4e-7 for a thousand million.

These are pseudonyms, not anonymity: who holds the key and a list of identifiers can hash the list
and compare. The key stays where it was made.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from t3d.errors import SourceError

KEY_BYTES = 32
ID_DIGITS = 20
_PREFIX = {"patient": "p", "study": "st", "series": "se", "row": "r"}


def key_place() -> Path:
    """Where the key lies unless a path is given: `~/.config/t3d/key`."""
    return Path.home() / ".config" / "t3d" / "key"


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Turns identifiers into ids that mean nothing without the key."""

    key: bytes = field(repr=False)

    def of(self, kind: str, *identifiers: str) -> str:
        """Give the id of one thing.

        Spaces around an identifier do not count: DICOM pads values to an even length.

        Args:
            kind: "patient", "study", "series" or "row"; equal identifiers of different kinds get
                different ids.
            identifiers: What names the thing; several where one alone is not unique.

        Check: key of 32 zero bytes, patient "1": pae00feca8c5b4ed5d028.
        """
        told = "\0".join((kind, *(value.strip() for value in identifiers)))
        digest = hmac.new(self.key, told.encode("utf-8", "surrogateescape"), sha256).hexdigest()
        return _PREFIX[kind] + digest[:ID_DIGITS]


def open_pseudonyms(path: str | Path | None = None) -> Pseudonyms:
    """Read the key file, or make it once with mode 0600.

    The file holds 64 hex digits. It is never written again: another key would give every patient
    a second id. Keep a copy in a safe place if the cohort is to grow.

    Args:
        path: The key file; None = `~/.config/t3d/key`.

    Raises:
        SourceError: Others may read it, it is not the user's own, or it holds no key.
    """
    path = key_place() if path is None else Path(path)
    if not path.exists():
        _make(path)
    return Pseudonyms(_read(path))


def _make(path: Path) -> None:
    """Write a new key whole under another name, and give it its name only if that is free."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name is taken: of two processes that start at once, one key wins.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _read(path: Path) -> bytes:
    """Read the key after looking at who may read it; messages name the file's name only."""
    with open(path, "rb") as file:
        told = os.fstat(file.fileno())
        if stat.S_IMODE(told.st_mode) & 0o077 or told.st_uid not in (os.geteuid(), 0):
            raise SourceError(
                f"the key file {path.name} has mode {stat.S_IMODE(told.st_mode):04o} or is "
                "somebody else's",
                expected="mode 0600, owned by the user who runs t3d",
                fix="chmod 600 the key file; if others may have read it, its ids are no secret",
            )
        content = file.read(4 * KEY_BYTES)
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:  # the cause would quote the key
        key = b""
    if len(key) != KEY_BYTES:
        raise SourceError(
            f"the key file {path.name} holds no key",
            expected=f"{2 * KEY_BYTES} hex digits",
            fix="put the right file there, or give another path, where a new key is made",
        )
    return key


def age_years(told: str, *, oldest: int | None = None) -> str:
    """Turn a DICOM age ("036Y", "018M", "010W", "005D") or a number into whole years.

    Args:
        told: As the header or table has it.
        oldest: Greater ages become this one; ages above 89 identify people (45 CFR 164.514).

    Returns:
        Years as digits; "" for what is no age.

    Check: "036Y" -> "36", "018M" -> "1", "093Y" with oldest=90 -> "90".
    """
    told = told.strip().upper()
    digits, unit = (told, "Y") if told.isdigit() else (told[:-1], told[-1:])
    per_year = {"Y": 1, "M": 12, "W": 52, "D": 365}
    if not (digits.isascii() and digits.isdigit()) or unit not in per_year or len(digits) > 5:
        return ""
    years = int(digits) // per_year[unit]
    if years > 130:
        return ""
    return str(years if oldest is None else min(years, oldest))
