"""Randomly initialised LLaVA models and prompts: shapes decide time and memory, weights do not."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

TEXT_RUN = 32
"""Text tokens before each image of a random prompt, and after the last."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: its decoder, its vision tower, and the longest prompt that makes sense on its device."""

    note: str
    text: dict[str, int]
    vision: dict[str, int]

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2


SHAPES = {
    "llava7b": Shape(
        "LLaVA-1.5-7B in full size, random weights",
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "vocab_size": 32064},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 336, "patch_size": 14},
    ),
    "qwen2_5vl7b": Shape(
        "decoder of Qwen2.5-VL-7B in full size (7 query heads share a key/value head), LLaVA's eyes, random weights",
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 336, "patch_size": 14},
    ),
    "small": Shape(
        "scaled down for a CPU: 8 layers of width 512, random weights; no number of it belongs beside the paper's",
        {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
         "vocab_size": 1000},
        {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
         "image_size": 96, "patch_size": 8},
    ),
    "nano": Shape(
        "for trying the script out",
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "vocab_size": 100},
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 4},
    ),
}  # fmt: skip


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The random model, made on the device. Its last token stands for images; no token ends an answer."""
    torch.manual_seed(0)
    text: dict[str, Any] = {**shape.text, "max_position_embeddings": 1 << 17, "eos_token_id": None}
    vision: dict[str, Any] = {**shape.vision}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=LlamaConfig(**text, pad_token_id=0, bos_token_id=1),
        image_token_index=shape.text["vocab_size"] - 1,
        image_seq_length=shape.image_tokens,
    )
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    return model.eval()


def prompt_ids(shape: Shape, batch: int, length: int, device: torch.device) -> Tensor:
    """Random prompts (B, L): images between runs of text, ended by text."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, shape.text["vocab_size"] - 1, (batch, length), generator=generator)
    places = torch.arange(length) % (TEXT_RUN + shape.image_tokens)
    ids[:, (places >= TEXT_RUN) & (torch.arange(length) < length - TEXT_RUN)] = shape.text["vocab_size"] - 1
    return ids.to(device)


def image_inputs(shape: Shape, batch: int, images: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Prompts with that many random images each, as `generate` takes them."""
    length = images * (TEXT_RUN + shape.image_tokens) + TEXT_RUN
    ids = prompt_ids(shape, batch, length, device)
    size = shape.vision["image_size"]
    pixels = torch.randn(batch * images, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels.to(device=device, dtype=dtype),
    }
