"""How far a run is: a bar on a terminal, now and then a line in a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from benchmarks.evaluation.leader import leads

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts finished samples on stderr, with samples per second and the time left.

    On a terminal it is one bar. Elsewhere it writes a line as each dataset ends, and one a minute in between. Of
    several processes that share a run only the leading one tells how far it is.

    Args:
        total: samples to compute.
        label: what is computed.
    """

    def __init__(self, total: int, label: str) -> None:
        self._label, self._total, self._done = label, total, 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit=" samples", dynamic_ncols=True) if _on_terminal() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, samples: int, dataset: str) -> None:
        """Counts finished samples of a dataset."""
        self._done += samples
        if self._bar is not None:
            self._bar.set_postfix_str(dataset, refresh=False)
            self._bar.update(samples)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._line(dataset)

    def finish(self, dataset: str) -> None:
        """Says that a dataset is done."""
        if self._bar is None:
            self._line(f"{dataset} done")

    def _line(self, dataset: str) -> None:
        if not leads():
            return
        self._last_line = time.monotonic()
        rate = self._done / max(self._last_line - self._started, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        line = f"{self._label}: {self._done}/{self._total} samples, {rate:.1f} samples/s, {left} left ({dataset})"
        print(line, file=sys.stderr, flush=True)


def _on_terminal() -> bool:
    return sys.stderr.isatty() and leads()
