"""A LLaMA that sees: vision tower → projector → the embeddings of image tokens. Base of MobileVLM and InternVL-Chat."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import GenerationMixin, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from lookm.errors import LookmError
from lookm.models.family import Family, mean_colour

LLAMA_KEYS = {
    r"^model\.(embed_tokens|layers|norm)\.": r"language_model.model.\1.",
    r"^lm_head\.": "language_model.lm_head.",
}
"""The LLaMA's tensor names in LLaVA's original code → ours."""
LLAMA_UNNEEDED = (r"rotary_emb\.inv_freq$", r"embeddings\.position_ids$")
"""Tensors that old versions of transformers saved though they follow from the configuration."""
_TEXT_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "rope_theta", "rope_scaling"),
)


class VisionLlamaConfig(PreTrainedConfig):
    """Text and vision configurations, and the image token.

    The image token's id is the vocabulary's size: no text can have it, and the model cannot produce it.

    Attributes:
        vision_config: of the vision tower, whose layers are only those that are used.
    """

    model_type = "lookm_vision_llama"
    sub_configs = {"text_config": LlamaConfig, "vision_config": PreTrainedConfig}  # noqa: RUF012

    text_config: Any = None
    vision_config: Any = None

    @property
    def image_token_id(self) -> int:
        """The token that stands for a part of an image."""
        return int(self.text_config.vocab_size)


class VisionLlama(PreTrainedModel, GenerationMixin):
    """Image tokens of the prompt are replaced by projected image features; all else is `LlamaForCausalLM`.

    Subclasses make `vision_tower`, from pixels (N, 3, S, S) to features (N, P, C), and `projector`, from these to
    (N, tokens per image, width).
    """

    config_class = VisionLlamaConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    vision_tower: nn.Module
    projector: nn.Module

    def __init__(self, config: VisionLlamaConfig) -> None:
        super().__init__(config)
        self.build_vision(config)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    @abstractmethod
    def build_vision(self, config: VisionLlamaConfig) -> None:
        """Sets `vision_tower` and `projector`; every backbone has its own."""

    def get_input_embeddings(self) -> nn.Module:
        """The LLaMA's token embeddings."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The LLaMA's head."""
        return self.language_model.lm_head

    def get_decoder(self) -> PreTrainedModel:
        """The LLaMA without its head."""
        return self.language_model.model

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Embeddings of the image tokens, (N, tokens per image, width), of pixels (N, 3, S, S)."""
        features: Tensor = self.projector(self.vision_tower(pixel_values))
        return features

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of a batch.

        Args:
            input_ids: (B, L); image tokens are `config.image_token_id`.
            pixel_values: (all images, 3, S, S) of the prompts' images in their order, or None.
            attention_mask: (B, L).
            inputs_embeds: (B, L, width) in place of `input_ids`.
            **kwargs: what `LlamaForCausalLM` takes.

        Raises:
            LookmError: as many image tokens as the images have features are not there.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            is_image = input_ids == self.config.image_token_id
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
            if pixel_values is not None:
                features = self.image_features(pixel_values).flatten(0, 1)
                if len(features) != int(is_image.sum()):
                    raise LookmError(
                        f"the prompts have {int(is_image.sum())} image tokens, but the images have {len(features)}"
                    )
                features = features.to(inputs_embeds.device, inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(is_image[..., None], features)
        output: CausalLMOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs
        )
        return output

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Arguments of `forward` for the next step; the images are only read with the prompt."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        cache = inputs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            inputs.pop("pixel_values", None)
        return inputs


@dataclass(frozen=True)
class VisionLlamaFamily(Family):
    """Checkpoints of LLaVA's original code: all fields in one place, the vision tower named or in a `vision_config`.

    Attributes:
        projector: what `mm_projector_type` must be.
        tower: the repository that `mm_vision_tower` must name where there is no `vision_config`.
    """

    projector: ClassVar[str]
    tower: ClassVar[str]
    tower_config: ClassVar[Mapping[str, Any]]
    background = mean_colour()

    def read_config(self, config: dict[str, Any]) -> PreTrainedConfig:
        _require(config, mm_projector_type=self.projector, mm_vision_select_feature="patch")
        if "vision_config" not in config:
            _require(config, mm_vision_tower=self.tower)
        config_class: Any = self.model_class.config_class
        vision_class = config_class.sub_configs["vision_config"]
        given = config.get("vision_config", self.tower_config)
        vision = vision_class(**{name: value for name, value in given.items() if hasattr(vision_class, name)})
        # Hidden state 0 is the embeddings and -1 the last layer's output, so -2 needs all layers but one.
        chosen = int(config["mm_vision_select_layer"])
        vision.num_hidden_layers = chosen if chosen >= 0 else vision.num_hidden_layers + 1 + chosen
        text = LlamaConfig(**{name: config[name] for name in _TEXT_FIELDS if config.get(name) is not None})
        return config_class(text_config=text, vision_config=vision)


def _require(fields: dict[str, Any], **values: str) -> None:
    """Refuses a checkpoint of another kind; a local copy of a repository may stand for it.

    Raises:
        LookmError: a field of `config.json` has another value.
    """
    for name, value in values.items():
        if str(fields[name]).rpartition("/")[2] != value.rpartition("/")[2]:
            raise LookmError(f"{name} is {fields[name]!r}; only checkpoints with {value!r} can be read")
