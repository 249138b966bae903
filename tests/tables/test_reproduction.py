"""Claims about a table's cells: plain means, differences over the same samples, and what stands beside them."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.cells import COLUMN_MEAN, dataset_columns, mean_column, task_columns
from benchmarks.evaluation.store import find_runs
from benchmarks.milebench import DATASETS, PAPER_COLUMNS, mean_weights
from benchmarks.tables import cells as cells_module
from benchmarks.tables.cells import Runs, printed_difference
from benchmarks.tables.experiments import Experiment, read_experiment
from benchmarks.tables.frame import collect
from benchmarks.tables.reproduction import Reproduction, reproduce
from benchmarks.tables.score_table import compact_table, dataset_table, full_table
from benchmarks.tables.table import as_csv, as_latex, as_markdown, as_text, text_of
from lookm.errors import LookmError
from tests.runner.conftest import OWN_CONFIGS
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE, SAMPLES
from tests.tables.run_folders import STRATEGIES, Folders, right

FULL = {**STRATEGIES["full"], "name": "full"}
H2O = {**STRATEGIES["h2o"], "name": "h2o", "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}
ROCO = {**H2O, "_target_": "baselines.roco.RoCo", "name": "roco", "exempt": 0.1}


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


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from any number of pairs, for a benchmark of four samples a dataset."""
    monkeypatch.setattr(cells_module, "FEWEST_PAIRS", 1)


def text(result: Reproduction) -> str:
    return as_text(full_table(result))


def test_a_column_weighs_tasks_alike_and_the_datasets_of_a_task_alike() -> None:
    infos = (
        DatasetInfo("A", "N-1", "accuracy", 10, 0.1),
        DatasetInfo("B", "N-1", "accuracy", 10, 0.3),
        DatasetInfo("C", "N-2", "accuracy", 10, 0.4),
    )
    (needles,) = task_columns(["T-1", "NH"], infos, ["A", "B", "C"])
    assert mean_weights(needles.tree, "ABC") == {"A": 0.25, "B": 0.25, "C": 0.5}
    assert mean_weights(needles.tree, "AC") == {"A": 0.5, "C": 0.5}
    assert needles.samples == 30
    mean = mean_column([needles, *dataset_columns(infos[:1])], COLUMN_MEAN)
    assert mean_weights(mean.tree, "ABC") == {"A": 0.625, "B": 0.125, "C": 0.25}


def test_the_paper_s_columns_are_complete_with_milebench_s_datasets() -> None:
    names = {info.dataset for info in DATASETS}
    columns = task_columns(PAPER_COLUMNS, DATASETS, names)
    assert [column.name for column in columns] == list(PAPER_COLUMNS)
    assert sum(column.samples for column in columns) == 6440
    assert all(sum(mean_weights(column.tree, names).values()) == pytest.approx(1) for column in columns)


def test_a_cell_is_the_plain_mean_and_the_plain_difference_over_the_same_samples(folders: Folders) -> None:
    folders.write("a-full", FULL, lambda dataset, number: None if number == 3 else right(dataset, number))
    folders.write("b-h2o", H2O, half)
    frame = collect(folders.results)
    (column,) = dataset_columns([DatasetInfo(CHOICE, "T-1", "accuracy", SAMPLES, 0.5)])
    cells = Runs(frame, "official", resamples=200).cells([column], "a-full")
    cell = cells["b-h2o", CHOICE]
    own = frame[(frame.run == "b-h2o") & (frame.dataset == CHOICE)]
    assert cell.score == pytest.approx(fmean(own.official)) == 0.5
    assert (cell.n, cell.failed, cell.paired, cell.datasets) == (SAMPLES, 0, 3, (CHOICE,))
    assert cell.difference == pytest.approx(-1 / 3)  # one of the three that both answered
    assert cell.changed == pytest.approx(2 / 3)  # that one, and the right answer in other words
    assert cell.first_change == 3  # "left" and "left indeed" differ at the fifth byte, "left" and "right" at the first
    assert (cell.budget, cell.tokens, cell.kept_bytes, cell.chance) == (0.2, pytest.approx(0.2), 80, 0.5)
    assert cells["a-full", CHOICE].failed == 1
    assert cells["a-full", CHOICE].difference is None


def test_few_pairs_have_a_difference_but_no_interval_and_no_mark(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    (result,) = reproduce(experiment, find_runs(folders.results))
    cell = result.cells[experiment.rows[1], "T-1"]
    assert (cell.difference, cell.interval, cell.direction) == (-0.5, None, 0)
    shown = text(result)
    assert "▼" not in shown.split("\n\nNo interval")[0]
    assert "No interval and no mark where a dataset has fewer than 20 pairs." in shown


def test_a_printed_difference_is_that_of_the_printed_scores() -> None:
    assert printed_difference(0.4717, 0.4344, 0.4717 - 0.4344) == pytest.approx(3.8)  # 47.2 − 43.4, not 3.7
    assert printed_difference(0.4717, 0.4344, 0.02) == 2.0  # over other samples than the scores


def test_a_cell_does_not_depend_on_the_other_rows_and_columns_of_its_table(folders: Folders, few_pairs: None) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    columns = dataset_columns(folders.benchmark.datasets)
    alone = Runs(collect(folders.results), "official").cells(columns[:1], "a-full")
    folders.write("c-h2o", {**H2O, "alpha1": 0.2}, lambda dataset, number: "nothing")
    together = Runs(collect(folders.results), "official").cells(columns, "a-full")
    assert together["b-h2o", CHOICE] == alone["b-h2o", CHOICE]
    assert alone["b-h2o", CHOICE].interval is not None


def test_any_run_may_be_the_baseline(folders: Folders, few_pairs: None) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    runs, columns = Runs(collect(folders.results), "official"), dataset_columns(folders.benchmark.datasets[:1])
    forth, back = runs.cells(columns, "a-full")["b-h2o", CHOICE], runs.cells(columns, "b-h2o")["a-full", CHOICE]
    assert forth.interval is not None
    assert back.interval is not None
    assert (forth.difference, forth.interval.low) == (-back.difference, pytest.approx(-back.interval.high))  # type: ignore[operator]


def test_a_run_without_a_dataset_is_scored_over_those_it_has_and_marked(
    folders: Folders, experiment: Experiment
) -> None:
    folders.write("a-full", FULL, right)
    run = folders.write("b-h2o", H2O, right)
    (run / NEEDLE / "samples.jsonl").unlink()
    runs = find_runs(folders.results)
    (result,) = reproduce(experiment, runs)
    row = experiment.rows[1]
    cell = result.cells[row, COLUMN_MEAN]
    assert (row, "NH") not in result.cells
    assert cell.score == pytest.approx(1.0)  # ROUGE-L is a little below
    assert cell.difference == 0.0  # over the two datasets that both have, though the full cache's mean is over three
    assert f"°: 2 of 3 datasets (without {NEEDLE}): h2o." in full_table(result).notes
    (shared,) = reproduce(experiment, runs, common=True)
    assert {cell.n for (_, name), cell in shared.cells.items() if name == COLUMN_MEAN} == {2 * SAMPLES}
    columns = [mean_column(dataset_columns(folders.benchmark.datasets), "mean")]
    whole = Runs(collect(folders.results), "official").cells(columns, "a-full", whole=True)
    assert set(whole) == {("a-full", "mean")}


def test_missing_rows_are_shown_with_the_command_that_fills_them(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    (result,) = reproduce(experiment, find_runs(folders.results))
    assert len(result.missing_rows) == 9
    shown = text(result)
    assert "missing for h2o, snapkv, roco, a_merge" in shown
    assert "\n  lookm sweep +experiment=table1 model=random benchmark=small" in shown
    missing = [line for line in as_csv(full_table(result)).splitlines() if ",missing," in line]
    assert len(missing) == 9 * len(result.columns)
    assert "lookm run strategy=h2o alpha1=0.1 alpha2=0.1" in missing[0]


def test_without_any_run_the_whole_table_is_missing(experiment: Experiment) -> None:
    (result,) = reproduce(experiment, [])
    assert not result.cells
    assert "no run has this yet" in text(result)


def test_the_paper_s_numbers_stand_beside_the_paper_s_model_on_the_paper_s_benchmark_only(folders: Folders) -> None:
    searchpath = f"hydra.searchpath=[file://{OWN_CONFIGS}]"
    other = read_experiment("table1", [searchpath, "model=random", "benchmark=milebench"])
    (unlike,) = reproduce(other, [])
    assert not unlike.paper_scores
    assert "Table 1 of the paper is of llava7b and llava13b, not of random." in unlike.notes
    (paper,) = reproduce(replace(other, model="llava7b"), [])
    full = other.rows[0]
    assert paper.paper_scores[full, "NH"] == 4.7
    assert len(paper.paper_scores) == 120  # ten rows, eleven columns and the mean of the paper's own
    own = [paper.paper_scores[full, name] for name in PAPER_COLUMNS]
    assert paper.paper_scores[full, COLUMN_MEAN] == pytest.approx(fmean(own))
    (mini,) = reproduce(read_experiment("table1"), [])
    assert not mini.paper_scores
    assert "paper" not in {line[10:17].strip() for line in text(mini).splitlines()}
    assert "MileBench-mini is not the paper's benchmark" in text(mini)


def test_a_difference_from_the_paper_is_shown_for_the_official_protocol_only() -> None:
    experiment = replace(read_experiment("table1", ["benchmark=milebench"]), model="llava7b")
    (official,), (repaired,) = (reproduce(experiment, [], protocol=name) for name in ("official", "repaired"))
    assert "ours − paper" in text(official)
    assert "ours − paper" not in text(repaired)
    assert "The paper's numbers are of the official protocol" in text(repaired)


def test_tables_split_by_truncation_share_the_samples_between_them(folders: Folders, experiment: Experiment) -> None:
    def lost(dataset: str, number: int) -> dict[str, int]:
        return {"dropped_images": number}  # all but the first lost some

    folders.write("a-full", FULL, right, fields=lost)
    folders.write("b-h2o", H2O, half, fields=lost)
    whole, truncated = reproduce(experiment, find_runs(folders.results), split="truncation")
    assert (whole.samples, truncated.samples) == (
        "samples that lost no image",
        "samples that lost images to the context limit",
    )
    row = experiment.rows[1]
    assert whole.cells[row, "T-1"].n == 1
    assert truncated.cells[row, "T-1"].n == SAMPLES - 1
    assert truncated.cells[row, "T-1"].score == pytest.approx(1 / 3)
    assert "samples that lost images to the context limit" in text(truncated)
    (together,) = reproduce(experiment, find_runs(folders.results))
    assert ("lost images", *["3"] * 3, "9") == tuple(row.cells[1:] for row in full_table(together).rows)[1]


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


def test_all_formats_say_the_same(folders: Folders, experiment: Experiment, few_pairs: None) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, lambda dataset, number: "right" if dataset == CHOICE else "a cat")
    (result,) = reproduce(experiment, find_runs(folders.results))
    table = full_table(result)
    plain, markdown, latex = as_text(table), as_markdown(table), as_latex(table)
    assert "0.0▼" in plain
    assert "| 0.0▼ |" in markdown
    assert r"0.0$^\downarrow$" in latex
    for form in (plain, markdown, latex):
        assert "random LLaVA · small benchmark" in form
    lines = [line.split(",") for line in as_csv(table).splitlines()]
    assert len({len(line) for line in lines}) == 1
    (cell,) = (dict(zip(lines[0], line, strict=True)) for line in lines if line[5] == "h2o" and line[10] == "T-1")
    assert (cell["score"], cell["minus_full"], cell["excludes_zero"]) == ("0", "-100", "true")
    assert cell["changed_answers"] == "100"
    body = latex[latex.index(r"\begin") : latex.index(r"\end")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {len(result.columns) + 1}


def test_cells_with_part_of_their_samples_are_marked(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right, limit=2)
    (result,) = reproduce(experiment, find_runs(folders.results))
    assert "100.0°" in text(result)
    assert "°: not all samples." in text(result)


def test_a_compact_table_has_a_line_a_strategy_with_the_best_compressed_in_bold(
    folders: Folders, experiment: Experiment
) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    folders.write("c-roco", ROCO, lambda dataset, number: "a cat")
    (result,) = reproduce(experiment, find_runs(folders.results))
    table = compact_table(result)
    assert [row.cells[0] for row in table.rows[:3]] == ["full", "h2o", "snapkv"]
    lines = as_markdown(table).splitlines()
    (h2o,) = (line for line in lines if line.startswith("| h2o"))
    assert h2o.startswith("| h2o | **50.0** |")
    assert not any("**" in line for line in lines if line.startswith("| full"))
    assert any(line.startswith("| roco | 0.0 |") for line in lines)
    assert h2o.endswith("| 20.0 | 75.0 |")  # budget and changed answers


def test_dataset_by_dataset_strategies_stand_side_by_side(folders: Folders, experiment: Experiment) -> None:
    folders.write("a-full", FULL, right)
    folders.write("b-h2o", H2O, half)
    (result,) = reproduce(experiment, find_runs(folders.results), by_dataset=True)
    table = dataset_table(result)
    assert table.head[:6] == ("dataset", "task", "n", "chance", "full", "h2o")
    rows = {str(row.cells[0]): [text_of(cell) for cell in row.cells[1:6]] for row in table.rows}
    assert rows[CHOICE] == ["T-1", "4", "50.0", "100.0", "50.0"]
    assert rows[ROUGE][0] == "S-3"
    assert list(rows) == [CHOICE, ROUGE, NEEDLE, "dataset mean"]


def test_a_split_by_images_has_milebench_s_levels(folders: Folders, experiment: Experiment) -> None:
    def images(dataset: str, number: int) -> dict[str, int]:
        return {"n_images": (5, 6, 31, 32)[number]}

    folders.write("a-full", FULL, half, fields=images)
    few, medium, many = reproduce(experiment, find_runs(folders.results), split="images")
    assert [part.samples.split(":")[0] for part in (few, medium, many)] == ["Few", "Medium", "Many"]
    row = experiment.rows[0]
    assert [part.cells[row, "T-1"].n for part in (few, medium, many)] == [1, 2, 1]
    assert [part.cells[row, "T-1"].score for part in (few, medium, many)] == [1.0, 0.5, 0.0]


def test_variants_of_the_benchmark_have_tables_of_their_own_and_never_the_paper_s_numbers(folders: Folders) -> None:
    normal, adversarial = (
        read_experiment("table1", ["model=llava7b", *more]) for more in ([], ["benchmark.adversarial=true"])
    )
    plain = {"_target_": "x", "adversarial": False, "combine_image": None, "label": "MileBench"}
    model = dict(normal.identity["model"])
    for name, variant in (("a", False), ("b", True)):
        benchmark = {**plain, **normal.identity["benchmark"], "adversarial": variant}
        folders.write(name, FULL | {"_target_": "baselines.full.Full"}, right, model=model, benchmark=benchmark)
    runs = find_runs(folders.results)
    (of_normal,), (of_adversarial,) = reproduce(normal, runs), reproduce(adversarial, runs)
    assert list(of_normal.runs.values()) == ["a"]
    assert list(of_adversarial.runs.values()) == ["b"]
    assert of_normal.paper_scores
    assert not of_adversarial.paper_scores
    (chosen,) = reproduce(adversarial, runs, where={"benchmark.adversarial": "false"})
    assert list(chosen.runs.values()) == ["a"]
    (alone,) = reproduce(adversarial, runs[:1])
    assert not alone.runs


def test_settings_that_were_asked_for_choose_the_runs(folders: Folders) -> None:
    searchpath = f"hydra.searchpath=[file://{OWN_CONFIGS}]"
    asked = read_experiment("table1", [searchpath, "model=random", "benchmark=small", "dtype=bfloat16"])
    folders.write("a-full", FULL, right)
    folders.write("b-full", FULL, half, dtype="bfloat16")
    (result,) = reproduce(asked, find_runs(folders.results))
    assert list(result.runs.values()) == ["b-full"]
