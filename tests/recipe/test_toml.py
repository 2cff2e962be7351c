from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from t5smith.base.errors import T5smithError
from t5smith.objective.objective import check_objective
from t5smith.recipe.recipe import Recipe
from t5smith.recipe.toml import dump, headline, load_recipe, presets, save_run_settings


def error(tmp_path: Path, text: str | bytes) -> str:
    """The error about a recipe file, without the folder's name."""
    file = tmp_path / "my.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(T5smithError) as caught:
        load_recipe(file)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("name", presets())
def test_presets_can_be_used(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.corpus.train
    check_objective(recipe.objective)
    assert headline(presets()[name]).endswith(".")
    assert f"# Command: t5smith run {name}" in presets()[name].read_text()


def test_the_demo_can_be_cut_to_fifty_steps():
    assert load_recipe("norwegian-tiny").replace(**{"train.steps": 50}).train.steps == 50


def test_the_base_preset_is_t5_v1_1_base_and_its_schedule():
    recipe = load_recipe("norwegian-base")
    model = recipe.model
    sizes = (
        model.d_model,
        model.d_kv,
        model.d_ff,
        model.num_layers,
        model.num_decoder_layers,
        model.num_heads,
    )
    assert sizes == (768, 64, 2048, 12, 12, 12)
    assert (recipe.train.optimizer.name, recipe.train.schedule.plateau_steps) == ("adafactor", 10_000)


def test_no_recipe_gives_the_defaults():
    assert load_recipe(None) == Recipe()


def test_a_file_without_a_name_is_named_after_itself(tmp_path):
    file = tmp_path / "å min språk.toml"
    file.write_text("[train]\nsteps = 5")
    assert load_recipe(file).name == "min-spr-k"
    file.write_text('name = "mine"')
    assert load_recipe(str(file)).name == "mine"


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    file = tmp_path / "my.toml"
    file.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 5\r\n")
    assert load_recipe(file).train.steps == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n[train]\n# a comment\nsteps = 'a'",
            "my.toml:4: train.steps: 'a' cannot be used; expected a whole",
        ),
        ("train.steps = 0", "my.toml:1: train.steps: 0 cannot be used; expected 1 or more"),
        (
            "[train]\nstps = 5",
            "my.toml:2: train.stps: unknown key (did you mean 'steps'?); expected one of steps, ",
        ),
        (
            "\n[trian]\nsteps = 5",
            "my.toml:2: trian: unknown key (did you mean 'train'?); expected one of name, ",
        ),
        (
            "[train]\n\noptimizer = {name = 'lion'}",
            "my.toml:3: train.optimizer.name: 'lion' cannot be used; expected 'adafactor', 'adamw'",
        ),
        ("[train]\nsteps = 9\n[train.optimizer]\nname = 5", "my.toml:4: train.optimizer.name: 5 cannot"),
        ("[corpus]\ntrain = [\n'a',\n5]\ndocument = 'file'", "my.toml:2: corpus.train.1: 5 cannot be used"),
        ("language = '''\nsteps = 5\n'''\nseed = -1", "my.toml:4: seed: -1 cannot be used"),
        ("seed = 1979-05-27", "my.toml:1: seed: a date or time (1979-05-27) cannot be used"),
        ("[train]\nz_loss = inf", "my.toml:2: train.z_loss: inf cannot be used; expected a finite number"),
        ("[train]\nz_loss = nan", "my.toml:2: train.z_loss: nan cannot be used; expected a finite number"),
        ("corpus.train = [2001-01-01]", "my.toml:1: corpus.train.0: a date or time (2001-01-01) cannot"),
        ("train = 5", "my.toml:1: train: 5 cannot be used; expected a table of settings"),
        ("seed = 1\nname = ", "my.toml:2: not TOML: invalid value"),
        ("seed = 1\nname = 'a", "my.toml:2: not TOML: expected "),
        ("[train]\nsteps = 1\nsteps = 2", "my.toml:3: not TOML: cannot overwrite a value"),
        (b"seed = 1\nlanguage = '\xff'", "my.toml:2: not UTF-8 text"),
        (
            "[train.schedule]\nname = 'linear'\nwarmup_steps = 70_000",
            "my.toml:3: train.schedule.warmup_steps: 70000 cannot be used; expected fewer than train.steps",
        ),
        (
            "[train]\nsteps = 5\n[model]\nrelative_attention_num_buckets = 512",
            "my.toml:3: model.relative_attention_max_distance: 128 cannot be used; expected more than 256",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_reported_with_its_line(tmp_path, text, message):
    assert error(tmp_path, text).startswith(message)


def test_a_missing_preset_names_the_others_and_the_nearest():
    with pytest.raises(T5smithError) as caught:
        load_recipe("norwegian-tinny")
    for part in (
        "norwegian-tinny: unknown recipe",
        "unknown recipe (did you mean 'norwegian-tiny'?); expected",
        "norwegian-base, norwegian-tiny",
    ):
        assert part in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(T5smithError, match="no such recipe file"):
        load_recipe(tmp_path / "none.toml")
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(T5smithError, match=r"folder\.toml: there is no recipe\.toml; expected a run folder"):
        load_recipe(folder)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
positive = st.integers(1, 10**7)
rate = st.floats(0, 1e6, exclude_min=True)
fraction = st.floats(0, 1, exclude_min=True, exclude_max=True)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes with every kind of setting: text, paths, lists, numbers, booleans, choices and None."""
    steps = draw(positive)
    return Recipe().replace(
        **{
            "name": draw(names),
            "run_dir": draw(st.none() | text.filter(lambda t: "\0" not in t).map(Path)),
            "seed": draw(st.integers(0, 2**32 - 1)),
            "language": draw(text),
            "corpus.train": tuple(draw(st.lists(text, max_size=3))),
            "corpus.held_out_fraction": draw(fraction),
            "corpus.document": draw(st.sampled_from(["block", "file", "line"])),
            "model.tie_word_embeddings": draw(st.booleans()),
            "train.steps": steps,
            "train.schedule.warmup_steps": draw(st.integers(0, steps - 1)),
            "train.optimizer.learning_rate": draw(st.none() | rate),
            "train.optimizer.clip_norm": draw(st.none() | rate),
            "objective.mean_noise_span_length": draw(st.floats(1, 1e300, allow_nan=False)),
        }
    )


@given(recipes())
@example(Recipe(language="\x7f\x00\x1f\x85\u2028\"\\'\t\r\n"))
@example(Recipe().replace(**{"train.optimizer.clip_norm": None}))
def test_a_dumped_recipe_loads_as_itself(tmp_path_factory, recipe):
    file = tmp_path_factory.getbasetemp() / "dumped.toml"
    file.write_text(dump(recipe), encoding="utf-8", newline="")
    assert load_recipe(file) == recipe


def test_a_dump_has_every_setting_that_has_a_value():
    lines = dump(load_recipe("norwegian-tiny")).splitlines()
    assert "[train.optimizer]" in lines
    assert "steps = 65536" in dump(Recipe())
    assert not any(line.startswith("run_dir") for line in lines)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with texts and a tokenizer, which is the current one, and a run in it."""
    project = tmp_path / "project [1]"
    for folder in ("texts", "tok", "runs/mine/store"):
        (project / folder).mkdir(parents=True)
    (project / "texts/a.txt").write_text("en tekst")
    monkeypatch.chdir(project)
    return project


def saved(**changes: object) -> Recipe:
    """A recipe of the run, written into its folder."""
    paths = {
        "corpus.train": ("nb=texts/*.txt", "nn=bundled:norwegian", "en=/abs/a.txt", "sv=hf:a:b"),
        "corpus.valid": ("s3://bucket/a.txt", "~/a.txt", "texts"),
        "vocab.tokenizer": "tok",
    }
    recipe = Recipe(name="mine", run_dir=Path("runs/mine")).replace(**{**paths, **changes})
    save_run_settings(recipe)
    return recipe


def test_a_run_folder_is_a_recipe(project):
    recipe = saved()
    assert load_recipe("runs/mine") == load_recipe(Path("runs/mine")) == recipe
    assert load_recipe("runs/mine/").replace(run_dir=Path("runs/mine")) == recipe


def test_the_paths_of_a_moved_or_copied_run_are_those_of_the_folder_it_was_made_in(project, monkeypatch):
    from t5smith.text.corpus import CorpusFiles

    recipe = saved(**{"corpus.train": ("texts/*.txt",), "corpus.valid": ()})
    before = CorpusFiles.find(recipe.corpus).inputs()
    (project / "runs/mine").rename(project.parent / "moved")
    monkeypatch.chdir(project.parent)
    moved = load_recipe("moved")
    assert moved.folder == Path("moved")
    assert moved.vocab.tokenizer == str(project / "tok")
    assert moved.replace(corpus=recipe.corpus.model_dump(), **{"vocab.tokenizer": "tok"}) == recipe.replace(
        run_dir=Path("moved")
    )
    assert CorpusFiles.find(moved.corpus).inputs() == before


def test_only_relative_paths_change(project, monkeypatch):
    recipe = saved()
    monkeypatch.chdir(project.parent)
    escaped = str(project).replace("[", "[[]")
    moved = load_recipe(project / "runs/mine").corpus
    assert moved.train == (f"nb={escaped}/texts/*.txt", *recipe.corpus.train[1:])
    assert moved.valid == (*recipe.corpus.valid[:2], f"{project}/texts")


def test_the_paths_of_a_moved_project_are_those_of_where_it_is(project, monkeypatch):
    recipe = saved()
    project.rename(project.parent / "elsewhere")
    monkeypatch.chdir(project.parent / "elsewhere")
    assert load_recipe("runs/mine") == recipe


def test_a_name_on_the_hub_is_no_path(project, monkeypatch):
    saved(**{"vocab.tokenizer": "google/mt5-small"})
    monkeypatch.chdir(project.parent)
    assert load_recipe(project / "runs/mine").vocab.tokenizer == "google/mt5-small"


def test_a_folder_without_a_recipe_is_one_clear_error(project):
    with pytest.raises(T5smithError, match=r"^runs: there is no recipe\.toml; expected a run folder, or a"):
        load_recipe("runs")
    saved()
    with pytest.raises(T5smithError, match=r"^runs/mine/store: .*\. Name the run folder .*/runs/mine$"):
        load_recipe("runs/mine/store")
    (project / "norwegian-tiny").mkdir()
    assert load_recipe("norwegian-tiny").corpus.train
    with pytest.raises(T5smithError, match=r"no recipe\.toml"):
        load_recipe("./norwegian-tiny")


def test_where_paths_start_from_is_an_absolute_path(tmp_path):
    for value in ("5", "'texts'"):
        message = error(tmp_path, f"seed = 1\nrelative_to = {value}")
        assert (
            message
            == f"my.toml:2: relative_to: {value} cannot be used; expected a folder as an absolute path"
        )
