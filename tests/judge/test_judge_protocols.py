"""Protocols: frozen, pinned, with a source, a floor and a ceiling that are said."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.protocols import PROTOCOLS
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.rules import THRESHOLDS, constant_answers, constant_floor
from t3d.judge.tasks import TASKS

# positives of CT-RATE's 3,039 validation volumes, classes in the order of its label files
POSITIVES = (
    313,
    867,
    325,
    226,
    765,
    417,
    789,
    600,
    713,
    1361,
    1184,
    831,
    376,
    253,
    355,
    581,
    330,
    249,
)

DIGESTS = {"plain": "db9ba3ce309645bc3bf7edd3ca42ac8410f49445051a5a09295724e7698e66f8"}
"""A changed number needs a new name: these do not change."""


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_a_protocol_keeps_the_digest_of_its_name(protocol: object) -> None:
    assert isinstance(protocol, type(PLAIN))
    assert protocol.digest() == DIGESTS[protocol.name]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_a_protocol_is_frozen_and_says_its_source_floor_and_ceiling(protocol: object) -> None:
    assert isinstance(protocol, type(PLAIN))
    assert protocol.source
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.seed = 1  # type: ignore[misc]
    said = protocol.describe()
    for part in (protocol.name, protocol.floor, protocol.ceiling, protocol.prompt_rule):
        assert part in said


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_draws": 999}, {"ks": (5,)}, {"source": "x"}])
def test_every_field_enters_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(PLAIN, **change).digest() != PLAIN.digest()  # type: ignore[arg-type]


def test_names_are_unique_and_tasks_are_named_by_their_module() -> None:
    assert len({p.name for p in PROTOCOLS}) == len(PROTOCOLS)
    names = [task.__module__.rsplit(".", 1)[1] for task in TASKS]
    assert names == ["zero_shot", "retrieval", "supervised"]


def test_rules_the_judge_does_not_know_are_reported_all_at_once() -> None:
    with pytest.raises(ProtocolError, match=r"3 problems.*unit.*threshold_rule.*num_draws"):
        dataclasses.replace(PLAIN, unit="volumes", threshold_rule="best_on_test", num_draws=0)


def test_every_threshold_rule_a_protocol_may_name_exists() -> None:
    from t3d.judge.protocol import THRESHOLD_RULES

    assert set(THRESHOLD_RULES) == set(THRESHOLDS)


def test_all_negative_answers_get_the_known_floors_on_ct_rate() -> None:
    rows = [constant_answers(np.repeat(np.int8([1, 0]), (n, 3039 - n))) for n in POSITIVES]
    never = {m: np.mean([row[m][0] for row in rows]) for m in rows[0]}
    assert never["f1_weighted"] == pytest.approx(0.725, abs=5e-4)
    assert never["accuracy"] == pytest.approx(0.807, abs=5e-4)
    assert never["precision"] == 0.0
    assert never["balanced_accuracy"] == pytest.approx(0.5)
    sixteen = [row for i, row in enumerate(rows) if i not in (0, 6)]
    assert np.mean([r["f1_weighted"][0] for r in sixteen]) == pytest.approx(0.724, abs=5e-4)
    assert np.mean([r["accuracy"][0] for r in sixteen]) == pytest.approx(0.806, abs=5e-4)


def test_the_floor_is_the_better_of_the_two_constant_answers() -> None:
    floor = constant_floor(np.int8([1, 1, 1, 0]))
    assert floor["accuracy"] == 0.75  # all positive
    assert floor["f1"] == pytest.approx(6 / 7)
    assert floor["balanced_accuracy"] == 0.5
    assert constant_floor(np.int8([1, 0, 0, 0]))["accuracy"] == 0.75  # all negative


def test_a_description_has_no_machine_path() -> None:
    assert not re.search(r"(^|\s)/\w", PLAIN.describe())
