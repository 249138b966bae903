import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lookm.attention_map import AttentionMap, attention_map, even_edges, prompt_maps
from lookm.errors import LookmError
from tests.lookm.models import IMAGE, llama, llava
from tests.lookm.oracle import attention
from tests.lookm.rounding import assert_close, gamma, pass_error, sum_error


def plain_map(queries: Tensor, keys: Tensor, is_image: Tensor, edges: tuple[int, ...]) -> AttentionMap:
    """The same, pair by pair from the whole L × L matrix."""
    weights = attention(queries, keys)
    heads, length, _ = weights.shape
    cells = torch.full((heads, len(edges) - 1, len(edges) - 1), math.nan)
    for r in range(len(edges) - 1):
        for c in range(len(edges) - 1):
            pairs = [(i, j) for i in range(edges[r], edges[r + 1]) for j in range(edges[c], edges[c + 1]) if j <= i]
            if pairs:
                for head in range(heads):
                    cells[head, r, c] = sum(float(weights[head, i, j]) for i, j in pairs) / len(pairs)
    chosen = [list(range(length)), (~is_image).nonzero().flatten().tolist(), is_image.nonzero().flatten().tolist()]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    to_images = [[mean([float(weights[h, i, is_image].sum()) for i in rows]) for rows in chosen] for h in range(heads)]
    visible = [mean([float(is_image[: i + 1].float().mean()) for i in rows]) for rows in chosen]
    return AttentionMap(edges, cells, torch.tensor(to_images), torch.tensor(visible))


@given(
    seed=st.integers(0, 1000),
    length=st.integers(1, 14),
    kv_heads=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 2]),
    cells=st.integers(1, 5),
    block=st.sampled_from([None, 1, 3]),
)
def test_map_equals_the_means_of_the_whole_matrix(
    seed: int, length: int, kv_heads: int, group: int, cells: int, block: int | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(kv_heads * group, length, 4, generator=generator)
    keys = torch.randn(kv_heads, length, 4, generator=generator)
    is_image = torch.rand(length, generator=generator) < 0.6
    edges = even_edges(length, cells)
    found = attention_map(queries, keys, is_image, edges, block=block)
    expected = plain_map(queries, keys, is_image, edges)
    error = sum_error(queries, keys) + gamma(length * length)  # a mean of at most L × L weights
    for part in ("cells", "to_images", "visible_images"):
        ours, exact = getattr(found, part), getattr(expected, part)
        assert ours.isnan().equal(exact.isnan())
        assert_close(ours.nan_to_num(), exact.nan_to_num(), relative=error)


@given(length=st.integers(1, 300), cells=st.integers(1, 80))
def test_even_edges_cut_the_whole_prompt_evenly(length: int, cells: int) -> None:
    edges = even_edges(length, cells)
    sizes = [b - a for a, b in pairwise(edges)]
    assert (edges[0], edges[-1], len(sizes)) == (0, length, min(length, cells))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("edges", [(0,), (0, 5), (1, 6), (0, 3, 3, 6), (0, 4, 2, 6)])
def test_edges_that_do_not_cut_the_prompt_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(LookmError, match="must ascend from 0 to 6"):
        attention_map(torch.ones(1, 6, 2), torch.ones(1, 6, 2), torch.ones(6, dtype=torch.bool), edges)


def test_a_models_maps_are_those_of_its_own_attention_weights() -> None:
    """Against `output_attentions` of eager attention, for grouped queries."""
    model = llama(kv_heads=2)
    ids = torch.randint(1, 97, (1, 23), generator=torch.Generator().manual_seed(0))
    ids[0, 5:9] = IMAGE
    maps = prompt_maps(model, {"input_ids": ids}, edges=23)
    model.set_attn_implementation("eager")
    weights = model(ids, output_attentions=True).attentions
    assert len(maps) == len(weights)
    for found, expected in zip(maps, weights, strict=True):
        assert_close(found.cells.nan_to_num(0), expected[0].detach(), absolute=2 * pass_error(model, 23))


def test_images_are_found_by_the_models_image_token_and_padding_is_left_out() -> None:
    model = llava()
    ids = torch.tensor([[0, 0, 1, 7, *[IMAGE] * 16, 8, 9]])
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    padded = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": pixels}
    alone = {"input_ids": ids[:, 2:], "pixel_values": pixels}
    for left, right in zip(prompt_maps(model, padded, 5), prompt_maps(model, alone, 5), strict=True):
        assert_close(left.to_images, right.to_images, absolute=2 * pass_error(model, 22))
        assert_close(left.cells.nan_to_num(), right.cells.nan_to_num(), absolute=2 * pass_error(model, 22))
    assert 0 < left.to_images[:, 0].mean() < 1
