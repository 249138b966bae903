"""Claims about the paired bootstrap."""

import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tables.cells import Interval, dataset_seed, interval, resampled_means


def paired_interval(
    differences: dict[str, np.ndarray], weights: dict[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """The interval of a weighted mean of datasets' mean differences, put together as cells are."""
    draws = [
        weight * resampled_means(differences[name][:, None], seed=dataset_seed(seed, name), resamples=resamples)[:, 0]
        for name, weight in weights.items()
    ]
    return interval(sum(weight * differences[name].mean() for name, weight in weights.items()), np.sum(draws, axis=0))


def plain_interval(
    pairs: dict[str, list[tuple[float, float]]], weights: dict[str, float], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The same bootstrap, sample by sample, with another generator."""
    generator = random.Random(seed)

    def score(chosen: dict[str, list[tuple[float, float]]]) -> float:
        parts = (
            weights[name] * (fmean(a for a, _ in rows) - fmean(b for _, b in rows)) for name, rows in chosen.items()
        )
        return sum(parts)

    drawn = sorted(
        score({name: [generator.choice(rows) for _ in rows] for name, rows in pairs.items()}) for _ in range(resamples)
    )
    return score(pairs), drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples) - 1]


def test_the_interval_is_that_of_a_plain_bootstrap_with_pairs_drawn_within_each_dataset() -> None:
    generator = np.random.default_rng(7)
    pairs = {
        "A": [(float(x), float(y)) for x, y in zip(generator.random(12), generator.random(12) + 0.4, strict=True)],
        "B": [(float(x), 0.5) for x in generator.random(40)],
    }
    weights = {"A": 0.75, "B": 0.25}
    fast = paired_interval({name: np.array([a - b for a, b in rows]) for name, rows in pairs.items()}, weights)
    difference, low, high = plain_interval(pairs, weights, 10_000, 3)
    assert fast.difference == pytest.approx(difference)
    assert (fast.low, fast.high) == pytest.approx((low, high), abs=0.01)


def test_pairing_cancels_what_both_runs_share() -> None:
    hard = np.linspace(0, 1, 50)
    paired = paired_interval({"A": (hard + 0.01) - hard}, {"A": 1.0})
    assert paired.low == pytest.approx(0.01)
    assert paired.high == pytest.approx(0.01)


def test_an_all_equal_pair_of_runs_has_the_empty_interval_and_no_direction() -> None:
    nothing = paired_interval({"A": np.zeros(20)}, {"A": 1.0})
    assert nothing == Interval(0.0, 0.0, 0.0)
    assert nothing.direction == 0


@pytest.mark.parametrize(("low", "high", "direction"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0)])
def test_the_direction_says_on_which_side_of_zero_the_interval_lies(low: float, high: float, direction: int) -> None:
    assert Interval((low + high) / 2, low, high).direction == direction


def test_draws_are_reproducible_belong_to_their_dataset_and_differ_between_datasets_and_seeds() -> None:
    values = np.random.default_rng(0).random((30, 2))
    alone = resampled_means(values, seed=dataset_seed(0, "A"), resamples=50)
    assert np.array_equal(alone, resampled_means(values, seed=dataset_seed(0, "A"), resamples=50))
    assert not np.array_equal(alone, resampled_means(values, seed=dataset_seed(0, "B"), resamples=50))
    assert not np.array_equal(alone, resampled_means(values, seed=dataset_seed(1, "A"), resamples=50))


def test_all_columns_see_the_same_draws_so_that_strategies_can_be_compared() -> None:
    values = np.random.default_rng(0).random((30, 1))
    both = resampled_means(np.hstack([values, 2 * values]), seed=1, resamples=100)
    assert both[:, 1] == pytest.approx(2 * both[:, 0])


def test_blocks_do_not_change_what_a_resample_is(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((30, 1))
    whole = resampled_means(values, seed=1, resamples=100)
    monkeypatch.setattr("benchmarks.tables.cells._BLOCK", 95)
    assert resampled_means(values, seed=1, resamples=100) == pytest.approx(whole)


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_resampled_means_lie_within_the_values_and_around_their_mean(values: list[float], seed: int) -> None:
    means = resampled_means(np.array(values)[:, None], seed=seed, resamples=400)[:, 0]
    assert means.min() >= min(values) - 1e-9
    assert means.max() <= max(values) + 1e-9
    spread = np.std(values) / np.sqrt(len(values) * 400)
    assert abs(means.mean() - np.mean(values)) <= 6 * spread + 1e-9
    # The mean of n draws varies by the values' variance over n.
    assert means.std() == pytest.approx(np.std(values) / np.sqrt(len(values)), rel=0.25, abs=1e-9)


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    held = 0
    for trial in range(300):
        differences = generator.choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=60)
        one = paired_interval({"A": differences}, {"A": 1.0}, seed=trial, resamples=500)
        held += one.low <= 0.1 <= one.high
    assert 0.90 <= held / 300 <= 0.98


def test_a_wider_level_is_a_wider_interval() -> None:
    resampled = np.linspace(-1, 1, 1001)
    assert interval(0.0, resampled, level=0.5) == Interval(0.0, pytest.approx(-0.5), pytest.approx(0.5))
    assert interval(0.0, resampled).high == pytest.approx(0.95)


@pytest.mark.parametrize("values", [np.empty((0, 1)), np.array([[np.nan]]), np.array([1.0])])
def test_what_cannot_be_resampled_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values must be"):
        resampled_means(values, seed=0)
