"""Every storage written plainly from its formula: float64, one number at a time; what attention would read."""

import torch
from torch import Tensor


def grouped(states: Tensor, bits: int, group: int, axis: str) -> Tensor:
    """x ≈ z + s · q of (H, n, D), in groups of tokens of one channel, or of channels of one token."""
    result = states.double().clone()
    heads, n, size = states.shape
    for h in range(heads):
        lines = [(slice(None), d) for d in range(size)] if axis == "tokens" else [(t, slice(None)) for t in range(n)]
        for line in lines:
            numbers = result[h][line].tolist()
            for start in range(0, len(numbers), group):
                part = numbers[start : start + group]
                z = held(min(part), states)
                s = held((max(part) - min(part)) / (2**bits - 1), states)
                levels = [min(2**bits - 1, max(0, round((x - z) / s))) if s > 0 else 0 for x in part]
                numbers[start : start + group] = [z + s * q for q in levels]
            result[h][line] = torch.tensor(numbers, dtype=torch.float64)
    return result


def held(number: float, states: Tensor) -> float:
    """A number in the precision of the states."""
    return float(torch.tensor(number, dtype=torch.float64).to(torch.float32).to(states.dtype))


def outliers(states: Tensor, axis: str, share: float) -> tuple[Tensor, Tensor]:
    """Which numbers of (H, n, D) are outliers, bool, and the states with outliers at the nearest of the others."""
    marked, rest = torch.zeros_like(states, dtype=torch.bool), states.double().clone()
    heads, n, size = states.shape
    for h in range(heads):
        lines = [(slice(None), d) for d in range(size)] if axis == "tokens" else [(t, slice(None)) for t in range(n)]
        for line in lines:
            numbers = states[h][line].tolist()
            each = min(round(share / 2 * len(numbers)), (len(numbers) - 1) // 2)
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            low, high = order[:each], order[len(order) - each :]
            marked[h][line] = torch.tensor([i in (*low, *high) for i in range(len(numbers))])
            least, most = numbers[order[each]], numbers[order[-1 - each]]
            rest[h][line] = torch.tensor([min(most, max(least, x)) for x in numbers], dtype=torch.float64)
    return marked, rest


def gear(states: Tensor, bits: int, group: int, axis: str, rank: int, share: float) -> Tensor:
    marked, rest = outliers(states, axis, share)
    base = grouped(rest.to(states.dtype), bits, group, axis)
    error = rest - base
    u, s, v = torch.linalg.svd(error, full_matrices=False)
    s[:, rank:] = 0
    return torch.where(marked, states.double(), base + u @ torch.diag_embed(s) @ v)


def think(queries: Tensor, keys: Tensor, whole: int, ratio: float, window: int) -> Tensor:
    """Keys (Hkv, n, D) with 0 in the channels that matter least, but for the last `whole` tokens."""
    heads, n, size = keys.shape
    group = queries.shape[0] // heads
    result = keys.double().clone()
    last = range(max(0, queries.shape[1] - window), queries.shape[1])
    for h in range(heads):
        scores = []
        for d in range(size):
            own = [queries[g, i, d].double() ** 2 for g in range(h * group, (h + 1) * group) for i in last]
            k = [keys[h, j, d].double() ** 2 for j in range(n)]
            scores.append(float(sum(own) / len(own) * sum(k) / len(k)))
        for d in sorted(range(size), key=lambda d: (scores[d], -d))[: int(ratio * size)]:
            result[h, : n - whole, d] = 0
    return result


def float8(states: Tensor) -> Tensor:
    """Every number to the nearest of float8_e4m3fn (ties to even) times its channel's scale."""
    numbers = sorted({float(torch.tensor(i, dtype=torch.uint8).view(torch.float8_e4m3fn)) for i in range(127)})
    result = states.double().clone()
    for h in range(states.shape[0]):
        for d in range(states.shape[2]):
            largest = max(abs(x) for x in states[h, :, d].tolist())
            scale = held(largest / 448.0, states)
            for t in range(states.shape[1]):
                x = float(states[h, t, d])
                if scale > 0:
                    place = min(range(len(numbers)), key=lambda i: (abs(numbers[i] - abs(x) / scale), i % 2))
                    result[h, t, d] = (1 if x >= 0 else -1) * numbers[place] * scale
    return result
