"""The entry: one Hydra job = model × strategy × budget over a benchmark's datasets; `--help` tells the rest."""

import sys

from scripts.run import job, main

__all__ = ["job", "main"]

if __name__ == "__main__":
    sys.exit(main())
