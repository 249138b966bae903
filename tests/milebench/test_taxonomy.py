"""The 29 datasets, and the means over them."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.evaluation.cells import task_columns
from benchmarks.milebench import DATASETS, PAPER_COLUMNS, TASKS, datasets_of, mean_weights
from lookm.errors import LookmError

PAPER = Path(__file__).resolve().parents[2] / "results" / "paper"


def rows(name: str) -> list[dict[str, str]]:
    with (PAPER / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_taxonomy_is_the_papers() -> None:
    ours = [(info.task, info.dataset, info.metric, str(info.samples)) for info in DATASETS]
    assert ours == [(row["task"], row["dataset"], row["metric"], row["samples"]) for row in rows("taxonomy.csv")]


def test_29_datasets_hold_6440_samples() -> None:
    assert len(DATASETS) == 29
    assert sum(info.samples for info in DATASETS) == 6440


def test_the_papers_columns_are_those_of_its_table_1() -> None:
    columns = dict.fromkeys(row["task"] for row in rows("scores.csv") if row["table"] == "table1")
    assert list(columns) == list(PAPER_COLUMNS)


@pytest.mark.parametrize(
    ("code", "count"), [("T", 13), ("S", 13), ("N", 2), ("I", 1), ("NH", 2), ("IR", 1), ("T-2", 4), ("TQA", 1)]
)
def test_a_code_names_its_datasets(code: str, count: int) -> None:
    assert len(datasets_of(code)) == count


def test_every_task_code_is_known() -> None:
    assert sorted(info.dataset for task in TASKS for info in datasets_of(task)) == sorted(
        info.dataset for info in DATASETS
    )


def test_an_unknown_code_lists_what_exists() -> None:
    with pytest.raises(LookmError, match=r"'T-9'.*NH, IR.*S-4.*GPR1200") as error:
        datasets_of("T-9")
    assert "\n" not in str(error.value)


def task_mean(code: str, scores: Mapping[str, float]) -> float:
    """The mean score of a task code or group over the datasets that have one."""
    (column,) = task_columns([code], DATASETS, scores)
    return sum(weight * scores[dataset] for dataset, weight in mean_weights(column.tree, scores).items())


def test_a_task_is_the_mean_of_its_datasets_and_a_group_of_its_tasks() -> None:
    scores = {"MMCoQA": 0.2, "ALFRED": 0.6, "TextNeedleInAHaystack": 0.1, "ImageNeedleInAHaystack": 0.0}
    assert task_mean("S-4", scores) == pytest.approx(0.4)
    assert task_mean("NH", scores) == pytest.approx(0.05)
    assert task_mean("S", {**scores, "nuscenes": 0.8}) == pytest.approx(0.6)
    assert not task_columns(["T-1"], DATASETS, {"TQA"}), "a task without scores has no mean"
