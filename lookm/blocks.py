"""How much is computed at once where all at once would be too much."""

import torch

CPU_ELEMENTS = 1 << 21
GPU_ELEMENTS = 1 << 25
"""Float32 elements of one block, over all heads: 8 MiB stay in a CPU's cache, 128 MiB keep a GPU busy."""


def rows_per_block(row_elements: int, device: torch.device) -> int:
    """Rows of so many elements (all heads counted) to compute at a time, at least one."""
    limit = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    return max(1, limit // max(1, row_elements))
