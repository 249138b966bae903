"""Claims about the attention statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm import importance
from lookm.importance import Needs, attention_statistics
from tests.lookm.layers import Layer, layers, random_layer
from tests.lookm.oracle import attention


@given(layers(), st.integers(1, 50), st.integers(1, 60))
def test_sums_squares_and_windows_equal_the_full_matrix(layer: Layer, block: int, window: int) -> None:
    needs = Needs(sums=True, squares=True, windows=frozenset({window, 3}))
    statistics = attention_statistics(layer.queries, layer.keys, needs, block=block)
    weights = attention(layer.queries, layer.keys)
    assert statistics.sums is not None
    assert statistics.squares is not None
    torch.testing.assert_close(statistics.sums, weights.sum(1).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(statistics.squares, weights.square().sum(1).float(), atol=1e-5, rtol=1e-5)
    for w in (window, 3):
        torch.testing.assert_close(statistics.windows[w], weights[:, -w:].sum(1).float(), atol=1e-5, rtol=1e-5)


def test_a_window_alone_equals_the_window_beside_sums() -> None:
    layer = random_layer(30, groups=2)
    alone = attention_statistics(layer.queries, layer.keys, Needs(windows=frozenset({7})), block=4)
    beside = attention_statistics(layer.queries, layer.keys, Needs(True, True, frozenset({7})), block=4)
    assert alone.sums is None
    torch.testing.assert_close(alone.windows[7], beside.windows[7])


def test_column_sums_average_the_query_heads_of_a_group() -> None:
    layer = random_layer(12, kv_heads=2, groups=3)
    statistics = attention_statistics(layer.queries, layer.keys, Needs(sums=True))
    weights = attention(layer.queries, layer.keys)
    expected = torch.stack([weights[0:3].sum(1).mean(0), weights[3:6].sum(1).mean(0)]).float()
    torch.testing.assert_close(statistics.column_sums(), expected, atol=1e-5, rtol=1e-5)


def test_every_query_gives_away_exactly_one() -> None:
    layer = random_layer(50)
    statistics = attention_statistics(layer.queries, layer.keys, Needs(sums=True), block=7)
    assert statistics.sums is not None
    torch.testing.assert_close(statistics.sums.sum(1), torch.full((2,), 50.0))


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
    torch.testing.assert_close(statistics.sums, reference.sums)


def test_no_block_exceeds_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookm.blocks.CPU_ELEMENTS", 4000)
    sizes = []
    inner = importance._attention_block

    def measured(*args: object) -> torch.Tensor:
        weights = inner(*args)  # type: ignore[arg-type]
        sizes.append(weights.numel())
        return weights

    monkeypatch.setattr(importance, "_attention_block", measured)
    layer = random_layer(200, kv_heads=2, groups=2)
    attention_statistics(layer.queries, layer.keys, Needs(sums=True))
    assert len(sizes) > 1
    assert max(sizes) <= 4000
