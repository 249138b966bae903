"""Unusual calls are right, or refused in one line; and it is said where nothing is compressed."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, TextGenerationPipeline

from lookm import BudgetError, LookmError, load_strategy, look_once
from lookm.prompt import image_token_ids
from tests.lookm.models import IMAGE, TEXT, built, llama, prompt
from tests.lookm.rounding import assert_close, pass_error


def test_a_budget_error_is_a_lookm_error() -> None:
    assert issubclass(BudgetError, LookmError)


@pytest.mark.parametrize("thing", [None, "llama", 3])
def test_what_is_no_model_is_refused_in_one_line(thing: Any) -> None:
    with pytest.raises(LookmError, match=f"{thing!r} is no transformers model"), look_once(thing, "h2o"):
        pass


def test_a_pipeline_means_its_model() -> None:
    model, inputs = built("llama"), prompt("llama")
    pipeline = TextGenerationPipeline.__new__(TextGenerationPipeline)
    pipeline.model = model
    with look_once(pipeline, "h2o") as session:
        model(**inputs)
    assert session.report().kept_tokens[0] == (6,)


def test_numpy_s_numbers_are_numbers() -> None:
    strategy = load_strategy("snapkv", alpha1=np.float32(0.7), alpha2=np.float64(0.1), kernel=np.int64(3))
    assert (strategy.alpha1, strategy.alpha2, strategy.kernel) == (0.7, 0.1, 3)
    assert {type(strategy.alpha1), type(strategy.alpha2), type(strategy.kernel)} == {float, int}
    with pytest.raises(LookmError, match="is not a share"):
        load_strategy("h2o", alpha1=np.float32("nan"))


@pytest.mark.parametrize("name", ["llama", "grouped"])
def test_float64_is_compressed_as_float32_is(name: str) -> None:
    model, inputs = built(name), prompt(name)
    with look_once(model, "p_merge", alpha1=0.1, alpha2=0.1):
        single = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    with look_once(model.double(), "p_merge", alpha1=0.1, alpha2=0.1) as session:
        double = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        cache = model(**inputs).past_key_values
    model.float()
    assert double.equal(single)
    assert cache.layers[0].keys.dtype == torch.float64
    assert session.report().kept_tokens[0] == (6,)


def test_attention_weights_are_refused_with_the_way_to_see_them() -> None:
    model, inputs = built("llama"), prompt("llama")
    with look_once(model, "h2o"), pytest.raises(LookmError, match="output_attentions is not available"):
        model(**inputs, output_attentions=True)


def test_a_backward_pass_through_decode_steps_equals_that_of_the_full_cache() -> None:
    model, inputs = llama(), prompt("llama")
    gradients = []
    for block in (False, True):
        model.zero_grad()
        cache: dict[str, Any] = {}
        session = look_once(model, "full")
        if block:
            session.__enter__()
        loss = torch.zeros(())
        for tokens in (inputs["input_ids"], torch.tensor([[5]]), torch.tensor([[6]])):
            output = model(input_ids=tokens, use_cache=True, **cache)
            cache = {"past_key_values": output.past_key_values}
            loss = loss + output.logits[:, -1].logsumexp(-1).sum()
        loss.backward()
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad.clone())
        if block:
            session.__exit__(None, None, None)
    error = 4 * pass_error(model, inputs["input_ids"].shape[1] + 2)  # forth and back, both rounded
    assert_close(gradients[0], gradients[1], absolute=error * gradients[1].abs().max())


def test_with_classifier_free_guidance_the_report_is_that_of_the_prompt() -> None:
    model, inputs = built("llama"), prompt("llama")
    arguments = {**inputs, "max_new_tokens": 6, "do_sample": False, "guidance_scale": 2.0}
    plain = model.generate(**arguments, negative_prompt_ids=torch.arange(2, 12)[None])
    with look_once(model, "full") as session:
        assert model.generate(**arguments, negative_prompt_ids=torch.arange(2, 12)[None]).equal(plain)
    assert session.report().prompt_tokens == (35,)


def test_it_is_said_once_when_nothing_is_compressed() -> None:
    model, inputs = built("llama"), prompt("llama")
    with warnings.catch_warnings(record=True) as caught, look_once(model, "tp") as session:
        warnings.simplefilter("always")
        model.generate(**inputs, max_new_tokens=3)
        model.generate(**inputs, max_new_tokens=3)
    said = [str(warning.message) for warning in caught if "compressed nothing" in str(warning.message)]
    assert said == [
        "tp compressed nothing of a prompt: no image token (none is known) is in it; image_token_ids=… says which are"
    ]
    assert session.report().realised_budget == (1.0,)


@pytest.mark.parametrize("strategy", ["full", "h2o"])
def test_nothing_is_said_when_nothing_was_to_be_compressed_or_something_was(strategy: str) -> None:
    model, inputs = built("llama"), prompt("llama")
    with warnings.catch_warnings(), look_once(model, strategy):
        warnings.simplefilter("error")
        model(**inputs)


def test_image_token_ids_say_what_a_language_model_s_configuration_does_not() -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, "tp", alpha1=0.1, alpha2=0.1) as session:
        model(**inputs)
    expected = session.report()
    text = built("llama")
    with look_once(text, "tp", alpha1=0.1, alpha2=0.1, image_token_ids=[IMAGE]) as session:
        text(input_ids=inputs["input_ids"])
    assert session.report().image_tokens == expected.image_tokens == (32,)
    assert session.report().kept_tokens == expected.kept_tokens
    with pytest.raises(LookmError, match=r"image_token_ids='97' are not token ids"):  # noqa: SIM117
        with look_once(text, "tp", image_token_ids="97"):
            pass


def test_ids_of_images_videos_and_audio_are_found_wherever_the_configuration_has_them() -> None:
    config = built("llava").config.__class__()
    config.image_token_id, config.audio_token_id = 7, 8
    config.vision_config.image_token_id, config.vision_config.video_token_index = 9, 10
    assert {7, 8, 9, 10} <= set(image_token_ids(config))


def test_attention_that_is_not_causal_is_as_the_model_means_it() -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**TEXT, num_key_value_heads=2, is_causal=False)).eval()
    inputs = prompt("llama")
    plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    with look_once(model, "full"):
        assert model.generate(**inputs, max_new_tokens=6, do_sample=False).equal(plain)
    with look_once(model, "roco"), pytest.raises(LookmError, match="are defined for causal attention"):
        model(**inputs)
