"""Memory of a process that is resident, now and over time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType


def resident_bytes(field: str = "VmRSS") -> int:
    """Memory of this process from Linux: now (`VmRSS`) or at its peak since it started (`VmHWM`); 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


class Residence:
    """Samples the resident memory of this process while it is open.

    Args:
        every: seconds between two samples.

    Attributes:
        samples: (seconds since it was opened, bytes).
    """

    def __init__(self, every: float = 1.0) -> None:
        self.samples: list[tuple[float, int]] = []
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="residence", daemon=True)

    def __enter__(self) -> Residence:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def growth(self) -> float:
        """Bytes per second by which memory grew: least squares over the second half, when all is warm."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return 0.0
        mean_time = sum(second for second, _ in half) / len(half)
        mean_size = sum(size for _, size in half) / len(half)
        spread = sum((second - mean_time) ** 2 for second, _ in half)
        return sum((second - mean_time) * (size - mean_size) for second, size in half) / spread if spread else 0.0

    def _watch(self) -> None:
        while True:
            self.samples.append((time.monotonic() - self._began, resident_bytes()))
            if self._stop.wait(self._every):
                return
