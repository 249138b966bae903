"""MadaKV (arXiv 2506.15724): `madakv_heads`, and layers that need more tokens take them from the layers behind.

Only earlier layers are read, so that every layer is cut as soon as it was attended. The paper's θ is not known; here it
is 0.9.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.madakv_heads import MadaKVHeads
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class MadaKV(MadaKVHeads):
    """Layer l keeps what covers θ of each modality's attention on the mean of its heads, and compensates behind it.

    φ_1 = M + N, and φ_{l+1} = φ_l − K_l / (n − l) with K_l what the layer kept beyond φ_l: the tokens that are left,
    divided among the layers that are left. The last layer takes the rest.

    Attributes:
        theta: θ.
    """

    divides_budget: ClassVar[bool] = True
    heads_apart: ClassVar[bool] = False

    theta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("theta", self.theta)

    def layer_tokens(self, layer: Layer) -> int:
        budget = self.promised_tokens(layer.is_image)
        if budget in (0, layer.length):
            return budget
        counts = layer.memory.setdefault((self.selection_key(layer.length), "kept"), {})
        if layer.index not in counts:
            behind = layer.n_layers - layer.index - 1
            left = layer.n_layers * budget - sum(counts[index] for index in range(layer.index))
            least, most = max(1, self.promised_recent(layer.length)), layer.length
            low, high = max(least, left - behind * most), min(most, left - behind * least)
            counts[layer.index] = min(max(self._needed(layer) if behind else left, low), high)
        return int(counts[layer.index])

    def _needed(self, layer: Layer) -> int:
        """The recent tokens, and the fewest others that cover θ of W of each modality; mean of the heads, rounded."""
        past = layer.length - self.promised_recent(layer.length)
        w_j = layer.per_kv_head(layer.window(self.window))[:, :past]  # [Hkv, P]
        image = layer.is_image[:past]
        needed = sum(_covering(w_j[:, modality], self.theta) for modality in (image, ~image))
        return layer.length - past + round(float(torch.as_tensor(needed).float().mean()))


def _covering(masses: Tensor, share: float) -> Tensor:
    """The fewest of masses (H, n) that make a share of their sum: (H,) int64."""
    before = masses.sort(dim=-1, descending=True).values.cumsum(-1)
    return (before < share * masses.sum(-1, keepdim=True)).sum(-1).clamp_max(max(0, masses.shape[1] - 1)) + min(
        1, masses.shape[1]
    )
