"""The strategies of spec STRATEGIES.md written plainly: float64, one token at a time, L × L matrices and all."""

import math

import torch
from torch import Tensor

ROWS = {
    "full": ("full", "off", "none"),
    "h2o": ("sum", "off", "none"),
    "snapkv": ("window", "off", "none"),
    "roco": ("mean", "off", "none"),
    "a_merge": ("sum", "off", "averaged"),
    "w_merge": ("sum", "off", "weighted"),
    "p_merge": ("sum", "off", "pivotal"),
    "tp": ("sum", "union", "none"),
    "tp_amerge": ("sum", "union", "averaged"),
    "tp_wmerge": ("sum", "union", "weighted"),
    "tp_pmerge": ("sum", "union", "pivotal"),
}


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal softmax(QKᵀ/√D) of every query head: (Hq, L, L) float64."""
    heads, length, size = queries.shape
    group = heads // keys.shape[0]
    weights = torch.zeros(heads, length, length, dtype=torch.float64)
    for head in range(heads):
        for i in range(length):
            logits = keys[head // group, : i + 1].double() @ queries[head, i].double() / math.sqrt(size)
            weights[head, i, : i + 1] = torch.softmax(logits, dim=0)
    return weights


def best(scores: list[float], candidates: list[int], n: int) -> list[int]:
    """The n best candidates, the earlier one first where scores tie."""
    return sorted(candidates, key=lambda j: (-scores[j], j))[:n]


def kept_positions(
    name: str, queries: Tensor, keys: Tensor, is_image: Tensor, alpha1: float, alpha2: float, semantics: str,
    text_prior: str | None = None,
) -> list[list[int]]:  # fmt: skip
    """Kept positions of each key/value head, in position order."""
    importance, prior, merge = ROWS[name]
    prior = text_prior or prior
    kv_heads, length, _ = keys.shape
    recent, important = int(alpha1 * length), int(alpha2 * length)
    if recent == important == 0 and alpha1 + alpha2 > 0:
        recent = min(1, length)
    everything = [list(range(length)) for _ in range(kv_heads)]
    if importance == "full" or recent + important >= length:
        return everything
    if semantics == "release" and name != "snapkv" and not bool(is_image.any()):
        return everything
    weights = attention(queries, keys)
    past = list(range(length - recent))
    return [
        _head(
            weights.unflatten(0, (kv_heads, -1))[head], importance, prior, merge, semantics, is_image, past, important
        )
        for head in range(kv_heads)
    ]


def _head(
    group: Tensor, importance: str, prior: str, merge: str, semantics: str, is_image: Tensor, past: list[int], n: int
) -> list[int]:
    length = group.shape[-1]
    recent = list(range(len(past), length))
    if importance == "window":
        return _snapkv(group, len(recent), n, semantics)
    sums = [float(group[:, :, j].sum(1).mean()) for j in range(length)]
    if importance == "mean" and semantics == "paper":
        means, deviations = [], []
        for j in range(length):
            mean = group[:, :, j].sum(1) / (length - j)
            square = (group[:, :, j] ** 2).sum(1) / (length - j)
            means.append(float(mean.mean()))
            deviations.append(float((square - mean**2).clamp_min(0).sqrt().mean()))
        exempt = best(deviations, past, int(0.1 * n))
        return sorted(exempt + best(means, [j for j in past if j not in exempt], n - len(exempt)) + recent)
    text = [j for j in past if not is_image[j]]
    images = [j for j in past if is_image[j]]
    if prior == "union":
        return sorted(text + best(sums, images, max(0, n - len(text))) + recent)
    if prior == "strict":
        first = best(sums, text, n)
        return sorted(first + best(sums, images, n - len(first)) + recent)
    sinks = past[:4] if semantics == "release" and merge != "none" else []
    first = best(sums, sinks, n)
    return sorted(first + best(sums, [j for j in past if j not in sinks], n - len(first)) + recent)


def _snapkv(group: Tensor, recent: int, n: int, semantics: str) -> list[int]:
    length = group.shape[-1]
    budget = recent + n
    window = recent if semantics == "release" else min(32, max(1, budget // 4), budget)
    slots = n if semantics == "release" else budget - window
    votes = [float(group[:, length - max(1, window) :, j].sum(1).mean()) for j in range(length - window)]
    pooled = [sum(votes[max(0, j - 2) : j + 3]) / 5 for j in range(len(votes))]
    return sorted(best(pooled, list(range(len(votes))), slots) + list(range(length - window, length)))


def merged(
    keys: Tensor, values: Tensor, kept: list[list[int]], merge: str, semantics: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Keys and values after merging, head by head and token by token: (Hkv, K, D) float64."""
    heads, length, _ = keys.shape
    evicted = [[j for j in range(length) if j not in set(kept[h])] for h in range(heads)]
    out_keys = torch.stack([keys[h, kept[h]].double() for h in range(heads)])
    out_values = torch.stack([values[h, kept[h]].double() for h in range(heads)])
    if merge == "none" or not evicted[0] or not kept[0]:
        return out_keys, out_values
    targets, cosines = [], []
    for h in range(heads):
        rows = [
            [float(torch.cosine_similarity(keys[h, e].double(), keys[h, c].double(), dim=0)) for c in kept[h]]
            for e in evicted[h]
        ]
        targets.append([row.index(max(row)) for row in rows])
        cosines.append([max(row) for row in rows])
    chosen = list(range(len(evicted[0])))
    if semantics == "release" and merge != "pivotal":
        table = torch.tensor(cosines, dtype=torch.float64)
        chosen = [e for e in chosen if float(table[:, e].mean()) >= float(table.mean())]
    for states, out in ((keys, out_keys), (values, out_values)):
        for h in range(heads):
            own = out[h].clone()
            total, count = own.clone(), torch.ones(len(kept[h]), dtype=torch.float64)
            for order, e in enumerate(chosen):
                source = evicted[h][order] if semantics == "release" and merge == "averaged" else evicted[h][e]
                x, c = states[h, source].double(), targets[h][e]
                total[c] += {"averaged": x, "pivotal": (x + own[c]) / 2, "weighted": cosines[h][e] * x}[merge]
                count[c] += 1
            out[h] = total / count[:, None]
    return out_keys, out_values
