import json
import re
from pathlib import Path

import numpy as np
import pytest

from balanced import check_page
from t5smith.cli.main import main
from t5smith.inspection.batch import training_batch
from t5smith.training.setup import Run

SENTENCE = "Alle mennesker er født frie og med samme menneskeverd"
UL2 = """
name = "small-mixture"
[objective]
name = "mixture"
denoisers = ["0.3 2 2 <extra_id_99>", "0.5 4 1", "0.25 prefix 1 <extra_id_98>"]
window_length = 16
input_length = 40
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mixture.toml").write_text(UL2)
    return tmp_path


def printed(capsys, *argv: object) -> str:
    assert main(["inspect", *map(str, argv)]) == 0
    return capsys.readouterr().out


def tree(capsys, *argv: object):
    return json.loads(printed(capsys, *argv, "--json").splitlines()[-1])


def rejected(capsys, *argv: object) -> str:
    assert main(["inspect", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_rows_of_a_run_are_those_of_training(run, capsys):
    found = tree(capsys, "--store", run.folder, "--batch", 3, "--rows", 2)
    batch = Run(run).setup.batches()[3]
    assert [row["windows"][0]["input_ids"] for row in found["rows"]] == batch["input_ids"][:2].tolist()
    assert [row["windows"][0]["target_ids"] for row in found["rows"]] == batch["targets"][:2].tolist()
    assert found["rows"][1]["windows"][0]["place"]["row"] == 1
    assert tree(capsys, "--store", run.folder / "store", "--batch", 3, "--rows", 2) == found


def test_a_pipe_gets_no_spaces_at_the_ends_of_lines(run, capsys):
    for argv in ((SENTENCE,), ("--store", run.folder), ("--store", run.folder, "--stats")):
        lines = printed(capsys, *argv).splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_a_packed_row_is_shown_segment_by_segment(run, capsys):
    out = printed(capsys, "--store", run.folder, "--recipe", "mixture.toml", "--batch", 1)
    assert "Row 0 of training batch 1" in out
    setup = Run(run.replace(objective=_mixture())).setup
    batch = training_batch(setup.batches(), 1)
    windows = int((batch.row == 0).sum())
    assert windows > 1
    assert re.findall(r"Segment (\d+) of (\d+)", out) == [
        (str(n), str(windows)) for n in range(1, windows + 1)
    ]
    for number in np.flatnonzero(batch.row == 0):
        assert setup.objective.denoisers[batch.denoiser[number]].denoiser.title in out
        assert f"Window {batch.number[number]:,} of the run: tokens {batch.start[number]:,} to" in out
    assert "mode token" in out


def _mixture():
    from t5smith.recipe.toml import load_recipe

    return load_recipe("mixture.toml").objective.model_dump()


def test_long_rows_are_shortened_by_default(run, capsys):
    flags = ("--store", run.folder, "--objective", "prefix_lm", "--recipe", "mixture.toml")
    short = printed(capsys, *flags[:2], "--noise-density", 0.5)
    full = printed(capsys, *flags[:2], "--noise-density", 0.5, "--full")
    assert re.search(r"… \d+ positions? more; --full shows all", short)
    assert "more;" not in full
    positions = [int(n) for n in re.findall(r"^ +(\d+)  \S+ \(\d+\) +→", full, re.MULTILINE)]
    assert positions == list(range(len(positions)))
    assert len(positions) > len(re.findall(r"→", short)) == 12


@pytest.mark.parametrize("flags", [["--loss"], ["--stats"], ["--stats", "--loss", "--held-out"], []])
def test_no_line_is_wider_than_the_terminal(run, capsys, flags):
    out = printed(capsys, "--store", run.folder, *flags)
    assert "\x1b" not in out
    # In a pipe the line that describes the statistics is not wrapped.
    wide = [line for line in out.splitlines() if len(line) > 80]
    assert all(" windows of " in line for line in wide)
    assert len(wide) <= 1
    assert "…" not in re.sub(r"… [\d,]+ \w+ more", "", out)


def test_the_loss_of_a_text(run, capsys):
    flags = (SENTENCE, "--noise", "født frie", "--loss", "--model", run.folder)
    found = tree(capsys, *flags)
    nats = [loss["nll"] for loss in found["losses"]]
    assert len(nats) == len(found["target_ids"])
    assert found["loss"]["all"]["sum"] == pytest.approx(sum(nats))
    assert found["loss"]["all"]["nll"] == pytest.approx(np.mean(nats))
    assert found["loss"]["sentinels"]["tokens"] == 2
    out = printed(capsys, *flags)
    assert f"{sum(nats):.4f} nats over {len(nats)} tokens: {np.mean(nats):.4f} nats per token" in out
    assert f"{sum(nats):.4f} nats / {len(nats)} target tokens = {np.mean(nats):.4f}" in " ".join(out.split())
    for loss in found["losses"]:
        assert f"{loss['nll']:.3f}" in out


def test_the_held_out_loss_is_that_of_the_evaluation(run, capsys):
    found = tree(capsys, "--store", run.folder, "--held-out", "--stats", "--loss")
    expected = json.loads((run.folder / "evaluation" / "evaluation.json").read_text())
    for name in ("text", "sentinels", "eos", "all"):
        assert found["loss"]["all"][name]["nll"] == pytest.approx(expected[name]["nll"], rel=1e-6)
    out = printed(capsys, "--store", run.folder, "--held-out", "--stats", "--loss")
    assert re.search(rf"^ +all .* {expected['all']['nll']:.4f} ", out, re.MULTILINE)


def test_a_text_under_every_denoiser(run, capsys):
    found = tree(capsys, SENTENCE, "--store", run.folder, "--recipe", "mixture.toml", "--seed", 4)
    assert [row["windows"][0]["denoiser"] for row in found["rows"]] == [
        "<extra_id_99> 30% in spans of 2",
        "50% in spans of 4",
        "<extra_id_98> 25% at the end",
    ]
    prefix_lm = found["rows"][2]["windows"][0]
    assert prefix_lm["spans"][0]["sentinel"] is None
    assert prefix_lm["mode_token"] == ["<extra_id_98>"]
    assert prefix_lm["input_ids"][1:-1] + prefix_lm["target_ids"][:-1] == [
        token["id"] for token in prefix_lm["tokens"]
    ]
    assert "Denoiser 3 of 3" in printed(capsys, SENTENCE, "--recipe", "mixture.toml")


def test_flags_change_the_objective(capsys):
    assert tree(capsys, SENTENCE, "--objective", "prefix_lm")["mean_noise_span_length"] is None
    without = tree(capsys, SENTENCE, "--no-eos", "--noise-density", 0.5, "--mean-noise-span-length", 1)
    assert "</s>" not in without["input_pieces"] + without["target_pieces"]
    assert without["noise_density"] == 0.5
    turned = [tree(capsys, SENTENCE, "--roll", "--seed", seed)["tokens"][-1]["masked"] for seed in range(8)]
    assert set(turned) == {True, False}


def test_a_file_is_one_window(elsewhere, capsys):
    (elsewhere / "a.txt").write_text("\ufeffThe bad dog\nruined my sleep\n", encoding="utf-8")
    found = tree(capsys, "--file", "a.txt", "--noise", "bad dog")
    assert found == tree(capsys, "The bad dog ruined my sleep", "--noise", "bad dog")


def test_the_tokenizer_and_the_seed_are_those_of_the_run(run, capsys):
    here = tree(capsys, SENTENCE, "--store", run.folder)
    assert here["input_ids"] == tree(capsys, SENTENCE, "--tokenizer", run.folder)["input_ids"]
    assert here["input_ids"] != tree(capsys, SENTENCE)["input_ids"]


def test_statistics_of_synthetic_windows(elsewhere, capsys):
    found = tree(capsys, "--stats", "--batches", 2, "--recipe", "mixture.toml")
    assert [one["denoiser"] for one in found["denoisers"]][1] == "50% in spans of 4"
    assert found["batches"] == 2
    printed(capsys, "--stats", "--batches", 1, "--plot", "counts.pdf")
    assert (elsewhere / "counts.pdf").read_bytes().startswith(b"%PDF-")
    out = printed(capsys, "--stats", "--batches", 1, "--plot", "counts.png", "--html", "counts.html")
    assert "Length of spans" in out
    assert "32 rows of 512 input and 114 target tokens, 32 windows of 568 tokens" in out
    assert (elsewhere / "counts.png").read_bytes().startswith(b"\x89PNG")
    page = (elsewhere / "counts.html").read_text()
    assert len(check_page(page).fetched) == 2
    assert "Masked by position in the window" in page


def test_pages_are_well_formed_and_load_nothing(run, elsewhere, capsys):
    for flags in (
        (SENTENCE, "--model", run.folder),
        (SENTENCE, "--recipe", "mixture.toml"),
        ("--store", run.folder, "--rows", 2, "--loss"),
        ("--store", run.folder, "--recipe", "mixture.toml"),
        ("--store", run.folder, "--stats", "--loss", "--batches", 2),
    ):
        found = printed(capsys, *flags, "--html", "a.html", "--full")
        page = (elsewhere / "a.html").read_text()
        check_page(page)
        assert found
    rows = ("--store", run.folder, "--rows", 2, "--loss", "--html", "a.html")
    printed(capsys, *rows)
    short = (elsewhere / "a.html").read_text()
    assert short.count('class="gauge"') == sum(
        len(row["windows"][0]["target_ids"]) for row in tree(capsys, *rows[:5])["rows"]
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing to inspect; expected TEXT, --file, --store or --stats"),
        (("a dog", "--file", "x"), "--file: TEXT and --file exclude each other; expected one of them"),
        (("a dog", "--stats"), "--stats: does not take a text; expected no TEXT and no --file"),
        (("--stats", "--noise", "dog"), "--noise: needs TEXT or --file"),
        (("--held-out", "--stats"), "--held-out: needs --store"),
        (("--stats", "--tokenizer", "x"), "--tokenizer: needs TEXT or --file"),
        (("a dog", "--batches", 3), "--batches: needs --stats"),
        (("a dog", "--rows", 3), "--rows: needs --store"),
        (("a dog", "--plot", "a.png"), "--plot: needs --stats"),
        (("--stats", "--plot", "a.jpg"), "--plot: a.jpg has an unknown ending; expected .png, .svg or .pdf"),
        (("--stats", "--plot", "a"), "--plot: a has no ending; expected .png, .svg or .pdf"),
        (("a dog", "--html", "a.pdf"), "--html: a.pdf has an unknown ending; expected .html or .htm"),
        (("a dog", "--loss"), "--loss: needs --model or --store"),
        (("--stats", "--model", "x"), "--model: needs --store if there is --stats"),
        (("--stats", "--batches", 0), "--batches: 0 is too small; expected 1 or more"),
        (("--stats", "--batch", -1), "--batch: -1 is too small; expected 0 or more"),
        (("--store", "none"), "none: there is no such folder; expected a run folder"),
        (("--store", "."), "there is no recipe.toml; expected a run folder"),
        (("a dog", "--model", "."), "there is no model here; expected a run folder or an exported"),
        (("--file", "none.txt"), "none.txt: cannot be read (no such file"),
        (("a dog", "--objective", "ul2", "--noise-density", 0.3), "objective.noise_density: 0.3 cannot be"),
        (("--stats", "--mean-noise-span-length", 1, "--noise-density", 0.5), "sentinels"),
    ],
)
def test_flags_that_contradict_each_other_are_rejected(capsys, flags, message):
    said = rejected(capsys, *flags)
    assert message in said
    assert said.count("\n") == 1


def test_a_batch_beyond_the_last_is_rejected(run, capsys):
    for flags in (["--batch", 10_000], ["--batch", 10_000, "--stats"]):
        said = rejected(capsys, "--store", run.folder, "--held-out", *flags)
        assert "--batch: there is no held-out batch 10000" in said


def test_a_file_that_is_not_text_is_rejected(elsewhere: Path, capsys):
    (elsewhere / "a.bin").write_bytes(b"a\xff")
    assert "a.bin: invalid UTF-8 at byte 1; expected a text file in UTF-8" in rejected(
        capsys, "--file", "a.bin"
    )
