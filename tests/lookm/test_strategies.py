"""All eleven strategies against the plain oracle, in both semantics."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lookm import LookmError, Strategy, compress, compress_rows, load_strategy, strategy_names
from lookm.compression import check_choices
from lookm.errors import BudgetError
from lookm.layer import Layer
from tests.lookm.layers import budgets, compressed, layers, random_layer
from tests.lookm.oracle import ROWS, kept_positions, merged
from tests.lookm.rounding import assert_close, merge_error


def test_the_registry_holds_the_eleven_rows_of_the_paper() -> None:
    assert set(ROWS) <= set(strategy_names())


@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("name", sorted(ROWS))
@settings(max_examples=40)
@given(layer=layers(), budget=budgets())
def test_kept_positions_and_merged_cache_equal_the_oracle(
    name: str, semantics: str, layer: Layer, budget: tuple[float, float]
) -> None:
    _check_against_oracle(name, semantics, layer, budget)


@pytest.mark.parametrize("budget", [(0.1, 0.2), (0.0, 0.5), (0.3, 0.0), (0.2, 0.7)])
@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_long_prompt_with_images_equals_the_oracle(name: str, semantics: str, budget: tuple[float, float]) -> None:
    for seed, groups in ((1, 1), (2, 3)):
        layer = random_layer(73, groups=groups, runs=[9, 25, 6, 25], seed=seed)
        _check_against_oracle(name, semantics, layer, budget)


def _check_against_oracle(name: str, semantics: str, layer: Layer, budget: tuple[float, float]) -> None:
    strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], semantics=semantics)
    result = compressed(strategy, layer)
    expected = kept_positions(name, layer.queries, layer.keys, layer.is_image, *budget, semantics)
    assert result.positions.tolist() == expected
    assert result.positions.shape[1] == strategy.promised_tokens(layer.is_image)
    if layer.keys.shape[-1] == 1 and ROWS[name][2] != "none":  # all cosines are ±1: the arg-max is a tie
        return
    keys, values = merged(layer.keys, layer.values, expected, ROWS[name][2], semantics)
    assert_close(result.keys, keys.view_as(result.keys), absolute=merge_error(layer.keys))
    assert_close(result.values, values.view_as(result.values), absolute=merge_error(layer.values))


@given(st.sampled_from(["tp", "tp_amerge", "tp_wmerge", "tp_pmerge"]), layers(), budgets())
def test_strict_prior_equals_the_oracle_and_keeps_the_nominal_number(
    name: str, layer: Layer, budget: tuple[float, float]
) -> None:
    strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], text_prior="strict")
    result = compressed(strategy, layer)
    expected = kept_positions(name, layer.queries, layer.keys, layer.is_image, *budget, "paper", text_prior="strict")
    assert result.positions.tolist() == expected
    length = layer.is_image.numel()
    nominal = int(budget[0] * length) + int(budget[1] * length)
    assert result.keys.shape[1] == min(length, nominal or int(sum(budget) > 0))


def test_union_keeps_all_text_even_over_budget() -> None:
    layer = random_layer(100, runs=[40, 60])
    result = compressed(load_strategy("tp", alpha1=0.01, alpha2=0.01), layer)
    assert result.positions.tolist() == [[*range(40), 99]] * 2


def test_release_keeps_prompts_without_images_except_under_snapkv() -> None:
    layer = random_layer(50)
    for name in ROWS:
        strategy = load_strategy(name, semantics="release")
        kept = compressed(strategy, layer).keys.shape[1]
        assert kept == (10 if name == "snapkv" else 50)


def test_release_roco_keeps_what_h2o_keeps_and_paper_roco_does_not() -> None:
    layer = random_layer(200, runs=[20, 150, 30])
    h2o = compressed(load_strategy("h2o"), layer).positions
    assert compressed(load_strategy("roco", semantics="release"), layer).positions.equal(h2o)
    assert not compressed(load_strategy("roco"), layer).positions.equal(h2o)


@pytest.mark.parametrize(("length", "window"), [(10, 1), (60, 3), (640, 32), (1000, 32)])
def test_snapkv_s_window_is_a_quarter_of_the_budget_and_at_most_32(length: int, window: int) -> None:
    strategy = load_strategy("snapkv")
    assert strategy.promised_recent(length) == window
    assert strategy.needs(torch.zeros(length, dtype=torch.bool)).windows == {window}


def test_a_fixed_window_of_snapkv_stays_and_warns_once_where_it_eats_more_than_half_of_the_budget() -> None:
    fitting, eating = (load_strategy("snapkv", window=window, alpha1=0.11) for window in (10, 11))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitting.promised_recent(100) == 10  # of 21
    with pytest.warns(UserWarning, match="snapkv: window=11 takes more than half of the budget") as caught:
        assert [eating.promised_recent(100) for _ in range(3)] == [11, 11, 11]
    assert len(caught) == 1


def test_roco_exempts_a_key_that_one_query_alone_looks_at() -> None:
    queries, keys = torch.zeros(2, 1, 100, 8)
    queries[0, 60], keys[0, 50] = 10.0, 10.0  # all other queries attend uniformly
    values, is_image = torch.randn(1, 100, 8), torch.ones(100, dtype=torch.bool)
    kept = {}
    for exempt in (0.0, 0.5):
        strategy = load_strategy("roco", alpha1=0.0, alpha2=0.04, exempt=exempt)
        kept[exempt] = compressed(strategy, Layer(queries, keys, values, is_image)).positions.tolist()
    assert kept == {0.0: [[0, 1, 2, 3]], 0.5: [[0, 1, 2, 50]]}


def test_no_two_rows_of_the_paper_are_the_same_strategy() -> None:
    layer = random_layer(300, runs=[20, 200, 30])
    caches = {}
    for name in ROWS:
        result = compressed(load_strategy(name), layer)
        caches[name] = (tuple(result.values.shape), round(float(result.values.double().sum()), 6))
    assert len(set(caches.values())) == len(ROWS)


def test_alpha_one_half_twice_keeps_all_of_an_even_prompt() -> None:
    layer = random_layer(30, runs=[10, 20])
    for name in ROWS:
        keys, values = compress(
            *(t[None] for t in (layer.queries, layer.keys, layer.values)),
            layer.is_image, strategy=name, alpha1=0.5, alpha2=0.5,
        )  # fmt: skip
        assert keys[0].equal(layer.keys)
        assert values[0].equal(layer.values)


def test_compress_takes_one_layout_or_one_a_row() -> None:
    a, b = random_layer(40, runs=[10, 20], seed=1), random_layer(40, runs=[5, 20], seed=2)
    q, k, v = (torch.stack(pair) for pair in ((a.queries, b.queries), (a.keys, b.keys), (a.values, b.values)))
    masks = torch.stack([a.is_image, b.is_image])
    keys, _ = compress(q, k, v, a.is_image, strategy="tp_pmerge")
    alone, _ = compress(q[1:], k[1:], v[1:], a.is_image, strategy="tp_pmerge")
    assert keys[1:].equal(alone)
    keys, values = compress(q, k, v, masks, strategy="tp_pmerge", text_prior="strict")
    rows = compress_rows(q, k, v, masks, strategy="tp_pmerge", text_prior="strict")
    assert keys[1].equal(rows[1].keys)
    assert values.shape == (2, 2, 8, 8)


def test_compress_refuses_rows_of_different_sizes_with_the_way_out() -> None:
    a = random_layer(40, runs=[10, 30])
    masks = torch.stack([a.is_image, ~a.is_image])
    q, k, v = (torch.stack([t, t]) for t in (a.queries, a.keys, a.values))
    with pytest.raises(LookmError, match=r"the rows keep \[14, 30\] tokens.*compress_rows"):
        compress(q, k, v, masks, strategy="tp")
    assert [row.keys.shape[1] for row in compress_rows(q, k, v, masks, strategy="tp")] == [14, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": torch.zeros(1, 3, 10, 8)}, "multiple of the key/value heads"),
        ({"queries": torch.zeros(1, 2, 9, 8)}, "must agree"),
        ({"keys": torch.zeros(2, 10, 8)}, "four dimensions"),
        ({"is_image": torch.zeros(10)}, "must be bool"),
        ({"is_image": torch.zeros(9, dtype=torch.bool)}, "must be bool of shape"),
    ],
)
def test_compress_refuses_shapes_that_do_not_fit(change: dict[str, torch.Tensor], message: str) -> None:
    tensors = {name: torch.zeros(1, 2, 10, 8) for name in ("queries", "keys", "values")}
    tensors["is_image"] = torch.zeros(10, dtype=torch.bool)
    with pytest.raises(LookmError, match=message):
        compress(**{**tensors, **change}, strategy="h2o")  # type: ignore[arg-type]


def test_a_strategy_that_keeps_something_else_than_promised_is_an_error() -> None:
    class Careless(Strategy):
        def keep(self, layer: Layer) -> torch.Tensor:
            return torch.arange(layer.length).expand(layer.kv_heads, -1)

    layer = random_layer(50)
    with pytest.raises(BudgetError, match=r"kept \[50, 50\].*promises 20 in 2 equal heads"):
        compressed(Careless(name="careless"), layer)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([[0, 1, 1, 8, 9]] * 2, "not ascending"),
        ([[0, 1, 2, 7, 9]] * 2, "not the last 2 of 10"),
        ([[-1, 1, 2, 8, 9]] * 2, "not ascending"),
        ([[0, 1, 2, 3, 4, 5, 9, 10]] * 2, "promises"),
        ([[0, 2, 3, 8, 9]] * 2, "evicted text"),
    ],
)
def test_a_choice_that_breaks_the_promise_is_an_error(kept: list[list[int]], message: str) -> None:
    layer = random_layer(10, runs=[2, 6])
    strategy = load_strategy("tp", alpha1=0.2, alpha2=0.3)
    with pytest.raises(BudgetError, match=message):
        check_choices([(strategy, torch.tensor(kept))], layer)
    check_choices([(strategy, torch.tensor([[0, 1, 3, 8, 9], [0, 1, 7, 8, 9]]))], layer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_half_precision_out(dtype: torch.dtype) -> None:
    layer = random_layer(60, runs=[10, 40])
    for name in ROWS:
        q, k, v = (t.to(dtype) for t in (layer.queries, layer.keys, layer.values))
        half = compressed(load_strategy(name), Layer(q, k, v, layer.is_image))
        full = compressed(load_strategy(name), Layer(q.float(), k.float(), v.float(), layer.is_image))
        assert half.keys.dtype == half.values.dtype == dtype
        assert half.positions.equal(full.positions)
        torch.testing.assert_close(half.values, full.values.to(dtype))
