"""What reading 50,000 reports costs: sections, sentences, citations, labels.

    python benchmarks/text.py                                    # phantom reports only
    python benchmarks/text.py --reports ../shared/data/reports/mtsamples_radiology.jsonl
    python benchmarks/text.py --json docs/results/text.json

Reports are put together anew from sentences: of phantoms, two English to one German report, and,
where `--reports` names them, of public transcriptions, a third of the English sentences. Lengths
are drawn from those of the public CT reports (without `--reports`: 500 to 3500 characters). One
sentence in ten cites an image. Each report has four headings.

new words   a number makes each sentence one that never came before: nothing is remembered
as written  sentences repeat, as they do in corpora, and the labeler remembers them

CPU seconds of one thread (user + system), all in memory; making the reports is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loader import Row, row, show
from t3d.phantom.layouts import report_in
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO
from t3d.text.citations import find_citations, strip_citations
from t3d.text.labeler import label_report
from t3d.text.sections import split_sections
from t3d.text.sentences import split_sentences
from t3d.types import Report

BAR_S = 300.0  # for 50,000 reports
BAR_REPORTS = 50_000
PHANTOMS = 60
CITED_SHARE = 0.1
GERMAN_SHARE = 1 / 3
PUBLIC_SHARE = 1 / 3
CHUNK = 500  # reports between two looks at the clock
HEADINGS = {
    "en": ("TECHNIQUE: Helical CT of the chest.", "COMPARISON: None.", "FINDINGS:", "IMPRESSION:"),
    "de": ("Technik: Spiral-CT des Thorax.", "Vergleich: Keiner.", "Befund:", "Beurteilung:"),
}
CITED = {"en": " (series {s}, image {i})", "de": " (Serie {s}, Bild {i})"}
STAGES = ("sections", "citations", "sentences", "labels")


def sentences_of(text: str) -> list[str]:
    """Cut a text into its sentences."""
    return [text[a:b] for a, b in split_sentences(text)]


def phantom_sentences() -> dict[str, list[str]]:
    """Collect what phantoms' reports say, by language."""
    said: dict[str, list[str]] = {"en": [], "de": []}
    for seed in range(PHANTOMS):
        made = patient(seed, preset=DEMO)
        for language, lines in said.items():
            report = report_in(made, language).report
            lines += sentences_of(report.findings) + sentences_of(report.impression)
    return said


def public_reports(path: Path | None) -> tuple[list[str], list[int]]:
    """Give sentences and lengths of the public CT reports."""
    if path is None:
        return [], list(range(500, 3500, 50))
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = [told["text"] for told in rows if told["is_ct"]]
    return [s for text in texts for s in sentences_of(text)], [len(text) for text in texts]


def make_report(
    rng: random.Random, said: dict[str, list[str]], public: Sequence[str], length: int, new: bool
) -> tuple[str, str]:
    """Put one report together; gives its text and language."""
    language = "de" if rng.random() < GERMAN_SHARE else "en"
    head = HEADINGS[language]
    lines, size = [head[2]], len(" ".join(head))
    while size < length:
        own = not public or language == "de" or rng.random() > PUBLIC_SHARE
        sentence = rng.choice(said[language] if own else public).rstrip(".")
        if new:
            sentence += f" [{rng.randrange(10**9)}]"
        if rng.random() < CITED_SHARE:
            sentence += CITED[language].format(s=rng.randrange(1, 9), i=rng.randrange(1, 400))
        lines.append(sentence + ".")
        size += len(lines[-1]) + 1
    lines.insert(max(1, len(lines) - 3), head[3])
    return " ".join((*head[:2], *lines)), language


def read_all(reports: Sequence[tuple[str, str]]) -> tuple[dict[str, float], dict[str, int]]:
    """Read reports stage by stage; gives CPU seconds and what was found."""
    seconds = dict.fromkeys(STAGES, 0.0)
    found = dict.fromkeys(("sentences", "citations", "labels stated"), 0)
    for first in range(0, len(reports), CHUNK):
        chunk = reports[first : first + CHUNK]
        with timed(seconds, "sections"):
            split = [split_sections(text, language=code) for text, code in chunk]
        with timed(seconds, "citations"):
            cut = [cite(report) for report in split]
        with timed(seconds, "sentences"):
            told = [sentences_of(one) + sentences_of(other) for one, other, _ in cut]
        with timed(seconds, "labels"):
            read = [label_report(s, code) for s, (_, code) in zip(told, chunk, strict=True)]
        found["citations"] += sum(number for *_, number in cut)
        found["sentences"] += sum(map(len, told))
        found["labels stated"] += sum(
            one.value is not None for labels in read for one in labels.values()
        )
    return seconds, found


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the CPU seconds of a block to its stage."""
    began = time.process_time()
    yield
    seconds[stage] += time.process_time() - began


def cite(report: Report) -> tuple[str, str, int]:
    """Find and strip what a report cites, as mining does."""
    number = len(find_citations(report.findings)) + len(find_citations(report.impression))
    return strip_citations(report.findings), strip_citations(report.impression), number


def main() -> None:
    """Measure both kinds of reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--reports", type=Path, help="JSON lines of public transcriptions")
    parser.add_argument("--count", type=int, default=BAR_REPORTS)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    said = phantom_sentences()
    public, lengths = public_reports(told.reports)
    rows: list[Row] = []
    for name, new in (("new words", True), ("as written", False)):
        rng = random.Random(0)
        reports = [
            make_report(rng, said, public, rng.choice(lengths), new) for _ in range(told.count)
        ]
        characters = sum(len(text) for text, _ in reports) / told.count
        seconds, found = read_all(reports)
        scale = BAR_REPORTS / told.count
        note = f"{told.count} reports of {characters:.0f} characters on average"
        note += "" if told.count == BAR_REPORTS else f", scaled to {BAR_REPORTS}"
        for stage, spent in seconds.items():
            rows.append(row(f"{name}: {stage}", scale * spent, "s", None, note))
        total = scale * sum(seconds.values())
        rows.append(row(f"{name}: all four", total, "s", BAR_S, f"{note}; baseline: the bar"))
        for what, number in found.items():
            rows.append(row(f"{name}: {what} a report", number / told.count, "", None, note))
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if any(one["value"] > BAR_S for one in rows if str(one["name"]).endswith("all four")):
        sys.stdout.write(f"slower than the bar of {BAR_S:.0f} s\n")


if __name__ == "__main__":
    main()
