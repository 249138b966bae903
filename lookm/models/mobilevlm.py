"""MobileVLM V2 (arXiv 2402.03766): CLIP ViT-L/14 at 336 pixels, LDPNetV2, MobileLLaMA; 144 tokens per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig
from transformers.image_processing_utils import BaseImageProcessor

from lookm.models.backbone import ImageShape
from lookm.models.family import clip_processor
from lookm.models.vision_llama import (
    LLAMA_KEYS,
    LLAMA_UNNEEDED,
    VisionLlama,
    VisionLlamaConfig,
    VisionLlamaFamily,
)

GRID = 12
"""Tokens per side after pooling: 144 per image."""
_KEYS = {
    r"^model\.vision_tower\.vision_tower\.": "vision_tower.clip.",
    r"^model\.mm_projector\.mlp\.mlp\.0\.": "projector.first.",
    r"^model\.mm_projector\.mlp\.mlp\.2\.": "projector.second.",
    r"^model\.mm_projector\.peg\.peg\.0\.": "projector.positional.",
}
_TOWER_CONFIG = {
    **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    **{"image_size": 336, "patch_size": 14, "projection_dim": 768},
}


class MobileVLMConfig(VisionLlamaConfig):
    """As `VisionLlamaConfig`; the vision tower is CLIP's."""

    model_type = "lookm_mobilevlm"
    sub_configs = {"text_config": LlamaConfig, "vision_config": CLIPVisionConfig}  # noqa: RUF012


class ClipTower(nn.Module):
    """CLIP's patches (N, P, C) after its last layer here, before its last norm; CLS is left out."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.clip = CLIPVisionModel(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (N, 3, S, S) → features (N, P, C)."""
        features: Tensor = self.clip(pixel_values).last_hidden_state[:, 1:]
        return features


class LDPNetV2(nn.Module):
    """Linear–GELU–Linear, average pooling to 12 × 12 tokens, and a depthwise 3 × 3 convolution with a residual.

    Source: MobileVLM V2, section 3.3.
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


class MobileVLM(VisionLlama):
    """MobileLLaMA with CLIP's eyes."""

    config_class = MobileVLMConfig
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer"]  # noqa: RUF012

    def build_vision(self, config: VisionLlamaConfig) -> None:
        """CLIP and LDPNetV2."""
        self.vision_tower = ClipTower(config.vision_config)
        self.projector = LDPNetV2(config.vision_config.hidden_size, config.text_config.hidden_size)


@dataclass(frozen=True)
class MobileVLMFamily(VisionLlamaFamily):
    """The original checkpoint, whose `config.json` names its vision tower; a `vision_config` in it replaces that."""

    repository = "mtgv/MobileVLM_V2-3B"
    model_class = MobileVLM
    model_type = "mobilevlm"
    key_map = LLAMA_KEYS | _KEYS
    unneeded = (*LLAMA_UNNEEDED, r"^vision_tower\.clip\.(vision_model\.)?encoder\.layers\.")
    projector = "ldpnetv2"
    tower = "openai/clip-vit-large-patch14-336"
    tower_config = _TOWER_CONFIG

    def image_shape(self, config: Any) -> ImageShape:
        return ImageShape(GRID**2, (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        return clip_processor(config.vision_config.image_size)
