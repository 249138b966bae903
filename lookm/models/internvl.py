"""InternVL-Chat with its own vision transformer, InternViT (arXiv 2312.14238), and InternVL3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GotOcr2ImageProcessorPil, InternVLForConditionalGeneration, LlamaConfig, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lookm.models.backbone import ImageShape
from lookm.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, clip_processor, mean_colour
from lookm.models.vision_llama import (
    LLAMA_KEYS,
    LLAMA_UNNEEDED,
    VisionLlama,
    VisionLlamaConfig,
    VisionLlamaFamily,
)

SIDE = 336
"""Pixels per side of the images; the tower's position embedding was made for 224."""

_KEYS = {r"^model\.vision_tower\.vision_tower\.(encoder\.)?": "vision_tower.", r"^model\.mm_projector\.": "projector."}


class InternViTConfig(PreTrainedConfig):
    """Sizes of an InternViT.

    Attributes:
        num_hidden_layers: layers that are built; the features are the last one's output.
        image_size: pixels per side that the position embedding was made for.
    """

    model_type = "lookm_intern_vit"

    hidden_size: int = 3200
    intermediate_size: int = 12800
    num_hidden_layers: int = 48
    num_attention_heads: int = 25
    image_size: int = 224
    patch_size: int = 14
    layer_norm_eps: float = 1e-6


class InternViT(nn.Module):
    """The vision tower: pixels (N, 3, S, S) → features (N, (S / patch)², C) after the last layer, CLS left out."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Features of the patches, row by row."""
        hidden = self.embeddings(pixel_values)
        for layer in self.layers:
            hidden = layer(hidden)
        features: Tensor = hidden[:, 1:]
        return features


class Embeddings(nn.Module):
    """Patches, CLS before them, and positions, which are resized (bicubic) to other images than they were made for."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch)
        self.position_embedding = nn.Parameter(torch.randn(1, (config.image_size // patch) ** 2 + 1, width) * 0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (N, 3, S, S) → (N, 1 + patches, C)."""
        grid = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))  # (N, C, rows, columns)
        patches = grid.flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), -1, -1)
        return torch.cat([first, patches], dim=1) + self.positions(*grid.shape[-2:]).to(patches.dtype)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position embedding of CLS and a grid of rows × columns patches, (1, 1 + rows · columns, C)."""
        first, rest = self.position_embedding[:, :1], self.position_embedding[:, 1:]
        side = math.isqrt(rest.shape[1])
        if (rows, columns) == (side, side):
            return self.position_embedding
        square = rest.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
        resized = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([first, resized.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)


class Layer(nn.Module):
    """x + ls1 · attention(norm(x)), then the same with the MLP and ls2."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = Mlp(config)
        self.norm1 = LlamaRMSNorm(config.hidden_size, config.layer_norm_eps)
        self.norm2 = LlamaRMSNorm(config.hidden_size, config.layer_norm_eps)
        self.ls1 = nn.Parameter(torch.full((config.hidden_size,), 0.1))
        self.ls2 = nn.Parameter(torch.full((config.hidden_size,), 0.1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, P, C) → (N, P, C)."""
        hidden = hidden + self.attn(self.norm1(hidden)) * self.ls1
        out: Tensor = hidden + self.mlp(self.norm2(hidden)) * self.ls2
        return out


class Attention(nn.Module):
    """Every patch attends to all; queries and keys are normalised over all heads together."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.q_norm = LlamaRMSNorm(width, config.layer_norm_eps)
        self.k_norm = LlamaRMSNorm(width, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, P, C) → (N, P, C)."""
        query, key, value = self.qkv(hidden).chunk(3, dim=-1)
        states = (self.q_norm(query), self.k_norm(key), value)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in states)  # (N, H, P, D)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Linear–GELU–Linear."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, P, C) → (N, P, C)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(hidden)))
        return out


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
class InternVLChatFamily(VisionLlamaFamily):
    """InternVL-Chat: InternViT-6B at 336 pixels, two linear layers, Vicuna 7B; 576 tokens per image.

    The original checkpoint of 2023, whose `config.json` names its vision tower; a `vision_config` replaces that.
    """

    repository = "OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B"
    model_class = InternVLChat
    model_type = "llava"
    key_map = LLAMA_KEYS | _KEYS
    unneeded = (*LLAMA_UNNEEDED, r"^vision_tower\.layers\.")
    projector = "mlp2x_gelu"
    tower = "OpenGVLab/InternViT-6B-224px"
    tower_config = MappingProxyType({})  # InternViTConfig's defaults
    background = mean_colour(IMAGENET_MEAN)

    def image_shape(self, config: Any) -> ImageShape:
        patches = (SIDE // config.vision_config.patch_size) ** 2
        return ImageShape(patches, patches + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        return clip_processor(SIDE, IMAGENET_MEAN, IMAGENET_STD)


@dataclass(frozen=True)
class InternVL3Family(Family):
    """InternVL3 (arXiv 2504.10479), 8B, through transformers' own classes.

    Each image is one view of 448 × 448 pixels and 256 tokens; the tiles that it can add for large images
    are never made.
    """

    repository = "OpenGVLab/InternVL3-8B-hf"
    model_class = InternVLForConditionalGeneration
    model_type = "internvl"
    around_image = ("<img>", "</img>")

    def image_shape(self, config: Any) -> ImageShape:
        (height, width), (rows, columns) = config.vision_config.image_size, config.vision_config.patch_size
        return ImageShape(config.image_seq_length, (height // rows) * (width // columns) + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        height, width = config.vision_config.image_size
        return GotOcr2ImageProcessorPil(
            size={"height": height, "width": width},
            resample=3,
            crop_to_patches=False,
            image_mean=list(IMAGENET_MEAN),
            image_std=list(IMAGENET_STD),
        )
