"""Reports of the phantom's own plans, whose items are richer than those made up for a test."""

from __future__ import annotations

from t3d.phantom.items import PlacedItem
from t3d.phantom.patient import plan
from t3d.phantom.report import write_report
from t3d.phantom.streams import stream
from t3d.text.labeler import label_sentence

NUM = 250


def test_every_sentence_of_a_planned_patient_is_read_as_it_was_meant() -> None:
    for seed in range(NUM):
        drawn = plan(seed)
        items = [
            PlacedItem(item=one.item, z_mm=(0.0, -1.0, 1.0), count=one.count, extra=one.extra)
            for one in drawn.planned
        ]
        for wording in ("train", "heldout"):
            written = write_report(drawn.labels, items, stream(seed, "report"), wording=wording)
            for s in written.sentences:
                text = getattr(written.report, s.section)[s.start : s.end]
                read = dict(label_sentence(text))
                assert read == {s.finding: 1} if s.finding else 1 not in read.values(), text
