"""Which samples a run asks is a function of `limit`, `subset`, `seed` and the dataset, and of nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.benchmark import select_positions, subset_seed
from benchmarks.evaluation.examples import read_datasets
from benchmarks.evaluation.records import read_records
from benchmarks.evaluation.run import run
from benchmarks.evaluation.settings import Settings
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import NEEDLE

COUNTS = st.integers(1, 300)


def selected(settings: Settings) -> dict[str, list[str]]:
    return {dataset.info.dataset: list(dataset.samples) for dataset in read_datasets(settings)}


@given(count=COUNTS, limit=st.integers(1, 400), seed=st.integers(0, 2**40), dataset=st.text(max_size=8))
def test_a_random_subset_is_the_librarys_shuffle_in_reading_order(
    count: int, limit: int, seed: int, dataset: str
) -> None:
    from numpy.random import default_rng

    chosen = select_positions(count, limit=limit, subset="random", seed=seed, dataset=dataset)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, count)
    if limit < count:
        shuffled = default_rng(subset_seed(seed, dataset)).permutation(count)
        assert set(chosen) == set(shuffled[:limit].tolist())


@given(count=COUNTS, small=st.integers(1, 300), more=st.integers(0, 50), seed=st.integers(0, 99))
def test_a_smaller_random_subset_is_part_of_a_larger_one(count: int, small: int, more: int, seed: int) -> None:
    few, many = (
        select_positions(count, limit=limit, subset="random", seed=seed, dataset="TQA")
        for limit in (small, small + more)
    )
    assert set(few) <= set(many)


def test_seeds_and_datasets_draw_differently_and_the_draw_is_fixed() -> None:
    drawn = {
        (seed, name): select_positions(200, limit=5, subset="random", seed=seed, dataset=name)
        for seed in (0, 1)
        for name in ("TQA", "DocVQA")
    }
    assert len({tuple(positions) for positions in drawn.values()}) == 4
    assert drawn[0, "TQA"] == [38, 84, 110, 156, 181], "another draw would unpair new runs from those on disk"


@pytest.mark.parametrize(("limit", "expected"), [(None, [0, 1, 2, 3]), (2, [0, 1]), (9, [0, 1, 2, 3])])
def test_the_first_samples(limit: int | None, expected: list[int]) -> None:
    assert select_positions(4, limit=limit, dataset="TQA") == expected


def test_runs_of_other_strategies_and_models_get_the_same_random_samples(settings_of: MakeSettings) -> None:
    drawn = ("limit=2", "subset=random", "seed=3")
    one = settings_of(*drawn)
    one.benchmark.prepare()
    assert selected(settings_of(*drawn, "strategy=h2o", "model.weights_seed=1")) == selected(one)
    assert selected(settings_of("limit=2", "subset=random", "seed=4")) != selected(one)


def test_a_random_subset_is_resumed_and_recorded_and_part_of_the_whole_run(settings_of: MakeSettings) -> None:
    drawn = settings_of(f"datasets={NEEDLE}", "limit=2", "subset=random", "seed=1")
    assert run(drawn).computed == 2
    assert run(drawn).computed == 0
    records = read_records(drawn.folder / NEEDLE / "samples.jsonl")
    assert list(records) == selected(drawn)[NEEDLE]
    resolved = json.loads((drawn.folder / "run.json").read_text())["sessions"][-1]["resolved"]
    assert (resolved["subset"], resolved["limit"], resolved["seed"]) == ("random", 2, 1)
    assert run(settings_of(f"datasets={NEEDLE}", "seed=1")).computed == 2
