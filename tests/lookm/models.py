"""Tiny random models built from configurations: multi-head, grouped-query, vision-language, M-RoPE."""

from functools import cache

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

IMAGE = 98
"""The image token's id in all of them."""

TEXT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def llama(kv_heads: int = 4, seed: int = 0) -> LlamaForCausalLM:
    """A text-only decoder; kv_heads < 4 groups the queries."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**TEXT, num_key_value_heads=kv_heads)).eval()


def llava() -> LlavaForConditionalGeneration:
    """16 image tokens each."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config).eval()


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Grouped queries, M-RoPE, 4 image tokens each (a 4 × 4 grid of patches, merged 2 × 2)."""
    torch.manual_seed(0)
    text = {**TEXT, "num_key_value_heads": 2, "initializer_range": 0.3}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "out_hidden_size": 64,
        "fullatt_block_indexes": [1], "window_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=97,
        vision_start_token_id=96, vision_end_token_id=95,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config).eval()


@cache
def built(name: str) -> PreTrainedModel:
    """One of "llama", "grouped", "llava", "qwen2_5_vl", made once a process."""
    makers = {"llama": llama, "grouped": lambda: llama(2), "llava": llava, "qwen2_5_vl": qwen2_5_vl}
    return makers[name]()


def prompt(name: str, texts: tuple[int, ...] = (12, 9, 14), seed: int = 0) -> dict[str, Tensor]:
    """Inputs of one prompt: text of the given lengths with an image between each two (text-only models: text alone)."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [torch.randint(2, 90, (n,), generator=generator) for n in texts]
    images = len(texts) - 1
    if name in ("llama", "grouped"):
        ids = torch.cat(pieces)[None]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    tokens = torch.full((16 if name == "llava" else 4,), IMAGE)
    if name == "qwen2_5_vl":
        tokens = torch.cat([torch.tensor([96]), tokens, torch.tensor([95])])
    ids = torch.cat([part for piece in pieces[:-1] for part in (piece, tokens)] + pieces[-1:])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if images and name == "llava":
        inputs["pixel_values"] = torch.randn(images, 3, 16, 16, generator=generator)
    elif images:
        inputs["pixel_values"] = torch.randn(images * 16, 3 * 2 * 4 * 4, generator=generator)
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]] * images)
    if name == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    return inputs


def left_padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Several prompts as one left-padded batch."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    batch = {}
    for key in rows[0]:
        parts = [row[key] for row in rows if key in row]
        if key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            parts = [torch.nn.functional.pad(part, (longest - part.shape[1], 0)) for part in parts]
        batch[key] = torch.cat(parts)
    return batch
