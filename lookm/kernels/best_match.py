"""Each evicted token's most similar kept token in one fused Triton kernel: cosine, running maximum, its index.

One program owns a block of evicted tokens of one head and walks over the kept ones; nothing of the size evicted × kept
is ever stored. Half-precision keys are multiplied as they are, float32 keys without TF32; norms, products and cosines
are float32. Of equally similar tokens the earliest wins. Oracle: `lookm.merging.match_evicted`.
"""
# mypy: disable-error-code="no-untyped-def, import-untyped"

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _best_match(
    keys, scale, evicted, kept, target, similarity, length, n_evicted, n_kept, k_head, k_row, k_size,
    SIZE: tl.constexpr, PADDED: tl.constexpr, EVICTED: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """arg-max and maximum over c of scale_e · scale_c · k_e · k_c for the evicted tokens of this program's block."""
    head = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * EVICTED + tl.arange(0, EVICTED)
    d = tl.arange(0, PADDED)
    of_e = tl.load(evicted + head * n_evicted + e, mask=e < n_evicted, other=0)
    own = keys + head * k_head + of_e[:, None] * k_row + d[None, :] * k_size
    x = tl.load(own, mask=(e[:, None] < n_evicted) & (d[None, :] < SIZE), other=0.0)  # [EVICTED, PADDED]
    best = tl.full([EVICTED], float("-inf"), dtype=tl.float32)
    place = tl.zeros([EVICTED], dtype=tl.int32)
    for start in range(0, n_kept, KEPT):
        c = start + tl.arange(0, KEPT)
        of_c = tl.load(kept + head * n_kept + c, mask=c < n_kept, other=0)
        theirs = keys + head * k_head + of_c[None, :] * k_row + d[:, None] * k_size
        anchors = tl.load(theirs, mask=(c[None, :] < n_kept) & (d[:, None] < SIZE), other=0.0)  # [PADDED, KEPT]
        scale_c = tl.load(scale + head * length + of_c, mask=c < n_kept, other=0.0)
        cosine = tl.dot(x, anchors, input_precision="ieee") * scale_c[None, :]
        cosine = tl.where(c[None, :] < n_kept, cosine, float("-inf"))
        highest = tl.max(cosine, axis=1)
        here = tl.min(tl.where(cosine == highest[:, None], c[None, :], n_kept), axis=1)
        place = tl.where(highest > best, here, place)
        best = tl.maximum(best, highest)
    scale_e = tl.load(scale + head * length + of_e, mask=e < n_evicted, other=0.0)
    tl.store(target + head * n_evicted + e, place.to(tl.int64), mask=e < n_evicted)
    tl.store(similarity + head * n_evicted + e, best * scale_e, mask=e < n_evicted)


def best_match(keys: Tensor, evicted: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The kept token whose key is most similar to each evicted one's, and how similar.

    Args:
        keys: (H, L, D) float32, float16 or bfloat16.
        evicted: positions (H, E) int64.
        kept: positions (H, K) int64, K ≥ 1.

    Returns:
        Index among the kept tokens (H, E) int64, and cosine (H, E) float32.
    """
    heads, length, size = keys.shape
    evicted, kept = evicted.contiguous(), kept.contiguous()
    target, similarity = torch.empty_like(evicted), torch.empty_like(evicted, dtype=torch.float32)
    if evicted.shape[1] == 0:
        return target, similarity
    norms = torch.linalg.vector_norm(keys, dim=-1, dtype=torch.float32)
    scale = norms.clamp_min_(torch.finfo(torch.float32).tiny).reciprocal_()  # [H, L]
    evicted_block, kept_block = (64, 32) if keys.dtype == torch.float32 else (128, 64)
    with torch.cuda.device_of(keys):
        _best_match[(triton.cdiv(evicted.shape[1], evicted_block), heads)](
            keys, scale, evicted, kept, target, similarity, length, evicted.shape[1], kept.shape[1], *keys.stride(),
            SIZE=size, PADDED=max(16, triton.next_power_of_2(size)), EVICTED=evicted_block, KEPT=kept_block,
            num_warps=4 if size <= 64 else 8,
        )  # fmt: skip
    return target, similarity
