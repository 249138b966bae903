"""How much is computed at once where all at once would be too much."""

from dataclasses import dataclass

import torch

CPU_ELEMENTS = 1 << 18
GPU_ELEMENTS = 1 << 25
"""Float32 elements of one block, over all heads: 1 MiB stays in a core's own cache, 128 MiB keep a GPU busy."""

CPU_ROWS = 256
GPU_ROWS = 2048
"""Rows of one matrix product; fewer waste the product, more waste work on the diagonal of causal attention."""


@dataclass(frozen=True)
class Tile:
    """What is computed at once of a matrix of rows × columns for each of several key/value heads."""

    heads: int
    rows: int
    columns: int


def tile_of(heads: int, group: int, rows: int, columns: int, device: torch.device) -> Tile:
    """The tile for so many key/value heads, query heads in each group, rows and columns; at least 1 × 1 × 1.

    It is a function of the shapes and the device alone, so that equal inputs are summed in equal order.
    """
    on_cpu = device.type == "cpu"
    limit = CPU_ELEMENTS if on_cpu else GPU_ELEMENTS
    tile_rows = min(max(1, rows), max(1, (CPU_ROWS if on_cpu else GPU_ROWS) // group))
    tile_columns = min(max(1, columns), max(1, limit // (tile_rows * group)))
    tile_heads = min(heads, max(1, limit // (tile_rows * group * tile_columns)))
    return Tile(tile_heads, tile_rows, tile_columns)


def rows_per_block(row_elements: int, device: torch.device) -> int:
    """Rows of so many elements (all heads counted) to compute at a time, at least one."""
    limit = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    return max(1, limit // max(1, row_elements))


def block_begin(query: int, queries: torch.Tensor) -> int:
    """Where the block of attention weights begins that holds this one of the queries (Hq, L, D)."""
    block = rows_per_block(queries.shape[0] * queries.shape[1], queries.device)
    return query // block * block
