"""Methods that drop image tokens inside the model, against passes through its layers that are written out."""

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from baselines.fastv import FastV
from baselines.prumerge import PruMerge
from lookm import LookmError, compress, load_strategy, look_once
from lookm.kept import kept_positions
from lookm.prompt import Prompt
from lookm.shortening import Shortened, ShorteningStrategy
from lookm.sweep import generate_sweep
from tests.lookm.models import IMAGE, built, left_padded, prompt

NAMES = {"fastv", "prumerge"}
NEW = 5


def answer(model: PreTrainedModel, inputs: dict[str, Tensor], strategy: Any, **more: Any) -> tuple[Tensor, Tensor, Any]:
    """New tokens (B, n), their logits (B, n, vocabulary), and the report."""
    with look_once(model, strategy) as session:
        out = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True, **more,
        )  # fmt: skip
    return out.sequences[:, -NEW:], torch.stack(out.logits, 1), session.report()


def told(model: PreTrainedModel, inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Any]:
    """What the decoder is told of a prompt and its answer: `inputs_embeds` (1, L + n − 1, width), `position_ids`."""
    ids = torch.cat([inputs["input_ids"], tokens[:, :-1]], 1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        whole["mm_token_type_ids"] = (ids == IMAGE).int()
    seen: dict[str, Any] = {}
    handle = model.get_decoder().register_forward_pre_hook(  # type: ignore[operator]
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model(**whole, use_cache=False)
    handle.remove()
    if seen.get("position_ids") is None:
        seen["position_ids"] = torch.arange(ids.shape[1])[None]
    return seen


@torch.no_grad()
def written_out(model: PreTrainedModel, embeddings: Tensor, positions: Tensor, stays: Tensor, layer: int) -> Tensor:
    """Logits (n, vocabulary) of the last tokens when only `stays`, (T,) bool, go on before a layer."""
    decoder = model.get_decoder()  # type: ignore[operator]
    rotated = decoder.rotary_emb(embeddings, positions[-3:] if positions.ndim == 3 else positions)
    hidden = embeddings
    for index, block in enumerate(decoder.layers):
        if index == layer:
            hidden, rotated = hidden[:, stays], tuple(part[..., stays, :] for part in rotated)
        hidden = block(hidden, attention_mask=None, position_embeddings=rotated, use_cache=False)
    return model.lm_head(decoder.norm(hidden[:, -NEW:]))[0]  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("queries", ["last", "all"])
@pytest.mark.parametrize(("layer", "dropped"), [(1, 0.5), (2, 0.5), (2, 0.8), (1, 0.0), (1, 1.0)])
def test_fastv_goes_on_with_the_image_tokens_that_are_looked_at(
    name: str, queries: str, layer: int, dropped: float
) -> None:
    model, inputs = built(name), prompt(name)
    strategy = load_strategy("fastv", layer=layer, dropped=dropped, queries=queries)
    tokens, logits, report = answer(model, inputs, strategy)
    eager = deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        weights = eager(**inputs, output_attentions=True).attentions[layer - 1][0].mean(0)  # [L, L]
    received = weights[-1] if queries == "last" else weights.sum(0)
    is_image = inputs["input_ids"][0] == IMAGE
    images = is_image.nonzero()[:, 0].tolist()
    best = sorted(images, key=lambda j: -float(received[j]))[: round((1 - dropped) * len(images))]
    stays = ~is_image
    stays[best] = True
    said = told(model, inputs, tokens)
    later = torch.ones(NEW - 1, dtype=torch.bool)
    expected = written_out(model, said["inputs_embeds"], said["position_ids"], torch.cat([stays, later]), layer)
    torch.testing.assert_close(logits[0], expected, atol=2e-3, rtol=1e-3)
    length, short = len(stays), int(stays.sum())
    assert [kept for (kept,) in report.kept_tokens] == [length] * layer + [short] * (3 - layer)
    assert report.byte_budget == pytest.approx((length * layer + short * (3 - layer)) / (3 * length))


def merged_by_formula(
    strategy: PruMerge, features: Tensor, query: Tensor, keys: Tensor
) -> tuple[dict[int, list[float]], list[int]]:
    """The kept patches' features and their numbers, one patch at a time in float64."""
    n, width = features.shape
    y, q, k = features.double().tolist(), query.double().tolist(), keys.double().tolist()
    products = [math.exp(sum(a * b for a, b in zip(q, row, strict=True)) / math.sqrt(width)) for row in k]
    a = [product / sum(products) for product in products][1:]
    ordered = sorted(a)

    def quartile(share: float) -> float:
        place = share * (n - 1)
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, n - 1)] - ordered[low])

    bound = quartile(0.75) + 1.5 * (quartile(0.75) - quartile(0.25))
    kept = {j for j in range(n) if a[j] > bound} | {max(range(n), key=lambda j: a[j])}
    if strategy.grid:
        kept |= set(range(0, n, max(1, int(int(n / len(kept)) / 3))))
    norms = [math.sqrt(sum(x * x for x in row)) for row in k[1:]]

    def cosine(i: int, j: int) -> float:
        return sum(p * r for p, r in zip(k[i + 1], k[j + 1], strict=True)) / (norms[i] * norms[j])

    made = {}
    for i in kept:
        near = sorted((j for j in range(n) if j != i), key=lambda j: -cosine(i, j))[: strategy.neighbours]
        made[i] = [y[i][c] + sum(a[j] * y[j][c] for j in near) for c in range(width)]
    others = [j for j in range(n) if j not in kept]
    if strategy.rest and others:
        made[others[-1]] = [sum(a[j] * y[j][c] for j in others) for c in range(width)]
    return made, sorted(made)


FIELDS: list[dict[str, Any]] = [
    {},
    {"grid": True},
    {"neighbours": 3},
    {"rest": True},
    {"rest": True, "grid": True, "neighbours": 5},
]


@pytest.mark.parametrize("changes", FIELDS, ids=str)
@pytest.mark.parametrize("patches", [1, 9, 36, 100])
def test_prumerge_merges_what_its_formula_says(changes: dict[str, Any], patches: int) -> None:
    strategy = load_strategy("prumerge", **changes)
    assert isinstance(strategy, PruMerge)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        features, query = torch.randn(patches, 8, generator=generator), torch.randn(8, generator=generator)
        keys = torch.randn(patches + 1, 8, generator=generator) * 2
        states, stays = strategy.merge(features, query, keys)
        expected, kept = merged_by_formula(strategy, features, query, keys)
        assert stays.nonzero()[:, 0].tolist() == kept
        torch.testing.assert_close(states[stays], torch.tensor([expected[i] for i in kept]), atol=1e-5, rtol=1e-4)
        assert states[~stays].equal(features[~stays])


@pytest.mark.parametrize("changes", FIELDS, ids=str)
def test_prumerge_shows_the_decoder_the_merged_patches_alone(changes: dict[str, Any]) -> None:
    model, inputs = built("llava"), prompt("llava")
    strategy = load_strategy("prumerge", **changes)
    assert isinstance(strategy, PruMerge)
    tokens, logits, report = answer(model, inputs, strategy)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector  # type: ignore[union-attr]
    with torch.no_grad():
        states = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]  # [images, 17, 32]
        reader = next(module for module in reversed(list(tower.modules())) if hasattr(module, "layer_norm1"))
        normed = reader.layer_norm1(states)
        queries, keys = reader.self_attn.q_proj(normed), reader.self_attn.k_proj(normed)
        pairs = [strategy.merge(x, q, k) for x, q, k in zip(states[:, 1:], queries[:, 0], keys, strict=True)]
        features = projector(torch.stack([pair[0] for pair in pairs])).flatten(0, 1)
    said = told(model, inputs, tokens)
    is_image = torch.cat([inputs["input_ids"][0] == IMAGE, torch.zeros(NEW - 1, dtype=torch.bool)])
    embeddings, stays = said["inputs_embeds"].clone(), ~is_image
    embeddings[0, is_image], stays[is_image] = features, torch.cat([pair[1] for pair in pairs])
    expected = written_out(model, embeddings, said["position_ids"], stays, 0)
    torch.testing.assert_close(logits[0], expected, atol=2e-3, rtol=1e-3)
    assert report.kept_tokens == ((int(stays.sum()) - NEW + 1,),) * 3


@pytest.mark.parametrize("strategy", [FastV(name="fastv", layer=1), PruMerge(name="prumerge")], ids=lambda s: s.name)
def test_a_padded_batch_and_beams_go_on_as_single_prompts_do(strategy: ShorteningStrategy) -> None:
    model = built("llava")
    rows = [prompt("llava"), prompt("llava", (5, 7), seed=2), prompt("llava", (8,), seed=3)]
    alone = [answer(model, row, strategy) for row in rows]
    tokens, logits, report = answer(model, left_padded(rows), strategy)
    for row, (single, expected, its_report) in enumerate(alone):
        assert tokens[row].equal(single[0])
        torch.testing.assert_close(logits[row], expected[0], atol=2e-3, rtol=1e-3)
        assert [layer[row] for layer in report.kept_tokens] == [kept for (kept,) in its_report.kept_tokens]
    batch = left_padded(rows[:2])
    with look_once(model, strategy):
        beams = model.generate(**batch, max_new_tokens=NEW, num_beams=3, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        single_beams = [
            model.generate(**row, max_new_tokens=NEW, num_beams=3, do_sample=False, pad_token_id=0)  # type: ignore[operator]
            for row in rows[:2]
        ]
    for row, single in enumerate(single_beams):
        assert beams[row, -NEW:].equal(single[0, -NEW:])


def test_in_a_sweep_each_answers_as_alone_and_the_others_do_not_notice() -> None:
    model, batch = built("llava"), left_padded([prompt("llava"), prompt("llava", (5, 7), seed=2)])
    strategies = [load_strategy(name) for name in ("full", "fastv", "tp_pmerge", "prumerge")]
    rows = generate_sweep(model, batch, strategies, max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0)
    for strategy, row in zip(strategies, rows, strict=True):
        tokens, _, report = answer(model, batch, strategy)
        assert row.strategy is strategy
        assert row.tokens == tuple(map(tuple, tokens.tolist()))
        assert row.report.kept_tokens == report.kept_tokens
        assert row.finite == (True, True)


def test_a_row_alone_ends_at_its_end_token_and_before_logits_that_are_not_finite() -> None:
    model, inputs = built("llava"), prompt("llava")
    strategy = load_strategy("fastv", layer=1)
    ((tokens, *_),) = answer(model, inputs, strategy)[:1]
    end = int(tokens[2])
    (row,) = generate_sweep(model, inputs, [strategy], max_new_tokens=NEW, pad_token_id=0, eos_token_ids=[end])
    assert row.tokens == (tuple(tokens[:3].tolist()),)
    broken = deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[7] = torch.nan
    (row,) = generate_sweep(broken, inputs, [strategy], max_new_tokens=NEW, pad_token_id=0)
    assert row.finite == (False,)
    assert row.tokens == ((),)


def test_the_model_is_as_before_after_the_block() -> None:
    model, inputs = built("llava"), prompt("llava")
    before = model(**inputs).logits
    for strategy in (load_strategy("fastv", layer=1), load_strategy("prumerge")):
        answer(model, inputs, strategy)
        assert model(**inputs).logits.equal(before)


def test_a_nested_block_shortens_by_its_own_strategy() -> None:
    model, inputs = built("llava"), prompt("llava")
    outer, inner = load_strategy("fastv", layer=1), load_strategy("fastv", layer=2, dropped=0.8)
    expected = [answer(model, inputs, strategy)[0] for strategy in (outer, inner)]
    with look_once(model, outer):
        assert answer(model, inputs, inner)[0].equal(expected[1])
        again = model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)  # type: ignore[operator]
    assert again[:, -NEW:].equal(expected[0])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_question_that_comes_later_goes_on_whole(name: str) -> None:
    """Read in the pass of its context, which is shortened without it, or in a pass of its own: the same answer."""
    model, strategy = built("llava"), load_strategy(name)
    rows = [prompt("llava", (12, 9, 7 + n)) for n in (0, 4)]
    batch = left_padded(rows)
    with look_once(model, strategy) as session:
        session.question_tokens = 5
        together = model.generate(**batch, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        kept = session.report().kept_tokens
        session.question_tokens = 0
        for row, inputs in enumerate(rows):
            context = {key: value[:, :-5] if value.ndim == 2 else value for key, value in inputs.items()}
            cache = model(**context, use_cache=True).past_key_values
            assert [layer[row] for layer in kept] == [layer[0] for layer in session.report().kept_tokens]
            rest = {key: inputs[key] for key in ("input_ids", "attention_mask")}
            apart = model.generate(  # type: ignore[operator]
                **rest, past_key_values=cache, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0
            )
            assert apart[0, -NEW:].equal(together[row, -NEW:])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_picture_of_a_later_question_goes_on_whole(name: str) -> None:
    model, strategy = built("llava"), load_strategy(name)
    rows = [prompt("llava", (12 + n, 9, 7), seed=n) for n in (0, 4)]
    batch = left_padded(rows)
    image = int((rows[0]["input_ids"] == model.config.image_token_id).sum()) // 2
    with look_once(model, strategy) as session:
        session.question_tokens = image + 7
        model(**batch, use_cache=True)
        kept = session.report().kept_tokens
        session.question_tokens = 0
        for row, inputs in enumerate(rows):
            context = {key: value[:, : -image - 7] if value.ndim == 2 else value[:1] for key, value in inputs.items()}
            model(**context, use_cache=True)
            assert [layer[row] for layer in kept] == [layer[0] for layer in session.report().kept_tokens]


def test_what_cannot_be_shortened_is_refused_in_one_line() -> None:
    with pytest.raises(LookmError, match=r"llava|CLIP"), look_once(built("qwen2_5_vl"), "prumerge"):
        pass
    with (
        pytest.raises(LookmError, match="has 3 layers, choose one from 1 to 2"),
        look_once(built("llama"), load_strategy("fastv", layer=3)),
    ):
        pass
    with pytest.raises(LookmError, match="positive integer"):
        load_strategy("fastv", layer=0)
    states = torch.randn(1, 2, 9, 4)
    with pytest.raises(LookmError, match="use look_once"):
        compress(states, states, states, torch.ones(9, dtype=torch.bool), strategy="fastv")
    model, inputs = built("llava"), prompt("llava")
    with pytest.raises(LookmError, match="use look_once"):
        kept_positions(model, inputs, [load_strategy("fastv")])


def test_take_follows_each_row() -> None:
    batch = Prompt((0, 2), torch.zeros(2, 5, dtype=torch.bool))
    shortened = Shortened.of(batch, [torch.tensor([0, 3, 4]), torch.tensor([1, 2])])
    states = torch.arange(10.0).view(2, 5, 1)
    assert shortened.prompt.starts == (0, 1)
    assert shortened.take(states, -2)[0, :, 0].tolist() == [0, 3, 4]
    assert shortened.take(states, -2)[1, 1:, 0].tolist() == [8, 9]
    assert shortened.take(torch.arange(5)[None], -1)[:, 1:].tolist() == [[3, 4], [3, 4]]
