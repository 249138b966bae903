"""The computed memory: weights and cache exactly, the prefill's workspace within a third of what is allocated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from lookm import load_strategy, look_once
from lookm.blocks import CPU_ELEMENTS
from lookm.models.backbone import ImageShape
from lookm.models.family import Family, family_of
from lookm.models.memory import (
    blueprint,
    decoder_workspace,
    memory_need,
    prompt_of,
    vision_workspace,
    weight_bytes,
)

LLAVA = {"family": "llava", "size": "7b"}
GIB = 2**30


def shrunk(family: Family, config: Any, kv_heads: int) -> PreTrainedModel:
    """The architecture with few narrow layers."""
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size = 256, 704, 4, 1000
    text.num_attention_heads, text.num_key_value_heads = 4, kv_heads
    vision.hidden_size, vision.intermediate_size, vision.num_attention_heads, vision.num_hidden_layers = 64, 256, 2, 3
    config.image_token_id = 999
    torch.manual_seed(0)
    model: PreTrainedModel = family.model_class._from_config(config, dtype=torch.float32).eval()
    return model


def allocated_peak(run: Callable[[], object]) -> int:
    """The most bytes that torch held at once for a call, beside what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("strategy", ["full", "h2o", "tp_pmerge"])
@pytest.mark.parametrize("name", ["llava", "internvl3"])
def test_the_workspace_is_within_a_third_of_what_is_allocated(name: str, strategy: str) -> None:
    family = family_of(LLAVA if name == "llava" else {"family": "internvl3"})
    config = family.full_size()
    model, image = shrunk(family, config, 4 if name == "llava" else 1), family.image_shape(config)
    length = 1500
    vision: Any = config.vision_config
    is_image = prompt_of(length, image.tokens)
    n_images = int(is_image.sum()) // image.tokens
    ids = torch.where(is_image, 999, torch.arange(length) % 900)[None]
    pixels = torch.randn(n_images, 3, *([336] * 2 if name == "llava" else vision.image_size))

    def prefill() -> None:
        with look_once(model, strategy), torch.inference_mode():
            model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), logits_to_keep=1)

    prefill()
    need = memory_need(model, image, load_strategy(strategy), length, torch.float32)
    decoder = decoder_workspace(config.text_config, length, need.kept_tokens, torch.float32, CPU_ELEMENTS)
    layer = (length - need.kept_tokens) * (need.cache // need.kept_tokens) // 4
    encoder = vision_workspace(vision, image, n_images, torch.float32)
    computed = max(encoder, need.cache + layer + decoder)
    assert allocated_peak(prefill) == pytest.approx(computed, rel=1 / 3)


def test_the_numbers_of_llava_7b_are_those_of_hand_calculation() -> None:
    model, image = blueprint(LLAVA)
    assert image == ImageShape(576, 577)
    full, kept = (
        memory_need(model, image, load_strategy(name, alpha1=0.1, alpha2=0.1), 4096, torch.bfloat16)
        for name in ("full", "tp_pmerge")
    )
    assert full.cache == 2 * GIB  # keys and values of 32 layers, 32 heads of 128, 4,096 tokens, 2 bytes
    assert kept.kept_tokens == 2 * 409
    assert kept.cache == 2 * GIB * 818 // 4096
    assert full.weights == 2 * 7_063_427_072  # two bytes a parameter
    assert full.peak == full.weights + full.cache + full.workspace
    assert kept.peak < full.peak


def test_quantization_packs_the_language_models_linear_layers_only() -> None:
    model, _ = blueprint(LLAVA)
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rows = 32 * (5 * 4096 + 2 * 11008)
    plain = weight_bytes(model, torch.bfloat16)
    assert weight_bytes(model, torch.bfloat16, "8bit") == plain - linear + 4 * rows
    assert weight_bytes(model, torch.bfloat16, "4bit") == plain - 2 * linear + linear // 2 + linear // 16


@pytest.mark.parametrize(("length", "images"), [(4096, 7), (639, 0), (640, 1), (10, 0)])
def test_the_prompt_is_images_but_for_64_tokens_of_text(length: int, images: int) -> None:
    is_image = prompt_of(length, 576)
    assert (len(is_image), int(is_image.sum())) == (length, images * 576)
    if images:
        assert not is_image[0]
        assert not is_image[-1]
