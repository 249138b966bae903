"""In which form a compressed prompt stays in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lookm.fields import Named
from lookm.layer import Layer
from lookm.storage.rows import CompressedRow, RaggedRow, States, StoredRow, compact
from lookm.storage.stored import PlainStored, Stored, StoredRows, stacked


@dataclass(frozen=True, kw_only=True)
class Storage(Named, ABC):
    """Base of all storages; a subclass says how one prompt of one layer is stored (`store_row`)."""

    kind: ClassVar[str] = "storage"

    @abstractmethod
    def store_row(self, row: CompressedRow, layer: Layer) -> StoredRow:
        """Store what a strategy left of one prompt.

        Args:
            row: its keys and values, which may be views of the full cache: none of that memory may be held on to.
            layer: the prompt in the layer, just after its attention.
        """

    @abstractmethod
    def head_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        """What one head's keys and values (tokens, size) take, by definition; runs are checked against it.

        Args:
            tokens: that the head holds.
            size: of the head, D = Dv.
            itemsize: bytes of a number of the cache's own precision.
        """

    def store(self, rows: Sequence[CompressedRow], layers: Sequence[Layer]) -> Stored:
        """Store what a strategy left of a batch of prompts in one layer."""
        return StoredRows([self.store_row(row, layer) for row, layer in zip(rows, layers, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Plain(Storage):
    """Keys and values as they are; heads that keep different numbers of tokens lie behind each other, without gaps."""

    name: str = "plain"

    def store_row(self, row: CompressedRow, layer: Layer) -> StoredRow:
        return RaggedRow(row)

    def head_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        return 2 * tokens * size * itemsize

    def store(self, rows: Sequence[CompressedRow], layers: Sequence[Layer]) -> Stored:
        if any(row.counts is not None for row in rows):
            return super().store(rows, layers)
        states = stacked([States(compact(row.keys), compact(row.values)) for row in rows])
        return PlainStored(states, tuple(row.keys.nbytes + row.values.nbytes for row in rows))


PLAIN = Plain()
