"""What `look_once` does on one tiny model, compared with transformers alone: plain tokens, eager attention weights."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from baselines.h2o import H2O
from lookm import LookmError, Report, generate_sweep, load_strategy, look_once
from tests.lookm.late import LateH2O

ALPHA = 0.2
NEW_TOKENS = 6


def outcome_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> str:
    """Try a model on one prompt.

    Returns:
        Which layers were compressed and which stay as they are, or the refusal.

    Raises:
        AssertionError: where tokens, kept sets or decode steps are other than transformers' own say.
    """
    arguments: dict[str, Any] = {**inputs, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(**arguments, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    try:
        with look_once(model, "full"):
            full = model.generate(**arguments, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    except LookmError as refusal:
        return f"refused: {refusal}"
    assert full.equal(plain), "full differs from plain generation"
    arguments |= {"max_new_tokens": 1, "return_dict_in_generate": True}
    with look_once(model, "h2o", alpha1=ALPHA, alpha2=ALPHA) as session:
        compressed = model.generate(**arguments).past_key_values
        report = session.report()
        kept = copy.deepcopy(compressed)
        following = _next_logits(model, compressed, inputs)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    reference = model.generate(**arguments, output_attentions=True)
    model.set_attn_implementation(before)
    check_kept(kept, reference.past_key_values, reference.attentions[0], report)
    if following is not None:
        check_decoding(model, kept, inputs, following)
    check_sweep(model, inputs, plain)
    if len(inputs) == 2:
        check_padding(model)
    return _described(report)


def reads_tails_at_any_time(model: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    """Whether tokens behind the prompt can be read by strategies that choose after the last layer.

    Raises:
        AssertionError: if they are read otherwise than under the same choice made layer by layer.
    """
    logits = []
    for kind in (H2O, LateH2O):
        try:
            with look_once(model, kind(name="h2o", alpha1=ALPHA, alpha2=ALPHA)) as session:
                session.question_tokens = 5
                output = model.generate(
                    **inputs, do_sample=False, pad_token_id=0, max_new_tokens=3, output_logits=True,
                    return_dict_in_generate=True,
                )  # fmt: skip
        except LookmError as refusal:
            if kind is H2O or "cannot be divided between a prompt and the tokens behind it" not in str(refusal):
                raise
            return False
        logits.append(torch.stack(output.logits))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-3)
    return True


def check_kept(ours: Cache, plain: Cache, attentions: tuple[Tensor, ...], report: Report) -> None:
    """Compare what each layer keeps with H2O on the model's own attention weights."""
    layers = [index for index, layer in enumerate(plain.layers) if getattr(layer, "keys", None) is not None]
    for index, weights in zip(layers, attentions, strict=True):
        keys, values = plain.layers[index].keys[0], plain.layers[index].values[0]
        if index not in report.untouched_layers:
            positions = heavy_hitters(weights[0], keys.shape[0])
            keys, values = (states[torch.arange(len(states))[:, None], positions] for states in (keys, values))
        assert ours.layers[index].keys[0].shape == keys.shape, f"layer {index} keeps another number of tokens"
        torch.testing.assert_close(ours.layers[index].keys[0], keys, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.layers[index].values[0], values, rtol=1e-3, atol=1e-3)


def heavy_hitters(weights: Tensor, kv_heads: int) -> Tensor:
    """H2O naively: the positions (Hkv, K) of the last tokens and of the largest column sums of (Hq, L, L)."""
    length = weights.shape[-1]
    n = int(ALPHA * length)
    sums = weights.double().sum(1).unflatten(0, (kv_heads, -1)).mean(1)
    best = sums[:, : length - n].topk(n, dim=1).indices.sort(dim=1).values
    return torch.cat([best, torch.arange(length - n, length).expand(kv_heads, -1)], dim=1)


def check_decoding(model: PreTrainedModel, kept: Cache, inputs: dict[str, Tensor], logits: Tensor) -> None:
    """Compare a decode step with the plain model's on a plain cache of the same keys and values."""
    plain = DynamicCache(config=model.config)
    for mine, layer in zip(plain.layers, kept.layers, strict=True):
        if getattr(layer, "keys", None) is None:
            return  # a state: nothing to take over
        if getattr(mine, "is_sliding", False):
            mine.cumulative_length = layer.get_seq_length() - layer.keys.shape[-2]
            mine.lazy_initialization(layer.keys, layer.values)
        mine.update(layer.keys, layer.values)
    torch.testing.assert_close(logits, _next_logits(model, plain, inputs), rtol=1e-3, atol=1e-4)


def check_sweep(model: PreTrainedModel, inputs: dict[str, Tensor], plain: Tensor) -> None:
    """Compare a sweep's rows with plain generation and with look_once, or see that it says what to use instead."""
    new = inputs["input_ids"].shape[1] if plain.shape[1] > NEW_TOKENS else 0
    limits = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    strategies = [load_strategy("full"), load_strategy("h2o", alpha1=ALPHA, alpha2=ALPHA)]
    try:
        full, h2o = generate_sweep(model, inputs, strategies, pad_token_id=0, **limits)
    except LookmError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.endswith("use look_once"), refusal
        return
    with look_once(model, strategies[1]):
        alone = model.generate(**inputs, do_sample=False, pad_token_id=0, **limits)
    assert list(full.tokens[0]) == plain[0, new:].tolist(), "a sweep's full row differs from plain generation"
    assert list(h2o.tokens[0]) == alone[0, new:].tolist(), "a sweep's h2o row differs from look_once's"


def check_padding(model: PreTrainedModel) -> None:
    """Compare a text prompt beside a longer one, padded on the left, with the prompt alone."""
    ids = torch.randint(3, 90, (2, 40))
    ids[0, :17] = 0
    mask = (ids != 0).long()
    arguments = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    with look_once(model, "h2o", alpha1=ALPHA, alpha2=ALPHA):
        batch = model.generate(input_ids=ids, attention_mask=mask, **arguments)
        alone = model.generate(input_ids=ids[:1, 17:], attention_mask=mask[:1, 17:], **arguments)
    assert batch[0, 40:].equal(alone[0, 23:]), "a padded row differs from the row alone"


def _next_logits(model: PreTrainedModel, cache: Cache, inputs: dict[str, Tensor]) -> Tensor | None:
    """Logits of one more token after a text prompt, at its place; None where places cannot be told to the model."""
    if len(inputs) > 2 or "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    position = torch.tensor([[inputs["input_ids"].shape[1]]])
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5]]), position_ids=position, past_key_values=cache).logits


def _described(report: Report) -> str:
    untouched = set(report.untouched_layers)
    compressed = [index for index in range(len(report.kept_tokens)) if index not in untouched]
    parts = []
    if compressed:
        parts.append("compressed " + ", ".join(map(str, compressed)))
    if untouched:
        parts.append("as they are " + ", ".join(map(str, sorted(untouched))))
    return "; ".join(parts)
