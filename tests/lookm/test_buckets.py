"""Rows are divided into buckets as cheaply as can be, and nothing but padding is masked."""

from itertools import combinations, pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookm import load_strategy
from lookm.buckets import Bucket, bucket_cost, decode_rows, divide


def cost(cuts: tuple[int, ...], sizes: list[int], fixed: int) -> int:
    """Of the division at these rows, by its definition."""
    edges = [0, *cuts, len(sizes)]
    return sum(fixed + (stop - start) * max(sizes[start:stop]) for start, stop in pairwise(edges))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 100))
def test_no_other_division_of_the_rows_is_cheaper(sizes: list[int], fixed: int) -> None:
    sizes = sorted(sizes, reverse=True)
    buckets = divide(sizes, fixed)
    assert [size for bucket in buckets for size in bucket.kept] == sizes
    assert [bucket.start for bucket in buckets[1:]] == [bucket.stop for bucket in buckets[:-1]]
    assert all(bucket.width == max(bucket.kept) for bucket in buckets)
    every = [cuts for n in range(len(sizes)) for cuts in combinations(range(1, len(sizes)), n)]
    ours = tuple(bucket.start for bucket in buckets[1:])
    assert cost(ours, sizes, fixed) == min(cost(cuts, sizes, fixed) for cuts in every)


def test_rows_that_keep_all_and_rows_that_keep_little_lie_apart_and_one_attention_call_costs_something() -> None:
    assert [len(bucket.kept) for bucket in divide([4096, 819, 819, 819], 100)] == [1, 3]
    assert [len(bucket.kept) for bucket in divide([40, 20, 20, 20], 100)] == [4]
    assert bucket_cost(torch.device("cpu"), 1024) == 256
    assert bucket_cost(torch.device("cpu"), 1 << 30) == 1


def test_padding_hides_what_a_row_does_not_hold_and_nothing_else() -> None:
    bucket = Bucket(3, 6, 10, (10, 7, 0))
    padding = bucket.padding(torch.float32, torch.device("cpu"), bucket.slots(4))
    assert padding is not None
    assert padding.shape == (3, 1, 1, 16)
    assert (padding[:, 0, 0] == -torch.inf).sum(1).tolist() == [0, 3, 10]
    assert (padding[1, 0, 0, :3] == -torch.inf).all()
    assert Bucket(0, 2, 10, (10, 10)).padding(torch.float32, torch.device("cpu"), 16) is None


def test_a_bucket_of_fewer_rows_is_as_narrow_as_aligned_slots_allow() -> None:
    bucket = Bucket(3, 6, 100, (100, 51, 50))
    assert bucket.only([1, 2], 0) == Bucket(0, 2, 52, (51, 50))
    assert bucket.slots(7) - bucket.only([1, 2], 0).slots(7) == 48


@pytest.mark.parametrize(("semantics", "rows"), [("paper", 5), ("release", 4)])
def test_strategies_that_evict_nothing_of_a_prompt_share_its_row(semantics: str, rows: int) -> None:
    strategies = [load_strategy(name, semantics=semantics) for name in ("full", "h2o", "tp")]
    text, mixed = torch.zeros(40, dtype=torch.bool), torch.arange(60) % 30 >= 10
    found = decode_rows(strategies, [text, mixed])
    assert {(row.prompt_row, index) for row in found for index in row.strategies} == set(product((0, 1), (0, 1, 2)))
    assert all(len(row.strategies) == 1 or row.kept == (40, 60)[row.prompt_row] for row in found)
    assert [row.kept for row in found] == sorted((row.kept for row in found), reverse=True)
    assert len(found) == rows
