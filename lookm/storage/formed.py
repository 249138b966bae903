"""Storages that hold keys and values in smaller forms; the last tokens of a prompt stay whole."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.storage.base import Storage
from lookm.storage.forms import Form, FormedRow, Joined, Whole
from lookm.storage.rows import CompressedRow, compact


@dataclass(frozen=True, kw_only=True)
class FormedStorage(Storage):
    """Base of storages of which a subclass gives the forms of the tokens before the last ones.

    New tokens stay whole: an answer is short beside its prompt.

    Attributes:
        residual: how many of the last stored tokens stay whole; null: a quarter of them, at most `longest_residual`,
            so that short prompts get smaller, too.
    """

    longest_residual: ClassVar[int]
    """The authors' number, for prompts of thousands of tokens."""

    residual: int | None = None

    def __post_init__(self) -> None:
        if self.residual is not None:
            self._check_count("residual", self.residual)

    @abstractmethod
    def key_form(self, keys: Tensor, first: int, layer: Layer, heads: slice) -> Form:
        """The form of the first tokens' keys.

        Args:
            keys: of all stored tokens, (H, K, D).
            first: how many of them come before those that stay whole, at least one.
            layer: the prompt in the layer.
            heads: which of the layer's key/value heads they belong to.
        """

    @abstractmethod
    def value_form(self, values: Tensor) -> Form:
        """The form of the first tokens' values (H, n, Dv)."""

    @abstractmethod
    def form_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        """What one head's keys and values of the first tokens, at least one, take in their forms (see `head_bytes`)."""

    def head_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        last = self._whole(tokens)
        formed = self.form_bytes(tokens - last, size, itemsize) if tokens > last else 0
        return formed + 2 * last * size * itemsize

    def _whole(self, tokens: int) -> int:
        """How many of the last tokens stay whole."""
        return min(tokens, min(self.longest_residual, tokens // 4) if self.residual is None else self.residual)

    def store_row(self, row: CompressedRow, layer: Layer) -> FormedRow:
        if row.counts is None:
            return FormedRow([self._forms(row.keys, row.values, layer, slice(0, row.keys.shape[0]))])
        parts = zip(row.keys.split(row.counts), row.values.split(row.counts), strict=True)
        return FormedRow([self._forms(k[None], v[None], layer, slice(h, h + 1)) for h, (k, v) in enumerate(parts)])

    def _forms(self, keys: Tensor, values: Tensor, layer: Layer, heads: slice) -> tuple[Form, Form]:
        n = keys.shape[1]
        first = n - self._whole(n)
        last = Whole(compact(keys[:, first:])), Whole(compact(values[:, first:]))
        if not first:
            return last
        forms = self.key_form(keys, first, layer, heads), self.value_form(values[:, :first])
        return forms if first == n else (Joined(forms[0], last[0]), Joined(forms[1], last[1]))
