"""InternVL3 (arXiv 2504.10479), 8B, through transformers' own classes.

Each image is one view of 448 × 448 pixels and 256 tokens; the tiles that it can add for large images are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration
from transformers.image_processing_utils import BaseImageProcessor

from lookm.models.backbone import ImageShape
from lookm.models.family import Family
from lookm.models.parts import IMAGENET_MEAN, IMAGENET_STD, QWEN2_7B


@dataclass(frozen=True)
class InternVL3Family(Family):
    """Qwen2.5 with InternViT's eyes."""

    model_class = InternVLForConditionalGeneration
    model_type = "internvl"
    around_image = ("<img>", "</img>")

    def full_size(self) -> InternVLConfig:
        """The configuration of `OpenGVLab/InternVL3-8B-hf`."""
        positions = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
        text = QWEN2_7B | {"model_type": "qwen2", "vocab_size": 151674, "max_position_embeddings": 32768}
        return InternVLConfig(
            text_config=text | {"rope_parameters": positions},
            vision_config={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "attention_bias": True,
                "use_qk_norm": False,
                "image_size": [448, 448],
                "patch_size": [14, 14],
                "norm_type": "layer_norm",
                "layer_norm_eps": 1e-6,
            },
            image_token_id=151667,
            image_seq_length=256,
            downsample_ratio=0.5,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

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
