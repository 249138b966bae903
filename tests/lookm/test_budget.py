"""Claims about `budget=`: a share or a number of tokens that is split as α1 : α2 stand, and never exceeded."""

from fractions import Fraction
from statistics import fmean
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm import LookmError, compress, load_strategy, look_once, strategy_names
from lookm.layer import Layer
from lookm.registry import ready_strategies
from tests.lookm.layers import budgets, compressed, layers, random_layer
from tests.lookm.models import built, left_padded, prompt

BUDGETED = [name for name in ready_strategies() if load_strategy(name).evicts and load_strategy(name).fixed_size]
"""All but those that evict nothing from the cache, and those whose rules have no budget."""


@given(
    length=st.integers(1, 2000),
    share=st.integers(1, 100),
    parts=st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(any),
)
def test_a_share_and_its_number_of_tokens_are_split_alike_without_a_rest(
    length: int, share: int, parts: tuple[int, int]
) -> None:
    tokens = max(1, length * share // 100)  # in whole numbers, which do not round
    important = int(tokens * Fraction(parts[1], sum(parts)))
    ratio = {"alpha1": parts[0] / 10, "alpha2": parts[1] / 10}
    if sum(ratio.values()) > 1:
        ratio = {key: value / 2 for key, value in ratio.items()}
    assert load_strategy("h2o", budget=share / 100, **ratio).window_sizes(length) == (tokens - important, important)
    if tokens > 1:
        assert load_strategy("h2o", budget=tokens, **ratio).window_sizes(length) == (tokens - important, important)


@pytest.mark.parametrize("name", BUDGETED)
@pytest.mark.parametrize("budget", [0.1, 0.37, 2, 25, 10**6])
def test_every_strategy_keeps_the_budget_to_the_token(name: str, budget: float) -> None:
    layer = random_layer(61, groups=2, runs=[9, 22, 6, 18, 6])
    asked = min(61, int(budget * 61) if budget <= 1 else int(budget))
    assert compressed(load_strategy(name, budget=budget), layer).tokens == asked


@given(st.sampled_from(["tp", "tp_amerge", "tp_pmerge", "even", "window"]), layers(), budgets().filter(any))
def test_a_text_prior_stays_within_the_budget_and_keeps_what_the_strict_one_keeps(
    name: str, layer: Layer, alphas: tuple[float, float]
) -> None:
    fields = {"alpha1": alphas[0], "alpha2": alphas[1], "budget": 0.3}
    union, strict = (
        compressed(load_strategy(name, text_prior=prior, **fields), layer) for prior in ("union", "strict")
    )
    assert union.positions.tolist() == strict.positions.tolist()
    assert union.keys.equal(strict.keys)
    assert union.keys.shape[1] == min(layer.length, max(1, int(Fraction(3, 10) * layer.length)))


def test_budgets_with_and_without_the_union_prior_share_no_choice() -> None:
    layer = random_layer(100, runs=[40, 60])
    for name in ("tp", "mixkv", "bacon"):
        kept = [
            load_strategy(name, text_prior="union", alpha1=0.1, alpha2=0.1, budget=budget) for budget in (None, 0.2)
        ]
        assert kept[0].selection_key(100) != kept[1].selection_key(100)
        assert compressed(kept[0], layer).keys.shape[1] > compressed(kept[1], layer).keys.shape[1] == 20


def test_equal_ratios_and_spellings_are_one_strategy() -> None:
    first = load_strategy("h2o", alpha1=0.1, alpha2=0.1, budget=0.05)
    assert first == load_strategy("h2o", alpha1=0.4, alpha2=0.4, budget=0.05) == first.with_fields(alpha1=0.025)
    assert (first.alpha1, first.alpha2, first.nominal_budget) == (0.025, 0.025, 0.05)
    tokens = load_strategy("h2o", alpha1=0.1, alpha2=0.3, budget=256.0)
    assert (tokens.alpha1, tokens.alpha2, tokens.budget, tokens.nominal_budget) == (0.25, 0.75, 256, None)
    assert isinstance(tokens.budget, int)


@pytest.mark.parametrize("value", [0, -0.1, 1.5, 256.5, float("nan"), float("inf"), True, "0.2", [0.2]])
def test_a_wrong_budget_is_named_with_what_fits(value: Any) -> None:
    with pytest.raises(LookmError, match=r"budget=.* does not fit; choose a share .* or a whole number of tokens"):
        load_strategy("h2o", budget=value)


def test_a_budget_that_nothing_splits_is_refused() -> None:
    with pytest.raises(LookmError, match=r"budget=0.2 is split as alpha1 : alpha2, which are both 0"):
        load_strategy("h2o", alpha1=0.0, alpha2=0.0, budget=0.2)


def test_compress_takes_a_budget() -> None:
    queries, keys, values = torch.randn(3, 2, 4, 50, 8)
    kept, _ = compress(queries, keys, values, torch.arange(50) < 30, strategy="tp_pmerge", budget=7)
    assert kept.shape == (2, 4, 7, 8)


@pytest.mark.parametrize("name", ["tp_pmerge", "pyramidkv"])
def test_look_once_keeps_a_number_of_tokens_of_prompts_of_any_length(name: str) -> None:
    model = built("llama")
    inputs = left_padded([prompt("llama", (30,)), prompt("llama", (9,))])
    with look_once(model, name, budget=10) as session:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    report = session.report()
    assert [fmean(layer) for layer in zip(*report.kept_tokens, strict=True)] == [10, 9]
    assert (report.budget, report.nominal_budget) == (10, None)
    assert "nominal 10 tokens" in str(report)


def test_what_evicts_nothing_asks_for_no_budget() -> None:
    assert [name for name in strategy_names() if not load_strategy(name).evicts] == ["fastv", "full", "prumerge"]
    assert load_strategy("h2o", budget=4).evicts
    assert not load_strategy("h2o", budget=1).evicts
