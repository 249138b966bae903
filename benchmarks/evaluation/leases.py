"""Who holds something, in a file that is renewed: for machines that no common system lock reaches."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.evaluation.files import read_json, write_text

BEAT = 10.0
"""Seconds between two signs of life."""
LEASE = 60.0
"""Seconds without a sign of life after which a holder on another machine counts as dead."""


@dataclass(frozen=True)
class Holder:
    """Who holds it: machine, its present boot, process, since when; `beat` counts the signs of life."""

    host: str
    boot: str
    pid: int
    since: str
    token: str
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it runs, or ran, under the system that is running here."""
        return self.boot == boot()

    @classmethod
    def here(cls) -> Holder:
        """This process, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), boot(), os.getpid(), since, secrets.token_hex(8))


class Lease:
    """A holder's file and the thread that renews it.

    Clocks of different machines are never compared: whoever doubts that a holder lives watches the file for a change.

    Args:
        path: the holder's file.
        beat, length: see `BEAT` and `LEASE`.
        settle: seconds in which two machines that take over from one dead holder find out about each other.
    """

    def __init__(self, path: Path, *, beat: float = BEAT, length: float = LEASE, settle: float = 2.0) -> None:
        self._path, self._beat, self._length, self._settle = path, beat, length, settle
        self._own: Holder | None = None
        self._renewed = 0.0
        self._stop = threading.Event()
        self._guard = threading.Lock()

    @property
    def holder(self) -> Holder | None:
        """Who holds it by the file; None where there is no readable file."""
        try:
            return Holder(**read_json(self._path))
        except TypeError:
            return None

    @property
    def free(self) -> bool:
        """Whether there is no holder's file at all."""
        return not self._path.exists()

    def take_free(self) -> bool:
        """Takes a lease that nobody has; False where somebody was faster.

        Raises:
            OSError: the folder cannot be written to.
        """
        own = Holder.here()
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(_text(own))
        self._keep(own)
        return True

    def take_over(self, *, contested: bool) -> bool:
        """Takes the lease of a dead holder.

        Args:
            contested: other machines may be doing the same; whoever wrote last has it.

        Returns:
            False where another machine has it.

        Raises:
            OSError: the folder cannot be written to.
        """
        own = Holder.here()
        write_text(self._path, _text(own))
        if contested:
            time.sleep(self._settle)
            found = self.holder
            if found is None or found.token != own.token:
                return False
        self._keep(own)
        return True

    def sign_of_life(self) -> Holder | None:
        """Watches for the length of a lease; returns the holder if it gives a sign of life, None if it is dead."""
        before = self.holder
        until = time.monotonic() + self._length
        while time.monotonic() < until:
            time.sleep(min(1.0, self._length / 10))
            now = self.holder
            if now is not None and (before is None or (now.token, now.beat) != (before.token, before.beat)):
                return now
            if self.free:
                return None
        return None

    def still_held(self) -> bool:
        """Whether nobody took over; reads the file only if the last sign of life is long ago."""
        if self._own is None:
            return False
        return time.monotonic() - self._renewed < self._length / 2 or self._renew()

    def release(self) -> None:
        """Gives the lease back, if it is still ours."""
        self._stop.set()
        with self._guard, suppress(OSError):
            if self._is_ours():
                self._path.unlink(missing_ok=True)
        self._own = None

    def _keep(self, own: Holder) -> None:
        self._own, self._renewed, self._stop = own, time.monotonic(), threading.Event()
        threading.Thread(target=self._renew_often, args=(self._stop,), name="lease", daemon=True).start()

    def _renew_often(self, stop: threading.Event) -> None:
        while not stop.wait(self._beat):
            with suppress(OSError):
                if not self._renew():
                    return

    def _renew(self) -> bool:
        """Gives a sign of life; False where somebody else took over."""
        with self._guard:
            if self._own is None or not self._is_ours():
                return False
            own = replace(self._own, beat=self._own.beat + 1)
            write_text(self._path, _text(own))
            self._own, self._renewed = own, time.monotonic()
            return True

    def _is_ours(self) -> bool:
        found = self.holder
        return found is not None and self._own is not None and found.token == self._own.token


def boot() -> str:
    """What tells one running system from another, also one of the same name; containers of one machine share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder)) + "\n"
