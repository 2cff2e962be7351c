"""One process works in a run folder at a time."""

import signal
import subprocess
import sys

import pytest

from t5smith.base.errors import T5smithError
from t5smith.base.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from t5smith.base.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_rejected_until_the_first_ends_however_it_ends(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with (
                pytest.raises(T5smithError, match=r"run: another t5smith is running.*--run-dir"),
                locked(folder),
            ):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    with locked(folder):
        pass


def test_a_process_can_enter_its_own_lock_again_and_leaves_it_once(tmp_path):
    attempt = "from t5smith.base.lock import locked; from pathlib import Path; import sys\n"
    attempt += "with locked(Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", attempt, str(tmp_path)]
    with locked(tmp_path):
        with pytest.raises(ValueError, match="broken"), locked(tmp_path / ".." / tmp_path.name):
            raise ValueError("broken")
        done = subprocess.run(command, capture_output=True, text=True)
        assert "another t5smith is running" in done.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_process_that_enters_again_later_holds_the_lock_again(tmp_path):
    """The stages of a run enter one after the other in one process."""
    attempt = "from t5smith.base.lock import locked; from pathlib import Path; import sys\n"
    attempt += "with locked(Path(sys.argv[1])): pass"
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", attempt, str(tmp_path)], capture_output=True, text=True)
    assert "another t5smith is running" in done.stderr


def test_a_damaged_list_of_moves_is_named(tmp_path):
    (tmp_path / "moves.json").write_text("[[")
    with pytest.raises(T5smithError, match=r"moves\.json: not a list of moves .* by hand"), locked(tmp_path):
        pass
