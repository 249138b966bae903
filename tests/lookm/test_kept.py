from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lookm import LookmError, load_strategy, look_once
from lookm.compression import compress_many
from lookm.kept import image_spans, kept_positions, token_grid
from lookm.layer import Layer
from lookm.observation import observe_prefill
from lookm.registry import ready_strategies
from tests.lookm.models import IMAGE, llama, llava


def prompt() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[1, 7, *[IMAGE] * 16, 8, *[IMAGE] * 16, 9, 10, 11]])
    return {"input_ids": ids, "pixel_values": torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


def test_kept_positions_are_what_each_strategy_alone_keeps_in_every_layer() -> None:
    model, inputs = llava(), prompt()
    strategies = [load_strategy(name) for name in ready_strategies()]
    strategies = [one for one in strategies if not (one.whole_prompt or one.shortens_prompt)]
    found = kept_positions(model, inputs, strategies)
    layers: list[Layer] = []
    observe_prefill(model, inputs, layers.append)
    for strategy, kept in zip(strategies, found, strict=True):
        assert kept.strategy is strategy
        memory: dict[Hashable, dict[int, Any]] = {}
        for layer, positions in zip(layers, kept.layers, strict=True):
            (row,) = compress_many([strategy], replace(layer, statistics=None, memory=memory))
            assert [head.tolist() for head in positions] == [head.tolist() for head in row.head_positions()]


def test_as_many_positions_as_look_once_keeps() -> None:
    model, inputs = llava(), prompt()
    (kept,) = kept_positions(model, inputs, [load_strategy("tp_pmerge")])
    with look_once(model, "tp_pmerge") as session:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tuple(len(heads[0]) for heads in kept.layers) == tuple(n for (n,) in session.report().kept_tokens)


def test_text_prior_keeps_all_text_in_every_head_and_the_full_cache_everything() -> None:
    tp, full = kept_positions(llava(), prompt(), [load_strategy("tp"), load_strategy("full")])
    assert (tp.share()[~tp.is_image] == 1).all()
    assert (tp.share()[tp.is_image] < 1).any()
    assert (full.share() == 1).all()


def test_mask_marks_the_kept_positions_of_each_head() -> None:
    (kept,) = kept_positions(llava(), prompt(), [load_strategy("h2o")])
    for layer, positions in enumerate(kept.layers):
        for head, own in enumerate(positions):
            assert kept.mask(layer)[head].nonzero().flatten().tolist() == own.tolist()
    heads = [head for layer in kept.layers for head in layer]
    assert kept.share().sum() == pytest.approx(sum(map(len, heads)) / len(heads))


def test_observing_leaves_the_model_as_it_was_even_after_an_error() -> None:
    model = llama()
    before = model.config._attn_implementation
    ids = {"input_ids": torch.arange(1, 9)[None]}

    def stop(layer: Layer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe_prefill(model, ids, stop)
    assert model.config._attn_implementation == before
    expected = model.generate(**ids, max_new_tokens=3, do_sample=False)
    observe_prefill(model, ids, lambda layer: None)
    assert torch.equal(model.generate(**ids, max_new_tokens=3, do_sample=False), expected)


def test_a_batch_and_a_model_inside_look_once_are_refused() -> None:
    model = llama()
    with pytest.raises(LookmError, match="2 prompts were given"):
        observe_prefill(model, {"input_ids": torch.ones(2, 4, dtype=torch.int64)}, lambda layer: None)
    with look_once(model, "h2o"), pytest.raises(LookmError, match="inside look_once"):
        observe_prefill(model, {"input_ids": torch.ones(1, 4, dtype=torch.int64)}, lambda layer: None)


@pytest.mark.parametrize(
    ("layout", "images", "spans"),
    [
        ("..####.####", 2, [(2, 6), (7, 11)]),
        ("########", 2, [(0, 4), (4, 8)]),
        (".##.####.", 3, [(1, 3), (4, 6), (6, 8)]),
        (".##.####.", 2, [(1, 3), (4, 8)]),
        ("....", 0, []),
    ],
)
def test_image_spans(layout: str, images: int, spans: list[tuple[int, int]]) -> None:
    is_image = torch.tensor([letter == "#" for letter in layout])
    assert [(span.start, span.stop) for span in image_spans(is_image, images)] == spans


def test_image_tokens_that_do_not_divide_are_refused() -> None:
    with pytest.raises(LookmError, match="5 image tokens in 1 runs cannot be told apart as 2 images"):
        image_spans(torch.ones(5, dtype=torch.bool), 2)


def test_token_grid_follows_the_pictures_shape() -> None:
    assert token_grid(576) == (24, 24)
    assert token_grid(24, aspect=1.5) == (4, 6)
    assert token_grid(24, aspect=1 / 6) == (12, 2)
    assert token_grid(7, aspect=2) == (1, 7)
