"""Claims about a table's cells: plain means, differences over the same samples, and what stands beside them."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import DATASETS, PAPER_COLUMNS
from benchmarks.tables.cells import compute_cells, dataset_columns, mean_column, task_columns
from benchmarks.tables.collection import collect, find_runs
from benchmarks.tables.experiment import Experiment, read_experiment
from benchmarks.tables.filled import TRUNCATED, WHOLE, reproduce
from benchmarks.tables.score_table import as_csv, as_latex, as_markdown, as_text
from lookm.errors import LookmError
from tests.runner.conftest import OWN_CONFIGS
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE, SAMPLES
from tests.tables.run_folders import STRATEGIES, Folders, right

FULL = {**STRATEGIES["full"], "name": "full"}
H2O = {**STRATEGIES["h2o"], "name": "h2o", "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    searchpath = f"hydra.searchpath=[file://{OWN_CONFIGS}]"
    return read_experiment("table1", [searchpath, "model=random", "benchmark=small"])


def half(dataset: str, number: int) -> str:
    """Right for even samples, and the first of them with words of its own."""
    if number % 2:
        return "right" if dataset == CHOICE else "a cat"
    return right(dataset, number) + (" indeed" if number == 0 else "")


def test_a_column_weighs_tasks_alike_and_the_datasets_of_a_task_alike() -> None:
    infos = (
        DatasetInfo("A", "N-1", "accuracy", 10, 0.1),
        DatasetInfo("B", "N-1", "accuracy", 10, 0.3),
        DatasetInfo("C", "N-2", "accuracy", 10, 0.4),
    )
    (needles,) = task_columns(["T-1", "NH"], infos, ["A", "B", "C"], infos)
    assert needles.weights == {"A": 0.25, "B": 0.25, "C": 0.5}
    assert needles.chance == pytest.approx(0.3)
    (partly,) = task_columns(["NH"], infos, ["A", "C"], infos)
    assert partly.weights == {"A": 0.5, "C": 0.5}
    assert partly.datasets == 3
    assert mean_column([needles, *dataset_columns(infos[:1])]).weights == {"A": 0.625, "B": 0.125, "C": 0.25}


def test_the_paper_s_columns_are_complete_with_milebench_s_datasets() -> None:
    columns = task_columns(PAPER_COLUMNS, DATASETS, [info.dataset for info in DATASETS], DATASETS)
    assert [column.name for column in columns] == list(PAPER_COLUMNS)
    assert sum(column.samples for column in columns) == 6440
    assert all(sum(column.weights.values()) == pytest.approx(1) for column in columns)


def test_a_cell_is_the_plain_mean_and_the_plain_difference_over_the_same_samples(folders: Folders) -> None:
    folders.write("a-full", FULL, lambda dataset, number: None if number == 3 else right(dataset, number))
    folders.write("b-h2o", H2O, half)
    table = collect(folders.results)
    (column,) = dataset_columns([DatasetInfo(CHOICE, "T-1", "accuracy", SAMPLES, 0.5)])
    cells = compute_cells(table, [column], full="a-full", protocol="official", resamples=200)
    cell = cells["b-h2o", CHOICE]
    own = table[(table.run == "b-h2o") & (table.dataset == CHOICE)]
    assert cell.score == pytest.approx(fmean(own.official)) == 0.5
    assert (cell.n, cell.failed, cell.paired) == (SAMPLES, 0, 3)
    assert cell.against_full is not None
    assert cell.against_full.difference == pytest.approx(-1 / 3)  # one of the three that both answered
    assert cell.changed == pytest.approx(2 / 3)  # that one, and the right answer in other words
    assert cell.first_change == 3  # "left" and "left indeed" differ at the fifth byte, "left" and "right" at the first
    assert cell.budget == pytest.approx(0.2)
    assert cells["a-full", CHOICE].failed == 1
    assert cells["a-full", CHOICE].against_full is None


def test_a_cell_does_not_depend_on_the_other_rows_and_columns_of_its_table(folders: Folders) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    columns = dataset_columns(folders.benchmark.datasets)
    alone = compute_cells(collect(folders.results), columns[:1], full="a-full", protocol="official")
    folders.write("c-h2o", {**H2O, "alpha1": 0.2}, lambda dataset, number: "nothing")
    together = compute_cells(collect(folders.results), columns, full="a-full", protocol="official")
    assert together["b-h2o", CHOICE] == alone["b-h2o", CHOICE]


def test_a_run_without_a_dataset_of_a_column_has_no_cell_there(folders: Folders) -> None:
    folders.write("a-full", FULL, right)
    run = folders.write("b-h2o", H2O, right)
    (run / NEEDLE / "samples.jsonl").unlink()
    columns = [mean_column(dataset_columns(folders.benchmark.datasets)), *dataset_columns(folders.benchmark.datasets)]
    cells = compute_cells(collect(folders.results), columns, full="a-full", protocol="official", resamples=50)
    assert {name for run, name in cells if run == "b-h2o"} == {CHOICE, ROUGE}


def test_missing_rows_are_shown_with_the_command_that_fills_them(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    (result,) = reproduce(experiment, find_runs(folders.results))
    assert len(result.missing_rows) == 9
    text = as_text(result)
    assert "missing for h2o, snapkv, roco, a_merge" in text
    assert "\n  python run.py -m +experiment=table1 model=random benchmark=small" in text
    missing = [line for line in as_csv([result]).splitlines() if ",missing," in line]
    assert len(missing) == 9 * len(result.columns)
    assert "python run.py strategy=h2o alpha1=0.1 alpha2=0.1" in missing[0]


def test_without_any_run_the_whole_table_is_missing(experiment: Experiment) -> None:
    (result,) = reproduce(experiment, [])
    assert not result.cells
    assert "no run has this yet" in as_text(result)


def test_the_paper_s_numbers_stand_beside_the_paper_s_model_on_the_paper_s_benchmark_only(folders: Folders) -> None:
    searchpath = f"hydra.searchpath=[file://{OWN_CONFIGS}]"
    other = read_experiment("table1", [searchpath, "model=random", "benchmark=milebench"])
    (unlike,) = reproduce(other, [])
    assert not unlike.paper_scores
    assert "Table 1 of the paper is of llava7b and llava13b, not of random." in unlike.notes
    (paper,) = reproduce(replace(other, model="llava7b"), [])
    full = other.rows[0]
    assert paper.paper_scores[full, "NH"] == 4.7
    assert len(paper.paper_scores) == 110
    (mini,) = reproduce(read_experiment("table1"), [])
    assert not mini.paper_scores
    assert "paper" not in {line[10:17].strip() for line in as_text(mini).splitlines()}
    assert "MileBench-mini is not the paper's benchmark" in as_text(mini)


def test_a_difference_from_the_paper_is_shown_for_the_official_protocol_only() -> None:
    experiment = replace(read_experiment("table1", ["benchmark=milebench"]), model="llava7b")
    (official,), (repaired,) = (reproduce(experiment, [], protocol=name) for name in ("official", "repaired"))
    assert "ours − paper" in as_text(official)
    assert "ours − paper" not in as_text(repaired)
    assert "The paper's numbers are of the official protocol" in as_text(repaired)


def test_tables_split_by_truncation_share_the_samples_between_them(folders: Folders, experiment: Experiment) -> None:
    def lost(dataset: str, number: int) -> dict[str, int]:
        return {"dropped_images": number}  # all but the first lost some

    folders.write("a-full", FULL, right, fields=lost)
    folders.write("b-h2o", H2O, half, fields=lost)
    whole, truncated = reproduce(experiment, find_runs(folders.results), split=True)
    assert (whole.samples, truncated.samples) == (WHOLE, TRUNCATED)
    row = experiment.rows[1]
    assert whole.cells[row, "T-1"].n == 1
    assert truncated.cells[row, "T-1"].n == SAMPLES - 1
    assert truncated.cells[row, "T-1"].score == pytest.approx(1 / 3)
    assert TRUNCATED in as_text(truncated)


def test_where_chooses_between_runs_that_differ(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-full", FULL, half, dtype="bfloat16")
    runs = find_runs(folders.results)
    with pytest.raises(LookmError, match="dtype is float32 in a-full and bfloat16 in b-full"):
        reproduce(experiment, runs)
    (result,) = reproduce(experiment, runs, where={"dtype": "bfloat16"})
    assert result.cells[experiment.rows[0], "T-1"].score == 0.5


def test_one_row_twice_is_refused(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-full", FULL, right)
    with pytest.raises(LookmError, match="full is there twice"):
        reproduce(experiment, find_runs(folders.results))


def test_all_formats_say_the_same(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, lambda dataset, number: "right" if dataset == CHOICE else "a cat")
    (result,) = reproduce(experiment, find_runs(folders.results))
    text, markdown, latex = as_text(result), as_markdown(result), as_latex(result)
    assert "0.0▼" in text
    assert "| 0.0▼ |" in markdown
    assert r"0.0$^\downarrow$" in latex
    for form in (text, markdown, latex):
        assert "random LLaVA · small benchmark" in form
    lines = [line.split(",") for line in as_csv([result]).splitlines()]
    assert len({len(line) for line in lines}) == 1
    (cell,) = (dict(zip(lines[0], line, strict=True)) for line in lines if line[5] == "h2o" and line[9] == "T-1")
    assert (cell["score"], cell["minus_full"], cell["excludes_zero"]) == ("0", "-100", "true")
    assert cell["changed_answers"] == "100"
    body = latex[latex.index(r"\begin") : latex.index(r"\end")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {len(result.columns) + 1}


def test_a_column_with_part_of_its_samples_is_marked(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right, limit=2)
    (result,) = reproduce(experiment, find_runs(folders.results))
    assert "T-1°" in as_text(result)
    assert "°: not all samples or datasets: T-1, S-3, NH, mean." in as_text(result)
