"""Elapsed time of work on the CPU or, by device events without a synchronisation, on a GPU."""

import time
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Mark:
    """A moment: on a GPU the event's moment in the device's stream, else the host's clock in seconds."""

    seconds: float
    event: torch.cuda.Event | None

    @classmethod
    def now(cls, device: torch.device) -> "Mark":
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(device))
        return cls(time.perf_counter(), event)

    def milliseconds_until(self, later: "Mark") -> float:
        """Milliseconds from this mark to a later one; on a GPU this waits for the later event."""
        if self.event is None or later.event is None:
            return 1000 * (later.seconds - self.seconds)
        later.event.synchronize()
        return float(self.event.elapsed_time(later.event))


@dataclass
class Stopwatch:
    """Sum of the spans between pairs of marks."""

    spans: list[tuple[Mark, Mark]] = field(default_factory=list)

    def add(self, begin: Mark, end: Mark) -> None:
        """Count the time from begin to end."""
        self.spans.append((begin, end))

    def milliseconds(self) -> float:
        """The sum so far."""
        return sum(begin.milliseconds_until(end) for begin, end in self.spans)
