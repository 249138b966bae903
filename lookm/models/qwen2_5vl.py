"""Qwen2.5-VL (arXiv 2502.13923), 7B, through transformers' own classes.

Its images keep their shape and have as many tokens as they have pixels for, so the pixels are capped: no image has more
than `max_image_tokens`, which is what a benchmark counts for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, EncodedImages, ImageShape
from lookm.models.family import Family

FEWEST_IMAGE_TOKENS = 4


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

    def batch(self, rows: list[list[int]], encoded: EncodedImages) -> dict[str, torch.Tensor]:
        """As `Backbone.batch`, with `mm_token_type_ids` (B, L): 1 where an image token is, else 0."""
        batch = super().batch(rows, encoded)
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (batch["input_ids"] == self.model.config.image_token_id).int()
        return batch


@dataclass(frozen=True)
class QwenFamily(Family):
    """Transformers' own Qwen2.5-VL.

    Args:
        max_image_tokens: the most tokens of an image; larger images are made smaller.

    Raises:
        LookmError: less than an image has at least.
    """

    max_image_tokens: int

    repository = "Qwen/Qwen2.5-VL-7B-Instruct"
    model_class = Qwen2_5_VLForConditionalGeneration
    model_type = "qwen2_5_vl"
    backbone_class = QwenBackbone
    around_image = ("<|vision_start|>", "<|vision_end|>")

    def __post_init__(self) -> None:
        if self.max_image_tokens < FEWEST_IMAGE_TOKENS:
            raise LookmError(
                f"max_image_tokens is {self.max_image_tokens}; an image has at least {FEWEST_IMAGE_TOKENS} tokens"
            )

    def image_shape(self, config: Any) -> ImageShape:
        return ImageShape(self.max_image_tokens, self.max_image_tokens * config.vision_config.spatial_merge_size**2)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        vision = config.vision_config
        pixels = (vision.patch_size * vision.spatial_merge_size) ** 2  # of a token
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": FEWEST_IMAGE_TOKENS * pixels, "longest_edge": self.max_image_tokens * pixels},
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
        )
