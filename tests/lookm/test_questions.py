"""A sweep whose questions come after the compression gives each row what it gets alone."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lookm import LookmError, generate_sweep, load_strategy, look_once
from lookm.questions import Questions, common_tokens
from tests.lookm.models import IMAGE, built, left_padded, prompt
from tests.lookm.test_turns import MODELS, encoded

NAMES = ["full", "h2o", "tp_pmerge", "snapkv", "pyramidkv", "keydiff", "adakv", "fastv"]


def contexts(name: str) -> dict[str, Tensor]:
    """Two left-padded contexts of different lengths."""
    return left_padded([prompt(name), prompt(name, (5, 20, 3, 8), seed=1)])


def asked() -> Questions:
    """Five questions of different lengths, three about the second context."""
    rows = [[3, 4, 5], [20, 21], [30, 31, 32, 33, 34], [6], [7, 8, 9, 10]]
    return Questions.padded(rows, [0, 1, 1, 0, 1], 0, torch.device("cpu"))


@pytest.mark.parametrize("name", MODELS)
def test_every_question_gets_the_answer_it_gets_alone(name: str) -> None:
    model, inputs, questions = built(name), contexts(name), asked()
    strategies = [load_strategy(strategy, alpha1=0.1, alpha2=0.1) for strategy in NAMES]
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=6, pad_token_id=0, questions=questions)
    for row in rows:
        with look_once(model, row.strategy) as session:
            cache = encoded(model, inputs)
            assert row.report.kept_tokens == session.report().kept_tokens
            assert row.report.prompt_tokens == session.report().prompt_tokens
            for number, context in enumerate(questions.contexts):
                alone = deepcopy(cache)
                alone.batch_select_indices(torch.tensor([context]))
                if alone.rope_deltas is not None:
                    alone.rope_deltas = alone.rope_deltas[[context]]
                start = int((questions.mask[number] == 0).sum())
                question = questions.ids[number : number + 1, start:]
                ids = torch.cat([inputs["input_ids"][context : context + 1], question], dim=1)
                mask = torch.cat([inputs["attention_mask"][context : context + 1], torch.ones_like(question)], dim=1)
                output = model.generate(
                    ids,
                    attention_mask=mask,
                    past_key_values=session.resume(alone),
                    max_new_tokens=6,
                    do_sample=False,
                    pad_token_id=0,
                )
                assert tuple(output[0, ids.shape[1] :].tolist()) == row.tokens[number]


def test_rows_that_end_early_leave_the_others_as_they_are() -> None:
    model, inputs, questions = built("grouped"), contexts("grouped"), asked()
    strategies = [load_strategy(strategy, alpha1=0.1, alpha2=0.1) for strategy in NAMES]
    call = {"max_new_tokens": 12, "pad_token_id": 0, "questions": questions}
    whole = generate_sweep(model, inputs, strategies, **call)
    ends = {row.tokens[number][1 + number] for row in whole for number in range(5)}
    ends -= {tokens[0] for row in whole for tokens in row.tokens}  # an answer has one token at least
    ended = generate_sweep(model, inputs, strategies, **call, eos_token_ids=ends)
    for row, cut in zip(whole, ended, strict=True):
        for tokens, some in zip(row.tokens, cut.tokens, strict=True):
            stop = next((n for n, token in enumerate(tokens) if token in ends), len(tokens) - 1)
            assert some == tokens[: stop + 1]
    assert len({len(tokens) for row in ended for tokens in row.tokens}) > 2


def test_layers_with_a_window_read_the_questions_too() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from tests.lookm.models import TEXT

    torch.manual_seed(0)
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = Gemma2Config(**TEXT, num_key_value_heads=2, head_dim=16, sliding_window=8, layer_types=kinds)
    model, inputs, questions = Gemma2ForCausalLM(config).eval(), contexts("llama"), asked()
    (row,) = generate_sweep(
        model, inputs, [load_strategy("h2o")], max_new_tokens=5, pad_token_id=0, questions=questions
    )
    for number, context in enumerate(questions.contexts):
        start = int(inputs["attention_mask"][context].argmax())
        question = questions.ids[number, questions.mask[number].bool()]
        with look_once(model, "h2o") as session:
            session.question_tokens = len(question)
            ids = torch.cat([inputs["input_ids"][context, start:], question])[None]
            output = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
        assert tuple(output[0, ids.shape[1] :].tolist()) == row.tokens[number]


def test_padding_is_no_image_whatever_token_it_is() -> None:
    model, inputs = built("llava"), contexts("llava")
    answers = [
        generate_sweep(model, inputs, [load_strategy("h2o")], max_new_tokens=4, pad_token_id=0, questions=questions)
        for questions in (Questions.padded([[3, 4], [5]], [0, 1], pad, torch.device("cpu")) for pad in (0, IMAGE))
    ]
    assert answers[0][0].tokens == answers[1][0].tokens


def test_questions_that_do_not_fit_are_refused() -> None:
    model, inputs = built("llava"), contexts("llava")
    call = {"max_new_tokens": 2, "pad_token_id": 0}
    image = Questions.padded([[3, IMAGE], [4]], [0, 1], 0, torch.device("cpu"))
    with pytest.raises(LookmError, match="a question has an image"):
        generate_sweep(model, inputs, [load_strategy("h2o")], **call, questions=image)
    other = Questions.padded([[3], [4]], [0, 2], 0, torch.device("cpu"))
    with pytest.raises(LookmError, match=r"about the contexts \[0, 2\], but there are 0 to 1"):
        generate_sweep(model, inputs, [load_strategy("h2o")], **call, questions=other)
    with pytest.raises(LookmError, match="no token of its own"):
        Questions.padded([[3], []], [0, 1], 0, torch.device("cpu"))


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_common_tokens_are_the_longest_common_beginning(one: list[int], other: list[int]) -> None:
    n = common_tokens(one, other)
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
