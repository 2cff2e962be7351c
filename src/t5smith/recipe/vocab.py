"""The vocabulary to train or import: the table `[vocab]`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Positive, Settings, Strings
from t5smith.recipe.symbols import check_symbols


class VocabSettings(Settings):
    """A SentencePiece-style Unigram vocabulary with T5's sentinels."""

    section: ClassVar[str] = "vocab"

    tokenizer: str = ""
    """Train none, take this: a folder, tokenizer.json or .model file, a name on the Hub as google/mt5-small,
    with hf:NAME@REVISION at one revision, or `bytes` (ByT5)."""
    size: Annotated[int, Field(ge=8, le=1_000_000)] = 32_000
    """Pieces asked for, `<pad>`, `</s>` and `<unk>` included, the 100 sentinels not (T5: 32,000)."""
    control_symbols: Strings = ()
    """Pieces that no text turns into, put before the sentinels, as the mode tokens of a mixture."""
    user_symbols: Strings = ()
    """Pieces that stand for themselves wherever they are in a text, as <br>; they are among `size`."""
    max_piece_length: Annotated[int, Field(ge=1, le=64)] = 16
    """Longest piece in characters."""
    normalization: Literal["nfkc", "nmt_nfkc", "nfc", "none"] = "nfkc"
    """What is done to characters before pieces are looked up; nmt_nfkc is T5's own table. In any case white
    space becomes single spaces."""
    lowercase: bool = False
    """Make all letters small, for good: the model never sees or writes capitals."""
    split_digits: bool = False
    """Make each digit a piece of its own."""
    byte_fallback: bool = False
    """Write characters that no piece covers as UTF-8 bytes, not as <unk>; 256 of `size` are for them."""
    character_coverage: Annotated[float, Field(ge=0.9, le=1)] = 1.0
    """Share of the characters in the text that must be pieces; the rarest may be left out. 1: all of them."""
    sample_bytes: Positive = 200_000_000
    """Train on at most this many bytes of text, drawn evenly over the documents."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Named corpora have shares of the sample in proportion to size^(1/temperature); 1: by size."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides which text is drawn where there is more than sample_bytes."""

    @model_validator(mode="after")
    def _room_for_pieces(self) -> Self:
        taken = 3 + 256 * self.byte_fallback + len(set(self.user_symbols))
        if self.size < taken + 5:
            raise T5smithError(
                f"{self.size} cannot be used",
                where="vocab.size",
                expected=f"{taken + 5} or more: control pieces, bytes and user_symbols take {taken}",
            )
        return self

    @model_validator(mode="after")
    def _symbols_that_can_be(self) -> Self:
        check_symbols(self.control_symbols, self.user_symbols)
        return self
