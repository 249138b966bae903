"""Claims about compressing one layer under many strategies at once."""

from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.h2o import H2O
from lookm import Strategy, load_strategy
from lookm.compression import CompressedRow, compress_alike, compress_many
from lookm.errors import BudgetError
from lookm.layer import Layer
from lookm.registry import ready_strategies
from tests.lookm.layers import budgets, compressed, layers, random_layer
from tests.lookm.oracle import ROWS, kept_positions, merged
from tests.lookm.rounding import assert_close, merge_error


@st.composite
def sweeps(draw: st.DrawFn) -> list[Strategy]:
    """One to twelve strategies of any name, budget and semantics, repetitions among them."""
    names = draw(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=12))
    rows = []
    for name in names:
        alpha1, alpha2 = draw(budgets())
        semantics = draw(st.sampled_from(["paper", "release"]))
        rows.append(load_strategy(name, alpha1=alpha1, alpha2=alpha2, semantics=semantics))
    return rows


def _equal(a: CompressedRow, b: CompressedRow) -> bool:
    return a.keys.equal(b.keys) and a.values.equal(b.values) and a.positions.equal(b.positions)


@settings(max_examples=60)
@given(sweeps(), layers(max_length=60), st.sampled_from([torch.float32, torch.bfloat16]))
def test_many_at_once_equal_each_alone_bit_for_bit(
    strategies: list[Strategy], layer: Layer, dtype: torch.dtype
) -> None:
    layer = Layer(layer.queries.to(dtype), layer.keys.to(dtype), layer.values.to(dtype), layer.is_image)
    together = compress_many(strategies, layer)
    assert len(together) == len(strategies)
    for strategy, row in zip(strategies, together, strict=True):
        assert _equal(row, compressed(strategy, layer)), strategy


@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_of_one_layout_together_equal_each_alone_bit_for_bit(semantics: str, dtype: torch.dtype) -> None:
    strategies = [load_strategy(name, semantics=semantics) for name in ready_strategies()]
    strategies = [one for one in strategies if one.joins_sweeps and not one.shortens_prompt]
    for runs, length in (([12, 40, 8, 20], 90), ([], 37), ([4, 100, 30], 156)):
        prompts = [random_layer(length, groups=2, runs=runs, seed=seed) for seed in range(3)]
        alike = [Layer(*(x.to(dtype) for x in (p.queries, p.keys, p.values)), p.is_image) for p in prompts]
        for layer, rows in zip(alike, compress_alike(strategies, alike), strict=True):
            for strategy, row in zip(strategies, rows, strict=True):
                assert _equal(row, compressed(strategy, layer)), strategy


def test_a_strategy_of_heads_apart_chooses_once_for_prompts_of_one_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = Mock(side_effect=H2O.keep, autospec=True)
    monkeypatch.setattr(H2O, "keep", lambda self, layer: choose(self, layer))
    compress_alike([load_strategy("h2o"), load_strategy("tova")], [random_layer(50, seed=n) for n in range(3)])
    assert choose.call_count == 1


@pytest.mark.parametrize("semantics", ["paper", "release"])
def test_the_eleven_rows_together_equal_the_oracle(semantics: str) -> None:
    layer = random_layer(90, groups=2, runs=[12, 40, 8, 20], seed=5)
    strategies = [load_strategy(name, semantics=semantics) for name in ROWS]
    for strategy, row in zip(strategies, compress_many(strategies, layer), strict=True):
        expected = kept_positions(strategy.name, layer.queries, layer.keys, layer.is_image, 0.1, 0.1, semantics)
        assert row.positions.tolist() == expected
        keys, values = merged(layer.keys, layer.values, expected, ROWS[strategy.name][2], semantics)
        assert_close(row.keys, keys, absolute=merge_error(layer.keys))
        assert_close(row.values, values, absolute=merge_error(layer.values))


def test_what_strategies_have_in_common_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lookm import layer as layers_module
    from lookm import merging

    calls = {}
    for module, name in ((layers_module, "attention_statistics"), (merging, "match_evicted"), (merging, "sum_evicted")):
        calls[name] = Mock(side_effect=getattr(module, name))
        monkeypatch.setattr(module, name, calls[name])
    layer = random_layer(90, runs=[12, 40, 8, 20])
    compress_many([load_strategy(name) for name in ROWS], layer)
    counts = {name: call.call_count for name, call in calls.items()}
    # two kept sets that merge (with and without the text prior), and of each one plain and one weighted sum
    assert counts == {"attention_statistics": 1, "match_evicted": 2, "sum_evicted": 4}


def test_equal_selection_keys_choose_equally_and_merging_is_no_part_of_them() -> None:
    keys = {name: load_strategy(name).selection_key(100) for name in ROWS}
    assert keys["h2o"] == keys["a_merge"] == keys["w_merge"] == keys["p_merge"]
    assert keys["tp"] == keys["tp_amerge"] == keys["tp_wmerge"] == keys["tp_pmerge"]
    assert len(set(keys.values())) == 5
    released = {name: load_strategy(name, semantics="release").selection_key(100) for name in ROWS}
    assert released["h2o"] == keys["h2o"] != released["a_merge"]  # the released merges keep the first four
    assert load_strategy("h2o", alpha2=0.101).selection_key(100) == keys["h2o"]  # ten tokens either way


def test_nothing_is_computed_when_everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookm.layer.attention_statistics", Mock(side_effect=AssertionError))
    layer = random_layer(30)
    strategies = [load_strategy("full"), load_strategy("h2o", alpha1=0.5, alpha2=0.5)]
    for row in compress_many(strategies, layer):
        assert row.keys.equal(layer.keys)
        assert row.positions.tolist() == [list(range(30))] * 2
    assert compress_many([], layer) == []


def test_one_broken_promise_among_many_is_an_error() -> None:
    class Careless(Strategy):
        def keep(self, layer: Layer) -> Tensor:
            return torch.arange(layer.length).expand(layer.kv_heads, -1)

    with pytest.raises(BudgetError, match="careless kept"):
        compress_many([load_strategy("h2o"), Careless(name="careless")], random_layer(50))
