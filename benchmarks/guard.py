"""How every command line ends: one line for wrong input, and no word when nobody reads any more."""

from __future__ import annotations

import errno
import os
import select
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TextIO

from lookm.errors import LookmError


class Status(IntEnum):
    """Exit statuses; those from 128 on are a shell's for signals."""

    DONE = 0
    CRASHED = 1
    WRONG_INPUT = 2
    SAMPLES_FAILED = 3
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


_Arguments = ParamSpec("_Arguments")
_NAME = 60  # characters of a name in a message


def guarded(main: Callable[_Arguments, int | None]) -> Callable[_Arguments, int]:
    """Makes a command's `main` return its exit status whatever happens; unexpected errors are not caught.

    Wrong input (`LookmError`, or a name longer than the file system takes) is one line on stderr, as is Ctrl-C. Where
    the reader of stdout or stderr has gone, as in `… | head`, the command ends quietly.
    """

    @wraps(main)
    def guarded_main(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> int:
        try:
            return _flushed(main, *arguments, **named) or Status.DONE
        except BrokenPipeError:
            return quiet_end()

    return guarded_main


def _flushed(
    main: Callable[_Arguments, int | None], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> int | None:
    """Calls a command; what it printed has left this process when it ends."""
    try:
        return main(*arguments, **named)
    except LookmError as error:
        print(f"error: {error}", file=sys.stderr)
        return Status.WRONG_INPUT
    except OSError as error:
        if not is_name_too_long(error):
            raise
        print(f"error: {shortened(error)}", file=sys.stderr)
        return Status.WRONG_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return Status.INTERRUPTED
    finally:
        sys.stdout.flush()


def positive(text: str) -> int:
    """A whole number of at least 1, as an argument's type."""
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def is_name_too_long(error: BaseException) -> bool:
    """Whether the file system refused a name because of its length."""
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def shortened(error: OSError) -> str:
    """What the file system refused, with the beginning of the name."""
    return f"{str(error.filename)[:_NAME]}…: {error.strerror}"


def quiet_end() -> Status:
    """Called while a `BrokenPipeError` is handled: points streams without a reader to nowhere, and gives the status.

    Raises:
        BrokenPipeError: the one that is handled, if it came from another pipe than stdout or stderr.
    """
    closed = [stream.fileno() for stream in (sys.stdout, sys.stderr) if _reader_is_gone(stream)]
    if not closed:
        raise
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in closed:
        os.dup2(nowhere, number)  # Python flushes it once more at its end
    os.close(nowhere)
    return Status.READER_GONE


def _reader_is_gone(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
