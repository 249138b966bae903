"""LDPNetV2, the projector of MobileVLM V2 (arXiv 2402.03766, section 3.3)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

GRID = 12
"""Tokens per side after pooling: 144 per image."""


class LDPNetV2(nn.Module):
    """Linear–GELU–Linear, average pooling to 12 × 12 tokens, and a depthwise 3 × 3 convolution with a residual.

    Args:
        width: of the vision tower's features.
        text_width: of the language model's embeddings.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, text_width)
        self.second = nn.Linear(text_width, text_width)
        self.positional = nn.Conv2d(text_width, text_width, 3, padding=1, groups=text_width)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, P, C) of a square grid of P patches → (N, 144, text_width)."""
        tokens = self.second(F.gelu(self.first(features)))
        side = math.isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))  # (N, C, side, side)
        pooled = F.adaptive_avg_pool2d(grid, GRID)
        return (pooled + self.positional(pooled)).flatten(2).transpose(1, 2)
