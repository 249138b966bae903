"""The model that is meant, and its text decoder, whose layers are compressed."""

from collections.abc import Collection
from numbers import Integral
from typing import Any

from torch import nn
from transformers import DynamicCache, Pipeline, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lookm.errors import LookmError
from lookm.prompt import image_token_ids

KNOWN_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "LinearAttentionLayer", "DummyLayer"}
"""Kinds of layers of transformers' caches: the first is compressed, the others stay as they are."""


def image_ids_of(model: PreTrainedModel, given: Collection[int] | None) -> tuple[int, ...]:
    """The tokens that stand for images, as given or as the model's configuration says."""
    if given is None:
        return image_token_ids(model.config)
    if isinstance(given, str) or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in given):
        raise LookmError(f"image_token_ids={given!r} are not token ids; give integers, such as (32000,)")
    return tuple(int(i) for i in given)


def model_of(model: Any) -> PreTrainedModel:
    """The model that is meant: a pipeline's, what `torch.compile` wraps, or the model itself (PEFT's wrapper too)."""
    model = model.model if isinstance(model, Pipeline) else model
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module) or not hasattr(model, "get_decoder"):
        raise LookmError(f"{model!r} is no transformers model; give the model that generates")
    return model  # type: ignore[return-value]


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The text decoder whose layers are compressed; refuses models that cannot be."""
    if model.config.is_encoder_decoder:
        raise LookmError(f"{type(model).__name__} is an encoder–decoder; look_once compresses decoder-only models")
    _check_layers(model)
    decoder: Any = model.get_decoder()
    decoder = decoder if isinstance(decoder, PreTrainedModel) else model.base_model
    if not decoder._can_set_attn_implementation():
        raise LookmError(f"{type(decoder).__name__} does not use transformers' attention interface")
    return decoder


def _check_layers(model: PreTrainedModel) -> None:
    """Refuse caches whose layers are something else than keys and values of their own, or states."""
    text = model.config.get_text_config(decoder=True)
    reason = None
    if getattr(text, "kv_lora_rank", None) is not None or text.model_type == "jetmoe":
        reason = "caches something else than the keys and values of its attention (MLA, or shared by experts)"
    elif getattr(text, "num_kv_shared_layers", None):
        reason = "has layers that use other layers' caches"
    else:
        layers = DynamicCache(config=model.config).layers
        other = {type(layer).__name__ for layer in layers if getattr(layer, "keys", None) is None} - KNOWN_LAYERS
        if other:
            reason = f"has layers of a kind that look_once does not know ({', '.join(sorted(other))})"
        elif not any(isinstance(layer, DynamicLayer) for layer in layers):
            reason = "has no layer with attention"
    if reason is not None:
        raise LookmError(f"{type(model).__name__} {reason}, which look_once does not compress")


def way_to(decoder: nn.Module, model: nn.Module) -> list[nn.Module]:
    """The modules from the model to its decoder, both included."""
    name = next(name for name, module in model.named_modules() if module is decoder)
    steps = name.split(".") if name else []
    return [model.get_submodule(".".join(steps[:n])) for n in range(len(steps) + 1)]
