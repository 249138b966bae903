"""One loader for all backbones; what differs between them is a `Family`, one small file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, ImageShape
from lookm.models.source import Source
from lookm.models.templates import template_text

FAMILIES = {
    "internvl": "InternVLChatFamily",
    "internvl3": "InternVL3Family",
    "llava": "LlavaFamily",
    "llava_onevision": "OnevisionFamily",
    "mobilevlm": "MobileVLMFamily",
    "qwen2_5vl": "QwenFamily",
}
"""File in this folder → its family."""


@dataclass(frozen=True)
class Family(ABC):
    """A kind of backbone: how its checkpoint is read and what an image is to it. Fields are fields of its YAML.

    Attributes:
        model_class: the model's class.
        model_type: what the checkpoint's `config.json` calls itself.
        key_map: regular expressions for the checkpoint's tensor names → what the model calls them.
        unneeded: regular expressions for tensors that may be there though the model has no use for them.
        backbone_class: how prompts and images become inputs.
        background: images are padded to squares of this colour; None leaves their shape to the image processor.
        around_image: texts before and after each image, special tokens of the tokenizer.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    key_map: ClassVar[Mapping[str, str] | None] = None
    unneeded: ClassVar[tuple[str, ...]] = ()
    backbone_class: ClassVar[type[Backbone]] = Backbone
    background: ClassVar[tuple[int, int, int] | None] = None
    around_image: ClassVar[tuple[str, str]] = ("", "")

    @abstractmethod
    def full_size(self) -> PreTrainedConfig:
        """The configuration that `weights=random` builds."""

    @abstractmethod
    def image_shape(self, config: Any) -> ImageShape:
        """What an image (of the largest size) is to the model of that configuration."""

    @abstractmethod
    def image_processor(self, config: Any) -> BaseImageProcessor:
        """What turns RGB images into `pixel_values` for the model of that configuration."""

    def read_config(self, config: dict[str, Any]) -> PreTrainedConfig:
        """The model's configuration from the fields of `config.json`.

        Raises:
            KeyError, TypeError, ValueError: they do not fit.
        """
        config_class: Any = self.model_class.config_class
        return config_class.from_dict(config)


def family_of(model_config: Mapping[str, Any]) -> Family:
    """The family of a model, with its fields.

    Args:
        model_config: fields of a model's YAML; those of other purposes are passed over.

    Raises:
        LookmError: no such family, or a field with a wrong value.
    """
    name = model_config.get("family")
    if name not in FAMILIES:
        raise LookmError(f"unknown family {name!r} of backbones; choose one of {', '.join(FAMILIES)}")
    kind: type[Family] = getattr(import_module(f"lookm.models.{name}"), FAMILIES[name])
    options = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in model_config.items() if key in options})


def load_backbone(
    *,
    family: str,
    template: str,
    label: str,
    batch_size: int,
    max_context_len: int,
    max_new_tokens: int,
    **options: Any,
) -> Backbone:
    """Loads a backbone.

    Args:
        family: a key of FAMILIES.
        template: name of the conversation template.
        label: what tables call the model.
        batch_size: prompts per `generate` call.
        max_context_len: longest prompt in tokens, template not counted.
        max_new_tokens: longest answer in tokens.
        **options: the fields of the family and those of `Source`.

    Raises:
        LookmError: weights missing or not fitting, or a field with a wrong value.
    """
    from lookm.models.loading import load

    text = template_text(template)
    kind = family_of({"family": family, **options})
    own = {field.name for field in fields(kind)}
    source = Source(**{key: value for key, value in options.items() if key not in own})
    model, tokenizer = load(kind, source)
    marks = sum(len(tokenizer(mark, add_special_tokens=False)["input_ids"]) for mark in kind.around_image if mark)
    return kind.backbone_class(
        name=source.name,
        model=model,
        tokenizer=tokenizer,
        image_processor=kind.image_processor(model.config),
        template=text,
        n_tokens_per_image=kind.image_shape(model.config).tokens + marks,
        max_context_len=max_context_len,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label=source.labelled(label),
        background=kind.background,
        around_image=kind.around_image,
    )
