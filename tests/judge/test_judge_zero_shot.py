"""Zero-shot classification: an oracle, a blind model, a guess, and shuffled labels."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, cosines, embed_split
from t3d.judge.outcome import difference, distance_share
from t3d.judge.prompts import PromptSet, prompt_set
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.ctclip import CTCLIP
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.results import summary_scores
from t3d.judge.tasks import zero_shot
from t3d.judge.truth import truth_of
from t3d.judge.units import scores_of
from t3d.scores.confusion import MEASURES
from t3d.types import Item


def judged(model: Any, cohort: Any, protocol: Protocol, prompts: PromptSet) -> Any:
    both = (embed_split(model, cohort, "dev"), embed_split(model, cohort, "test"))
    return zero_shot.measure(model, cohort, protocol, prompts, embedded=both)


def metrics(outcome: Any) -> dict[str, Any]:
    return {metric.name: metric for metric in outcome.result.metrics}


def slow_score(image: Any, positive: Any, negative: Any) -> float:
    """Cosine difference with prototypes, number by number in float64."""

    def unit(row: Any) -> list[float]:
        length = math.sqrt(sum(float(v) ** 2 for v in row))
        return [float(v) / length for v in row]

    def prototype(rows: Any) -> list[float]:
        units = [unit(row) for row in rows]
        return unit([sum(column) / len(units) for column in zip(*units, strict=True)])

    near = sum(a * b for a, b in zip(unit(image), prototype(positive), strict=True))
    far = sum(a * b for a, b in zip(unit(image), prototype(negative), strict=True))
    return near - far


def test_an_oracle_reaches_the_ceiling_of_every_metric(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = judged(oracle, cohort, quick, prompts)
    judged_metrics = [m for m in found.result.metrics if not math.isnan(m.ceiling)]
    assert len(judged_metrics) > 40
    for metric in judged_metrics:
        assert metric.value == metric.ceiling == 1.0, metric.name
        assert (metric.low, metric.high) == (1.0, 1.0), metric.name


def test_an_oracle_that_lies_gets_an_auroc_of_zero(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = metrics(judged(replace(oracle, sign=-1.0), cohort, quick, prompts))
    assert found["auroc:macro"].value == 0.0


def test_a_blind_model_stands_on_the_floor(
    blind: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = metrics(judged(blind, cohort, quick, prompts))
    for form in ("macro", "large", "small"):
        assert found[f"auroc:{form}"].value == found[f"auroc:{form}"].floor == 0.5
    precision = found["average_precision:macro"]
    assert precision.value == pytest.approx(precision.floor)
    assert found["balanced_accuracy:macro"].value == found["balanced_accuracy:macro"].floor == 0.5
    for measure in MEASURES:
        assert found[f"{measure}:macro"].value <= found[f"{measure}:macro"].floor + 1e-12


def test_a_guess_is_at_chance_within_its_interval(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = metrics(judged(guess, cohort, quick, prompts))
    macro, permuted = found["auroc:macro"], found["permuted_auroc:macro"]
    assert macro.low < 0.5 < macro.high
    assert macro.high - macro.low > 0.05
    assert permuted.value == pytest.approx(0.5, abs=0.03)
    assert permuted.low < macro.value < permuted.high


def test_labels_shuffled_between_patients_bring_an_oracle_to_chance(
    oracle: Any, make_cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    whole = make_cohort({"dev": 60, "test": 200}, seed=3, unknown=0.0)
    rows = list(whole.rows)
    order = np.random.default_rng(0).permutation(len(rows))
    tables = [rows[i].labels for i in order]
    shuffled = replace(
        whole, rows=tuple(replace(r, labels=t) for r, t in zip(rows, tables, strict=True))
    )
    both = (embed_split(oracle, whole, "dev"), embed_split(oracle, whole, "test"))
    found = metrics(zero_shot.measure(oracle, shuffled, quick, prompts, embedded=both))
    assert found["auroc:macro"].low < 0.5 < found["auroc:macro"].high
    assert 0.4 < found["auroc:macro"].value < 0.6


def test_scores_equal_the_cosine_difference_written_out(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = judged(guess, cohort, quick, prompts)
    ids = found.table.study_ids[:5]
    images = guess.embed_studies(cohort, ids)
    for finding in prompts.findings:
        positive = guess.embed_text(list(prompts.positive[finding]))
        negative = guess.embed_text(list(prompts.negative[finding]))
        column = found.table.columns[f"score:template:{finding}"]
        for image, score in zip(images, column, strict=False):
            assert score == pytest.approx(slow_score(image, positive, negative), abs=3e-6)


def test_the_score_of_two_axes_is_06() -> None:
    rows = Embeddings(
        study_ids=("a",),
        patient_ids=("a",),
        image=np.float32([[1, 0]]),
        text=np.float32([[1, 0]]),
        report_ids=(0,),
    )
    sides = (np.float32([[0.6, 0.8]]), np.float32([[0, 1]]))
    table = zero_shot.table_of(rows, ("Emphysema",), sides)
    assert table.positive is not None
    assert table.positive[0, 0] == pytest.approx(0.6, abs=1e-7)  # kept as float32 gives it
    scores, notes = scores_of(table, PLAIN)
    assert scores.tolist() == [[0.6]]
    assert notes == {}


def test_large_and_small_leave_the_other_form_out(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = judged(guess, cohort, quick, prompts)
    scores = found.table.columns["score:template:Pleural effusion"]
    for form, wanted in (("large", True), ("small", False)):
        pairs, won = 0, 0.0
        for row, s in zip(cohort.studies("test"), scores, strict=True):
            for other, t in zip(cohort.studies("test"), scores, strict=True):
                mine = [
                    i.large for i in cohort.items(row.study_id) if i.finding == "Pleural effusion"
                ]
                if mine == [wanted] and other.labels["Pleural effusion"] == 0:
                    pairs += 1
                    won += 1.0 if s > t else 0.5 if s == t else 0.0
        assert found.metric(f"auroc_{form}:Pleural effusion").value == pytest.approx(won / pairs)


def test_a_finding_with_one_class_is_named_and_left_out_of_the_mean(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    outcome = judged(guess, cohort, quick, prompts)
    found = metrics(outcome)
    assert outcome.result.excluded["one class (all): Hiatal hernia"] == 1
    assert outcome.result.excluded["one class (small): Cardiomegaly"] == 1
    assert "auroc:Hiatal hernia" not in found
    named = ("Lung nodule", "Pleural effusion", "Cardiomegaly")
    mean = np.mean([found[f"auroc:{finding}"].value for finding in named])
    assert found["auroc:macro"].value == pytest.approx(mean)


def test_counts_say_how_many_studies_state_each_finding(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    counts = judged(guess, cohort, quick, prompts).result.counts
    labels = [row.labels["Lung nodule"] for row in cohort.studies("test")]
    assert counts["positive:Lung nodule"] == labels.count(1)
    assert counts["negative:Lung nodule"] == labels.count(0)
    assert counts["unknown:Lung nodule"] == labels.count(None) > 0
    assert counts["large:Lung nodule"] + counts["small:Lung nodule"] == labels.count(1)
    assert counts["studies"] == 90
    assert counts["patients"] == len({row.patient_id for row in cohort.studies("test")}) < 90


def test_thresholds_come_from_dev_and_do_not_move_with_test(
    guess: Any, make_cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    whole = make_cohort({"dev": 60, "test": 60}, seed=1)
    turned = replace(
        whole,
        rows=tuple(
            row
            if row.split == "dev"
            else replace(
                row, labels={k: None if v is None else 1 - v for k, v in row.labels.items()}
            )
            for row in whole.rows
        ),
    )
    one, two = (metrics(judged(guess, c, quick, prompts)) for c in (whole, turned))
    name = "threshold:Pleural effusion"
    assert one[name].value == two[name].value
    assert one["accuracy:Pleural effusion"].value != two["accuracy:Pleural effusion"].value


def test_two_runs_agree_in_every_number(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    one, two = (judged(guess, cohort, quick, prompts) for _ in range(2))
    assert repr(one.result) == repr(two.result)
    for name, values in one.draws.items():
        np.testing.assert_array_equal(values, two.draws[name])


def test_a_patient_in_dev_and_test_is_refused(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    with pytest.raises(ProtocolError, match="patients are in dev and in test"):
        zero_shot.run(guess, cohort, quick, prompts=prompts, dev="test", test="test")


def test_an_empty_split_is_refused(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    with pytest.raises(ProtocolError, match="split 'valid' has no studies"):
        zero_shot.run(guess, cohort, quick, prompts=prompts, test="valid")


def test_an_embedding_without_a_direction_names_the_study(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    class Broken(type(guess)):  # type: ignore[misc]
        def embed_studies(self, cohort: Any, study_ids: Any) -> Any:
            rows = super().embed_studies(cohort, study_ids)
            rows[3] = np.nan
            return rows

    fourth = cohort.studies("dev")[3].study_id
    with pytest.raises(ProtocolError, match=f"1 of 60 image embeddings.*{fourth}"):
        zero_shot.run(Broken(), cohort, quick, prompts=prompts)


def test_a_difference_of_a_model_with_itself_is_zero_and_an_oracle_beats_a_guess(
    oracle: Any, guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    best, worst = (judged(m, cohort, quick, prompts) for m in (oracle, guess))
    same = difference(best, best, "auroc:macro")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    apart = difference(best, worst, "auroc:macro")
    assert apart.low > 0.2
    assert apart.value == pytest.approx(1.0 - worst.metric("auroc:macro").value)


def test_outcomes_under_other_rules_are_not_compared(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    other = replace(quick, name="other", seed=9)
    one, two = (judged(guess, cohort, p, prompts) for p in (quick, other))
    with pytest.raises(ProtocolError, match="different studies or protocols"):
        difference(one, two, "auroc:macro")


def test_the_share_of_a_distance_is_0_at_its_base_and_1_at_its_ceiling(
    oracle: Any, guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    top, base, middle = (
        judged(m, cohort, quick, prompts) for m in (oracle, guess, type(guess)(seed=11))
    )
    name = "auroc:macro"
    assert distance_share(top, top, name, base=base).value == 1.0
    assert distance_share(base, top, name, base=base).value == 0.0
    value = middle.metric(name).value
    share = distance_share(middle, top, name)
    assert share.value == pytest.approx((value - 0.5) / (1.0 - 0.5))
    assert share.low < share.value < share.high
    assert math.isnan(distance_share(base, base, name, base=base).value)


def test_a_summary_holds_macro_large_small_and_every_finding(
    guess: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    found = summary_scores(judged(guess, cohort, quick, prompts).result)
    named = {"macro", "large", "small", "Lung nodule", "Pleural effusion", "Cardiomegaly"}
    assert found.keys() == named
    assert all(set(m) == {"value", "low", "high", "chance", "n"} for m in found.values())
    assert found["macro"]["chance"] == 0.5


def test_one_large_item_makes_a_finding_large(cohort: Any) -> None:
    study = cohort.studies("test")[0].study_id
    pair = tuple(Item(finding="Lung nodule", large=large) for large in (True, False))
    rows = tuple(
        replace(row, labels={**row.labels, "Lung nodule": 1}) if row.study_id == study else row
        for row in cohort.rows
    )
    for items in (pair, pair[::-1]):
        mixed = replace(cohort, rows=rows, found={study: items})
        assert truth_of(mixed, "test", ("Lung nodule",)).large[0, 0] == 1


def test_embeddings_that_differ_by_float_noise_are_ties() -> None:
    noise = 1e-7 * np.random.default_rng(0).normal(size=(50, 3))
    rows = np.float32(np.array([0.6, 0.48, 0.64]) + noise)
    axis = np.float32([[0.123, 0.456, 0.881]])
    assert len(set(cosines(rows, axis, decimals=12).ravel())) > 1
    assert len(set(cosines(rows, axis, decimals=6).ravel())) == 1


def test_large_is_not_known_where_a_positive_study_has_no_items(cohort: Any) -> None:
    bare = truth_of(replace(cohort, found={}), "test", ("Pleural effusion",))
    assert (bare.large == -1).all()
    assert (bare.of_form("large") != 1).all()
    assert (bare.of_form("all") == 1).any()


def test_eighteen_findings_under_the_full_protocol_take_seconds(
    guess: Any, make_cohort: Any, prompts: PromptSet
) -> None:
    whole = make_cohort({"dev": 250, "test": 300})
    start = time.process_time()
    judged(guess, whole, PLAIN, prompts)
    assert time.process_time() - start < 4.0  # four findings; eighteen take 4.5 times as long


# ---- protocols, volumes and prompts ---------------------------------------------------------


def several(cohort: Any) -> Any:
    """The cohort with a second reconstruction for every third study."""
    rows = tuple(
        replace(row, volume_ids=(f"{row.study_id}-v", f"{row.study_id}-w"))
        if int(row.study_id[1:]) % 3 == 0
        else row
        for row in cohort.rows
    )
    return replace(cohort, rows=rows)


class ByVolume:
    """An oracle that sees the second reconstruction of a study upside down."""

    def __init__(self, oracle: Any) -> None:
        self.oracle = oracle
        self.embed_studies, self.embed_text = oracle.embed_studies, oracle.embed_text
        self.embed_reports = oracle.embed_reports

    def embed_volumes(self, cohort: Any, volume_ids: Any) -> Any:
        rows = self.oracle.embed_studies(cohort, [v[:-2] for v in volume_ids])
        turned = np.array([v.endswith("-w") for v in volume_ids])
        rows[turned, :4] *= -1
        return rows


class OneByOne:
    """The same model with the public method for a single volume only."""

    def __init__(self, oracle: Any, cohort: Any) -> None:
        self.many, self.cohort = ByVolume(oracle), cohort
        self.embed_studies, self.embed_text = oracle.embed_studies, oracle.embed_text
        self.embed_reports = oracle.embed_reports

    def embed_volume(self, volume: Any) -> Any:
        return self.many.embed_volumes(self.cohort, [volume.volume_id])[0]


def volumes(protocol: Protocol) -> Protocol:
    """The quick protocol on every volume."""
    return protocol.variant("volumes", classification__unit="volume")


def test_every_reconstruction_is_a_row_where_the_protocol_says_so(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    whole = several(cohort)
    model = ByVolume(oracle)
    result = zero_shot.run(model, whole, volumes(quick), prompts=prompts)
    found = {m.name: m for m in result.metrics}
    test = whole.studies("test")
    assert result.counts["volumes"] == sum(len(row.volume_ids) for row in test)
    assert result.counts["studies"] == 90
    assert found["auroc:macro"].value < 1.0  # the second reconstructions are wrong
    assert found["auroc:macro"].n == len({row.patient_id for row in test})
    first = zero_shot.run(model, whole, quick, prompts=prompts)
    assert {m.name: m.value for m in first.metrics}["auroc:macro"] == 1.0
    assert "volumes" not in first.counts


def test_a_mean_over_reconstructions_is_one_row_a_study(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    mean = quick.variant("mean", classification__unit="study:mean")
    outcome_rows = embed_split(ByVolume(oracle), several(cohort), "test", volumes=True)
    dev_rows = embed_split(ByVolume(oracle), several(cohort), "dev", volumes=True)
    outcome = zero_shot.measure(
        oracle, several(cohort), mean, prompts, embedded=(dev_rows, outcome_rows)
    )
    scores = outcome.table.columns["score:template:Pleural effusion"]
    assert len(scores) == 90
    turned = [int(row.study_id[1:]) % 3 == 0 for row in cohort.studies("test")]
    # right and upside down cancel; where there is one volume it stands alone
    assert np.abs(scores[turned]).max() < 1e-6
    assert np.abs(scores[~np.array(turned)]).min() > 0.1


def test_single_volumes_give_the_same_rows_as_many_at_once(oracle: Any, cohort: Any) -> None:
    class Named(type(cohort)):  # type: ignore[misc]
        def volume(self, volume_id: str, preparation: str | None = None) -> Any:
            voxels = super().volume(f"{volume_id[:-2]}-v", preparation)
            return replace(voxels, volume_id=volume_id)

    made = several(cohort)
    whole = Named(rows=made.rows, texts=made.texts, found=made.found)
    many = embed_split(ByVolume(oracle), whole, "test", volumes=True)
    single = embed_split(OneByOne(oracle, whole), whole, "test", volumes=True)
    assert single.volume_ids == many.volume_ids
    np.testing.assert_array_equal(single.image, many.image)
    np.testing.assert_array_equal(single.text, many.text)
    assert many.order[:2] == (0, 1)


def test_a_model_of_whole_studies_is_judged_by_study_and_the_result_says_so(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    result = zero_shot.run(oracle, several(cohort), volumes(quick), prompts=prompts)
    assert result.counts["studies scored whole, the model embeds no single volume"] == 90
    assert "volumes" not in result.counts


def test_a_protocol_asks_with_its_own_prompts(
    oracle: Any, make_cohort: Any, prompts: PromptSet, findings: tuple[str, ...]
) -> None:
    class Reader(type(oracle)):  # type: ignore[misc]
        def embed_text(self, texts: list[str]) -> Any:
            return super().embed_text([t.lower().replace("not", "no") for t in texts])

    whole = make_cohort({"test": 60}, seed=4, unknown=0.0)
    short = replace(RADFINDER.intervals, num_draws=20)
    rules = replace(RADFINDER.classes, findings="", scored="", one_class="skip")
    narrow = replace(RADFINDER, name="narrow", classification=rules, intervals=short)
    seven = prompt_set("radfinder", findings)
    result = zero_shot.run(Reader(), whole, narrow, prompts=seven)  # needs no dev split
    found = {m.name: m.value for m in result.metrics}
    assert found["printed:AUC"] == found["auroc:macro"] == 1.0
    assert result.provenance["prompts"] == "radfinder"
    assert "dev" not in result.provenance
    assert result.provenance["temperature"] == "none"
    with pytest.raises(ProtocolError, match="asks with prompts 'radfinder', not 'template'"):
        zero_shot.run(oracle, whole, narrow, prompts=prompts)
    with pytest.raises(ProtocolError, match="leaves the prompts open"):
        zero_shot.prompts_of(PLAIN, None)
    assert zero_shot.prompts_of(RADFINDER, None) == prompt_set("radfinder")


def test_a_learned_temperature_is_the_model_s_own_and_is_told(
    oracle: Any, make_cohort: Any, findings: tuple[str, ...]
) -> None:
    whole = make_cohort({"test": 60}, seed=4, unknown=0.0)
    rules = replace(CTCLIP.classes, findings="", scored="", one_class="skip")
    narrow = replace(CTCLIP, name="narrow", classification=rules, num_permutations=2)
    asked = prompt_set("ctclip", findings)
    with pytest.raises(ProtocolError, match="model's own temperature, which is not known"):
        zero_shot.run(oracle, whole, narrow, prompts=asked)

    class Scaled(type(oracle)):  # type: ignore[misc]
        logit_scale = 14.25

    result = zero_shot.run(Scaled(), whole, narrow, prompts=asked)
    assert result.provenance["logit_scale"] == "14.25"
    assert result.provenance["unit"] == "volume"


def test_prompts_are_embedded_once_however_many_studies_there_are(
    oracle: Any, cohort: Any, quick: Protocol, prompts: PromptSet
) -> None:
    class Counting(type(oracle)):  # type: ignore[misc]
        def embed_text(self, texts: list[str]) -> Any:
            calls.append(len(texts))
            return super().embed_text(texts)

    calls: list[int] = []
    both = (embed_split(oracle, cohort, "dev"), embed_split(oracle, cohort, "test"))
    zero_shot.measure(Counting(), cohort, quick, prompts, embedded=both)
    assert calls == [6 * len(prompts.findings)]


def test_labels_are_read_through_the_mapping_of_the_protocol(make_cohort: Any) -> None:
    whole = make_cohort({"test": 12}, seed=1)
    own = tuple(
        replace(row, labels={"fibrosis": i % 2, "scarring": 1, "hernia": None})
        for i, row in enumerate(whole.rows)
    )
    names = ("Pulmonary fibrotic sequela", "Hiatal hernia", "Emphysema")
    cohort = replace(whole, rows=own)
    hlip = truth_of(cohort, "test", names, mapping="hlip")
    assert hlip.labels[:4].tolist() == [[0, -1, -1], [1, -1, -1], [0, -1, -1], [1, -1, -1]]
    standard = truth_of(cohort, "test", names, mapping="standard")
    assert standard.labels[:, 0].tolist() == [1] * 12
    with pytest.raises(ProtocolError, match="no study of split 'test' has a label that mapping"):
        truth_of(whole, "test", names, mapping="hlip")
