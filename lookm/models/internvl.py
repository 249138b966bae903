"""InternVL-Chat (arXiv 2312.14238): InternViT-6B at 336 pixels, two linear layers, Vicuna 7B; 576 tokens per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import LlamaConfig
from transformers.image_processing_utils import BaseImageProcessor

from lookm.models.backbone import ImageShape
from lookm.models.family import Family
from lookm.models.intern_vit import InternViT, InternViTConfig
from lookm.models.parts import IMAGENET_MEAN, IMAGENET_STD, VICUNA, clip_processor, mean_colour
from lookm.models.vision_llama import (
    LLAMA_KEYS,
    LLAMA_UNNEEDED,
    VisionLlama,
    VisionLlamaConfig,
    layers_used,
    require,
    text_config,
)

SIDE = 336
"""Pixels per side of the images; the tower's position embedding was made for 224."""

_KEYS = {r"^model\.vision_tower\.vision_tower\.(encoder\.)?": "vision_tower.", r"^model\.mm_projector\.": "projector."}
_TOWER = "OpenGVLab/InternViT-6B-224px"
_TOWER_LAYERS = 48


class InternVLChatConfig(VisionLlamaConfig):
    """As `VisionLlamaConfig`; the vision tower is an InternViT."""

    model_type = "lookm_internvl_chat"
    sub_configs = {"text_config": LlamaConfig, "vision_config": InternViTConfig}  # noqa: RUF012


class InternVLChat(VisionLlama):
    """Vicuna with InternViT's eyes."""

    config_class = InternVLChatConfig
    _no_split_modules = ["LlamaDecoderLayer", "Layer"]  # noqa: RUF012

    def build_vision(self, config: VisionLlamaConfig) -> None:
        """InternViT and Linear–GELU–Linear."""
        width = config.text_config.hidden_size
        self.vision_tower = InternViT(config.vision_config)
        self.projector = nn.Sequential(
            nn.Linear(config.vision_config.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )


@dataclass(frozen=True)
class InternVLChatFamily(Family):
    """The original checkpoint of 2023, whose `config.json` names its vision tower; a `vision_config` replaces that."""

    model_class = InternVLChat
    model_type = "llava"
    key_map = LLAMA_KEYS | _KEYS
    unneeded = (*LLAMA_UNNEEDED, r"^vision_tower\.layers\.")
    background = mean_colour(IMAGENET_MEAN)

    def full_size(self) -> InternVLChatConfig:
        """The configuration of `OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B`: 45 of InternViT's layers."""
        text = LlamaConfig(
            vocab_size=32000,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            **VICUNA["7b"],
        )
        return InternVLChatConfig(text_config=text, vision_config=InternViTConfig(num_hidden_layers=45))

    def image_shape(self, config: Any) -> ImageShape:
        patches = (SIDE // config.vision_config.patch_size) ** 2
        return ImageShape(patches, patches + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        return clip_processor(SIDE, IMAGENET_MEAN, IMAGENET_STD)

    def read_config(self, config: dict[str, Any]) -> InternVLChatConfig:
        require(config, mm_projector_type="mlp2x_gelu", mm_vision_select_feature="patch")
        if "vision_config" not in config:
            require(config, mm_vision_tower=_TOWER)
        given = config.get("vision_config", {"num_hidden_layers": _TOWER_LAYERS})
        vision = {name: value for name, value in given.items() if hasattr(InternViTConfig, name)}
        vision["num_hidden_layers"] = layers_used(config, vision["num_hidden_layers"])
        return InternVLChatConfig(text_config=text_config(config), vision_config=InternViTConfig(**vision))
