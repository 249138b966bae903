"""What CLIP-based backbones share: OpenAI's preprocessing and the ViT-L/14 at 336 pixels."""

from transformers import CLIPImageProcessorPil, CLIPVisionConfig
from transformers.image_processing_utils import BaseImageProcessor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_processor(
    side: int, mean: tuple[float, float, float] = MEAN, std: tuple[float, float, float] = STD
) -> BaseImageProcessor:
    """Bicubic resize (Pillow's) to `side` pixels and normalisation of square images."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        resample=3,
        image_mean=list(mean),
        image_std=list(std),
    )


def mean_colour(mean: tuple[float, float, float] = MEAN) -> tuple[int, int, int]:
    """The colour that images are padded with: the mean in 0 … 255, cut off as the original does."""
    red, green, blue = (int(value * 255) for value in mean)
    return red, green, blue


def vit_l_14_336() -> CLIPVisionConfig:
    """`openai/clip-vit-large-patch14-336`."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
