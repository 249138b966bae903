"""Qwen2.5-VL (arXiv 2502.13923), 7B, through transformers' own classes.

Its images keep their shape and have as many tokens as they have pixels for, so the pixels are capped: no image has more
than `max_image_tokens`, which is what a benchmark counts for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, EncodedImages, ImageShape
from lookm.models.loading import Layout, load
from lookm.models.source import Source
from lookm.models.templates import template_text

FEWEST_IMAGE_TOKENS = 4
_AROUND = ("<|vision_start|>", "<|vision_end|>")
LAYOUT = Layout(Qwen2_5_VLForConditionalGeneration, "qwen2_5_vl", Qwen2_5_VLConfig.from_dict)


@dataclass(frozen=True)
class QwenBackbone(Backbone):
    """Images of any shape; positions in three dimensions, for which the model needs to know what is image."""

    def encode_images(self, pictures: list[Image.Image]) -> EncodedImages:
        """Patches of all images (patches, pixels of each) and their grids (N, 3): time, rows, columns.

        Raises:
            LookmError: an image so long that the cap cannot hold.
        """
        encoded = self.image_processor(pictures, return_tensors="pt")
        grids: torch.Tensor = encoded["image_grid_thw"]
        vision: Any = self.model.config.vision_config
        counts = (grids.prod(dim=1) // vision.spatial_merge_size**2).tolist()
        if max(counts) > self.most_image_tokens:
            size = pictures[counts.index(max(counts))].size
            raise LookmError(f"an image of {size[0]} × {size[1]} pixels becomes {max(counts)} tokens; it is too long")
        return EncodedImages({"pixel_values": encoded["pixel_values"], "image_grid_thw": grids}, tuple(counts))

    def inputs(self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, torch.Tensor]:
        """As `Backbone.inputs`, with `mm_token_type_ids` (B, L): 1 where an image token is, else 0."""
        batch = super().inputs(prompts, images)
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (batch["input_ids"] == self.model.config.image_token_id).int()
        return batch


def load_qwen2_5vl(
    *,
    template: str,
    label: str,
    max_image_tokens: int,
    batch_size: int,
    max_context_len: int,
    max_new_tokens: int,
    **source: Any,
) -> Backbone:
    """Loads a Qwen2.5-VL.

    Args:
        template: name of the conversation template.
        label: what tables call the model.
        max_image_tokens: the most tokens of an image; larger images are made smaller.
        batch_size: prompts per `generate` call.
        max_context_len: longest prompt in tokens, template not counted.
        max_new_tokens: longest answer in tokens.
        **source: the fields of `Source`.

    Raises:
        LookmError: weights missing or not fitting, or a field with a wrong value.
    """
    text = template_text(template)
    if max_image_tokens < FEWEST_IMAGE_TOKENS:
        raise LookmError(f"max_image_tokens is {max_image_tokens}; an image has at least {FEWEST_IMAGE_TOKENS} tokens")
    origin = Source(**source)
    model, tokenizer = load(LAYOUT, full_size(), origin)
    vision: Any = model.config.vision_config
    side = vision.patch_size * vision.spatial_merge_size  # pixels per side of a token
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": FEWEST_IMAGE_TOKENS * side**2, "longest_edge": max_image_tokens * side**2},
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    around = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _AROUND)
    return QwenBackbone(
        name=origin.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=processor,
        template=text,
        n_tokens_per_image=max_image_tokens + around,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        around_image=_AROUND,
    )


def image_shape(config: Qwen2_5_VLConfig, max_image_tokens: int) -> ImageShape:
    """What an image of the largest size is to the model of that configuration."""
    vision: Any = config.vision_config
    return ImageShape(max_image_tokens, max_image_tokens * vision.spatial_merge_size**2)


def full_size() -> Qwen2_5_VLConfig:
    """The configuration of `Qwen/Qwen2.5-VL-7B-Instruct`."""
    text = {
        "model_type": "qwen2_5_vl_text",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=False,
    )
