"""8-bit floating point: half the bytes of bfloat16 for one rounding more.

transformers' own `Fp8QuantizedLayer` (5.23) has one scale for the keys of a whole batch and one for its values, taken
from the prompt; here each head and channel has its own, and new tokens stay whole.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.storage.formed import FormedStorage
from lookm.storage.forms import Form
from lookm.storage.quantised import float8


@dataclass(frozen=True, kw_only=True)
class Fp8(FormedStorage):
    """Keys and values in float8_e4m3fn, each channel of a head scaled to its range."""

    longest_residual: ClassVar[int] = 0

    def key_form(self, keys: Tensor, first: int, layer: Layer, heads: slice) -> Form:
        return float8(keys[:, :first])

    def value_form(self, values: Tensor) -> Form:
        return float8(values)

    def form_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        return 2 * size * (tokens + itemsize)  # a byte a number, a scale a channel
