"""One prompt's compressed cache in one layer: as a strategy leaves it, and as it is stored."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class States(NamedTuple):
    """What attention reads, for one row or with a batch dimension in front of all.

    Attributes:
        keys: (…, Hkv, K, D).
        values: (…, Hkv, K, Dv).
        valid: which slots hold a token, bool: (…, K), or (…, Hkv, K) where heads hold different numbers; None: all.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None


@dataclass(frozen=True)
class CompressedRow:
    """What a strategy left of one prompt in one layer.

    Rows that come from one call may share memory with each other and with the full cache: do not write into them.

    Attributes:
        keys: (Hkv, K, D); where heads keep different numbers, one head behind the other, (Σ counts, D).
        values: (Hkv, K, Dv), or (Σ counts, Dv).
        positions: (Hkv, K) int64, ascending in each head, or (Σ counts,).
        counts: tokens of each head where they differ, else None.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    counts: tuple[int, ...] | None = None

    def head_positions(self) -> tuple[Tensor, ...]:
        """The kept positions of each head, (K_h,) int64 ascending, on the CPU."""
        positions = self.positions.cpu()
        return positions.unbind() if self.counts is None else positions.split(self.counts)

    @property
    def tokens(self) -> float:
        """Tokens of a head; their mean where heads keep different numbers."""
        if self.counts is None:
            return self.positions.shape[1]
        mean = sum(self.counts) / len(self.counts)
        return int(mean) if mean.is_integer() else mean


class StoredRow(ABC):
    """One prompt's cache in one layer in the form that stays in memory; never written into: rows may share it."""

    @abstractmethod
    def states(self) -> States:
        """Keys (Hkv, K, D), values (Hkv, K, Dv) and valid (Hkv, K) or None, made for one attention call."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that the row is stored in, by name: packed numbers, scales, indices, ….

        None of them may be a view of more than it needs.
        """

    def allocated_bytes(self) -> int:
        """Bytes of the memory that the tensors lie in."""
        return allocated_bytes(self.tensors().values())


class RaggedRow(StoredRow):
    """Heads that keep different numbers of tokens, one behind the other in one tensor; padded only while it is read.

    Heads that keep equally many lie as they are.
    """

    def __init__(self, row: CompressedRow) -> None:
        self.keys, self.values = compact(row.keys), compact(row.values)
        self.counts: Tensor | None = None
        if row.counts is not None:
            self.counts = torch.tensor(row.counts, device=row.keys.device)  # (Hkv,) int64
            self._longest = max(row.counts)

    def states(self) -> States:
        if self.counts is None:
            return States(self.keys, self.values)
        slots = torch.arange(self._longest, device=self.keys.device) - (self._longest - self.counts)[:, None]
        valid = slots >= 0  # [Hkv, K]
        first = self.counts.cumsum(0) - self.counts
        index = (first[:, None] + slots).clamp(0, max(0, len(self.keys) - 1)).flatten()  # padding is some token
        keys, values = (x.index_select(0, index).unflatten(0, slots.shape) for x in (self.keys, self.values))
        return States(keys, values, valid)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"keys": self.keys, "values": self.values, "counts": self.counts}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def allocated_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the memory that tensors lie in, each piece of memory counted once and in full."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def compact(states: Tensor) -> Tensor:
    """The tensor, copied if it is a view that would keep more memory alive than it needs."""
    return states.clone() if states.untyped_storage().nbytes() > states.nbytes else states
