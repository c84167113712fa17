"""Protocols: frozen, pinned, with a source, a floor and a ceiling that are said and computed."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from made_score_tables import (
    EXTERNAL_FIBROSIS,
    EXTERNAL_POSITIVES,
    VALID_POSITIVES,
    of_counts,
    valid_truth,
)
from t3d.errors import ProtocolError
from t3d.judge.data.classes import CLASSES, MAPPINGS, class_list
from t3d.judge.data.figures import FIGURES, SAMPLES, VALID_STUDIES, VALID_VOLUMES
from t3d.judge.prompts import prompt_set
from t3d.judge.protocol import Protocol, factor_of
from t3d.judge.protocols import PROTOCOLS, protocol_named
from t3d.judge.protocols.colipri import COLIPRI
from t3d.judge.protocols.ctclip import CTCLIP, CTCLIP_EXTERNAL
from t3d.judge.protocols.fvlm import FVLM
from t3d.judge.protocols.hlip import HLIP_EXTERNAL
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.protocols.vlm3d import VLM3D
from t3d.judge.published import figures_beside, sample_of
from t3d.judge.rules import blind_and_perfect, constant_answers, constant_floor
from t3d.judge.tasks import TASKS
from t3d.judge.truth import mapped
from t3d.types import Metric, Result

ROOT = Path(__file__).resolve().parent.parent.parent

DIGESTS = {
    "plain": "269977038150921a",
    "ctclip": "5be9050a1daff83c",
    "ctclip_external": "27daeae4a89a4517",
    "fvlm": "3dfebb7e94f5defc",
    "hlip": "dd4d49f94c6e9fc0",
    "hlip_starred": "301c189dfe197c26",
    "hlip_external": "c0fdb02aae316ee0",
    "hlip_external_starred": "8dde8c80b0c9c83a",
    "radfinder": "5f14128096e8675d",
    "radfinder_dup": "fb77d70a85f0a190",
    "radfinder_external": "921db6a4f00e6fc7",
    "vlm3d": "88ed7625fa1a461b",
    "inspect": "3e8782313c91dde9",
    "merlin_pools_spectre": "e8c8de5c6961df36",
    "merlin_pools_radfinder": "8be4d9bfca5df3ab",
    "spectre": "e5278228368df128",
    "colipri": "a505279969c61586",
    "ctclip_v2v": "47ba33ea6e1e7c20",
    "ctclip_v2v_asreleased": "9150c4f9c0037ac8",
}
"""A changed number, list or wording needs a new name: these do not change."""

CLASSIFYING = tuple(p for p in PROTOCOLS if p.classification is not None)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_a_protocol_keeps_the_digest_of_its_name(protocol: Protocol) -> None:
    assert protocol.digest()[:16] == DIGESTS[protocol.name]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_a_protocol_is_frozen_and_says_its_source_floor_and_ceiling(protocol: Protocol) -> None:
    assert protocol.source
    assert protocol.parts
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.seed = 1  # type: ignore[misc]
    said = protocol.describe()
    assert {protocol.floor, protocol.ceiling, *protocol.warnings} - {""}
    for part in (protocol.name, protocol.floor, protocol.ceiling, protocol.code):
        assert part in said
    assert all(warning in said for warning in protocol.warnings)
    for name, value in protocol.fields():
        if "." in name and value:
            assert f"{name.partition('.')[2]} {value}" in said


@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_thresholds_that_see_the_evaluated_data_are_said(protocol: Protocol) -> None:
    told = "thresholds fitted on evaluated data" in protocol.warnings
    # what prints nothing that depends on a threshold has nothing to say about it
    assert told == (protocol.classes.fitted_on == "evaluated")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"intervals": dataclasses.replace(PLAIN.intervals, num_draws=999)},
        {"retrieval": dataclasses.replace(PLAIN.pairs, ks=(5,))},
        {"classification": dataclasses.replace(PLAIN.classes, missing="zero")},
        {"source": "x"},
    ],
)
def test_every_field_enters_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(PLAIN, **change).digest() != PLAIN.digest()  # type: ignore[arg-type]


def test_the_lists_and_wordings_that_are_named_enter_the_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {p.name: p.digest() for p in PROTOCOLS}
    turned = CLASSES | {"ct_rate18": CLASSES["ct_rate18"][::-1]}  # type: ignore[operator]
    monkeypatch.setattr("t3d.judge.protocol.CLASSES", turned)
    changed = {p.name for p in PROTOCOLS if p.digest() != before[p.name]}
    named = {p.name for p in CLASSIFYING if "ct_rate18" in (p.classes.findings, p.classes.scored)}
    assert changed == named


def test_names_are_unique_and_tasks_are_named_by_their_module() -> None:
    assert len({p.name for p in PROTOCOLS}) == len(PROTOCOLS)
    assert len({p.digest() for p in PROTOCOLS}) == len(PROTOCOLS)
    names = [task.__module__.rsplit(".", 1)[1] for task in TASKS]
    assert len(set(names)) == len(names)
    assert protocol_named("vlm3d") is VLM3D
    with pytest.raises(ProtocolError, match=r"'vlm' is unknown[\s\S]*vlm3d"):
        protocol_named("vlm")


def test_faults_are_reproduced_only_on_request_and_with_a_warning() -> None:
    asked = [p for p in PROTOCOLS if p.on_request]
    assert [p.name for p in asked] == ["ctclip_v2v_asreleased"]
    assert all(p.warnings for p in asked)


def test_rules_the_judge_does_not_know_are_reported_all_at_once() -> None:
    rules = dataclasses.replace(PLAIN.classes, unit="patient", one_class="maybe", findings="x9")
    draws = dataclasses.replace(PLAIN.intervals, num_draws=0)
    with pytest.raises(ProtocolError, match=r"4 problems.*unit.*one_class.*num_draws.*'x9'"):
        dataclasses.replace(PLAIN, classification=rules, intervals=draws)


@pytest.mark.parametrize(
    ("field", "value"),
    [("fitted_on", "nowhere"), ("compare", ">"), ("threshold", "fixed:0.5"), ("mapping", "mine")],
)
def test_fields_that_contradict_each_other_are_refused(field: str, value: str) -> None:
    with pytest.raises(ProtocolError, match=f"1 problems.*{field}|1 problems.*fitted_on"):
        dataclasses.replace(
            PLAIN, classification=dataclasses.replace(PLAIN.classes, **{field: value})
        )


def test_a_variant_says_in_its_name_what_is_different() -> None:
    other = RADFINDER.variant("few", intervals__num_draws=10, classification__unit="volume")
    assert other.name == "radfinder@few"
    assert (other.intervals.num_draws, other.classes.unit) == (10, "volume")
    assert other.classes.prompts == RADFINDER.classes.prompts
    assert other.digest() != RADFINDER.digest()
    loose = CTCLIP.allowing_missing()
    assert loose.name == "ctclip@allow-missing"
    assert (loose.classes.missing, loose.classes.missing_case) == ("worst", "worst")
    with pytest.raises(ProtocolError, match="no rules for pools"):
        CTCLIP.variant("x", pools__seed=1)


def test_a_temperature_that_is_fixed_stands_in_the_name() -> None:
    hot = CTCLIP.at_temperature(100)
    assert hot.name == "ctclip@tau100"
    assert factor_of(hot.classes.temperature) == 100.0
    assert factor_of(CTCLIP.classes.temperature) is None
    assert factor_of(RADFINDER.classes.temperature) == 1.0
    for wrong in (0.0, -1.0):
        with pytest.raises(ProtocolError, match="no factor above 0"):
            CTCLIP.at_temperature(wrong)
    with pytest.raises(ProtocolError, match="has no temperature"):
        PLAIN.at_temperature(10)


def test_a_pool_that_needs_a_list_says_which_file_it_is() -> None:
    with pytest.raises(ProtocolError, match=r"needs the list no_chest[\s\S]*no_chest_valid\.txt"):
        COLIPRI.needs_lists(())
    COLIPRI.needs_lists(("no_chest",))
    PLAIN.needs_lists(())


# ---- data that protocols name ---------------------------------------------------------------


@pytest.mark.parametrize("protocol", CLASSIFYING, ids=lambda p: p.name)
def test_a_protocol_asks_for_what_its_prompts_and_mapping_have(protocol: Protocol) -> None:
    rules = protocol.classes
    asked, scored = class_list(rules.findings), class_list(rules.scored)
    if rules.prompts:
        assert set(asked) <= set(prompt_set(rules.prompts).findings)
    if rules.mapping:
        assert set(scored) <= set(MAPPINGS[rules.mapping])
    assert set(scored) <= set(asked)
    assert (set(scored) < set(asked)) == (rules.merge != "none")


def test_class_lists_have_the_sizes_and_orders_of_their_sources() -> None:
    sizes = {name: len(found) for name, found in CLASSES.items()}
    assert sizes == {
        **{"ct_rate18": 18, "fvlm16": 16, "rad_chestct16": 16, "hlip15": 15, "hlip14": 14},
        **{"merlin30": 30, "inspect8": 8},
    }
    assert all(len(set(found)) == len(found) for found in CLASSES.values())
    whole = CLASSES["ct_rate18"]
    columns = [*range(4), *range(5, 13), *range(14, 18)]
    assert CLASSES["rad_chestct16"] == tuple(whole[i] for i in columns)
    assert set(whole) - set(CLASSES["fvlm16"]) == {"Medical material", "Lymphadenopathy"}
    assert CLASSES["fvlm16"][0] == "Emphysema"
    assert CLASSES["fvlm16"][-1] == "Arterial wall calcification"
    with pytest.raises(ProtocolError, match=r"'ct_rate19' is unknown"):
        class_list("ct_rate19")


def test_mappings_read_a_corpus_s_own_labels() -> None:
    own = {"fibrosis": 0, "scarring": 1, "nodule": 0, "nodulegr1cm": None, "calcification": 1}
    standard, hlip = mapped(own, "standard"), mapped(own, "hlip")
    assert standard["Pulmonary fibrotic sequela"] == 1
    assert hlip["Pulmonary fibrotic sequela"] == 0
    assert standard["Lung nodule"] is None  # one is absent, the other not stated
    assert standard["Arterial wall calcification"] == 1
    assert standard["Coronary artery wall calcification"] == 1
    assert "Cardiomegaly" not in standard  # the corpus has no such label
    assert "Mosaic attenuation pattern" not in MAPPINGS["standard"]
    with pytest.raises(ProtocolError, match="mapping 'own' is unknown"):
        mapped(own, "own")


# ---- floors and ceilings as numbers ---------------------------------------------------------


def test_the_made_table_has_the_counts_of_ct_rate() -> None:
    rows, studies = valid_truth(volumes=True), valid_truth(volumes=False)
    assert (len(rows.labels), len(studies.labels)) == (3039, 1564)
    assert rows.labels.sum() == 10535
    assert tuple(map(tuple, zip(rows.labels.sum(0), studies.labels.sum(0), strict=True))) == (
        VALID_POSITIVES
    )


@pytest.fixture(scope="module")
def ctclip_bounds() -> dict[str, dict[str, float]]:
    return blind_and_perfect(None, valid_truth(volumes=True), CTCLIP)


def test_models_that_say_nothing_get_the_known_floors_of_ct_rate(
    ctclip_bounds: dict[str, dict[str, float]],
) -> None:
    never = ctclip_bounds["all_negative"]
    assert never["f1_weighted"] == pytest.approx(0.725, abs=5e-4)
    assert never["accuracy"] == pytest.approx(0.807, abs=5e-4)
    assert never["precision"] == 0.0
    guess = ctclip_bounds["random"]  # its thresholds see the evaluated data
    assert guess["auroc"] == pytest.approx(0.5, abs=0.01)
    assert guess["accuracy"] == pytest.approx(0.51, abs=0.015)
    assert guess["f1_weighted"] == pytest.approx(0.57, abs=0.015)
    assert guess["precision"] == pytest.approx(0.198, abs=0.005)
    assert ctclip_bounds["constant"]["auroc"] == 0.5
    for name in ("f1_weighted", "accuracy"):
        assert f"{never[name]:.3f}"[1:] in CTCLIP.floor


def test_a_model_that_knows_reaches_the_ceiling_under_every_rule() -> None:
    truth = of_counts((5, 20, 39), 40)
    for protocol in CLASSIFYING:
        dev = truth if protocol.classes.fitted_on == "dev" else None
        bounds = blind_and_perfect(dev, truth, protocol)
        error = bounds["perfect"].pop("ece9", 0.0)  # the only measure that is best at 0
        assert (error, set(bounds["perfect"].values())) == (0.0, {1.0}), protocol.name
        assert bounds["constant"]["auroc"] == 0.5
        assert bounds["all_positive"]["sensitivity"] == 1.0


def test_sixteen_classes_and_rad_chestct_have_the_known_floors() -> None:
    whole = valid_truth(volumes=True)
    kept = [i for i, name in enumerate(whole.findings) if name in CLASSES["fvlm16"]]
    rows = [constant_answers(whole.labels[:, i]) for i in kept]
    assert np.mean([r["f1_weighted"][0] for r in rows]) == pytest.approx(0.724, abs=5e-4)
    assert np.mean([r["accuracy"][0] for r in rows]) == pytest.approx(0.806, abs=5e-4)
    assert ".724" in FVLM.floor
    assert ".806" in FVLM.floor
    named = dict(zip(CLASSES["rad_chestct16"], EXTERNAL_POSITIVES, strict=True))
    hlip = named | {"Pulmonary fibrotic sequela": EXTERNAL_FIBROSIS}
    for protocol, counts, (f1, accuracy) in (
        (CTCLIP_EXTERNAL, named, (0.636, 0.729)),
        (HLIP_EXTERNAL, hlip, (0.642, 0.731)),
    ):
        picked = tuple(counts[name] for name in class_list(protocol.classes.scored))
        never = blind_and_perfect(None, of_counts(picked, 3630), protocol)["all_negative"]
        assert never["f1_weighted"] == pytest.approx(f1, abs=5e-4)
        assert never["accuracy"] == pytest.approx(accuracy, abs=5e-4)
        assert f"{f1:.3f}"[1:] in protocol.floor


def test_the_floor_is_the_better_of_the_two_constant_answers() -> None:
    floor = constant_floor(np.int8([1, 1, 1, 0]))
    assert floor["accuracy"] == 0.75  # all positive
    assert floor["f1"] == pytest.approx(6 / 7)
    assert floor["balanced_accuracy"] == 0.5
    assert constant_floor(np.int8([1, 0, 0, 0]))["accuracy"] == 0.75  # all negative


# ---- published figures ----------------------------------------------------------------------


def result(protocol: str, counts: dict[str, int]) -> Result:
    metrics = (Metric(name="auroc:macro", value=0.8), Metric(name="f1:macro", value=0.5))
    return Result(task="zero_shot", protocol=protocol, metrics=metrics, counts=counts)


def test_published_figures_stand_beside_the_same_protocol_on_the_same_sample_only() -> None:
    whole = {"volumes": 3039, "studies": 1564}
    beside = figures_beside("ct_rate", result("ctclip", whole))
    assert {f.model for f in beside["auroc:macro"]} == {
        *("CT-CLIP", "CT-CLIP VocabFine", "CT-CLIP ClassFine")
    }
    assert all(f.tag == "2nd" and f.source for f in beside["auroc:macro"])
    assert "f1:macro" not in beside
    firsts = {"studies": 1564}
    assert [f.value for f in figures_beside("ct_rate", result("radfinder", firsts))["auroc:macro"]]
    for corpus, protocol, counts in (
        ("ct_rate", "radfinder", whole),  # other volumes than the published ones
        ("ct_rate", "ctclip", firsts),
        ("ct_rate", "ctclip", whole | {"studies": 1563}),  # one study is missing
        ("ct_rate", "ctclip@tau100", whole),  # other rules
        ("phantom", "ctclip", whole),
    ):
        assert figures_beside(corpus, result(protocol, counts)) == {}
    assert sample_of("ct_rate", result("x", whole)) == VALID_VOLUMES
    assert sample_of("ct_rate", result("x", firsts)) == VALID_STUDIES


@pytest.mark.parametrize(
    ("corpus", "task", "protocol", "metric", "counts"),
    [
        ("ct_rate", "retrieval", "spectre", "t2i_r@10", {"studies": 1564}),
        ("ct_rate", "retrieval", "radfinder_dup", "t2i_r@10", {"volumes": 3039, "studies": 1564}),
        ("merlin", "pools", "merlin_pools_spectre", "pool32_r@1:findings", {"studies": 5137}),
    ],
)
def test_figures_of_retrieval_are_found_under_the_names_that_results_have(
    corpus: str, task: str, protocol: str, metric: str, counts: dict[str, int]
) -> None:
    # only the own row counts in these, so the plain name is the published number
    rules = protocol_named(protocol)
    assert rules.retrieval is None or rules.retrieval.credit == "own"
    metrics = (Metric(name=metric, value=0.3),)
    found = Result(task=task, protocol=protocol, metrics=metrics, counts=counts)
    assert figures_beside(corpus, found)[metric]


def test_every_figure_has_a_source_a_tag_and_a_protocol_that_exists() -> None:
    names = {p.name for p in PROTOCOLS} | {""}
    samples = {name for name, _, _ in SAMPLES} | {""}
    for figure in FIGURES:
        assert figure.source
        assert figure.tag in ("paper", "abstract", "2nd")
        assert figure.protocol in names
        assert figure.sample in samples
        assert figure.protocol or figure.note  # a figure without rules says why
        assert 0 <= figure.value <= 1 or figure.metric.endswith("_mm")


def test_figures_that_are_not_confirmed_are_not_there() -> None:
    assert 0.802 not in {f.value for f in FIGURES if f.model.startswith("T3D")}


# ---- the page -------------------------------------------------------------------------------


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "protocols_table", ROOT / "tools" / "protocols_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_protocols_is_made_of_the_instances() -> None:
    # `python tools/protocols_table.py` writes it anew
    assert tool().main(["--check"]) == 0


def test_a_changed_field_makes_the_page_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tool()
    page = tmp_path / "protocols.md"
    page.write_text(module.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(module, "PAGE", page)
    changed = dataclasses.replace(PLAIN, seed=7, num_permutations=7)
    changed = dataclasses.replace(changed, floor="another floor")
    monkeypatch.setattr(module, "PROTOCOLS", (changed, *PROTOCOLS[1:]))
    assert module.main(["--check"]) == 1
    assert module.main([]) == 0
    assert "another floor" in page.read_text(encoding="utf-8")
    assert module.main(["--check"]) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_a_description_has_no_machine_path(protocol: Protocol) -> None:
    assert not re.search(r"(^|\s)/\w", protocol.describe())
