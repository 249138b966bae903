"""Causal attention that also returns the log-sum-exp which the kernel computes anyway.

`scaled_dot_product_attention` drops it, the operations beneath it do not. They are called with the conditions under
which torch itself would choose them; where none applies or one refuses, the caller falls back to SDPA and the
log-sum-exp is made apart.
"""

from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

Kernel = Callable[[Tensor, Tensor, Tensor, float | None], tuple[Tensor, Tensor]]


def attention_with_log_sum_exp(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor] | None:
    """Causal attention of whole prompts without padding, and log Σ_{j ≤ i} exp(scaling · q_i · k_j) of each query.

    Args:
        query: (B, Hq, L, D).
        key: (B, Hkv, L, D); Hq is a multiple of Hkv.
        value: (B, Hkv, L, Dv).
        scaling: factor on Q Kᵀ, by default 1 / √D.

    Returns:
        The output (B, Hq, L, Dv) and the log-sum-exp (B, Hq, L) float32, or None where no kernel tells it.
    """
    rows, heads, length, _ = query.shape
    for kernel in _kernels(query, value):
        try:
            output, log_sum_exp = kernel(query, key, value, scaling)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, RuntimeError):  # this torch has no such operation, or it refuses these inputs
            continue
        log_sum_exp = log_sum_exp.reshape(rows, heads, -1)[..., :length]  # some kernels pad the length, one adds a 1
        return output, log_sum_exp.float()
    return None


def _kernels(query: Tensor, value: Tensor) -> list[Kernel]:
    """The kernels for these inputs, the one that SDPA would prefer first."""
    size = query.shape[-1]
    if value.shape[-1] != size or query.shape[2] == 0:
        return []
    if query.device.type == "cpu":
        return [_cpu]
    if query.device.type != "cuda":
        return []
    kernels: list[Kernel] = []
    if query.dtype in HALF and size % 8 == 0 and size <= 256 and torch.backends.cuda.flash_sdp_enabled():
        kernels.append(_flash)
    if query.dtype != torch.float64 and size % 8 == 0 and torch.backends.cuda.mem_efficient_sdp_enabled():
        kernels.append(_efficient)
    if query.dtype in HALF and size % 8 == 0 and size <= 128 and torch.backends.cuda.cudnn_sdp_enabled():
        kernels.append(_cudnn)
    return kernels


def _cpu(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, True, scale=scaling
    )
    return output, log_sum_exp


def _flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, True, False, scale=scaling
    )
    return output, log_sum_exp


def _efficient(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    key, value = _for_each_query_head(key, query), _for_each_query_head(value, query)
    output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None, True, 0.0, True, scale=scaling
    )
    return output, log_sum_exp


def _cudnn(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    key, value = _for_each_query_head(key, query), _for_each_query_head(value, query)
    output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query, key, value, None, True, 0.0, True, False, scale=scaling
    )
    return output, log_sum_exp


def _for_each_query_head(states: Tensor, query: Tensor) -> Tensor:
    """Key/value heads repeated for kernels that know no groups: (B, Hkv, L, D) → (B, Hq, L, D)."""
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)
