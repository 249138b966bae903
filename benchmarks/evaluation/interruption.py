"""Ctrl-C and SIGTERM: the first one lets the batch in work end, the second one stops at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from benchmarks.evaluation.ranks import leads

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The program was asked to stop by a signal; `status` is what a shell expects it to exit with (128 + signal)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def stop_now(number: int, frame: FrameType | None) -> None:
    """A signal handler that stops at once.

    Raises:
        Interrupted: always.
    """
    raise Interrupted(number)


class Interruption:
    """While it is open, the first signal is only noted; the second raises `Interrupted`.

    Handlers that somebody else has installed (a cluster's launcher that wants to resubmit the job, say) are left
    alone, and so are all of them outside of the main thread.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._replaced: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal asked to stop."""
        return self._number is not None

    def check(self) -> None:
        """Stops if that was asked for.

        Raises:
            Interrupted: a signal has come.
        """
        if self._number is not None:
            raise Interrupted(self._number)

    def __enter__(self) -> Interruption:
        self._replaced = replace_handlers(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore_handlers(self._replaced)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            stop_now(number, frame)
        self._number = number
        if leads():
            print("\nstopping after this batch; once more stops at once", file=sys.stderr, flush=True)


def replace_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Lets `handler` see SIGINT and SIGTERM where nobody but Python or this module handles them.

    Returns:
        Signal → the handler that was there, for `restore_handlers`.
    """
    replaced: dict[int, Any] = {}
    for number in _SIGNALS:
        handler_before = signal.getsignal(number)
        if handler_before in (signal.SIG_DFL, signal.default_int_handler, stop_now):
            try:
                signal.signal(number, handler)
            except ValueError:  # only the main thread may
                return replaced
            replaced[number] = handler_before
    return replaced


def restore_handlers(replaced: dict[int, Any]) -> None:
    """Undoes `replace_handlers`."""
    for number, handler_before in replaced.items():
        signal.signal(number, handler_before)
