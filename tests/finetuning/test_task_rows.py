"""Rows of files: what is read, what is counted with its place, what is refused in one line."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.pairs import write_jsonl
from t5smith.base.errors import T5smithError
from t5smith.finetuning.rows import Skipped, read_rows, task_files
from t5smith.finetuning.tasks import Task, entities_of
from t5smith.finetuning.templates import Template
from t5smith.recipe.finetune.settings import TaskSettings
from t5smith.text.locations import RowRange


def rows(path):
    skipped = Skipped()
    return [(dict(row.fields), row.place) for row in read_rows(path, "x", skipped)], skipped.counts


def task(path, **settings):
    given = {"train": (str(path),), "input": "nb", "target": "nn", "held_out_fraction": 0.3}
    return Task("t", TaskSettings.model_validate(given | settings))


def error(path, **settings):
    with pytest.raises(T5smithError) as caught:
        list(task(path, **settings).examples())
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_format_gives_the_same_rows(tmp_path):
    expected = [{"nb": 'ei "god" bok', "nn": "æ, ø; å"}, {"nb": "to", "nn": "tvo"}]
    tsv = tmp_path / "a.tsv"
    tsv.write_text('nb\tnn\nei "god" bok\tæ, ø; å\n"to"\ttvo\n', encoding="utf-8")
    csv = tmp_path / "a.csv"
    csv.write_text('\ufeffnb,nn\n"ei ""god"" bok","æ, ø; å"\nto,tvo\n', encoding="utf-8")
    semicolons = tmp_path / "b.csv.gz"
    semicolons.write_bytes(gzip.compress('nb;nn\n"ei ""god"" bok";"æ, ø; å"\nto;tvo\n'.encode()))
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "a.parquet")
    table = pa.Table.from_pylist(expected)
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as file:
        file.write_table(table)
    write_jsonl(tmp_path / "a.jsonl", expected)
    for name in ("a.tsv", "a.csv", "b.csv.gz", "a.parquet", "a.arrow", "b.arrow", "a.jsonl"):
        found, skipped = rows(tmp_path / name)
        assert [fields for fields, _ in found] == expected, name
        first = 2 if ".tsv" in name or ".csv" in name else 1
        assert [place for _, place in found] == [f"{tmp_path / name}:{first + n}" for n in range(2)]
        assert not skipped


def test_a_range_of_rows_counts_all_rows(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"n": n} for n in range(9)])
    found = [row.fields["n"] for row in read_rows(RowRange(path, 2, 5), "x", Skipped())]
    assert found == [2, 3, 4]


def test_what_is_no_row_is_counted_with_its_place(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"nb": "a"}\n[1]\n\n{"nb"\n{"nb": "\xe6"}\n{"nb": "b"}\n')
    found, skipped = rows(path)
    assert [place for _, place in found] == [f"{path}:1", f"{path}:6"]
    assert skipped == {"not a JSON object": 1, "not JSON": 1, "not UTF-8": 1}
    err = capsys.readouterr().err
    assert all(f"{path}:{line}: " in err for line in (2, 4, 5))
    table = tmp_path / "a.csv"
    table.write_bytes(b'a,b\n1,2\n1,2,3\n"x"y,2\n"1\n2",3\n\xe6,1\n')
    found, skipped = rows(table)
    assert [place for _, place in found] == [f"{table}:2", f"{table}:5"]
    assert skipped == {"3 fields instead of 2": 1, "not CSV": 1, "not UTF-8": 1}


@pytest.mark.parametrize(
    ("name", "text", "place", "what"),
    [
        ("a.csv", 'a,b\n1,2\n"1,2\n3,4\n', ":3", "a quote is never closed"),
        ("a.csv", "one\n1\n", ":1", "one column"),
        ("a.jsonl", '[{"a": 1}]', "", "this is one JSON array"),
        ("a.arrow", "not arrow", "", "damaged, or not what its name says"),
        ("a.parquet", "not parquet", "", "damaged, or not what its name says"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, text, place, what):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(T5smithError, match=what) as caught:
        rows(path)
    assert caught.value.where == f"{path}{place}"


def test_a_file_without_rows_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(T5smithError, match="rows are not read from this kind of file"):
        task_files((str(tmp_path / "a.txt"),), "finetune.tasks.t.train")


def test_templates(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"nb": "hei", "n": {"x": [1, True]}, "many": ["a", "b"]}])
    (row,) = read_rows(path, "x", Skipped())
    for text, expected in {
        "nb": ["hei"],
        "translate: {nb}": ["translate: hei"],
        "{{{nb}}} {n.x} {many}": ["{hei} 1 true a b"],
        "many": ["a", "b"],
        "n.x": ["1", "true"],
    }.items():
        assert Template.parse(text, "here").texts(row) == expected
    for text in ("{nb", "a {}", "a }}"):
        with pytest.raises(T5smithError) as caught:
            Template.parse(text, "here")
        assert caught.value.where == "here"


def test_a_missing_column_and_an_unknown_field_of_a_template_are_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("nb\tnn\nein\tein\n")
    caught = error(path, target="nno")
    assert caught.where == f"{path}:2"
    assert str(caught).count("'nno', which finetune.tasks.t.target names")
    assert "one of 'nb', 'nn'" in str(caught)
    assert "'nynorsk', which finetune.tasks.t.input names" in str(error(path, input="x: {nynorsk}"))


def test_empty_values_are_counted_with_file_and_row(tmp_path, capsys):
    lines = [{"nb": f"a {n}", "nn": "b"} for n in range(40)]
    lines[3]["nn"], lines[5]["nb"], lines[7] = " ", "", {"nb": "a"}
    path = write_jsonl(tmp_path / "a.jsonl", lines)
    made = task(path)
    found = list(made.examples())
    assert len(found) == 37
    assert made.facts()["skipped"] == {"train": {"empty target": 1, "empty input": 1, "no 'nn'": 1}}
    err = capsys.readouterr().err
    for line, why in ((4, "empty target"), (6, "empty input"), (8, "no 'nn'")):
        assert f"{path}:{line}: {why}; the row is skipped" in err


def test_rows_are_held_out_by_a_hash_of_the_input(tmp_path):
    lines = [{"nb": f"a {n % 50}", "nn": "b"} for n in range(100)]
    found = list(task(write_jsonl(tmp_path / "a.jsonl", lines)).examples())
    sides = {split: {one.input for own, one in found if own == split} for split in ("train", "dev")}
    assert all(sides.values())
    assert not sides["train"] & sides["dev"]
    again = task(write_jsonl(tmp_path / "b.jsonl", lines)).examples()
    assert [split for split, _ in again] == [split for split, _ in found]


def test_labels(tmp_path):
    lines = [{"nb": f"a {n}", "nn": ("ja", "nei")[n % 2]} for n in range(40)]
    path = write_jsonl(tmp_path / "a.jsonl", lines)
    made = task(path, scores=("accuracy",))
    assert len(list(made.examples())) == 40
    assert made.facts()["labels"] == ["ja", "nei"]
    caught = error(path, labels=("ja", "kanskje"))
    assert caught.where == f"{path}:2"
    assert "the target 'nei' is none of the labels" in str(caught)
    one_class = write_jsonl(tmp_path / "b.jsonl", [one | {"nn": "ja"} for one in lines])
    assert "all targets of train are 'ja'" in str(error(one_class, scores=("f1",)))
    list(task(one_class, scores=("bleu",)).examples())


def test_an_empty_split_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"nb": "a", "nn": ""}])
    assert "no example for train; 1 row skipped" in str(error(path))


def test_names_in_a_text_become_text():
    tokens = ["Ola", "Nordmann", "og", "Kari", "bor", "i", "Oslo", "."]
    tags = ["B-PER", "I-PER", "O", "B-PER", "O", "O", "I-LOC", "O"]
    assert entities_of(tokens, tags) == "PER: Ola Nordmann; PER: Kari; LOC: Oslo"
    assert entities_of(["ingen"], ["O"]) == "none"


def test_presets(tmp_path):
    forms = {
        "question_answering": {
            "question": "Hvor?",
            "context": "I Oslo.",
            "answers": {"text": ["Oslo", "i Oslo", "Oslo"], "answer_start": [2, 0, 2]},
        },
        "entities": {"tokens": ["Kari"], "tags": ["B-PER"]},
        "instructions": {"definition": "Snu.", "inputs": "a b", "targets": ["b a", "ba"]},
        "summarization": {"document": "Lang tekst.", "summary": "Tekst."},
        "classification": {"text": "Bra!", "label": 1},
        "translation": {"source": "bok", "target": "bok"},
    }
    expected = {
        "question_answering": ("question: Hvor? context: I Oslo.", ("Oslo", "i Oslo")),
        "entities": ("entities: Kari", ("PER: Kari",)),
        "instructions": (
            "Definition: Snu. Now complete the following example - Input: a b Output:",
            ("b a", "ba"),
        ),
        "summarization": ("summarize: Lang tekst.", ("Tekst.",)),
        "classification": ("Bra!", ("1",)),
        "translation": ("bok", ("bok",)),
    }
    for name, row in forms.items():
        path = write_jsonl(tmp_path / f"{name}.jsonl", [row])
        settings = TaskSettings.model_validate({"train": (str(path),), "preset": name})
        assert settings.scores
        (example,) = Task("t", settings)._of_files("train")
        assert (example.input, example.targets) == expected[name]


def test_what_is_set_goes_before_the_preset():
    given = {"train": ("a",), "preset": "translation", "input": "{nb}", "scores": ("chrf",)}
    settings = TaskSettings.model_validate(given)
    assert (settings.input, settings.target, settings.scores) == ("{nb}", "target", ("chrf",))
    with pytest.raises(T5smithError, match="translations"):
        TaskSettings.model_validate(given | {"preset": "translations"})
