"""A SentencePiece model as a tokenizer.json with the same ids.

Ids may differ only where two segmentations of a word have the same score: SentencePiece sums in single
precision over the whole text, the tokenizers library in double precision over a word. Also, a combining mark
after a user-defined symbol is joined to the symbol's last letter, which SentencePiece does not do.
"""

from __future__ import annotations

import base64
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.vocabulary.encoding import TEXT_START
from t5smith.vocabulary.normalizers import SPACE
from t5smith.vocabulary.sentencepiece_charsmap import character_map
from t5smith.vocabulary.tokenizer_json import BYTE, SENTINEL, TokenizerTree, control_token, symbol_score

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTES = range(1, 7)
"""Types of pieces in a SentencePiece model."""
OTHER_MODEL_TYPES = {2: "BPE", 3: "WORD", 4: "CHAR"}
_EXPECTED = "a SentencePiece Unigram model, as T5's spiece.model"
_INCOMPLETE = "not a complete SentencePiece model"
_AGAIN = "download it again; a tokenizer.json must be named .json"
_USE_ANOTHER = "use a Unigram model, or train one with `t5smith vocab`"


def to_tokenizer_json(data: bytes, source: object) -> TokenizerTree:
    """Convert a SentencePiece model to a tokenizer.json that gives the same ids.

    Control pieces become special tokens, sentinels under T5's names. Unused pieces get a name that no text
    matches.

    Args:
      data: the bytes of the .model file.
      source: the file, for messages.

    Raises:
      T5smithError: the file is damaged, not a Unigram model, or does what a tokenizer.json cannot.
    """
    model = _parse(data, source)
    _check(model, source)
    pieces: Any = model.pieces
    spec = model.normalizer_spec
    matched = [piece.piece for piece in pieces if piece.type in (NORMAL, USER_DEFINED)]
    # Every character of the pieces is a piece, and so is every character of the names of bytes.
    closed = set("".join(matched)) | set("<0x123456789ABCDEF>") <= set(matched)
    table, special = _pieces(pieces, closed)
    byte_fallback = any(piece.type == BYTES for piece in pieces)
    scheme = "first" if spec.add_dummy_prefix else "never"
    decoder: dict[str, Any] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": scheme,
        "split": True,
    }
    if byte_fallback:
        steps = [{"type": "ByteFallback"}, {"type": "Fuse"}, decoder]
        decoder = {"type": "Sequence", "decoders": steps}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": _normalizer(spec, source),
        "pre_tokenizer": _pre_tokenizer(matched, scheme, split_byte_names=byte_fallback and not closed),
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "Unigram",
            "unk_id": next(number for number, piece in enumerate(pieces) if piece.type == UNKNOWN),
            "vocab": table,
            "byte_fallback": byte_fallback,
        },
    }


def _pieces(pieces: Any, closed: bool) -> tuple[list[tuple[str, float]], list[dict[str, Any]]]:
    """The table of names and scores, and the special tokens.

    Args:
      pieces: of the model.
      closed: no unknown character occurs in the name of a piece or byte, so a byte may score lowest.
    """
    lowest = min((piece.score for piece in pieces if piece.type == NORMAL), default=0.0)
    # The lowest score decides the cost of an unknown character, so no other piece may have a lower one.
    neutral = max(0.0, lowest)
    table: list[tuple[str, float]] = []
    special: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        name, score = piece.piece, neutral
        if sentinel := SENTINEL.fullmatch(name):
            name = f"<extra_id_{sentinel[1]}>"
            special.append(control_token(number, name, lstrip=True))
        elif piece.type in (UNKNOWN, CONTROL):
            special.append(control_token(number, name))
        elif piece.type == UNUSED:
            name = f" {number} {name}"
        elif piece.type == USER_DEFINED:
            score = symbol_score(name)
        elif piece.type == NORMAL:
            score = piece.score
        elif closed:  # a byte scores lower than its name spelled in characters
            score = 10 * min(lowest, -1.0)
        table.append((name, score))
    return table, special


def _parse(data: bytes, source: object) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    try:
        model = schema.ModelProto.FromString(data)
    except DecodeError:
        raise T5smithError(_INCOMPLETE, where=source, expected=_EXPECTED, fix=_AGAIN) from None
    # The specifications of training and normalization are stored after the pieces.
    if not model.pieces or not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        raise T5smithError(_INCOMPLETE, where=source, expected=_EXPECTED, fix=_AGAIN)
    return model


def _check(model: Any, source: object) -> None:
    """Reject models that a tokenizer.json cannot express, and models that are not meant for text."""

    def reject(what: str, expected: str = _EXPECTED, fix: str = _USE_ANOTHER) -> None:
        raise T5smithError(what, where=source, expected=expected, fix=fix)

    trainer, spec = model.trainer_spec, model.normalizer_spec
    if trainer.model_type in OTHER_MODEL_TYPES:
        reject(f"a SentencePiece model of type {OTHER_MODEL_TYPES[trainer.model_type]}")
    if trainer.treat_whitespace_as_suffix:
        reject("spaces are at the ends of pieces", "spaces at the beginning of pieces")
    if not spec.escape_whitespaces:
        reject("pieces contain plain spaces", f"{SPACE} for spaces")
    if sum(piece.type == UNKNOWN for piece in model.pieces) != 1:
        reject("there is not exactly one unknown piece", "<unk>")
    if any(piece.type == BYTES and not BYTE.fullmatch(piece.piece) for piece in model.pieces):
        reject("a byte is not named <0x00> to <0xFF>")
    names = [piece.piece for piece in model.pieces]
    if len(set(names)) < len(names):
        reject("two pieces have the same name")
    normalize = character_map(spec.precompiled_charsmap, str(source))
    for piece in model.pieces:
        text = piece.piece.replace(SPACE, " ")
        if piece.type == USER_DEFINED and not SENTINEL.fullmatch(piece.piece) and normalize(text) != text:
            reject(
                f"the model's normalization changes the user-defined symbol {piece.piece!r}",
                "symbols that normalization does not change",
            )


def _normalizer(spec: Any, source: object) -> dict[str, Any] | None:
    """The model's normalization except for the first `▁`; a leading space may stay, since it becomes `▁`."""

    def replace(pattern: str, content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

    steps: list[dict[str, Any]] = []
    normalize = character_map(spec.precompiled_charsmap, str(source))
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if spec.remove_extra_whitespaces:
        steps += [replace(" {2,}", " "), replace(rf"[ {SPACE}]+\z", "")]
        if not spec.add_dummy_prefix:
            steps.append(replace(rf"{TEXT_START} ", ""))
        elif normalize(SPACE) == SPACE:
            # Metaspace does not prepend `▁` to a text that begins with it; SentencePiece does.
            steps.append(replace(rf"{TEXT_START}{SPACE}", 2 * SPACE))
    elif spec.add_dummy_prefix:
        steps.append(replace(rf"{TEXT_START}[ {SPACE}]", 2 * SPACE))
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _pre_tokenizer(matched: list[str], scheme: str, *, split_byte_names: bool) -> dict[str, Any]:
    """Metaspace, which splits at spaces unless a piece contains one.

    Args:
      matched: pieces that match text.
      scheme: whether `▁` is prepended: `first` or `never`.
      split_byte_names: also split `<0x41>` typed in a text, so that it does not match the byte.
    """
    cut = SPACE in matched and not any(SPACE in piece[1:] for piece in matched)
    spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": cut}
    if not split_byte_names:
        return spaces
    name = {"Regex": "(?<=<)(?=0x[0-9A-F]{2}>)"}
    split = {"type": "Split", "pattern": name, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [spaces, split]}
