"""A model as it is used: parameters, sizes and vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from t5smith.model.config import ModelConfig
from t5smith.model.params import Parameters
from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Model:
    """Everything that generation, inspection and export need of a model.

    Attributes:
      parameters: the weights.
      config: the sizes.
      vocabulary: the vocabulary that the model was trained with.
    """

    parameters: Parameters
    config: ModelConfig
    vocabulary: Vocabulary
