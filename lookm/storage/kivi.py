"""KIVI (arXiv 2402.02750): keys quantised per channel, values per token.

The paper's keys have outliers in a few channels, so that a group is a run of tokens of one channel; its values have
none, and a group is a run of channels of one token. Differences from the authors' code: the tokens that stay whole are
the same for keys and values; the last group may be shorter (a head size of 80 has groups of 32, 32 and 16 channels);
codes are packed along the channels.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.storage.formed import FormedStorage
from lookm.storage.forms import Form
from lookm.storage.quantised import quantised, quantised_bytes


@dataclass(frozen=True, kw_only=True)
class Kivi(FormedStorage):
    """Asymmetric min–max quantisation in groups: keys per channel, values per token; the last tokens stay whole.

    Attributes:
        bits: of a number: 1, 2, 4 or 8. Each group has a scale and a zero point besides, in the cache's own precision.
        group: tokens (keys) or channels (values) in a group.
    """

    longest_residual: ClassVar[int] = 128

    bits: int = 2
    group: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("bits", (1, 2, 4, 8))
        self._check_positive("group", self.group)

    def key_form(self, keys: Tensor, first: int, layer: Layer, heads: slice) -> Form:
        return quantised(keys[:, :first], self.bits, self.group, "tokens")

    def value_form(self, values: Tensor) -> Form:
        return quantised(values, self.bits, self.group, "channels")

    def form_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        keys = quantised_bytes(tokens, size, self.bits, self.group, "tokens", itemsize)
        return keys + quantised_bytes(tokens, size, self.bits, self.group, "channels", itemsize)
