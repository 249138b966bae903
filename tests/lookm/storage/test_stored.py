"""Claims about what a layer holds: the same states in every form, and memory that is really let go."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lookm.storage.base import Plain
from lookm.storage.rows import CompressedRow, States, allocated_bytes
from lookm.storage.stored import NEW_TOKENS, Stored
from tests.lookm.layers import random_layer

SIZE = 3


def row_of(counts: list[int], *, ragged: bool, seed: int) -> CompressedRow:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(counts),) if ragged else (len(counts), counts[0])
    keys, values = (torch.randn(*shape, SIZE, generator=generator) for _ in range(2))
    return CompressedRow(keys, values, torch.zeros(shape, dtype=torch.int64), tuple(counts) if ragged else None)


def heads_of(row: CompressedRow) -> list[tuple[Tensor, Tensor]]:
    """Each head's keys and values, however the row holds them."""
    if row.counts is None:
        return list(zip(row.keys, row.values, strict=True))
    return list(zip(row.keys.split(row.counts), row.values.split(row.counts), strict=True))


def read(states: States) -> list[list[tuple[list[float], list[float]]]]:
    """[row][head] keys and values of the valid slots, flat."""
    batch, heads, slots, _ = states.keys.shape
    valid = torch.ones(batch, heads, slots, dtype=torch.bool)
    if states.valid is not None:
        valid &= states.valid if states.valid.ndim == 3 else states.valid[:, None]
    return [
        [
            (states.keys[b, h][valid[b, h]].flatten().tolist(), states.values[b, h][valid[b, h]].flatten().tolist())
            for h in range(heads)
        ]
        for b in range(batch)
    ]


@st.composite
def batches(draw: st.DrawFn) -> list[CompressedRow]:
    """Any rows of one or two heads, equal ones and others, empty ones among them."""
    heads, ragged = draw(st.integers(1, 2)), draw(st.booleans())
    rows = []
    for seed in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(0, 5), min_size=heads, max_size=heads))
        own = ragged and draw(st.booleans())
        rows.append(row_of(sizes if own else sizes[:1] * heads, ragged=own, seed=seed))
    return rows


@given(batches(), st.lists(st.integers(0, NEW_TOKENS + 2), max_size=3), st.lists(st.integers(0, 2), max_size=4))
def test_heads_hold_their_tokens_and_the_new_ones_whatever_happens_to_the_rows(
    rows: list[CompressedRow], added: list[int], picks: list[int]
) -> None:
    stored = Plain().store(rows, [random_layer(6)] * len(rows))
    expected = [[(keys.flatten().tolist(), values.flatten().tolist()) for keys, values in heads_of(r)] for r in rows]
    heads = len(expected[0])
    for step, n in enumerate(added):
        keys, values = torch.randn(2, len(expected), heads, n, SIZE, generator=torch.Generator().manual_seed(step))
        stored.append(keys, values)
        for b, row in enumerate(expected):
            expected[b] = [
                (k + keys[b, h].flatten().tolist(), v + values[b, h].flatten().tolist()) for h, (k, v) in enumerate(row)
            ]
        assert read(stored.states()) == expected
        chosen = [pick % len(expected) for pick in picks] or [*range(len(expected))]
        stored.select(torch.tensor(chosen))
        expected = [expected[pick] for pick in chosen]
    assert read(stored.states()) == expected
    assert (stored.batch, stored.length) == (stored.states().keys.shape[0], stored.states().keys.shape[2])
    duplicate = copy.deepcopy(stored)
    duplicate.append(*torch.zeros(2, stored.batch, heads, 1, SIZE))
    assert read(stored.states()) == expected


def held(stored: Stored) -> int:
    return sum(storage.nbytes() for storage in {t.untyped_storage() for t in stored.tensors()})


@pytest.mark.parametrize("ragged", [False, True])
def test_a_prompt_takes_its_own_bytes_and_keeps_nothing_else_alive(ragged: bool) -> None:
    full = torch.randn(2, 1000, SIZE)
    keys = full.flatten(0, 1)[:7] if ragged else full[:, :4]
    positions = torch.zeros(keys.shape[:-1], dtype=torch.int64)
    row = CompressedRow(keys, keys, positions, (3, 4) if ragged else None)
    stored = Plain().store([row], [random_layer(6)])
    tokens, offsets = (7, 2 * 8) if ragged else (8, 0)
    assert stored.allocated_bytes() == held(stored) == stored.prompt_bytes[0] == tokens * 2 * SIZE * 4 + offsets


def test_ragged_heads_take_less_than_padded_ones_and_padding_is_made_for_reading_only() -> None:
    row = row_of([1, 200], ragged=True, seed=0)
    stored = Plain().store([row], [random_layer(6)])
    assert stored.prompt_bytes[0] == 201 * 2 * SIZE * 4 + 2 * 8
    states = stored.states()
    assert states.keys.shape == (1, 2, 200, SIZE)
    assert stored.allocated_bytes() == stored.prompt_bytes[0] < allocated_bytes(states[:2])


def test_decoding_writes_into_slots_and_copies_once_in_many_steps() -> None:
    stored = Plain().store([row_of([5, 5], ragged=False, seed=0)], [random_layer(6)])
    stored.append(*torch.randn(2, 1, 2, 1, SIZE))
    first = stored.states().keys.data_ptr()
    for _ in range(NEW_TOKENS - 1):
        stored.append(*torch.randn(2, 1, 2, 1, SIZE))
        assert stored.states().keys.data_ptr() == first
    assert stored.length == 5 + NEW_TOKENS
