"""Claims about the rotary embedding that strategies read."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM

from lookm import LookmError, look_once
from lookm.layer import Layer
from lookm.observation import observe_prefill
from lookm.rotary import Rotation
from tests.lookm.models import TEXT, built, prompt


def observed(name: str, inputs: dict[str, Tensor]) -> tuple[list[Layer], list[Tensor]]:
    """Each layer of a model on one prompt, and its queries before the rotary embedding, (Hq, L, D)."""
    model, layers, before = built(name), [], []  # type: ignore[var-annotated]
    padding = int((inputs["attention_mask"] == 0).sum())

    def note(module: Any, args: Any, output: Tensor) -> None:
        before.append(output[0, padding:].unflatten(-1, (4, 16)).transpose(0, 1))

    hooks = [
        module.register_forward_hook(note)
        for path, module in model.get_decoder().named_modules()
        if path.endswith("q_proj")
    ]
    observe_prefill(model, inputs, layers.append)
    for hook in hooks:
        hook.remove()
    return layers, before


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["llama", "grouped", "llava", "qwen2_5_vl"])
def test_queries_before_the_embedding_are_what_the_projection_made(name: str, padded: bool) -> None:
    inputs = prompt(name)
    if padded:
        inputs = dict(inputs)
        for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if key in inputs:
                inputs[key] = torch.nn.functional.pad(inputs[key], (5, 0))
    layers, before = observed(name, inputs)
    assert len(layers) == len(before) == 3
    for layer, queries in zip(layers, before, strict=True):
        torch.testing.assert_close(layer.rotary().before(layer.queries), queries, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl"])
def test_positions_to_come_follow_the_prompt_s_last_one(name: str) -> None:
    layers, _ = observed(name, prompt(name))
    rotation = layers[0].rotary()
    cos, sin = rotation.ahead(3)
    step = Rotation.standard(4, 16, cos.device)
    for n in range(3):  # cos(a + b) and sin(a + b) from the last position's a and the distance b
        expected = rotation.cos[-1] * step.cos[n + 1] - rotation.sin[-1] * step.sin[n + 1]
        torch.testing.assert_close(cos[n], expected, atol=1e-5, rtol=1e-5)
        expected = rotation.sin[-1] * step.cos[n + 1] + rotation.cos[-1] * step.sin[n + 1]
        torch.testing.assert_close(sin[n], expected, atol=1e-5, rtol=1e-5)


def test_a_layer_without_a_model_has_the_standard_embedding() -> None:
    layers, _ = observed("llama", prompt("llama"))
    standard = Rotation.standard(layers[0].length, 16, torch.device("cpu"))
    torch.testing.assert_close(layers[0].rotary().cos, standard.cos, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layers[0].rotary().sin, standard.sin, atol=1e-5, rtol=1e-5)


def test_an_embedding_that_turns_neighbouring_channels_is_refused() -> None:
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(**{**TEXT, "num_key_value_heads": 4})).eval()
    ids = torch.arange(2, 60)[None]
    with look_once(model, "expected_attention"), pytest.raises(LookmError, match="does not turn halves of channels"):
        model(input_ids=ids)
    with look_once(model, "streaming"):
        model(input_ids=ids)
