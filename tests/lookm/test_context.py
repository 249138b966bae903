"""A session belongs to its context: other threads are plain, and whatever wraps the model is compressed alike."""

import copy
from collections.abc import Callable
from contextvars import copy_context
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    NemotronConfig,
    NemotronForCausalLM,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from lookm import LookmError, look_once
from tests.lookm.models import TEXT, built, llama, prompt


def greedy(model: Any, inputs: dict[str, Tensor], tokens: int = 10) -> list[int]:
    """New tokens of the first row."""
    return model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()


def compressed(model: PreTrainedModel, inputs: dict[str, Tensor], strategy: str = "h2o") -> list[int]:
    with look_once(model, strategy, alpha1=0.05, alpha2=0.05):
        return greedy(model, inputs)


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """What the functions give, each called in a thread of its own; an exception in its place."""
    results: list[Any] = [None] * len(functions)

    def call(place: int) -> None:
        try:
            results[place] = functions[place]()
        except Exception as error:
            results[place] = error

    threads = [Thread(target=call, args=(place,)) for place in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_threads_have_their_own_strategies_and_a_thread_outside_is_plain(before: str) -> None:
    model, inputs = llama(), prompt("llama", (60,))
    model.set_attn_implementation(before)
    expected = [compressed(model, inputs, "h2o"), compressed(model, inputs, "p_merge"), greedy(model, inputs)]
    assert expected[0] != expected[2]
    together = Barrier(3)

    def inside(strategy: str) -> list[int]:
        with look_once(model, strategy, alpha1=0.05, alpha2=0.05):
            together.wait()
            tokens = greedy(model, inputs)
            together.wait()
        return tokens

    def outside() -> list[int]:
        together.wait()
        tokens = greedy(model, inputs)
        together.wait()
        return tokens

    with pytest.warns(UserWarning, match="a thread outside the look_once block uses its model"):
        assert in_threads(lambda: inside("h2o"), lambda: inside("p_merge"), outside) == expected
    assert model.config._attn_implementation == before


def test_a_thread_started_by_run_streams_compressed_tokens_and_leaving_waits_for_it() -> None:
    model, inputs = built("llama"), prompt("llama", (60,))
    expected, tokens = compressed(model, inputs), []

    class Slow:
        def put(self, value: Tensor) -> None:
            left.wait(0.2)
            tokens.extend(value.flatten().tolist())

        def end(self) -> None:
            tokens.append("end")

    left = Event()
    arguments = {**inputs, "max_new_tokens": 10, "do_sample": False, "streamer": Slow()}
    with look_once(model, "h2o", alpha1=0.05, alpha2=0.05) as session:
        Thread(target=session.run, args=(model.generate,), kwargs=arguments).start()
        while not tokens:
            left.wait(0.01)
    assert tokens[60:] == [*expected, "end"]
    with pytest.raises(LookmError, match="the look_once block has been left"):
        session.run(model.generate, **inputs)


class Gate:
    """A streamer that stops at the first new token until the gate opens."""

    def __init__(self) -> None:
        self.reached, self.opened, self.puts = Event(), Event(), 0

    def put(self, value: Tensor) -> None:
        self.puts += 1  # the prompt is put first
        if self.puts == 2:
            self.reached.set()
            self.opened.wait(60)

    def end(self) -> None:
        pass


def test_a_thread_that_goes_on_after_its_block_is_refused_by_its_cache() -> None:
    model, inputs, gate = built("llama"), prompt("llama", (60,)), Gate()
    errors: list[Exception] = []

    def generate() -> None:
        try:
            model.generate(**inputs, max_new_tokens=10, streamer=gate)
        except LookmError as error:
            errors.append(error)

    with look_once(model, "h2o"):
        thread = Thread(target=copy_context().run, args=(generate,))
        thread.start()
        assert gate.reached.wait(60)
    gate.opened.set()
    thread.join()
    assert "outside its look_once block" in str(errors[0])


def test_a_plain_thread_that_goes_on_after_the_block_stays_plain() -> None:
    model, inputs, gate = built("llama"), prompt("llama", (60,)), Gate()
    plain, tokens = greedy(model, inputs), []
    thread = Thread(target=lambda: tokens.extend(greedy(model, {**inputs, "streamer": gate})))
    with look_once(model, "h2o"):
        thread.start()
        assert gate.reached.wait(60)
    gate.opened.set()
    thread.join()
    assert tokens == plain


def test_a_compressed_cache_is_refused_outside_its_block() -> None:
    model, inputs = built("llama"), prompt("llama")
    with look_once(model, "h2o"):
        cache = model(**inputs).past_key_values
    with pytest.raises(LookmError, match="outside its look_once block"):
        model(input_ids=torch.tensor([[5, 6]]), past_key_values=cache)


def test_a_deep_copy_made_in_the_block_is_a_plain_model() -> None:
    model, inputs = llama(), prompt("llama", (60,))
    plain = greedy(model, inputs)
    with look_once(model, "h2o", alpha1=0.05, alpha2=0.05):
        twin = copy.deepcopy(model)
        assert greedy(twin, inputs) == plain
    assert twin.config._attn_implementation == "sdpa"
    assert greedy(twin, inputs) == plain
    assert compressed(twin, inputs) == compressed(model, inputs) != plain


class Wrapper(nn.Module):
    """Hands everything on to a model inside, as PEFT's do."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.forward(*args, **kwargs)


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_wrapped_and_compiled_models_and_inner_ones_are_compressed_alike(name: str) -> None:
    model, inputs = built(name), prompt(name)
    expected = compressed(model, inputs)
    ways: dict[str, Any] = {
        "wrapped": Wrapper(Wrapper(model)),
        "compiled": torch.compile(model, backend="eager"),
        "inner": model.model,
    }
    for way, other in ways.items():
        with look_once(other, "h2o", alpha1=0.05, alpha2=0.05) as session:
            if way != "inner":
                assert greedy(other, inputs) == expected, way
            output = other(**inputs)
            following = {"input_ids": torch.tensor([[5]]), "past_key_values": output.past_key_values}
            last = other(**following)[0][:, -1]
        kept = session.report().kept_tokens
        with look_once(model, "h2o", alpha1=0.05, alpha2=0.05) as session:
            reference = model if way != "inner" else model.model
            following["past_key_values"] = reference(**inputs).past_key_values
            assert reference(**following)[0][:, -1].equal(last), way
        assert session.report().kept_tokens == kept


@pytest.mark.parametrize(
    ("kind", "config"), [(StableLmForCausalLM, StableLmConfig), (NemotronForCausalLM, NemotronConfig)]
)
def test_attention_that_takes_no_keywords_is_compressed(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config(**TEXT, num_key_value_heads=2)).eval()
    inputs = prompt("llama", (60,))
    with look_once(model, "full"):
        full = greedy(model, inputs)
    assert full == greedy(model, inputs)
    with look_once(model, "h2o", alpha1=0.05, alpha2=0.05) as session:
        greedy(model, inputs)
    assert set(session.report().kept_tokens) == {(6,)}
