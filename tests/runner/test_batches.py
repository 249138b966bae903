"""Batches are prepared one ahead, in order, and shared evenly among the ranks."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.batches import prefetch, read_batches
from benchmarks.evaluation.compute import Progress
from benchmarks.evaluation.examples import read_datasets
from benchmarks.evaluation.run import load_backbone
from tests.runner.conftest import MakeSettings


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


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_work_evenly_and_leave_nothing_out(settings_of: MakeSettings, size: int) -> None:
    settings = settings_of("model.batch_size=3")  # batches of 3 and 1 of each dataset
    settings.benchmark.prepare()
    backbone, datasets = load_backbone(settings), read_datasets(settings)
    missing = {dataset.name: set(dataset.samples) for dataset in datasets}
    loads, taken = [0] * size, []
    largest = 0
    for rank in range(size):
        for batch in read_batches(datasets, missing, backbone, settings.benchmark.root, rank=rank, size=size):
            (part,) = batch.parts
            padded_tokens = max(example.tokens for example in part.samples) * len(part.samples)
            loads[rank] += padded_tokens
            largest = max(largest, padded_tokens)
            taken += [(batch.dataset.name, example.sample_id) for example in part.samples]
    assert sorted(taken) == sorted((name, sample) for name, samples in missing.items() for sample in samples)
    assert max(loads) - min(loads) <= largest


def test_a_share_larger_than_estimated_shows_no_negative_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(60, "runs") as progress:
        for _ in range(12):
            progress.advance(8, "A")
        progress.finish("A")
    (line,) = capsys.readouterr().err.splitlines()
    assert "96/96 samples" in line
    assert "00:00 left" in line
