"""Where a run's results are sent besides its folder: Weights & Biases, TensorBoard, or nowhere.

Loggers are told a run's folder and read all they send from it, so that a finished run can be sent later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lookm.errors import LookmError, message_of

if TYPE_CHECKING:
    from benchmarks.evaluation.store import RunFolder

GROUP_VARIABLE = "WANDB_RUN_GROUP"
_LONGEST_GROUP = 120


class Logger:
    """Is told what a run does; this one tells nobody.

    The calls come in this order: `started`, `dataset_done` for each dataset of which something was computed, and
    `finished` or `failed`. Several runs may be told of at once, each by its own logger.

    Attributes:
        name: what warnings call it; also the extra of this package that installs what it imports.
    """

    name: ClassVar[str] = "none"

    def started(self, folder: RunFolder) -> None:
        """A run begins, or goes on, in this folder."""

    def dataset_done(self, folder: RunFolder, dataset: str) -> None:
        """All selected samples of a dataset are in the folder."""

    def finished(self, folder: RunFolder) -> None:
        """The run is complete and its files are written."""

    def failed(self, error: BaseException) -> None:
        """The run ends early with this error."""


class Guarded(Logger):
    """Another logger whose first error is one line of warning, after which it is told nothing more."""

    def __init__(self, logger: Logger) -> None:
        self._logger: Logger | None = logger

    @property
    def broken(self) -> bool:
        """Whether the logger failed."""
        return self._logger is None

    def started(self, folder: RunFolder) -> None:
        self._tell(lambda logger: logger.started(folder))

    def dataset_done(self, folder: RunFolder, dataset: str) -> None:
        self._tell(lambda logger: logger.dataset_done(folder, dataset))

    def finished(self, folder: RunFolder) -> None:
        self._tell(lambda logger: logger.finished(folder))

    def failed(self, error: BaseException) -> None:
        self._tell(lambda logger: logger.failed(error))

    def _tell(self, call: Callable[[Logger], None]) -> None:
        if self._logger is None:
            return
        try:
            call(self._logger)
        except Exception as error:  # whatever a service, a network or a full disk may raise
            name, self._logger = self._logger.name, None
            reason = message_of(error)
            if isinstance(error, ImportError):
                reason += f' (pip install "lookm-harness[{name}]")'
            print(f"warning: logger {name}: {reason}; the run goes on without it", file=sys.stderr, flush=True)


def log_finished_run(folder: RunFolder, logger: Logger) -> None:
    """Sends a run that is in its folder already; a new logger for each run."""
    logger.started(folder)
    for dataset in folder.datasets:
        logger.dataset_done(folder, dataset)
    logger.finished(folder)


def open_logger(config: Mapping[str, Any] | None) -> Logger:
    """The logger that a `configs/logger/*.yaml` describes; nothing is sent or written before `started`.

    Args:
        config: `_target_` and fields; None or empty for no logger.

    Raises:
        LookmError: no such logger, or a field that it does not take or that has a wrong value.
    """
    if not config:
        return Logger()
    from benchmarks.evaluation.settings import construct

    try:
        logger = construct(config)
    except ImportError:
        raise LookmError(f"logger: _target_ {config.get('_target_')!r} cannot be imported") from None
    if not isinstance(logger, Logger):
        raise LookmError(f"logger: _target_ {config.get('_target_')!r} makes no benchmarks.evaluation.loggers.Logger")
    return Guarded(logger)


def name_group(overrides: Sequence[str]) -> None:
    """Gives the runs of one sweep a common group, named as the sweep was asked for.

    The name goes to wandb's own environment variable, which reaches the jobs of every launcher; a group that is
    already set there stays.

    Args:
        overrides: the sweep's command line, such as `["strategy=full,h2o", "alpha1=0.05,0.1"]`.
    """
    os.environ.setdefault(GROUP_VARIABLE, " ".join(overrides)[:_LONGEST_GROUP] or "sweep")
