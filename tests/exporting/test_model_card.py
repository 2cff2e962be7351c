"""The model card: each sentence follows from what was done. Every setting and fact it describes is varied."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from t5smith.base.artifact import read_manifest
from t5smith.exporting.card_front_matter import front_matter
from t5smith.exporting.chosen import choose
from t5smith.exporting.export import _made
from t5smith.exporting.model_card import Made, model_card
from t5smith.exporting.source_card import SourceCard, read_card, source_card
from t5smith.interop.source import Source
from t5smith.recipe.recipe import Recipe
from t5smith.training.curves.repetition import CorpusUse
from t5smith.training.setup import Run


@pytest.fixture(scope="module")
def made(finished) -> Made:
    return _made(choose(Run(finished)), read_manifest(finished.folder / "evaluation", "evaluation"))


def card(made: Made) -> str:
    """The card with single spaces, so that lines may be broken anywhere."""
    return " ".join(model_card(made).split())


def changed(made: Made, stage: str, path: str, value: object) -> Made:
    """With another value in a manifest, or in the recipe or the sizes."""
    if stage == "":
        return replace(made, **{path: value})
    if stage == "recipe":
        return replace(made, recipe=made.recipe.replace(**{path: value}))
    if stage == "config":
        return replace(made, config=replace(made.config, **{path: value}))
    manifest = copy.deepcopy(getattr(made, stage))
    *parents, leaf = path.split("/")
    node = vars(manifest)
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    return replace(made, **{stage: manifest})


CLEANED = [
    {"step": "length", "in": 50, "dropped": {"short": 3, "long": 4}, "changed": 2},
    {"step": "exact_duplicates", "in": 43, "dropped": {"exact": 5}, "changed": 0},
]
MANY = [{"name": f"{n}.txt", "bytes": 10} for n in range(20)]
HUB = [{"name": "hf://datasets/org/texts@refs%2Fconvert%2Fparquet/default/train/0.parquet", "bytes": 9}]
NONE = {"nll": None, "accuracy": None, "tokens": 0}

VARIED = [
    ("recipe", "name", "other", "# other", "# tiny"),
    ("recipe", "language", "nn", "for the language `nn`", "for the language `nb`"),
    ("recipe", "license", "cc-by-4.0", "Licence: cc-by-4.0.", "No licence is stated"),
    ("recipe", "seed", 7, "| Seed | 7 |", "| Seed | 0 |"),
    (
        "recipe",
        "objective.name",
        "prefix_lm",
        "to continue a text. It was",
        "to fill in masked spans of text. It",
    ),
    ("recipe", "objective.noise_density", 0.3, "density 0.3,", "density 0.15,"),
    ("recipe", "objective.name", "ul2", "{UL2}: Unifying Language", "spans of text. It was"),
    ("recipe", "train.steps", 7, "| Length | 6 of 7 steps of", "| Length | 6 steps of"),
    ("recipe", "train.batch_size", 5, "of 5 examples", "of 4 examples"),
    ("recipe", "train.precision", "bfloat16", "| bfloat16; the", "| float32; the"),
    ("recipe", "train.dropout_rate", 0.1, "dropout 0.1,", "dropout 0,"),
    ("recipe", "train.label_smoothing", 0.1, "smoothing 0.1,", "smoothing 0,"),
    ("recipe", "train.z_loss", 0.0001, "z-loss 0.0001", "z-loss 0 "),
    ("recipe", "train.average_decay", 0.99, "moving average of the parameters, decay 0.99", None),
    ("recipe", "train.optimizer.name", "adamw", "| adamw, learning", "| muon_adafactor, learning"),
    ("recipe", "train.optimizer.weight_decay", 0.1, "weight decay 0.1,", "weight decay 0,"),
    ("recipe", "train.optimizer.clip_norm", None, "norm at most unlimited", "norm at most 1 "),
    ("recipe", "train.schedule.name", "wsd", "| wsd, 2 warm-up", "| constant, 2 warm-up"),
    ("checkpoint", "inputs/train/optimizer/learning_rate", 0.5, "learning rate 0.5,", None),
    ("checkpoint", "inputs/train/schedule/warmup_steps", 1, "1 warm-up step |", "2 warm-up steps |"),
    ("checkpoint", "facts/parameters", 1234, "| Parameters | 1,234 |", None),
    ("checkpoint", "facts/tokens", 4321, "4,321 tokens without padding", None),
    ("checkpoint", "facts/device", "H100", "one H100 device", "one cpu device"),
    ("checkpoint", "facts/seconds", 7200, "device, 2:00:00", None),
    ("checkpoint", "facts/tokens_per_second", 5678.1, "5,678 tokens/s", None),
    ("checkpoint", "facts/skipped_batches", [[3, 5]], "3 batches: gradient not finite", None),
    ("config", "gated", False, "A T5 (ReLU feed-forward, untied head)", "A T5 1.1 encoder"),
    (
        "config",
        "tie_word_embeddings",
        True,
        "A T5 (gated GELU feed-forward, tied head)",
        "transformers 5 takes",
    ),
    ("config", "d_model", 99, "d_model 99,", "d_model 16,"),
    ("config", "d_ff", 99, "d_ff 99,", "d_ff 32,"),
    ("config", "num_heads", 9, "9 heads of 8", "2 heads of 8"),
    ("config", "d_kv", 9, "2 heads of 9", "2 heads of 8"),
    ("config", "num_layers", 9, "9 encoder, 2 decoder", "2 encoder"),
    ("config", "num_decoder_layers", 9, "2 encoder, 9 decoder", "2 decoder"),
    ("config", "relative_attention_num_buckets", 16, "16 buckets", "32 buckets"),
    ("config", "relative_attention_max_distance", 64, "distances up to 64", "distances up to 128"),
    ("config", "vocab_size", 640, "(640 rows)", "(512 rows)"),
    ("vocab", "inputs/vocab/normalization", "nfc", "It applies NFC and", "applies NFKC"),
    ("vocab", "inputs/vocab/normalization", "nmt_nfkc", "T5's normalization", "applies NFKC"),
    ("vocab", "inputs/vocab/normalization", "none", "applies no Unicode normalization", "applies NFKC"),
    ("vocab", "inputs/corpus/train", [], "bytes of an earlier version of the text,", "bytes of the text,"),
    ("vocab", "inputs/vocab/lowercase", True, "It never writes capitals", "case is kept"),
    ("vocab", "inputs/vocab/split_digits", True, "Each digit is a piece of its own", None),
    ("vocab", "inputs/vocab/byte_fallback", True, "becomes its UTF-8 bytes", "becomes `<unk>`"),
    ("vocab", "inputs/vocab/character_coverage", 0.9995, "cover 99.9500% of the characters", None),
    ("vocab", "inputs/vocab/max_piece_length", 9, "at most 9 characters", "at most 16 characters"),
    ("vocab", "inputs/vocab/user_symbols", ["<br>"], "`<br>`: always one piece", None),
    ("vocab", "inputs/vocab/control_symbols", ["[R]"], "`[R]`: never encoded from text", None),
    ("vocab", "facts/pieces", 77, "77 pieces", "300 pieces"),
    ("vocab", "facts/sentinels", 55, "55 sentinels", "100 sentinels"),
    ("vocab", "facts/sample_bytes", 987654, "trained on 987,654 bytes", None),
    ("store", "inputs/corpus/train", MANY, "20 files (200 bytes on disk), among them `0.txt`", "udhr"),
    ("store", "inputs/corpus/train", HUB, "licences of the data sets apply too: org/texts.", "udhr"),
    (
        "store",
        "inputs/corpus/held_out_fraction",
        0.25,
        "Of the documents, 25% are held out",
        "Of the documents, 30% are",
    ),
    ("store", "inputs/corpus/valid", MANY[:1], "documents of `0.txt` (10 bytes on disk)", "chosen by a hash"),
    ("store", "facts/train/documents", 4242, "| to train on | 4,242 |", None),
    ("store", "facts/train/tokens", 4242, "| 4,242 |", None),
    ("store", "facts/train/text_bytes", 4242, "| 4,242 |", None),
    ("store", "facts/valid/documents", 4242, "| held out | 4,242 |", None),
    ("store", "facts/train/unknown_rate", 0.01, "1.000% of the tokens are `<unk>`", None),
    (
        "store",
        "facts/skipped_records/counts",
        {"json": 1},
        "1 record could not be read and was skipped",
        None,
    ),
    ("store", "facts/skipped_records/counts", {"json": 4}, "4 records could not be read and were", None),
    (
        "store",
        "facts/skipped_records/counts",
        {"unreadable files": 1},
        "1 file could not be read and was",
        None,
    ),
    ("evaluation", "facts/text", {"nll": 1.5, "accuracy": 0.5}, "text tokens | 1.500 nats per", None),
    ("evaluation", "facts/text", NONE, "Accuracy on text tokens | not measured", None),
    ("evaluation", "facts/text", {"nll": 1.5, "accuracy": 0.5}, "Accuracy on text tokens | 50.0%", None),
    ("evaluation", "facts/unigram_nll", 2.5, "same tokens | 2.500 nats", None),
    ("evaluation", "facts/all", {"nll": 3.5}, "all targets | 3.500 nats", None),
    ("evaluation", "facts/bits_per_byte", 1.25, "masked text | 1.250 |", None),
    ("evaluation", "facts/margin", -0.1, "no better than the unigram baseline", None),
    (
        "evaluation",
        "facts/denoisers",
        {"[R] 15%": {"text": {"nll": 1.5}}},
        "text tokens, [R] 15% | 1.500",
        None,
    ),
    ("evaluation", "facts/windows", 9876, "on 9,876 masked windows", None),
    ("evaluation", "facts/masks_per_window", 9, "with 9 fixed masks", "with 2 fixed masks"),
    ("evaluation", "facts/step", 99, "after step 99.", "after step 6."),
    ("recipe", "export.dtype", "bfloat16", "exported weights are bfloat16", "exported weights are float32"),
    ("", "steps", [4], "| Length | 4 of 6 steps of", "| Length | 6 steps of"),
    ("", "steps", [2, 4, 6], "| Weights | mean of those after steps 2, 4 and 6 |", None),
    ("", "steps", [4, 6], "after step 6 (the mean of the parameters after steps 4 and 6). NLL", None),
    ("", "longest_input", 99, "up to 99 input tokens", "up to 32 input tokens"),
    ("", "uses", [CorpusUse("train", 1.0, 12.0)], "read its text 12 times and may repeat", None),
    ("", "uses", [CorpusUse("train", 1.0, 2.0)], "Training read this text 2 times", None),
]


@pytest.mark.parametrize(("stage", "path", "value", "sentence", "gone"), VARIED)
def test_a_sentence_follows_what_was_done(made, stage, path, value, sentence, gone):
    """`sentence` is on the card only with this value, `gone` only without."""
    base = changed(made, "evaluation", "facts/margin", 0.1)
    before, after = card(base), card(changed(base, stage, path, value))
    assert sentence in after
    assert sentence not in before
    assert gone is None or (gone in before and gone not in after)


def test_cleaning_is_described_step_by_step(made):
    assert "were not cleaned, and duplicates were not removed." in card(made)
    assert "was not filtered" in card(made)
    steps = {"steps": ["length", "exact_duplicates"], "length": {"min_characters": 9, "max_characters": 0}}
    cleaned = changed(changed(made, "store", "facts/cleaning", CLEANED), "store", "inputs/cleaning", steps)
    text = card(cleaned)
    assert "- length: dropped 7 of 50, changed 2 (max_characters 0, min_characters 9)" in text
    assert "- exact_duplicates: dropped 5 of 43 Near duplicates were not removed." in text
    assert "not cleaned" not in text
    assert "was not filtered" not in text
    text = card(changed(cleaned, "store", "facts/cleaning", CLEANED[:1]))
    assert ") Duplicates were not removed." in text
    near = [*CLEANED, {"step": "near_duplicates", "in": 38, "dropped": {}, "changed": 0}]
    assert "uplicates were not removed" not in card(changed(cleaned, "store", "facts/cleaning", near))


def test_an_imported_tokenizer_is_lineage_and_its_folder_is_not_shown(made):
    facts = {"tokenizer": "google/mt5-small", "read_from": "spiece.model", "pieces": 9, "sentinels": 100}

    def imported(**more):
        return card(replace(made, vocab=replace(made.vocab, inputs={"import": 1}, facts=facts | more)))

    text = imported()
    assert "Imported from `google/mt5-small` (spiece.model): 9 pieces, 100 sentinels." in text
    assert "tokenizer was imported from `google/mt5-small` (spiece.model), whose licence applies" in text
    assert "NFKC" not in text
    assert "Added to it: [R], 100 sentinels." in imported(appended="[R], 100 sentinels")
    text = imported(tokenizer="/home/me/tokenizers/mine.model", read_from="mine.model")
    assert "from `mine.model`," in text
    assert "/home/me" not in text
    assert "imported" not in card(made)


def test_named_corpora_are_listed_with_their_shares(made):
    corpora = {name: {"documents": 1, "tokens": n, "text_bytes": 3} for n, name in enumerate(("nb", "nn"), 7)}
    uses = [CorpusUse("nb", 0.75, 1.5), CorpusUse("nn", 0.25, 12.0)]
    text = card(replace(changed(made, "store", "facts/train/corpora", corpora), uses=uses))
    assert "| nb: 75.0% of training, read 1.5 times | 1 | 7 | 3 |" in text
    assert "| nn: 25.0% of training, read 12 times | 1 | 8 | 3 |" in text
    assert "It read the corpus `nn` 12 times and may repeat passages of it." in text
    assert "corpus `nb`" not in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"language": "no"}, {"language": "no"}),
        ({"language": "nb-NO"}, {"language": "nb"}),
        ({"language": "Bokmål"}, {}),
        ({"license": "Apache-2.0"}, {"license": "apache-2.0"}),
        ({"license": "My own: licence"}, {"license": "other", "license_name": "my-own-licence"}),
    ],
)
def test_the_front_matter_is_valid_for_the_hub(settings, expected):
    fields = yaml.safe_load(front_matter(Recipe(**settings), []))
    tags = ["t5", "text2text-generation", "t5smith"]
    assert fields == {"library_name": "transformers", "tags": tags} | expected


def test_data_sets_of_the_hub_are_in_the_front_matter(made):
    files = [*HUB, {"name": "hf://datasets/wiki@main/a.txt", "bytes": 1}, {"name": "a.txt", "bytes": 1}]
    assert yaml.safe_load(front_matter(Recipe(), files))["datasets"] == ["org/texts", "wiki"]
    read = ModelCard(model_card(changed(made, "store", "inputs/corpus/train", HUB))).data
    assert (read.language, read.datasets, read.library_name) == ("nb", ["org/texts"], "transformers")
    # `base_model` is for a model that training started from.
    assert read.base_model is None


@pytest.mark.parametrize(
    ("name", "shown", "base"),
    [
        ("google/t5-v1_1-base", "`google/t5-v1_1-base`", "google/t5-v1_1-base"),
        ("hf:google/mt5-small@main", "`hf:google/mt5-small@main`", "google/mt5-small"),
        ("t5-small", "`t5-small`", "t5-small"),
        ("/home/me/models/mine", "`mine`", None),
        ("runs/old/model", "`model`", None),
    ],
)
def test_a_model_that_continues_another_names_it(made, name, shown, base):
    initial = {"config.json": "f" * 64, "model.safetensors": "0123456789abcdef" * 4}
    continued = changed(
        changed(made, "recipe", "train.init_from", name), "checkpoint", "inputs/initial", initial
    )
    text = card(continued)
    assert f"pre-trained further from {shown}" in text
    assert "drawn at random" not in text
    assert f"The parameters are those of {shown} (SHA-256 of its weights 0123456789ab…)" in text
    assert yaml.safe_load(model_card(continued).split("---")[1]).get("base_model") == base
    known = card(replace(continued, source=SourceCard("apache-2.0")))
    assert "applies to this model too. Its model card names the licence `apache-2.0`." in known
    unknown = card(replace(continued, source=SourceCard(missing="its model card names none")))
    assert "Its licence is not stated here, because its model card names none: look it up" in unknown
    assert "/home/me" not in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", SourceCard("apache-2.0")),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", SourceCard("mit, cc-by-4.0")),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: https://a.no/l\n---\n",
            SourceCard("own, https://a.no/l"),
        ),
        ("---\nlicense: 'a`\n# b<c>'\n---\n", SourceCard("a b c")),
        ("---\nlanguage: no\n---\n", SourceCard(missing="its model card names none")),
        ("---\nlicense: 7\n---\n", SourceCard(missing="its model card names none")),
        ("# A model", SourceCard(missing="its model card has no front matter that can be read")),
        ("---\n[\n---\n", SourceCard(missing="its model card has no front matter that can be read")),
        (
            "---\na: !!python/object/apply:os.system [exit]\n---\n",
            SourceCard(missing="its model card has no front matter that can be read"),
        ),
        (None, SourceCard(missing="it has no model card (README.md)")),
    ],
)
def test_the_licence_of_the_model_it_continues_is_that_of_its_card(tmp_path, text, found):
    if text is not None:
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert read_card(tmp_path) == found


def test_the_source_of_a_run_is_looked_up(finished, tmp_path):
    setup = Run(finished).setup
    assert source_card(setup) is None
    gone = replace(setup, recipe=finished.replace(**{"train.init_from": str(tmp_path)}))
    assert source_card(gone) == SourceCard(missing="it was not found any more")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert source_card(replace(gone, source=Source("mine", tmp_path))) == SourceCard("mit")
