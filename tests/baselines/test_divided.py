"""Claims about methods that give layers different numbers of tokens, from one table."""

import copy
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lookm import Strategy, load_strategy, look_once, merging
from lookm.budgets import apportion
from lookm.compression import compress_many, observe
from lookm.kept import kept_positions
from lookm.layer import Layer
from lookm.method import LookM
from lookm.sweep import generate_sweep
from tests.baselines.oracle import Case, pooled
from tests.lookm.layers import random_layer
from tests.lookm.models import IMAGE, built, left_padded, prompt
from tests.lookm.oracle import best

LENGTH, LAYERS = 60, 4
Kept = list[list[list[int]]]


def choose(case: Case, scores: list[float], n: int, recent: int) -> list[int]:
    last = list(range(case.length - recent, case.length))
    return sorted(best(scores, list(range(case.length - recent)), n - recent) + last)


def shared_out(weights: list[float], total: int, least: int, most: int) -> list[int]:
    """Proportional shares within bounds, one token at a time where rounding leaves some."""
    low, high = 0.0, 1e9
    for _ in range(200):  # the factor that makes the bounded shares meet the total
        middle = (low + high) / 2
        if sum(min(max(middle * w, least), most) for w in weights) < total:
            low = middle
        else:
            high = middle
    shares = [min(max(high * w, least), most) for w in weights]
    counts = [int(share + 1e-9) for share in shares]
    for i in sorted(range(len(shares)), key=lambda i: (round(counts[i] - shares[i], 9), i))[: total - sum(counts)]:
        counts[i] += 1
    return counts


def pyramidkv(cases: list[Case]) -> Kept:
    w = cases[0].fitting(cases[0].fields["window"])
    b, beta, last = cases[0].budget - w, cases[0].fields["beta"], len(cases) - 1
    steps = [2 * b - b / beta + (b / beta - (2 * b - b / beta)) * i / last for i in range(len(cases))]
    counts = shared_out(steps, len(cases) * b, 0, LENGTH - w)
    return [
        [
            choose(case, pooled(case.window(h, w)[: LENGTH - w], case.fields["kernel"]), n + w, w)
            for h in range(case.heads)
        ]
        for case, n in zip(cases, counts, strict=True)
    ]


def prefixkv(cases: list[Case]) -> Kept:
    """Raise one threshold on the cumulative share until the layers hold the budget."""
    budget, sinks = cases[0].budget, cases[0].fields["sinks"]
    means = [[sum(case.sums(h)[j] for h in range(case.heads)) for j in range(LENGTH)] for case in cases]
    counts = [min(budget, sinks + 1)] * len(cases)
    while sum(counts) < len(cases) * budget:
        ordered = [sorted(mean, reverse=True) for mean in means]
        held = [sum(row[:n]) / sum(row) if n < LENGTH else math.inf for row, n in zip(ordered, counts, strict=True)]
        counts[held.index(min(held))] += 1
    kept = []
    for mean, n in zip(means, counts, strict=True):
        scores = [math.inf if j < sinks else mean[j] for j in range(LENGTH)]
        kept.append([choose(cases[0], scores, n, 1)] * cases[0].heads)
    return kept


def flashcache(cases: list[Case]) -> Kept:
    omega = int(cases[0].fields["gamma"] * LENGTH)
    times, orders = torch.arange(LENGTH).double()[None] + 0.5, torch.arange(LENGTH).double()[:, None]
    basis = math.sqrt(2 / LENGTH) * torch.cos(math.pi * orders * times / LENGTH)  # [order, token], orthonormal
    basis[0] /= math.sqrt(2)
    weights, scores = [], []
    for case in cases:
        shares, errors = [], torch.zeros(case.heads, LENGTH, dtype=torch.float64)
        for states in (case.keys, case.values):
            coefficients = basis @ states  # [Hkv, L, D]
            shares.append(float((coefficients[:, omega:] ** 2).sum() / (coefficients**2).sum()))
            errors += ((states - basis[:omega].T @ coefficients[:, :omega]) ** 2).mean(-1)
        weights.append(sum(shares) / 2)
        scores.append(errors)
    recent = min(cases[0].fields["recent"], cases[0].budget)
    counts = shared_out(weights, len(cases) * cases[0].budget, max(1, recent), LENGTH)
    return [
        [choose(case, scores[i][h].tolist(), counts[i], recent) for h in range(case.heads)]
        for i, case in enumerate(cases)
    ]


def vl_cache(cases: list[Case]) -> Kept:
    image = cases[0].image
    after = LENGTH - 1 - max((j for j in range(LENGTH) if image[j]), default=-1)
    p = list(range(LENGTH - max(1, after), LENGTH))
    weights = []
    for case in cases:
        rows = [
            case.weights[h][g][i][: i + 1] for h in range(case.heads) for g in range(case.weights.shape[1]) for i in p
        ]
        dense = sum(sum(1 for x in row.tolist() if x >= case.fields["threshold"] * float(row.max())) for row in rows)
        weights.append(dense / sum(len(row) for row in rows))
    recent = int(cases[0].fields["recent_share"] * cases[0].budget)
    counts = shared_out(weights, len(cases) * cases[0].budget, max(1, recent), LENGTH)
    return [
        [choose(case, case.window(h, len(p)), counts[i], recent) for h in range(case.heads)]
        for i, case in enumerate(cases)
    ]


def madakv(cases: list[Case]) -> Kept:
    kept, phi = [], float(cases[0].budget)
    recent = min(cases[0].fields["recent"], cases[0].budget)
    past = list(range(LENGTH - recent))
    image, given = cases[0].image, 0
    for index, case in enumerate(cases):
        masses = [case.window(h, case.fields["window"]) for h in range(case.heads)]
        needs = []
        for w_j in masses:
            need = recent
            for modality in ([j for j in past if image[j]], [j for j in past if not image[j]]):
                ordered = sorted((w_j[j] for j in modality), reverse=True)
                mass = case.fields["theta"] * sum(ordered)
                enough = (n for n in range(1, len(ordered) + 1) if sum(ordered[:n]) >= mass)
                need += min(enough, default=len(ordered))
            needs.append(need)
        behind, total = len(cases) - index - 1, len(cases) * cases[0].budget
        tokens = round(sum(needs) / len(needs)) if behind else total - given
        least = max(1, recent)
        tokens = max(least, total - given - behind * LENGTH, min(tokens, LENGTH, total - given - behind * least))
        if behind:
            assert phi == pytest.approx((total - given) / (behind + 1))
            phi -= (tokens - phi) / behind
        given += tokens
        heads = []
        for w_j in masses:
            text, images = [j for j in past if not image[j]], [j for j in past if image[j]]
            n_v = round((tokens - recent) * sum(w_j[j] for j in images) / sum(w_j[j] for j in past))
            n_v = min(max(n_v, tokens - recent - len(text)), len(images))
            chosen = best(w_j, images, n_v) + best(w_j, text, tokens - recent - n_v)
            heads.append(sorted(chosen + list(range(len(past), LENGTH))))
        kept.append(heads)
    return kept


def meda(cases: list[Case]) -> Kept:
    image, fields, n = cases[0].image, cases[0].fields, len(cases)
    release = fields["semantics"] == "release"
    entropies = []
    for case in cases:
        rows = [row for h in range(case.heads) for row in case.weights[h]]
        pairs = [(i, j) for i in range(LENGTH) for j in range(i + 1) if release or image[i] != image[j]]
        parts = [-a * math.log(a) for row in rows for i, j in pairs if (a := float(row[i, j])) > 0]
        entropies.append(sum(parts) / len(rows) / LENGTH)
    weights = [math.exp(e) / sum(map(math.exp, entropies)) for e in entropies]
    counts = shared_out(weights, n * cases[0].budget, 1, LENGTH)
    share = fields["recent_share"] or (0.5 if release else 0.75)
    kept = []
    for case, count in zip(cases, counts, strict=True):
        recent = int(share * count)
        slots = count - recent
        if release:
            recent = max(recent, image.count(False))
        past = list(range(LENGTH - recent))
        heads = []
        for h in range(case.heads):
            sums = case.sums(h)
            text = best(sums, [j for j in past if not image[j]], slots)
            images = best(sums, [j for j in past if image[j]], slots - len(text))
            heads.append(sorted(text + images + list(range(len(past), LENGTH))))
        kept.append(heads)
    return kept


def aircache(cases: list[Case]) -> Kept:
    image, fields, n = cases[0].image, cases[0].fields, len(cases)
    images, text = [j for j in range(LENGTH) if image[j]], [j for j in range(LENGTH) if not image[j]]
    if fields["budget"] is None:
        shares = int(fields["alpha1"] * len(images)), int(fields["alpha2"] * len(images))
        n_text, n_images = len(text), sum(shares) or min(1, len(images))
    else:
        n_text, n_images = min(len(text), cases[0].budget), max(0, cases[0].budget - len(text))
    latest = text[len(text) - n_text :]
    if not images:
        return [[latest] * case.heads for case in cases]
    candidates = text or [LENGTH - 1]
    scores, strengths, skews = [], [], []
    for case in cases:
        queries = case.layer.queries.double().unflatten(0, (case.heads, -1))
        scale = case.keys.shape[-1] ** -0.5
        groups = queries.shape[1]

        def softmax(h: int, g: int, i: int, keys: list[int], q: Tensor = queries, c: Case = case, s: float = scale):
            logits = [math.exp(float(q[h, g, i] @ c.keys[h, j]) * s) for j in keys]
            return {j: x / sum(logits) for j, x in zip(keys, logits, strict=True)}

        both = [(h, g) for h in range(case.heads) for g in range(groups)]
        rows = [softmax(h, g, candidates[-1], candidates) for h, g in both]
        weights = {j: sum(row[j] for row in rows) / len(rows) for j in candidates}
        elite = [j for j in candidates if weights[j] >= fields["threshold"] * max(weights.values())]
        visible = sorted(set(images) | set(elite))
        per_head = []
        for h in range(case.heads):
            seen = [softmax(h, g, i, visible) for g in range(groups) for i in elite]
            per_head.append({j: sum(row[j] for row in seen) / len(seen) for j in images})
        scores.append(per_head)
        means = [sum(head[j] for head in per_head) / case.heads for j in images]
        centre = sum(means) / len(means)
        spread = sum((x - centre) ** 2 for x in means) / len(means)
        strengths.append(sum(means))
        skews.append(max(0.0, sum((x - centre) ** 3 for x in means) / len(means) / spread**1.5))
    weights_of = [
        (a / sum(strengths) + (b / sum(skews) if sum(skews) else 1 / n)) / 2
        for a, b in zip(strengths, skews, strict=True)
    ]
    counts = shared_out(weights_of, n * n_images, 0 if n_text else min(1, n_images), len(images))
    return [
        [sorted(latest + best([head.get(j, 0.0) for j in range(LENGTH)], images, count)) for head in per_head]
        for per_head, count in zip(scores, counts, strict=True)
    ]


METHODS: dict[str, tuple[Callable[[list[Case]], Kept], list[dict[str, Any]]]] = {
    "pyramidkv": (pyramidkv, [{}, {"window": 2, "kernel": 3, "beta": 5.0}]),
    "prefixkv": (prefixkv, [{}, {"sinks": 0}]),
    "flashcache": (flashcache, [{}, {"gamma": 0.4, "recent": 1}]),
    "madakv": (madakv, [{}, {"theta": 0.5, "window": 3, "recent": 2}]),
    "meda": (meda, [{"merge": "none"}, {"recent_share": 0.3, "merge": "pivotal"}, {"semantics": "release"}]),
    "aircache": (aircache, [{}, {"threshold": 0.5}, {"threshold": 0.7, "budget": 0.4}, {"budget": 0.8}]),
    "vl_cache": (vl_cache, [{}, {"threshold": 0.2, "recent_share": 0.5}]),
}
ROWS = [(name, changes) for name, (_, variants) in METHODS.items() for changes in variants]


def layers_of(runs: list[int], groups: int) -> list[Layer]:
    """Layers of one prompt, the later ones with larger keys and so with sharper attention."""
    memory: dict[Any, dict[int, Any]] = {}
    layers = []
    for index in range(LAYERS):
        layer = random_layer(LENGTH, groups=groups, runs=runs, seed=index)
        layers.append(Layer(layer.queries * (1 + index), layer.keys, layer.values, layer.is_image, memory=memory))
        layers[-1].index, layers[-1].n_layers = index, LAYERS
    return layers


def kept_of(strategy: Strategy, layers: list[Layer]) -> Kept:
    if strategy.whole_prompt:
        for layer in layers:
            observe([strategy], layer)
    return [compress_many([strategy], layer)[0].positions.tolist() for layer in layers]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("runs", [[9, 22, 6, 12, 11], [0, 60], [60]], ids=["both", "images", "text"])
@pytest.mark.parametrize(("name", "changes"), ROWS)
def test_layers_keep_what_the_formula_gives_them(
    name: str, changes: dict[str, Any], runs: list[int], groups: int
) -> None:
    formula, _ = METHODS[name]
    for budget in ((0.05, 0.05), (0.1, 0.2), (0.0, 0.6)):
        strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], **changes)
        layers = layers_of(runs, groups)
        if not strategy.chooses(layers[0].is_image):
            continue
        values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
        recent, important = strategy.window_sizes(LENGTH)
        expected = formula([Case(layer, recent, important, values) for layer in layers])
        kept = kept_of(strategy, layers)
        assert [len(layer[0]) for layer in kept] == [len(layer[0]) for layer in expected]
        assert kept == expected
        promised = LAYERS * strategy.promised_tokens(layers[0].is_image)
        assert sum(len(layer[0]) for layer in kept) in ([promised] if strategy.fixed_size else range(promised + 1))


@pytest.mark.parametrize(
    ("changes", "merge"),
    [({}, "averaged"), ({"semantics": "release"}, "pivotal"), ({"merge": "none"}, "none")],
    ids=["paper", "release", "none"],
)
def test_meda_merges_as_its_version_does(changes: dict[str, Any], merge: Any) -> None:
    layers = layers_of([9, 22, 6, 12, 11], 2)
    strategy = load_strategy("meda", **changes)
    for layer in layers:
        observe([strategy], layer)
    (row,) = compress_many([strategy], layers[1])
    keys, values = LookM(name="look_m", merge=merge).merge_into(merging.Kept(layers[1], row.positions))
    assert row.keys.equal(keys)
    assert row.values.equal(values)


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=8), st.integers(0, 5), st.integers(0, 30), st.floats(0, 1)
)  # fmt: skip
def test_a_budget_is_divided_to_the_last_token_within_its_bounds(
    weights: list[float], lowest: int, room: int, fill: float
) -> None:
    n, highest = len(weights), lowest + room
    total = n * lowest + int(fill * n * room)
    counts = apportion(weights, total, lowest, highest)
    assert sum(counts) == total
    assert all(lowest <= count <= highest for count in counts)
    for a, x in zip(weights, counts, strict=True):
        for b, y in zip(weights, counts, strict=True):
            assert a <= b or x >= y - 1


@pytest.mark.parametrize("model_name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", METHODS)
def test_a_left_padded_batch_answers_as_its_rows_alone(name: str, model_name: str) -> None:
    model, settings = built(model_name), {"max_new_tokens": 5, "do_sample": False}
    inputs = [prompt(model_name), prompt(model_name, (5, 20, 3, 8), seed=1)]
    with look_once(model, name, alpha1=0.1, alpha2=0.2) as session:
        batch = model.generate(**left_padded(inputs), **settings)  # type: ignore[operator]
        kept = session.report().kept_tokens
        for index, row in enumerate(inputs):
            alone = model.generate(**row, **settings)  # type: ignore[operator]
            assert alone[0, -5:].equal(batch[index, -5:])
            report = session.report()
            assert [layer[0] for layer in report.kept_tokens] == [layer[index] for layer in kept]
            promised = load_strategy(name, alpha1=0.1, alpha2=0.2).promised_tokens(row["input_ids"][0] == IMAGE)
            assert sum(layer[0] for layer in report.kept_tokens) == 3 * promised
            assert report.byte_budget == pytest.approx(report.realised_budget[0])


def test_bytes_fall_with_the_layers_and_the_positions_are_those_of_the_cache() -> None:
    model, inputs = built("qwen2_5_vl"), prompt("qwen2_5_vl", (12, 9, 14, 20))
    for name in METHODS:
        strategy = load_strategy(name, alpha1=0.1, alpha2=0.2)
        with look_once(model, strategy) as session:
            cache = model(**inputs).past_key_values
        held = tuple(layer.keys.shape[2] for layer in cache.layers)
        assert held == tuple(layer[0] for layer in session.report().kept_tokens)
        stored = [
            layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes() for layer in cache.layers
        ]
        assert tuple(stored) == tuple(layer[0] for layer in session.report().kept_bytes)
        (kept,) = kept_positions(model, inputs, [strategy])
        assert tuple(len(heads[0]) for heads in kept.layers) == held


@pytest.mark.parametrize("name", [*METHODS, "bacon", "expected_attention", "streaming"])
def test_nothing_is_remembered_beside_the_cache_once_the_prompt_is_encoded(name: str) -> None:
    model, inputs = built("llava"), prompt("llava")
    with torch.no_grad(), look_once(model, name):
        cache = model(**inputs).past_key_values
    assert all(not memory for memory in cache._row_memory)
    assert not cache._rotations
    assert not cache.waiting
    assert copy.deepcopy(cache).layers[0].keys.equal(cache.layers[0].keys)


def test_a_sweep_of_divided_and_other_methods_answers_as_each_alone() -> None:
    model = built("qwen2_5_vl")
    inputs = left_padded([prompt("qwen2_5_vl", (12, 9, 14, 20)), prompt("qwen2_5_vl", (5, 20, 3, 8), seed=1)])
    strategies = [load_strategy(name, alpha1=a, alpha2=0.2) for name in METHODS for a in (0.05, 0.2)]
    strategies += [load_strategy(name) for name in ("full", "h2o", "tp_pmerge", "bacon", "csp", "expected_attention")]
    for static in (False, True):
        swept = generate_sweep(model, inputs, strategies, max_new_tokens=7, pad_token_id=0, cuda_graph=static)
        for strategy, row in zip(strategies, swept, strict=True):
            with look_once(model, strategy) as session:
                alone = model.generate(**inputs, max_new_tokens=7, do_sample=False)  # type: ignore[operator]
            for index in range(2):
                assert list(row.tokens[index]) == alone[index, inputs["input_ids"].shape[1] :].tolist(), strategy.name
            assert row.report.kept_tokens == session.report().kept_tokens
            assert row.report.kept_bytes == session.report().kept_bytes
