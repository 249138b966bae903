"""LLaVA-1.5 (arXiv 2310.03744), 7B and 13B, from the `llava-hf` checkpoints; 576 tokens per image.

Images are padded to squares of CLIP's mean colour, then resized and normalised as CLIP does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError
from lookm.models.backbone import ImageShape
from lookm.models.family import Family
from lookm.models.parts import VICUNA, clip_processor, mean_colour, vit_l_14_336


@dataclass(frozen=True)
class LlavaFamily(Family):
    """Transformers' own LLaVA.

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
        if self.size not in VICUNA:
            raise LookmError(f"unknown size {self.size!r}; choose one of {', '.join(VICUNA)}")

    def full_size(self) -> LlavaConfig:
        """The configuration of `llava-hf/llava-1.5-<size>-hf`."""
        return LlavaConfig(
            vision_config=vit_l_14_336(),
            text_config=LlamaConfig(
                vocab_size=32064,
                max_position_embeddings=4096,
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
                **VICUNA[self.size],
            ),
            image_token_index=32000,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

    def image_shape(self, config: Any) -> ImageShape:
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return ImageShape(patches, patches + 1)

    def image_processor(self, config: Any) -> BaseImageProcessor:
        return clip_processor(config.vision_config.image_size)
