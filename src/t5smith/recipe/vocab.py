"""The vocabulary that is trained or imported: the table `[vocab]`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t5smith.base.errors import T5smithError
from t5smith.recipe.base import Positive, Settings, Strings
from t5smith.recipe.symbols import check_symbols, check_unknown_words


class VocabSettings(Settings):
    """The vocabulary: trained as a SentencePiece Unigram model with T5's sentinels, or imported."""

    section: ClassVar[str] = "vocab"

    tokenizer: str = ""
    """Import this tokenizer instead of training one: a folder, a tokenizer.json or .model file, a name on the
    Hub such as google/mt5-small (hf:NAME@REVISION for one revision), or `bytes` (ByT5)."""
    size: Annotated[int, Field(ge=8, le=1_000_000)] = 32_000
    """Number of pieces, `<pad>`, `</s>` and `<unk>` included, the 100 sentinels not. T5: 32,000."""
    control_symbols: Strings = ()
    """Pieces that no text is ever encoded as, such as the mode tokens of a mixture. Their ids are before
    those of the sentinels."""
    user_symbols: Strings = ()
    """Texts that are one piece wherever they stand, such as <br>, as in SentencePiece. They count towards
    `size`."""
    unknown_words: Strings = ()
    """Words of the text that stand for unknown text, such as <unk> and [UNK]: they become the unknown id, and
    <unk> is always one of them. Default: none; such words are text, spelled out."""
    max_piece_length: Annotated[int, Field(ge=1, le=64)] = 16
    """Maximum length of a piece, in characters."""
    normalization: Literal["nfkc", "nmt_nfkc", "nfc", "none"] = "nfkc"
    """Unicode normalization before encoding; nmt_nfkc is T5's own table."""
    keep_whitespace: bool = False
    """Keep new lines, tabs and every space, for verse, code and chat. Default: white space becomes single
    spaces."""
    lowercase: bool = False
    """Lowercase all text. The model never sees or writes capitals."""
    split_digits: bool = False
    """Make each digit a piece of its own."""
    byte_fallback: bool = False
    """Encode characters without a piece as UTF-8 bytes, not as <unk>. The bytes take 256 of `size`."""
    character_coverage: Annotated[float, Field(ge=0.9, le=1)] = 1.0
    """Share of the text's characters that pieces must cover; the rarest characters are dropped. 1: cover
    all."""
    sample_bytes: Positive = 200_000_000
    """Train on a sample of at most this many bytes of text, drawn evenly over the documents."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Named corpora get shares of the sample in proportion to size^(1/temperature); 1: by size."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed of the sample, used if there is more text than `sample_bytes`."""

    @model_validator(mode="after")
    def _room_for_pieces(self) -> Self:
        taken = 3 + 256 * self.byte_fallback + len(set(self.user_symbols))
        if self.size < taken + 5:
            raise T5smithError(
                f"{self.size} cannot be used",
                where="vocab.size",
                expected=f"{taken + 5} or more, because control pieces, bytes and user_symbols take {taken}",
            )
        return self

    @model_validator(mode="after")
    def _new_lines_survive(self) -> Self:
        if self.keep_whitespace and self.normalization == "nmt_nfkc":
            raise T5smithError(
                "nmt_nfkc cannot be used with keep_whitespace: it makes new lines and tabs spaces",
                where="vocab.normalization",
                expected="nfkc, nfc or none",
            )
        return self

    @model_validator(mode="after")
    def _valid_symbols(self) -> Self:
        check_symbols(self.control_symbols, self.user_symbols)
        check_unknown_words(self.unknown_words, (*self.control_symbols, *self.user_symbols))
        return self

    def inputs(self) -> dict[str, Any]:
        """What a trained vocabulary depends on: later settings only if they differ from their defaults."""
        later = {name for name in ("unknown_words", "keep_whitespace") if not getattr(self, name)}
        return self.model_dump(exclude={"tokenizer", *later})
