"""A model as it is used: parameters, sizes and the vocabulary that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Model:
    """All that is needed to use a model."""

    parameters: Parameters
    config: ModelConfig
    vocabulary: Vocabulary
