"""One run, or a sweep with -m: what `python run.py` and `lookm run` start; `--help` tells the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from benchmarks import command_line
from benchmarks.guard import guarded
from lookm.locations import CONFIGS

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and `command_line.guard` makes one line of them


@hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
def job(config: DictConfig) -> float:
    """One run; returns its mean score under the official protocol, in [0, 1]."""
    return command_line.run_job(config)


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, by default the program's own; returns the exit status."""
    if argv is not None:
        sys.argv[1:] = argv  # where Hydra reads them
    try:
        return command_line.guard(job)
    except SystemExit as end:  # Hydra's, and the sweep's for wrong input
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise


if __name__ == "__main__":
    sys.exit(main())
