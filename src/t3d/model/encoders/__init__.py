"""Image and text encoders; a new one is a file here and a name in its tuple."""

from __future__ import annotations

from t3d.model.encoders.bag_of_ngrams import BagOfNGrams
from t3d.model.encoders.hf_text import HFText
from t3d.model.encoders.resnet import ResNet3d
from t3d.model.encoders.statstem import StatStem

IMAGE_ENCODERS = (StatStem, ResNet3d)
TEXT_ENCODERS = (BagOfNGrams, HFText)
