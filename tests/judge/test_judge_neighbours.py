"""Volume to volume: published vectors through their protocols, chance, ceiling, who is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from made_places import PlacedCohort, PlacedStudy
from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.ctclip import CTCLIP_V2V, CTCLIP_V2V_ASRELEASED
from t3d.judge.protocols.hlip import HLIP
from t3d.judge.protocols.plain import PLAIN, PLAIN_NEIGHBOURS
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.protocols.spectre import SPECTRE
from t3d.judge.tasks import neighbours

FULL = replace(PLAIN, name="plain_v2v", neighbours=PLAIN_NEIGHBOURS)


def short(protocol: Protocol, *ks: int) -> Protocol:
    """The protocol with other K and few draws."""
    assert protocol.neighbours is not None
    return replace(
        protocol,
        name=f"{protocol.name}_short",
        neighbours=replace(protocol.neighbours, ks=ks),
        intervals=replace(protocol.intervals, num_draws=50),
    )


def made(
    labels: Any, image: Any, *, studies: list[str] | None = None, patients: list[str] | None = None
) -> tuple[PlacedCohort, Embeddings]:
    """A cohort of volumes and their embeddings."""
    num = len(labels)
    names = studies or [f"s{i:02}" for i in range(num)]
    people = patients or names
    order = [names[:i].count(name) for i, name in enumerate(names)]
    volumes = [f"{name}-{k}" for name, k in zip(names, order, strict=True)]
    told = {}
    for i, name in enumerate(names):
        told[name] = PlacedStudy(
            study_id=name,
            patient_id=people[i],
            split="test",
            volume_ids=tuple(v for v, n in zip(volumes, names, strict=True) if n == name),
            labels={
                f"f{j}": None if value < 0 else int(value) for j, value in enumerate(labels[i])
            },
        )
    rows = Embeddings(
        study_ids=tuple(names),
        patient_ids=tuple(people),
        image=np.asarray(image, dtype=np.float32),
        text=np.full(np.shape(image), np.nan, dtype=np.float32),
        report_ids=(-1,) * num,
        volume_ids=tuple(volumes),
        order=tuple(order),
    )
    return PlacedCohort(rows=tuple(told.values())), rows


def found(protocol: Protocol, told: tuple[PlacedCohort, Embeddings]) -> dict[str, Any]:
    cohort, rows = told
    names = tuple(cohort.rows[0].labels)
    outcome = neighbours.measure(cohort, protocol, embedded=rows, findings=names)  # type: ignore[arg-type]
    return {metric.name: metric for metric in outcome.result.metrics}


CLIP = ([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], [[1, 0], [0.8, 0.6], [0, 1], [-1, 0]])


def test_ctclips_vector_as_released_is_a_mean_over_smaller_k() -> None:
    told = found(short(CTCLIP_V2V_ASRELEASED, 1, 2, 3), made(*CLIP))
    values = [told[f"v2v_map@{k}"].value for k in (1, 2, 3)]
    assert values == pytest.approx([0.75, 0.625, 0.546296], abs=1e-6)
    # a random model finds itself as well: at K = 1 it prints the same
    assert told["v2v_map@1"].floor == told["v2v_map@1"].value
    assert "v2v_precision@1" not in told


def test_ctclips_vector_corrected_leaves_self_out() -> None:
    told = found(short(CTCLIP_V2V, 1, 2), made(*CLIP))
    values = [told[f"v2v_map@{k}"].value for k in (1, 2)]
    assert values == pytest.approx([0.333333, 0.277778], abs=1e-6)


def test_radfinders_vector_goes_through_its_protocol() -> None:
    emb = [[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]]
    told = found(short(RADFINDER, 2, 3), made([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]], emb))
    assert told["v2v_map@2"].value == pytest.approx(0.75)
    assert told["v2v_map@3"].value == pytest.approx(0.5)


def drawn(num: int = 60, *, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return (rng.random((num, 3)) < 0.4).astype(int), rng.normal(size=(num, 8))


ALL = (FULL, SPECTRE, RADFINDER, CTCLIP_V2V)


@pytest.mark.parametrize("protocol", ALL, ids=lambda p: p.name)
def test_a_model_that_knows_the_labels_reaches_the_ceiling_and_a_guess_gets_chance(
    protocol: Protocol,
) -> None:
    labels, guess = drawn()
    few = short(protocol, 1, 5)
    code = labels @ (4, 2, 1)
    best = found(few, made(labels, np.eye(8)[code]))
    for name, metric in found(few, made(labels, guess)).items():
        if "map" in name:
            assert abs(metric.value - metric.chance) < 0.15, name
            assert metric.floor == pytest.approx(metric.chance, abs=0.05), name
    if protocol in (FULL, SPECTRE):  # right = the same labels
        assert best["v2v_map@5"].value == pytest.approx(best["v2v_map@5"].ceiling) == 1.0
        assert best["v2v_recall@5"].value == pytest.approx(best["v2v_recall@5"].ceiling)


def test_a_blind_model_gets_exactly_chance_where_ties_are_shared() -> None:
    labels, _ = drawn()
    for protocol in (FULL, CTCLIP_V2V):
        for name, metric in found(short(protocol, 1, 5), made(labels, np.ones((60, 2)))).items():
            assert metric.value == pytest.approx(metric.chance, abs=1e-12), name


def slow(labels: Any, image: Any, people: list[str], k: int) -> tuple[float, float, float]:
    """Average precision, precision and recall by plain loops; no ties."""
    out = []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if people[j] != people[i]]
        others.sort(key=lambda j: -float(np.dot(image[i], image[j])))
        right = [bool((labels[i] == labels[j]).all()) for j in others]
        if not any(right):
            continue
        top = right[:k]
        hits = [sum(top[: r + 1]) / (r + 1) for r in range(len(top)) if top[r]]
        out.append((sum(hits) / min(sum(right), k), sum(top) / k, sum(top) / sum(right)))
    return tuple(np.mean(out, axis=0).tolist())  # type: ignore[return-value]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_plain_equals_a_search_by_hand_without_the_patients_own_scans(k: int) -> None:
    labels, image = drawn(40, seed=1)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    people = [f"p{i // 2}" for i in range(40)]
    told = found(short(FULL, 1, 3, 10), made(labels, image, patients=people))
    names = ("map", "precision", "recall")
    values = [told[f"v2v_{name}@{k}"].value for name in names]
    assert values == pytest.approx(slow(labels, image, people, k), abs=1e-9)


def test_siblings_are_out_of_the_pool_of_the_corrected_rule_only() -> None:
    labels = np.repeat([[1, 0], [1, 1], [0, 1]], 2, axis=0)
    image = np.repeat(np.eye(3), 2, axis=0)
    names = [name for name in "abc" for _ in range(2)]
    told = made(labels, image, studies=names)
    assert found(short(CTCLIP_V2V_ASRELEASED, 1), told)["v2v_map@1"].value == 1.0
    assert found(short(CTCLIP_V2V, 1), told)["v2v_map@1"].value < 0.6
    assert found(short(RADFINDER, 1), told)["v2v_map@1"].value < 1.0  # first reconstructions only


def test_rows_that_do_not_state_a_finding_are_left_out_and_counted() -> None:
    labels, image = drawn(12)
    labels[3, 1] = -1
    cohort, rows = made(labels, image)
    outcome = neighbours.measure(  # type: ignore[arg-type]
        cohort, short(FULL, 1), embedded=rows, findings=("f0", "f1", "f2")
    )
    assert outcome.result.excluded == {"a finding is not stated": 1}
    assert outcome.result.counts["rows"] == 11


@pytest.mark.parametrize("protocol", ALL, ids=lambda p: p.name)
def test_the_order_of_rows_never_changes_a_number(protocol: Protocol) -> None:
    labels, image = drawn(30)
    image = np.round(image, 0)
    names = [f"s{i:02}" for i in range(30)]
    order = np.random.default_rng(5).permutation(30)
    one = found(short(protocol, 1, 5), made(labels, image, studies=names))
    other = made(labels[order], image[order], studies=[names[i] for i in order])
    assert repr(one) == repr(found(short(protocol, 1, 5), other))


def test_a_protocol_without_rules_for_it_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no rules for neighbours"):
        found(HLIP, made(*CLIP))
