"""`t5smith vocab --extend`: an existing model with the pieces of a corpus added to its vocabulary.

The scores of an old and a new Unigram vocabulary are log probabilities of different texts. A new piece gets
its own score plus the median difference, old minus new, of the pieces that both have, and at least the lowest
old score, so that an unknown character keeps its score. A piece that would score no better than its
spelling in old pieces is skipped, since no text would be cut into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from t5smith.base.artifact import building, find_up_to_date, fingerprint
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import info, progress
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.interop.source import Source, with_rows
from t5smith.interop.trimming import model_inputs, pieces_of
from t5smith.recipe.recipe import Recipe
from t5smith.text.corpus import CorpusFiles
from t5smith.text.fingerprints import bytes_to_read
from t5smith.vocabulary.carry_over import carried_rows
from t5smith.vocabulary.sample import TextSample
from t5smith.vocabulary.tokenizer_json import TokenizerTree, control_token
from t5smith.vocabulary.train import vocab_inputs
from t5smith.vocabulary.unigram import ScoredPiece, train_pieces
from t5smith.vocabulary.vocabulary import Vocabulary

METHOD = 1
"""Increase when the same model and text give another folder than before."""
FLAG = "--extend"


@in_run_folder
def extend_vocabulary(recipe: Recipe, model: str) -> Path:
    """Write a model with the pieces of a recipe's text added, for `train.init_from`. Old ids are unchanged.

    A vocabulary of `vocab.size` is trained on the text; its pieces that the model lacks are appended. The row
    of each, in embedding and head, is the mean of the rows of the old pieces that spell it.

    Args:
      recipe: names the text, `vocab.size` and the run folder.
      model: what `train.init_from` accepts, with a tokenizer of pieces.

    Returns:
      The folder, `extended` in the run folder: configuration, weights (float32) and tokenizer.

    Raises:
      T5smithError: the model cannot be read or has no pieces, or there is no text.
    """
    source, folder = Source.find(model, FLAG), recipe.folder / "extended"
    old, files = pieces_of(source, FLAG), CorpusFiles.find(recipe.corpus)
    inputs = {
        "extension": METHOD,
        **model_inputs(source),
        "trained": vocab_inputs(recipe, files.inputs()),
        "rows": recipe.model.vocab_multiple,
    }
    if find_up_to_date(folder, "extended", fingerprint(inputs)):
        info(f"vocab     already done: {folder}")
        return folder
    with progress("vocab", sum(map(bytes_to_read, files.files("train"))) or None, "bytes") as bar:
        sample = TextSample(recipe, files, bar)
    sample.skipped.report()
    trained = train_pieces(sample.chunks, recipe.vocab)
    new = new_pieces(old, trained)
    facts = {"pieces_before": old.size, "added": len(new), **sample.facts()}
    with building(folder, "extended", inputs, facts) as work, phase("vocab", "writing the model"):
        made = extended(load_model(source.path), new, recipe.model.vocab_multiple, recipe.seed)
        write_model(work, made, model_max_length=512)
    known = len({piece for piece, _ in trained} & set(old.all_pieces))
    left_out = len(trained) - known - len(new)
    rest = f"{known:,} were there, {left_out:,} are skipped"
    info(f"vocab     {len(new):,} pieces are added to {old.size:,}; {rest}")
    info(f'vocab     {folder}; continue with train.init_from = "{folder}"')
    return folder


def new_pieces(old: Vocabulary, trained: Iterable[ScoredPiece]) -> list[ScoredPiece]:
    """The trained pieces that a vocabulary lacks and a text would be cut into, with scores on its scale."""
    tree = old.tree()
    table: list[list[object]] = tree["model"]["vocab"]
    scores = {str(piece): float(str(score)) for piece, score in table}
    pairs = list(trained)
    shared = [scores[piece] - score for piece, score in pairs if piece in scores]
    offset, lowest = float(np.median(shared or [0.0])), min(scores.values())
    unknown = lowest - 10  # as the tokenizers library scores a character without a piece

    def spelled(piece: str) -> float:
        own = old.spell(piece)
        return sum(unknown if one == old.unk_id else scores[old.all_pieces[one]] for one in own)

    scaled = [(piece, max(score + offset, lowest)) for piece, score in pairs if old.id_of(piece) is None]
    return [(piece, score) for piece, score in scaled if score > spelled(piece)]


def extended(model: Model, new: list[ScoredPiece], multiple: int, seed: int) -> Model:
    """The model with the pieces appended, and rows up to a multiple."""
    old, p = model.vocabulary, model.parameters
    vocabulary = Vocabulary(json.dumps(with_pieces(old, new)))
    rows = carried_rows(old, vocabulary)
    config = replace(
        model.config,
        vocab_size=-(-vocabulary.size // multiple) * multiple,
        real_vocab_size=vocabulary.size,
    )

    def with_new(table: np.ndarray, seed: int) -> np.ndarray:
        table = table[: old.size]
        return np.concatenate([table, rows.rows(table, seed)[old.size :]])

    larger = replace(
        p,
        embedding=jnp.asarray(with_new(np.asarray(p.embedding), seed)),
        head=None if p.head is None else jnp.asarray(with_new(np.asarray(p.head).T, seed + 1).T),
    )
    return Model(with_rows(larger, config), config, vocabulary)


def with_pieces(old: Vocabulary, new: list[ScoredPiece]) -> TokenizerTree:
    """The tokenizer with pieces after its last id."""
    tree = old.tree()
    table, tokens = tree["model"]["vocab"], list(tree.get("added_tokens") or [])
    # Ids above the table are added tokens, or have no piece.
    names = [
        piece or f"<unused_{number}>" for number, piece in enumerate(old.all_pieces) if number >= len(table)
    ]
    known = {token["id"] for token in tokens}
    unused = [number for number in range(len(table), old.size) if number not in known]
    tokens += [control_token(number, f"<unused_{number}>") for number in unused]
    model = {**tree["model"], "vocab": [*table, *([name, 0.0] for name in names), *map(list, new)]}
    tokens.sort(key=lambda token: token["id"])
    return {**tree, "model": model, "added_tokens": tokens, "post_processor": None}
