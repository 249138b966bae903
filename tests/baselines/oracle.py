"""Every method of `baselines` written plainly from its formula: float64, one token at a time, L × L matrices and all.

An oracle gets a `Case` and returns for each key/value head the kept positions, and where the method stores something
else than the kept tokens, keys and values too.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lookm.layer import Layer
from tests.lookm.oracle import attention, best


@dataclass
class Case:
    """One prompt in one layer in float64, and a strategy's fields.

    Attributes:
        earlier: cases of the earlier layers, the first one first.
    """

    layer: Layer
    recent: int
    important: int
    fields: dict[str, Any]
    earlier: list["Case"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys, self.values = self.layer.keys.double(), self.layer.values.double()
        self.heads, self.length = self.keys.shape[:2]
        self.image = self.layer.is_image.tolist()
        self.budget = self.recent + self.important
        weights = self.layer.shared("weights", lambda: attention(self.layer.queries, self.layer.keys))
        self.weights = weights.unflatten(0, (self.heads, -1))

    def window(self, head: int, w: int) -> list[float]:
        """W_j(w), averaged over the group's query heads."""
        rows = self.weights[head][:, max(0, self.length - w) :]
        return [float(rows[:, :, j].sum(1).mean()) for j in range(self.length)]

    def sums(self, head: int) -> list[float]:
        return self.window(head, self.length)

    def norm(self, states: Tensor, head: int, j: int) -> float:
        return math.sqrt(sum(float(x) ** 2 for x in states[head, j]))

    def ranked(self, scores: list[float], recent: int, sinks: int = 0) -> list[int]:
        """The choice of a ranked strategy: recent tokens, then sinks, then text under a prior, then scores."""
        prior = self.fields.get("text_prior", "off")
        recent = min(recent, self.budget)
        past = list(range(self.length - recent))
        slots = self.budget - recent
        first = [j for j in past if j < sinks]
        text = [j for j in past if j >= sinks and not self.image[j]]
        images = [j for j in past if j >= sinks and self.image[j]]
        if prior == "union":
            slots = max(slots, len(first) + len(text))
        groups = [first, text, images] if prior != "off" else [first, sorted(text + images)]
        kept: list[int] = []
        for group in groups:
            kept += best(scores, group, max(0, slots - len(kept)))
        return sorted(kept + list(range(self.length - recent, self.length)))

    def fitting(self, window: int | None, longest: int = 32) -> int:
        return min(window or min(longest, max(1, self.budget // 4)), self.budget)


def pooled(scores: list[float], kernel: int) -> list[float]:
    half = kernel // 2
    padded = [0.0] * half + scores + [0.0] * half
    return [sum(padded[j : j + kernel]) / kernel for j in range(len(scores))]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / (float(a.norm()) * float(b.norm()))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float], correction: int = 0) -> float:
    m = mean(values)
    return math.sqrt(sum((x - m) ** 2 for x in values) / (len(values) - correction))


def random_(case: Case) -> list[list[int]]:
    """The draw itself is torch's; what is checked is what becomes of it."""
    generator = torch.Generator().manual_seed(case.fields["seed"] * 1_000_003 + case.layer.index)
    draw = torch.rand(case.heads, case.length, generator=generator).tolist()
    return [case.ranked(draw[h], case.fields["recent"], case.fields["sinks"]) for h in range(case.heads)]


def even(case: Case) -> list[list[int]]:
    recent = min(case.fields["recent"], case.budget)
    past = list(range(case.length - recent))
    slots = case.budget - recent
    text = [j for j in past if not case.image[j]]
    if case.fields["text_prior"] == "union":
        slots = max(slots, len(text))
    groups = [past] if case.fields["text_prior"] == "off" else [text, [j for j in past if case.image[j]]]
    kept = list(range(case.length - recent, case.length))
    for group in groups:
        n = min(slots, len(group))
        kept += [j for i, j in enumerate(group) if (i + 1) * n // len(group) > i * n // len(group)]
        slots -= n
    return [sorted(kept)] * case.heads


def window(case: Case) -> list[list[int]]:
    w, fields = case.fields["window"], case.fields
    return [case.ranked(case.window(h, w), fields["recent"], fields["sinks"]) for h in range(case.heads)]


def vnorm(case: Case) -> list[list[int]]:
    kept = []
    for h in range(case.heads):
        scores = [a * case.norm(case.values, h, j) for j, a in enumerate(case.window(h, case.fields["window"]))]
        kept.append(case.ranked(scores, case.fields["recent"], case.fields["sinks"]))
    return kept


def tova(case: Case) -> list[list[int]]:
    heads = [case.window(h, 1) for h in range(case.heads)]
    scores = [mean([heads[h][j] for h in range(case.heads)]) for j in range(case.length)]
    return [case.ranked(scores, case.fields["recent"], case.fields["sinks"])] * case.heads


def knorm(case: Case) -> list[list[int]]:
    return [
        case.ranked(
            [-case.norm(case.keys, h, j) for j in range(case.length)], case.fields["recent"], case.fields["sinks"]
        )
        for h in range(case.heads)
    ]


def keydiff(case: Case) -> list[list[int]]:
    kept = []
    for h in range(case.heads):
        directions = [case.keys[h, j] / case.norm(case.keys, h, j) for j in range(case.length)]
        anchor = sum(directions[1:], directions[0]) / case.length
        scores = [-cosine(case.keys[h, j], anchor) for j in range(case.length)]
        kept.append(case.ranked(scores, case.fields["recent"], case.fields["sinks"]))
    return kept


def cur(case: Case) -> list[list[int]]:
    kept, block = [], case.fields["block"]
    for h in range(case.heads):
        scores = []
        for j in range(case.length):
            members = range(j // block * block, min(case.length, j // block * block + block))
            shares = [
                case.norm(states, h, j) ** 2 / sum(case.norm(states, h, i) ** 2 for i in members)
                for states in (case.keys, case.values)
            ]
            scores.append(shares[0] * shares[1])
        kept.append(case.ranked(scores, case.fields["recent"], case.fields["sinks"]))
    return kept


def lagkv(case: Case) -> list[list[int]]:
    kept, sinks = [], case.fields["sinks"]
    lag = case.fields["lag"] or min(128, max(8, case.budget // 4))
    for h in range(case.heads):
        scores = [1.0 + j for j in range(case.length)]
        start = sinks
        while start + 2 * lag <= case.length:
            part, following = range(start, start + lag), range(start + lag, start + 2 * lag)
            shares = []
            for states in (case.keys[h], case.values[h]):
                low = [min(float(states[j, d]) for j in following) for d in range(states.shape[1])]
                high = [max(float(states[j, d]) for j in following) for d in range(states.shape[1])]
                scaled = (
                    [(float(x) - a) / (b - a) if b > a else 0.0 for x, a, b in zip(states[j], low, high, strict=True)]
                    for j in part
                )
                spread = [deviation(row, 1) for row in scaled]
                total = sum(math.exp(s - max(spread)) for s in spread)
                shares.append([math.exp(s - max(spread)) / total for s in spread])
            both = [mean([a, b]) for a, b in zip(*shares, strict=True)]
            for i, j in enumerate(part):
                better = sum(1 for other in range(lag) if (both[other], other) < (both[i], i))
                scores[j] = better / lag
            start += lag
        kept.append(case.ranked(scores, case.fields["recent"], sinks))
    return kept


def mixkv(case: Case) -> list[list[int]]:
    kept = []
    w = case.fitting(case.fields["window"])
    past = case.length - w

    def to_mean_of(scores: list[float], like: list[float]) -> list[float]:
        low, high = min(scores), max(scores)
        unit = [1.0 if high == low else (x - low) / (high - low) for x in scores]
        return [x * mean(like) / mean(unit) for x in unit]

    for h in range(case.heads):
        observed = max(1, w)
        imp = pooled([x / observed for x in case.window(h, observed)[:past]], case.fields["kernel"])
        norms = to_mean_of([case.norm(case.values, h, j) for j in range(past)], imp)
        imp = [a + b for a, b in zip(imp, norms, strict=True)]
        directions = [case.keys[h, j] / case.norm(case.keys, h, j) for j in range(case.length)]
        centre = sum(directions[1:], directions[0]) / case.length
        div = to_mean_of([-float(directions[j] @ centre) for j in range(past)], imp)
        pairs = [float(a @ b) for i, a in enumerate(directions) for b in directions[:i]]
        r = mean(pairs)
        scores = [(1 - r) * a + r * b for a, b in zip(imp, div, strict=True)]
        kept.append(case.ranked(scores, w))
    return kept


def madakv_heads(case: Case) -> list[list[int]]:
    kept = []
    recent = min(case.fields["recent"], case.budget)
    past = list(range(case.length - recent))
    slots = case.budget - recent
    text, images = [j for j in past if not case.image[j]], [j for j in past if case.image[j]]
    for h in range(case.heads):
        w_j = case.window(h, case.fields["window"])
        n_v = round(slots * sum(w_j[j] for j in images) / sum(w_j[j] for j in past))
        n_v = min(max(n_v, slots - len(text)), len(images))
        chosen = best(w_j, images, n_v) + best(w_j, text, slots - n_v)
        kept.append(sorted(chosen + list(range(len(past), case.length))))
    return kept


def csp(case: Case) -> list[list[int]]:
    kept, layer = [], case.layer
    past = list(range(case.length - case.recent))
    queries = range(case.length - max(1, case.recent), case.length)
    group = layer.queries.shape[0] // case.heads
    for h in range(case.heads):
        sums = {True: [0.0] * case.length, False: [0.0] * case.length}
        for q in range(h * group, (h + 1) * group):
            for i in queries:
                scores = [
                    math.exp(float(layer.queries[q, i].double() @ case.keys[h, j]) / math.sqrt(case.keys.shape[-1]))
                    for j in range(i + 1)
                ]
                for j, score in enumerate(scores):
                    sums[case.image[i] == case.image[j]][j] += score / (case.fields["n"] + sum(scores)) / group
        pairs = {case.image[i] == case.image[j] for i in queries for j in past}
        n_cross = (
            int(case.fields["cross"] * case.important) if len(pairs) == 2 else 0 if True in pairs else case.important
        )
        same = best(sums[True], past, case.important - n_cross)
        cross = best(sums[False], [j for j in past if j not in same], n_cross)
        kept.append(sorted(same + cross + list(range(len(past), case.length))))
    return kept


def turned(state: Tensor, position: int) -> Tensor:
    """A key or query (D,) after the standard rotary embedding of base 10,000 at a position, pair by pair."""
    half = state.shape[0] // 2
    out = state.clone()
    for d in range(half):
        angle = position * 10000.0 ** (-d / half)
        a, b = float(state[d]), float(state[d + half])
        out[d] = a * math.cos(angle) - b * math.sin(angle)
        out[d + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def streaming(case: Case) -> tuple[list[list[int]], Tensor, Tensor]:
    sinks = min(case.fields["sinks"], case.budget - 1)
    kept = [*range(sinks), *range(case.length - (case.budget - sinks), case.length)]
    keys, values = case.keys[:, kept].clone(), case.values[:, kept]
    if case.fields["positions"] == "renumbered":  # the paper counts in the cache: all distances are those from L
        for h in range(case.heads):
            for slot, j in enumerate(kept):
                keys[h, slot] = turned(case.keys[h, j], case.length - case.budget + slot - j)
    return [kept] * case.heads, keys, values


def expected_attention(case: Case) -> list[list[int]]:
    kept, queries, sinks = [], case.layer.queries.double(), case.fields["sinks"]
    size, group = queries.shape[-1], queries.shape[0] // case.heads
    for h in range(case.heads):
        scores = [0.0] * case.length
        for q in range(h * group, (h + 1) * group):
            before = torch.stack([turned(queries[q, i], -i) for i in range(sinks, case.length)])
            mu, centred = before.mean(0), before - before.mean(0)
            sigma = centred.T @ centred / len(before)
            future = range(case.length, case.length + case.fields["future"])
            unit = torch.eye(size, dtype=torch.float64)
            mean_rotation = sum(torch.stack([turned(column, t) for column in unit]).T for t in future) / len(future)
            mu, sigma = mean_rotation @ mu, mean_rotation @ sigma @ mean_rotation.T
            logits = []
            for j in range(sinks, case.length):
                k = case.keys[h, j]
                spread = float(k @ sigma @ k) / (2 * size) if case.fields["covariance"] else 0.0
                logits.append(float(k @ mu) / math.sqrt(size) + spread)
            total = sum(math.exp(x - max(logits)) for x in logits)
            for j, x in zip(range(sinks, case.length), logits, strict=True):
                norm = case.norm(case.values, h, j) if case.fields["values"] else 1.0
                scores[j] += math.exp(x - max(logits)) / total * norm / group
        kept.append(case.ranked(scores, case.fields["recent"], sinks))
    return kept


def bacon(case: Case) -> list[list[int]]:
    kept, kernel = [], case.fields["kernel"]
    w = case.fitting(case.fields["window"])
    past = case.length - w

    def surprise(at: Case, h: int) -> tuple[list[float], list[float]]:
        observed = max(1, w)
        b = pooled([x / observed for x in at.window(h, observed)[:past]], kernel)
        q = pooled(at.window(h, 1)[:past], kernel)
        return b, [max(0.0, y - x) for x, y in zip(b, q, strict=True)]

    slots = case.budget - w
    if case.fields["text_prior"] == "union":
        slots = max(slots, sum(not case.image[j] for j in range(past)))
    for h in range(case.heads):
        b, e = surprise(case, h)
        before = [surprise(other, h)[1] for other in case.earlier[-case.fields["layers"] :] if case.fields["layers"]]
        around = pooled(e, kernel)
        v = [e[j] + around[j] + (mean([x[j] for x in before]) if before else 0.0) for j in range(past)]
        b_top, v_top = sorted(b, reverse=True)[: 2 * slots], sorted(v, reverse=True)[: 2 * slots]
        lam = 0.0
        if slots and deviation(v_top) > 0:
            ratio = min(1.0, max(0.0, mean(v_top) / mean(b_top)))
            lam = case.fields["scale"] * deviation(b_top) / deviation(v_top) * ratio
        kept.append(case.ranked([x + lam * y for x, y in zip(b, v, strict=True)], w))
    return kept


def kvmerger(case: Case) -> tuple[list[list[int]], Tensor, Tensor]:
    positions, out_keys, out_values = [], [], []
    past, n = case.length - case.recent, case.important
    for h in range(case.heads):
        sums = case.sums(h)
        alone = best(sums, list(range(past)), max(0, min(int(case.fields["single"] * n), (n - 1) // 2)))
        sets = [[j] for j in range(past)]
        pairs = [(i, i + 1) for i in range(past - 1) if i not in alone and i + 1 not in alone]
        pairs.sort(key=lambda pair: (-cosine(case.keys[h, pair[0]], case.keys[h, pair[1]]), pair))
        for left, right in pairs[: past - n] if n else []:
            a, b = next(s for s in sets if left in s), next(s for s in sets if right in s)
            sets[sets.index(a)] = a + b
            sets.remove(b)
        kept, keys, values = [], [], []
        for members in sets if n else []:
            pivot = best(sums, members, 1)[0]
            g = [
                math.exp(
                    -(float((case.keys[h, pivot] - case.keys[h, i]).norm()) ** 2) / (2 * case.fields["sigma"] ** 2)
                )
                for i in members
            ]
            kept.append(pivot)
            for states, out in ((case.keys, keys), (case.values, values)):
                out.append(sum(weight * states[h, i] for weight, i in zip(g, members, strict=True)) / sum(g))
        kept += range(past, case.length)
        keys += list(case.keys[h, past:])
        values += list(case.values[h, past:])
        positions.append(kept)
        out_keys.append(torch.stack(keys))
        out_values.append(torch.stack(values))
    return positions, torch.stack(out_keys), torch.stack(out_values)
