"""What `scripts.device_check` asks of the kernels: log-sum-exp, fused statistics and matching, determinism.

Every claim is checked from the same numbers against the plain torch version in float32 on the CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lookm import load_strategy, strategy_names
from lookm.compression import compress_many
from lookm.kernels import fused
from lookm.kernels.prefill import attention_with_log_sum_exp
from lookm.layer import Layer
from lookm.merging import match_evicted
from lookm.statistics import Needs, attention_statistics, causal_log_sum_exp

HEADS = ((8, 1, 64), (4, 2, 80), (4, 1, 128), (2, 7, 128))
"""Key/value heads, query heads of each, head size."""

LSE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-3, torch.float16: 5e-3}
"""Largest difference of a log-sum-exp; the kernels round the probabilities to half precision, not the logits."""

SUM_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Largest difference of a column sum S_j as a share of 1 + S_j."""


def random_states(
    kv_heads: int, group: int, length: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (Hkv · group, L, D), keys and values (Hkv, L, D) on the CPU."""
    generator = torch.Generator().manual_seed(length + size)
    queries = torch.randn(kv_heads * group, length, size, generator=generator).to(dtype)
    keys, values = torch.randn(2, kv_heads, length, size, generator=generator).to(dtype)
    return queries, keys, values


def check_kernels(
    device: str, dtype: torch.dtype, length: int, heads: Sequence[tuple[int, int, int]] = HEADS
) -> list[dict[str, Any]]:
    """Log-sum-exp, sums, squares, windows and matches of random heads, on the device and on the CPU in float32."""
    rows = []
    for kv_heads, group, size in heads:
        q, k, v = random_states(kv_heads, group, length, size, dtype)
        on_q, on_k, on_v = (states.to(device) for states in (q, k, v))
        row: dict[str, Any] = {
            "heads": [kv_heads, group, size],
            "dtype": str(dtype).removeprefix("torch."),
            "fused": fused("column_sums", on_q, on_k) is not None,
        }
        lse = causal_log_sum_exp(q.float(), k.float(), size**-0.5)
        told = attention_with_log_sum_exp(on_q[None], on_k[None], on_v[None], None)
        row["log_sum_exp_told"] = told is not None
        if told is not None:
            expected = F.scaled_dot_product_attention(
                on_q[None], on_k[None], on_v[None], is_causal=True, enable_gqa=True
            )
            row["output_difference"] = float((told[0] - expected).abs().max())
            row["lse_difference"] = float((told[1][0].cpu() - lse).abs().max())
        row["sum_difference"] = _sum_difference((on_q, on_k), (q, k), None if told is None else told[1][0], lse)
        row["same_matches"], row["similarity_difference"] = _match_difference(on_k, k)
        row["passed"] = (
            row.get("lse_difference", 0) <= LSE_TOLERANCE[dtype]
            and row.get("output_difference", 0) <= LSE_TOLERANCE[dtype] * 4
            and row["sum_difference"] <= SUM_TOLERANCE[dtype]
            and row["same_matches"] >= 0.999
            and row["similarity_difference"] <= 1e-4
        )
        rows.append(row)
    return rows


def _sum_difference(on: tuple[Tensor, Tensor], off: tuple[Tensor, Tensor], told: Tensor | None, lse: Tensor) -> float:
    """Largest |Δ S_j| / (1 + S_j) of sums, squares and a window."""
    needs = Needs(sums=True, squares=True, windows=frozenset({32}))
    there = attention_statistics(on[0], on[1], needs, log_sum_exp=told)
    here = attention_statistics(off[0].float(), off[1].float(), needs, log_sum_exp=lse)
    pairs = [(there.sums, here.sums), (there.squares, here.squares), (there.windows[32], here.windows[32])]
    return max(
        float(((a.cpu() - b).abs() / (1 + b)).max()) for a, b in pairs if a is not None and b is not None
    )  # fmt: skip


def _match_difference(on: Tensor, off: Tensor) -> tuple[float, float]:
    """Share of evicted tokens with the same target, and the largest difference of a cosine."""
    kept = torch.arange(0, off.shape[1], 5).expand(off.shape[0], -1)
    there, here = match_evicted(on, kept.to(on.device)), match_evicted(off.float(), kept)
    same = float((there.target.cpu() == here.target).float().mean())
    return same, float((there.similarity.cpu() - here.similarity).abs().max())


def check_determinism(device: str, dtype: torch.dtype, length: int) -> list[dict[str, Any]]:
    """All strategies at once, twice: every key, value and position must agree in every bit."""
    q, k, v = (tensor.to(device) for tensor in random_states(4, 2, length, 80, dtype))
    is_image = ((torch.arange(length) % (length // 3)) >= length // 12).to(device)
    strategies = [load_strategy(name, semantics=s) for name in strategy_names() for s in ("paper", "release")]
    first, second = (compress_many(strategies, Layer(q, k, v, is_image)) for _ in range(2))
    return [
        {
            "strategy": strategy.name,
            "semantics": strategy.semantics,
            "dtype": str(dtype).removeprefix("torch."),
            "passed": a.keys.equal(b.keys) and a.values.equal(b.values) and a.positions.equal(b.positions),
        }
        for strategy, a, b in zip(strategies, first, second, strict=True)
    ]
