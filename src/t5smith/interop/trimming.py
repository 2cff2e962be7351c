"""`t5smith vocab --trim`: an existing model with the pieces that a corpus uses, and no others.

With every piece that the corpus uses kept, its ids map one to one: the best segmentation of a word is still
there, and no new one comes into being. For that the piece with the lowest score is kept too, since the score
of an unknown character is computed from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from t5smith.base.artifact import building, find_up_to_date, fingerprint
from t5smith.base.errors import T5smithError
from t5smith.base.lock import in_run_folder
from t5smith.base.phase import phase
from t5smith.base.progress import count, info, progress
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_save import write_model
from t5smith.interop.model import Model
from t5smith.interop.source import Source, with_rows
from t5smith.model.params import parameter_count
from t5smith.recipe.recipe import Recipe
from t5smith.text.cleaning.pipeline import Cleaner, cleaning_inputs
from t5smith.text.corpus import CorpusFiles
from t5smith.text.documents import read_documents
from t5smith.text.fingerprints import bytes_to_read
from t5smith.text.skipped_records import SkippedRecords
from t5smith.vocabulary.normalizers import SPACE
from t5smith.vocabulary.tokenizer_files import read_tokenizer_file, tokenizer_file
from t5smith.vocabulary.tokenizer_json import TokenizerTree
from t5smith.vocabulary.vocabulary import Vocabulary

METHOD = 1
"""Increase when the same model and text give another folder than before."""
FLAG = "--trim"


@in_run_folder
def trim_vocabulary(recipe: Recipe, model: str, *, min_count: int = 1, max_pieces: int | None = None) -> Path:
    """Write a model without the pieces that a recipe's text does not use, for `train.init_from`.

    Always kept are control pieces, sentinels and bytes, the single characters of the pieces that are kept,
    and the piece with the lowest score.

    Args:
      recipe: names the text, all of which is read, cleaned as for training, and the run folder.
      model: what `train.init_from` accepts, with a tokenizer of pieces.
      min_count: keep the pieces that occur at least so often.
      max_pieces: keep no more than the most frequent so many of these.

    Returns:
      The folder, `trimmed` in the run folder: configuration, weights (float32) and tokenizer.

    Raises:
      T5smithError: the model cannot be read or has no pieces, or there is no text.
    """
    for flag, value in (("--min-count", min_count), ("--max-pieces", max_pieces)):
        if value is not None and value < 1:
            raise T5smithError(f"{value} cannot be used", where=flag, expected="1 or more")
    source, folder = Source.find(model, FLAG), recipe.folder / "trimmed"
    old, files = pieces_of(source, FLAG), CorpusFiles.find(recipe.corpus)
    inputs = {
        "method": METHOD,
        **model_inputs(source),
        "corpus": files.inputs(),
        **cleaning_inputs(recipe, duplicates=False),
        "min_count": min_count,
        "max_pieces": max_pieces,
        "rows": recipe.model.vocab_multiple,
    }
    if find_up_to_date(folder, "trimmed", fingerprint(inputs)):
        info(f"vocab     already done: {folder}")
        return folder
    counts, facts = piece_counts(recipe, files, old)
    kept = kept_ids(old, counts, min_count, max_pieces)
    facts |= {"pieces": len(kept), "pieces_before": old.size}
    with building(folder, "trimmed", inputs, facts) as work, phase("vocab", "writing the model"):
        before = load_model(source.path)
        made = trimmed(before, kept, recipe.model.vocab_multiple)
        write_model(work, made, model_max_length=512)
        sizes = [parameter_count(one.parameters) for one in (before, made)]
        facts |= {"parameters": sizes[1], "parameters_before": sizes[0]}
    parameters = f"{count(sizes[1])} of {count(sizes[0])} parameters"
    info(f"vocab     {len(kept):,} of {old.size:,} ids are kept, {parameters}")
    lost = int(counts.sum() - counts[kept].sum())
    if lost:
        info(f"vocab     {lost / counts.sum():.2%} of the text's tokens are of dropped pieces")
    info(f'vocab     {folder}; continue with train.init_from = "{folder}"')
    return folder


def pieces_of(source: Source, where: str) -> Vocabulary:
    """The model's own vocabulary, which must be one of pieces; `where` is the flag that names the model.

    Raises:
      T5smithError: it has none, or bytes.
    """
    found = source.vocabulary
    if found is None or found.is_byte_level:
        what = "a vocabulary of bytes has no pieces" if found else f"{source.name} has no tokenizer"
        raise T5smithError(what, where=where, expected="a folder with a tokenizer.json or spiece.model")
    return found


def model_inputs(source: Source) -> dict[str, Any]:
    """What an artifact made from a model depends on: its weights and its tokenizer."""
    tokenizer = read_tokenizer_file(tokenizer_file(source.path))
    return {"model": source.fingerprint, "tokenizer": hashlib.sha256(tokenizer).hexdigest()}


def piece_counts(
    recipe: Recipe, files: CorpusFiles, vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """How often each id occurs in a recipe's text, training and held-out, (ids,); and counts of documents.

    Raises:
      T5smithError: there is no text.
    """
    counts = np.zeros(vocabulary.size, np.int64)
    encoder, cleaner = vocabulary.bulk_encoder(np.dtype(np.uint32)), Cleaner(recipe)
    skipped, tallies = SkippedRecords(recipe.corpus.strict), cleaner.tallies()
    splits = [files.files("train"), *([files.files("valid")] if recipe.corpus.valid else [])]
    size, documents = sum(bytes_to_read(file) for split in splits for file in split), 0
    with progress("vocab", size or None, "bytes") as bar:

        def on_bytes(amount: int) -> None:
            bar.advance(amount, documents=count(documents))

        for split in splits:
            for document in read_documents(recipe.corpus, split, on_bytes, skipped):
                documents += 1
                ids = np.frombuffer(encoder.encode(cleaner.clean(document, tallies) or ""), np.uint32)
                counts += np.bincount(ids, minlength=vocabulary.size)
    skipped.report()
    if not counts.any():
        raise T5smithError("there is no text", where="corpus.train", fix="name files with text")
    dropped = sum(tally.dropped.total() for tally in tallies)
    return counts, {"documents": documents, "dropped": dropped, "skipped_records": skipped.facts()}


def kept_ids(
    vocabulary: Vocabulary, counts: NDArray[np.int64], min_count: int, max_pieces: int | None
) -> NDArray[np.int64]:
    """The ids that are kept, in their order; see :func:`trim_vocabulary`."""
    pieces, tree = vocabulary.all_pieces, vocabulary.tree()
    used = np.where(vocabulary.is_text & (counts >= min_count), counts, 0)
    used[vocabulary.unk_id] = 0
    frequent = np.argsort(-used, kind="stable")[: len(used) if max_pieces is None else max_pieces]
    keep = np.zeros(len(used), bool)
    keep[frequent[used[frequent] > 0]] = True
    characters = {one for number in np.flatnonzero(keep) for one in pieces[number]} | {SPACE}
    keep |= np.array([piece in characters for piece in pieces])
    # Ids between the table of pieces and added tokens have no piece.
    keep |= ~vocabulary.is_text & np.array([piece != "" for piece in pieces])
    keep[[vocabulary.unk_id, *vocabulary.byte_ids]] = True
    keep[min(range(len(tree["model"]["vocab"])), key=lambda number: tree["model"]["vocab"][number][1])] = True
    return np.flatnonzero(keep)


def trimmed(model: Model, kept: NDArray[np.int64], multiple: int) -> Model:
    """The model with only these ids, and rows up to a multiple."""
    vocabulary = Vocabulary(json.dumps(with_ids(model.vocabulary.tree(), kept)))
    rows = -(-len(kept) // multiple) * multiple
    config = replace(model.config, vocab_size=rows, real_vocab_size=len(kept))
    head = model.parameters.head
    smaller = replace(
        model.parameters,
        embedding=jnp.asarray(np.asarray(model.parameters.embedding)[kept]),
        head=None if head is None else jnp.asarray(np.asarray(head)[:, kept]),
    )
    return Model(with_rows(smaller, config), config, vocabulary)


def with_ids(tree: TokenizerTree, kept: NDArray[np.int64]) -> TokenizerTree:
    """The tokenizer with only these ids, numbered in their order."""
    new = {old: number for number, old in enumerate(kept.tolist())}
    table = tree["model"]["vocab"]
    model = {**tree["model"], "unk_id": new[tree["model"]["unk_id"]]}
    model["vocab"] = [table[old] for old in new if old < len(table)]
    tokens = [{**one, "id": new[one["id"]]} for one in tree.get("added_tokens") or [] if one["id"] in new]
    return {**tree, "model": model, "added_tokens": tokens, "post_processor": None}
