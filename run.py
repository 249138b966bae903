"""The entry: one Hydra job = model × strategy × budget over a benchmark's datasets; `--help` tells the rest."""

from __future__ import annotations

import os
import sys

import hydra
from omegaconf import DictConfig

from benchmarks import command_line

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and `command_line.guard` makes one line of them


@hydra.main(config_path="configs", config_name="config", version_base="1.3")
def job(config: DictConfig) -> float:
    """One run; returns its mean score under the official protocol, in [0, 1]."""
    return command_line.run_job(config)


def main() -> None:
    """Runs the command line and exits with its status."""
    sys.exit(command_line.guard(job))


if __name__ == "__main__":
    main()
