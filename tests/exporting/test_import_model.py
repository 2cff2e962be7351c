"""`t5smith import`: the numbers of what was read, bit for bit, whatever file they were in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from orbax.checkpoint import msgpack_utils
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

import t5smith
from other_formats import as_flax
from programs import init
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.interop.huggingface_load import load_model
from t5smith.interop.huggingface_names import to_huggingface
from t5smith.interop.huggingface_save import Form, write_model, write_tensors
from t5smith.interop.model import Model
from t5smith.model.config import ModelConfig
from t5smith.vocabulary.vocabulary import BUNDLED

DATA = Path(__file__).parents[1] / "data" / "t5x_tiny"


@pytest.fixture(scope="module")
def original(finished, tmp_path_factory):
    """A folder of another project: spare rows with numbers of their own, a licence, no t5smith.json."""
    folder = tmp_path_factory.mktemp("original") / "t5-other"
    folder.mkdir()
    vocabulary = load_model(finished.folder / "model").vocabulary
    config = ModelConfig(vocabulary.size + 20, vocabulary.size, 8, 4, 16, 2, 1, 3)
    parameters = init(config, jax.random.key(0))
    write_model(folder, Model(parameters, config, vocabulary), model_max_length=64)
    write_tensors(folder, to_huggingface(parameters, config).items(), config, Form())
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def weights(folder):
    return load_file(folder / "model.safetensors")


def save_as(folder, kind, tensors):
    """The weights in another kind of file, in place of the safetensors."""
    (folder / "model.safetensors").unlink()
    if kind == "bin":
        state = {name: torch.from_numpy(one) for name, one in tensors.items()}
        # Older files have the embedding three times.
        copies = {f"{stack}.embed_tokens.weight": state["shared.weight"] for stack in ("encoder", "decoder")}
        torch.save(state | copies, folder / "pytorch_model.bin")
    elif kind == "msgpack":
        (folder / "flax_model.msgpack").write_bytes(msgpack_utils.msgpack_serialize(as_flax(tensors)))
    else:
        names = sorted(tensors)
        listed = {}
        for number, part in enumerate((names[::2], names[1::2])):
            save_file({one: torch.from_numpy(tensors[one]) for one in part}, folder / f"{number}.safetensors")
            listed |= dict.fromkeys(part, f"{number}.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("safetensors", "safetensors"),
        ("bin", "PyTorch's pickle"),
        ("msgpack", "Flax's msgpack"),
        ("shards", "safetensors in shards"),
    ],
)
def test_a_folder_has_the_same_numbers_and_ids_afterwards(original, tmp_path, capsys, kind, words):
    folder, expected = shutil.copytree(original, tmp_path / "other"), weights(original)
    if kind != "safetensors":
        save_as(folder, kind, expected)
    assert main(["import", str(folder), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'out'}\n"
    assert f": T5 1.1, 9,672 parameters, from {words}\n" in shown.err
    assert (
        "2 encoder and 1 decoder layers, d_model 8, d_ff 16, 3 heads of 4, 420 rows for 400 ids" in shown.err
    )
    assert ("ignored" in shown.err) == (kind == "bin")
    found = weights(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name in expected:  # spare rows of the head too
        np.testing.assert_array_equal(found[name].view(np.uint32), expected[name].view(np.uint32), name)
    before, after = load_model(folder), load_model(tmp_path / "out")
    assert after.config == before.config
    text = "Everyone has <extra_id_0> rest and 1,000 € æ."
    assert after.vocabulary.encode_with_sentinels(text) == before.vocabulary.encode_with_sentinels(text)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "apache-2.0"' in card
    assert "The parameters are those of `other` (SHA-256 of its weights" in card
    assert str(tmp_path) not in card
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_precision_is_kept(original, tmp_path, dtype):
    folder = shutil.copytree(original, tmp_path / "other")
    halves = {name: torch.from_numpy(one).to(dtype) for name, one in weights(original).items()}
    save_file(halves, folder / "model.safetensors")
    out = t5smith.import_model(str(folder), tmp_path / "out")
    with safe_open(out / "model.safetensors", "pt") as file:
        for name, expected in halves.items():
            assert torch.equal(file.get_tensor(name), expected)
    assert json.loads((out / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_a_mixture_of_precisions_becomes_float32(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "other")
    mixed = {name: torch.from_numpy(one) for name, one in weights(original).items()}
    mixed["lm_head.weight"] = mixed["lm_head.weight"].to(torch.bfloat16)
    save_file(mixed, folder / "model.safetensors")
    found = weights(t5smith.import_model(str(folder), tmp_path / "out"))
    expected = weights(original)["lm_head.weight"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found["lm_head.weight"], expected)


def test_a_run_is_imported_once(finished, tmp_path, capsys):
    for _ in range(2):
        assert main(["import", str(finished.folder), str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "already done" in shown.err
    facts = json.loads(shown.out.splitlines()[-1])
    assert (facts["family"], facts["read_from"], facts["dtype"]) == ("T5 1.1", "safetensors", "float32")
    own = weights(finished.folder / "model")
    for name, array in weights(tmp_path / "out").items():
        np.testing.assert_array_equal(array, own[name])


def test_a_checkpoint_of_t5x_needs_a_tokenizer(original, tmp_path, capsys):
    checkpoint, out = str(DATA / "checkpoint_0"), tmp_path / "out"
    assert main(["import", checkpoint, str(out)]) == 2
    assert "SOURCE: " in (shown := capsys.readouterr().err)
    assert "has no tokenizer. Name the one that it was trained with, such as --tokenizer" in shown
    assert main(["import", checkpoint, str(out), "--tokenizer", str(BUNDLED)]) == 0
    assert "from a checkpoint of T5X (msgpack)" in capsys.readouterr().err
    card = (out / "README.md").read_text()
    assert "The tokenizer is `tokenizer.json.xz`, whose licence applies to it." in card
    assert "Its licence is not stated here, because it has no card" in card
    assert "model.config.tie_word_embeddings = False" in card
    expected = load_file(DATA / "model.safetensors")
    for name, array in weights(out).items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{original}", "{original}"], "there is something else in this folder already. Name a folder that"),
        (["{original}", "{tmp}/out", "--tokenizer", "bytes"], "has a tokenizer of its own. Leave out"),
        (["{tmp}/nowhere/here", "{tmp}/out"], "SOURCE: "),
        (["{tmp}", "{tmp}/out"], "SOURCE: {tmp}: there is no model; expected a Hugging Face folder"),
        (["{original}"], "OUT: missing; expected the folder that is made"),
    ],
)
def test_what_cannot_be_imported_is_an_error_of_one_line(original, tmp_path, capsys, args, message):
    before = {path: path.stat().st_mtime_ns for path in original.iterdir()}
    places = {"original": original, "tmp": tmp_path}
    assert main(["import", *(arg.format(**places) for arg in args)]) == 2
    shown = capsys.readouterr().err
    assert message.format(**places) in shown
    assert not (tmp_path / "out").exists()
    assert {path: path.stat().st_mtime_ns for path in original.iterdir()} == before


def test_another_embedding_of_the_decoder_is_refused(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "other")
    tensors = {name: torch.from_numpy(one) for name, one in weights(original).items()}
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(T5smithError, match=r"decoder.embed_tokens.weight: an embedding of its own"):
        t5smith.import_model(str(folder), tmp_path / "out")
    with pytest.raises(T5smithError, match="an embedding of its own"):
        load_model(folder)
