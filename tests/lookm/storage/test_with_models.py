"""Claims about `look_once(…, storage=…)` on tiny random models."""

import copy
import gc
import warnings

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm import compress, generate_sweep, load_strategy, look_once
from lookm.compressed_layer import CompressedLayer
from lookm.decoding import DecodingStrategy
from lookm.registry import load_storage, ready_strategies, storage_names
from lookm.storage.base import PLAIN
from tests.lookm.layers import random_layer
from tests.lookm.models import built, left_padded, prompt

SMALL = [name for name in storage_names() if name != "plain"]
STORABLE = [name for name in ready_strategies() if not isinstance(load_strategy(name), DecodingStrategy)]


def greedy(model: PreTrainedModel, inputs: dict[str, Tensor], tokens: int = 6, **options: int) -> Tensor:
    """New tokens (B, tokens)."""
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)  # type: ignore[operator]
    return output[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("storage", SMALL)
@pytest.mark.parametrize("strategy", STORABLE)
def test_every_strategy_keeps_the_same_tokens_in_fewer_bytes(strategy: str, storage: str) -> None:
    model, inputs = built("llava"), prompt("llava", (30, 40, 25))
    kept = []
    for form in ("plain", storage):
        with look_once(model, strategy, storage=form) as session, warnings.catch_warnings():
            warnings.filterwarnings("error", message="storage=")
            greedy(model, inputs, 3)
            kept.append(session.report())
    assert kept[1].kept_tokens == kept[0].kept_tokens
    assert kept[1].byte_budget < kept[0].byte_budget


@pytest.mark.parametrize("name", ["grouped", "llava"])
@pytest.mark.parametrize("storage", storage_names())
def test_rows_of_a_left_padded_batch_equal_the_rows_alone(name: str, storage: str) -> None:
    model = built(name)
    rows = [prompt(name, (20, 30)), prompt(name, (5, 20, 3, 8), seed=1), prompt(name, (60,), seed=2)]
    with look_once(model, "h2o", alpha1=0.2, alpha2=0.2, storage=storage) as session:
        batch = greedy(model, left_padded(rows))
        kept = session.report().kept_bytes
        for index, row in enumerate(rows):
            assert greedy(model, row).equal(batch[index : index + 1])
            assert [layer[0] for layer in session.report().kept_bytes] == [layer[index] for layer in kept]


@pytest.mark.parametrize("storage", SMALL)
def test_what_is_read_while_decoding_is_what_the_tensors_give(storage: str) -> None:
    layer = random_layer(90, groups=2)
    states = [x[None] for x in (layer.queries, layer.keys, layer.values)]
    keys, values = compress(*states, layer.is_image, strategy="h2o", storage=storage)
    plain, _ = compress(*states, layer.is_image, strategy="h2o")
    assert keys.shape == plain.shape
    assert not keys.equal(plain)
    assert 0 < (keys - plain).norm() < plain.norm()
    assert values.shape == plain.shape


@pytest.mark.parametrize("storage", SMALL)
def test_beams_share_what_is_stored(storage: str) -> None:
    model, inputs = built("grouped"), left_padded([prompt("grouped", (50,)), prompt("grouped", (40,), seed=1)])
    with look_once(model, "h2o", alpha1=0.3, alpha2=0.3, storage=storage):
        beams = model.generate(**inputs, max_new_tokens=6, num_beams=3, do_sample=False)  # type: ignore[operator]
        cache = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=6, num_beams=3, do_sample=False, return_dict_in_generate=True
        ).past_key_values
        stored = cache.layers[0].stored
        assert stored.batch == 6
        assert len({id(row) for row in stored.rows}) == 2
        again = model.generate(**inputs, max_new_tokens=6, num_beams=3, do_sample=False)  # type: ignore[operator]
    assert again.equal(beams)


def test_what_is_reported_is_what_is_allocated() -> None:
    model, inputs = built("grouped"), prompt("grouped", (100,))
    for storage in storage_names():
        with look_once(model, "full", storage=storage) as session:
            output = model(**inputs, logits_to_keep=1)
            layers = [layer for layer in output.past_key_values.layers if isinstance(layer, CompressedLayer)]
            allocated = [layer.stored.allocated_bytes() for layer in layers if layer.stored is not None]
            assert [layer[0] for layer in session.report().kept_bytes] == allocated, storage


def test_nothing_of_the_full_cache_stays_alive() -> None:
    model, inputs = built("grouped"), prompt("grouped", (300,))
    with torch.no_grad(), look_once(model, "full", storage="kivi2"):
        cache = model(**inputs, logits_to_keep=1).past_key_values
        gc.collect()
        full = 2 * 2 * 300 * 16 * 4  # keys and values of two heads of 16 channels
        large = [x for x in gc.get_objects() if type(x) is Tensor and x.untyped_storage().nbytes() >= full // 2]
        shapes = {tuple(x.shape) for x in large if 300 in x.shape and x.ndim == 4}
    assert cache.get_seq_length() == 300
    assert not shapes


def test_a_copied_cache_goes_on_by_itself() -> None:
    model, inputs = built("grouped"), prompt("grouped", (80,))
    with torch.no_grad(), look_once(model, "h2o", storage="kivi4"):
        cache = model(**inputs).past_key_values
        token = torch.tensor([[5]])
        first = model(input_ids=token, past_key_values=copy.deepcopy(cache)).logits
        assert model(input_ids=token, past_key_values=cache).logits.equal(first)


def test_the_label_names_the_storage_unless_it_is_plain() -> None:
    strategy = load_strategy("tp_pmerge", storage="kivi2")
    assert strategy.label == "tp_pmerge + kivi2"
    assert strategy.storage == load_storage("kivi2")
    assert load_strategy("tp_pmerge").label == "tp_pmerge"
    assert load_strategy("tp_pmerge").storage == PLAIN == load_storage("plain")
    model = built("grouped")
    with look_once(model, "h2o", storage=load_storage("kivi2", residual=0)) as session:
        greedy(model, prompt("grouped"))
    assert str(session.report()).startswith("h2o + kivi2 (paper")


def test_a_storage_that_stores_all_as_it_is_says_so() -> None:
    model = built("grouped")
    with (
        pytest.warns(UserWarning, match="storage=kivi2 made nothing of a prompt smaller"),
        look_once(model, "h2o", storage=load_storage("kivi2", residual=128)),
    ):
        greedy(model, prompt("grouped"))


def test_a_sweep_answers_as_each_storage_alone() -> None:
    model, inputs = built("grouped"), left_padded([prompt("grouped", (50,)), prompt("grouped", (40,), seed=1)])
    strategies = [load_strategy(name, storage=form) for form in ("plain", "kivi2", "think") for name in ("full", "h2o")]
    swept = generate_sweep(model, inputs, strategies, max_new_tokens=6, pad_token_id=0)
    for strategy, row in zip(strategies, swept, strict=True):
        with look_once(model, strategy) as session:
            assert greedy(model, inputs).tolist() == [list(tokens) for tokens in row.tokens], strategy.label
        assert row.report.kept_bytes == session.report().kept_bytes
