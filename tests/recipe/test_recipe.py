import pytest
from pydantic import ValidationError

from t5smith.base.errors import T5smithError
from t5smith.recipe.corpus import CorpusSettings
from t5smith.recipe.model import ModelSettings
from t5smith.recipe.recipe import Recipe, plain
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings, TrainSettings
from t5smith.recipe.vocab import VocabSettings


def test_an_error_is_one_line_with_what_where_expected_and_fix():
    error = T5smithError("is\nbroken", where="a.txt:3", expected="a whole one", fix="repair it")
    assert str(error) == "a.txt:3: is broken; expected a whole one. Repair it"
    assert str(T5smithError("is broken")) == "is broken"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VocabSettings(size=7), "vocab.size: 7 cannot be used; expected from 8 to 1,000,000"),
        (lambda: VocabSettings(size="9"), "vocab.size: '9' cannot be used; expected a whole number"),
        (lambda: VocabSettings(size=9.0), "vocab.size: 9.0 cannot be used; expected a whole number"),
        (lambda: VocabSettings(size=True), "vocab.size: true cannot be used; expected a whole number"),
        (
            lambda: CorpusSettings(format="doc"),
            "corpus.format: 'doc' cannot be used; expected 'auto', 'text', 'jsonl', "
            "'csv', 'parquet', 'arrow', 'warc', 'mediawiki', 'wikiextractor' or 'html'",
        ),
        (lambda: CorpusSettings(train="a"), "corpus.train: 'a' cannot be used; expected a list of strings"),
        (lambda: CorpusSettings(train=["a", 1]), "corpus.train.1: 1 cannot be used; expected a string"),
        (
            lambda: CorpusSettings(longest_document=10**20),
            f"corpus.longest_document: {10**20} cannot be used; expected from 1 to 2,147,483,647",
        ),
        (
            lambda: CorpusSettings(held_out_fraction=1),
            "corpus.held_out_fraction: 1 cannot be used; expected more than 0 and less than 1",
        ),
        (
            lambda: OptimizerSettings(learning_rate=float("nan")),
            "train.optimizer.learning_rate: nan cannot be used; expected a finite number",
        ),
        (
            lambda: Recipe(name="../elsewhere"),
            "name: '../elsewhere' cannot be used; expected letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit",
        ),
        (lambda: Recipe(run_dir=5), "run_dir: 5 cannot be used; expected a path"),
        (lambda: Recipe(train=5), "train: 5 cannot be used; expected a table of settings"),
        (
            lambda: VocabSettings(sise=9),
            "vocab.sise: unknown key (did you mean 'size'?); expected one of tokenizer, size, "
            "control_symbols, user_symbols, unknown_words, max_piece_length, normalization, "
            "keep_whitespace, lowercase, split_digits, byte_fallback, character_coverage, sample_bytes, "
            "temperature, seed in [vocab]",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(make, message):
    with pytest.raises(T5smithError) as caught:
        make()
    assert str(caught.value) == message


def test_impossible_combinations_are_errors():
    TrainSettings(steps=50, schedule=ScheduleSettings(warmup_steps=49))
    with pytest.raises(T5smithError, match=r"^train\.schedule\.warmup_steps: 50 .* which is 50$"):
        TrainSettings(steps=50, schedule=ScheduleSettings(warmup_steps=50))
    ModelSettings(relative_attention_num_buckets=32, relative_attention_max_distance=17)
    with pytest.raises(T5smithError, match=r"^model\.relative_attention_max_distance: 16 .* more than 16"):
        ModelSettings(relative_attention_num_buckets=32, relative_attention_max_distance=16)


def test_a_recipe_is_frozen():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.steps = 5
    assert recipe == Recipe()


def test_replace_changes_dotted_settings_and_checks_them():
    recipe = Recipe().replace(**{"train.steps": 5, "train.optimizer.name": "adamw", "corpus.train": ["a"]})
    assert (recipe.train.steps, recipe.train.optimizer.name, recipe.corpus.train) == (5, "adamw", ("a",))
    assert recipe.model == Recipe().model
    for change in ({"train.steps": 0}, {"train.stps": 5}, {"trian.steps": 5}, {"name.first": "a"}):
        with pytest.raises(T5smithError):
            Recipe().replace(**change)


def test_none_turns_clipping_off():
    assert OptimizerSettings().clip_norm == 1.0
    assert OptimizerSettings(clip_norm="none").clip_norm is None
    with pytest.raises(T5smithError, match="clip_norm"):
        OptimizerSettings(clip_norm="off")


def test_the_run_folder_is_named_after_the_recipe(tmp_path):
    assert str(Recipe(name="mine").folder) == "runs/mine"
    assert Recipe(name="mine", run_dir=tmp_path).folder == tmp_path


def test_plain_settings_can_be_written_as_json():
    tree = plain(Recipe(run_dir="there", corpus=CorpusSettings(train=("a",))))
    assert tree["run_dir"] == "there"
    assert tree["corpus"]["train"] == ["a"]
    assert "learning_rate" not in tree["train"]["optimizer"]
    assert plain({"a": 1}) == {"a": 1}
