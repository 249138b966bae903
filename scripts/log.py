"""Sends finished runs to a logger: `python -m scripts.log RUN_FOLDER… --logger wandb`. Nothing is computed.

Exit status: 0 all sent, 1 a logger failed, 2 wrong input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.guard import guarded
from lookm.errors import LookmError, message_of
from lookm.locations import CONFIGS
from lookm.registry import names_of

LOGGERS = tuple(name for name in names_of("logger") if name != "none")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return send(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookm log",
        description="Send finished runs to a logger, as `logger=…` does while they are computed.",
        epilog="Exit status: 0 all sent, 1 a logger failed, 2 wrong input.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder, or a folder that holds runs")
    parser.add_argument("--logger", choices=LOGGERS, default="wandb", help="where to (wandb)")
    parser.add_argument("--group", help="one group for all of them, as a sweep's runs have (wandb)")
    parser.add_argument(
        *("--set", "-s"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a field of the logger, such as mode=online or samples=0",
    )
    return parser


def send(options: argparse.Namespace) -> int:
    """Sends the runs; returns the exit status.

    Raises:
        LookmError: no run, one of another format, or a wrong field.
    """
    from benchmarks.evaluation.loggers import GROUP_VARIABLE, Guarded, log_finished_run, open_logger
    from benchmarks.evaluation.store import find_runs

    config = _logger_config(options.logger, options.set)
    runs = find_runs(options.runs)
    if options.group:
        os.environ[GROUP_VARIABLE] = options.group
    failed = 0
    for run in runs:
        logger = open_logger(config)
        log_finished_run(run, logger)
        failed += isinstance(logger, Guarded) and logger.broken
    print(f"{len(runs) - failed} of {len(runs)} runs sent to {options.logger}")
    return 1 if failed else 0


def _logger_config(name: str, fields: Sequence[str]) -> dict[str, Any]:
    """The logger's YAML with the given fields."""
    wrong = next((field for field in fields if "=" not in field), None)
    if wrong is not None:
        raise LookmError(f"--set {wrong!r} is not KEY=VALUE")
    try:
        merged = OmegaConf.merge(OmegaConf.load(CONFIGS / "logger" / f"{name}.yaml"), OmegaConf.from_dotlist([*fields]))
        config = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise LookmError(f"--set: {message_of(error)}") from None
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


if __name__ == "__main__":
    sys.exit(main())
