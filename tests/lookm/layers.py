"""Random layers and image layouts for property tests."""

import torch
from hypothesis import strategies as st

from lookm import Strategy
from lookm.compression import CompressedRow, compress_many
from lookm.layer import Layer


def compressed(strategy: Strategy, layer: Layer) -> CompressedRow:
    """A layer under one strategy; statistics that an earlier strategy asked for are not reused."""
    return compress_many([strategy], Layer(layer.queries, layer.keys, layer.values, layer.is_image, layer.scaling))[0]


def random_layer(
    length: int, kv_heads: int = 2, groups: int = 1, size: int = 8, runs: list[int] | None = None, seed: int = 0
) -> Layer:
    """A layer whose tokens alternate between text and images, in runs of the given lengths (text first)."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(kv_heads * groups, length, size, generator=generator)
    keys, values = torch.randn(2, kv_heads, length, size, generator=generator)
    is_image = torch.zeros(length, dtype=torch.bool)
    position, image = 0, False
    for run in runs or []:
        is_image[position : position + run] = image
        position, image = position + run, not image
    return Layer(queries, keys, values, is_image)


@st.composite
def layers(draw: st.DrawFn, max_length: int = 40) -> Layer:
    """Any length, heads, group size, head size and layout, no images and nothing but images among them."""
    return random_layer(
        length=draw(st.integers(max_length // 2, max_length) | st.integers(1, max_length)),
        kv_heads=draw(st.integers(1, 3)),
        groups=draw(st.integers(1, 3)),
        size=draw(st.sampled_from([1, 3, 8, 20])),
        runs=draw(st.lists(st.integers(0, 12), max_size=6)),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def budgets(draw: st.DrawFn) -> tuple[float, float]:
    """α1 and α2 from 0 to 1 with a sum of at most 1, the ends included."""
    shares = [0.1, 0.3, 0.0, 0.05, 0.5, 0.7, 1.0]
    alpha1 = draw(st.sampled_from(shares))
    alpha2 = draw(st.sampled_from([share for share in shares if share + alpha1 <= 1]))
    return alpha1, alpha2
