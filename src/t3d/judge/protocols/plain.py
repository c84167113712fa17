"""The protocol `plain`: no temperature, no fitting on evaluated data."""

from __future__ import annotations

from t3d.judge.protocol import Protocol

PLAIN = Protocol(
    name="plain",
    source="ours; what each rule avoids is listed in the evaluation notes of the documentation",
    unit="patients",
    prompt_rule=(
        "cos(image, positive prototype) - cos(image, negative prototype); prototype = mean of "
        "prompt embeddings, each brought to unit length, the mean brought to unit length again"
    ),
    threshold_rule="youden_from_dev",
    credit="study",
    tie_rule="a tied pair counts one half; tied candidates stand in every order alike",
    floor=(
        "constant scores: AUROC and balanced accuracy .5, average precision = prevalence, "
        "R@K = K of the pool; yes/no scores: the better of all-negative and all-positive"
    ),
    ceiling="1 for every score, studies with identical reports credited",
)
"""Cosine difference, thresholds from dev, study-level credit, patient-clustered intervals."""
