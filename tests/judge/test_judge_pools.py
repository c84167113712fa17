"""Small pools: the published vector under both rules, the closed form, chance, what is left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.merlin_pools import MERLIN_POOLS_RADFINDER, MERLIN_POOLS_SPECTRE
from t3d.judge.protocols.plain import PLAIN, PLAIN_POOLS
from t3d.judge.tasks import pools
from t3d.judge.tasks.pools import PoolPairs

TEXT = np.array(
    [
        [0.9, 0.1, 0, 0, 0],
        [0.6, 0.5, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0.2, 0.3],
        [0, 0, 0, 0, 1],
    ]
)
FULL = replace(PLAIN, name="plain_pools", pools=PLAIN_POOLS)


def short(protocol: Protocol, *sizes: int, repeats: int = 3) -> Protocol:
    """Other pools, K = 1."""
    assert protocol.pools is not None
    rules = replace(protocol.pools, sizes=sizes, ks=(1,), num_repeats=repeats)
    return replace(protocol, name=f"{protocol.name}_short", pools=rules)


def pairs(text: Any, image: Any) -> tuple[PoolPairs, ...]:
    ids = tuple(f"s{i}" for i in range(len(text)))
    rows = [np.asarray(side, dtype=np.float32) for side in (image, text)]
    return (
        PoolPairs(part="findings", study_ids=ids, patient_ids=ids, image=rows[0], text=rows[1]),
    )


def found(protocol: Protocol, told: tuple[PoolPairs, ...], cohort: Any) -> dict[str, Any]:
    outcome = pools.measure(cohort, protocol, pairs=told)
    return {metric.name: metric for metric in outcome.result.metrics}


@pytest.mark.parametrize(
    ("protocol", "value"), [(MERLIN_POOLS_SPECTRE, 0.933333), (MERLIN_POOLS_RADFINDER, 0.916667)]
)
def test_the_published_vector_differs_by_what_becomes_of_the_last_pool(
    protocol: Protocol, value: float, cohort: Any
) -> None:
    metric = found(short(protocol, 2), pairs(TEXT, np.eye(5)), cohort)["pool2_r@1:findings"]
    assert metric.value == pytest.approx(value, abs=1e-6)
    assert metric.unit == "partitions"


@pytest.mark.parametrize("protocol", [MERLIN_POOLS_SPECTRE, MERLIN_POOLS_RADFINDER])
def test_the_exact_value_is_the_mean_over_every_way_to_deal(
    protocol: Protocol, cohort: Any
) -> None:
    keep = protocol is MERLIN_POOLS_SPECTRE
    values = []
    for order in permutations(range(5)):
        dealt = [order[:2], order[2:4], *([order[4:]] if keep else [])]
        hits = [TEXT[i, i] >= max(TEXT[i, j] for j in pool) for pool in dealt for i in pool]
        values.append(np.mean(hits))
    metric = found(short(protocol, 2), pairs(TEXT, np.eye(5)), cohort)["pool2_r@1:findings_exact"]
    assert metric.value == pytest.approx(np.mean(values), abs=1e-12)
    assert metric.chance == pytest.approx((4 * 0.5 + 1) / 5 if keep else 0.5)


def test_a_blind_model_gets_chance_and_rules_without_repeats_have_the_exact_value_only(
    blind: Any, cohort: Any
) -> None:
    result = pools.run(blind, cohort, short(FULL, 8, 200, repeats=0))
    told = {metric.name: metric for metric in result.metrics}
    assert told.keys() == {f"pool8_r@1:{part}_exact" for part in pools.PARTS}
    for metric in told.values():
        assert metric.value == pytest.approx(metric.chance) == 1 / 8
    assert result.excluded == {f"pool of 200 from 89 studies: {part}": 1 for part in pools.PARTS}


def test_an_oracle_finds_its_study_by_every_part_that_names_it(oracle: Any, cohort: Any) -> None:
    result = pools.run(oracle, cohort, short(FULL, 16, repeats=2))
    told = {metric.name: metric.value for metric in result.metrics}
    # two of 89 share their findings; in a pool of 16 they meet with probability 15 / 88
    same = 1 - 2 / 89 * 15 / 88 / 2
    assert told["pool16_r@1:findings_exact"] == pytest.approx(same)
    assert told["pool16_r@1:full_exact"] == pytest.approx(same)


def test_the_order_of_studies_never_changes_a_number(guess: Any, cohort: Any) -> None:
    few = short(FULL, 8, 16)
    turned = replace(cohort, rows=cohort.rows[::-1])
    one, two = (pools.run(guess, c, few) for c in (cohort, turned))
    assert repr(one) == repr(two)


def test_a_split_without_reports_is_refused(guess: Any, cohort: Any) -> None:
    with pytest.raises(ProtocolError, match="none of 90 studies"):
        pools.run(guess, replace(cohort, texts={}), short(FULL, 8))
