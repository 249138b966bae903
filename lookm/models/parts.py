"""What several backbones share: CLIP's preprocessing and its ViT-L/14, the sizes of their language models."""

from typing import Any

from transformers import CLIPImageProcessorPil, CLIPVisionConfig
from transformers.image_processing_utils import BaseImageProcessor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

VICUNA: dict[str, dict[str, Any]] = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
"""Sizes of `lmsys/vicuna-<size>-v1.5`."""
QWEN2_7B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
"""Sizes of `Qwen/Qwen2-7B-Instruct` and of Qwen2.5's 7B, without vocabulary and positions."""


def clip_processor(
    side: int, mean: tuple[float, float, float] = CLIP_MEAN, std: tuple[float, float, float] = CLIP_STD
) -> BaseImageProcessor:
    """Bicubic resize (Pillow's) to `side` pixels and normalisation of square images."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        resample=3,
        image_mean=list(mean),
        image_std=list(std),
    )


def mean_colour(mean: tuple[float, float, float] = CLIP_MEAN) -> tuple[int, int, int]:
    """The colour that images are padded with: the mean in 0 … 255, cut off as the original does."""
    red, green, blue = (int(value * 255) for value in mean)
    return red, green, blue


def vit_l_14_336(layers: int = 24) -> CLIPVisionConfig:
    """`openai/clip-vit-large-patch14-336`, with its first layers."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
