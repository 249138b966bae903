"""FlashCache (arXiv 2511.16786): what a smooth course of keys and values over the tokens leaves out.

The smooth part K_b keeps the first ω = γL coefficients of an orthonormal cosine transform along the tokens, so that the
energy beyond ω is that of K − K_b. Which of keys and values weighs a layer is not said in what is known of the paper:
the mean of both here. No attention is read.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.division import DividedStrategy
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class FlashCache(DividedStrategy):
    """Score MSE(K_j, K_b,j) + MSE(V_j, V_b,j); a layer's share is the energy beyond ω, Σ_{m≥ω} |C_m|² / Σ |C_m|².

    Attributes:
        gamma: γ.
        recent: last tokens that are always kept.
    """

    gamma: float = 0.1
    recent: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("gamma", self.gamma)
        self._check_count("recent", self.recent)

    def promised_recent(self, length: int) -> int:
        return min(self.recent, sum(self.window_sizes(length)))

    def read(self, layer: Layer) -> tuple[Tensor, Tensor]:
        shares, scores = [], []
        for states in (layer.keys.float(), layer.values.float()):
            beyond = self._beyond(states).square()  # (x − x_b)²
            shares.append(beyond.sum() / states.square().sum())
            scores.append(beyond.mean(-1))
        return (shares[0] + shares[1]) / 2, scores[0] + scores[1]

    def _beyond(self, states: Tensor) -> Tensor:
        """x − x_b, (Hkv, L, D) float32."""
        length = states.shape[1]
        mirrored = torch.cat([states, states.flip(1)], dim=1)  # its Fourier coefficients are the cosine transform's
        spectrum = torch.fft.rfft(mirrored, dim=1)
        spectrum[:, int(self.gamma * length) :] = 0
        return states - torch.fft.irfft(spectrum, n=2 * length, dim=1)[:, :length]
