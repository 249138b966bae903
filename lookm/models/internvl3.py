"""InternVL3 (arXiv 2504.10479), 8B, through transformers' own classes.

Each image is one view of 448 × 448 pixels and 256 tokens; the tiles that it can add for large images are never made.
"""

from __future__ import annotations

from typing import Any

from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

from lookm.models.backbone import Backbone, ImageShape
from lookm.models.internvl import IMAGENET_MEAN, IMAGENET_STD
from lookm.models.loading import Layout, load
from lookm.models.source import Source
from lookm.models.templates import template_text

_AROUND = ("<img>", "</img>")
LAYOUT = Layout(InternVLForConditionalGeneration, "internvl", InternVLConfig.from_dict)


def load_internvl3(
    *, template: str, label: str, batch_size: int, max_context_len: int, max_new_tokens: int, **source: Any
) -> Backbone:
    """Loads an InternVL3.

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
    height, width = vision.image_size
    processor = GotOcr2ImageProcessorPil(
        size={"height": height, "width": width},
        resample=3,
        crop_to_patches=False,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    around = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _AROUND)
    return Backbone(
        name=origin.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=processor,
        template=text,
        n_tokens_per_image=image_shape(model.config).tokens + around,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        around_image=_AROUND,
    )


def image_shape(config: InternVLConfig) -> ImageShape:
    """What an image is to the model of that configuration."""
    vision: Any = config.vision_config
    (height, width), (rows, columns) = vision.image_size, vision.patch_size
    return ImageShape(config.image_seq_length, (height // rows) * (width // columns) + 1)


def full_size() -> InternVLConfig:
    """The configuration of `OpenGVLab/InternVL3-8B-hf`."""
    text = {
        "model_type": "qwen2",
        "vocab_size": 151674,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
        "tie_word_embeddings": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    vision = {
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
    }
    return InternVLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=151667,
        image_seq_length=256,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
