"""A sweep gives every strategy the answers that it gets alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from lookm import BudgetError, LookmError, Strategy, load_strategy, look_once
from lookm.layer import Layer
from lookm.report import Report
from lookm.sweep import first_differences, generate_sweep
from tests.lookm.layers import budgets
from tests.lookm.models import built, left_padded, llama, prompt
from tests.lookm.oracle import ROWS

MODELS = ["llama", "grouped", "llava", "qwen2_5_vl"]
NAMES = sorted(ROWS)


def alone(
    model: PreTrainedModel, inputs: dict[str, Tensor], strategy: Strategy, **arguments: Any
) -> tuple[Any, Report]:
    """The answers of one strategy from `generate`, cut after their end, and its report."""
    with look_once(model, strategy) as session:
        output: Any = model.generate(**inputs, do_sample=False, pad_token_id=0, **arguments)
    ends = arguments.get("eos_token_id", [])
    answers = []
    for tokens in output[:, inputs["input_ids"].shape[1] :].tolist():
        places = [place for place, token in enumerate(tokens) if token in ends]
        answers.append(tuple(tokens[: places[0] + 1] if places else tokens))
    return tuple(answers), session.report()


def sizes(report: Report) -> tuple[Any, ...]:
    """All of a report that is no time."""
    return (
        report.strategy, report.semantics, report.alpha1, report.alpha2, report.prompt_tokens, report.image_tokens,
        report.kept_tokens, report.kept_bytes, report.full_bytes, report.nominal_budget, report.realised_budget,
    )  # fmt: skip


def three_prompts(name: str) -> dict[str, Tensor]:
    """A left-padded batch; the last prompt has no image."""
    return left_padded([prompt(name), prompt(name, (5, 20, 3, 8), seed=1), prompt(name, (30,), seed=2)])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("semantics", ["paper", "release"])
def test_every_row_has_the_answers_and_sizes_it_has_alone(name: str, semantics: str) -> None:
    """The first and the last prompt have one layout, so that their heads are cut together."""
    prompts = [prompt(name), prompt(name, (5, 20, 3, 8), seed=1), prompt(name, (30,), seed=2), prompt(name, seed=3)]
    model, inputs = built(name), left_padded(prompts)
    strategies = [load_strategy(row, semantics=semantics) for row in NAMES]
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=12, pad_token_id=0)
    assert [row.strategy for row in rows] == strategies
    for row in rows:
        answers, report = alone(model, inputs, row.strategy, max_new_tokens=12)
        assert row.tokens == answers
        assert sizes(row.report) == sizes(report)


@st.composite
def sweeps(draw: st.DrawFn) -> list[Strategy]:
    """One to six strategies, in any mixture of budgets and semantics, twins among them."""
    chosen = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6)):
        alpha1, alpha2 = draw(budgets())
        semantics = draw(st.sampled_from(["paper", "release"]))
        chosen.append(load_strategy(name, alpha1=alpha1, alpha2=alpha2, semantics=semantics))
    return chosen


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    strategies=sweeps(),
    prompts=st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=3), min_size=1, max_size=3),
    new=st.integers(1, 9),
    least=st.integers(1, 4),
    ends=st.sets(st.integers(0, 99), max_size=30),
    static=st.booleans(),
)
def test_any_sweep_equals_its_rows_alone(
    name: str, strategies: list[Strategy], prompts: list[list[int]], new: int, least: int, ends: set[int], static: bool
) -> None:
    """Any strategies, budgets, prompts, padding, early ends and shortest answers, and both kinds of decode step."""
    model = built(name)
    inputs = left_padded([prompt(name, tuple(texts), seed=seed) for seed, texts in enumerate(prompts)])
    least = min(least, new)
    arguments: dict[str, Any] = {"eos_token_id": sorted(ends)} if ends else {}
    rows = generate_sweep(
        model, inputs, strategies, max_new_tokens=new, min_new_tokens=least, pad_token_id=0, eos_token_ids=ends,
        cuda_graph=static,
    )  # fmt: skip
    for row in rows:
        expected, _ = alone(model, inputs, row.strategy, max_new_tokens=new, min_new_tokens=least, **arguments)
        assert row.tokens == expected


@pytest.mark.parametrize(
    "peculiarity",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": list(range(2, 60))},
        {"eos_token_id": [11, 12, 13, 14, 15, 16, 17, 18]},
        {"temperature": 0.1, "top_k": 3, "num_beams": 4},
    ],
)
def test_the_generation_configuration_counts_as_in_generate(peculiarity: dict[str, Any]) -> None:
    model, inputs = llama(), three_prompts("llama")
    before = model.generation_config.to_dict()
    model.generation_config.update(**peculiarity)
    strategies = [load_strategy(row) for row in ("full", "h2o", "tp_pmerge")]
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=16, min_new_tokens=2, pad_token_id=0)
    assert model.generation_config.to_dict() == {**before, **peculiarity}
    ends = peculiarity.get("eos_token_id")
    for row in rows:
        more = {"eos_token_id": ends} if ends else {}
        expected, _ = alone(model, inputs, row.strategy, max_new_tokens=16, min_new_tokens=2, num_beams=1, **more)
        assert row.tokens == expected


@pytest.mark.parametrize("name", ["grouped", "qwen2_5_vl"])
def test_groups_that_fit_little_memory_give_the_same_rows(name: str) -> None:
    model, inputs = built(name), three_prompts(name)
    strategies = [load_strategy(row) for row in ("full", "h2o", "a_merge", "tp", "full", "snapkv")]
    prefills: list[Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: prefills.append(kwargs["input_ids"]) if kwargs["input_ids"].shape[1] > 1 else None,
        with_kwargs=True,
    )
    together = generate_sweep(model, inputs, strategies, max_new_tokens=8, pad_token_id=0)
    assert len(prefills) == 1
    split = generate_sweep(model, inputs, strategies, max_new_tokens=8, pad_token_id=0, memory_limit=100_000)
    assert 3 <= len(prefills) < 7
    each = generate_sweep(model, inputs, strategies, max_new_tokens=8, pad_token_id=0, memory_limit=1)
    hook.remove()
    for rows in (split, each):
        assert [row.tokens for row in rows] == [row.tokens for row in together]
        assert [sizes(row.report) for row in rows] == [sizes(row.report) for row in together]


def test_times_are_shared_out_and_say_how_many_rows_a_step_had() -> None:
    model, inputs = built("llava"), three_prompts("llava")
    strategies = [load_strategy(row) for row in ("full", "h2o", "tp_pmerge")]
    full, *others = (row.report for row in generate_sweep(model, inputs, strategies, max_new_tokens=4, pad_token_id=0))
    assert full.decode_rows == 8  # the third prompt is all text: the text prior keeps it whole, as the full cache does
    assert full.compress_ms == 0
    assert 0 < others[0].compress_ms == others[1].compress_ms
    assert others[0].prefill_ms == pytest.approx(full.prefill_ms + others[0].compress_ms)
    assert full.decode_ms_per_token == others[0].decode_ms_per_token
    assert full.decode_ms_per_token
    assert "of 8 rows together" in str(full)


def test_a_configuration_that_knows_prompts_by_their_place_is_refused() -> None:
    model, inputs = llama(), three_prompts("llama")
    model.generation_config.encoder_no_repeat_ngram_size = 2
    with pytest.raises(LookmError, match="run the strategies one by one"):
        generate_sweep(model, inputs, [load_strategy("h2o")], max_new_tokens=2, pad_token_id=0)


def test_strategies_that_evict_nothing_share_one_row() -> None:
    model, inputs = built("llama"), three_prompts("llama")
    strategies = [load_strategy(row, semantics="release") for row in ("full", "h2o", "tp_pmerge")]
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=4, pad_token_id=0)
    assert rows[0].report.decode_rows == 3
    assert rows[0].tokens == rows[1].tokens == rows[2].tokens


def test_the_model_is_as_before_also_after_an_exception() -> None:
    model, inputs = built("llava"), three_prompts("llava")
    strategies = [load_strategy("h2o")]
    decoder = model.get_decoder()
    before = model.config._attn_implementation, decoder.config._attn_implementation
    generate_sweep(model, inputs, strategies, max_new_tokens=2, pad_token_id=0)
    assert (model.config._attn_implementation, decoder.config._attn_implementation) == before
    with pytest.raises(IndexError):
        generate_sweep(
            model, {**inputs, "input_ids": inputs["input_ids"] + 90}, strategies, max_new_tokens=2, pad_token_id=0
        )
    assert (model.config._attn_implementation, decoder.config._attn_implementation) == before


def test_what_cannot_work_is_refused_in_one_line() -> None:
    model, inputs = built("llama"), three_prompts("llama")
    strategies = [load_strategy("h2o")]
    with pytest.raises(LookmError, match="min_new_tokens=3 and max_new_tokens=2: need 1 ≤ min ≤ max"):
        generate_sweep(model, inputs, strategies, max_new_tokens=2, min_new_tokens=3, pad_token_id=0)
    with look_once(model, "h2o"), pytest.raises(LookmError, match="outside look_once"):
        generate_sweep(model, inputs, strategies, max_new_tokens=2, pad_token_id=0)
    right = {**inputs, "attention_mask": inputs["attention_mask"].flip(1)}
    with pytest.raises(LookmError, match="pad prompts on the left"):
        generate_sweep(model, right, strategies, max_new_tokens=2, pad_token_id=0)


def test_a_strategy_that_breaks_its_promise_is_an_error() -> None:
    class Greedy(type(load_strategy("h2o"))):  # type: ignore[misc]
        def keep(self, layer: Layer) -> Tensor:
            return super().keep(layer)[:, 1:]

    model, inputs = built("llama"), three_prompts("llama")
    with pytest.raises(BudgetError, match="its definition promises"):
        generate_sweep(model, inputs, [Greedy(name="greedy")], max_new_tokens=2, pad_token_id=0)


def test_differences_are_counted_from_the_first_token_that_is_not_the_same() -> None:
    model, inputs = built("llama"), three_prompts("llama")
    strategies = [load_strategy(row, alpha1=0.05, alpha2=0.05) for row in ("full", "h2o")]
    rows = generate_sweep(model, inputs, strategies, max_new_tokens=12, pad_token_id=0)
    short = generate_sweep(model, inputs, strategies, max_new_tokens=5, pad_token_id=0)
    assert first_differences(rows, rows) == [[None] * 3] * 2
    assert first_differences(rows, short) == [[6] * 3] * 2
    changed = first_differences([rows[0]], [rows[1]])[0]
    assert all(place is None or place >= 1 for place in changed)
    assert any(place is not None for place in changed)
