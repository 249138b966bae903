"""PruMerge (arXiv 2403.15388): the patches that CLIP's class token looks at stay, and take in what is like them.

Attention and keys are those of the layer that reads the features (CLIP's last one for LLaVA's layer −2), over all heads
at once, as in the authors' code. Known to differ: an image without an outlier keeps its highest patch, and what is left
keeps order and positions of the whole prompt, where the code orders by attention and numbers anew.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from lookm.errors import LookmError
from lookm.shortening import ImageTokens, ShorteningStrategy


@dataclass(frozen=True, kw_only=True)
class PruMerge(ShorteningStrategy):
    """Keep patches whose class-token attention is an outlier, each plus the weighted sum of its nearest patches.

    Backbones whose vision tower is CLIP only.

    Attributes:
        neighbours: patches that each kept one takes in, the nearest by the cosine of their keys.
        grid: keep an even grid of patches besides, three for each outlier (PruMerge+).
        rest: keep one more, the last, in which all that leave are summed up, as the authors' code has it.
    """

    neighbours: int = 32
    grid: bool = False
    rest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("neighbours", self.neighbours)
        self._check_flag("grid", self.grid)
        self._check_flag("rest", self.rest)

    @property
    def first_short_layer(self) -> int:
        return 0

    def watch(self, model: PreTrainedModel, undo: ExitStack) -> ImageTokens:
        """Hook CLIP's projections of queries and keys, and the projector that its features go into.

        Raises:
            LookmError: for a model without CLIP's tower and LLaVA's projector, or whose images hold the class token.
        """
        projector = next((m for n, m in model.named_modules() if n.endswith("multi_modal_projector")), None)
        layers = [module for module in model.modules() if isinstance(module, CLIPEncoderLayer)]
        feature_layer = getattr(model.config, "vision_feature_layer", None)
        whole = getattr(model.config, "vision_feature_select_strategy", None) != "default"
        if projector is None or not layers or whole or not isinstance(feature_layer, int) or feature_layer > -1:
            raise LookmError(
                f"{self.name} reads the class token of a LLaVA's CLIP tower, which {type(model).__name__} does not "
                "have; choose fastv, or a strategy that compresses the cache"
            )
        reader, read, tokens = layers[min(-1, feature_layer + 1)].self_attn, dict[str, Tensor](), ImageTokens()

        def note(name: str) -> Any:
            return lambda module, args, output: read.__setitem__(name, output)

        def merge(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            features, keys = args[0], read.pop("keys")  # [images, N, C], [images, N + 1, C]
            merged = [self.merge(*image) for image in zip(features, read.pop("queries")[:, 0], keys, strict=True)]
            tokens.going_on = torch.cat([stays for _, stays in merged])
            return torch.stack([states for states, _ in merged]), *args[1:]

        undo.callback(reader.q_proj.register_forward_hook(note("queries")).remove)
        undo.callback(reader.k_proj.register_forward_hook(note("keys")).remove)
        undo.callback(projector.register_forward_pre_hook(merge).remove)
        return tokens

    def merge(self, features: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Prune and merge the patches of one image.

        Args:
            features: (N, C).
            query: of the class token, (C,).
            keys: of class token and patches, (N + 1, C).

        Returns:
            Features (N, C), of which only those that stay differ, and which ones stay, (N,) bool.
        """
        weights = (keys.float() @ query.float() * len(query) ** -0.5).softmax(0)[1:]  # a_cls, [N]
        low, high = torch.quantile(weights, torch.tensor([0.25, 0.75], device=weights.device))
        stays = weights > high + 1.5 * (high - low)
        stays[weights.argmax()] = True
        if self.grid:
            step = len(weights) // int(stays.sum()) // 3
            stays[:: max(1, step)] = True
        directions = functional.normalize(keys[1:].float(), dim=-1)
        likeness = (directions @ directions.T).fill_diagonal_(-torch.inf)  # [N, N]
        near = likeness.argsort(dim=1, descending=True, stable=True)[:, : min(self.neighbours, len(weights) - 1)]
        wide = features.float()
        taken_in = (weights[near][..., None] * wide[near]).sum(1)  # Σ a_j · y_j, [N, C]
        merged = torch.where(stays[:, None], wide + taken_in, wide)
        if self.rest and not stays.all():
            last = int((~stays).nonzero()[-1])
            merged[last] = (weights[~stays][:, None] * wide[~stays]).sum(0)
            stays[last] = True
        return merged.to(features.dtype), stays
