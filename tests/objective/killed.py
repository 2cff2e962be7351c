"""A run of the input pipeline that is killed over and over; started by test_restore.py as a process.

    python killed.py RUN_FOLDER LOG KILLS STEPS

Makes batches 0 to STEPS of the UL2 run in RUN_FOLDER and writes a line `b hash` for each to LOG. KILLS times
the process that does so is killed without warning after a random number of batches, and another goes on
after the last whole line.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
from pathlib import Path

from t5smith.objective.batches import Objective, TrainingBatches, prefetched
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.store.token_store import TokenStore
from t5smith.vocabulary.vocabulary import Vocabulary


def batches_of(run):
    split = TokenStore.open(run / "store").train
    objective = Objective.create(
        ObjectiveSettings(name="ul2", window_length=48, cross_documents=False), Vocabulary.load(run / "vocab")
    )
    return TrainingBatches(split, objective, 4, seed=3, weights=[3.0, 2.0, 1.0])


def digest_of(batch):
    digest = hashlib.sha256()
    for name in sorted(batch):
        digest.update(name.encode())
        digest.update(batch[name].tobytes())
    return digest.hexdigest()


def written(log):
    """The complete lines of the log; an incomplete one is removed."""
    text = log.read_text() if log.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    log.write_text(whole)
    return whole.splitlines()


def write_digests(batches, log, start, stop, notify):
    """Write a line for each batch, and notify the parent."""
    with log.open("a") as file:
        for b, batch in enumerate(prefetched(batches, start, stop, ahead=2, workers=0), start):
            file.write(f"{b} {digest_of(batch)}\n")
            file.flush()
            os.write(notify, b".")


def main(run, log, kills, steps):
    batches = batches_of(run)
    random_numbers = random.Random(0)
    for remaining in range(kills, -1, -1):
        start = len(written(log))
        listen, notify = os.pipe()
        child = os.fork()
        if not child:
            write_digests(batches, log, start, steps, notify)
            os._exit(0)
        os.close(notify)
        if remaining:
            for _ in range(random_numbers.randint(0, 2 * (steps - start) // (remaining + 1))):
                os.read(listen, 1)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(listen)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
