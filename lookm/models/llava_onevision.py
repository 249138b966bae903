"""LLaVA-OneVision (arXiv 2408.03326), Qwen2 7B, through transformers' own classes.

Each image is one 384-pixel view of 27 × 27 tokens and a line break, as the model was trained on prompts of several
images; the tiles that it can add for a single image, up to nine times as many tokens, are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from lookm.models.backbone import Backbone, EncodedImages, ImageShape
from lookm.models.family import Family
from lookm.models.parts import QWEN2_7B, mean_colour


@dataclass(frozen=True)
class OnevisionBackbone(Backbone):
    """Tells the model that every image is one of several, so that it expects one view of each."""

    def encode_images(self, pictures: list[Image.Image]) -> EncodedImages:
        """Pixels (N, 3, S, S), sizes (N, 2) as rows and columns, and the number of images, at least 2."""
        tensors = {
            "pixel_values": self.pixels(pictures),
            "image_sizes": torch.tensor([[picture.height, picture.width] for picture in pictures]),
            "batch_num_images": torch.tensor([max(2, len(pictures))]),
        }
        return EncodedImages(tensors, (self.most_image_tokens,) * len(pictures))


@dataclass(frozen=True)
class OnevisionFamily(Family):
    """Qwen2 with SigLIP's eyes."""

    model_class = LlavaOnevisionForConditionalGeneration
    model_type = "llava_onevision"
    unneeded = (r"vision_model\.(head|post_layernorm)\.", r"embeddings\.position_ids$")
    backbone_class = OnevisionBackbone
    background = mean_colour((0.5, 0.5, 0.5))

    def full_size(self) -> LlavaOnevisionConfig:
        """The configuration of `llava-hf/llava-onevision-qwen2-7b-ov-hf`."""
        positions = {"rope_type": "default", "rope_theta": 1e6}
        text = QWEN2_7B | {"model_type": "qwen2", "vocab_size": 152128, "max_position_embeddings": 32768}
        return LlavaOnevisionConfig(
            text_config=text | {"rope_parameters": positions},
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 26,
                "num_attention_heads": 16,
                "image_size": 384,
                "patch_size": 14,
                "vision_use_head": False,
            },
            image_token_index=151646,
            video_token_index=151647,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
            tie_word_embeddings=False,
        )

    def image_shape(self, config: Any) -> ImageShape:
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return ImageShape(patches + 1, patches)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        side = config.vision_config.image_size
        return SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3)
