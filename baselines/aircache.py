"""AirCache (arXiv 2503.23956): a few text tokens decide which image tokens stay, and how many of them in each layer.

Written from a description, not from the authors' code: what strength and skewness are normalised by, and which heads
choose the elite, are choices of this file.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lookm.budgets import apportion
from lookm.division import DividedStrategy
from lookm.layer import Layer
from lookm.prompt import on_host


@dataclass(frozen=True, kw_only=True)
class AirCache(DividedStrategy):
    """All text stays, and M + N image tokens on the mean of the layers, α1 and α2 being shares of the image tokens.

    Elite are the text tokens that the last one attends to with at least λ times the largest weight, among text and on
    the mean of its heads. An image token's score is the mean over the elite of softmax(Q_elite K) over images and
    elite. A layer's share is ½ (strength + skewness) of its scores, each over the sum of all layers: their sum, and
    their third standardised moment where it is above 0. A `budget` counts all tokens: text first, the latest first.

    Attributes:
        threshold: λ.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("threshold", self.threshold)

    def promised_tokens(self, is_image: Tensor) -> int:
        return sum(self._text_and_images(is_image))

    def promised_recent(self, length: int) -> int:
        return 0

    def _text_and_images(self, is_image: Tensor) -> tuple[int, int]:
        """How many tokens of the text and, on the mean of the layers, of the images stay."""
        length, images = is_image.numel(), int(on_host(is_image).sum())
        text = length - images
        if self.budget is None:
            return text, min(images, sum(self.window_sizes(images)))
        kept = min(length, sum(self.window_sizes(length)))
        return min(text, kept), max(0, kept - text)

    def read(self, layer: Layer) -> tuple[Tensor, Tensor]:
        scores = self._scores(layer)  # [Hkv, L], 0 for text
        image = scores.mean(0)[layer.is_image]
        centred = image - image.mean()
        skewness = (centred**3).mean() / (centred**2).mean().clamp_min(torch.finfo(image.dtype).tiny) ** 1.5
        measure = torch.stack([image.sum(), skewness.nan_to_num(0.0).clamp_min(0)])
        latest = torch.arange(1, layer.length + 1, device=scores.device, dtype=scores.dtype)
        return measure, torch.where(layer.is_image, scores, 1 + latest)

    def divide(self, measures: list[Any], layer: Layer) -> list[int]:
        text, images = self._text_and_images(layer.is_image)
        both = torch.stack(measures)  # [n_layers, 2]
        sums = both.sum(0)
        shares = torch.where(sums > 0, both / sums, torch.full_like(both, 1 / layer.n_layers)).mean(1)
        most = int(on_host(layer.is_image).sum())
        least = 0 if text else min(1, images)
        return [text + n for n in apportion(shares.tolist(), layer.n_layers * images, least, most)]

    def _scores(self, layer: Layer) -> Tensor:
        """The elite's mean attention to each image token, (Hkv, L) float32, 0 for text."""
        queries = layer.queries.float().unflatten(0, (layer.kv_heads, -1)) * layer.scaling  # [Hkv, G, L, D]
        keys, is_image = layer.keys.float().transpose(1, 2)[:, None], layer.is_image  # [Hkv, 1, D, L]
        text = (~on_host(is_image)).nonzero()
        last = int(text[-1]) if len(text) else layer.length - 1
        others = is_image if len(text) else torch.arange(layer.length, device=is_image.device) != last
        to_text = (queries[:, :, last : last + 1] @ keys).masked_fill(others, -torch.inf)
        weights = to_text.softmax(-1).mean((0, 1, 2))  # [L]
        elite = (weights >= self.threshold * weights.max()) & ~others
        seen = (queries[:, :, elite] @ keys).masked_fill(~(is_image | elite), -torch.inf).softmax(-1)
        return seen.mean((1, 2)) * is_image
