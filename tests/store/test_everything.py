"""One folder of everything that people have: the manifest's counts add up file by file to what was put in."""

from __future__ import annotations

import bz2
import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from t5smith.base.artifact import read_manifest
from t5smith.recipe.recipe import Recipe
from t5smith.store.prepare import prepare
from t5smith.vocabulary.train import vocab

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:665232916d12\nsize 146946961\n"
CARD = "---\nlanguage: nb\nlicense: mit\n---\n# Et datasett\n"


def text(kind: str, number: int) -> str:
    return f"{kind} om vinter og sommer, nummer {number}"


def docs(first: int, number: int) -> str:
    """As WikiExtractor writes articles; the last of them has no text."""
    return "".join(
        f'<doc id="{i}" url="https://no.wikipedia.org/wiki?curid={i}" title="Tittel {i}">\nTittel {i}\n\n'
        f"{text('artikkel', i) if i < first + number - 1 else ''}\n\n</doc>\n"
        for i in range(first, first + number)
    )


def lines(kind: str, number: int, field: str = "text", **more: object) -> str:
    rows = (json.dumps({"id": str(i), field: text(kind, i), **more}) for i in range(number))
    return "\n".join(rows) + "\n"


def page(number: int, namespace: int = 0, more: str = "", body: str | None = None) -> str:
    body = text("side", number) if body is None else body
    return (
        f"<page>\n<title>Side {number}</title>\n<ns>{namespace}</ns>\n{more}"
        f"<revision><text>{body}</text></revision>\n</page>\n"
    )


def table() -> str:
    """Quoted line ends, quotes in a quoted field; a row with too many fields, a repeated header."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([["id", "text"], [1, "to\nlinjer"], [2, 'et "sitat", og komma'], [3, text("rad", 3)]])
    writer.writerows([[4, "for", "mange"], ["id", "text"], [5, text("rad", 5)]])
    return out.getvalue()


def archives(folder: Path) -> None:
    members = {"a/b.txt": "en\n\nto\n\ntre\n", "c.jsonl": lines("pakket", 3) + "{\n", "README.md": "# Om"}
    with zipfile.ZipFile(folder / "arkiv.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data.replace("en\n", "zip\n"))
    with tarfile.open(folder / "arkiv.tar.gz", "w:gz") as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data.encode())
            packed.addfile(info, io.BytesIO(data.encode()))


def everything(folder: Path) -> dict[str, tuple[int, dict[str, int]]]:
    """Write the folder. Returns of each file its documents, and what is counted, by kind."""
    files = {
        "wiki/AA/wiki_00": docs(0, 20) + "utenfor\n" + docs(20, 5).removesuffix("</doc>\n"),
        "wiki-json/AA/wiki_00": lines("artikkel i JSON", 20, revid="7") + '{"id": "9", "text": null}\n',
        "oscar.jsonl": lines("oscar", 30, "content", metadata={"quality_warnings": None}) + "{\n",
        "hplt.jsonl": lines("hplt", 30, f="a.warc.gz", lang=["nob_Latn"], prob=[0.9]) + '{"id": 3}\n',
        "tabell.csv": table(),
        "tabell.tsv": f"id\ttext\n1\t{text('tsv', 1)}\n2\t{text('tsv', 2)}\tmer\n",
        "tekst.txt": "\n\n".join(text("blokk", i) for i in range(20)),
        "sett/README.md": CARD,
        "sett/data/test-00000-of-00001.parquet": "",
        "sett/data/train-00000-of-00001.parquet": "",
        "peker.parquet": POINTER,
        "tom.txt": "",
        "LICENSE": "MIT",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(data, encoding="utf-8")
    for split, number in (("train", 12), ("test", 5)):
        rows = pa.table({"text": [*(text(f"sett {split}", i) for i in range(number)), None]})
        parquet.write_table(rows, folder / f"sett/data/{split}-00000-of-00001.parquet")
    pages = [page(i) for i in range(15)] + [page(15, 1), page(16, more='<redirect title="x" />\n')]
    pages += [page(17, body="{{mal}}"), page(18).replace("</revision>", "")]
    dump = f"<mediawiki>\n{''.join(pages)}</mediawiki>\n"
    (folder / "nowiki-pages-articles.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    archives(folder)
    return {
        "wiki/AA/wiki_00": (
            19 + 4,
            {"empty pages": 1, "text between documents": 1, "without </doc>": 1},
        ),
        "wiki-json/AA/wiki_00": (20, {"no text": 1}),
        "oscar.jsonl": (30, {"not JSON": 1}),
        "hplt.jsonl": (30, {"no text": 1}),
        "tabell.csv": (4, {"repeated headers": 1, "wrong number of fields": 1}),
        "tabell.tsv": (1, {"wrong number of fields": 1}),
        "tekst.txt": (20, {}),
        "sett/data/train-00000-of-00001.parquet": (12, {"no text": 1}),
        "nowiki-pages-articles.xml.bz2": (
            15,
            {"broken XML": 1, "empty pages": 1, "redirects": 1, "talk pages": 1},
        ),
        "arkiv.zip": (6, {"not JSON": 1, "side members": 1}),
        "arkiv.tar.gz": (6, {"not JSON": 1, "side members": 1}),
        "peker.parquet": (0, {"unreadable files": 1}),
        "tom.txt": (0, {}),
    }


def test_the_counts_of_everything_add_up_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "alt"
    put_in = everything(folder)
    recipe = Recipe.model_validate(
        {
            "run_dir": tmp_path / "run",
            "corpus": {"train": (str(folder),), "held_out_fraction": 0.2},
            "vocab": {"size": 80},
        }
    )
    vocab(recipe)
    capfd.readouterr()
    facts = read_manifest(prepare(recipe), "store").facts
    files = facts["input_files"]
    found = {
        Path(name).relative_to(folder).as_posix(): (own["documents"], own["skipped"])
        for name, own in files["records"].items()
    }
    assert found == put_in
    splits = [facts["train"], facts["valid"]]
    documents = sum(split["documents"] + split["empty_documents"] for split in splits)
    assert documents == sum(number for number, _ in put_in.values())
    skipped = sum(sum(counts.values()) for _, counts in put_in.values())
    assert skipped == sum(facts["skipped_records"]["counts"].values())
    # What is no text is listed: each file of the folder is in one of the lists.
    others = {Path(name).relative_to(folder).as_posix() for name in files["not_read"]["files"]}
    assert others == {"LICENSE", "sett/README.md", "sett/data/test-00000-of-00001.parquet"}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == others | put_in.keys()
    assert [Path(name).name for name in files["without_records"]] == ["tom.txt"]
    shown = capfd.readouterr().err
    assert "warning: 1 file cannot be read and was skipped:" in shown
    assert (
        f"{folder}/peker.parquet: this is a pointer of Git LFS, not the file. In its repository run" in shown
    )
    assert "warning: 1 file without any text: " in shown
