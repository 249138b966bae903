"""The window baseline, times the length of the value: what a token can add to the output. No paper of its own."""

from dataclasses import dataclass

from torch import Tensor

from baselines.window import Window
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class VNorm(Window):
    """Keep the tokens of the highest W_j(w) · ‖v_j‖ over the last w queries."""

    def scores(self, layer: Layer) -> Tensor:
        return super().scores(layer) * layer.values.float().norm(dim=-1)
