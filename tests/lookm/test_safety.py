"""The model is as before after `look_once`; what cannot work is refused in one line; nothing is held in full."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, MistralConfig, MistralForCausalLM, PreTrainedModel

from lookm import BudgetError, LookmError, load_strategy, look_once
from lookm.cache import LookOnceCache
from lookm.compressed_layer import CompressedLayer
from tests.lookm.models import TEXT, built, left_padded, llama, prompt


def state(model: PreTrainedModel) -> tuple[Any, ...]:
    """All that `look_once` touches."""
    return (
        model.config._attn_implementation,
        model.get_decoder().config._attn_implementation,
        len(model._forward_pre_hooks),
        len(model._forward_hooks),
        model.forward,
    )


@pytest.mark.parametrize("name", ["llama", "llava", "qwen2_5_vl"])
@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_the_model_is_as_before_afterwards(name: str, before: str) -> None:
    model, inputs = built(name), prompt(name)
    model.set_attn_implementation(before)
    plain, untouched = model.generate(**inputs, max_new_tokens=6, do_sample=False), state(model)
    with look_once(model, "tp_pmerge"):
        model.generate(**inputs, max_new_tokens=6, do_sample=False)
        assert state(model) != untouched
    assert state(model) == untouched
    assert model.generate(**inputs, max_new_tokens=6, do_sample=False).equal(plain)
    model.set_attn_implementation("sdpa")


def test_the_model_is_as_before_after_an_exception_inside_the_model() -> None:
    model, inputs = built("llava"), prompt("llava")
    untouched = state(model)
    with pytest.raises(IndexError), look_once(model, "tp_pmerge"):
        model.generate(**{**inputs, "input_ids": inputs["input_ids"] + 90})
    assert state(model) == untouched


def test_the_innermost_block_counts_and_the_outer_one_returns() -> None:
    model, inputs = built("llava"), prompt("llava")
    untouched = state(model)
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as outer:
        model(**inputs)
        with look_once(model, "full") as inner:
            model(**inputs)
            assert inner.report().realised_budget == (1.0,)
            assert outer.report().kept_tokens[0] == (12,)
        model(**prompt("llava", (40,)))
        assert outer.report().kept_tokens[0] == (8,)
        assert inner.report().prompt_tokens == (67,)
    assert state(model) == untouched


def test_blocks_on_two_models_do_not_meet() -> None:
    first, second = llama(seed=1), llama(seed=2)
    inputs = prompt("llama")
    with look_once(first, "h2o") as a, look_once(second, "full") as b:
        first(**inputs)
        second(**inputs)
    assert a.report().kept_tokens[0] == (6,)
    assert b.report().kept_tokens[0] == (35,)


def test_leaving_in_the_wrong_order_still_restores_the_model() -> None:
    model = built("llama")
    untouched = state(model)
    first, second = look_once(model, "h2o"), look_once(model, "full")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert state(model) == untouched


def test_a_model_outside_that_shares_a_configuration_object_is_plain() -> None:
    first = llama()
    second = type(first)(first.config).eval()
    inputs = prompt("llama")
    plain = second(**inputs).logits
    with look_once(first, "h2o") as session:
        assert second(**inputs).logits.equal(plain)
        with look_once(second, "full"):
            second(**inputs)
        first(**inputs)
    assert session.report().kept_tokens[0] == (6,)
    assert state(first)[0] == state(second)[0] == "sdpa"


class Squares(TorchDispatchMode):
    """Notes every tensor with two dimensions of the prompt's length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.found = length, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and sum(size >= self.length for size in tensor.shape) > 1:
                self.found.add(f"{func} {tuple(tensor.shape)}")
        return out


@pytest.mark.parametrize("strategy", ["h2o", "snapkv", "roco", "tp_pmerge"])
def test_no_tensor_has_the_prompt_s_length_twice(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookm.blocks.CPU_ELEMENTS", 1 << 14)
    model = built("llama")
    batch = left_padded([prompt("llama", (300,)), prompt("llama", (230,))])
    with look_once(model, strategy, alpha1=0.1, alpha2=0.3), Squares(230) as squares:
        model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert squares.found == set()


def test_the_detector_of_squares_sees_the_plain_mask() -> None:
    model = built("llama")
    batch = left_padded([prompt("llama", (300,)), prompt("llama", (230,))])
    with Squares(230) as squares:
        model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert squares.found


def test_at_most_one_layer_is_held_in_full() -> None:
    model, inputs = built("llama"), prompt("llama", (100,))
    held: list[int] = []
    original = CompressedLayer.compress

    def counting(layer: CompressedLayer, *args: Any) -> Any:
        held.append(sum(other.keys is not None and other.keys.shape[-2] == 100 for other in cache.layers))
        return original(layer, *args)

    with look_once(model, "h2o"), pytest.MonkeyPatch.context() as patch:
        cache = None

        def remember(module: Any, args: Any, kwargs: Any) -> None:
            nonlocal cache
            cache = kwargs["past_key_values"]

        hook = model.register_forward_pre_hook(remember, with_kwargs=True)
        patch.setattr(CompressedLayer, "compress", counting)
        model(**inputs)
        hook.remove()
    assert held == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"use_cache": False}, "use_cache=False"),
        ({"cache_implementation": "static"}, "drop cache_implementation"),
    ],
)
def test_ways_to_generate_that_cannot_be_compressed_are_refused(call: dict[str, Any], message: str) -> None:
    model = built("llama")
    repeated = torch.arange(2, 12).repeat(1, 4)
    with look_once(model, "h2o"), pytest.raises(LookmError, match=message):
        model.generate(input_ids=repeated, max_new_tokens=8, do_sample=False, **call)


def test_a_cache_that_already_holds_tokens_is_refused() -> None:
    model, inputs = built("llama"), prompt("llama")
    with torch.no_grad():
        prefix = model(**inputs).past_key_values
    assert isinstance(prefix, DynamicCache)
    with look_once(model, "h2o"), pytest.raises(LookmError, match="a cache of 35 tokens was given"):
        model(input_ids=torch.tensor([[5]]), past_key_values=prefix)


def test_right_padding_is_refused_with_the_way_out() -> None:
    model = built("llama")
    ids = torch.randint(2, 90, (2, 10))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    with look_once(model, "h2o"), pytest.raises(LookmError, match="pad prompts on the left"):
        model(input_ids=ids, attention_mask=mask)


def test_embeddings_alone_are_enough_for_text_but_not_for_images() -> None:
    text, vision = built("llama"), built("llava")
    with look_once(text, "h2o") as session:
        text(inputs_embeds=torch.randn(1, 30, 64))
    assert session.report().kept_tokens[0] == (6,)
    with look_once(vision, "h2o"), pytest.raises(LookmError, match="pass input_ids"):
        vision(inputs_embeds=torch.randn(1, 30, 64))


def test_layers_with_a_window_stay_as_they_are_and_it_is_said_where_all_have_one() -> None:
    model = MistralForCausalLM(MistralConfig(**TEXT, num_key_value_heads=2, sliding_window=8)).eval()
    inputs = prompt("llama")
    plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    with pytest.warns(UserWarning, match="h2o compressed nothing of a prompt: every layer has a window"):  # noqa: SIM117
        with look_once(model, "h2o") as session:
            assert model.generate(**inputs, max_new_tokens=6, do_sample=False).equal(plain)
    report = session.report()
    assert report.untouched_layers == (0, 1, 2)
    assert report.kept_tokens == ((7,),) * 3
    assert report.byte_budget == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "tp_pmerg"}, r"'tp_pmerg' is unknown \(did you mean 'tp_pmerge'\?\); choose one of a_merge, "),
        ({"strategy": "h2o", "alpha1": 1.2}, "alpha1=1.2 is not a share"),
        ({"strategy": "h2o", "alpha2": -0.1}, "alpha2=-0.1 is not a share"),
        ({"strategy": "h2o", "alpha1": float("nan")}, "alpha1=nan is not a share"),
        ({"strategy": "h2o", "alpha1": 0.6, "alpha2": 0.5}, "is 1.1; their sum may be 1 at most"),
        ({"strategy": "h2o", "semantics": "papr"}, "semantics='papr' is unknown; choose one of paper, release"),
        ({"strategy": 3}, "neither a name nor a lookm.Strategy"),
    ],
)
def test_wrong_arguments_are_named_and_leave_the_model_alone(arguments: dict[str, Any], message: str) -> None:
    model = built("llama")
    untouched = state(model)
    with pytest.raises(LookmError, match=message), look_once(model, **arguments):
        pass
    assert state(model) == untouched


def test_unknown_fields_are_refused_with_those_that_exist() -> None:
    with pytest.raises(
        LookmError, match="has no field 'text_prior'; it has alpha1, alpha2, budget, semantics, storage"
    ):
        load_strategy("h2o", text_prior="strict")
    with pytest.raises(LookmError, match="text_prior='stict' is unknown; choose one of off, union, strict"):
        load_strategy("tp", text_prior="stict")
    with pytest.raises(LookmError, match="kernel=4 does not fit"):
        load_strategy("snapkv", kernel=4)


def test_a_layer_that_was_not_compressed_is_an_error() -> None:
    model, inputs = llama(), prompt("llama")
    with look_once(model, "h2o") as session:
        model.config._attn_implementation = "sdpa"  # as a model would that bypasses the attention interface
        step = model(**inputs)
        with pytest.raises(BudgetError, match=r"layers \[0, 1, 2\] of 3 were not compressed by h2o"):
            session.report()
        with pytest.raises(BudgetError, match="were not compressed"):
            model(input_ids=torch.tensor([[5]]), past_key_values=step.past_key_values)


def test_a_report_before_any_prompt_says_so() -> None:
    with look_once(built("llama"), "h2o") as session, pytest.raises(LookmError, match="no prompt was encoded"):
        session.report()


def test_a_compressed_cache_survives_row_operations() -> None:
    model = built("llama")
    batch = left_padded([prompt("llama", (30,)), prompt("llama", (20,))])
    with look_once(model, "h2o"):
        cache = model(**batch).past_key_values
    assert isinstance(cache, LookOnceCache)
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3]))
    layer = cache.layers[0]
    assert layer.valid.sum(1).tolist() == [4, 6]
    assert not layer.valid[0, 0]
    assert layer.keys[0, :, 0].eq(0).all()
    assert layer.keys.shape[0] == 2
    cache.reset()
    assert cache.get_seq_length() == 0
