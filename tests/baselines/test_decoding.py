"""Claims about the methods that evict while decoding: each against a slow simulation, in memory that stays the same."""

import copy
import gc
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from lookm import LookmError, Strategy, load_strategy, look_once, strategy_names
from lookm.compressed_layer import CompressedLayer
from lookm.compression import compress_many
from lookm.decoding import DecodingStrategy
from lookm.held import Held
from lookm.layer import Layer
from tests.baselines import decoding_oracle, oracle
from tests.baselines.decoding_oracle import Head, Token
from tests.lookm.layers import random_layer
from tests.lookm.models import built, left_padded, prompt

VARIANTS = [
    ("h2o_decoding", {}),
    ("streaming_decoding", {}),
    ("streaming_decoding", {"positions": "renumbered", "sinks": 3}),
    ("elastic", {"distance": 3}),
    ("elastic", {"distance": 40, "first": 4}),
    ("elastic", {"distance": 4, "semantics": "release"}),
    ("cascading", {}),
    ("cascading", {"caches": 3, "sinks": 1}),
]
NAMES = sorted(decoding_oracle.METHODS)
SIZE = 8


def ids(value: object) -> str | None:
    return None if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())  # type: ignore[attr-defined]


def held_by(strategy: Strategy, layers: list[Layer]) -> Held:
    stored = strategy.store([compress_many([strategy], layer)[0] for layer in layers], layers)
    assert isinstance(stored, Held)
    return stored


def simulated(strategy: Strategy, layer: Layer) -> list[Head]:
    """The oracle of each head, after the prompt."""
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    recent, important = strategy.window_sizes(layer.length)
    row = compress_many([strategy], layer)[0]
    heads = []
    for h in range(layer.kv_heads):
        tokens = [
            Token(j, key.double(), value.double())
            for j, key, value in zip(row.positions[h].tolist(), row.keys[h], row.values[h], strict=True)
        ]
        head = decoding_oracle.METHODS[strategy.name](oracle.Case(layer, recent, important, values), h, tokens)
        head.start()
        heads.append(head)
    return heads


def new_tokens(rows: int, groups: int, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, 2 · groups, n, D), keys and values (B, 2, n, D) of new tokens."""
    generator = torch.Generator().manual_seed(seed)
    return (
        2 * torch.randn(rows, 2 * groups, n, SIZE, generator=generator),
        torch.randn(rows, 2, n, SIZE, generator=generator),
        torch.randn(rows, 2, n, SIZE, generator=generator),
    )


@torch.no_grad()
@pytest.mark.parametrize("budget", [(0.1, 0.1), (0.0, 0.2), (0.3, 0.0), (0.02, 0.03), (0.4, 0.55)])
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=ids)
def test_each_step_is_that_of_the_simulation(name: str, changes: dict[str, Any], budget: tuple[float, float]) -> None:
    strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], **changes)
    groups = 2 if budget[0] else 1
    layers = [random_layer(n, groups=groups, size=SIZE, seed=n) for n in (40, 63, 20)]
    held, heads = held_by(strategy, layers), [simulated(strategy, layer) for layer in layers]
    for step in range(70):
        queries, keys, values = new_tokens(len(heads), groups, 1, seed=step)
        held.append(keys, values)
        output = held.attend(queries, None)  # [B, 1, Hq, D]
        for row, of_row in enumerate(heads):
            for h, head in enumerate(of_row):
                own = slice(h * groups, (h + 1) * groups)
                expected = head.step(queries[row, own, 0], keys[row, h, 0], values[row, h, 0])
                torch.testing.assert_close(output[row, 0, own].double(), expected, atol=2e-4, rtol=2e-3)
                positions = held.positions[row, h]
                assert positions[positions >= 0].sort().values.tolist() == [t.position for t in head.tokens], step


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize("budget", [(0.1, 0.1), (0.3, 0.4), (0.02, 0.03)])
def test_elastic_as_released_compares_a_permutation_with_a_rank(budget: tuple[float, float], first: int) -> None:
    layer = random_layer(63, groups=2, seed=3)
    strategy = load_strategy("elastic", alpha1=budget[0], alpha2=budget[1], first=first, semantics="release")
    row = compress_many([strategy], layer)[0]
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    expected, keys, held = decoding_oracle.elastic(oracle.Case(layer, *strategy.window_sizes(63), values))
    assert row.positions.tolist() == expected
    torch.testing.assert_close(row.keys.double(), keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(row.values.double(), held, atol=1e-5, rtol=1e-4)
    paper = compress_many([strategy.with_fields(semantics="paper")], layer)[0]
    assert (paper.positions.tolist() == expected) == (sum(strategy.window_sizes(63)) <= first + 1)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_several_tokens_at_once_are_as_many_steps(name: str) -> None:
    strategy = load_strategy(name)
    layers = [random_layer(n, groups=2, size=SIZE, seed=n) for n in (50, 35)]
    at_once, one_by_one = held_by(strategy, layers), held_by(strategy, layers)
    queries, keys, values = new_tokens(2, 2, 9, seed=0)
    at_once.append(keys, values)
    output = at_once.attend(queries, None)
    for i in range(9):
        one_by_one.append(keys[:, :, i : i + 1], values[:, :, i : i + 1])
        assert one_by_one.attend(queries[:, :, i : i + 1], None)[:, 0].equal(output[:, i])
    assert one_by_one.positions.equal(at_once.positions)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_rows_go_on_alone_whatever_becomes_of_the_others(name: str) -> None:
    """Padding among new tokens, rows that are dropped, repeated and reordered: each row is as it would be alone."""
    strategy = load_strategy(name)
    layers = [random_layer(n, size=SIZE, seed=n) for n in (50, 35, 28)]
    held, alone = held_by(strategy, layers), [held_by(strategy, [layer]) for layer in layers]
    for step in range(40):
        queries, keys, values = new_tokens(len(alone), 1, 1, seed=step)
        padding = torch.tensor([[(row + step) % 5 == 0] for row in range(len(alone))])
        held.append(keys, values, padding)
        output = held.attend(queries, None)
        for row, own in enumerate(alone):
            if not padding[row]:
                own.append(keys[row : row + 1], values[row : row + 1])
                torch.testing.assert_close(own.attend(queries[row : row + 1], None), output[row : row + 1])
        if step in (10, 25):
            order = torch.tensor([2, 0, 2] if step == 10 else [1, 1, 0, 2])
            held.select(order)
            previous, alone = alone, []
            for row in order.tolist():
                alone.append(copy.deepcopy(previous[row]))


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in NAMES if name != "elastic"])
def test_memory_stays_the_same_over_hundreds_of_steps(name: str) -> None:
    """Elastic's share of all tokens grows; the others hold what they kept of the prompt."""
    held = held_by(load_strategy(name), [random_layer(n, size=SIZE, seed=n) for n in (90, 60)])
    assert sum(held.prompt_bytes) <= held.allocated_bytes()

    def live_bytes() -> int:
        gc.collect()
        tensors = [x for x in gc.get_objects() if type(x) is Tensor]
        return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())

    sizes = []
    for step in range(300):
        queries, keys, values = new_tokens(2, 1, 1, seed=step)
        held.append(keys, values)
        held.attend(queries, None)
        if step in (20, 299):
            sizes.append((held.length, held.allocated_bytes(), live_bytes()))
    assert sizes[0] == sizes[1]


@torch.no_grad()
def test_elastic_holds_its_share_of_all_tokens() -> None:
    held = held_by(load_strategy("elastic", distance=5), [random_layer(n, size=SIZE, seed=n) for n in (90, 60)])
    expected = [2 * int(0.1 * n) for n in (90, 60)]
    for step in range(200):
        queries, keys, values = new_tokens(2, 1, 1, seed=step)
        held.append(keys, values)
        held.attend(queries, None)
        shares = [2 * int(0.1 * (n + step + 1)) for n in (90, 60)]
        expected = [min(count + 1, share) for count, share in zip(expected, shares, strict=True)]
        assert (held.positions >= 0).sum(-1).tolist() == [[count] * 2 for count in expected]
    assert expected == [57, 51]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "token", "row"), [("elastic", 4, 4), ("streaming_decoding", 4, 0), ("cascading", 8, 0)]
)
def test_beside_a_token_no_more_is_held_than_the_rule_needs(name: str, token: int, row: int) -> None:
    held = held_by(load_strategy(name), [random_layer(90, size=SIZE)])
    assert held.prompt_bytes == (2 * 18 * (2 * SIZE * 4 + token) + row,)


@pytest.mark.parametrize("model_name", ["grouped", "qwen2_5_vl"])
@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_decodes_as_its_rows_alone_over_many_steps(name: str, model_name: str) -> None:
    model = built(model_name)
    inputs = [prompt(model_name), prompt(model_name, (5, 20, 3, 8), seed=1)]
    settings: dict[str, Any] = {"max_new_tokens": 60, "do_sample": False}
    with look_once(model, name):
        batch = model.generate(**left_padded(inputs), **settings)  # type: ignore[operator]
        for index, row in enumerate(inputs):
            alone = model.generate(**row, **settings)  # type: ignore[operator]
            assert alone[0, -60:].equal(batch[index, -60:])


@pytest.mark.parametrize("name", NAMES)
def test_beams_reorder_what_is_held(name: str) -> None:
    model, inputs = built("grouped"), prompt("grouped", (40,))
    with look_once(model, name):
        found = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=20, num_beams=3, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
        path = found.sequences[:, :-1]
        # the best beam's own tokens, fed one by one, have the score that the search found
        cache, score = None, 0.0
        with torch.no_grad():
            for i in range(inputs["input_ids"].shape[1], found.sequences.shape[1]):
                part = path[:, :i] if cache is None else path[:, i - 1 : i]
                step = model(input_ids=part, past_key_values=cache)
                cache = step.past_key_values
                score += float(step.logits[0, -1].log_softmax(-1)[found.sequences[0, i]])
    assert float(found.sequences_scores[0]) == pytest.approx(score / 20, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_of_one_evicts_nothing(name: str) -> None:
    model, inputs = built("llava"), prompt("llava")
    plain = model.generate(**inputs, max_new_tokens=30, do_sample=False)  # type: ignore[operator]
    with look_once(model, name, alpha1=1.0, alpha2=0.0):
        assert model.generate(**inputs, max_new_tokens=30, do_sample=False).equal(plain)  # type: ignore[operator]


def test_more_is_evicted_than_after_the_prompt_alone() -> None:
    model, inputs = built("grouped"), prompt("grouped", (60,))
    for once, always in (("h2o", "h2o_decoding"), ("streaming", "streaming_decoding")):
        answers, held = [], []
        for name in (once, always):
            with torch.no_grad(), look_once(model, name):
                output = model.generate(  # type: ignore[operator]
                    **inputs, max_new_tokens=40, do_sample=False, return_dict_in_generate=True
                )
                answers.append(output.sequences)
                layer = output.past_key_values.layers[0]
                assert isinstance(layer, CompressedLayer)
                assert layer.stored is not None
                held.append(layer.stored.length)
        assert held == [12 + 39, 12]
        assert not answers[0].equal(answers[1])


@torch.no_grad()
def test_a_number_of_tokens_is_filled_before_anything_goes() -> None:
    model, inputs = built("grouped"), prompt("grouped", (20,))
    plain = model.generate(**inputs, max_new_tokens=11, do_sample=False)  # type: ignore[operator]
    with look_once(model, "h2o_decoding", budget=30):
        output = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=30, do_sample=False, return_dict_in_generate=True
        )
    assert output.sequences[:, :31].equal(plain)
    assert output.past_key_values.layers[0].stored.length == 30


def test_what_cannot_be_combined_is_refused_in_one_line() -> None:
    with pytest.raises(
        LookmError, match="storage=kivi2 stores a prompt once, and strategy=h2o_decoding evicts from it"
    ):
        load_strategy("h2o_decoding", storage="kivi2")
    model, inputs = built("grouped"), prompt("grouped", (40,))
    with look_once(model, "h2o_decoding"):
        cache = model(**inputs).past_key_values
        with pytest.raises(LookmError, match=r"no gradient passes; call the model under torch.no_grad\(\)"):
            model(input_ids=torch.tensor([[5]]), past_key_values=cache)
        with torch.no_grad():
            cache = model(**inputs).past_key_values
            model(input_ids=torch.tensor([[5]]), past_key_values=cache)
            with pytest.raises(LookmError, match="a compressed cache can be cropped by the 0 tokens"):
                cache.crop(-1)


def test_every_strategy_that_evicts_while_decoding_has_a_simulation() -> None:
    acting = [name for name in strategy_names() if isinstance(load_strategy(name), DecodingStrategy)]
    assert acting == NAMES
