"""What a text must give away (the findings) and what it must not (how many there are)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from made_items import draw_report, texts
from t3d.phantom.items import WrittenReport
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import label_report
from t3d.text.ngrams import NGramVocabulary
from t3d.text.sentences import split_sentences

NUM = 600
TRAIN = 400

Cohort = list[tuple[dict[str, int], WrittenReport]]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return [draw_report(seed) for seed in range(NUM)]


@pytest.mark.parametrize("section", ["findings", "impression"])
def test_the_number_of_words_does_not_give_away_the_number_of_findings(
    cohort: Cohort, section: str
) -> None:
    words = [len(getattr(written.report, section).split()) for _, written in cohort]
    counts = [sum(labels.values()) for labels, _ in cohort]
    assert abs(np.corrcoef(words, counts)[0, 1]) < 0.12


def test_the_words_of_both_sections_together_do_not_either(cohort: Cohort) -> None:
    words = [len(f"{w.report.findings} {w.report.impression}".split()) for _, w in cohort]
    counts = [sum(labels.values()) for labels, _ in cohort]
    assert abs(np.corrcoef(words, counts)[0, 1]) < 0.12


def test_the_number_of_sentences_would_have_given_it_away(cohort: Cohort) -> None:
    """Positive sentences are longer than fillers, so a fixed length in words has fewer of them."""
    sentences = [len(texts(written, "findings")) for _, written in cohort]
    counts = [sum(labels.values()) for labels, _ in cohort]
    assert np.corrcoef(sentences, counts)[0, 1] < -0.3


@pytest.mark.parametrize("wording", ["train", "heldout"])
def test_the_labeler_gives_back_every_label_from_findings(wording: str) -> None:
    for seed in range(NUM):
        labels, written = draw_report(seed, wording)
        text = written.report.findings
        read = label_report([text[start:end] for start, end in split_sentences(text)])
        for name, value in labels.items():
            assert read[name].value in ({1} if value else {0, None}), (seed, name)


def test_no_report_occurs_twice_among_three_thousand() -> None:
    seen = set()
    for seed in range(3000):
        _, written = draw_report(seed)
        seen.add((written.report.findings, written.report.impression))
    assert len(seen) == 3000


def macro_auroc(reports: list[list[str]], labels: np.ndarray) -> float:
    """Train on the first 400 texts, score the rest: mean AUROC over the 18 findings."""
    vocabulary = NGramVocabulary.fit(reports[:TRAIN], min_reports=4)
    rows = sparse.lil_array((len(reports), len(vocabulary)))
    for i, report in enumerate(reports):
        for sentence in report:
            rows[i, list(vocabulary.ids(sentence))] = 1.0
    table = rows.tocsr()
    values = []
    for k in range(len(CT_RATE_18)):
        model = LogisticRegression(solver="liblinear", C=1.0)
        model.fit(table[:TRAIN], labels[:TRAIN, k])
        values.append(roc_auc_score(labels[TRAIN:, k], model.decision_function(table[TRAIN:])))
    return float(np.mean(values))


def test_a_bag_of_ngrams_predicts_the_labels_of_its_own_text_and_none_of_another(
    cohort: Cohort,
) -> None:
    labels = np.array([[row[name] for name in CT_RATE_18] for row, _ in cohort])
    reports = [texts(written, "findings") for _, written in cohort]
    assert macro_auroc(reports, labels) > 0.98
    order = np.random.default_rng(0).permutation(NUM)
    assert macro_auroc([reports[i] for i in order], labels) == pytest.approx(0.5, abs=0.04)
