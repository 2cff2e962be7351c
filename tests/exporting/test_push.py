"""`export --push`: what the server of the Hub has afterwards, read without the Hub's library."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
from huggingface_hub import constants

from hub_uploads import Repository, taking_uploads
from t5smith.base.errors import T5smithError
from t5smith.cli.main import main
from t5smith.exporting.export import export

SHARD = 20_000


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server of the Hub, which the library reaches with a token that may write."""
    with taking_uploads() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # The server has no storage of Xet, only that of Git LFS.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", "writes")
        yield found
        huggingface_hub.close_session()


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The recipe of a run with checkpoints of steps 4 and 6, exported in several files."""
    folder = shutil.copytree(finished.folder, tmp_path_factory.mktemp("push") / "run")
    recipe = finished.replace(run_dir=folder, license="mit", **{"export.shard_bytes": SHARD})
    export(recipe)
    return recipe


def on_disk(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def served(hub, name="ola/t5-nb", branch="main"):
    files = dict(hub.repositories[name].files(branch))
    assert b"lfs" in files.pop(".gitattributes")
    return files


def test_the_server_has_the_bytes_of_the_folder_and_nobody_else_may_read_them(hub, exported, capsys):
    hub.doubts = ["unknown tag"]
    folder = export(exported, push="ola/t5-nb")
    files = on_disk(folder)
    assert sum(name.endswith(".safetensors") for name in files) > 2
    assert served(hub) == files
    assert "tags:" in files["README.md"].decode()
    assert hub.repositories["ola/t5-nb"].private
    shown = capsys.readouterr().err
    assert f"export    pushed to {hub.address}/ola/t5-nb (private): {len(files)} files" in shown
    assert [line for line in shown.splitlines() if "warning" in line.lower()] == [
        "warning: Warnings while validating metadata in README.md: - unknown tag"
    ]
    # Again, by the name alone: nothing has changed.
    uploads, commits = len(hub.uploads), len(hub.repositories["ola/t5-nb"].commits)
    export(exported, push="t5-nb")
    assert (len(hub.uploads), len(hub.repositories["ola/t5-nb"].commits)) == (uploads, commits)
    assert "(private): unchanged" in capsys.readouterr().err


def test_an_interrupted_push_uploads_only_what_is_missing(hub, exported):
    hub.room = 1
    args = ["export", str(exported.folder), "--license", "mit", "--export.shard-bytes", str(SHARD)]
    args += ["--push", "ola/t5-nb"]
    assert main(args) == 2
    assert len(hub.uploads) == 1
    assert served(hub) == {}
    hub.room = None
    assert main(args) == 0
    files = on_disk(exported.folder / "model")
    assert served(hub) == files
    large = {data for name, data in files.items() if name.endswith((".safetensors", ".model"))}
    assert sorted(hub.uploads) == sorted(map(len, large))


def test_kept_checkpoints_become_branches_named_by_their_step(hub, exported):
    hub.broken = "commit/step-4"
    with pytest.raises(T5smithError, match=r"rejects this \(broken\)\. Run the same command again"):
        export(exported, push="ola/t5-nb", public=True, revisions=True)
    repository = hub.repositories["ola/t5-nb"]
    assert not repository.private
    assert served(hub, branch="step-4") == {}  # and not the model of another step
    hub.broken = ""
    export(exported, push="ola/t5-nb", public=True, revisions=True)
    assert repository.branches.keys() == {"main", "step-4"}
    assert served(hub) == on_disk(exported.folder / "model")
    assert served(hub, branch="step-4") == on_disk(exported.folder / "model-step-4")
    assert served(hub)["config.json"] == served(hub, branch="step-4")["config.json"]
    assert b"| Length | 4 of 6 steps" in served(hub, branch="step-4")["README.md"]


def test_files_of_another_form_do_not_stay(hub, exported):
    """transformers would read one old file of weights before new shards."""
    folder = export(exported)
    repository = hub.repositories["ola/t5-nb"] = Repository(private=True)
    old = {"model.safetensors": b"old", "t5smith.json": b"{}", "figure.png": b"of the user"}
    repository.commit("main", {".gitattributes": b"lfs", **old})
    export(exported, push="ola/t5-nb")
    assert served(hub) == on_disk(folder) | {"figure.png": b"of the user"}


def test_nothing_is_pushed_without_the_flag(hub, exported):
    export(exported)
    export(exported, step=4)
    assert hub.requests == []


def with_model(name, *, private, files):
    def there(hub):
        hub.repositories[name] = Repository(private)
        hub.repositories[name].commit("main", files)

    return there


OURS = {"config.json": b"{}", "t5smith.json": b"{}"}


@pytest.mark.parametrize(
    ("there", "token", "args", "message"),
    [
        (None, "", ["o/n"], "there is no token of the Hugging Face Hub. Log in with `hf auth login`, or set"),
        (
            None,
            "wrong",
            ["o/n"],
            "the token of the Hugging Face Hub is not valid. Log in with `hf auth login`",
        ),
        (None, "reads", ["ola/n"], "the token of the Hub may not write to ola/n. Make a token"),
        (
            None,
            "elsewhere",
            ["a/n"],
            "the token of the Hub may not write to a/n. Make a token that may write at",
        ),
        (None, "writes", ["a/b/c"], "'a/b/c' is not the name of a repository; expected USER/NAME"),
        (None, "writes", ["hf:a/b"], "'hf:a/b' is not the name of a repository; expected USER/NAME"),
        (
            with_model("ola/n", private=False, files=OURS),
            "writes",
            ["n"],
            "--push: ola/n on the Hub exists and is public. Add --public to push to it all the same",
        ),
        (
            with_model("ola/n", private=True, files=OURS),
            "writes",
            ["ola/n", "--public"],
            "--public: ola/n on the Hub exists and is private. Leave out --public",
        ),
        (
            with_model("ola/n", private=True, files={"pytorch_model.bin": b""}),
            "writes",
            ["n"],
            "ola/n on the Hub has a model that t5smith did not write. Choose another name",
        ),
        (
            None,
            "writes",
            ["n", "--revisions", "--step", "4"],
            "--revisions and --step: cannot be used together",
        ),
    ],
)
def test_what_cannot_be_pushed_is_an_error_of_one_line(
    hub, exported, monkeypatch, capsys, there, token, args, message
):
    monkeypatch.setenv("HF_TOKEN", token)
    before = dict(hub.repositories)
    if there:
        there(hub)
        before = {name: dict(found.commits) for name, found in hub.repositories.items()}
    assert main(["export", str(exported.folder), "--license", "mit", "--push", *args]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("t5smith: error:") == 1
    assert hub.uploads == []
    assert {name: found.commits for name, found in hub.repositories.items()} == before


@pytest.mark.parametrize("flag", ["--public", "--revisions"])
def test_flags_without_a_push(exported, capsys, flag):
    assert main(["export", str(exported.folder), flag]) == 2
    assert f"{flag}: needs `--push`. Add --push USER/NAME" in capsys.readouterr().err


def test_without_the_hub(hub, exported, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["export", str(exported.folder), "--push", "ola/n"]) == 2
    shown = capsys.readouterr().err
    assert "--push: the Hugging Face Hub cannot be reached (" in shown
    assert "Run the same command again" in shown
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["export", str(exported.folder), "--push", "ola/n"]) == 2
    assert (
        "--push: the Hugging Face Hub is switched off by HF_HUB_OFFLINE. Unset it" in capsys.readouterr().err
    )
