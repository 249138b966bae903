"""InternVL-Chat (arXiv 2312.14238): InternViT-6B at 336 pixels, two linear layers, Vicuna 7B; 576 tokens per image."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import LlamaConfig, PreTrainedConfig

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, ImageShape
from lookm.models.clip import clip_processor, mean_colour
from lookm.models.intern_vit import InternViT, InternViTConfig
from lookm.models.loading import Layout, load
from lookm.models.source import Source
from lookm.models.templates import template_text
from lookm.models.vision_llama import (
    LLAMA_KEYS,
    LLAMA_UNNEEDED,
    VisionLlama,
    VisionLlamaConfig,
    layers_used,
    text_config,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIDE = 336
"""Pixels per side of the images; the tower's position embedding was made for 224."""

_KEYS = {r"^model\.vision_tower\.vision_tower\.(encoder\.)?": "vision_tower.", r"^model\.mm_projector\.": "projector."}
_TOWER = "OpenGVLab/InternViT-6B-224px"
_TOWER_LAYERS = 48


class InternVLChatConfig(VisionLlamaConfig):
    """As `VisionLlamaConfig`; the vision tower is an InternViT."""

    model_type = "lookm_internvl_chat"
    sub_configs = {"text_config": LlamaConfig, "vision_config": InternViTConfig}  # noqa: RUF012


class InternVLChat(VisionLlama):
    """Vicuna with InternViT's eyes."""

    config_class = InternVLChatConfig
    _no_split_modules = ["LlamaDecoderLayer", "Layer"]  # noqa: RUF012

    def build_vision(self, config: VisionLlamaConfig) -> None:
        """InternViT and Linear–GELU–Linear."""
        width = config.text_config.hidden_size
        self.vision_tower = InternViT(config.vision_config)
        self.projector = nn.Sequential(
            nn.Linear(config.vision_config.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )


def load_internvl(
    *, template: str, label: str, batch_size: int, max_context_len: int, max_new_tokens: int, **source: Any
) -> Backbone:
    """Loads an InternVL-Chat of 2023 from its original checkpoint.

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
    return Backbone(
        name=origin.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=clip_processor(SIDE, IMAGENET_MEAN, IMAGENET_STD),
        template=text,
        n_tokens_per_image=image_shape(model.config).tokens,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        background=mean_colour(IMAGENET_MEAN),
    )


def image_shape(config: PreTrainedConfig) -> ImageShape:
    """What an image is to the model of that configuration."""
    vision: Any = config.vision_config
    patches = (SIDE // vision.patch_size) ** 2
    return ImageShape(patches, patches + 1)


def full_size() -> InternVLChatConfig:
    """The configuration of `OpenGVLab/InternVL-Chat-ViT-6B-Vicuna-7B`."""
    text = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    return InternVLChatConfig(
        text_config=text,
        vision_config=InternViTConfig(num_hidden_layers=layers_used({"mm_vision_select_layer": -4}, _TOWER_LAYERS)),
    )


def _read_config(fields: dict[str, Any]) -> InternVLChatConfig:
    """The configuration of a checkpoint; a `vision_config` in it replaces the tower that is only named."""
    for name, wanted in (("mm_projector_type", "mlp2x_gelu"), ("mm_vision_select_feature", "patch")):
        if fields[name] != wanted:
            raise LookmError(f"{name} is {fields[name]!r}; only InternVL-Chat with {wanted!r} can be read")
    if "vision_config" in fields:
        vision = {name: value for name, value in fields["vision_config"].items() if hasattr(InternViTConfig, name)}
    elif str(fields["mm_vision_tower"]).endswith(_TOWER.partition("/")[2]):
        vision = {"num_hidden_layers": _TOWER_LAYERS}
    else:
        raise LookmError(f"mm_vision_tower is {fields['mm_vision_tower']!r}; only {_TOWER} can be read")
    vision["num_hidden_layers"] = layers_used(fields, vision["num_hidden_layers"])
    return InternVLChatConfig(text_config=text_config(fields), vision_config=InternViTConfig(**vision))


LAYOUT = Layout(
    InternVLChat,
    "llava",
    _read_config,
    key_map={**LLAMA_KEYS, **_KEYS},
    unneeded=(*LLAMA_UNNEEDED, r"^vision_tower\.layers\."),
)
