"""Claims about every method of `baselines`, from one table: a row tests its method in all of its fields.

What the eleven rows of the paper are is claimed in tests/lookm/test_strategies.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import torch

from lookm import Strategy, load_strategy, look_once, strategy_names
from lookm.compression import compress_many
from lookm.layer import Layer
from lookm.sweep import generate_sweep
from tests.baselines import decoding_oracle, oracle
from tests.baselines.test_divided import METHODS as DIVIDED
from tests.baselines.test_ragged import METHODS as RAGGED
from tests.baselines.test_shortening import NAMES as SHORTENING
from tests.lookm.layers import compressed, random_layer
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.oracle import ROWS

PRIORS: list[dict[str, Any]] = [{"text_prior": prior} for prior in ("off", "strict", "union")]
METHODS: dict[str, tuple[Callable[[oracle.Case], Any], list[dict[str, Any]]]] = {
    "random": (oracle.random_, [*PRIORS, {"seed": 3, "recent": 0, "sinks": 2}]),
    "even": (oracle.even, [*PRIORS, {"recent": 0}]),
    "window": (oracle.window, [*PRIORS, {"window": 3, "recent": 1, "sinks": 2}]),
    "vnorm": (oracle.vnorm, [*PRIORS, {"window": 5, "recent": 2}]),
    "tova": (oracle.tova, [*PRIORS, {"recent": 0}]),
    "knorm": (oracle.knorm, [*PRIORS, {"recent": 3, "sinks": 1}]),
    "keydiff": (oracle.keydiff, [*PRIORS, {"recent": 5}]),
    "cur": (oracle.cur, [*PRIORS, {"block": 7, "sinks": 0}]),
    "streaming": (oracle.streaming, [{}, {"positions": "renumbered"}, {"positions": "renumbered", "sinks": 2}]),
    "expected_attention": (
        oracle.expected_attention,
        [{"text_prior": "strict", "future": 9}, {"future": 20, "covariance": False}, {"future": 3, "values": False}],
    ),
    "lagkv": (oracle.lagkv, [*PRIORS, {"lag": 9}, {"lag": 128}, {"sinks": 0, "recent": 2}]),
    "mixkv": (oracle.mixkv, [*PRIORS, {"window": 6, "kernel": 3}]),
    "madakv_heads": (oracle.madakv_heads, [{}, {"window": 3, "recent": 2}]),
    "csp": (oracle.csp, [{}, {"cross": 0.2, "n": 0.0}, {"cross": 1.0}]),
    "bacon": (oracle.bacon, [*PRIORS, {"window": 5, "kernel": 3, "layers": 1, "scale": 0.9}, {"layers": 0}]),
    "h2o_decoding": (decoding_oracle.h2o_decoding, [{}]),
    "streaming_decoding": (oracle.streaming, [{}, {"positions": "renumbered", "sinks": 2}]),
    "elastic": (decoding_oracle.elastic, [{}, {"first": 4}]),
    "cascading": (decoding_oracle.cascading, [{}, {"caches": 2, "sinks": 1}, {"caches": 9, "sinks": 0}]),
    "kvmerger": (oracle.kvmerger, [{}, {"sigma": 1.5, "single": 0.0}, {"single": 1.0}]),
}
BUDGETS = [(0.0, 0.0), (0.03, 0.02), (0.1, 0.1), (0.0, 0.3), (0.25, 0.0), (0.3, 0.4), (0.2, 0.79)]
LAYOUTS = {"text and images": [9, 22, 6, 18, 8], "images alone": [0, 63], "text alone": [63]}


def test_every_method_has_a_row() -> None:
    rows = set(METHODS) | set(DIVIDED) | set(RAGGED) | set(ROWS) | SHORTENING | {"sparsemm"}
    assert rows == set(strategy_names())


def rows() -> Iterator[Any]:
    """Each method with each combination of fields."""
    for name, (_, variants) in METHODS.items():
        for changes in variants:
            label = "-".join(f"{key}={value}" for key, value in changes.items())
            yield pytest.param(name, changes, id=f"{name}-{label}" if label else name)


@cache
def layer_of(layout: str, groups: int) -> Layer:
    """63 tokens in two key/value heads."""
    return random_layer(63, groups=groups, runs=LAYOUTS[layout], seed=groups)


def oracle_case(strategy: Strategy, layer: Layer, earlier: list[oracle.Case]) -> oracle.Case:
    recent, important = int(strategy.alpha1 * layer.length), int(strategy.alpha2 * layer.length)
    if recent + important == 0 and strategy.nominal_budget > 0:
        recent = 1
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    return oracle.Case(layer, recent, important, values, earlier)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("name", "changes"), list(rows()))
def test_a_method_keeps_what_its_formula_says(name: str, changes: dict[str, Any], groups: int, layout: str) -> None:
    formula, _ = METHODS[name]
    layer = layer_of(layout, groups)
    for budget in BUDGETS:
        strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], **changes)
        row = compressed(strategy, layer)
        assert row.positions.shape[1] == strategy.promised_tokens(layer.is_image)
        if row.positions.shape[1] == layer.length:
            assert row.keys.equal(layer.keys)
            continue
        if row.positions.shape[1] == 0:
            continue
        expected = formula(oracle_case(strategy, layer, []))
        if isinstance(expected, tuple):
            expected, keys, values = expected
            torch.testing.assert_close(row.keys, keys.float(), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(row.values, values.float(), atol=1e-5, rtol=1e-4)
        else:
            heads = torch.arange(layer.kv_heads)[:, None]
            assert row.keys.equal(layer.keys[heads, row.positions])
            assert row.values.equal(layer.values[heads, row.positions])
        assert row.positions.tolist() == expected, budget


@pytest.mark.parametrize(("name", "changes"), list(rows()))
def test_the_size_is_what_the_prior_allows(name: str, changes: dict[str, Any]) -> None:
    for length in (1, 2, 3, 7, 40):
        layer = random_layer(length, runs=[length // 3, length // 3])
        for budget in BUDGETS:
            strategy = load_strategy(name, alpha1=budget[0], alpha2=budget[1], **changes)
            nominal = max(int(sum(budget) > 0), int(budget[0] * length) + int(budget[1] * length))
            kept = compressed(strategy, layer).positions.shape[1]
            if getattr(strategy, "text_prior", "off") == "union":
                assert kept == max(nominal, kept)
            else:
                assert kept == min(length, nominal)


def test_a_method_that_reads_earlier_layers_reads_them() -> None:
    layers = [random_layer(63, groups=2, runs=LAYOUTS["text and images"], seed=seed) for seed in range(6)]
    strategy = load_strategy("bacon", alpha1=0.1, alpha2=0.2)
    memory: dict[Any, dict[int, Any]] = {}
    cases: list[oracle.Case] = []
    for index, layer in enumerate(layers):
        layer.index, layer.n_layers, layer.memory = index, len(layers), memory
        (row,) = compress_many([strategy], layer)
        case = oracle_case(strategy, layer, list(cases))
        assert row.positions.tolist() == oracle.bacon(case)
        cases.append(case)
    alone = [compressed(strategy, layer).positions for layer in layers]
    assert oracle.bacon(oracle_case(strategy, layers[-1], [])) == alone[-1].tolist() != row.positions.tolist()


def everything() -> list[Strategy]:
    """Every method in all of its fields at two budgets, and the paper's rows beside them."""
    table = [(name, changes) for name, (_, variants) in METHODS.items() for changes in variants]
    table += [(name, {}) for name in ROWS]
    return [load_strategy(name, alpha1=a, alpha2=a, **changes) for name, changes in table for a in (0.05, 0.1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_methods_at_once_equal_each_alone_bit_for_bit(dtype: torch.dtype) -> None:
    plain = random_layer(120, groups=2, runs=[12, 40, 8, 40, 20])
    layer = Layer(plain.queries.to(dtype), plain.keys.to(dtype), plain.values.to(dtype), plain.is_image)
    strategies = everything()
    for strategy, row in zip(strategies, compress_many(strategies, layer), strict=True):
        alone = compressed(strategy, layer)
        assert row.positions.equal(alone.positions), strategy
        assert row.keys.equal(alone.keys), strategy
        assert row.values.equal(alone.values), strategy
        assert row.keys.dtype == row.values.dtype == dtype


@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("name", METHODS)
def test_a_prompt_without_images_is_compressed(name: str, semantics: str) -> None:
    row = compressed(load_strategy(name, semantics=semantics, alpha1=0.1, alpha2=0.1), random_layer(50))
    assert row.positions.shape[1] == (9 if (name, semantics) == ("elastic", "release") else 10)


@pytest.mark.parametrize("model_name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", METHODS)
def test_a_left_padded_batch_answers_as_its_rows_alone(name: str, model_name: str) -> None:
    model = built(model_name)
    inputs = [prompt(model_name), prompt(model_name, (5, 20, 3, 8), seed=1)]
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    with look_once(model, name, alpha1=0.1, alpha2=0.1) as session:
        batch = model.generate(**left_padded(inputs), **settings)  # type: ignore[operator]
        kept = session.report().kept_tokens
        for index, row in enumerate(inputs):
            alone = model.generate(**row, **settings)  # type: ignore[operator]
            assert alone[0, -5:].equal(batch[index, -5:])
            assert [layer[0] for layer in session.report().kept_tokens] == [layer[index] for layer in kept]


def test_a_sweep_of_all_methods_answers_as_each_alone() -> None:
    model, inputs = built("qwen2_5_vl"), prompt("qwen2_5_vl", (12, 9, 14, 20))
    strategies = [load_strategy(name, alpha1=0.1, alpha2=0.15) for name in METHODS]
    swept = generate_sweep(model, inputs, strategies, max_new_tokens=6, pad_token_id=0)
    for strategy, row in zip(strategies, swept, strict=True):
        with look_once(model, strategy):
            alone = model.generate(**inputs, max_new_tokens=6, do_sample=False)  # type: ignore[operator]
        assert list(row.tokens[0]) == alone[0, inputs["input_ids"].shape[1] :].tolist(), strategy.name


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("random", {"seed": -1}, "seed=-1 does not fit; choose an integer from 0"),
        ("window", {"window": 0}, "window=0 does not fit"),
        ("knorm", {"recent": 1.5}, "recent=1.5 does not fit; choose an integer from 0"),
        ("knorm", {"text_prior": "both"}, "text_prior='both' is unknown; choose one of off, union, strict"),
        ("csp", {"cross": 1.2}, "cross=1.2 is not a share"),
        ("kvmerger", {"sigma": 0}, "sigma=0 does not fit; choose a number above 0"),
        ("csp", {"text_prior": "strict"}, "has no field 'text_prior'"),
    ],
)
def test_wrong_fields_are_refused_by_name(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_strategy(name, **changes)
