"""A compressed cache that was saved and loaded goes on as the one in memory."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from lookm import LookmError, load_strategy, look_once
from tests.lookm.models import TEXT, built, llama, prompt
from tests.lookm.test_turns import MODELS, batch_of, encoded, extended

QUESTION = torch.tensor([[3, 4, 5]])


def gemma() -> PreTrainedModel:
    """A model whose second layer has a window."""
    torch.manual_seed(0)
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = Gemma2Config(**TEXT, num_key_value_heads=2, head_dim=16, sliding_window=8, layer_types=kinds)
    return Gemma2ForCausalLM(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", [*MODELS, "gemma"])
@pytest.mark.parametrize(
    ("strategy", "storage"),
    [("tp_pmerge", "plain"), ("adakv", "plain"), ("h2o", "kivi2"), ("streaming_decoding", "plain")],
)
def test_a_loaded_cache_answers_as_the_one_that_was_saved(
    name: str, strategy: str, storage: str, tmp_path: Path
) -> None:
    model, inputs = (gemma(), batch_of("llama")) if name == "gemma" else (built(name), batch_of(name))
    chosen = load_strategy(strategy, alpha1=0.2, alpha2=0.2, storage=storage)
    call = {**extended(inputs, QUESTION), "max_new_tokens": 6, "do_sample": False}
    with look_once(model, chosen) as session:
        cache = encoded(model, inputs)
        session.save_cache(tmp_path / "cache")
        expected = model.generate(**call, past_key_values=deepcopy(cache))
        report = session.report()
        encoded(model, inputs | {"input_ids": inputs["input_ids"].flip(0)})
    with look_once(model, "full") as session:  # the cache brings its own strategy
        loaded = session.load_cache(tmp_path / "cache")
        assert model.generate(**call, past_key_values=loaded).equal(expected)
        again = session.report()
    assert (again.strategy, again.kept_bytes, again.prompt_tokens) == (
        strategy,
        report.kept_bytes,
        report.prompt_tokens,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    if storage == "plain" and strategy == "tp_pmerge" and name != "gemma":
        bytes_held = sum(layer.stored.allocated_bytes() for layer in cache.layers)
        assert (tmp_path / "cache").stat().st_size < bytes_held + 64_000


@torch.no_grad()
def test_a_loaded_cache_goes_on_with_what_was_noted_while_decoding(tmp_path: Path) -> None:
    model, inputs = built("grouped"), batch_of("grouped")
    with look_once(model, "h2o_decoding") as session:
        cache = encoded(model, inputs)
        model(input_ids=torch.tensor([[5], [6], [7]]), past_key_values=cache)
        session.save_cache(tmp_path / "cache", cache)
        loaded = session.load_cache(tmp_path / "cache")
        for token in range(20, 40):
            tokens = token + torch.arange(3)[:, None]
            ours, expected = (model(input_ids=tokens, past_key_values=held).logits for held in (loaded, cache))
            assert ours.equal(expected)


@torch.no_grad()
def test_a_cache_is_saved_with_the_turns_that_came_after_its_prompt(tmp_path: Path) -> None:
    model, inputs = built("grouped"), prompt("grouped")
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        cache = model(**inputs).past_key_values
        first = model(torch.tensor([[5, 6, 7]]), past_key_values=cache).logits[:, -1:].argmax(-1)
        session.save_cache(tmp_path / "cache", cache)
        expected = model(first, past_key_values=cache).logits
        loaded = session.load_cache(tmp_path / "cache")
        assert loaded.get_seq_length() == 38
        assert model(first, past_key_values=loaded).logits.equal(expected)


@torch.no_grad()
def test_what_cannot_be_saved_or_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    model, inputs = built("llama"), prompt("llama")
    with look_once(model, "h2o") as session:
        with pytest.raises(LookmError, match="the last prompt's cache is gone"):
            session.save_cache(tmp_path / "cache")
        cache = model(**inputs).past_key_values
        session.save_cache(tmp_path / "cache", cache)
        with pytest.raises(LookmError, match="cannot be written"):
            session.save_cache(tmp_path / "nowhere" / "cache", cache)
        (tmp_path / "text").write_text("no cache")
        save_file({"a": torch.zeros(1)}, tmp_path / "other")
        for name in ("text", "other", "absent"):
            with pytest.raises(LookmError, match="is no cache that lookm has written"):
                session.load_cache(tmp_path / name)
    for other, what in ((built("grouped"), "num_key_value_heads is 4, this one's 2"), (llama(seed=1), "weights is")):
        with look_once(other, "h2o") as session, pytest.raises(LookmError, match=f"cache of another model: its {what}"):
            session.load_cache(tmp_path / "cache")
