"""A vocabulary as a `spiece.model`, which T5Tokenizer, llama.cpp's converter and sentencepiece read.

It gives the ids of the `tokenizer.json` beside it: pieces have the same ids and scores, and a character map
does what the normalizer does. Sentinels are not in it, as in T5's own: readers add them after its pieces.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t5smith.interop.spiece.charsmap import charsmap
from t5smith.recipe.symbols import SENTINELS
from t5smith.recipe.vocab import VocabSettings
from t5smith.vocabulary.normalizers import SPACE, normalizer, normalizer_json
from t5smith.vocabulary.sentencepiece import (
    BYTES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from t5smith.vocabulary.tokenizer_json import BYTE, metaspace, symbol_score
from t5smith.vocabulary.vocabulary import Vocabulary

SPIECE, ADDED_TOKENS = "spiece.model", "added_tokens.json"
_UNIGRAM = 1
_SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
_T5_SPACES = _SPACES | {"content": SPACE}
_COLLAPSES = (
    _SPACES,
    _T5_SPACES,
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": rf"[ {SPACE}]+\z"}, "content": ""},
    # Metaspace puts no space before a text that begins with `▁`; SentencePiece does.
    {"type": "Replace", "pattern": {"Regex": rf"\A{SPACE}"}, "content": 2 * SPACE},
)
"""Steps after a character map that SentencePiece does too if it removes extra white space."""


class NotExpressibleError(Exception):
    """A SentencePiece model cannot do what a vocabulary does; says why."""


def write_spiece(folder: Path, vocabulary: Vocabulary) -> None:
    """Write the model and the ids of the sentinels beside a tokenizer.json, if a model can be as it is."""
    try:
        data = spiece_model(vocabulary)
    except NotExpressibleError:
        return
    (folder / SPIECE).write_bytes(data)
    ids = vocabulary.sentinel_ids.tolist()
    names = {name: number for number, name in sorted(zip(ids, vocabulary.pieces(ids), strict=True))}
    (folder / ADDED_TOKENS).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    if len(ids) != SENTINELS:
        # T5Tokenizer expects as many, unless told.
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) | {"extra_ids": len(ids)}
        config.write_text(json.dumps(settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def why_no_spiece(vocabulary: Vocabulary) -> str:
    """Why a vocabulary has no SentencePiece model; "" if it has one."""
    try:
        spiece_model(vocabulary)
    except NotExpressibleError as error:
        return str(error)
    return ""


def spiece_model(vocabulary: Vocabulary) -> bytes:
    """The bytes of the model.

    Raises:
      NotExpressibleError: the vocabulary does what such a model cannot do.
    """
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    if vocabulary.is_byte_level:
        raise NotExpressibleError("its tokens are bytes")
    if vocabulary.keeps_whitespace:
        raise NotExpressibleError("it keeps white space")
    if vocabulary.unknown_words:
        raise NotExpressibleError("it makes words of the text unknown")
    tree = vocabulary.tree()
    size = vocabulary.size - len(vocabulary.sentinel_ids)
    if vocabulary.sentinel_ids[::-1].tolist() != list(range(size, vocabulary.size)):
        raise NotExpressibleError("its sentinels are not its last pieces, in T5's order")
    model = schema.ModelProto()
    spec = model.normalizer_spec
    steps = _steps(tree["pre_tokenizer"], "pretokenizers")
    spec.name, spec.precompiled_charsmap = "user_defined", _charsmap(tree.get("normalizer"), steps)
    spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = True
    _check_cut(steps, tree["model"]["vocab"][:size])
    table = tree["model"]["vocab"]
    byte_fallback = bool(tree["model"].get("byte_fallback"))
    for number, name in enumerate(vocabulary.all_pieces[:size]):
        score = table[number][1] if number < len(table) else 0.0
        kind, name, score = _piece(vocabulary, number, name, score, byte_fallback)
        model.pieces.add(piece=name, score=score, type=kind)
    names = [piece.piece for piece in model.pieces]
    if "" in names or len(set(names)) < size:
        raise NotExpressibleError("two of its pieces have the same name, or one has none")
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = _UNIGRAM, size, byte_fallback
    trainer.pad_id, trainer.eos_id, trainer.unk_id, trainer.bos_id = (
        0,
        vocabulary.eos_id,
        vocabulary.unk_id,
        -1,
    )
    trainer.unk_piece = names[vocabulary.unk_id]
    return model.SerializeToString(deterministic=True)


def _piece(
    vocabulary: Vocabulary, number: int, name: str, score: float, byte_fallback: bool
) -> tuple[int, str, float]:
    """The type of a piece, its name and its score."""
    if number == vocabulary.unk_id:
        return UNKNOWN, name, 0.0
    if not vocabulary.is_text[number]:
        return CONTROL, name, 0.0
    if name.startswith(unused := f" {number} "):  # as it is read from a SentencePiece model
        return UNUSED, name.removeprefix(unused), 0.0
    if byte_fallback and BYTE.fullmatch(name):
        return BYTES, name, 0.0
    if score == symbol_score(name):
        return USER_DEFINED, name, 0.0
    return NORMAL, name, score


def _steps(node: Any, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer; `name`: of the list of several."""
    if not node:
        return []
    return node[name] if node["type"] == "Sequence" else [node]


def _charsmap(own: Any, cuts: Sequence[Mapping[str, Any]]) -> bytes:
    """The character map that does what a normalizer of a tokenizer.json does; `cuts`: its pre-tokenizer."""
    for name in ("nfkc", "nmt_nfkc", "nfc", "none"):
        for lowercase in (False, True):
            settings = VocabSettings.model_validate({"normalization": name, "lowercase": lowercase})
            if own == normalizer_json(normalizer(settings)):
                return charsmap(name, lowercase)
    first, *others = _steps(own, "normalizers") or [{"type": None}]
    collapses = (
        any(step["type"] == "WhitespaceSplit" for step in cuts) or _SPACES in others or _T5_SPACES in others
    )
    if first["type"] != "Precompiled" or not collapses or any(step not in _COLLAPSES for step in others):
        raise NotExpressibleError("its normalizer is not known")
    return base64.b64decode(first["precompiled_charsmap"])


def _check_cut(steps: Sequence[Mapping[str, Any]], table: Sequence[tuple[str, float]]) -> None:
    """Check that cutting text before it is looked up makes no difference: no piece goes across a cut."""
    spaces = metaspace({"type": "Sequence", "pretokenizers": steps}) or {}
    if spaces.get("prepend_scheme") not in ("first", "always"):
        raise NotExpressibleError("it puts no space before a text")
    learned = [name for name, score in table if score < 0 and not BYTE.fullmatch(name)]
    if spaces.get("split", True) and any(SPACE in name[1:] for name in learned):
        raise NotExpressibleError("it has pieces with a space in them, which no text is encoded as")
    digits = any(step["type"] == "Digits" or r"\p{N}" in str(step.get("pattern")) for step in steps)
    if digits and any(len(name) > 1 and any(map(str.isnumeric, name)) for name in learned):
        raise NotExpressibleError("it makes each digit a piece of its own, but has pieces with several")
