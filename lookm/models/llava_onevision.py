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

from lookm.models.backbone import Backbone, EncodedImages, ImageShape
from lookm.models.clip import mean_colour
from lookm.models.loading import Layout, load
from lookm.models.source import Source
from lookm.models.templates import template_text

_HALF = (0.5, 0.5, 0.5)
LAYOUT = Layout(
    LlavaOnevisionForConditionalGeneration,
    "llava_onevision",
    LlavaOnevisionConfig.from_dict,
    unneeded=(r"vision_model\.(head|post_layernorm)\.", r"embeddings\.position_ids$"),
)


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


def load_llava_onevision(
    *, template: str, label: str, batch_size: int, max_context_len: int, max_new_tokens: int, **source: Any
) -> Backbone:
    """Loads a LLaVA-OneVision.

    Args:
        template: name of the conversation template.
        label: what tables call the model.
        batch_size: prompts per `generate` call.
        max_context_len: longest prompt in tokens, template not counted.
        max_new_tokens: longest answer in tokens.
        **source: the fields of `Source`.

    Raises:
        LookmError: weights missing or not fitting, or a field with a wrong value.
    """
    text = template_text(template)
    origin = Source(**source)
    model, tokenizer = load(LAYOUT, full_size(), origin)
    vision: Any = model.config.vision_config
    side = vision.image_size
    return OnevisionBackbone(
        name=origin.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3),
        template=text,
        n_tokens_per_image=image_shape(model.config).tokens,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        background=mean_colour(_HALF),
    )


def image_shape(config: LlavaOnevisionConfig) -> ImageShape:
    """What an image is to the model of that configuration."""
    vision: Any = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return ImageShape(patches + 1, patches)


def full_size() -> LlavaOnevisionConfig:
    """The configuration of `llava-hf/llava-onevision-qwen2-7b-ov-hf`."""
    text = {
        "model_type": "qwen2",
        "vocab_size": 152128,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=151646,
        video_token_index=151647,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=False,
    )
