"""How much GPU memory a backbone needs, worked out from its configuration: nothing here is measured.

The peak is in the prefill of one prompt: weights, what earlier layers have kept, one layer's full cache, and the
largest of three workspaces: the vision tower's, a decoder layer's MLP, or its attention with the compression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lookm.blocks import GPU_ELEMENTS
from lookm.memory import cache_token_bytes
from lookm.models.backbone import ImageShape
from lookm.models.family import Family, family_of
from lookm.models.loading import KEPT_IN_FULL
from lookm.strategy import Strategy

TEXT_TOKENS = 64
"""The fewest text tokens of the prompt; the rest is images, as many as fit."""
FLOAT32 = 4
NF4_BLOCK = 64
"""Weights that share one float32 factor in 4-bit quantization."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that one prompt needs under one strategy.

    Attributes:
        cache: keys and values that are left after the prefill, all layers.
        workspace: what the prefill needs beside weights and what earlier layers have kept, one full layer included.
        kept_tokens: prompt tokens left in each layer.
    """

    weights: int
    cache: int
    workspace: int
    kept_tokens: int

    @property
    def peak(self) -> int:
        """Bytes at the worst moment of the prefill, the CUDA context and the allocator's waste not counted."""
        return self.weights + self.cache + self.workspace


def blueprint(fields: Mapping[str, Any]) -> tuple[PreTrainedModel, ImageShape]:
    """A backbone at full size without memory (on the meta device), and what an image is to it.

    Args:
        fields: of a model's YAML.

    Raises:
        LookmError: the model belongs to no family, so that nothing is known of its size.
    """
    return _blueprint(family_of(fields))


@lru_cache(maxsize=1)
def _blueprint(family: Family) -> tuple[PreTrainedModel, ImageShape]:
    config = family.full_size()
    with torch.device("meta"):
        model: PreTrainedModel = family.model_class._from_config(config, dtype=torch.bfloat16)
    return model, family.image_shape(config)


def weight_bytes(model: nn.Module, dtype: torch.dtype, quantization: str | None = None) -> int:
    """Bytes of a model's parameters; with quantization those of the language model's linear layers are packed.

    Args:
        model: may be on the meta device.
        dtype: of what is not packed.
        quantization: None, `8bit` or `4bit`.
    """
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if quantization is None:
        return total
    packed = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not set(name.split(".")) & set(KEPT_IN_FULL)
    ]
    elements = sum(module.weight.numel() for module in packed)
    rows = sum(module.out_features for module in packed)
    saved = elements * dtype.itemsize
    if quantization == "8bit":
        return total - saved + elements + rows * FLOAT32
    return total - saved + elements // 2 + elements // NF4_BLOCK * FLOAT32


def prompt_of(length: int, image_tokens: int, images: int | None = None) -> Tensor:
    """A prompt of so many tokens, some of its text behind its images: (L,) bool, true for images.

    Args:
        length: prompt tokens L.
        images: how many; None takes as many as fit beside `TEXT_TOKENS` of text.
    """
    if images is None:
        images = max(0, (length - TEXT_TOKENS) // image_tokens)
    is_image = torch.zeros(length, dtype=torch.bool)
    is_image[max(0, length - images * image_tokens) :] = images > 0
    return is_image.roll(-min(TEXT_TOKENS, length - int(is_image.sum())) // 2)


def memory_need(
    model: PreTrainedModel,
    image: ImageShape,
    strategy: Strategy,
    length: int,
    dtype: torch.dtype,
) -> MemoryNeed:
    """Bytes for one prompt of `length` tokens, of which all but `TEXT_TOKENS` are images as far as they fit.

    Args:
        model: at full size; may be on the meta device.
    """
    is_image = prompt_of(length, image.tokens)
    kept = strategy.promised_tokens(is_image)
    n_layers = model.config.get_text_config().num_hidden_layers
    token = cache_token_bytes(model.config, dtype)
    decoder = decoder_workspace(model.config.get_text_config(), length, kept, dtype)
    vision = vision_workspace(model.config.vision_config, image, int(is_image.sum()) // image.tokens, dtype)
    return MemoryNeed(
        weights=weight_bytes(model, dtype),
        cache=kept * token,
        workspace=max(vision - kept * token, decoder + (length - kept) * token // n_layers),
        kept_tokens=kept,
    )


def decoder_workspace(text: Any, length: int, kept: int, dtype: torch.dtype, tile: int = GPU_ELEMENTS) -> int:
    """Bytes that one decoder layer works with beside its cache: its MLP's, or its attention's with the compression.

    Args:
        text: configuration of a LLaMA or Qwen decoder.
        kept: tokens that the layer keeps; L for no compression.
        tile: float32 elements that the compression computes at once.
    """
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    q, kv = heads * size, (getattr(text, "num_key_value_heads", None) or heads) * size
    width, inner, unit = text.hidden_size, text.intermediate_size, dtype.itemsize
    held = 3 * length * width * unit  # embeddings without and with images, and the images' features
    # Residual and normalised input; the gate before and after its activation, then with the other half their product.
    mlp = length * (2 * width + 3 * inner) * unit
    norm = length * width * (2 * unit + 2 * FLOAT32)
    # Queries before and after the rotary embedding, its two parts, and the output; keys and values are the cache,
    # repeated for every query head where several share them.
    repeated = 2 * q if kv < q else 0
    attention = length * (2 * width + 4 * q + 2 * kv + repeated) * unit
    if kept < length:
        statistics = 2 * tile * FLOAT32 + 3 * heads * length * FLOAT32
        merging = 2 * kept * kv * (unit + 2 * FLOAT32)  # keys and values: gathered, summed, combined
        attention += statistics + merging
    return held + max(mlp, norm, attention)


def vision_workspace(vision: Any, image: ImageShape, images: int, dtype: torch.dtype) -> int:
    """Bytes of encoding so many images at once: what one layer's MLP or attention works with."""
    width, inner = vision.hidden_size, vision.intermediate_size
    return images * image.patches * max(2 * width + 3 * inner, 7 * width) * dtype.itemsize
