"""Files that are no tokenizer: the message says what each is, and what to name instead."""

from __future__ import annotations

import lzma

import pytest

from t5smith.base.errors import T5smithError
from t5smith.vocabulary.import_tokenizer import import_tokenizer
from t5smith.vocabulary.vocabulary import Vocabulary

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"
NAME_ONE = (
    r"expected a .*\. Name the tokenizer\.json that .* writes, a spiece\.model of sentencepiece, or a folder"
)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"", r"this file is empty \(0 bytes\)\. Download or export it again"),
        ("spiece.model", b"", r"this file is empty \(0 bytes\)\. Download or export it again"),
        ("a.json.xz", b"", r"this file is empty \(0 bytes\)\. Download or export it again"),
        ("a.json", POINTER, "a pointer of Git LFS, not the file. In its repository run `git lfs install`"),
        ("spiece.model", POINTER, "a pointer of Git LFS, not the file"),
        ("a.json", b"<!DOCTYPE html><html>404", "this is a web page, not the file. Download the file itself"),
        ("a.json", b"PK\x03\x04\x14\0\0\0\b\0", "this is a zip archive"),
        ("a.json", b"en tekst", rf"not a tokenizer\.json \(it is not JSON: .*\); {NAME_ONE}"),
        (
            "a.json",
            b'{"model": {',
            rf"\(it ends too early or is damaged: .*; {NAME_ONE}",
        ),
        ("a.json", b"[1]", rf"not a tokenizer\.json \(it is a JSON list, not an object\); {NAME_ONE}"),
        ("a.json", b'{"model_type": "t5"}', rf"not a .* \(it is a model's config\.json\); {NAME_ONE}"),
        ("a.json", b'{"tokenizer_class": "T"}', rf"\(it is a tokenizer_config\.json\); {NAME_ONE}"),
        ("a.json", b'{"a": 1}', rf'not a tokenizer\.json \(it has no "model"\); {NAME_ONE}'),
        ("a.json.xz", lzma.compress(b"\xff\xfe"), rf"damaged file, or no tokenizer\.json .*{NAME_ONE}"),
        ("a.model", b"en tekst", "not a complete SentencePiece model; expected .* must be named .json"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_described(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    for read in (import_tokenizer, Vocabulary.load):
        with pytest.raises(T5smithError, match=message) as caught:
            read(str(tmp_path / name))
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
