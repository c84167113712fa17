"""Presets are fixed by their digests; labels follow prevalences and shared factors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from t3d.errors import RecipeError
from t3d.phantom.presets import DEMO, FACTORS, PRESETS, PREVALENCE, STANDARD, Preset, draw_labels
from t3d.text.findings import CT_RATE_18

NUM = 2500


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.array([list(draw_labels(seed, DEMO)[0].values()) for seed in range(NUM)])


def test_the_named_presets_are_the_ones_that_figures_were_made_with() -> None:
    digests = {name: preset.digest for name, preset in PRESETS.items()}
    assert digests == {"demo": "b7529e7d2425402e", "standard": "6a94aa42dd05a51e"}


def test_every_field_changes_the_digest() -> None:
    for name, value in (
        ("name", "other"), ("slices", (31, 32)), ("large_share", 0.71), ("generator", 99),
        ("prevalence", (0.5,) * 18), ("factors", ()), ("table_share", 0.1),
    ):  # fmt: skip
        assert dataclasses.replace(DEMO, **{name: value}).digest != DEMO.digest


@pytest.mark.parametrize("preset", [DEMO, STANDARD])
def test_a_preset_comes_back_from_its_json(preset: Preset) -> None:
    assert Preset.from_json(preset.to_json()) == preset


def test_an_unknown_key_in_a_preset_is_refused() -> None:
    with pytest.raises(RecipeError, match="large_shares"):
        Preset.from_json(DEMO.to_json().replace("large_share", "large_shares"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("large_share", 1.5, "share 1.5"),
        ("slices", (40, 30), "range 40..30"),
        ("prevalence", (0.5,), "1 prevalences"),
        ("factors", (("ageing", "Bunion", 0.2),), "Bunion"),
        ("factors", (("ageing", "Emphysema", 1.0),), "loading"),
    ],
)
def test_a_preset_out_of_range_says_what_is_wrong(field: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(DEMO, **{field: value})


def test_findings_occur_as_often_as_the_preset_says(labels: np.ndarray) -> None:
    wanted = np.array(PREVALENCE)
    error = np.sqrt(wanted * (1 - wanted) / NUM)
    assert (np.abs(labels.mean(axis=0) - wanted) < 3.5 * error).all()
    assert labels.sum(axis=1).mean() == pytest.approx(sum(PREVALENCE), abs=0.15)  # 3.83


def test_findings_occur_together_as_often_as_their_latents_say(labels: np.ndarray) -> None:
    load = {finding: (name, value) for name, finding, value in FACTORS}
    cut = norm.ppf(PREVALENCE)
    scores, against_chance = [], []
    for j, a in enumerate(CT_RATE_18):
        for k, b in enumerate(CT_RATE_18[:j]):
            (one, first), (two, second) = load.get(a, ("", 0.0)), load.get(b, ("-", 0.0))
            rho = first * second if one == two else 0.0
            normal = multivariate_normal([0, 0], [[1, rho], [rho, 1]])
            expected = float(normal.cdf(np.array([cut[j], cut[k]])))
            found = float((labels[:, j] & labels[:, k]).mean())
            error = np.sqrt(expected * (1 - expected) / NUM)
            scores.append((found - expected) / error)
            if rho:
                against_chance.append((found - PREVALENCE[j] * PREVALENCE[k]) / error)
    assert np.abs(scores).max() < 4.0  # 153 pairs
    assert np.std(scores) == pytest.approx(1.0, abs=0.2)
    assert len(against_chance) == 6 + 10 + 10
    assert np.mean(against_chance) > 0.8  # chance alone: 0 +- 0.2


def test_the_share_of_large_findings_is_the_preset_s() -> None:
    large = total = 0
    for seed in range(400):
        found, is_large = draw_labels(seed, DEMO)
        names = [n for n, v in found.items() if v and n not in ("Cardiomegaly",)]
        names = [n for n in names if n != "Mosaic attenuation pattern"]  # has no small form
        total += len(names)
        large += sum(is_large[n] for n in names)
    assert large / total == pytest.approx(DEMO.large_share, abs=0.05)


def test_an_absent_finding_is_not_large_and_cardiomegaly_always_is() -> None:
    for seed in range(100):
        found, large = draw_labels(seed, STANDARD)
        assert all(found[name] or not large[name] for name in CT_RATE_18)
        assert large["Cardiomegaly"] == bool(found["Cardiomegaly"])


@pytest.mark.parametrize("switch", [{"Bunion": 1}, {"Emphysema": 2}])
def test_a_switch_that_means_nothing_is_refused(switch: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="phantom switch"):
        draw_labels(0, DEMO, switch)


def test_a_switch_changes_no_other_label() -> None:
    plain, _ = draw_labels(5, DEMO)
    for value in (0, 1):
        switched, _ = draw_labels(5, DEMO, {"Lung nodule": value})
        assert switched == {**plain, "Lung nodule": value}
