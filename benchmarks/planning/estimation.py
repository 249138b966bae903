"""What a model costs on a GPU that is not here: times and bytes from its architecture, with every assumption named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lookm.models.family import family_of
from lookm.strategy import Strategy


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: dense 16-bit tensor throughput in FLOP/s, memory in bytes and bytes/s."""

    label: str
    flops: float
    memory: float
    bandwidth: float


GPUS = {
    "rtx3090": Gpu("RTX 3090", 71e12, 24e9, 936e9),
    "rtx4090": Gpu("RTX 4090", 165e12, 24e9, 1008e9),
    "a100": Gpu("A100 80 GB", 312e12, 80e9, 2039e9),
    "h100": Gpu("H100 SXM", 989e12, 80e9, 3350e9),
    "h200": Gpu("H200 SXM", 989e12, 141e9, 4800e9),
}
COMPUTE_SHARE = 0.4
"""Assumed share of the data sheet's FLOP/s that a prefill reaches."""
BANDWIDTH_SHARE = 0.6
"""Assumed share of the data sheet's bandwidth that a decode step reaches."""
ANSWER_TOKENS = 64
"""Assumed tokens of a mean answer, where no run of the model tells."""
CHARACTERS_PER_TOKEN = 4.0
"""Assumed length of a text token, where there is no tokenizer."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a vision-language model.

    Attributes:
        layers, hidden, heads, kv_heads, head_size: of the text decoder.
        text_parameters: of the text decoder, its embeddings and its head.
        vision_parameters: of the vision tower; vision_tokens: patches of one image in it.
        image_tokens: tokens of one image in the prompt.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    text_parameters: int
    vision_parameters: int
    vision_tokens: int
    image_tokens: int

    def cache_bytes(self, tokens: float, dtype: str) -> float:
        """Keys and values of so many tokens in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * _BYTES[dtype] * tokens


@dataclass(frozen=True)
class Cost:
    """Seconds of one prompt under several strategies: computed together, and each in a job of its own."""

    together: float
    apart: float


def architecture_of(model_config: Mapping[str, Any]) -> Architecture:
    """The sizes of a model, from the configuration that its module builds at full size; needs no weights.

    Args:
        model_config: fields of the model's YAML.

    Raises:
        LookmError: a model whose module has no `full_size`.
    """
    family = family_of(model_config)
    return read_architecture(family.full_size(), import_module(type(family).__module__), model_config)


def read_architecture(config: Any, module: Any, model_config: Mapping[str, Any]) -> Architecture:
    """As `architecture_of`, from a transformers configuration with a text and a vision part."""
    text, vision = config.get_text_config(), config.vision_config
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    per_layer = (
        text.hidden_size * (2 * heads + 2 * kv_heads) * head_size + 3 * text.hidden_size * text.intermediate_size
    )
    side = getattr(module, "SIDE", None) or _number(getattr(vision, "image_size", 336))
    patches = (side // _number(vision.patch_size)) ** 2
    layers = getattr(vision, "num_hidden_layers", None) or vision.depth
    tower = layers * (4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size)
    grid = getattr(module, "GRID", None)
    image_tokens = model_config.get("max_image_tokens") or (
        grid**2 if grid else getattr(config, "image_seq_length", None) or patches
    )
    return Architecture(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        text_parameters=text.num_hidden_layers * per_layer + 2 * text.vocab_size * text.hidden_size,
        vision_parameters=tower,
        vision_tokens=patches,
        image_tokens=int(image_tokens),
    )


def prompt_cost(
    model: Architecture,
    gpu: Gpu,
    strategies: Sequence[Strategy],
    *,
    tokens: float,
    images: float,
    answer_tokens: float,
    dtype: str,
) -> Cost:
    """Seconds that one prompt takes.

    Prefill: 2 FLOPs per parameter and token, and causal attention; compression: one more Q Kᵀ per strategy and layer;
    decode: the weights and what is left of the caches are read once per step.

    Args:
        model: its sizes.
        gpu: where it runs.
        strategies: how to compress.
        tokens: of the prompt, its images included.
        images: in the prompt.
        answer_tokens: of the answer.
        dtype: of weights and cache.
    """
    attention = 2 * tokens**2 * model.heads * model.head_size * model.layers  # causal: half of QKᵀ and of AV
    vision = 2 * model.vision_parameters * model.vision_tokens * images
    prefill = (2 * model.text_parameters * tokens + attention + vision) / (gpu.flops * COMPUTE_SHARE)
    statistics = attention / 2 / (gpu.flops * COMPUTE_SHARE)
    weights = model.text_parameters * _BYTES[dtype] / (gpu.bandwidth * BANDWIDTH_SHARE)
    caches = [
        model.cache_bytes(strategy.nominal_budget * tokens + answer_tokens / 2, dtype)
        / (gpu.bandwidth * BANDWIDTH_SHARE)
        for strategy in strategies
    ]
    compressions = statistics * sum(strategy.nominal_budget < 1 for strategy in strategies)
    return Cost(
        together=prefill + compressions + answer_tokens * (weights + sum(caches)),
        apart=len(strategies) * (prefill + answer_tokens * weights) + compressions + answer_tokens * sum(caches),
    )


def memory_bytes(
    model: Architecture, strategies: Sequence[Strategy], *, tokens: float, batch_size: int, dtype: str
) -> float:
    """Peak bytes while a batch of longest prompts is computed under all strategies together.

    Weights, what every strategy keeps, one layer in full, and the activations of one layer (8 times the hidden states,
    a rule of thumb).
    """
    weights = (model.text_parameters + model.vision_parameters) * _BYTES[dtype]
    kept = sum(model.cache_bytes(strategy.nominal_budget * tokens, dtype) for strategy in strategies)
    layer = model.cache_bytes(tokens, dtype) / model.layers
    activations = 8 * tokens * model.hidden * _BYTES[dtype]
    return weights + batch_size * (kept + layer + activations)


def _number(value: Any) -> int:
    """Some configurations give a side as (height, width)."""
    return int(value[0] if isinstance(value, list | tuple) else value)
