"""`python -m t5smith` is the command `t5smith`."""

import sys

from t5smith.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
