"""Growing contexts: memory stays what it was, and compressing again is compressing what is held."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from lookm import LookmError, compress, load_strategy, look_once
from lookm.again import Again, later_statistics
from lookm.statistics import Needs, attention_statistics
from tests.lookm import oracle
from tests.lookm.layers import random_layer
from tests.lookm.models import IMAGE, built, left_padded, prompt
from tests.lookm.rounding import assert_close, sum_error

STRATEGIES = [
    "h2o",
    "tova",
    "snapkv",
    "window",
    "vnorm",
    "keydiff",
    "knorm",
    "p_merge",
    "a_merge",
    "w_merge",
    "tp_pmerge",
]


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


@pytest.mark.parametrize("name", ["tp", "tp_amerge", "tp_wmerge", "tp_pmerge"])
def test_under_a_text_prior_each_head_keeps_its_own_text_first(name: str) -> None:
    """Equal to sums of the last queries, text before images, and merging, all written plainly head by head."""
    layer, n = random_layer(40, groups=2), 15
    is_image = torch.rand(layer.kv_heads, 40, generator=torch.Generator().manual_seed(1)) < 0.7
    row = Again.of(load_strategy(name, budget=12), n).row(
        layer.keys, layer.values, layer.queries[:, -n:], None, 12, is_image
    )
    weights = oracle.attention(layer.queries, layer.keys)[:, -n:].sum(1)  # [Hq, K]
    for head in range(layer.kv_heads):
        scores = weights[2 * head : 2 * head + 2].mean(0)
        order = sorted(range(34), key=lambda j: (bool(is_image[head, j]), -float(scores[j]), j))
        kept = sorted([*order[:6], *range(34, 40)])
        assert row.positions[head].tolist() == kept
        own = layer.keys[head : head + 1], layer.values[head : head + 1]
        keys, values = oracle.merged(*own, [kept], oracle.ROWS[name][2], "paper")
        assert_close(row.keys[head], keys[0], absolute=1e-5)
        assert_close(row.values[head], values[0], absolute=1e-5)


@torch.no_grad()
def test_all_text_of_a_growing_chat_stays_while_images_make_room() -> None:
    """Of the first layer, whose keys depend on no other token: those of all text tokens are held as they were."""
    model, inputs, question = built("llava"), prompt("llava"), torch.arange(2, 10)[None]
    text = (inputs["input_ids"][0] != IMAGE).sum()
    budget = int(text) + 8 + 4
    full = model(**inputs).past_key_values
    model(question, past_key_values=full)
    with look_once(model, "tp", budget=budget, every=8):
        cache = model(**inputs).past_key_values
        before = [is_image.sum(1).tolist() for is_image in cache.layers[0].is_image]
        model(question, past_key_values=cache)
    heads = model.config.text_config.num_attention_heads
    assert before == [[12] * heads]
    assert [is_image.sum(1).tolist() for is_image in cache.layers[0].is_image] == [[4] * heads]
    is_text = torch.cat([inputs["input_ids"][0] != IMAGE, torch.ones(8, dtype=torch.bool)])
    for held, keys, is_image in zip(
        cache.layers[0].keys[0], full.layers[0].keys[0], cache.layers[0].is_image[0], strict=True
    ):
        assert_close(held[~is_image], keys[is_text], absolute=1e-5)


@torch.no_grad()
def test_images_are_known_in_every_row_and_after_beams_cropping_and_saving(tmp_path: Path) -> None:
    model, rows = built("llava"), [prompt("llava"), prompt("llava", (5, 4, 16, 3, 16), seed=1)]
    question = torch.arange(2, 10)[None].expand(2, -1)
    batch = left_padded(rows)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 8, dtype=torch.int64)], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    seen = batch["input_ids"].shape[1]
    with look_once(model, "tp_pmerge", budget=24, every=8) as session:
        cache = model(**batch, position_ids=positions[:, :seen]).past_key_values
        one = deepcopy(cache)
        go_on = {"attention_mask": mask, "position_ids": positions[:, seen:]}
        expected = model(question, past_key_values=cache, **go_on).logits

        model(question[:, :3], past_key_values=one, attention_mask=mask[:, :-5], position_ids=positions[:, seen:-5])
        one.crop(-3)
        one.reorder_cache(torch.tensor([1, 0]))
        one.reorder_cache(torch.tensor([1, 0]))
        session.save_cache(tmp_path / "cache", one)
        loaded = session.load_cache(tmp_path / "cache")
        assert_close(model(question, past_key_values=loaded, **go_on).logits, expected, absolute=1e-4)
        for layer, other in zip(loaded.layers, cache.layers, strict=True):
            assert all(own.equal(known) for own, known in zip(layer.is_image, other.is_image, strict=True))

        for number, row in enumerate(rows):
            alone = model(**row).past_key_values
            model(question[:1], past_key_values=alone)
            assert alone.layers[-1].is_image[0].equal(cache.layers[-1].is_image[number])
            assert_close(alone.layers[-1].keys[0], cache.layers[-1].keys[number], absolute=1e-3)


@torch.no_grad()
def test_what_is_not_known_of_images_is_refused(tmp_path: Path) -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, "tp", budget=24) as session:
        cache = model(**inputs).past_key_values
        session.save_cache(tmp_path / "cache", cache)
    with look_once(model, "tp", budget=24, every=4) as session:
        loaded = session.load_cache(tmp_path / "cache")
        with pytest.raises(LookmError, match="the cache was made without every=4"):
            model(torch.arange(2, 7)[None], past_key_values=loaded)
        cache = model(**inputs).past_key_values
        embeddings = model.get_input_embeddings()(torch.arange(2, 7)[None])
        with pytest.raises(LookmError, match="tp with every=4 needs the new tokens' input_ids"):
            model(inputs_embeds=embeddings, past_key_values=cache)


def test_shares_are_those_of_the_first_prompt_or_of_every() -> None:
    strategy = load_strategy("h2o", alpha1=0.1, alpha2=0.1)
    assert Again.of(strategy, 10).target(100) == 20
    assert Again.of(strategy, 200).target(100) == 40
    assert Again.of(load_strategy("h2o", budget=16), 10).target(100) == 16
    assert Again.of(load_strategy("tp_pmerge", alpha1=0.1, alpha2=0.1), 10).target(100) == 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"strategy": "vl_cache"}, "use h2o, tova, snapkv"),
        ({"strategy": "h2o", "semantics": "release"}, "semantics=paper"),
        ({"strategy": "h2o", "storage": "kivi2"}, "storage=plain"),
        ({"strategy": "h2o", "every": 0}, "every=0 is no number of tokens"),
    ],
)
def test_what_cannot_be_compressed_again_is_refused(call: dict[str, Any], message: str) -> None:
    with pytest.raises(LookmError, match=message), look_once(built("llama"), **{"every": 5, **call}):
        pass
