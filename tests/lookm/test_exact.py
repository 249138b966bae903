"""Claims about attention that is not plainly causal: every method reads the model's own weights."""

import warnings

import pytest
import torch
from torch import Tensor

from lookm import LookmError, generate_sweep, load_strategy, look_once
from lookm.exact import RealSoftmax
from lookm.layer import Layer
from lookm.registry import ready_strategies
from lookm.statistics import Needs
from tests.lookm.families.text import text_model
from tests.lookm.families.vision import vision_model
from tests.lookm.layers import random_layer
from tests.lookm.rounding import assert_close, sum_error

BIDIRECTIONAL = {"roco"}
"""Defined for causal attention only."""
ELSEWHERE = {"prumerge"}
"""Reads a CLIP tower, which Gemma does not have."""


def weights_of(layer: Layer, mask: Tensor, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """A (Hq, L, L) in float64, from the formula."""
    groups = layer.queries.shape[0] // layer.kv_heads
    keys = layer.keys.double().repeat_interleave(groups, 0)
    logits = layer.queries.double() @ keys.transpose(1, 2) * float(layer.scaling or 0)
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    exps = logits.exp() * mask
    return exps / (exps.sum(-1, keepdim=True) + (0 if sinks is None else sinks.double().exp()[:, None, None]))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(("softcap", "sinks"), [(None, False), (3.0, False), (None, True), (2.0, True)])
def test_weights_and_sums_follow_mask_cap_and_sinks(
    softcap: float | None, sinks: bool, added: bool, heads: int
) -> None:
    layer = random_layer(30, kv_heads=2, groups=2, runs=[5, 10, 4])
    mask = torch.ones(heads, 30, 30).tril().bool() | (layer.is_image[:, None] & layer.is_image)
    mask[-1, 20, 3:9] = False
    given = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min) if added else mask
    ways = ((layer.queries, layer.keys), (layer.queries.flip(1), layer.keys.flip(1)))  # earlier keys, and later ones
    error = 2 * max(sum_error(*way) for way in ways)  # cap and sink: less than as many roundings again
    layer.real = RealSoftmax(given, softcap, torch.randn(4) if sinks else None)
    expected = weights_of(layer, mask, softcap, layer.real.sinks)
    for first in (0, 25):
        for start, logits in layer.logits(first):
            rows = slice(start, start + logits.shape[1])
            assert_close(layer.softmax(logits), expected[:, rows], relative=error)
            assert (logits == -torch.inf).equal(~mask[:, rows].expand(4, -1, -1))
    made = layer.statistics_of(Needs(sums=True, windows=frozenset({3})))
    assert made.sums is not None
    assert_close(made.sums, expected.sum(1), relative=error)
    assert_close(made.windows[3], expected[:, -3:].sum(1), relative=error)
    head = layer.head(1).statistics_of(Needs(sums=True)).sums
    assert head is not None
    assert_close(head, expected[2:].sum(1), relative=error)


@pytest.mark.parametrize("name", ready_strategies())
def test_every_method_runs_on_gemma_3_with_its_windows_images_and_padding(name: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(3, 90, (2, 40))
    mask = torch.ones_like(ids)
    mask[0, :13] = 0
    text = {"input_ids": ids, "attention_mask": mask}
    fields = {"layer": 1} if name == "fastv" else {"window": 6, "recent": 5} if name == "corm" else {}
    strategy = load_strategy(name, alpha1=0.1, alpha2=0.2, **fields)
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "pad_token_id": 0}
    for model, inputs in (vision_model("gemma3"), (text_model("gemma3_text"), text)):
        if name in (ELSEWHERE if inputs is text else ELSEWHERE | BIDIRECTIONAL):
            with pytest.raises(LookmError), look_once(model, strategy):
                model.generate(**inputs, **settings, do_sample=False)
            continue
        with warnings.catch_warnings(), look_once(model, strategy) as session:
            warnings.simplefilter("ignore")
            alone = model.generate(**inputs, **settings, do_sample=False)[:, -4:]
        (row,) = generate_sweep(model, inputs, [strategy], **settings)
        assert [list(tokens) for tokens in row.tokens] == alone.tolist()
        assert row.report.kept_bytes == session.report().kept_bytes
        assert row.report.untouched_layers == (0,)
