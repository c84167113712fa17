"""Losses a recipe can name; a new one is a file here and a name in this tuple."""

from __future__ import annotations

from t3d.learn.objectives.classify import Classify
from t3d.learn.objectives.contrast import Contrast
from t3d.learn.objectives.report_terms import ReportTerms
from t3d.learn.objectives.sentence_match import SentenceMatch
from t3d.learn.objectives.text_warmup import TextWarmup
from t3d.learn.objectives.tma import TMA

OBJECTIVES = (Contrast, TMA, SentenceMatch, ReportTerms, TextWarmup, Classify)
