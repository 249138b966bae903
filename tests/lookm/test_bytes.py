"""Claims about bytes: a report counts what the allocator holds, and nothing else is held."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lookm import load_strategy, look_once
from lookm.compressed_layer import CompressedLayer
from lookm.record import LayerSizes, peak_bytes
from tests.lookm.models import built, left_padded, prompt

NAMES = ("full", "h2o", "tp_pmerge", "snapkv", "pyramidkv", "flashcache", "adakv", "fastgen")


def tensors_in(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that is reachable from an object, views with their bases."""
    if id(thing) in seen or isinstance(thing, type | torch.device | torch.dtype):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for item in (*thing.keys(), *thing.values()):
            yield from tensors_in(item, seen)
    elif isinstance(thing, list | tuple | set):
        for item in thing:
            yield from tensors_in(item, seen)
    elif hasattr(thing, "__dict__"):
        yield from tensors_in(vars(thing), seen)


def memory_of(thing: Any) -> int:
    """Bytes of all floating-point memory that an object keeps alive, each piece counted once and in full."""
    found = [tensor for tensor in tensors_in(thing, set()) if tensor.is_floating_point()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


def offsets(cache: Any) -> int:
    return sum(8 * t.numel() for layer in cache.layers for t in layer.stored.tensors() if t.dtype == torch.int64)


@pytest.mark.parametrize("model_name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("name", NAMES)
def test_reported_bytes_are_all_the_memory_that_a_cache_keeps_alive(name: str, model_name: str) -> None:
    model, inputs = built(model_name), prompt(model_name)
    with torch.no_grad(), look_once(model, name) as session:
        cache = model(**inputs).past_key_values
    report = session.report()
    assert memory_of(cache) + offsets(cache) == sum(layer.stored.allocated_bytes() for layer in cache.layers)
    assert memory_of(cache) + offsets(cache) == sum(map(sum, report.kept_bytes))
    assert report.byte_budget == sum(map(sum, report.kept_bytes)) / sum(map(sum, report.full_bytes))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_reports_what_each_row_takes_alone(name: str) -> None:
    model, rows = built("llava"), [prompt("llava"), prompt("llava", (5, 20, 3, 8), seed=1)]
    with torch.no_grad(), look_once(model, name) as session:
        model(**left_padded(rows))
        together = session.report()
        for index, row in enumerate(rows):
            model(**row)
            alone = session.report()
            assert [layer[0] for layer in alone.kept_bytes] == [layer[index] for layer in together.kept_bytes]
            assert alone.peak_bytes == together.peak_bytes[index : index + 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_peak_is_the_most_memory_that_the_layers_hold_while_the_prompt_is_encoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, held = built("llava"), prompt("llava"), [0]
    original = CompressedLayer.compress

    def watched(layer: CompressedLayer, *args: Any) -> LayerSizes:
        (cache,) = caches
        full = layer.keys, layer.values
        sizes = original(layer, *args)
        held.append(memory_of([[(other._full, other.stored) for other in cache.layers], full]) + offsets_so_far(cache))
        return sizes

    def offsets_so_far(cache: Any) -> int:
        stored = [layer.stored for layer in cache.layers if layer.stored is not None]
        return sum(8 * t.numel() for one in stored for t in one.tensors() if t.dtype == torch.int64)

    monkeypatch.setattr(CompressedLayer, "compress", watched)
    caches: list[Any] = []
    with torch.no_grad(), look_once(model, name) as session:
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs: caches.append(kwargs["past_key_values"]), with_kwargs=True
        )
        model(**inputs)
        hook.remove()
    assert session.report().peak_bytes == (max(held),)
    total = sum(map(sum, session.report().full_bytes))
    if load_strategy(name).fixed_size:
        assert (max(held) >= total) == (load_strategy(name).whole_prompt or name == "full")


def test_a_peak_counts_the_layer_that_is_cut_twice_and_earlier_ones_as_they_are_kept() -> None:
    layers = [LayerSizes((1,), (10,), (100,)), LayerSizes((1,), (40,), (100,)), LayerSizes((1,), (100,), (100,))]
    assert peak_bytes(layers, whole_prompt=False) == (150,)
    assert peak_bytes(layers, whole_prompt=True) == (310,)
