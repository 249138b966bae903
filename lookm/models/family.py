"""One loader for all backbones; what differs between them is a `Family`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from transformers import CLIPImageProcessorPil, PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from lookm.errors import LookmError
from lookm.models.backbone import Backbone, ImageShape
from lookm.models.source import Source
from lookm.models.templates import template_text

FAMILIES = {
    "internvl": "internvl.InternVLChatFamily",
    "internvl3": "internvl.InternVL3Family",
    "llava": "llava.LlavaFamily",
    "llava_onevision": "llava.OnevisionFamily",
    "mobilevlm": "mobilevlm.MobileVLMFamily",
    "qwen2_5vl": "qwen2_5vl.QwenFamily",
}
"""Name in a model's YAML → file and class in this folder."""
FULL_SIZES = Path(__file__).with_name("full_sizes.json")
"""Repository → its `config.json`, as far as it decides the architecture."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family(ABC):
    """A kind of backbone: how its checkpoint is read and what an image is to it. Fields are fields of its YAML.

    Attributes:
        repository: the checkpoint on the Hub whose size `weights=random` builds, a key of `FULL_SIZES`.
        model_type: what the checkpoint's `config.json` calls itself.
        key_map: regular expressions for the checkpoint's tensor names → what the model calls them.
        unneeded: regular expressions for tensors that may be there though the model has no use for them.
        backbone_class: how prompts and images become inputs.
        background: images are padded to squares of this colour; None leaves their shape to the image processor.
        around_image: texts before and after each image, special tokens of the tokenizer.
    """

    repository: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    key_map: ClassVar[Mapping[str, str] | None] = None
    unneeded: ClassVar[tuple[str, ...]] = ()
    backbone_class: ClassVar[type[Backbone]] = Backbone
    background: ClassVar[tuple[int, int, int] | None] = None
    around_image: ClassVar[tuple[str, str]] = ("", "")

    def full_size(self) -> PreTrainedConfig:
        """The configuration that `weights=random` builds."""
        return self.read_config(json.loads(FULL_SIZES.read_text(encoding="utf-8"))[self.repository])

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
    module, _, class_name = FAMILIES[name].partition(".")
    kind: type[Family] = getattr(import_module(f"lookm.models.{module}"), class_name)
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
        max_context_len: longest prompt in tokens, template not counted.
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
