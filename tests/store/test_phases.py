"""The parts of `vocab` and `prepare` that may take long without a measure are announced."""

import pytest

from stores import MakeRecipe
from t5smith.base.phase import Phase
from t5smith.base.progress import Live
from t5smith.store.prepare import prepare
from t5smith.vocabulary.compare import compare_vocabularies


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is announced, in order."""
    found: list[str] = []
    init, during = Phase.__init__, Live.during

    def noted(self: Phase, title: str, text: str, at_once: bool = True) -> None:
        found.append(f"{title}: {text}")
        init(self, title, text, at_once)

    def noted_within(self: Live, text: str):
        found.append(f"{self.title}: {text}")
        return during(self, text)

    monkeypatch.setattr(Phase, "__init__", noted)
    monkeypatch.setattr(Live, "during", noted_within)
    return found


def test_each_long_part_is_announced(recipe: MakeRecipe, announced: list[str]) -> None:
    settings = recipe()
    assert announced == [
        "text: looking for files",
        "text: checking 1 file",
        "vocab: counting words",
        "vocab: training 40 pieces",
        "vocab: measuring",
        "vocab: writing to disk",
    ]
    announced.clear()
    folder = prepare(settings)
    checked = f"vocab: checking {settings.folder / 'vocab'}"
    begin = [checked, "text: looking for files", "text: checking 1 file"]
    assert announced == [
        *begin,
        "prepare: planning",
        "prepare: merging the shards",
        "prepare: writing to disk",
    ]
    announced.clear()
    prepare(settings)
    assert announced == [*begin, f"prepare: checking {folder}"]
    announced.clear()
    prepare(settings, verify=True)
    assert announced == [f"prepare: checking {folder}"] * 2 + ["verify: reading all tokens"]
    announced.clear()
    compare_vocabularies(settings, [str(settings.folder)])
    assert announced == ["compare: reading the tokenizers", "compare: encoding with 1 tokenizer"]
