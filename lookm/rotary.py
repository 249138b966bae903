"""The rotary embedding of one prompt: what queries were before it, and what they will be further on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lookm.errors import LookmError

STANDARD_BASE = 10000.0


@dataclass(frozen=True)
class Rotation:
    """x' = x · cos + half(x) · sin, where half(x₁, x₂) = (−x₂, x₁) of the two halves of the first R channels.

    Attributes:
        cos: of the prompt's positions, (L, R) float32; channels beyond R are not rotated.
        sin: likewise.
        ahead: cos and sin, each (n, R) float32, of the n positions after the prompt.
    """

    cos: Tensor
    sin: Tensor
    ahead: Callable[[int], tuple[Tensor, Tensor]]

    @classmethod
    def standard(cls, length: int, size: int, device: torch.device) -> "Rotation":
        """Positions 0 … L − 1 and base 10,000 on all D channels: of a layer that belongs to no model."""
        frequencies = STANDARD_BASE ** (-torch.arange(0, size, 2, device=device) / size)  # [D / 2]

        def at(start: int, stop: int) -> tuple[Tensor, Tensor]:
            angles = torch.arange(start, stop, device=device)[:, None] * frequencies
            angles = torch.cat([angles, angles], dim=-1)
            return angles.cos(), angles.sin()

        return cls(*at(0, length), lambda n: at(length, length + n))

    def before(self, states: Tensor) -> Tensor:
        """States (H, L, D) as they were before the rotary embedding, float32."""
        return rotated(states.float(), self.cos, -self.sin) / self._scales(states)

    def moved(self, states: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """States (H, n, D) of the positions source (n,) as they would be at the positions target (n,)."""
        there, here = (self.cos[target], self.sin[target]), (self.cos[source], self.sin[source])
        scale = here[0].square() + here[1].square()
        cos = (there[0] * here[0] + there[1] * here[1]) / scale  # of the difference of the angles
        sin = (there[1] * here[0] - there[0] * here[1]) / scale
        return rotated(states.float(), cos, sin)

    def _scales(self, states: Tensor) -> Tensor:
        """cos² + sin², which some models scale, and 1 for the channels that are not rotated: (L, D)."""
        scales = torch.ones(states.shape[1:], device=states.device)
        scales[:, : self.cos.shape[-1]] = self.cos.square() + self.sin.square()
        return scales


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """States (…, n, D) rotated by cos and sin (n, R), R ≤ D."""
    turned, rest = states[..., : cos.shape[-1]], states[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)


@dataclass(frozen=True)
class RotaryCall:
    """One call of a decoder's rotary embedding for a prompt batch.

    Attributes:
        module: the rotary embedding.
        cos: (B or 1, L, R), as it returned it.
        sin: likewise.
        call: the rotary embedding for other positions, (…, B or 1, n) int64, with the other arguments as they were.
        position_ids: (…, B or 1, L) int64.
    """

    module: nn.Module
    cos: Tensor
    sin: Tensor
    call: Callable[[Tensor], tuple[Tensor, Tensor]]
    position_ids: Tensor

    def until(self, length: int) -> "RotaryCall":
        """The same of the first `length` tokens."""
        cos, sin, positions = self.cos[:, :length], self.sin[:, :length], self.position_ids[..., :length]
        return replace(self, cos=cos, sin=sin, position_ids=positions)

    def of_row(self, row: int, start: int) -> Rotation:
        """The rotation of one row, whose first token is at `start`.

        Raises:
            LookmError: for a rotary embedding of another form than `Rotation`'s.
        """
        half = getattr(sys.modules[type(self.module).__module__], "rotate_half", None)
        plain = half is not None and half(torch.arange(4.0)).tolist() == [-2.0, -3.0, 0.0, 1.0]
        if not plain or self.cos.ndim != 3:
            raise LookmError(f"{type(self.module).__name__} does not turn halves of channels, as this strategy needs")
        cos, sin = (states[row % states.shape[0], start:].float() for states in (self.cos, self.sin))

        @cache
        def ahead(n: int) -> tuple[Tensor, Tensor]:
            kind = str(getattr(self.module, "rope_type", "default"))
            if "dynamic" in kind or "longrope" in kind:  # they change when they are asked for later positions
                raise LookmError(f"the model's rotary embedding ({kind}) does not tell later positions beforehand")
            last = self.position_ids[..., -1:]
            later = self.call(last + torch.arange(1, n + 1, device=last.device))
            return later[0][row % later[0].shape[0]].float(), later[1][row % later[1].shape[0]].float()

        return Rotation(cos, sin, ahead)


@contextmanager
def rotary_calls(decoder: nn.Module, note: Callable[[RotaryCall], None]) -> Iterator[None]:
    """Within the block, `note` is told of each call of the decoder's rotary embedding for full attention."""

    @torch.compiler.disable
    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        named = dict(zip(("x", "position_ids", "layer_type"), args, strict=False)) | kwargs
        x, positions, kind = named.pop("x", None), named.pop("position_ids", None), named.get("layer_type")
        told = isinstance(x, Tensor) and isinstance(positions, Tensor) and isinstance(output, tuple)
        if told and kind in (None, "full_attention"):  # Llama 4's gives complex numbers
            cos, sin = output
            x = x[:, :1]  # it tells dtype and device
            note(RotaryCall(module, cos, sin, lambda later: module.forward(x, later, **named), positions))

    with ExitStack() as undo:
        for module in decoder.modules():
            if type(module).__name__.endswith("RotaryEmbedding"):
                undo.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        yield
