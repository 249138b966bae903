"""LLaVA-1.5 and LLaVA-OneVision, from the `llava-hf` checkpoints, through transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaOnevisionForConditionalGeneration, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import check_one_of
from lookm.models.backbone import Backbone, EncodedImages, ImageShape
from lookm.models.family import Family, clip_processor, mean_colour


@dataclass(frozen=True)
class LlavaFamily(Family):
    """LLaVA-1.5 (arXiv 2310.03744), 7B and 13B; 576 tokens per image.

    Images are padded to squares of CLIP's mean colour, then resized and normalised as CLIP does it.

    Args:
        size: `7b` or `13b`; only what `weights=random` builds.

    Raises:
        LookmError: neither of them.
    """

    size: str

    model_class = LlavaForConditionalGeneration
    model_type = "llava"
    background = mean_colour()

    def __post_init__(self) -> None:
        check_one_of("size", self.size, ("7b", "13b"))

    @property
    def repository(self) -> str:  # type: ignore[override]
        """The checkpoint of this size."""
        return f"llava-hf/llava-1.5-{self.size}-hf"

    def image_shape(self, config: Any) -> ImageShape:
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return ImageShape(patches, patches + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        return clip_processor(config.vision_config.image_size)


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
    """LLaVA-OneVision (arXiv 2408.03326), Qwen2 7B with SigLIP's eyes.

    Each image is one 384-pixel view of 27 × 27 tokens and a line break, as the model was trained on prompts of several
    images; the tiles that it can add for a single image, up to nine times as many tokens, are never made.
    """

    repository = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    model_class = LlavaOnevisionForConditionalGeneration
    model_type = "llava_onevision"
    unneeded = (r"vision_model\.(head|post_layernorm)\.", r"embeddings\.position_ids$")
    backbone_class = OnevisionBackbone
    background = mean_colour((0.5, 0.5, 0.5))

    def image_shape(self, config: Any) -> ImageShape:
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return ImageShape(patches + 1, patches)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        side = config.vision_config.image_size
        return SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3)
