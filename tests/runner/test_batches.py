"""One item is made in advance, in order, and errors come in their place."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.batches import prefetch


@given(st.lists(st.integers()))
def test_the_items_come_in_their_order(items: list[int]) -> None:
    assert list(prefetch(iter(items))) == items


def test_the_next_item_is_made_in_a_thread_while_one_is_worked_on_and_no_further_one() -> None:
    made: list[int] = []
    finished = [threading.Event() for _ in range(5)]

    def items() -> Iterator[str]:
        for number in range(5):
            made.append(number)
            finished[number].set()
            yield threading.current_thread().name

    with closing(prefetch(items())) as prefetched:
        for number, thread in enumerate(prefetched):
            assert thread != threading.current_thread().name
            if number < 4:
                assert finished[number + 1].wait(10)
            assert made == list(range(min(number + 2, 5)))


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("no such picture")

    seen: list[int] = []
    with pytest.raises(OSError, match="no such picture"), closing(prefetch(items())) as prefetched:
        seen.extend(prefetched)
    assert seen == [1, 2]


def test_leaving_the_loop_ends_the_thread() -> None:
    before = threading.active_count()

    def items() -> Iterator[int]:
        yield from range(100)

    with closing(prefetch(items())) as prefetched:
        next(prefetched)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
