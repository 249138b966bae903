"""Crashes on purpose: work in a child process that is killed (SIGKILL), at some time or at some step on the disk.

The child is forked, so that a model that is loaded already need not be loaded again. Nothing of the child can run after
the signal: no handler, no `finally`, no flush.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import files

Work = Callable[[], object]

_STEPS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
"""Audit events of Python that change, or begin to change, a folder tree."""


def killed_after(work: Work, seconds: float) -> bool:
    """Does the work in a child process and kills it after some time.

    Returns:
        Whether it was killed; False if it was done before.

    Raises:
        RuntimeError: the work failed by itself.
    """
    child = _fork(work)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _was_killed(status)
        time.sleep(min(0.001, max(0.0, deadline - time.monotonic())))
    os.kill(child, signal.SIGKILL)
    return _was_killed(os.waitpid(child, 0)[1])


def killed_at(work: Work, folder: Path, step: int, *, torn: int | None = None) -> bool:
    """Does the work in a child process that is killed just before its n-th step in a folder.

    Args:
        work: what to do.
        folder: steps in this tree count: opening, renaming and removing files, making and removing folders.
        step: number of the step, from 0.
        torn: instead count what is appended to files, and be killed after so many bytes of the n-th text are written.

    Returns:
        Whether it was killed; False if the work has no such step.

    Raises:
        RuntimeError: the work failed by itself.
    """

    def watched() -> None:
        if torn is None:
            _die_before(folder.absolute(), step)
        else:
            _die_within(step, torn)
        work()

    return _was_killed(os.waitpid(_fork(watched), 0)[1])


def _fork(work: Work) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _was_killed(status: int) -> bool:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the work failed by itself with status {os.waitstatus_to_exitcode(status)}")
    return False


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_before(folder: Path, step: int) -> None:
    left = step

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _STEPS or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not _opens_to_write(arguments):
            return
        if not Path(arguments[0]).absolute().is_relative_to(folder):
            return
        if left == 0:
            _die()
        left -= 1

    sys.addaudithook(hook)


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    """Of the event's path, mode and flags; `os.open` gives no mode."""
    return len(arguments) > 2 and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _die_within(step: int, torn: int) -> None:
    left = step

    def append_some(path: Path, text: str) -> None:
        nonlocal left
        if left == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as stream:
                stream.write(text.encode()[:torn])
            _die()
        left -= 1
        append_text(path, text)

    from benchmarks.evaluation import store

    append_text = files.append_text
    store.append_text = append_some
