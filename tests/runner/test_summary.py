"""Numbers of the tables, checked against sums done by hand."""

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.comparable import comparable
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.summary import DatasetResult, other_commits, summarise
from tests.runner.conftest import MakeSettings


def record(number: int, tokens: tuple[int, ...] = (5, 2), **fields: object) -> SampleRecord:
    base = {
        "realised_budget": 0.5,
        "kept_bytes": 1000,
        "full_bytes": 2000,
        "times": {"decode_ms_per_token": float(number)},
    }
    return SampleRecord(sample_id=number, digest="", answer_tokens=tokens, **{**base, **fields})  # type: ignore[arg-type]


def result(
    name: str, task: str, scores: dict[str, float], chance: float | None = 0.2, **fields: object
) -> DatasetResult:
    records = tuple(
        record(int(key), task=task, chance=chance, scores={"official": score, "repaired": 1.0})
        for key, score in scores.items()
    )
    values = {
        "info": DatasetInfo(name, task, "accuracy", 9, chance),
        "records": records,
        "selected": len(records),
        "reference": None,
    }
    return DatasetResult(**{**values, **fields})  # type: ignore[arg-type]


def test_answers_are_compared_with_those_of_the_full_cache_that_there_are(settings_of: MakeSettings) -> None:
    def changed(*reference: SampleRecord) -> tuple[float | None, int]:
        known = {str(other.sample_id): other for other in reference}
        mean = summarise(settings_of(), "m", [result("A", "T-1", {"1": 1.0, "2": 1.0, "3": 1.0}, reference=known)]).mean
        return mean.changed, mean.paired

    assert changed(record(1), record(2, tokens=(5, 3)), record(9)) == (0.5, 2)
    assert changed(record(1, tokens=(5, 2, 7))) == (1.0, 1), "a longer answer is another answer"
    assert changed(record(1, error="no image")) == (None, 0)
    assert changed() == (None, 0)


def test_a_task_is_the_mean_of_its_datasets_and_the_mean_that_of_the_tasks(settings_of: MakeSettings) -> None:
    results = [
        result("A", "T-1", {"1": 1.0, "2": 1.0, "3": 1.0}),
        result("B", "T-1", {"4": 0.0}, chance=0.4),
        result("C", "N-1", {"5": 0.2}),
    ]
    summary = summarise(settings_of(), "model", results)
    assert [(task, row.n) for task, row in summary.rows.items()] == [("T-1", 4), ("N-1", 1)]
    assert [row.score for row in summary.rows.values()] == [0.5, 0.2]
    assert [row.chance for row in summary.rows.values()] == [pytest.approx(0.3), 0.2]
    assert summary.mean.scores["official"] == pytest.approx(0.35)
    assert summary.mean.n == 5
    assert summary.rows["T-1"].decode_ms == 2.5


def test_failed_samples_are_counted_and_not_scored(settings_of: MakeSettings) -> None:
    broken = SampleRecord(sample_id=2, digest="", chance=0.2, error="no image")
    one = result(
        "A",
        "T-1",
        {"1": 1.0},
        records=(record(1, chance=0.2, scores={"official": 1.0, "repaired": 1.0}), broken),
        selected=3,
    )
    mean = summarise(settings_of(), "model", [one]).mean
    assert (mean.n, mean.failed, mean.missing) == (1, 1, 1)
    assert mean.scores["official"] == 1.0
    assert mean.budget == 0.5


def test_chance_is_left_out_where_a_dataset_has_none(settings_of: MakeSettings) -> None:
    results = [result("A", "T-1", {"1": 1.0}), result("B", "T-2", {"1": 1.0}, chance=None)]
    assert summarise(settings_of(), "model", results).mean.chance is None


def test_runs_that_differ_in_more_than_the_strategy_are_not_compared() -> None:
    one = {
        "configuration": {"model": {"name": "a"}, "strategy": {"name": "full"}},
        "weights": "w",
        "data": {"A": "1", "B": "1"},
    }
    assert comparable(
        one, {**one, "configuration": {"model": {"name": "a"}, "strategy": {"name": "h2o"}}, "data": {"A": "1"}}
    )
    assert not comparable(one, {**one, "configuration": {"model": {"name": "b"}}})
    assert not comparable(one, {**one, "weights": "v"})
    assert not comparable(one, {**one, "data": {"A": "2"}})


def test_other_commits_are_those_of_the_sessions_but_the_present_one() -> None:
    about = {"sessions": [{"git": {"commit": "a" * 40}}, {"git": {"commit": "b" * 40}}, {"git": {"commit": None}}]}
    assert other_commits(about, "b" * 40) == ("a" * 40,)
    assert other_commits(about, None) == ()
