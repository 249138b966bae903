"""Growing contexts: memory stays what it was, and compressing again is compressing what is held."""

from typing import Any

import pytest
import torch

from lookm import LookmError, compress, load_strategy, look_once
from lookm.again import later_statistics
from lookm.statistics import Needs, attention_statistics
from tests.lookm.layers import random_layer
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.rounding import assert_close, sum_error

STRATEGIES = ["h2o", "tova", "snapkv", "window", "vnorm", "keydiff", "knorm", "p_merge", "a_merge", "w_merge"]


def held_bytes(cache: Any) -> int:
    """What the allocator has given for all layers."""
    return sum(layer.stored.allocated_bytes() for layer in cache.layers)


@torch.no_grad()
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hundred_turns_need_no_more_memory_than_a_few(strategy: str) -> None:
    model = built("grouped")
    rows = left_padded([prompt("grouped", (40,)), prompt("grouped", (25,), seed=1)])
    sizes, tokens = [], []
    with look_once(model, strategy, budget=12, every=10):
        cache = model(**rows).past_key_values
        for turn in range(100):
            question = torch.randint(2, 90, (2, 4), generator=torch.Generator().manual_seed(turn))
            logits = model(question, past_key_values=cache).logits
            sizes.append(held_bytes(cache))
            tokens.append(cache.layers[0].keys.shape[-2])
        assert bool(logits.isfinite().all())
    assert cache.get_seq_length() == 440
    assert max(tokens) <= 12 + 10 + 4
    assert max(sizes[50:]) == max(sizes[:50])
    assert set(tokens[2::3]) == {12}  # after every third turn of four tokens


@torch.no_grad()
def test_without_it_memory_grows() -> None:
    model = built("grouped")
    with look_once(model, "h2o", budget=12):
        cache = model(**prompt("grouped", (40,))).past_key_values
        before = held_bytes(cache)
        for _ in range(100):
            model(torch.tensor([[5, 6, 7, 8]]), past_key_values=cache)
    assert held_bytes(cache) > 10 * before


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["keydiff", "knorm"])
def test_compressing_again_is_compressing_what_is_held(strategy: str) -> None:
    """Of strategies that read keys alone: `compress` of the last layer's states is what stays."""
    model = built("llama")
    question = torch.arange(2, 12)[None]
    with look_once(model, strategy, budget=8):
        cache = model(**prompt("llama")).past_key_values
        model(question, past_key_values=cache)
    with look_once(model, strategy, budget=8, every=10):
        again = model(**prompt("llama")).past_key_values
        model(question, past_key_values=again)
    keys, values = cache.layers[0].keys, cache.layers[0].values  # 8 kept and 10 new
    expected = compress(keys, keys, values, torch.zeros(18, dtype=torch.bool), strategy=strategy, budget=8)
    assert again.layers[0].keys.equal(expected[0])
    assert again.layers[0].values.equal(expected[1])


@torch.no_grad()
def test_padding_is_not_held_again_and_rows_are_as_alone() -> None:
    model = built("grouped")
    rows = [prompt("grouped", (40,)), prompt("grouped", (25,), seed=1)]
    questions = torch.tensor([[0, 0, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
    batch = left_padded(rows)
    mask = torch.cat([batch["attention_mask"], (questions > 0).long()], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with look_once(model, "keydiff", budget=6, every=6):
        cache = model(**batch, position_ids=positions[:, :40]).past_key_values
        model(questions, attention_mask=mask, position_ids=positions[:, 40:], past_key_values=cache)
        alone = model(**rows[0]).past_key_values
        for token in questions[0, 2:]:
            model(token[None, None], past_key_values=alone)
    assert cache.layers[0].keys.shape[-2] == 6
    assert alone.layers[0].keys.shape[-2] == 6 + 4  # four tokens of its own are no six


def test_sums_over_the_last_queries_are_those_of_all_but_the_first() -> None:
    layer = random_layer(50, groups=2)
    n = 20
    windows = attention_statistics(layer.queries, layer.keys, Needs(windows=frozenset({n, 7})))
    ours = later_statistics(layer.queries[:, -n:], layer.keys, Needs(sums=True, windows=frozenset({7})), layer.scaling)
    error = 2 * sum_error(layer.queries, layer.keys)
    assert_close(ours.sums, windows.windows[n], relative=error)
    assert_close(ours.windows[7], windows.windows[7], relative=error)


def test_shares_are_those_of_the_first_prompt_or_of_every() -> None:
    from lookm.again import Again

    strategy = load_strategy("h2o", alpha1=0.1, alpha2=0.1)
    assert Again.of(strategy, 10).target(100) == 20
    assert Again.of(strategy, 200).target(100) == 40
    assert Again.of(load_strategy("h2o", budget=16), 10).target(100) == 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"strategy": "tp_pmerge"}, "use h2o, tova, snapkv"),
        ({"strategy": "vl_cache"}, "use h2o, tova, snapkv"),
        ({"strategy": "h2o", "semantics": "release"}, "semantics=paper"),
        ({"strategy": "h2o", "storage": "kivi2"}, "storage=plain"),
        ({"strategy": "h2o", "every": 0}, "every=0 is no number of tokens"),
    ],
)
def test_what_cannot_be_compressed_again_is_refused(call: dict[str, Any], message: str) -> None:
    with pytest.raises(LookmError, match=message), look_once(built("llama"), **{"every": 5, **call}):
        pass
