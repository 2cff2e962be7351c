"""The mode token before a text: which one is meant, and whether the model was trained with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t5smith.base.errors import T5smithError
from t5smith.base.progress import info, warn
from t5smith.objective.denoisers import Denoiser, denoisers_of, mode_token_ids
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.vocabulary.vocabulary import Vocabulary

TRAINED_WITH = "t5smith.json"
"""The file of an exported model that has the settings of its training."""
FLAG = "--mode"


@dataclass(frozen=True)
class Mode:
    """The mode in which a model completes texts.

    Attributes:
      token: the mode token; "" if there is none.
      ids: its ids.
      continues: whether the model continues a text (prefix LM) and fills in no spans.
      ends: whether the model was trained to end its output with `</s>`.
    """

    token: str
    ids: tuple[int, ...]
    continues: bool = False
    ends: bool = True


def mode_of(folder: Path, vocabulary: Vocabulary, token: str | None) -> Mode:
    """The mode that is asked for or assumed; what is assumed is reported.

    A model that was trained with mode tokens is used with that of its first denoiser that masks spans, which
    are the shortest, unless another is asked for.

    Args:
      folder: of an exported model. Models of other projects do not say what they were trained with.
      vocabulary: the model's.
      token: the mode token; "": none; None: choose.

    Raises:
      T5smithError: the model was not trained with this mode token, or the vocabulary cannot encode it.
    """
    settings = _objective(folder)
    if settings is None:
        return _unrecorded(vocabulary, token)
    denoisers = denoisers_of(settings)
    tokens = list(dict.fromkeys(denoiser.prefix for denoiser in denoisers if denoiser.prefix))
    if token and token not in tokens:
        what = f"the model was trained {'with other' if tokens else 'without'} mode tokens"
        expected = " or ".join(tokens) or "no mode token"
        raise T5smithError(what, where=f"{FLAG} {token}", expected=expected)
    if token is None:
        spans = [one for one in denoisers if one.mean_noise_span_length is not None]
        token = (spans or denoisers)[0].prefix
        if token:
            others = ", ".join(f"{FLAG} {other}" for other in tokens if other != token)
            info(f"generate  mode {token} is assumed" + (f"; others: {others}" if others else ""))
    elif tokens and not token:
        warn(f"no mode token, but the model was trained with {', '.join(tokens)}")
    return Mode(token, mode_token_ids(token, vocabulary), _continues(denoisers, token), settings.eos)


def _continues(denoisers: tuple[Denoiser, ...], token: str) -> bool:
    """Whether all denoisers with this token are prefix LM; without a denoiser that has it, all of them."""
    own = [denoiser for denoiser in denoisers if denoiser.prefix == token] or denoisers
    return all(denoiser.mean_noise_span_length is None for denoiser in own)


def _unrecorded(vocabulary: Vocabulary, token: str | None) -> Mode:
    """The mode of a model that does not say what it was trained with."""
    if token:
        ids = mode_token_ids(token, vocabulary)
        how = "" if vocabulary.id_of(token) is not None else ", and its vocabulary has no such piece"
        warn(f"whether the model was trained with the mode token {token} is not recorded{how}")
        return Mode(token, ids)
    standard = {vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, *vocabulary.sentinel_ids.tolist()}
    others = [number for number in np.flatnonzero(~vocabulary.is_text).tolist() if number not in standard]
    names = [name for name in vocabulary.pieces(others) if name]
    if token is None and names:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        info(f"generate  no mode token is assumed; the vocabulary has {some}, which {FLAG} may name")
    return Mode("", ())


def _objective(folder: Path) -> ObjectiveSettings | None:
    """The objective that a model was trained with; None if it is not recorded."""
    try:
        tree = json.loads((folder / TRAINED_WITH).read_text(encoding="utf-8"))
        return ObjectiveSettings.model_validate(tree["objective"])
    except (OSError, ValueError, TypeError, KeyError, T5smithError):
        return None
