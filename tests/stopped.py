"""Runs that stop themselves at a stage; started by test_run.py as one process that forks for each.

    python stopped.py JOBS

JOBS is JSON: a list of [recipe, stage, signal, file for stderr]. Prints JSON: the exit status of each, as
`subprocess` has it. Importing takes most of the time that such a process lives, so it is done once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

# What the stages import; the devices of JAX are not touched before the fork.
import t5smith.evaluation.scores
import t5smith.exporting.export
import t5smith.training.train
import t5smith.vocabulary.train  # noqa: F401
from t5smith.base import artifact
from t5smith.cli.main import main


def run_until(recipe, stage, number):
    """Run a recipe; when the stage seals its artifact, this process gets the signal."""
    seal = artifact.seal

    def stop(folder, kind, *rest):
        if artifact.verb_for(kind) == stage:
            os.kill(os.getpid(), number)
        return seal(folder, kind, *rest)

    artifact.seal = stop
    return main(["run", recipe])


def stopped(recipe, stage, number, errors):
    """The exit status of a child that does so."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        file = os.open(errors, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = run_until(recipe, stage, number)
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


if __name__ == "__main__":
    print(json.dumps([stopped(*job) for job in json.loads(sys.argv[1])]))
