"""One process works in a run folder at a time."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from t5smith.base.errors import T5smithError
from t5smith.base.lock import LOCK, lock_holder, locked
from t5smith.base.process import is_alive, this_process

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
                pytest.raises(
                    T5smithError,
                    match=rf"run: another t5smith is running .*\(process {holder.pid} on .*--run-dir",
                ),
                locked(folder),
            ):
                pass
            found = lock_holder(folder)
            assert found is not None
            assert is_alive(found)
        finally:
            holder.send_signal(signal.SIGKILL)
    assert lock_holder(folder) == found
    assert is_alive(found) is False
    with locked(folder):
        assert lock_holder(folder) == this_process()
    assert lock_holder(folder) is None


def test_a_process_that_has_the_number_of_an_ended_one_is_another():
    assert is_alive(this_process())
    assert is_alive(this_process() | {"start": 1}) is False
    assert is_alive(this_process() | {"host": "another"}) is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capfd, code):
    """Who works in a folder is then known from the file alone."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        assert "this file system has no locks" in capfd.readouterr().err
    for holder, message in (
        (this_process(), "another t5smith is running in this folder"),
        (this_process() | {"host": "n7"}, r"on n7\)\. Wait .* if it was killed, remove .*\.lock"),
    ):
        (tmp_path / LOCK).write_text(json.dumps(holder))
        with pytest.raises(T5smithError, match=message), locked(tmp_path):
            pass
    (tmp_path / LOCK).write_text(json.dumps(this_process() | {"start": 1}))
    with locked(tmp_path):
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
