"""MobileVLM V2 (arXiv 2402.03766): CLIP ViT-L/14 at 336 pixels, LDPNetV2, MobileLLaMA; 144 tokens per image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, PreTrainedConfig

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, ImageShape
from lookm.models.clip import clip_processor, mean_colour, vit_l_14_336
from lookm.models.ldpnet import GRID, LDPNetV2
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

_KEYS = {
    r"^model\.vision_tower\.vision_tower\.": "vision_tower.clip.",
    r"^model\.mm_projector\.mlp\.mlp\.0\.": "projector.first.",
    r"^model\.mm_projector\.mlp\.mlp\.2\.": "projector.second.",
    r"^model\.mm_projector\.peg\.peg\.0\.": "projector.positional.",
}
_TOWER = "openai/clip-vit-large-patch14-336"


class MobileVLMConfig(VisionLlamaConfig):
    """As `VisionLlamaConfig`; the vision tower is CLIP's."""

    model_type = "lookm_mobilevlm"
    sub_configs = {"text_config": LlamaConfig, "vision_config": CLIPVisionConfig}  # noqa: RUF012


class ClipTower(nn.Module):
    """CLIP's patches (N, P, C) after its last layer here, before its last norm; CLS is left out."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.clip = CLIPVisionModel(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels (N, 3, S, S) → features (N, P, C)."""
        features: Tensor = self.clip(pixel_values).last_hidden_state[:, 1:]
        return features


class MobileVLM(VisionLlama):
    """MobileLLaMA with CLIP's eyes."""

    config_class = MobileVLMConfig
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer"]  # noqa: RUF012

    def build_vision(self, config: VisionLlamaConfig) -> None:
        """CLIP and LDPNetV2."""
        self.vision_tower = ClipTower(config.vision_config)
        self.projector = LDPNetV2(config.vision_config.hidden_size, config.text_config.hidden_size)


def load_mobilevlm(
    *, template: str, label: str, batch_size: int, max_context_len: int, max_new_tokens: int, **source: Any
) -> Backbone:
    """Loads a MobileVLM V2 from its original checkpoint.

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
        image_processor=clip_processor(model.config.vision_config.image_size),
        template=text,
        n_tokens_per_image=image_shape(model.config).tokens,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=origin.labelled(label),
        background=mean_colour(),
    )


def image_shape(config: PreTrainedConfig) -> ImageShape:
    """What an image is to the model of that configuration."""
    vision: Any = config.vision_config
    return ImageShape(GRID**2, (vision.image_size // vision.patch_size) ** 2 + 1)


def full_size() -> MobileVLMConfig:
    """The configuration of `mtgv/MobileVLM_V2-3B`: MobileLLaMA 2.7B, head size 80."""
    text = LlamaConfig(
        vocab_size=32000,
        hidden_size=2560,
        intermediate_size=6912,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    return MobileVLMConfig(text_config=text, vision_config=_used_layers(vit_l_14_336(), {"mm_vision_select_layer": -2}))


def _read_config(fields: dict[str, Any]) -> MobileVLMConfig:
    """The configuration of a checkpoint; a `vision_config` in it replaces the tower that is only named."""
    for name, wanted in (("mm_projector_type", "ldpnetv2"), ("mm_vision_select_feature", "patch")):
        if fields[name] != wanted:
            raise LookmError(f"{name} is {fields[name]!r}; only MobileVLM V2 with {wanted!r} can be read")
    if "vision_config" in fields:
        vision = CLIPVisionConfig(**fields["vision_config"])
    elif fields["mm_vision_tower"] == _TOWER:
        vision = vit_l_14_336()
    else:
        raise LookmError(f"mm_vision_tower is {fields['mm_vision_tower']!r}; only {_TOWER} can be read")
    return MobileVLMConfig(text_config=text_config(fields), vision_config=_used_layers(vision, fields))


def _used_layers(vision: CLIPVisionConfig, fields: dict[str, Any]) -> CLIPVisionConfig:
    vision.num_hidden_layers = layers_used(fields, vision.num_hidden_layers)
    return vision


LAYOUT = Layout(
    MobileVLM,
    "mobilevlm",
    _read_config,
    key_map={**LLAMA_KEYS, **_KEYS},
    unneeded=(*LLAMA_UNNEEDED, r"^vision_tower\.clip\.(vision_model\.)?encoder\.layers\."),
)
