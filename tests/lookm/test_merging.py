"""Claims about merging."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm.layer import Layer
from lookm.merging import Kept, add_in_order, add_sorted, highest, match_evicted
from lookm.method import LookM, Merge
from lookm.strategy import Semantics
from tests.lookm.layers import layers, random_layer
from tests.lookm.oracle import merged
from tests.lookm.rounding import assert_close, cosine_roundings, gamma, merge_error

HOW = st.sampled_from(["none", "averaged", "pivotal", "weighted"])


def merge_evicted(
    keys: torch.Tensor, values: torch.Tensor, kept: torch.Tensor, how: Merge, semantics: Semantics = "paper"
) -> tuple[torch.Tensor, torch.Tensor]:
    layer = Layer(keys, keys, values, torch.zeros(keys.shape[1], dtype=torch.bool))
    return LookM(name="some", merge=how, semantics=semantics).merge_into(Kept(layer, kept))


def _some_positions(layer: Layer, data: st.DataObject) -> torch.Tensor:
    heads, length, _ = layer.keys.shape
    n = data.draw(st.integers(0, length))
    kept = [sorted(data.draw(st.permutations(range(length)))[:n]) for _ in range(heads)]
    return torch.tensor(kept, dtype=torch.int64).view(heads, n)


@given(layers(max_length=20), HOW, st.sampled_from(["paper", "release"]), st.data())
def test_merging_equals_the_loop_over_tokens(
    layer: Layer, how: Merge, semantics: Semantics, data: st.DataObject
) -> None:
    if layer.keys.shape[-1] == 1:  # all cosines are ±1: the arg-max is a tie
        return
    kept = _some_positions(layer, data)
    keys, values = merge_evicted(layer.keys, layer.values, kept, how, semantics=semantics)
    expected_keys, expected_values = merged(layer.keys, layer.values, kept.tolist(), how, semantics)
    assert_close(keys, expected_keys.view_as(keys), absolute=merge_error(layer.keys))
    assert_close(values, expected_values.view_as(values), absolute=merge_error(layer.values))


@given(layers(max_length=20), st.integers(1, 30), st.data())
def test_matching_in_blocks_equals_matching_at_once(layer: Layer, block: int, data: st.DataObject) -> None:
    kept = _some_positions(layer, data)
    if kept.shape[1] == 0:
        return
    blocks, at_once = match_evicted(layer.keys, kept, block=block), match_evicted(layer.keys, kept, block=1000)
    assert blocks.target.equal(at_once.target)
    error = 2 * gamma(cosine_roundings(layer.keys.shape[2]))
    assert_close(blocks.similarity, at_once.similarity, absolute=error)


@given(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=40), st.integers(1, 5))
def test_sorted_sums_equal_sums_in_order(slots: int, targets: list[int], size: int) -> None:
    index = torch.tensor([target % slots for target in targets], dtype=torch.int64)
    source = torch.randn(len(targets), size, generator=torch.Generator().manual_seed(len(targets)))
    counts = torch.bincount(index, minlength=slots)
    expected = torch.zeros(slots, size, dtype=torch.float64)
    for target, row in zip(index.tolist(), source, strict=True):
        expected[target] += row
    error = gamma(len(targets)) * source.abs().sum(0)
    assert_close(add_in_order(source, index, counts), expected, absolute=error)
    assert_close(add_sorted(source, index, counts), expected, absolute=error)


def test_of_equally_similar_tokens_the_earliest_is_chosen() -> None:
    keys = torch.tensor([[[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    assert match_evicted(keys, torch.tensor([[0, 1, 2]])).target.tolist() == [[1]]


@pytest.mark.parametrize("limit", [1 << 18, 5000])
def test_similarities_are_never_all_held_at_once(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookm.blocks.CPU_ELEMENTS", limit)
    sizes = []

    def measured(rows: torch.Tensor, anchors: torch.Tensor, buffer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(buffer.numel())
        return highest(rows, anchors, buffer)

    monkeypatch.setattr("lookm.merging.highest", measured)
    layer = random_layer(400, kv_heads=6)
    match_evicted(layer.keys, torch.arange(0, 400, 5).expand(6, -1))
    assert sum(sizes) == 6 * 320 * 80
    assert max(sizes) <= limit


def test_a_kept_token_that_nobody_chose_is_untouched() -> None:
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]]])
    values = torch.tensor([[[1.0], [2.0], [9.0]]])
    kept = torch.tensor([[0, 1]])
    out_keys, out_values = merge_evicted(keys, values, kept, "averaged")
    assert out_keys[0, 1].equal(keys[0, 1])
    torch.testing.assert_close(out_keys[0, 0], torch.tensor([1.5, 0.05]))
    assert out_values.squeeze().tolist() == [5.0, 2.0]


def test_the_similarity_of_keys_decides_for_values_too() -> None:
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]])
    values = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]])
    _, out = merge_evicted(keys, values, torch.tensor([[0, 1]]), "averaged")
    torch.testing.assert_close(out[0, 0], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("how", ["averaged", "pivotal", "weighted"])
def test_a_zero_key_merges_without_nan(how: Merge) -> None:
    layer = random_layer(10)
    layer.keys[:, 3] = 0
    keys, values = merge_evicted(layer.keys, layer.values, torch.tensor([[0, 9], [1, 8]]), how)
    assert keys.isfinite().all()
    assert values.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_merges_in_float32(dtype: torch.dtype) -> None:
    keys = torch.ones(1, 400, 4, dtype=dtype)
    values = torch.full((1, 400, 4), 300.0, dtype=dtype)
    _, out = merge_evicted(keys, values, torch.tensor([[0]]), "averaged")  # the sum, 120,000, is no float16
    assert out.dtype == dtype
    assert out.unique().tolist() == [300.0]
