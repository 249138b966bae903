"""Claims about methods whose heads keep different numbers of tokens, from one table."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from baselines.adakv import AdaKV
from baselines.fastgen import punctuation_ids
from lookm import BudgetError, Strategy, load_strategy, look_once
from lookm.compression import compress_many, observe
from lookm.kept import kept_positions
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.method import LookM
from lookm.models.tiny import SHIPPED
from lookm.observation import observe_prefill
from lookm.sweep import generate_sweep
from tests.baselines.oracle import Case, pooled, turned
from tests.baselines.test_divided import layers_of, shared_out
from tests.lookm.layers import random_layer
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.oracle import best

LENGTH = 63
IDS = torch.arange(LENGTH) % 10
"""Token ids of the layers."""


def adakv(case: Case) -> list[list[int]]:
    """Give every head its floor, then the highest remaining score of any head, until the layer's budget is spent."""
    w = case.fitting(case.fields["window"])
    past, slots = list(range(case.length - w)), case.budget - w
    scores = [pooled(case.window(h, w)[: len(past)], case.fields["kernel"]) for h in range(case.heads)]

    def spent(floor: int) -> list[int]:
        counts = [floor] * case.heads
        ordered = [sorted(row, reverse=True) for row in scores]
        while sum(counts) < case.heads * slots:
            nexts = [row[n] if n < len(past) else -1.0 for row, n in zip(ordered, counts, strict=True)]
            counts[nexts.index(max(nexts))] += 1
        return counts

    alpha = case.fields["alpha"]
    if case.fields["safeguard"] == "floor":
        counts = spent(max(0, int(alpha * case.budget) - w))
    else:
        blended = [alpha * slots + (1 - alpha) * n for n in spent(0)]
        counts = shared_out(blended, case.heads * slots, 0, len(past))
    kept = (best(row, past, n) for row, n in zip(scores, counts, strict=True))
    return [sorted(head + list(range(len(past), case.length))) for head in kept]


def corm(case: Case) -> list[list[int]]:
    kept = []
    for h in range(case.heads):
        queries = range(max(0, case.length - case.fields["window"]), case.length)
        important = {
            i
            for weights in case.weights[h].tolist()
            for t in queries
            for i in range(t + 1)
            if weights[t][i] >= 1 / (t + 1)
        }
        kept.append(sorted(important | set(range(max(0, case.length - case.fields["recent"]), case.length))))
    return kept


def fastgen(case: Case) -> list[list[int]]:
    n, f = case.length, case.fields
    kept = []
    for h in range(case.heads):
        sums = case.sums(h)
        policies = [
            {0} | {j for j in range(n) if IDS[j] in f["special"]},
            {j for j in range(n) if IDS[j] in f["punctuation"]},
            set(best(sums, list(range(n)), int(f["frequent"] * n))),
            set(range(n - int(f["local"] * n), n)),
            set(range(n)),
        ]
        chosen = {n - 1}
        for policy in policies:
            chosen |= policy
            if sum(sums[j] for j in chosen) >= f["recovery"] * sum(sums):
                break
        kept.append(sorted(chosen))
    return kept


def images_of(is_image: list[bool]) -> list[list[int]]:
    """The positions of each run of image tokens."""
    runs: list[list[int]] = []
    for j, image in enumerate(is_image):
        if image:
            runs += [[]] if j == 0 or not is_image[j - 1] else []
            runs[-1].append(j)
    return runs


def lifted(scores: list[list[float]], case: Case) -> list[list[float]]:
    """Scores of all heads of all layers with their floors: text's is λ, an image token's λ · images / place."""
    floor, asked = case.fields["floor"], case.fields["asked"]
    everything = sorted((x for row in scores for x in row), reverse=True)
    level = min(floor, everything[min(int(asked * case.budget * len(scores)), len(everything) - 1)])
    images, lifted = images_of(case.layer.is_image.tolist()), []
    for start in range(0, len(scores), case.heads):
        heads = scores[start : start + case.heads]
        highest = [max(row[j] for row in heads) for j in range(case.length)]
        queues = [sorted(image, key=lambda j: -highest[j]) for image in images]
        order: list[int] = []
        for turn in range(max(map(len, queues), default=0)):
            order += sorted((queue[turn] for queue in queues if turn < len(queue)), key=lambda j: -highest[j])
        floors = [level] * case.length
        for place, j in enumerate(order, start=1):
            floors[j] = level * len(images) / place
        lifted += [
            [x + 0.99 * (f - x) if floor and f > x else x for x, f in zip(row, floors, strict=True)] for row in heads
        ]
    return lifted


def replay(cases: list[Case]) -> list[list[list[int]]]:
    """For each layer its heads: each its floor, then the highest remaining score of any, until the budget is spent."""
    n, scores = cases[0].length, []
    for case in cases:
        queries = case.layer.queries.double().unflatten(0, (case.heads, -1))
        norms = [[case.norm(case.values, h, j) for j in range(n)] for h in range(case.heads)]
        mean = sum(map(sum, norms)) / (case.heads * n)
        for h in range(case.heads):
            attended = [0.0] * n
            for group in queries[h]:
                for i, q in enumerate(group):
                    logits = case.keys[h] @ turned(q, n - i) / math.sqrt(len(q))
                    attended = [max(a, x) for a, x in zip(attended, logits.softmax(0).tolist(), strict=True)]
            odds = [a / (1 - a) for a in (min(a, 0.99) for a in attended)]
            scores.append([x * norm / mean for x, norm in zip(odds, norms[h], strict=True)])
    scores = lifted(scores, cases[0])
    counts = [int(cases[0].fields["least"] * cases[0].budget)] * len(scores)
    ordered = [sorted(row, reverse=True) for row in scores]
    while sum(counts) < len(scores) * cases[0].budget:
        nexts = [row[k] if k < n else -1.0 for row, k in zip(ordered, counts, strict=True)]
        counts[nexts.index(max(nexts))] += 1
    heads = [sorted(best(row, list(range(n)), k)) for row, k in zip(scores, counts, strict=True)]
    return [heads[i : i + cases[0].heads] for i in range(0, len(heads), cases[0].heads)]


METHODS: dict[str, tuple[Callable[[Case], list[list[int]]], list[dict[str, Any]]]] = {
    "adakv": (adakv, [{}, {"alpha": 0.0}, {"alpha": 0.7, "window": 2}, {"safeguard": "blend", "kernel": 3}]),
    "corm": (corm, [{}, {"window": 5, "recent": 3}, {"window": 20, "recent": 1}]),
    "fastgen": (
        fastgen,
        [{}, {"recovery": 0.6, "special": (3,)}, {"recovery": 0.55, "punctuation": [5, 6, 7]}, {"recovery": 1.0}],
    ),
    "replay": (
        lambda case: replay([case])[0],
        [{}, {"floor": 0.0}, {"floor": 20.0, "asked": 0.0, "least": 0.6}, {"asked": 1.0}],
    ),
}
ROWS = [(name, changes) for name, (_, variants) in METHODS.items() for changes in variants]
SHORT = {
    "adakv": {},
    "corm": {"window": 4, "recent": 3},
    "fastgen": {"recovery": 0.7, "punctuation": (5, 7)},
    "replay": {},
}
"""Fields at which the tiny models' prompts are cut."""


def layer_of(groups: int, runs: list[int]) -> Layer:
    """Heads of different sharpness, so that they keep different numbers."""
    plain = random_layer(LENGTH, kv_heads=3, groups=groups, runs=runs, seed=groups)
    sharpness = torch.tensor([0.3, 1.0, 4.0]).repeat_interleave(groups)[:, None, None]
    return Layer(plain.queries * sharpness, plain.keys, plain.values, plain.is_image, token_ids=IDS)


def short(name: str, **changes: Any) -> Strategy:
    return load_strategy(name, alpha1=0.1, alpha2=0.2, **SHORT[name], **changes)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("runs", [[9, 22, 6, 18, 8], [0, 63], [63]], ids=["both", "images", "text"])
@pytest.mark.parametrize(("name", "changes"), ROWS)
def test_heads_keep_what_the_formula_gives_them(
    name: str, changes: dict[str, Any], runs: list[int], groups: int
) -> None:
    formula, _ = METHODS[name]
    layer = layer_of(groups, runs)
    for budget in ((0.0, 0.02), (0.05, 0.05), (0.1, 0.2), (0.0, 0.6), (0.2, 0.75)):
        strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], **changes)
        values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
        (row,) = compress_many([strategy], replace(layer, statistics=None))
        kept = [head.tolist() for head in row.head_positions()]
        assert kept == formula(Case(layer, *strategy.window_sizes(LENGTH), values))
        counts = [len(head) for head in kept]
        assert row.counts == (None if len(set(counts)) == 1 else tuple(counts))
        if strategy.fixed_size:
            assert sum(counts) == 3 * strategy.promised_tokens(layer.is_image)
        expected = torch.cat([layer.keys[h, positions] for h, positions in enumerate(kept)])
        assert row.keys.flatten(end_dim=-2).equal(expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_replay_gives_all_heads_of_all_layers_one_budget(groups: int) -> None:
    for budget in ((0.0, 0.02), (0.05, 0.05), (0.2, 0.3)):
        strategy = load_strategy("replay", alpha1=budget[0], alpha2=budget[1])
        layers = layers_of([9, 22, 6, 12, 11], groups)
        values = {name: getattr(strategy, name) for name in ("floor", "asked", "least")}
        expected = replay([Case(layer, *strategy.window_sizes(layer.length), values) for layer in layers])
        for layer in layers:
            observe([strategy], layer)
        rows = [compress_many([strategy], layer)[0] for layer in layers]
        assert [[head.tolist() for head in row.head_positions()] for row in rows] == expected
        assert sum(row.positions.numel() for row in rows) == 8 * strategy.promised_tokens(layers[0].is_image)
        assert len({row.counts for row in rows}) > 1


def test_heads_differ_where_their_attention_does() -> None:
    for name in METHODS:
        (row,) = compress_many([short(name)], layer_of(2, [9, 22, 6, 18, 8]))
        assert len(set(row.counts or ())) > 1, name


@pytest.mark.parametrize("model_name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", METHODS)
def test_a_left_padded_batch_answers_as_its_rows_alone_with_beams_too(name: str, model_name: str) -> None:
    model, settings = built(model_name), {"max_new_tokens": 5, "do_sample": False}
    inputs = [prompt(model_name), prompt(model_name, (5, 20, 3, 8), seed=1)]
    for beams in (1, 3):
        with look_once(model, short(name)) as session:
            batch = model.generate(**left_padded(inputs), **settings, num_beams=beams)  # type: ignore[operator]
            together = session.report()
            for index, row in enumerate(inputs):
                alone = model.generate(**row, **settings, num_beams=beams)  # type: ignore[operator]
                assert alone[0, -5:].equal(batch[index, -5:])
                report = session.report()
                assert [layer[0] for layer in report.kept_tokens] == [
                    layer[index * beams] for layer in together.kept_tokens
                ]
                assert [layer[0] for layer in report.kept_bytes] == [
                    layer[index * beams] for layer in together.kept_bytes
                ]


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_that_of_the_kept_tokens_and_their_offsets(name: str) -> None:
    model, inputs, strategy = built("qwen2_5_vl"), prompt("qwen2_5_vl", (12, 9, 14, 20)), short(name)
    with look_once(model, strategy) as session:
        cache = model(**inputs).past_key_values
    (kept,) = kept_positions(model, inputs, [strategy])
    for layer, heads, reported in zip(cache.layers, kept.layers, session.report().kept_bytes, strict=True):
        tokens = sum(map(len, heads))
        head_size = layer.keys.shape[-1]
        storages = {tensor.untyped_storage() for tensor in layer.stored.tensors()}
        offsets = 8 * len(heads) if len(set(map(len, heads))) > 1 else 0
        assert sum(s.nbytes() for s in storages) == reported[0] == tokens * 2 * head_size * 4 + offsets
        assert tokens < len(heads) * inputs["input_ids"].shape[1]


@pytest.mark.parametrize("model_name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", METHODS)
def test_a_new_token_attends_in_each_head_to_that_heads_tokens(name: str, model_name: str) -> None:
    model, inputs = built(model_name), prompt(model_name)
    full: list[Layer] = []
    observe_prefill(model, inputs, lambda layer: full.append(copy.copy(layer)))
    (kept,) = kept_positions(model, inputs, [short(name)])
    with look_once(model, short(name)):
        cache = model(**inputs).past_key_values
    for layer, whole, heads in zip(cache.layers, full, kept.layers, strict=True):
        query = torch.randn(1, whole.queries.shape[0], 1, whole.queries.shape[-1])
        new = torch.randn(2, 1, len(heads), 1, whole.keys.shape[-1])
        keys, values = layer.update(*new)
        mask, groups = layer.decode_mask(query), query.shape[1] // len(heads)
        output = torch.nn.functional.scaled_dot_product_attention(
            query, keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1), attn_mask=mask
        )
        for number in range(query.shape[1]):
            head = number // groups
            own = torch.cat([whole.keys[head, heads[head]], new[0, 0, head]])
            weights = (own @ query[0, number, 0] * whole.keys.shape[-1] ** -0.5).softmax(0)
            expected = weights @ torch.cat([whole.values[head, heads[head]], new[1, 0, head]])
            torch.testing.assert_close(output[0, number, 0], expected, atol=1e-5, rtol=1e-4)


def test_a_sweep_decodes_ragged_rows_alone_with_the_answers_they_have_alone() -> None:
    model = built("qwen2_5_vl")
    inputs = left_padded([prompt("qwen2_5_vl", (12, 9, 14, 20)), prompt("qwen2_5_vl", (5, 20, 3, 8), seed=1)])
    strategies = [short("adakv"), load_strategy("h2o"), short("corm"), load_strategy("full"), short("fastgen")]
    for static in (False, True):
        swept = generate_sweep(model, inputs, strategies, max_new_tokens=7, pad_token_id=0, cuda_graph=static)
        assert [row.strategy for row in swept] == strategies
        for strategy, row in zip(strategies, swept, strict=True):
            with look_once(model, strategy) as session:
                alone = model.generate(**inputs, max_new_tokens=7, do_sample=False)  # type: ignore[operator]
            for index in range(2):
                assert list(row.tokens[index]) == alone[index, inputs["input_ids"].shape[1] :].tolist(), strategy.name
            assert row.report.kept_tokens == session.report().kept_tokens
            assert row.report.kept_bytes == session.report().kept_bytes


@dataclass(frozen=True, kw_only=True)
class Merging(AdaKV):
    """AdaKV that merges what it evicts, as LOOK-M does."""

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        return LookM(name="pivotal").merge_into(kept)


def test_evicted_tokens_merge_within_their_head() -> None:
    layer = layer_of(2, [9, 22, 6, 18, 8])
    (row,) = compress_many([Merging(name="merging", alpha1=0.1, alpha2=0.1)], layer)
    for head, (keys, positions) in enumerate(zip(row.keys.split(row.counts), row.head_positions(), strict=True)):
        alone = layer.head(head)
        assert keys.equal(LookM(name="pivotal").merge_into(Kept(alone, positions[None]))[0][0])


@dataclass(frozen=True, kw_only=True)
class Careless(AdaKV):
    """Keeps one token more in its first head."""

    def keep(self, layer: Layer) -> list[Tensor]:
        kept = super().keep(layer)
        return [torch.arange(layer.length - len(kept[0]) - 1, layer.length), *kept[1:]]


class Silent(Careless):
    """The same, and does not say that its heads differ."""

    ragged_heads: ClassVar[bool] = False

    def keep(self, layer: Layer) -> list[Tensor]:
        first, second, *others = super().keep(layer)
        return [first, second[1:], *others]


def test_heads_that_keep_another_total_are_refused() -> None:
    layer = random_layer(50, kv_heads=3)
    with pytest.raises(BudgetError, match="its definition promises 30 in 3 heads together"):
        compress_many([Careless(name="careless")], layer)
    with pytest.raises(BudgetError, match=r"silent kept .* its definition promises 30 in 3 equal heads"):
        compress_many([Silent(name="silent")], layer)


def test_punctuation_is_found_by_its_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    texts = {tokenizer.decode([number]).strip() for number in punctuation_ids(tokenizer)}
    assert {",", ".", "?"} <= texts
    assert not any(letter.isalnum() for text in texts for letter in text)
