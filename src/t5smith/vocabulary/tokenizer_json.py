"""Reading and extending a tokenizer.json: pieces by id, control pieces, sentinels by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from t5smith.base.errors import T5smithError
from t5smith.recipe.symbols import SENTINELS
from t5smith.vocabulary.normalizers import SPACE, UNK, replaces_word

PAD, EOS = "<pad>", "</s>"
CONTROL = PAD, EOS, UNK
"""T5's control pieces, in the order of their ids."""
SENTINEL_NAMES = tuple(f"<extra_id_{i}>" for i in reversed(range(SENTINELS)))
"""Sentinels in the order of their ids: `<extra_id_0>` has the highest."""
SENTINEL = re.compile(rf"{SPACE}?<extra_id_(0|[1-9][0-9]*)>")
"""A sentinel's name in T5, or in mT5, where it begins with `▁`."""
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte's name."""
MOST_IDS = 1_000_000
"""More than any tokenizer has."""

NAME_ONE = (
    "name the tokenizer.json that `tokenizers` or transformers writes, a spiece.model of sentencepiece, or a "
    "folder with one of them"
)
"""How to fix the name of a file that is no tokenizer."""

TokenizerTree = dict[str, Any]
"""A parsed tokenizer.json."""


def parse(text: str, source: object) -> TokenizerTree:
    """Parse a tokenizer.json.

    Raises:
      T5smithError: not a tokenizer.json, or not a Unigram tokenizer.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "it ends too early or is damaged" if text.lstrip().startswith("{") else "it is not JSON"
        raise _no_tokenizer(f"{what}: {error}", source) from None
    try:
        kind = tree["model"]["type"]
        if kind == "Unigram":
            _check(tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_tokenizer(_other_json(tree) or str(error), source) from None
    if kind != "Unigram":
        raise T5smithError(
            f"a tokenizer of type {kind}",
            where=source,
            expected="Unigram, as in T5: the ids of a word do not depend on its neighbours",
            fix="use a T5, mT5 or UMT5 tokenizer, or bytes, or train one with `t5smith vocab`",
        )
    return tree


def _no_tokenizer(why: str, source: object) -> T5smithError:
    return T5smithError(
        f"not a tokenizer.json ({why})", where=source, expected="a Unigram tokenizer, as T5's", fix=NAME_ONE
    )


def _other_json(tree: Any) -> str:
    """What JSON is that is no tokenizer's; "" if only a part of it is wrong."""
    if not isinstance(tree, dict):
        return f"it is a JSON {'list' if isinstance(tree, list) else 'value'}, not an object"
    keys = cast("dict[str, Any]", tree).keys()
    kinds = {"model_type": "a model's config.json", "tokenizer_class": "a tokenizer_config.json"}
    other = next((f"it is {kind}" for key, kind in kinds.items() if key in keys), 'it has no "model"')
    return "" if "model" in keys else other


def _check(tree: TokenizerTree) -> None:
    """Read every entry that is used later, so that errors are found here."""
    for piece, score in tree["model"]["vocab"]:
        if not isinstance(piece, str) or not isinstance(score, int | float):
            raise ValueError(f"{piece!r} with score {score!r} is not a piece")
    for token in tree.get("added_tokens") or []:
        number, content = token["id"], token["content"]
        # There is room for every id up to the highest.
        if not isinstance(content, str) or not isinstance(number, int) or not 0 <= number < MOST_IDS:
            raise ValueError(f"{content!r} with id {number!r} is not a token")
        token["special"]


def pieces_and_control(tree: TokenizerTree) -> tuple[list[str], set[int]]:
    """All pieces by id, and the ids of control pieces: special tokens, and ids without a piece."""
    pieces: list[str | None] = [piece for piece, _ in tree["model"]["vocab"]]
    control: set[int] = set()
    for token in tree.get("added_tokens") or []:
        pieces += [None] * (token["id"] + 1 - len(pieces))
        pieces[token["id"]] = token["content"]
        if token["special"]:
            control.add(token["id"])
    control |= {number for number, piece in enumerate(pieces) if piece is None}
    return [piece or "" for piece in pieces], control


def byte_pieces(tree: TokenizerTree, pieces: Sequence[str]) -> dict[int, int]:
    """Byte by id, for a tokenizer that writes unknown characters as bytes; else empty."""
    if not tree["model"].get("byte_fallback"):
        return {}
    return {
        number: int(match[1], 16) for number, piece in enumerate(pieces) if (match := BYTE.fullmatch(piece))
    }


def unk_id(tree: TokenizerTree, source: object) -> int:
    """The id for text that no piece covers.

    Raises:
      T5smithError: the tokenizer has none.
    """
    unk = tree["model"].get("unk_id")
    if not isinstance(unk, int) or not 0 <= unk < len(tree["model"]["vocab"]):
        raise T5smithError(
            "the vocabulary has no unknown piece", where=source, expected=f"unk_id, the id of {UNK}"
        )
    return unk


def control_ids(ids: Mapping[str, int], unk_id: int, source: object) -> tuple[int, int]:
    """The ids of `<pad>` and `</s>`.

    Raises:
      T5smithError: one is missing, or `<pad>` is not 0, as the model requires.
    """
    for name in (PAD, EOS):
        if ids.get(name, unk_id) == unk_id:
            raise T5smithError(
                f"the vocabulary has no {name}",
                where=source,
                expected=f"a piece {name}",
                fix="train it in SentencePiece with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1",
            )
    if ids[PAD] != 0:
        raise T5smithError(f"{PAD} has the id {ids[PAD]}", where=source, expected="0, as in every T5")
    return ids[PAD], ids[EOS]


def sentinels(ids: Mapping[str, int], unk_id: int, source: object) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, …, looked up by name: files have them in different orders.

    Raises:
      T5smithError: there are none, or one is missing.
    """
    found = {int(match[1]): number for piece, number in ids.items() if (match := SENTINEL.fullmatch(piece))}
    # T5's name wins over mT5's.
    found |= {i: number for i in found if (number := ids.get(f"<extra_id_{i}>")) is not None}
    expected = "pieces <extra_id_0>, <extra_id_1>, …"
    if not found:
        fix = "`t5smith vocab` with vocab.tokenizer adds them, see docs/corpora.md"
        raise T5smithError("the vocabulary has no sentinels", where=source, expected=expected, fix=fix)
    for i in range(max(found) + 1):
        if found.get(i, unk_id) == unk_id:
            raise T5smithError(
                f"<extra_id_{i}> is missing", where=source, expected=f"{expected} without gaps"
            )
    return [found[i] for i in range(len(found))]


def metaspace(node: Any) -> dict[str, Any] | None:
    """The Metaspace step of a pre-tokenizer, alone or in a sequence; None if it has none."""
    if not node:
        return None
    if node["type"] == "Sequence":
        return next(filter(None, map(metaspace, node["pretokenizers"])), None)
    return node if node["type"] == "Metaspace" else None


def control_token(number: int, name: str, *, lstrip: bool = False) -> dict[str, Any]:
    """A control piece as an entry of `added_tokens`."""
    return {
        "id": number,
        "content": name,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def append(tree: TokenizerTree, names: Sequence[str], *, lstrip: bool = False) -> TokenizerTree:
    """Append control pieces; only as added tokens, if the model's table already lacks some pieces."""
    tree = {**tree, "model": dict(tree["model"])}
    size, table = len(pieces_and_control(tree)[0]), list(tree["model"]["vocab"])
    if len(table) == size:
        table += [[name, 0.0] for name in names]
    tree["model"]["vocab"] = table
    tokens = [control_token(size + i, name, lstrip=lstrip) for i, name in enumerate(names)]
    tree["added_tokens"] = [*(tree.get("added_tokens") or []), *tokens]
    return tree


def with_sentinels(tree: TokenizerTree, count: int = SENTINELS) -> TokenizerTree:
    """Append `count` sentinels if the tokenizer has none; `<extra_id_0>` gets the highest id."""
    if any(SENTINEL.fullmatch(piece) for piece in pieces_and_control(tree)[0]):
        return tree
    return append(tree, [f"<extra_id_{i}>" for i in reversed(range(count))], lstrip=True)


def with_control(tree: TokenizerTree, names: Sequence[str]) -> TokenizerTree:
    """Make these pieces control pieces, which no text is encoded as; append those that are missing."""
    pieces, control = pieces_and_control(tree)
    ids = {piece: number for number, piece in enumerate(pieces)}
    new = [control_token(ids[name], name) for name in names if name in ids and ids[name] not in control]
    numbers = {token["id"] for token in new}
    others = [token for token in tree.get("added_tokens") or [] if token["id"] not in numbers]
    tokens = sorted([*others, *new], key=lambda token: token["id"])
    return append({**tree, "added_tokens": tokens}, [name for name in names if name not in ids])


def unknown_words(tree: TokenizerTree) -> tuple[str, ...]:
    """The words of a text that the tokenizer encodes as its unknown id."""
    normalizer = tree.get("normalizer")
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else []
    name = tree["model"]["vocab"][tree["model"]["unk_id"]][0]
    found = (step for step in steps if replaces_word(step) and step["content"] == name)
    return tuple(step["pattern"]["String"] for step in found)


def with_unknown_words(tree: TokenizerTree, words: Sequence[str], source: object) -> TokenizerTree:
    """Make the words of a text in a list, and `<unk>`, the unknown id.

    Raises:
      T5smithError: the tokenizer has no unknown piece.
    """
    if not words:
        return tree
    number = unk_id(tree, source)
    name = tree["model"]["vocab"][number][0]
    own = tree.get("normalizer")
    steps = own["normalizers"] if own and own["type"] == "Sequence" else [own] if own else []
    # A character map has to stay the first step.
    first = [step for step in steps[:1] if step["type"] == "Precompiled"]
    replace = [
        {"type": "Replace", "pattern": {"String": word}, "content": name}
        for word in dict.fromkeys((name, UNK, *words))
    ]
    normalizer = {"type": "Sequence", "normalizers": [*first, *replace, *steps[len(first) :]]}
    others = [token for token in tree.get("added_tokens") or [] if token["id"] != number]
    token = {**control_token(number, name), "normalized": True}
    tokens = sorted([*others, token], key=lambda token: token["id"])
    return {**tree, "normalizer": normalizer, "added_tokens": tokens}


def symbol_score(name: str) -> float:
    """Score of a user symbol: the bonus with which SentencePiece prefers it to trained pieces.

    Measured with version 0.2.3: 0.1 for each UTF-8 byte after the first.
    """
    return 0.1 * (len(name.encode()) - 1)


def append_eos(eos_id: int) -> dict[str, Any]:
    """A post-processor that appends `</s>` to each text, as T5's does."""
    eos = {"SpecialToken": {"id": EOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first, eos],
        "pair": [first, eos, second, eos],
        "special_tokens": {EOS: {"id": EOS, "ids": [eos_id], "tokens": [EOS]}},
    }
