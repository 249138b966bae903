"""Numbers of the tables, checked against sums done by hand."""

import re

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.summary import DatasetResult, changed_share, comparable, mean_of, other_commits, summarise
from benchmarks.run_table import align, comparison_table, percent, run_table, size
from tests.runner.conftest import MakeSettings


def record(number: int, tokens: tuple[int, ...] = (5, 2), **fields: object) -> SampleRecord:
    base = {"realised_budget": 0.5, "kept_bytes": 1000, "times": {"decode_ms_per_token": float(number)}}
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


def test_changed_share_compares_what_both_have() -> None:
    own = {"a": (1, 2), "b": (1, 3), "c": (4,)}
    assert changed_share(own, {"a": [1, 2], "b": [1, 2], "x": [9]}) == (0.5, 2)
    assert changed_share(own, {}) == (None, 0)
    assert changed_share({"a": (1, 2)}, {"a": (1, 2, 3)}) == (1.0, 1), "a longer answer is another answer"


def test_mean_of_leaves_gaps_out_unless_all_are_needed() -> None:
    assert mean_of([1.0, None, 3.0]) == 2.0
    assert mean_of([1.0, None], all_needed=True) is None
    assert mean_of([None]) is None


def test_a_task_is_the_mean_of_its_datasets_and_the_mean_that_of_the_tasks(settings_of: MakeSettings) -> None:
    results = [
        result("A", "T-1", {"1": 1.0, "2": 1.0, "3": 1.0}),
        result("B", "T-1", {"4": 0.0}, chance=0.4),
        result("C", "N-1", {"5": 0.2}),
    ]
    summary = summarise(settings_of(), "model", results)
    assert [(row.task, row.n) for row in summary.rows] == [("T-1", 4), ("N-1", 1)]
    assert [row.scores["official"] for row in summary.rows] == [0.5, 0.2]
    assert [row.chance for row in summary.rows] == [pytest.approx(0.3), 0.2]
    assert summary.mean.scores["official"] == pytest.approx(0.35)
    assert summary.mean.n == 5
    assert summary.rows[0].decode_ms == 2.5


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
    one = {"configuration": {"model": 1, "strategy": 1}, "weights": "w", "data": {"A": "1", "B": "1"}}
    assert comparable(one, {**one, "configuration": {"model": 1, "strategy": 2}, "data": {"A": "1"}})
    assert not comparable(one, {**one, "configuration": {"model": 2}})
    assert not comparable(one, {**one, "weights": "v"})
    assert not comparable(one, {**one, "data": {"A": "2"}})


def test_the_run_table_names_what_it_shows(settings_of: MakeSettings) -> None:
    broken = SampleRecord(sample_id=2, digest="", chance=0.2, error="no image")
    one = result(
        "A",
        "T-1",
        {"1": 1.0},
        records=(record(1, chance=0.2, scores={"official": 1.0, "repaired": 1.0}), broken),
        selected=2,
    )
    text = run_table(summarise(settings_of("alpha1=0.05"), "tiny LLaVA", [one]))
    lines = text.splitlines()
    assert lines[0] == ("tiny LLaVA · small benchmark · tp_pmerge, nominal budget 15% (α 0.05 + 0.1), semantics paper")
    head = re.split(r"  +", lines[2])
    assert head[:6] == ["task", "n", "failed", "score %", "repaired %", "chance %"]
    assert head[6:] == ["budget %", "kept KV", "changed %", "ms/token"]
    assert lines[4].split() == ["T-1", "1", "1", "100.0", "100.0", "20.0", "50.0", "1.0", "KiB", "–", "1.00"]
    assert "failed ones are in samples.jsonl" in text
    assert "run the same with strategy=full" in text


def test_the_comparison_shows_the_full_cache_once_and_without_budget(settings_of: MakeSettings) -> None:
    one = [result("A", "T-1", {"1": 0.5})]
    full = summarise(settings_of("strategy=full"), "model", one)
    h2o = summarise(settings_of("strategy=h2o"), "model", one)
    lines = comparison_table([full, h2o]).splitlines()
    assert lines[4].split() == ["full", "–", "–", "50.0", "50.0", "50.0", "1.0", "KiB", "–", "1.00"]
    assert lines[5].split()[:5] == ["h2o", "0.1", "0.1", "50.0", "50.0"]
    assert lines[6].split() == ["chance", "20.0", "20.0"]
    assert lines[0].endswith("official protocol, semantics paper")
    assert not {"settings", "semantics", "failed"} & set(lines[2].split()), "what is the same everywhere has no column"


def test_the_comparison_counts_samples_without_an_answer(settings_of: MakeSettings) -> None:
    summary = summarise(settings_of(), "model", [result("A", "T-1", {"1": 0.5}, selected=4)])
    lines = comparison_table([summary]).splitlines()
    assert re.split(r"  +", lines[2])[:6] == ["strategy", "α1", "α2", "T-1", "mean", "failed"]
    assert lines[4].split()[5] == "3"


def test_samples_of_another_commit_are_pointed_out(settings_of: MakeSettings) -> None:
    about = {"sessions": [{"git": {"commit": "a" * 40}}, {"git": {"commit": "b" * 40}}, {"git": {"commit": None}}]}
    assert other_commits(about, "b" * 40) == ("a" * 40,)
    assert other_commits(about, None) == ()
    text = run_table(summarise(settings_of(), "m", [result("A", "T-1", {"1": 1.0})], ("a" * 40,)))
    assert "another commit of this program (aaaaaaa) were kept; overwrite=true starts afresh" in text


def test_the_comparison_tells_apart_what_else_differs(settings_of: MakeSettings) -> None:
    one = [result("A", "T-1", {"1": 0.5})]
    summaries = [summarise(settings_of(f"strategy.text_prior={prior}"), "model", one) for prior in ("union", "strict")]
    text = comparison_table(summaries)
    assert "strategy.text_prior=strict" in text


def test_align_puts_numbers_under_numbers() -> None:
    assert align([["a", "b"], ["long", "1"], ["x", "22"]]) == "a      b\n────────\nlong   1\nx     22"


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (3 * 2**30, "3.00 GiB")]
)
def test_sizes_are_short(n_bytes: float | None, shown: str) -> None:
    assert size(n_bytes) == shown


def test_percentages_have_one_decimal() -> None:
    assert (percent(0.12345), percent(1), percent(None)) == ("12.3", "100.0", "–")
