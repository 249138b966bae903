"""LLaVA-1.5 (arXiv 2310.03744), 7B and 13B, from the `llava-hf` checkpoints."""

from typing import Any

from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, ImageShape
from lookm.models.clip import clip_processor, mean_colour, vit_l_14_336
from lookm.models.loading import Layout, load
from lookm.models.source import Source
from lookm.models.templates import template_text

LAYOUT = Layout(LlavaForConditionalGeneration, "llava", LlavaConfig.from_dict)
_VICUNA: dict[str, dict[str, Any]] = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


def load_llava(
    *,
    size: str,
    template: str,
    label: str,
    batch_size: int,
    max_context_len: int,
    max_new_tokens: int,
    **source: Any,
) -> Backbone:
    """Loads a LLaVA-1.5.

    Images are padded to squares of CLIP's mean colour, then resized and normalised as CLIP does it.

    Args:
        size: `7b` or `13b`; only what `weights=random` builds.
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
    model, tokenizer = load(LAYOUT, full_size(size), origin)
    vision: Any = model.config.vision_config
    return Backbone(
        name=origin.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=clip_processor(vision.image_size),
        template=text,
        n_tokens_per_image=image_shape(model.config).tokens,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        background=mean_colour(),
    )


def image_shape(config: LlavaConfig) -> ImageShape:
    """What an image is to the model of that configuration."""
    vision: Any = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return ImageShape(patches, patches + 1)


def full_size(size: str) -> LlavaConfig:
    """The configuration of `llava-hf/llava-1.5-<size>-hf`.

    Raises:
        LookmError: neither 7b nor 13b.
    """
    if size not in _VICUNA:
        raise LookmError(f"unknown size {size!r}; choose one of {', '.join(_VICUNA)}")
    text = LlamaConfig(
        vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=False, **_VICUNA[size]
    )
    return LlavaConfig(
        vision_config=vit_l_14_336(),
        text_config=text,
        image_token_index=32000,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
