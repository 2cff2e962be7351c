"""A run that was begun with `--restart` is resumed without it."""

import signal

from t5smith.base.signals import Stopped
from t5smith.cli import main as command


def test_a_stopped_restart_is_resumed_without_the_flag(monkeypatch, capsys):
    def stop(args):
        raise Stopped(signal.SIGINT, 5)

    monkeypatch.setattr(command, "_dispatch", stop)
    assert command.main(["run", "norwegian-tiny", "--restart"]) == 130
    assert capsys.readouterr().err.endswith("run the same command to resume without --restart\n")
    assert command.main(["run", "norwegian-tiny"]) == 130
    assert capsys.readouterr().err.endswith("run the same command to resume\n")
