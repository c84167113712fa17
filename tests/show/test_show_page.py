"""Pages: the numbers are on them, gaps are named, and nothing is loaded from anywhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fabricated
from t3d.errors import SourceError
from t3d.show import page
from t3d.show.page import demo_page, run_page
from t3d.text.findings import CT_RATE_18

VOID = {"meta", "img", "br", "line", "circle", "path", "link", "hr"}


class Checker(HTMLParser):
    """Collects what the tests ask for and that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.charts: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(told)
        if tag == "svg":
            self.charts.append(told)
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]
        self.ids += [v or "" for k, v in attrs if k == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def words(path: Path) -> str:
    return re.sub(r"\s+", " ", " ".join(check(path).text))


class FakeOpen:
    """Stands where the page opens a cohort."""

    @staticmethod
    def open(path: Path) -> fabricated.FakeCohort:
        assert path.name == "cohort"
        return fabricated.FakeCohort()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fabricated.write_demo(tmp_path_factory.mktemp("demo"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "Cohort", FakeOpen)
        return demo_page(root, root)


def test_the_page_is_one_file_of_moderate_size(demo: Path) -> None:
    assert demo.name == "report.html"
    assert demo.stat().st_size < page.MAX_BYTES


def test_nothing_is_loaded_from_outside_and_no_script_runs(demo: Path) -> None:
    checker = check(demo)
    assert all(link.startswith(("data:image/", "#")) for link in checker.links)
    assert {link[1:] for link in checker.links if link.startswith("#")} <= set(checker.ids)
    assert not {"script", "link", "iframe", "object"} & set(checker.tags)
    text = demo.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_pictures_charts_and_tables_can_be_read_without_seeing(demo: Path) -> None:
    checker = check(demo)
    assert len(checker.images) >= 20
    assert all(image["alt"] for image in checker.images)
    assert len(checker.charts) > 10
    assert all(c["role"] == "img" and c["aria-label"] for c in checker.charts)
    assert checker.tags.count("caption") == checker.tags.count("table") > 10
    assert 'lang="en"' in demo.read_text()


def test_it_warns_first_that_the_patients_are_synthetic(demo: Path) -> None:
    text = words(demo)
    assert text.index("Synthetic phantoms; not clinical.") < text.index("t3d_plus")


@pytest.mark.parametrize(
    "number",
    [
        "0.821",  # t3d_plus bank macro
        "[0.806, 0.836]",
        "0.661",  # t3d_plus template macro
        "0.872",  # supervised
        "0.634",  # logistic
        "0.830",  # R@10
        "strict 0.820",
        "72 %",  # share of the ceiling
        "150 s (2.5 min)",
        "4.159",  # chance of the loss
        "2.130",
        "feedc0ffee",
        "0123abcd",
        "Some Processor 9000",
        "452 s (7.5 min)",
        "700 s (11.7 min)",  # sum of the stages: 96 + 131.5 + 452.25 + 20
        "0.0003",  # text use
        "84 s 700",  # supervised: core time and steps
        "clip a part of the above 155 s",
    ],
)
def test_the_numbers_of_the_summary_stand_on_the_page(demo: Path, number: str) -> None:
    assert number in words(demo)


def test_every_finding_recipe_and_meter_is_named(demo: Path) -> None:
    text = words(demo)
    for name in (*CT_RATE_18, "clip", "t3d_v3", "t3d_plus", "supervised", "logistic", "shuffled"):
        assert name in text
    assert "not met tma/text_dominance at most 0.1 0.24" in text
    assert "met tma/leak at most 0.1 0.031" in text


def test_what_lost_and_what_was_not_measured_is_said(demo: Path) -> None:
    text = words(demo)
    assert "t3d_v3 loses to clip: report-to-image R@10" in text
    assert re.search(r"shuffled t3d_plus on reports of other patients .{0,25} not measured", text)


def test_reports_are_escaped(demo: Path) -> None:
    assert "Nodule &lt;left&gt;." in demo.read_text()


def test_light_and_dark_and_narrow_screens_are_provided_for(demo: Path) -> None:
    text = demo.read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_page_can_be_drawn_again_with_the_same_bytes(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "Cohort", FakeOpen)
    again = demo_page(demo.parent, tmp_path / "again.html")
    assert again.read_bytes() == demo.read_bytes()


def test_a_bare_summary_gives_a_page_that_names_every_gap(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"recipes": {"clip": {}}}))
    text = words(demo_page(tmp_path, tmp_path / "out" / "page.html"))
    assert "No recipe has a measured zero-shot score yet." in text
    assert "Hits and misses: not measured." in text
    assert "Curves: not measured" in text
    assert "Final losses: not measured." in text
    assert "commit not recorded" in text
    assert text.count("not measured") > 60
    assert re.search(r"\bnan\b", text.lower()) is None


def test_a_demo_without_cohort_says_so_and_shows_no_path(tmp_path: Path) -> None:
    root = fabricated.write_demo(tmp_path)
    text = words(demo_page(root, root))
    assert "Hits and misses: not measured (the cohort beside the summary cannot be read)" in text
    assert str(tmp_path) not in text


def test_a_demo_without_results_says_so(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(fabricated.summary()))
    text = words(demo_page(tmp_path, tmp_path))
    assert "not measured (per_study.csv is missing from t3d_plus)" in text


def test_no_summary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"summary\.json"):
        demo_page(tmp_path, tmp_path)


def test_a_run_page_shows_curves_stages_chance_and_recipe(tmp_path: Path) -> None:
    fabricated.write_run(tmp_path / "my_run")
    log = tmp_path / "my_run" / "log.jsonl"
    line = {
        "step": 400,
        "stage": 1,
        "loss": 1.0,
        "terms": {},
        "gauges": {"global_contrast.chance": 4.16},
    }
    log.write_text(log.read_text() + json.dumps(line) + "\n")
    folder = tmp_path / "my_run" / "checkpoints" / "step-400"
    folder.mkdir(parents=True)
    training = {"step": 400, "cohort": "d1gest", "precision": "bf16", "core_seconds": 61.4}
    (folder / "training.json").write_text(json.dumps(training))
    path = run_page(tmp_path / "my_run", tmp_path / "page.html")
    text = words(path)
    for part in ("my_run", "d1gest", "bf16", "61 s", "chance 4.16", "learning rate", '"seed": 0'):
        assert part in text
    assert 'class="stage"' in path.read_text()
    assert "gauge global_contrast.chance" not in text


def test_a_run_without_a_log_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    text = words(run_page(tmp_path / "run", tmp_path))
    assert "Curves: not measured." in text
    assert "cohort digest not recorded" in text
