"""How long the first and the second start of the same shapes take to compile a step.

    .venv/bin/python benchmarks/second_start.py [SIZE] [PRECISION]

Two processes, one after the other, with an empty folder for compiled programs, as the command line has one.
Tracing, lowering and compiling (or finding the program) are timed together; the last line is a JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

CHILD = """
import sys
from t5smith.benchmarking.training import SIZES
from t5smith.benchmarking.trial import Trial
print(Trial(SIZES[sys.argv[1]], 8, sys.argv[2]).compile_seconds)
"""


def main(size: str, precision: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
        seconds = [
            float(
                subprocess.run(
                    [sys.executable, "-c", CHILD, size, precision],
                    env=environment,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                ).stdout
            )
            for _ in range(2)
        ]
    first, second = (round(value, 2) for value in seconds)
    print(json.dumps({"size": size, "precision": precision, "first_start": first, "second_start": second}))


if __name__ == "__main__":
    main(*(sys.argv[1:] + ["t5-v1.1-small", "bfloat16"][len(sys.argv) - 1 :]))
