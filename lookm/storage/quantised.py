"""States in few bits: asymmetric min–max quantisation in groups of tokens or channels, packed into bytes, and float8.

x ≈ z + s · q with z the smallest number of a group, s = (largest − z) / (2ᵇ − 1) and q = round((x − z) / s) in b bits:
KIVI, arXiv 2402.02750, Section 2.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lookm.storage.forms import Form

Axis = Literal["tokens", "channels"]
DIM = {"tokens": 1, "channels": 2}


@dataclass(frozen=True)
class Quantised(Form):
    """States (H, n, D) in b bits each.

    Attributes:
        codes: q, packed along the channels, (H, n, ⌈D · b / 8⌉) uint8.
        scale: s of each group, in the states' own precision: (H, ⌈n / group⌉, D), or (H, n, ⌈D / group⌉) for groups
            of channels. The last group of a row may be shorter than the others.
        zero: z, likewise.
        bits: b, a divisor of 8.
        group: numbers in a group.
        axis: what the numbers of a group have in common is all but this.
        size: D.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    group: int
    axis: Axis
    size: int

    def restored(self) -> Tensor:
        q = unpacked(self.codes, self.bits, self.size)
        dim = DIM[self.axis]
        s, z = (
            states.repeat_interleave(self.group, dim).narrow(dim, 0, q.shape[dim]).to(working(states.dtype))
            for states in (self.scale, self.zero)
        )
        return torch.addcmul(z, s, q).to(self.scale.dtype)


def quantised(states: Tensor, bits: int, group: int, axis: Axis) -> Quantised:
    """Quantise states (H, n, D), any floating dtype, in groups of so many tokens or channels."""
    dim, n = DIM[axis], states.shape[DIM[axis]]
    whole_groups = torch.arange(-(-n // group) * group, device=states.device).clamp_max(max(0, n - 1))
    x = states.to(working(states.dtype)).index_select(dim, whole_groups)  # the last number again: same min, same max
    x = x.unflatten(dim, (whole_groups.numel() // group, group))
    z = x.amin(dim + 1)
    s = (x.amax(dim + 1) - z) / (2**bits - 1)
    z, s = z.to(states.dtype), s.to(states.dtype)  # codes belong to what is held
    held_z, held_s = (part.to(x.dtype).unsqueeze(dim + 1) for part in (z, s))
    q = torch.where(held_s > 0, (x - held_z) / held_s, 0).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
    q = q.flatten(dim, dim + 1).narrow(dim, 0, n)
    return Quantised(packed(q, bits), s, z, bits, group, axis, states.shape[2])


def quantised_bytes(n: int, size: int, bits: int, group: int, axis: Axis, itemsize: int) -> int:
    """What one head's states (n, size) take quantised: codes, and of each group a scale and a zero point."""
    groups = -(-n // group) * size if axis == "tokens" else n * -(-size // group)
    return n * -(-size * bits // 8) + 2 * groups * itemsize


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (…, n) uint8 below 2ᵇ → (…, ⌈n · b / 8⌉) uint8, the first code in the lowest bits."""
    each = 8 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each))
    return (codes.unflatten(-1, (codes.shape[-1] // each, each)) << _shifts(bits, codes)).sum(-1, dtype=torch.uint8)


def unpacked(codes: Tensor, bits: int, n: int) -> Tensor:
    """The n codes (…, n) uint8 of what `packed` made."""
    return ((codes.unsqueeze(-1) >> _shifts(bits, codes)) & (2**bits - 1)).flatten(-2)[..., :n]


def _shifts(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)


def working(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed with in float32."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Float8(Form):
    """States (H, n, D) as 8-bit floating point numbers (4 bits of exponent, 3 of mantissa), times a scale.

    Attributes:
        numbers: (H, n, D) float8_e4m3fn.
        scale: of each head and channel, so that its largest number is float8's largest: (H, 1, D), in the states' own
            precision.
    """

    numbers: Tensor
    scale: Tensor

    def restored(self) -> Tensor:
        numbers = self.numbers.to(working(self.scale.dtype))
        return (numbers * self.scale.to(numbers.dtype)).to(self.scale.dtype)


def float8(states: Tensor) -> Float8:
    """States (H, n, D), any floating dtype, in float8."""
    kind = torch.float8_e4m3fn
    largest = torch.finfo(kind).max
    x = states.to(working(states.dtype))
    scale = (x.abs().amax(1, keepdim=True) / largest).clamp_min(torch.finfo(states.dtype).tiny).to(states.dtype)
    return Float8((x / scale.to(x.dtype)).clamp(-largest, largest).to(kind), scale)
