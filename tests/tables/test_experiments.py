"""Claims about the paper's experiments: the YAMLs run what the paper says, on both benchmarks."""

import csv

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.composition import choices_of
from benchmarks.evaluation.settings import read_settings
from benchmarks.milebench import DATASETS
from benchmarks.tables.experiments import Experiment, read_experiment
from benchmarks.tables.paper import PAPER, paper_experiments
from lookm.errors import LookmError
from lookm.locations import CONFIGS
from lookm.registry import names_of

PAPERS = paper_experiments()


@pytest.fixture(scope="module", params=sorted(PAPERS))
def of_milebench(request: pytest.FixtureRequest) -> Experiment:
    return read_experiment(request.param, ["benchmark=milebench"])


def test_every_experiment_of_the_paper_has_a_yaml() -> None:
    assert set(PAPERS) == {"table1", "table2", "table3", "table6", "figure5", "figure6"}
    assert set(PAPERS) <= set(names_of("experiment"))


def test_an_experiment_runs_exactly_the_rows_and_budgets_of_the_paper_and_the_full_cache_once(
    of_milebench: Experiment,
) -> None:
    paper = PAPERS[of_milebench.name]
    assert of_milebench.rows[0].strategy == "full"
    assert of_milebench.rows[0].alpha1 is None
    rows = [(row.strategy, row.alpha1, row.alpha2) for row in of_milebench.rows]
    wanted = [(name, *budget) for name in paper.strategies if name != "full" for budget in paper.budgets]
    assert sorted(rows[1:]) == sorted(wanted)
    assert {row.semantics for row in of_milebench.rows[1:]} == {"paper"}


def test_an_experiment_runs_the_datasets_of_its_columns(of_milebench: Experiment) -> None:
    paper = PAPERS[of_milebench.name]
    tasks = {task for column in paper.columns for task in {"NH": ("N-1", "N-2"), "IR": ("I-1",)}.get(column, (column,))}
    wanted = {info.dataset for info in DATASETS if info.task in tasks} | set(paper.datasets)
    assert {info.dataset for info in of_milebench.datasets} == wanted


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_on_mini_an_experiment_selects_mini_s_datasets_of_the_same_tasks(name: str) -> None:
    tasks = {}
    for benchmark in ("mini", "milebench"):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            overrides = [f"+experiment={name}", f"benchmark={benchmark}"]
            config = compose("config", overrides, return_hydra_config=True)
        selected = read_settings(config, choices_of(config)).datasets
        assert all(info.dataset.startswith("Mini") == (benchmark == "mini") for info in selected)
        tasks[benchmark] = {info.task for info in selected}
    extra = {"N-2"} if name == "figure5" else set()  # the fourth panel
    assert tasks["mini"] == tasks["milebench"] | extra


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table6"])
def test_the_paper_has_a_number_for_every_cell_of_its_tables(name: str) -> None:
    paper = PAPERS[name]
    assert len(paper.scores) == len(paper.models) * len(paper.strategies) * len(paper.columns)
    for model in paper.models:
        for strategy in paper.strategies:
            budget = (None, None) if strategy == "full" else paper.budgets[0]
            assert all(paper.score(model, strategy, *budget, column) is not None for column in paper.columns)


def test_the_paper_s_rows_and_columns_are_in_the_order_of_its_numbers() -> None:
    with (PAPER / "scores.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("table1", "table2", "table3", "table6"):
        own = [row for row in rows if row["table"] == name]
        assert tuple(dict.fromkeys(row["strategy"] for row in own)) == PAPERS[name].strategies
        assert tuple(dict.fromkeys(row["task"] for row in own)) == PAPERS[name].columns


def test_figures_have_no_numbers_and_say_what_is_this_project_s_choice() -> None:
    for name in ("figure5", "figure6"):
        assert not PAPERS[name].scores
        assert PAPERS[name].ours


def test_the_command_of_one_row_asks_for_that_row_alone(of_milebench: Experiment) -> None:
    row = of_milebench.rows[-1]
    command = of_milebench.command([row])
    assert f"strategy={row.strategy} alpha1={row.alpha1:g} alpha2={row.alpha2:g}" in command
    assert "benchmark=milebench" in command
    assert ("datasets=" in command) == (len(of_milebench.datasets) < len(DATASETS))
    assert of_milebench.command() == f"lookm sweep +experiment={of_milebench.name} benchmark=milebench"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("table7", [], "unknown experiment 'table7'; choose one of figure5"),
        ("table1", ["model=llava70b"], "unknown model 'llava70b'; choose one of"),
        ("table1", ["alhpa1=0.2"], "unknown key 'alhpa1'; did you mean 'alpha1'?"),
        ("table1", ["alpha1=2"], "alpha1 must be a number from 0 to 1"),
    ],
)
def test_wrong_input_is_one_line(name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(LookmError) as caught:
        read_experiment(name, overrides)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
