"""Claims about the attention statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm import blocks
from lookm.blocks import Tile, tile_of
from lookm.layer import Layer
from lookm.statistics import Needs, attention_statistics, causal_log_sum_exp
from tests.lookm.layers import layers, random_layer
from tests.lookm.oracle import attention
from tests.lookm.rounding import assert_close, gamma, log_sum_exp_error, sum_error

tiles = st.builds(Tile, st.integers(1, 4), st.integers(1, 50), st.integers(1, 50))


def _own_log_sum_exp(layer: Layer) -> torch.Tensor:
    return causal_log_sum_exp(layer.queries, layer.keys, layer.keys.shape[-1] ** -0.5)


@given(layers(), tiles, st.integers(1, 60), st.booleans())
def test_sums_squares_and_windows_equal_the_full_matrix(layer: Layer, tile: Tile, window: int, given_lse: bool) -> None:
    needs = Needs(sums=True, squares=True, windows=frozenset({window, 3}))
    lse = _own_log_sum_exp(layer) if given_lse else None
    statistics = attention_statistics(layer.queries, layer.keys, needs, log_sum_exp=lse, tile=tile)
    weights = attention(layer.queries, layer.keys)
    assert statistics.sums is not None
    assert statistics.squares is not None
    error = sum_error(layer.queries, layer.keys)
    assert_close(statistics.sums, weights.sum(1), relative=error)
    assert_close(statistics.squares, weights.square().sum(1), relative=sum_error(layer.queries, layer.keys, power=2))
    for w in (window, 3):
        assert_close(statistics.windows[w], weights[:, -w:].sum(1), relative=error)


@given(layers())
def test_log_sum_exp_equals_the_full_matrix(layer: Layer) -> None:
    scaling = layer.keys.shape[-1] ** -0.5
    logits = (
        scaling
        * layer.queries.double()
        @ layer.keys.double().repeat_interleave(layer.queries.shape[0] // layer.keys.shape[0], 0).transpose(1, 2)
    )
    logits = logits.masked_fill(torch.ones_like(logits).triu(1).bool(), -torch.inf)
    error = log_sum_exp_error(layer.queries, layer.keys)
    assert_close(_own_log_sum_exp(layer), logits.logsumexp(-1), absolute=error)


@given(layers(), tiles, st.integers(1, 60))
def test_what_else_is_needed_changes_no_bit(layer: Layer, tile: Tile, window: int) -> None:
    joined = Needs(sums=True, squares=True, windows=frozenset({window, 5}))
    beside = attention_statistics(layer.queries, layer.keys, joined, tile=tile)
    for needs in (Needs(sums=True), Needs(squares=True), Needs(windows=frozenset({window}))):
        alone = attention_statistics(layer.queries, layer.keys, needs, tile=tile)
        assert (alone.sums is None) == (not needs.sums)
        assert (alone.squares is None) == (not needs.squares)
        for mine, theirs in ((alone.sums, beside.sums), (alone.squares, beside.squares)):
            assert mine is None or (theirs is not None and mine.equal(theirs))
        for w, sums in alone.windows.items():
            assert sums.equal(beside.windows[w])


def test_keys_that_a_query_may_not_see_do_no_harm_however_similar() -> None:
    layer = random_layer(40)
    layer.keys[:, 20:] *= 1000  # exp of their logits is infinite for the queries before them
    layer.queries[:, 20:] = 0  # and 1 for those that may see them
    statistics = attention_statistics(layer.queries, layer.keys, Needs(sums=True), tile=Tile(1, 8, 16))
    assert statistics.sums is not None
    weights = attention(layer.queries, layer.keys)
    assert_close(statistics.sums, weights.sum(1), relative=sum_error(layer.queries, layer.keys))


def test_column_sums_average_the_query_heads_of_a_group() -> None:
    layer = random_layer(12, kv_heads=2, groups=3)
    layer.make_statistics(Needs(sums=True))
    weights = attention(layer.queries, layer.keys)
    expected = torch.stack([weights[0:3].sum(1).mean(0), weights[3:6].sum(1).mean(0)])
    error = sum_error(layer.queries, layer.keys) + gamma(3)
    assert_close(layer.column_sums(), expected, relative=error)


def test_every_query_gives_away_exactly_one() -> None:
    layer = random_layer(50)
    statistics = attention_statistics(layer.queries, layer.keys, Needs(sums=True), tile=Tile(1, 7, 9))
    assert statistics.sums is not None
    assert_close(statistics.sums.double().sum(1), torch.full((2,), 50.0), relative=sum_error(layer.queries, layer.keys))


def test_needs_join() -> None:
    joined = Needs(sums=True, windows=frozenset({32})) | Needs(squares=True, windows=frozenset({8}))
    assert joined == Needs(True, True, frozenset({8, 32}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_accumulates_in_float32(dtype: torch.dtype) -> None:
    layer = random_layer(300, size=16)
    queries, keys = layer.queries.to(dtype), layer.keys.to(dtype)
    statistics = attention_statistics(queries, keys, Needs(sums=True))
    reference = attention_statistics(queries.float(), keys.float(), Needs(sums=True))
    assert statistics.sums is not None
    assert statistics.sums.dtype == torch.float32
    assert reference.sums is not None
    error = 2 * sum_error(queries, keys)
    assert_close(statistics.sums, reference.sums, relative=error)


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 10**6), st.sampled_from(["cpu", "meta"]))
def test_no_tile_exceeds_its_bound(heads: int, group: int, length: int, device: str) -> None:
    tile = tile_of(heads, group, length, length, torch.device(device))
    limit = blocks.CPU_ELEMENTS if device == "cpu" else blocks.GPU_ELEMENTS
    assert 1 <= tile.heads * group * tile.rows * tile.columns <= max(limit, group)
    assert tile.heads <= heads
    assert max(tile.rows, tile.columns) <= length
