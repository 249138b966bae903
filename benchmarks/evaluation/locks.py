"""One writer at a time, across processes and machines, with locks that do not outlive their holder.

Two things make a lock. The system's file lock (`flock`) ends with the process that holds it, however that ends; it
reaches all processes of one machine, and other machines where the file system passes it on. Where it does not (some NFS
and Lustre mounts, Windows), a lease does: the holder's file is created exclusively and renewed, and a holder that gives
no sign of life for `leases.LEASE` seconds is dead.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from benchmarks.evaluation.files import writing
from benchmarks.evaluation.leases import BEAT, LEASE, Holder, Lease
from lookm.errors import LookmError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL = 0.5  # seconds between two attempts of one who waits
_NO_SYSTEM_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Lock:
    """A lock; not re-entrant.

    Args:
        path: its name, in a folder that all who compete can write to; `<path>.lock` and `<path>.holder` are its files.
        subject: what is locked, for the messages.
        beat, length: of the lease, in seconds.
    """

    def __init__(self, path: Path, subject: str, *, beat: float = BEAT, length: float = LEASE) -> None:
        self._subject = subject
        self._file = path.with_name(f"{path.name}.lock")
        self._lease = Lease(path.with_name(f"{path.name}.holder"), beat=beat, length=length)
        self._system: int | None = None  # descriptor of the locked file
        self.held = False

    def acquire(self, *, wait: bool = False) -> None:
        """Takes the lock.

        Args:
            wait: wait until it is free, after saying on stderr for whom; otherwise refuse.

        Raises:
            LookmError: somebody else holds it (who, where, since when), or the lock cannot be written.
        """
        told = False
        while True:
            with writing(self._file):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                other = self._attempt()
            if self.held:
                return
            line = f"{self._subject} is being computed by {other or 'another process'}"
            if not wait:
                raise LookmError(f"{line}; wait for it, or stop it")
            if not told:
                print(f"{line}; waiting for it", file=sys.stderr, flush=True)
                told = True
            time.sleep(_POLL)

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        self.held = False
        self._lease.release()
        self._release_system()

    def check(self) -> None:
        """Makes sure of the lock; to be called before anything is written.

        Raises:
            LookmError: it is not held, or this process stood still so long that another machine took over.
        """
        if not self.held:
            raise LookmError(f"{self._subject} is not held by this process")
        if not self._lease.still_held():
            by = self._lease.holder or "another process"
            raise LookmError(f"{self._subject} was taken over by {by}, because this process gave no sign of life")

    def _attempt(self) -> Holder | None:
        """One attempt; returns who holds the lock where it failed, if that can be read."""
        system = self._acquire_system()
        if system is False:
            return self._lease.holder
        other = None
        try:
            if self._lease.free:
                self.held = self._lease.take_free()
            else:
                other = self._lease.holder
                contested = not (system and other is not None and other.on_this_machine)
                if contested:
                    line = f"{self._subject} was left by {other or 'somebody unknown'}; looking for a sign of life"
                    print(line, file=sys.stderr, flush=True)
                    other = self._lease.sign_of_life()
                if other is None or not contested:
                    self.held = self._lease.take_over(contested=contested)
        finally:
            if not self.held:
                self._release_system()
        return None if self.held else other or self._lease.holder

    def _acquire_system(self) -> bool | None:
        """The system's file lock: True if got, False if another process has it, None where there is no such thing."""
        if fcntl is None:
            return None
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError | PermissionError):
                return False
            if error.errno in _NO_SYSTEM_LOCK:
                return None
            raise
        self._system = handle
        return True

    def _release_system(self) -> None:
        if self._system is not None:
            os.close(self._system)
            self._system = None
