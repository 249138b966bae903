"""One writer at a time, across processes and machines, with locks that do not outlive their holder.

Two of filelock's locks make one of ours. The system's file lock (`flock`) ends with the process that holds it, however
that ends; it reaches all processes of one machine, and other machines where the file system passes it on. Where it does
not (some NFS and Lustre mounts, Windows), a lease does: its file is created exclusively and renewed, and a holder that
gives no sign of life for LEASE seconds is dead; one that is known to be dead on this machine is so at once. Clocks of
different machines are never compared: whoever doubts that a holder lives watches the file for a change. filelock takes
over by exchanging two names in one step; where the file system refuses that (NFS, SMB), it would wait for ever, so the
file of a dead holder is removed here, and whoever creates it next waits for a moment to see that it is still his.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from benchmarks.files import read_json, write_json, writing
from lookm.errors import LookmError

BEAT = 10.0
"""Seconds between two signs of life."""
LEASE = 60.0
"""Seconds without a sign of life after which a holder on another machine counts as dead."""
SETTLE = 2.0
"""Seconds in which two machines that take over from one dead holder find out about each other."""
_POLL = 0.5  # seconds between two attempts of one who waits
_NO_SYSTEM_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Lock:
    """A lock; not re-entrant.

    Args:
        path: its name, in a folder that all who compete can write to; its files are `<path>.lock` (the system's lock),
            `<path>.lease`, and `<path>.holder` (who has it, for the messages).
        subject: what is locked, for the messages.
        beat, length, settle: of the lease, in seconds; the same for all who compete.
    """

    def __init__(
        self, path: Path, subject: str, *, beat: float = BEAT, length: float = LEASE, settle: float = SETTLE
    ) -> None:
        self._subject, self._length, self._settle = subject, length, settle
        self._holder_file = path.with_name(f"{path.name}.holder")
        self._folder = path.parent
        self._system = FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
        self._lease = SoftFileLease(
            path.with_name(f"{path.name}.lease"), lease_duration=length, heartbeat_interval=beat, thread_local=False
        )
        self._since = 0.0

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._lease.is_locked

    def acquire(self, *, wait: bool = False) -> None:
        """Takes the lock.

        Args:
            wait: wait until it is free, after saying on stderr for whom; otherwise refuse.

        Raises:
            LookmError: somebody else holds it (who, where, since when), or the lock cannot be written.
        """
        said = False
        while not self._attempt():
            line = f"{self._subject} is being computed by {self._holder()}"
            if not wait:
                raise LookmError(f"{line}; wait for it, or stop it")
            if not said:
                print(f"{line}; waiting for it", file=sys.stderr, flush=True)
                said = True
            time.sleep(_POLL)

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        if self.held and self._lease.compromise is None:
            with suppress(OSError):
                self._holder_file.unlink(missing_ok=True)
        self._lease.release()
        self._system.release()

    def check(self) -> None:
        """Makes sure of the lock; to be called before anything is written.

        Raises:
            LookmError: it is not held, or this process stood still so long that another machine took over.
        """
        if not self.held:
            raise LookmError(f"{self._subject} is not held by this process")
        silent = time.monotonic() - self._since > self._length / 2
        if self._lease.compromise is not None or (silent and not self._lease.is_lock_held_by_us):
            raise LookmError(
                f"{self._subject} was taken over by {self._holder()}, because this process gave no sign of life"
            )
        self._since = time.monotonic()

    def _attempt(self) -> bool:
        """One attempt; where a holder elsewhere left its lease, it is watched until it stirs or is dead."""
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._acquire_system():
                return False
            try:
                taken = _acquire(self._lease) or self._take_over()
                if taken:
                    self._since = time.monotonic()
                    since = datetime.now(UTC).isoformat(timespec="seconds")
                    holder = {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "since": since}
                    write_json(self._holder_file, holder, indent=None)
            finally:
                if not self._lease.is_locked:
                    self._system.release()
        return taken

    def _acquire_system(self) -> bool:
        """Whether nobody has the system's lock, also where there is no such thing."""
        try:
            return _acquire(self._system)
        except NotImplementedError:
            return True
        except OSError as error:
            if error.errno in _NO_SYSTEM_LOCK:
                return True
            raise

    def _take_over(self) -> bool:
        """Watches a lease whose holder is not known to be dead for as long as leases last, and takes it then."""
        path = Path(self._lease.lock_file)
        before = _last_beat(path)
        if self._system.is_locked and self._read_holder().get("boot") == _boot():
            return self._replace(path, before)  # it ran here, and would have the system's lock if it still did
        print(f"{self._subject} was left by {self._holder()}; looking for a sign of life", file=sys.stderr, flush=True)
        until = time.monotonic() + 1.5 * self._length
        while time.monotonic() < until:
            time.sleep(min(1.0, self._length / 10))
            if _acquire(self._lease):
                return True
            if _last_beat(path) not in (before, None):
                return False
        return self._replace(path, before)

    def _replace(self, path: Path, before: tuple[int, int] | None) -> bool:
        """Takes the lease of a dead holder whose file could not be exchanged; of several who try, one keeps it."""
        if _last_beat(path) == before:
            path.unlink(missing_ok=True)
        if not _acquire(self._lease):
            return False
        token = self._lease.token
        time.sleep(self._settle)
        if self._lease.owner is not None and self._lease.owner.token == token:
            return True
        self._lease.release()
        return False

    def _read_holder(self) -> dict[str, Any]:
        holder = read_json(self._holder_file)
        return holder if isinstance(holder, dict) else {}

    def _holder(self) -> str:
        holder = self._read_holder()
        if {"pid", "host", "since"} <= set(holder):
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        return "another process"


def _acquire(lock: BaseFileLock) -> bool:
    """One attempt at one of filelock's locks."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _last_beat(path: Path) -> tuple[int, int] | None:
    """What changes of a lease's file with each sign of life of its holder."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _boot() -> str:
    """What tells one running system from another, also one of the same name; containers of one machine share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
