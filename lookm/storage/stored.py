"""What a compressed layer holds of a prompt batch: the stored prompt and, behind it, the new tokens as they are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lookm.errors import LookmError
from lookm.storage.rows import States, StoredRow, allocated_bytes

NEW_TOKENS = 64
"""Slots that are made at once for tokens to come, so that the cache is not copied for each of them."""


class Dense:
    """Tokens as they are, in slots with room for more; appending fills slots in."""

    def __init__(self, states: States) -> None:
        """Begin with these tokens of a batch; their memory is never written into."""
        self._slots, self.length = states, states.keys.shape[-2]

    def states(self) -> States:
        """The tokens, as views."""
        keys, values, valid = self._slots
        n = self.length
        return States(keys[:, :, :n], values[:, :, :n], None if valid is None else valid[..., :n])

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add tokens (B, Hkv, n, D) and (B, Hkv, n, Dv) to every row."""
        end = self.length + keys.shape[-2]
        if torch.is_grad_enabled() and (keys.requires_grad or self._slots.keys.requires_grad):
            old_keys, old_values, valid = self.states()  # what a backward pass will read must not be written into
            valid = None if valid is None else F.pad(valid, (0, keys.shape[-2]), value=True)
            self._slots = States(torch.cat([old_keys, keys], -2), torch.cat([old_values, values], -2), valid)
        else:
            if self._slots.keys.shape[-2] < end:
                self._make_room(end + NEW_TOKENS - self.length)
            self._slots.keys[:, :, self.length : end] = keys
            self._slots.values[:, :, self.length : end] = values
        self.length = end

    def _make_room(self, more: int) -> None:
        keys, values, valid = self.states()
        valid = None if valid is None else F.pad(valid, (0, more), value=True)
        self._slots = States(F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more)), valid)

    def crop(self, n: int) -> None:
        """Take the last n tokens away; they were appended, so their slots may be written again."""
        self.length -= n

    def select(self, rows: Tensor) -> None:
        """Take the rows (n,) int64 in their order, each as often as it is named."""
        keys, values, valid = self.states()
        valid = None if valid is None else valid.index_select(0, rows)
        self._slots = States(keys.index_select(0, rows), values.index_select(0, rows), valid)

    def tensors(self) -> list[Tensor]:
        """All that is allocated."""
        return [x for x in self._slots if x is not None]


class Stored(ABC):
    """A layer's prompt batch as a storage keeps it, and the new tokens behind it.

    Attributes:
        prompt_bytes: what the prompt of each row takes in memory, as it was stored; padding beside longer rows and
            room for new tokens are not in it.
    """

    prompt_bytes: tuple[int, ...]

    @abstractmethod
    def states(self) -> States:
        """Prompt and new tokens (B, Hkv, K, …) for one attention call: made for it, or views that cost nothing."""

    @abstractmethod
    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add new tokens (B, Hkv, n, D) and (B, Hkv, n, Dv) to every row."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Take the rows (n,) int64 in their order, each as often as it is named (beams, repeats, ended rows)."""

    def crop(self, n: int) -> None:
        """Take the last n new tokens away, where the storage keeps new tokens as they are."""
        raise LookmError(f"{type(self).__name__} does not keep new tokens as they are: drafts cannot be taken back")

    @property
    @abstractmethod
    def batch(self) -> int:
        """Rows B."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Slots K of the longest row and head, new tokens included."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All that is allocated, room for new tokens included."""

    def allocated_bytes(self) -> int:
        """Bytes of the memory that all of it lies in."""
        return allocated_bytes(self.tensors())


class PlainStored(Stored):
    """Prompt and new tokens in one tensor, so that nothing is joined while decoding."""

    def __init__(self, states: States, prompt_bytes: tuple[int, ...]) -> None:
        self._dense, self.prompt_bytes = Dense(states), prompt_bytes

    def states(self) -> States:
        return self._dense.states()

    def append(self, keys: Tensor, values: Tensor) -> None:
        self._dense.append(keys, values)

    def select(self, rows: Tensor) -> None:
        self._dense.select(rows)

    def crop(self, n: int) -> None:
        self._dense.crop(n)

    @property
    def batch(self) -> int:
        return self._dense.states().keys.shape[0]

    @property
    def length(self) -> int:
        return self._dense.length

    def tensors(self) -> list[Tensor]:
        return self._dense.tensors()


class StoredRows(Stored):
    """Every prompt stored by itself and unpacked for each attention call, the new tokens dense behind it."""

    def __init__(self, rows: Sequence[StoredRow]) -> None:
        self.rows = list(rows)
        self.prompt_bytes = tuple(row.allocated_bytes() for row in rows)
        self._new: Dense | None = None
        self._lengths = [row.states().keys.shape[-2] for row in rows]

    def states(self) -> States:
        prompt = stacked([row.states() for row in self.rows])
        if self._new is None:
            return prompt
        new_keys, new_values, _ = self._new.states()
        valid = None if prompt.valid is None else F.pad(prompt.valid, (0, self._new.length), value=True)
        return States(torch.cat([prompt.keys, new_keys], -2), torch.cat([prompt.values, new_values], -2), valid)

    def append(self, keys: Tensor, values: Tensor) -> None:
        if self._new is None:
            self._new = Dense(States(keys[:, :, :0], values[:, :, :0]))
        self._new.append(keys, values)

    def select(self, rows: Tensor) -> None:
        self.rows, self._lengths = [self.rows[i] for i in rows.tolist()], [self._lengths[i] for i in rows.tolist()]
        if self._new is not None:
            self._new.select(rows)

    def crop(self, n: int) -> None:
        assert self._new is not None
        self._new.crop(n)

    @property
    def batch(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int:
        return max(self._lengths) + (0 if self._new is None else self._new.length)

    def tensors(self) -> list[Tensor]:
        new = [] if self._new is None else self._new.tensors()
        return [x for row in self.rows for x in row.tensors().values()] + new


def stacked(rows: Sequence[States]) -> States:
    """Rows (Hkv, K, …) of different sizes as one batch, padded on the left; a single row is a view."""
    if len(rows) == 1:
        return States(*(None if x is None else x[None] for x in rows[0]))  # type: ignore[arg-type]
    sizes = [row.keys.shape[1] for row in rows]
    longest = max(sizes)
    keys = torch.stack([F.pad(row.keys, (0, 0, longest - n, 0)) for row, n in zip(rows, sizes, strict=True)])
    values = torch.stack([F.pad(row.values, (0, 0, longest - n, 0)) for row, n in zip(rows, sizes, strict=True)])
    if any(row.valid is not None for row in rows):
        masks = [row.valid if row.valid is not None else keys.new_ones(row.keys.shape[:2]).bool() for row in rows]
        return States(keys, values, torch.stack([F.pad(x, (longest - x.shape[1], 0)) for x in masks]))
    if min(sizes) == longest:
        return States(keys, values)
    slots = torch.arange(longest, device=keys.device)
    return States(keys, values, slots >= longest - torch.tensor(sizes, device=keys.device)[:, None])
