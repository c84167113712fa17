"""Write every field of every protocol side by side into docs/reference/protocols.md.

    python tools/protocols_table.py [--check]

The tables are made of the frozen instances, so that the page cannot say anything else than the
code does. With --check nothing is written; the exit status is 1 if the page is not up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from t3d.judge.data.classes import CLASSES, MAPPINGS
from t3d.judge.data.figures import FIGURES
from t3d.judge.data.templates import AROUND_NAMES, BY_FINDING, SOURCES
from t3d.judge.protocol import PARTS, Protocol
from t3d.judge.protocols import PROTOCOLS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "protocols.md"
BEGIN, END = "<!-- protocols:begin -->", "<!-- protocols:end -->"
TITLES = {
    "classification": "Classification",
    "retrieval": "Text and volume",
    "neighbours": "Volume and volume",
    "pools": "Small pools",
    "localization": "Depth of a sentence",
    "intervals": "Intervals",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    given = parser.parse_args(argv)
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    made = "\n".join([f"{head}{BEGIN}", *lines(), f"{END}{tail}"])
    if given.check:
        return int(made != text)
    PAGE.write_text(made, encoding="utf-8")
    return 0


def lines() -> Iterator[str]:
    """The generated part of the page."""
    yield from _overview()
    for part in (*PARTS, "intervals"):
        members = [p for p in PROTOCOLS if getattr(p, part) is not None]
        yield from ("", f"## {TITLES[part]}", "")
        names = _names(members, part)
        yield from _table(
            ("field", *(f"`{p.name}`" for p in members)),
            [(name, *(_field(p, part, name) for p in members)) for name in names],
        )
    yield from _data()


def _overview() -> Iterator[str]:
    """Source, code, floor, ceiling and warnings of each protocol."""
    yield ""
    for protocol in PROTOCOLS:
        request = " (on request only)" if protocol.on_request else ""
        yield f"- **`{protocol.name}`**{request} {protocol.source}."
        code = f" Code: {protocol.code}." if protocol.code else ""
        yield f"  Digest `{protocol.digest()[:12]}`.{code}"
        yield f"  Floor: {protocol.floor}. Ceiling: {protocol.ceiling}."
        yield from (f"  *Beside every number:* {warning}." for warning in protocol.warnings)


def _names(members: Sequence[Protocol], part: str) -> list[str]:
    """Fields of a part, in the order they are defined."""
    return list(
        dict.fromkeys(
            place.partition(".")[2]
            for protocol in members
            for place, _ in protocol.fields()
            if place.startswith(f"{part}.")
        )
    )


def _field(protocol: Protocol, part: str, name: str) -> str:
    """One value as a cell."""
    said = dict(protocol.fields())[f"{part}.{name}"]
    return said or "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; bars inside cells are escaped."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _data() -> Iterator[str]:
    """Class lists, mappings, prompts and published figures."""
    yield from ("", "## Class lists", "")
    yield from _table(
        ("list", "findings", "names"),
        [(f"`{name}`", str(len(found)), ", ".join(found)) for name, found in CLASSES.items()],
    )
    yield from ("", "## Mappings of a corpus's own labels", "")
    yield from _table(
        ("mapping", "finding", "any of"),
        [
            (f"`{name}`", finding, ", ".join(own))
            for name, table in MAPPINGS.items()
            for finding, own in table.items()
        ],
    )
    yield from ("", "## Prompts", "")
    around = [
        (f"`{name}`", SOURCES[name], "any", *pair)
        for name, pairs in AROUND_NAMES.items()
        for pair in pairs
    ]
    by_finding = [
        (f"`{name}`", SOURCES[name], finding, *pair)
        for name, table in BY_FINDING.items()
        for finding, pair in table.items()
    ]
    yield from _table(("set", "source", "finding", "present", "absent"), [*around, *by_finding])
    yield from ("", "## Published figures", "")
    yield from _table(
        ("model", "metric", "value", "protocol", "sample", "source", "tag", "note"),
        [
            (
                *(
                    f.model,
                    f"`{f.metric}`",
                    f"{f.value:g}",
                    f"`{f.protocol}`" if f.protocol else "-",
                ),
                *(f.sample or "-", f.source, f.tag, f.note or "-"),
            )
            for f in FIGURES
        ],
    )
    yield ""


if __name__ == "__main__":
    sys.exit(main())
