"""A SentencePiece model as a tokenizer.json, with the ids that SentencePiece gives.

Only where two ways to cut a word have the same score may they differ: SentencePiece sums in single precision
over the whole text, the tokenizers library in double precision over a word. And a mark that follows a
user-defined symbol is joined to its last letter, which SentencePiece leaves apart.
"""

from __future__ import annotations

import base64
from typing import Any

from t5smith.base.errors import T5smithError
from t5smith.vocabulary.encoding import OPENING
from t5smith.vocabulary.normalizers import SPACE
from t5smith.vocabulary.sentencepiece_charsmap import character_map
from t5smith.vocabulary.tokenizer_json import BYTE, SENTINEL, Tree, added

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTES = range(1, 7)
KINDS = {2: "BPE", 3: "WORD", 4: "CHAR"}
_EXPECTED = "a SentencePiece Unigram model, as T5's spiece.model"
_TAKE_ANOTHER = "take a Unigram model, or train one with `t5smith vocab`"


def tree(data: bytes, source: object) -> Tree:
    """A tokenizer.json, as a tree, that gives the ids of a SentencePiece model.

    Control pieces are special tokens, sentinels among them under T5's names. Pieces that the model calls
    unused get a name that no text matches.

    Args:
      data: the bytes of the .model file.
      source: the file, for messages.

    Raises:
      T5smithError: the file is damaged, the model is no Unigram, or does what a tokenizer.json cannot.
    """
    model = _parsed(data, source)
    _check(model, source)
    pieces: Any = model.pieces
    scores = [piece.score for piece in pieces if piece.type == NORMAL]
    lowest = min(scores, default=0.0)
    # The lowest score decides what an unknown character costs, so no other piece may have a lower one.
    neutral = max(0.0, lowest)
    matched = [piece.piece for piece in pieces if piece.type in (NORMAL, USER_DEFINED)]
    # Unless that is never weighed, as where each character of the pieces is a piece itself.
    closed = set("".join(matched)) | set("<0x123456789ABCDEF>") <= set(matched)
    table: list[tuple[str, float]] = []
    special: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        name, score = piece.piece, neutral
        if sentinel := SENTINEL.fullmatch(name):
            name = f"<extra_id_{sentinel[1]}>"
            special.append(added(number, name, lstrip=True))
        elif piece.type in (UNKNOWN, CONTROL):
            special.append(added(number, name))
        elif piece.type == UNUSED:
            name = f" {number} {name}"
        elif piece.type == USER_DEFINED:
            # What SentencePiece adds to have it win over what is learned, as measured with version 0.2.3.
            score = 0.1 * (len(name.encode()) - 1)
        elif piece.type == NORMAL:
            score = piece.score
        elif closed:  # a byte: below whatever its name in a text is worth as characters
            score = 10 * min(lowest, -1.0)
        table.append((name, score))
    spec = model.normalizer_spec
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
        "pre_tokenizer": _pre_tokenizer(matched, scheme, names_match=byte_fallback and not closed),
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "Unigram",
            "unk_id": next(number for number, piece in enumerate(pieces) if piece.type == UNKNOWN),
            "vocab": table,
            "byte_fallback": byte_fallback,
        },
    }


def _parsed(data: bytes, source: object) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    try:
        model = schema.ModelProto.FromString(data)
    except DecodeError:
        raise T5smithError("not a whole SentencePiece model", where=source, expected=_EXPECTED) from None
    # What is told of training and normalisation stands behind the pieces.
    if not model.pieces or not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        raise T5smithError("not a whole SentencePiece model", where=source, expected=_EXPECTED)
    return model


def _check(model: Any, source: object) -> None:
    """Refuse what cannot be said in a tokenizer.json, or is no text to text vocabulary."""

    def refuse(what: str, expected: str = _EXPECTED, fix: str = _TAKE_ANOTHER) -> None:
        raise T5smithError(what, where=source, expected=expected, fix=fix)

    trainer, spec = model.trainer_spec, model.normalizer_spec
    if trainer.model_type in KINDS:
        refuse(f"a SentencePiece model of type {KINDS[trainer.model_type]}")
    if trainer.treat_whitespace_as_suffix:
        refuse("white space stands at the ends of pieces", "it before them")
    if not spec.escape_whitespaces:
        refuse("spaces stand in pieces as they are", f"{SPACE} for them")
    if sum(piece.type == UNKNOWN for piece in model.pieces) != 1:
        refuse("not one piece for what is unknown", "<unk>")
    if any(piece.type == BYTES and not BYTE.fullmatch(piece.piece) for piece in model.pieces):
        refuse("a byte has another name than <0x00> to <0xFF>")
    names = [piece.piece for piece in model.pieces]
    if len(set(names)) < len(names):
        refuse("two pieces have the same name")
    plain = character_map(spec.precompiled_charsmap, str(source))
    for piece in model.pieces:
        text = piece.piece.replace(SPACE, " ")
        if piece.type == USER_DEFINED and not SENTINEL.fullmatch(piece.piece) and plain(text) != text:
            refuse(
                f"the user-defined symbol {piece.piece!r} is not as the model normalises text",
                "symbols that normalisation leaves as they are",
            )


def _normalizer(spec: Any, source: object) -> dict[str, Any] | None:
    """What the model does to a text but for the first `▁`; a space there may stay, for it becomes that."""

    def replace(pattern: str, content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

    steps: list[dict[str, Any]] = []
    plain = character_map(spec.precompiled_charsmap, str(source))
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if spec.remove_extra_whitespaces:
        steps += [replace(" {2,}", " "), replace(rf"[ {SPACE}]+\z", "")]
        if not spec.add_dummy_prefix:
            steps.append(replace(rf"{OPENING} ", ""))
        elif plain(SPACE) == SPACE:
            # Metaspace puts nothing before what looks like a space; SentencePiece does.
            steps.append(replace(rf"{OPENING}{SPACE}", 2 * SPACE))
    elif spec.add_dummy_prefix:
        steps.append(replace(rf"{OPENING}[ {SPACE}]", 2 * SPACE))
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _pre_tokenizer(matched: list[str], scheme: str, *, names_match: bool) -> dict[str, Any]:
    """Cuts at spaces where no piece goes over one, and if asked within the name of a byte, which is text."""
    cut = SPACE in matched and not any(SPACE in piece[1:] for piece in matched)
    spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": cut}
    if not names_match:
        return spaces
    name = {"Regex": "(?<=<)(?=0x[0-9A-F]{2}>)"}
    split = {"type": "Split", "pattern": name, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [spaces, split]}
