"""The processes of one node that `torchrun` started: which of them this is, and how they wait for each other.

They share a run's samples and talk through the store that `torchrun` keeps for its processes; no process group is made.
Rank 0 leads: it holds the runs, publishes what is missing, and writes the results when the others have added their
share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from lookm.errors import LookmError, message_of

if TYPE_CHECKING:
    from torch.distributed import Store

    from benchmarks.evaluation.interruption import Interruption
    from benchmarks.evaluation.settings import Settings

_POLL = 0.05  # seconds between two looks at the store; a wait inside it would be deaf to signals
_PATIENCE = 20.0  # seconds that an interrupted leader waits for the others' last batch; torchrun kills after 30

Pending = dict[str, dict[str, list[str]]]
"""Ids of the samples that are to be computed, by run folder and dataset."""


def leads() -> bool:
    """Whether this process is alone, or the one of rank 0 among those that `torchrun` started."""
    return os.environ.get("TORCHELASTIC_RUN_ID") is None or os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Ranks:
    """This process among those of its node.

    Attributes:
        rank: its number; 0 leads, and so does a process that is alone.
        size: how many there are.
        store: where they talk; None where there is nobody to talk to.
    """

    rank: int = 0
    size: int = 1
    store: Store | None = None
    _stages: Iterator[int] = field(default_factory=count)

    def own_device(self, settings: Settings) -> Settings:
        """The settings with this process's own GPU, if they name none.

        Raises:
            LookmError: there are more processes than GPUs.
        """
        if self.size == 1 or settings.device != "cuda":
            return settings
        import torch

        if self.size > torch.cuda.device_count():
            raise LookmError(
                f"torchrun started {self.size} processes, but torch sees {torch.cuda.device_count()} CUDA devices; "
                f"use --nproc-per-node={torch.cuda.device_count()}"
            )
        return replace(settings, device=f"cuda:{self.rank}")

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """One group of runs; all processes come to the same ones, in the same order.

        When the leader leaves it, the others are let go, whatever has happened.
        """
        stage = Stage(self, next(self._stages))
        try:
            yield stage
        finally:
            if self.rank == 0:
                stage.end()


@dataclass
class Stage:
    """One group of runs that the processes share."""

    ranks: Ranks
    number: int
    _published: bool = False

    def publish(self, pending: Pending) -> None:
        """The leader says what is to be computed."""
        self._published = True
        self._write("pending", pending)

    def pending(self) -> Pending:
        """What is to be computed, as soon as the leader says it."""
        return self._wait_for("pending")

    def report(self, error: BaseException | None) -> None:
        """Another process has added its share, or failed to."""
        reason = None if error is None else message_of(error)
        self._write(f"done-{self.ranks.rank}", {"error": reason, "interrupted": isinstance(error, KeyboardInterrupt)})

    def wait_for_others(self, interruption: Interruption) -> None:
        """The leader waits until all others have added their share; after an interruption only for a while.

        Raises:
            LookmError: one of them failed.
        """
        deadline = None
        for rank in range(1, self.ranks.size):
            while (report := self._read(f"done-{rank}")) is None:
                if interruption.requested:
                    deadline = deadline or time.monotonic() + _PATIENCE
                    if time.monotonic() > deadline:
                        return
                time.sleep(_POLL)
            if report["error"] is not None and not report["interrupted"]:
                raise LookmError(f"process {rank} of {self.ranks.size} stopped: {report['error']}")

    def end(self) -> None:
        """The leader lets the others go on."""
        if not self._published:
            self.publish({})
        self._write("end", {})

    def wait_for_end(self) -> None:
        """The others wait until the results are written."""
        self._wait_for("end")

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        if self.ranks.store is not None:
            self.ranks.store.set(f"{self.number}-{name}", json.dumps(value))

    def _read(self, name: str) -> Any:
        store, key = self.ranks.store, f"{self.number}-{name}"
        return json.loads(store.get(key)) if store is not None and store.check([key]) else None

    def _wait_for(self, name: str) -> Any:
        while (value := self._read(name)) is None:
            time.sleep(_POLL)
        return value


@lru_cache(maxsize=1)
def current_ranks() -> Ranks:
    """This process among those that one `torchrun` started.

    Raises:
        LookmError: they are on several nodes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    if size != int(os.environ["LOCAL_WORLD_SIZE"]):
        raise LookmError(
            f"torchrun shares a run among the processes of one node, not among the {size} of several; start the "
            "datasets of other nodes as jobs of their own (datasets=…, hydra/launcher=submitit_slurm)"
        )
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    return Ranks(rank, size, store)
