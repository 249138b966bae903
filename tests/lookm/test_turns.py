"""A compressed cache goes on with several tokens at once: questions asked later, drafts, chunks, many turns."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from baselines.h2o import H2O
from lookm import LookmError, look_once
from lookm.cache import LookOnceCache
from tests.lookm.late import LateH2O
from tests.lookm.models import IMAGE, TEXT, built, left_padded, llama, prompt
from tests.lookm.rounding import assert_close, pass_error

MODELS = ["llama", "grouped", "llava", "qwen2_5_vl"]
STRATEGIES = ["full", "h2o", "tp_pmerge", "pyramidkv", "madakv", "adakv"]


def batch_of(name: str) -> dict[str, Tensor]:
    """Three left-padded prompts of different lengths."""
    return left_padded([prompt(name), prompt(name, (5, 20, 3, 8), seed=1), prompt(name, (30,), seed=2)])


def encoded(model: PreTrainedModel, inputs: dict[str, Tensor]) -> LookOnceCache:
    """The cache of a padded batch whose tokens have the positions that `generate` gives them."""
    if "image_grid_thw" not in inputs:
        inputs = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
    cache = model(**inputs).past_key_values
    assert isinstance(cache, LookOnceCache)
    return cache


def positions_of(model: PreTrainedModel, mask: Tensor, new: int) -> Tensor:
    """Positions of the last `new` tokens under a mask (B, seen + new), as `generate` counts them."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]
    deltas = getattr(model.model, "rope_deltas", None)
    return positions if deltas is None else (positions + deltas).expand(3, -1, -1)


def go_on(model: PreTrainedModel, cache: LookOnceCache, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits (B, n, V) of new tokens (B, n) after those of a mask (B, seen + n)."""
    positions = positions_of(model, mask, tokens.shape[1])
    return model(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache).logits


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_new_tokens_equal_the_same_tokens_one_by_one(name: str, strategy: str) -> None:
    model, inputs = built(name), batch_of(name)
    question = torch.randint(2, 90, (3, 7), generator=torch.Generator().manual_seed(3))
    new = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]])  # padding before shorter questions
    mask = torch.cat([inputs["attention_mask"], new], dim=1)
    seen = inputs["input_ids"].shape[1]
    with look_once(model, strategy, alpha1=0.1, alpha2=0.1):
        cache = model(**inputs).past_key_values
        steps = deepcopy(cache)
        at_once = go_on(model, cache, question, mask)
        singly = [go_on(model, steps, question[:, i : i + 1], mask[:, : seen + i + 1]) for i in range(7)]
        later = torch.tensor([[5], [6], [7]])
        longer = torch.cat([mask, torch.ones(3, 1, dtype=torch.int64)], dim=1)
        after = go_on(model, cache, later, longer), go_on(model, steps, later, longer)
    error = 2 * pass_error(model, seen + 8)
    one_by_one = torch.cat(singly, dim=1)
    assert_close(at_once[new.bool()], one_by_one[new.bool()], absolute=error * one_by_one.abs().max())
    assert_close(after[0], after[1], absolute=error * after[1].abs().max())


@torch.no_grad()
@pytest.mark.parametrize("drafts", [False, True])
def test_layers_with_a_window_and_capped_logits_take_several_tokens_too(drafts: bool) -> None:
    torch.manual_seed(0)
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = Gemma2Config(**TEXT, num_key_value_heads=2, head_dim=16, sliding_window=8, layer_types=kinds)
    model, ids = Gemma2ForCausalLM(config).eval(), torch.arange(2, 12).repeat(1, 4)
    call = {"max_new_tokens": 12, "do_sample": False}
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        if drafts:
            assert model.generate(ids, **call, prompt_lookup_num_tokens=3).equal(model.generate(ids, **call))
        else:
            cache = model(ids).past_key_values
            steps, question = deepcopy(cache), torch.tensor([[7, 8, 9, 10, 11]])
            at_once = model(question, past_key_values=cache).logits
            singly = torch.cat([model(token, past_key_values=steps).logits for token in question.split(1, 1)], dim=1)
            assert_close(at_once, singly, absolute=2 * pass_error(model, 45) * singly.abs().max())
    assert session.report().untouched_layers == (1,)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_a_full_cache_goes_on_as_the_plain_one(name: str) -> None:
    model, inputs = built(name), prompt(name)
    question = torch.tensor([[7, 8, 9, 10, 11]])
    mask = torch.ones(1, inputs["input_ids"].shape[1] + 5, dtype=torch.int64)
    plain = go_on(model, model(**inputs).past_key_values, question, mask)
    with look_once(model, "full"):
        ours = go_on(model, model(**inputs).past_key_values, question, mask)
    assert_close(ours, plain, absolute=2 * pass_error(model, mask.shape[1]) * plain.abs().max())


def extended(inputs: dict[str, Tensor], question: Tensor) -> dict[str, Tensor]:
    """Context and question (1, n) of text, as `generate` takes them with the context's cache: no images again."""
    ids = torch.cat([inputs["input_ids"], question.expand(inputs["input_ids"].shape[0], -1)], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(ids[:, -question.shape[1] :])], dim=1)
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["h2o", "tp_pmerge"])
def test_one_context_answers_many_questions_as_if_each_were_the_first(name: str, strategy: str) -> None:
    model, inputs = built(name), batch_of(name)
    questions = [torch.tensor([[3, 4, 5]]), torch.tensor([[20, 21, 22, 23]])]
    with look_once(model, strategy, alpha1=0.1, alpha2=0.1) as session:
        cache = model(**inputs).past_key_values  # with gradients, as nobody has switched them off
        held = [layer.keys.shape[-2] for layer in cache.layers]
        answers = [
            model.generate(**extended(inputs, q), past_key_values=deepcopy(cache), max_new_tokens=6, do_sample=False)
            for q in questions
        ]
        kept = session.report().kept_tokens
        assert [layer.keys.shape[-2] for layer in cache.layers] == held  # the copies grew, not the cache
        for q, answer in zip(questions, answers, strict=True):
            fresh = model(**inputs).past_key_values
            again = model.generate(**extended(inputs, q), past_key_values=fresh, max_new_tokens=6, do_sample=False)
            assert again.equal(answer)
    assert session.report().kept_tokens == kept


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["h2o", "tp_pmerge", "pyramidkv", "adakv", "replay", "meda"])
def test_a_question_in_its_context_s_pass_is_as_one_that_comes_later(name: str, strategy: str) -> None:
    model, inputs, question = built(name), batch_of(name), torch.tensor([[3, 4, 5, 6]])
    both = {**inputs, **extended(inputs, question)}
    if name == "qwen2_5_vl":
        both["mm_token_type_ids"] = (both["input_ids"] == IMAGE).int()
    with look_once(model, strategy, alpha1=0.1, alpha2=0.1) as session:
        cache = encoded(model, inputs)
        later = model.generate(**extended(inputs, question), past_key_values=cache, max_new_tokens=6, do_sample=False)
        kept = session.report().kept_tokens
        session.question_tokens = 4
        at_once = model.generate(**both, max_new_tokens=6, do_sample=False)
    assert at_once.equal(later)
    assert session.report().kept_tokens == kept
    assert session.report().prompt_tokens == tuple(inputs["attention_mask"].sum(1).tolist())


def test_a_question_with_an_image_is_read_in_its_context_s_pass() -> None:
    """Of a full cache nothing is missing, so that it makes no difference when the question was read."""
    model, inputs = built("llava"), prompt("llava")
    plain = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    with look_once(model, "full") as session:
        session.question_tokens = 14 + 16 + 2  # the last text, the second image and a part of the text before it
        assert model.generate(**inputs, max_new_tokens=8, do_sample=False).equal(plain)
    assert session.report().image_tokens == (16,)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_when_a_strategy_chooses_does_not_change_what_a_question_with_an_image_reads(name: str) -> None:
    model, inputs = built(name), prompt(name)
    answers, kept = [], []
    for kind in (H2O, LateH2O):
        with look_once(model, kind(name="h2o", alpha1=0.1, alpha2=0.1)) as session:
            session.question_tokens = 14 + 16 + 2
            output = model.generate(
                **inputs, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        answers.append(torch.stack(output.logits))
        kept.append(session.report().kept_tokens)
    assert kept[0] == kept[1]
    assert max(kept[0]) < session.report().prompt_tokens
    torch.testing.assert_close(answers[0], answers[1])


def test_the_question_s_words_do_not_change_what_is_kept() -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, "snapkv", alpha1=0.1, alpha2=0.1) as session:
        session.question_tokens = 8
        caches = []
        for word in (10, 50):
            inputs["input_ids"][:, -8:] = word
            caches.append(model(**inputs).past_key_values)
    for layer, other in zip(caches[0].layers, caches[1].layers, strict=True):
        assert layer.keys[:, :, :-8].equal(other.keys[:, :, :-8])


def test_chat_templates_over_many_turns_read_each_token_once() -> None:
    """As a chat's loop has it: the whole conversation is given each time, the cache knows all but the last turn."""
    model = built("grouped")
    conversation = prompt("grouped", (40,))["input_ids"]
    expected, chunks = conversation, []
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        cache = None
        for turn in range(5):
            output = model.generate(
                conversation, attention_mask=torch.ones_like(conversation), past_key_values=cache,
                max_new_tokens=4, do_sample=False, return_dict_in_generate=True,
            )  # fmt: skip
            cache = output.past_key_values
            assert isinstance(cache, LookOnceCache)
            chunks.append(cache.layers[0].keys.shape[-2])
            question = torch.randint(2, 90, (1, 3), generator=torch.Generator().manual_seed(turn))
            conversation = torch.cat([output.sequences, question], dim=1)
        steps = model(expected)
        token, cache, made = steps.logits[:, -1:].argmax(-1), steps.past_key_values, expected
        for position in range(expected.shape[1], conversation.shape[1] - 3):
            made = torch.cat([made, token], dim=1)
            token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
            if (position - 40) % 7 >= 3:  # the questions are given, not generated
                token = conversation[:, position + 1 : position + 2]
        assert made.equal(conversation[:, :-3])
    assert chunks == [8 + 3 + 7 * turn for turn in range(5)]  # the prompt's, and of each turn all but the last token
    assert session.report().prompt_tokens == (40,)


@pytest.mark.parametrize("name", ["llama", "grouped"])
def test_chunks_after_the_first_are_read_on_the_compressed_cache(name: str) -> None:
    model, inputs = built(name), prompt(name)
    first, rest = inputs["input_ids"][:, :20], inputs["input_ids"][:, 20:]
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        chunked = model.generate(**inputs, max_new_tokens=6, do_sample=False, prefill_chunk_size=20)
        assert session.report().prompt_tokens == (20,)
        cache = model(first).past_key_values
        by_hand = model.generate(
            torch.cat([first, rest], dim=1), past_key_values=cache, max_new_tokens=6, do_sample=False
        )
    assert chunked.equal(by_hand)


@pytest.mark.parametrize("strategy", ["h2o", "tp_pmerge", "pyramidkv"])
@pytest.mark.parametrize("assisted", [False, True])
def test_drafts_are_taken_back_and_change_no_answer(strategy: str, assisted: bool) -> None:
    model, ids = built("grouped"), torch.arange(2, 12).repeat(1, 4)
    call: dict[str, Any] = {"assistant_model": llama(2, seed=1)} if assisted else {"prompt_lookup_num_tokens": 3}
    arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 24, "do_sample": False}
    with look_once(model, strategy, alpha1=0.1, alpha2=0.1, image_token_ids=[5]) as session:
        plain = model.generate(ids, **arguments)
        kept = session.report().kept_tokens
        drafted = model.generate(ids, **arguments, **call)
    assert drafted.equal(plain)
    assert session.report().kept_tokens == kept


def test_beams_go_on_from_a_context() -> None:
    model, inputs, question = built("llama"), batch_of("llama"), torch.tensor([[3, 4, 5]])
    beams = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False}
    plain = model.generate(**extended(inputs, question), **beams)
    with look_once(model, "full"):
        cache = encoded(model, inputs)
        cache.batch_repeat_interleave(3)  # `generate` repeats its inputs for the beams, and takes a cache as it is
        assert model.generate(**extended(inputs, question), past_key_values=cache, **beams).equal(plain)


@torch.no_grad()
def test_the_prompt_s_tokens_cannot_be_cropped_and_later_ones_can() -> None:
    model, inputs = built("llama"), prompt("llama")
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1):
        cache = model(**inputs).past_key_values
        one = deepcopy(cache)
        first = model(torch.tensor([[3]]), past_key_values=one).logits
        model(torch.tensor([[4, 5, 6]]), past_key_values=one)
        one.crop(-4)
        assert one.get_seq_length() == cache.get_seq_length() == 35
        assert model(torch.tensor([[3]]), past_key_values=one).logits.equal(first)
        with pytest.raises(LookmError, match="cropped by the 1 tokens that came after its prompt, not by 2"):
            one.crop(-2)


@torch.no_grad()
def test_a_model_that_counts_positions_from_another_prompt_says_so() -> None:
    model, first = built("qwen2_5_vl"), prompt("qwen2_5_vl")
    question = extended(first, torch.tensor([[3, 4, 5]]))
    with look_once(model, "h2o", alpha1=0.1, alpha2=0.1) as session:
        cache = model(**first).past_key_values
        expected = model.generate(**question, past_key_values=deepcopy(cache), max_new_tokens=4, do_sample=False)
        model(**prompt("qwen2_5_vl", (5, 20, 3, 8), seed=1))
        with pytest.raises(LookmError, match=r"call session.resume\(cache\)"):
            model.generate(**question, past_key_values=deepcopy(cache), max_new_tokens=4, do_sample=False)
        again = model.generate(
            **question, past_key_values=session.resume(deepcopy(cache)), max_new_tokens=4, do_sample=False
        )
    assert again.equal(expected)


def test_masks_and_questions_of_the_wrong_length_are_refused() -> None:
    model, inputs = built("llama"), prompt("llama")
    with look_once(model, "h2o") as session:
        cache = model(**inputs).past_key_values
        with pytest.raises(LookmError, match="7 columns for 3 new tokens after 35: it needs 38"):
            model(torch.tensor([[3, 4, 5]]), attention_mask=torch.ones(1, 7), past_key_values=cache)
        session.question_tokens = 35
        with pytest.raises(LookmError, match="a prompt of 35 tokens has none before the 35"):
            model(**inputs)
