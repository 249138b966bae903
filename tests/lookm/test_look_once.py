"""Claims about `look_once` on tiny random models."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm import load_strategy, look_once
from tests.lookm.models import IMAGE, built, left_padded, prompt
from tests.lookm.oracle import ROWS
from tests.lookm.rounding import assert_close, pass_error

MODELS = ["llama", "grouped", "llava", "qwen2_5_vl"]
STRATEGIES = sorted(ROWS)


def greedy(model: PreTrainedModel, inputs: dict[str, Tensor], tokens: int = 10) -> Tensor:
    """New tokens (B, tokens)."""
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return output[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_budget_gives_the_tokens_of_the_plain_cache(name: str, strategy: str) -> None:
    model, inputs = built(name), prompt(name)
    plain = greedy(model, inputs, 24)
    with look_once(model, strategy, alpha1=1.0, alpha2=0.0) as session:
        assert greedy(model, inputs, 24).equal(plain)
    assert set(session.report().realised_budget) == {1.0}


@pytest.mark.parametrize("name", MODELS)
def test_compression_changes_what_is_generated_but_not_the_first_token(name: str) -> None:
    model, inputs = built(name), prompt(name)
    plain = greedy(model, inputs, 24)
    with look_once(model, "h2o", alpha1=0.05, alpha2=0.05):
        compressed = greedy(model, inputs, 24)
    assert compressed[0, 0] == plain[0, 0]
    assert not compressed.equal(plain)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["full", "h2o", "snapkv", "roco", "w_merge", "tp_pmerge"])
def test_rows_of_a_left_padded_batch_equal_the_rows_alone(name: str, strategy: str) -> None:
    model = built(name)
    rows = [prompt(name), prompt(name, (5, 20, 3, 8), seed=1), prompt(name, (30,), seed=2)]
    with look_once(model, strategy, alpha1=0.1, alpha2=0.1) as session:
        batch = greedy(model, left_padded(rows))
        kept = session.report().kept_tokens
        for index, row in enumerate(rows):
            assert greedy(model, row).equal(batch[index : index + 1])
            assert [layer[0] for layer in session.report().kept_tokens] == [layer[index] for layer in kept]


def test_a_prompt_too_short_for_its_budget_keeps_its_last_token_and_says_so() -> None:
    model = built("llama")
    rows = [prompt("llama", (4,)), prompt("llama", (30,), seed=1)]
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        batch = greedy(model, left_padded(rows))
        assert session.report().kept_tokens[0] == (1, 6)
        for index, row in enumerate(rows):
            assert greedy(model, row).equal(batch[index : index + 1])


@pytest.mark.parametrize("name", MODELS)
def test_positions_go_on_after_the_prompt(name: str) -> None:
    model, inputs = built(name), prompt(name)
    seen: list[Tensor] = []
    decoder = model.get_decoder()
    hook = decoder.rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids", args[-1])), with_kwargs=True
    )
    greedy(model, inputs, 4)
    plain, seen = seen, []
    hook.remove()
    hook = decoder.rotary_emb.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("position_ids", args[-1])), with_kwargs=True
    )
    with look_once(model, "h2o", alpha1=0.05, alpha2=0.05):
        greedy(model, inputs, 4)
    hook.remove()
    assert len(seen) == len(plain) == 4
    assert all(ours.equal(theirs) for ours, theirs in zip(seen, plain, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_decoding_attends_to_the_kept_tokens_alone(name: str) -> None:
    """What is evicted without merging has no influence: an oracle masks it in the full cache."""
    model, inputs = built(name), prompt(name)
    length = inputs["input_ids"].shape[1]
    with look_once(model, "h2o", alpha1=0.2, alpha2=0.0):  # only the last tokens stay, the same in every head
        step = model(**inputs)
        token = step.logits[:, -1:].argmax(-1)
        ours = model(input_ids=token, past_key_values=step.past_key_values, **_position(model, inputs)).logits
    mask = torch.zeros(1, length + 1, dtype=torch.int64)
    mask[:, length - int(0.2 * length) :] = 1
    plain = model(**inputs)
    expected = model(
        input_ids=token, past_key_values=plain.past_key_values, attention_mask=mask, **_position(model, inputs)
    ).logits
    error = 2 * pass_error(model, length)  # both are rounded
    assert_close(ours, expected, absolute=error * expected.abs().max())


def _position(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    length = inputs["input_ids"].shape[1]
    if "image_grid_thw" not in inputs:
        return {"position_ids": torch.tensor([[length]])}
    return {"position_ids": (length + model.model.rope_deltas).view(1, 1, 1).expand(3, 1, 1)}


def test_image_tokens_are_found_from_the_model_s_own_token() -> None:
    model, inputs = built("llava"), prompt("llava")
    assert int((inputs["input_ids"] == IMAGE).sum()) == 32
    with look_once(model, "tp", alpha1=0.05, alpha2=0.05) as session:
        greedy(model, inputs, 2)
    report = session.report()
    assert report.image_tokens == (32,)
    assert report.kept_tokens == ((35,),) * 3  # M = 3 recent text tokens + the 32 text tokens before


def test_a_text_only_prompt_of_a_vision_model_is_compressed() -> None:
    model, inputs = built("llava"), prompt("llava", (40,))
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        greedy(model, inputs, 3)
    assert session.report().kept_tokens == ((8,),) * 3
    assert session.report().image_tokens == (0,)


def test_release_leaves_a_text_only_prompt_alone() -> None:
    model, inputs = built("llama"), prompt("llama")
    plain = greedy(model, inputs)
    with look_once(model, "tp_pmerge", semantics="release") as session:
        assert greedy(model, inputs).equal(plain)
    assert session.report().realised_budget == (1.0,)


def test_sampling_is_reproducible_and_uses_the_compressed_cache() -> None:
    model, inputs = built("llava"), prompt("llava")
    outputs = []
    with look_once(model, "tp_pmerge") as session:
        for _ in range(2):
            torch.manual_seed(0)
            outputs.append(model.generate(**inputs, max_new_tokens=8, do_sample=True, num_return_sequences=3))
    assert outputs[0].equal(outputs[1])
    assert len(session.report().prompt_tokens) == 3


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_beams_with_a_full_budget_equal_plain_beams_and_batches_equal_rows(name: str) -> None:
    model = built(name)
    rows = [prompt(name), prompt(name, (5, 20, 3, 8), seed=1)]
    batch = left_padded(rows)
    plain = model.generate(**batch, max_new_tokens=8, num_beams=3, do_sample=False)
    with look_once(model, "h2o", alpha1=1.0, alpha2=0.0):
        assert model.generate(**batch, max_new_tokens=8, num_beams=3, do_sample=False).equal(plain)
    with look_once(model, "tp_pmerge"):
        both = model.generate(**batch, max_new_tokens=8, num_beams=3, do_sample=False)
        alone = model.generate(**rows[1], max_new_tokens=8, num_beams=3, do_sample=False)
    assert both[1:, -8:].equal(alone[:, -8:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_keep_their_dtype_and_budget(dtype: torch.dtype) -> None:
    from tests.lookm.models import llava

    model, inputs = llava().to(dtype), prompt("llava")
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    with look_once(model, "tp_pmerge", alpha1=0.1, alpha2=0.1) as session:
        step = model(**inputs)
    assert step.past_key_values.layers[0].keys.dtype == dtype
    report = session.report()
    assert report.kept_bytes[0][0] == report.kept_tokens[0][0] * 4 * 32 * 2


def test_a_strategy_object_and_overrides_work_like_a_name() -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, load_strategy("tp", text_prior="strict"), alpha1=0.2, alpha2=0.3) as session:
        greedy(model, inputs, 2)
    report = session.report()
    assert (report.alpha1, report.alpha2, report.kept_tokens[0]) == (0.2, 0.3, (13 + 20,))


def test_the_cache_goes_on_by_hand_step_by_step() -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, "tp_pmerge"):
        expected = greedy(model, inputs, 5)
        step = model(**inputs)
        tokens = [step.logits[:, -1:].argmax(-1)]
        for _ in range(4):
            step = model(input_ids=tokens[-1], past_key_values=step.past_key_values)
            tokens.append(step.logits[:, -1:].argmax(-1))
    assert torch.cat(tokens, dim=1).equal(expected)
