"""Where a prompt's attention goes, coarsely: block means of A, and what text and images receive (LOOK-M, Figure 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm.blocks import rows_per_block
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.observation import observe_prefill


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one prompt in one layer, A = softmax(Q Kᵀ · scaling), causal, per query head.

    Attributes:
        edges: cell c holds the positions edges[c] … edges[c + 1] − 1; the last edge is L.
        cells: mean of A over the pairs of a query in cell r and a key in cell c that the query sees, (Hq, n, n)
            float32; NaN where there is no such pair.
        to_images: mean over the queries of the attention that falls on images, (Hq, 3) float32: all queries, text
            queries, image queries (NaN where there are none). Text receives the rest.
        visible_images: what these would be if every query looked at all it sees alike, (3,) float32.
    """

    edges: tuple[int, ...]
    cells: Tensor
    to_images: Tensor
    visible_images: Tensor


def even_edges(length: int, cells: int) -> tuple[int, ...]:
    """Edges of at most `cells` cells that differ by one position at most: (0, …, length)."""
    cells = max(1, min(cells, length))
    return tuple(length * cell // cells for cell in range(cells + 1))


def attention_map(
    queries: Tensor,
    keys: Tensor,
    is_image: Tensor,
    edges: Sequence[int],
    *,
    scaling: float | None = None,
    block: int | None = None,
) -> AttentionMap:
    """Average the causal attention weights of one prompt over cells, without ever holding an L × L matrix.

    Args:
        queries: (Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        is_image: (L,) bool, on the same device.
        edges: strictly ascending, from 0 to L.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        block: queries at a time, by default as many as `lookm.blocks` allows.

    Raises:
        LookmError: for edges that do not cut the prompt.
    """
    heads, length, size = queries.shape
    edges = tuple(edges)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != length or any(a >= b for a, b in pairwise(edges)):
        raise LookmError(f"edges {edges} do not cut a prompt of {length} tokens; they must ascend from 0 to {length}")
    scaling = size**-0.5 if scaling is None else scaling
    device, kv_heads = queries.device, keys.shape[0]
    starts = torch.tensor(edges[:-1], device=device)
    cell_of = torch.searchsorted(starts, torch.arange(length, device=device), right=True) - 1  # [L]
    column_cells = torch.nn.functional.one_hot(cell_of, len(starts)).float()  # [L, n]
    image = is_image.float()
    sums = queries.new_zeros(heads, len(starts), len(starts), dtype=torch.float32)
    pairs = torch.zeros(len(starts), len(starts), device=device)
    on_images = queries.new_zeros(heads, length, dtype=torch.float32)
    transposed = keys.float().transpose(1, 2)  # [Hkv, D, L]
    block = block or rows_per_block(heads * length, device)
    for start in range(0, length, block):
        end = min(start + block, length)
        rows = torch.arange(start, end, device=device)
        seen = torch.arange(end, device=device) <= rows[:, None]  # [rows, end]
        q = (queries[:, start:end].float() * scaling).reshape(kv_heads, -1, size)
        logits = torch.bmm(q, transposed[:, :, :end]).view(heads, end - start, end)
        weights = logits.masked_fill_(~seen, -torch.inf).softmax(-1)
        sums.index_add_(1, cell_of[rows], weights @ column_cells[:end])
        pairs.index_add_(0, cell_of[rows], seen.float() @ column_cells[:end])
        on_images[:, start:end] = weights @ image[:end]
    visible = image.cumsum(0) / torch.arange(1, length + 1, device=device)
    cells = torch.where(pairs > 0, sums / pairs, torch.nan)
    return AttentionMap(edges, cells, _by_modality(on_images, is_image), _by_modality(visible, is_image))


def prompt_maps(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], edges: Sequence[int] | int = 64
) -> list[AttentionMap]:
    """The attention map of every layer, from one prefill of one prompt.

    Args:
        model: as for `look_once`.
        inputs: what `generate` would get, with `input_ids` (1, L).
        edges: cells as of `attention_map`, or how many even cells.

    Raises:
        LookmError: as of `observe_prefill` and `attention_map`.
    """
    maps: list[AttentionMap] = []

    def observe(layer: Layer) -> None:
        chosen = even_edges(layer.is_image.numel(), edges) if isinstance(edges, int) else edges
        maps.append(attention_map(layer.queries, layer.keys, layer.is_image, chosen, scaling=layer.scaling))

    observe_prefill(model, inputs, observe)
    return maps


def _by_modality(shares: Tensor, is_image: Tensor) -> Tensor:
    """Means over all, text and image queries: (…, L) → (…, 3)."""
    return torch.stack([shares.mean(-1), shares[..., ~is_image].mean(-1), shares[..., is_image].mean(-1)], dim=-1)
