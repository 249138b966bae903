"""How much memory the caches of a sweep need, and how its strategies are divided to fit."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

from lookm.strategy import Strategy

HEADROOM = 0.8
"""Share of the free memory that caches may take; the rest is for activations and one full layer of the prefill."""


def head_size(config: PretrainedConfig) -> int:
    """D of a model's text decoder."""
    text = config.get_text_config(decoder=True)
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def cache_token_bytes(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * heads * head_size(config) * text.num_hidden_layers * dtype.itemsize


def estimate_bytes(
    config: PretrainedConfig,
    dtype: torch.dtype,
    strategies: Sequence[Strategy],
    row_is_image: Sequence[Tensor],
    max_new_tokens: int,
) -> list[int]:
    """Bytes that each strategy's rows take in the joint decode batch, padding inside buckets not counted.

    Args:
        row_is_image: for each prompt of the batch (L,) bool.
        max_new_tokens: longest answer; all its slots are allocated beforehand.

    Returns:
        One number a strategy. The layer of the prompt that is held in full during the prefill is not in them.
    """
    token = cache_token_bytes(config, dtype)
    return [
        token * sum(strategy.promised_tokens(is_image) + max_new_tokens - 1 for is_image in row_is_image)
        for strategy in strategies
    ]


def fitting_groups(needed: Sequence[int], limit: int | None) -> list[list[int]]:
    """Divide items, in order, into the fewest runs whose sums fit; an item that does not fit is alone.

    Args:
        needed: bytes of each.
        limit: bytes that one group may take; None: all are one group.
    """
    groups: list[list[int]] = []
    room = -1
    for index, size in enumerate(needed):
        if not groups or (limit is not None and size > room):
            groups.append([])
            room = 0 if limit is None else limit
        groups[-1].append(index)
        room -= size
    return groups


def free_bytes(device: torch.device) -> int | None:
    """Bytes that caches may take on the device now, or None where that cannot be told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(HEADROOM * (free + unused))
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(HEADROOM * 1024 * int(fields["MemAvailable"].split()[0])) if "MemAvailable" in fields else None
