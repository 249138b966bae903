"""Forms in which keys or values (H, n, D) of one prompt are held: as they are, or smaller and made again when read."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lookm.storage.rows import States, StoredRow
from lookm.storage.stored import stacked


@dataclass(frozen=True)
class Form(ABC):
    """States (H, n, D) in some form. Its fields are tensors, which are never written into, other forms and numbers."""

    @abstractmethod
    def restored(self) -> Tensor:
        """The states (H, n, D), made anew or as they are held."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that is held, with names."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield field.name, value
            elif isinstance(value, Form):
                yield from ((f"{field.name}.{name}", tensor) for name, tensor in value.tensors())


@dataclass(frozen=True)
class Whole(Form):
    """States as they are."""

    states: Tensor

    def restored(self) -> Tensor:
        return self.states


@dataclass(frozen=True)
class Joined(Form):
    """Two runs of tokens, one behind the other."""

    first: Form
    last: Form

    def restored(self) -> Tensor:
        return torch.cat([self.first.restored(), self.last.restored()], dim=1)


class FormedRow(StoredRow):
    """One prompt's keys and values in some form: all heads together, or each by itself where their sizes differ."""

    def __init__(self, heads: list[tuple[Form, Form]]) -> None:
        """Keys and values of all heads, (Hkv, K, …), or of each head, (1, K of the head, …)."""
        self.heads = heads

    def states(self) -> States:
        rows = [States(keys.restored(), values.restored()) for keys, values in self.heads]
        if len(rows) == 1:
            return rows[0]
        keys, values, valid = stacked(rows)
        return States(keys[:, 0], values[:, 0], valid)

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{head}.{kind}.{name}": tensor
            for head, forms in enumerate(self.heads)
            for kind, form in zip(("keys", "values"), forms, strict=True)
            for name, tensor in form.tensors()
        }
