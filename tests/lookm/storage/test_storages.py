"""What is stored small is what its formula says, in each field, and takes the bytes that it should."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lookm import LookmError
from lookm.layer import Layer
from lookm.registry import load_storage, storage_names
from lookm.storage.base import Storage
from lookm.storage.quantised import Axis, packed, quantised, unpacked
from lookm.storage.rows import CompressedRow
from lookm.storage.sparse import corrected, low_rank
from tests.lookm.layers import random_layer
from tests.lookm.storage import oracle

SMALL = [name for name in storage_names() if name != "plain"]


def row_of(layer: Layer, kept: int) -> CompressedRow:
    """The last `kept` tokens of a layer."""
    positions = torch.arange(layer.length - kept, layer.length).expand(layer.kv_heads, -1)
    return CompressedRow(layer.keys[:, layer.length - kept :], layer.values[:, layer.length - kept :], positions)


def whole_tokens(storage: Storage, n: int) -> int:
    longest = {"kivi2": 128, "kivi4": 128, "gear": 20, "think": 32, "fp8": 0}[storage.name]
    residual = getattr(storage, "residual", None)
    return min(longest, n // 4) if residual is None else min(residual, n)


def expected(storage: Any, layer: Layer, row: CompressedRow) -> tuple[Tensor, Tensor]:
    n = row.keys.shape[1]
    first = n - whole_tokens(storage, n)
    keys, values = row.keys.double().clone(), row.values.double().clone()
    if not first:
        return keys, values
    if storage.name == "think":
        return oracle.think(layer.queries, row.keys, n - first, storage.ratio, storage.window), values
    for states, exact, axis in ((keys, row.keys, "tokens"), (values, row.values, "channels")):
        if storage.name == "fp8":
            states[:, :first] = oracle.float8(exact[:, :first])
        elif storage.name == "gear":
            options = (storage.bits, storage.group, axis, storage.rank, storage.outliers)
            states[:, :first] = oracle.gear(exact[:, :first], *options)
        else:
            states[:, :first] = oracle.grouped(exact[:, :first], storage.bits, storage.group, axis)
    return keys, values


VARIANTS = [
    *((name, {}) for name in SMALL),
    *(("kivi2", changes) for changes in ({"residual": 0}, {"group": 5, "residual": 3}, {"bits": 8}, {"bits": 1})),
    ("kivi4", {"residual": 1000}),
    *(("gear", changes) for changes in ({"outliers": 0.2}, {"rank": 0}, {"bits": 4, "group": 16}, {"residual": 1})),
    *(
        ("think", changes)
        for changes in ({"ratio": 0.75, "residual": 2}, {"ratio": 0.0}, {"ratio": 1.0}, {"window": 3})
    ),
    ("fp8", {"residual": 4}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=lambda x: x if isinstance(x, str) else str(x))
def test_what_attention_reads_is_what_the_formula_says(name: str, changes: dict[str, Any], dtype: torch.dtype) -> None:
    storage = load_storage(name, **changes)
    for length, groups, size in ((50, 1, 8), (41, 3, 12), (3, 2, 20), (1, 1, 5)):
        whole = random_layer(length, groups=groups, size=size, seed=length)
        layer = Layer(*(states.to(dtype) for states in (whole.queries, whole.keys, whole.values)), whole.is_image)
        for kept in {length, length // 2}:
            row = row_of(layer, kept)
            states = storage.store_row(row, layer).states()
            keys, values = expected(storage, layer, row)
            ties = 0 if name in ("think", "fp8") else 1  # a number half-way between two levels may go either way
            for ours, exact in ((states.keys, keys), (states.values, values)):
                assert ours.dtype == dtype
                far = ~torch.isclose(ours.double(), exact, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=2e-5)
                if dtype == torch.bfloat16 and name == "gear":  # its parts are rounded one by one
                    far = (ours.double() - exact).abs() > 0.05
                assert int(far.sum()) <= ties, (length, kept)


@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    n=st.integers(1, 40),
    size=st.integers(1, 19),
    group=st.integers(1, 40),
    axis=st.sampled_from(["tokens", "channels"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_no_number_is_further_off_than_half_a_level(
    bits: int, n: int, size: int, group: int, axis: Axis, seed: int
) -> None:
    states = torch.randn(2, n, size, generator=torch.Generator().manual_seed(seed))
    form = quantised(states, bits, group, axis)
    dim = 1 if axis == "tokens" else 2
    level = form.scale.repeat_interleave(group, dim).narrow(dim, 0, states.shape[dim])
    assert bool(((form.restored() - states).abs() <= level / 2 + 1e-5).all())
    assert form.codes.shape == (2, n, -(-size * bits // 8))


@given(bits=st.sampled_from([1, 2, 4, 8]), rows=st.integers(0, 3), n=st.integers(0, 33), seed=st.integers(0, 99))
def test_packing_goes_round(bits: int, rows: int, n: int, seed: int) -> None:
    codes = torch.randint(0, 2**bits, (rows, n), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    both = packed(codes, bits)
    assert both.shape == (rows, -(-n * bits // 8))
    assert unpacked(both, bits, n).equal(codes)


def test_a_group_of_equal_numbers_is_exact() -> None:
    states = torch.full((1, 10, 4), -3.25)
    assert quantised(states, 2, 3, "tokens").restored().equal(states)


@given(n=st.integers(1, 30), size=st.integers(1, 12), rank=st.integers(0, 15), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_low_rank_is_the_best_of_its_rank(n: int, size: int, rank: int, seed: int) -> None:
    states = torch.randn(2, n, size, generator=torch.Generator().manual_seed(seed))
    left, right = low_rank(states, rank)
    assert left.shape[-1] == right.shape[-1] == min(rank, n, size)
    error = (states - left @ right.transpose(1, 2)).double().square().sum((1, 2))
    best = torch.linalg.svdvals(states.double())[:, rank:].square().sum(1)  # Eckart and Young
    assert bool((error <= best + 1e-4 * states.double().square().sum((1, 2))).all())


def test_outliers_are_exact_and_the_correction_is_nearer_than_the_base() -> None:
    states = torch.randn(2, 200, 16, generator=torch.Generator().manual_seed(0))
    states[0, 3, 5], states[1, 190, 0] = 80.0, -90.0
    form = corrected(states, 2, 64, "tokens", 4, 0.02)
    restored = form.restored()
    assert restored[0, 3, 5] == 80.0
    assert restored[1, 190, 0] == -90.0
    assert (restored - states).norm() < 0.6 * (quantised(states, 2, 64, "tokens").restored() - states).norm()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_are_those_of_what_is_held(name: str, dtype: torch.dtype) -> None:
    whole = random_layer(256, size=64)
    layer = Layer(*(states.to(dtype) for states in (whole.queries, whole.keys, whole.values)), whole.is_image)
    row = row_of(layer, 256)
    stored = load_storage(name, residual=0).store_row(row, layer)
    full = row.keys.nbytes + row.values.nbytes
    assert stored.allocated_bytes() == sum(x.nbytes for x in stored.tensors().values()), (
        "views keep more than they show"
    )
    number = dtype.itemsize
    kivi = {bits: bits / 8 + 2 * number / 32 for bits in (2, 4)}  # a scale and a zero point for 32 numbers
    share = {
        "kivi2": kivi[2] / number,
        "kivi4": kivi[4] / number,
        "think": 0.5 * (1 - 25 / 64) + 0.5 + 39 / (2 * 256 * 64 * number),
        "fp8": 1 / number + 1 / 256,
        # base; rank 4 of 256 × 64; 3 largest and 3 smallest of 256 in a channel, 1 and 1 of 64 in a token; their places
        "gear": (2 / 8 + 2 * number / 64) / number + 4 * (256 + 64) / (256 * 64)
        + (6 / 256 + 2 / 64) / 2 * (number + 1) / number,
    }[name]  # fmt: skip
    assert stored.allocated_bytes() == pytest.approx(share * full)


@pytest.mark.parametrize("name", SMALL)
def test_heads_that_keep_different_numbers_are_stored_each_by_itself(name: str) -> None:
    layer = random_layer(60, kv_heads=3, groups=2, size=8)
    counts, storage = (40, 7, 0), load_storage(name)
    parts = [(layer.keys[h, 60 - n :], layer.values[h, 60 - n :]) for h, n in enumerate(counts)]
    row = CompressedRow(
        torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]), torch.zeros(sum(counts)).long(), counts
    )
    states = storage.store_row(row, layer).states()
    assert states.valid is not None
    assert states.valid.sum(1).tolist() == list(counts)
    for h, n in enumerate(counts):
        alone = Layer(layer.queries[2 * h : 2 * h + 2], layer.keys[h : h + 1], layer.values[h : h + 1], layer.is_image)
        own = storage.store_row(row_of(alone, n), alone).states()
        assert states.keys[h, states.valid[h]].equal(own.keys[0])
        assert states.values[h, states.valid[h]].equal(own.values[0])


def test_think_reads_the_last_queries_of_a_prompt_that_is_chosen_from_late() -> None:
    layer, storage = random_layer(80, groups=2), load_storage("think")
    row = row_of(layer, 60)
    early = storage.store_row(row, layer).states().keys
    layer.forget_queries()
    assert storage.store_row(row, layer).states().keys.equal(early)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("kivi2", {"bits": 3}, "bits=3 is unknown; choose one of 1, 2, 4, 8"),
        ("kivi2", {"group": 0}, "group=0 does not fit; choose a positive integer"),
        ("kivi2", {"residual": -1}, "residual=-1 does not fit; choose an integer from 0"),
        ("gear", {"outliers": 2}, "outliers=2 is not a share; choose a number from 0 to 1"),
        ("think", {"window": 33}, "window=33 does not fit; choose an integer from 1 to 32"),
        ("kivi2", {"depth": 3}, "storage 'kivi2' has no field 'depth'; it has residual, bits, group"),
        ("kivi3", {}, "storage 'kivi3' is unknown (did you mean 'kivi4'?); choose one of fp8, gear, kivi2, kivi4, "),
    ],
)
def test_wrong_fields_are_one_line(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LookmError) as error:
        load_storage(name, **changes)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=lambda x: x if isinstance(x, str) else str(x))
def test_what_is_allocated_is_what_was_promised(name: str, changes: dict[str, Any], dtype: torch.dtype) -> None:
    storage = load_storage(name, **changes)
    for length, size in ((300, 8), (41, 12), (3, 20), (1, 5)):
        whole = random_layer(length, size=size)
        layer = Layer(*(states.to(dtype) for states in (whole.queries, whole.keys, whole.values)), whole.is_image)
        for kept in {length, length // 2, 0}:
            held = storage.store_row(row_of(layer, kept), layer).allocated_bytes()
            assert held == layer.kv_heads * storage.head_bytes(kept, size, dtype.itemsize)
