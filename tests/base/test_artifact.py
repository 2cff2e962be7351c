import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from t5smith.base import artifact
from t5smith.base.artifact import MANIFEST, building, find_up_to_date, fingerprint, read_manifest, set_aside
from t5smith.base.disk import disk_errors, write_atomically
from t5smith.base.errors import T5smithError

OLD, NEW = {"text": "old"}, {"text": "new"}


def build(folder: Path, inputs: dict[str, str], kind: str = "vocab") -> None:
    """A small artifact with a file in a subfolder."""
    facts: dict[str, int] = {}
    with building(folder, kind, inputs, facts) as work:
        (work / "deep").mkdir()
        (work / "deep" / "file.txt").write_text(inputs["text"])
        facts["size"] = len(inputs["text"])


@pytest.fixture
def folder(tmp_path):
    """A finished artifact made from OLD."""
    build(tmp_path / "run" / "vocab", OLD)
    return tmp_path / "run" / "vocab"


def is_old(folder: Path) -> bool:
    """The artifact is there, whole and made from OLD."""
    manifest = find_up_to_date(folder, "vocab", fingerprint(OLD))
    return manifest is not None and (folder / "deep" / "file.txt").read_text() == "old"


def test_a_finished_artifact_is_found_by_its_key_alone(folder):
    assert is_old(folder)
    assert find_up_to_date(folder, "vocab", fingerprint(NEW)) is None
    assert find_up_to_date(folder.parent, "vocab", fingerprint(OLD)) is None
    manifest = read_manifest(folder, "vocab")
    assert manifest.inputs == OLD
    assert manifest.facts == {"size": 3}
    assert list(manifest.files) == ["deep/file.txt"]


def test_a_replaced_artifact_moves_to_previous(folder):
    for text in ("new", "newer"):
        build(folder, {"text": text})
    assert (folder / "deep" / "file.txt").read_text() == "newer"
    shelf = folder.parent / "previous"
    assert is_old(shelf / "vocab-1")
    assert (shelf / "vocab-2" / "deep" / "file.txt").read_text() == "new"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["previous", "vocab"]
    assert set_aside(folder.parent / "nothing") is None


def test_a_failure_leaves_all_as_it_was(folder):
    def fail(work: Path) -> None:
        (work / "half").write_text("half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), building(folder, "vocab", NEW, {}) as work:
        fail(work)
    assert is_old(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["vocab"]


def test_a_failed_rename_restores_the_old_artifact(folder, monkeypatch):
    really = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(artifact.UNFINISHED):
            raise OSError(28, "No space left on device")
        return really(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(T5smithError, match="the disk is full"):
        build(folder, NEW)
    assert is_old(folder)


def test_unfinished_work_is_not_trusted_and_is_replaced(folder):
    left_over = folder.with_name("store" + artifact.UNFINISHED)
    left_over.mkdir()
    (left_over / "half").write_text("half")
    with pytest.raises(T5smithError, match=r"no finished store.*`t5smith prepare RECIPE`"):
        read_manifest(left_over, "store")
    build(folder.with_name("store"), NEW, kind="store")
    assert list(read_manifest(folder.with_name("store"), "store").files) == ["deep/file.txt"]
    assert not left_over.exists()


KILLED = """
import sys, time
from pathlib import Path
from t5smith.base.artifact import building
folder, moves = Path(sys.argv[1]), int(sys.argv[2])

def wait():
    print("ready", flush=True)
    time.sleep(600)

really, seen = Path.rename, []

def rename(self, target):
    # The moves that put an artifact in its place: the old one aside (1), the new one in (2).
    if len(seen) + 1 == moves:
        wait()
    seen.append(target)
    return really(self, target)

Path.rename = rename
with building(folder, "vocab", {"text": "new"}, {}) as work:
    (work / "file.txt").write_text("new")
    if not moves:
        wait()
"""


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_kill_9_leaves_the_old_artifact_complete_and_trusts_no_unfinished_one(folder, moves):
    command = [sys.executable, "-c", KILLED, str(folder), str(moves)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    if moves < 2:
        assert is_old(folder)
    else:
        # Between the two moves nothing stands there; the old one is whole where old ones go.
        assert not folder.exists()
        assert is_old(folder.parent / "previous" / "vocab-1")
    if moves < 2:
        assert find_up_to_date(folder, "vocab", fingerprint(NEW)) is None
        build(folder, NEW)
    # The new one was whole and had only to be moved: that is made up for, not done again.
    assert find_up_to_date(folder, "vocab", fingerprint(NEW)) is not None
    assert read_manifest(folder, "vocab").key == fingerprint(NEW)


def alter(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def test_a_damaged_checkpoint_is_not_to_be_made_again(folder):
    sealed = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(sealed | {"kind": "checkpoint"}))
    alter(folder / "deep" / "file.txt")
    with pytest.raises(T5smithError, match=r"Restore it from a copy; without it, training continues from"):
        read_manifest(folder, "checkpoint")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (alter, "changed since it was written"),
        (lambda file: file.write_bytes(b""), "changed since it was written"),
        (lambda file: file.unlink(), "missing"),
    ],
)
def test_damage_is_found_and_reported(folder, damage, message, capsys):
    damage(folder / "deep" / "file.txt")
    with pytest.raises(
        T5smithError,
        match=rf"deep/file\.txt: {message}.*\. Make it again with `t5smith vocab RECIPE`",
    ):
        read_manifest(folder, "vocab")
    assert find_up_to_date(folder, "vocab", fingerprint(OLD)) is None
    assert f"file.txt: {message}" in capsys.readouterr().err


def test_without_hashes_sizes_are_still_checked(folder):
    alter(folder / "deep" / "file.txt")
    read_manifest(folder, "vocab", check_hashes=False)
    (folder / "deep" / "file.txt").write_bytes(b"")
    with pytest.raises(T5smithError, match="changed since"):
        read_manifest(folder, "vocab", check_hashes=False)


def test_another_kind_is_an_error(folder):
    with pytest.raises(T5smithError, match="this is a vocab; expected a model"):
        read_manifest(folder, "model")


def test_a_file_instead_of_a_folder_is_an_error(folder):
    with pytest.raises(T5smithError, match="no finished vocab"):
        read_manifest(folder / "deep" / "file.txt", "vocab")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: "",
        lambda tree: "[]",
        lambda tree: json.dumps(tree)[:-9],
        lambda tree: json.dumps(tree | {"more": 1}),
        lambda tree: json.dumps(tree | {"kind": 5}),
        lambda tree: json.dumps(tree | {"files": []}),
        lambda tree: json.dumps(tree | {"files": {"a": 5}}),
        lambda tree: json.dumps(tree | {"files": {"a": {"bytes": 5}}}),
        lambda tree: "\udcff",
    ],
)
def test_a_damaged_manifest_is_one_error(folder, change):
    text = change(json.loads((folder / MANIFEST).read_text()))
    (folder / MANIFEST).write_text(text, errors="surrogateescape")
    with pytest.raises(T5smithError, match=r"manifest\.json: damaged manifest"):
        read_manifest(folder, "vocab")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_equal_values_have_equal_fingerprints(value):
    assert fingerprint({"a": value, "b": 1}) == fingerprint({"b": 1, "a": value})
    assert fingerprint({"a": value}) != fingerprint({"a": [value]})


def test_a_small_file_is_replaced_completely_or_not_at_all(tmp_path):
    file = tmp_path / "state.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "new\udcff")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(T5smithError, match=r"run.*: a file is where a folder is needed"):
        build(tmp_path / "run" / "vocab", NEW)


@contextlib.contextmanager
def mounted(folder: Path, options: str):
    """A small file system of its own at `folder`."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        failed = subprocess.run(command, capture_output=True).returncode
    except FileNotFoundError:
        failed = 1
    if failed:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def big_tokenizer(path: Path) -> None:
    vocabulary = {f"{'x' * 40}{i}": i for i in range(20_000)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="x" * 40 + "0")).save(str(path))


BIG = np.zeros(1_000_000, np.uint8)
WRITERS = {
    "text": lambda work: (work / "a").write_text("x" * 1_000_000),
    "numpy": lambda work: np.save(work / "a.npy", BIG),
    "safetensors": lambda work: save_file({"a": BIG}, work / "a.safetensors"),
    "tokenizers": lambda work: big_tokenizer(work / "tokenizer.json"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_the_old_artifact_stays(tmp_path, writer):
    with mounted(tmp_path / "disk", "size=256k") as disk:
        build(disk / "vocab", OLD)
        with (
            pytest.raises(T5smithError, match=r"disk/vocab.*: the disk is full\. Free some space") as caught,
            building(disk / "vocab", "vocab", NEW, {}) as work,
        ):
            WRITERS[writer](work)
        assert "\n" not in str(caught.value)
        assert is_old(disk / "vocab")
        assert [p.name for p in disk.iterdir()] == ["vocab"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_past_the_allowed_size_is_one_line_and_the_old_artifact_stays(folder, writer):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(work: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        WRITERS[writer](work)

    try:
        with (
            pytest.raises(T5smithError, match=r"grew past the allowed size|the disk is full"),
            building(folder, "vocab", NEW, {}) as work,
        ):
            write(work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert is_old(folder)


def test_a_read_only_file_system_is_one_line(tmp_path):
    with (
        mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(T5smithError, match=r"disk/run.*: the file system is read-only\. Choose a run_dir"),
    ):
        build(disk / "run" / "vocab", NEW)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(T5smithError, match=r"run.*: no permission to write\. Choose a run_dir"):
            build(tmp_path / "run" / "vocab", NEW)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/there/a"), r"^/there/a: no permission to write"),
        (OSError("5 requested and 3 written"), r"^here: the disk is full"),
        (ValueError("Failed to write: No space left [os_error_code='28']"), r"^here: the disk is full"),
        (RuntimeError("No space left on device (os error 28)"), r"^here: the disk is full"),
    ],
)
def test_disk_errors_of_libraries_are_recognized(error, message):
    with pytest.raises(T5smithError, match=message), disk_errors(Path("here")):
        raise error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("os error 5"), KeyError("a")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, disk_errors(Path("here")):
        raise error
    assert caught.value is error


def test_manifests_of_the_version_before_are_read(folder):
    before = {
        "kind": "vocab",
        "key": fingerprint({"size": 8}),
        "made_from": {"size": 8},
        "facts": {"asked": 8, "pieces": 8, "left_out": {"counts": {}}},
        "files": {},
        "version": "0.1.0",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(before))
    manifest = find_up_to_date(folder, "vocab", fingerprint({"size": 8}))
    assert manifest is not None
    assert manifest.inputs == {"size": 8}
    assert manifest.facts == {"requested": 8, "pieces": 8, "skipped_records": {"counts": {}}}
