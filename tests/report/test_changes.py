from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.changes import changes, first_difference
from benchmarks.report.charts import curve_chart, difference_chart, plane_chart
from benchmarks.report.costs import pareto_front
from benchmarks.report.palette import look_of
from benchmarks.report.scenes import Scene, gather
from benchmarks.tables.collection import find_runs
from lookm import strategy_names
from tests.report.conftest import strategy, truth
from tests.tables.run_folders import Folders

TOKENS = st.lists(st.integers(0, 3), max_size=6)


@pytest.fixture(scope="module")
def scene(runs: Path) -> Scene:
    (found,) = gather(find_runs(runs))
    return found


@given(one=TOKENS, other=TOKENS)
def test_first_difference_is_behind_the_common_beginning(one: list[int], other: list[int]) -> None:
    place = first_difference(one, other)
    if place is None:
        assert one == other
    else:
        assert one[: place - 1] == other[: place - 1]
        assert one[place - 1 : place] != other[place - 1 : place]


@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_holds_exactly_the_points_that_none_beats(points: list[tuple[int, int]]) -> None:
    def beaten(point: tuple[int, int]) -> bool:
        return any(c <= point[0] and s >= point[1] and (c, s) != point for c, s in points)

    assert pareto_front(points) == sorted({point for point in points if not beaten(point)})


def test_changes_count_won_lost_reworded_and_where(tmp_path: Path) -> None:
    folders = Folders(tmp_path)

    def full(dataset: str, number: int) -> str:
        return "wrong" if number == 0 else truth(dataset, number)

    def compressed(dataset: str, number: int) -> str | None:
        texts = {0: truth(dataset, 0), 1: truth(dataset, 1), 2: "xxxxx"}
        return texts.get(number)

    folders.write("full", strategy("full"), full)
    folders.write("h2o", strategy("h2o"), compressed)
    (scene,) = gather(find_runs(folders.results))
    change = changes(scene)["h2o", "mean"]
    assert (change.compared, change.won, change.lost, change.reworded, change.same) == (
        9,
        2,
        2,
        2,
        3,
    )  # needles score nothing
    assert change.places == (6, 0, 0, 0, 0)


def test_without_the_full_cache_nothing_is_compared(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("h2o", strategy("h2o"), truth)
    (scene,) = gather(find_runs(folders.results))
    assert changes(scene) == {}
    assert difference_chart(scene, (0.1, 0.1)) is None


def test_curves_need_two_budgets_and_show_scores_and_intervals(scene: Scene) -> None:
    chart = curve_chart(scene)
    assert chart is not None
    assert list(chart.views) == ["mean", "T-1", "S-3", "N-1"]
    line = next(trace for trace in chart.views["mean"]["data"] if trace["name"] == "h2o")
    h2o = [row for row in scene.rows if row.strategy == "h2o"]
    cells = [scene.cell(row, "mean") for row in h2o]
    assert list(line["x"]) == [20.0, 40.0]
    assert list(line["y"]) == [100 * cell.score for cell in cells if cell]
    lows = [
        100 * (cell.against_full.difference - cell.against_full.low) for cell in cells if cell and cell.against_full
    ]
    assert list(line["error_y"]["arrayminus"]) == pytest.approx(lows)
    assert plane_chart(scene) is None  # budgets on a line make no plane


def test_plane_has_a_cell_for_each_pair(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for alpha1 in (0.1, 0.2):
        for alpha2 in (0.1, 0.3):
            if (alpha1, alpha2) != (0.2, 0.3):
                folders.write(f"{alpha1}-{alpha2}", strategy("h2o", alpha1, alpha2), truth)
    (scene,) = gather(find_runs(folders.results))
    chart = plane_chart(scene)
    assert chart is not None
    (trace,) = chart.views["h2o"]["data"]
    assert [list(line) for line in trace["z"]] == [
        [pytest.approx(200 / 3), pytest.approx(200 / 3)],
        [pytest.approx(200 / 3), None],
    ]


def test_every_strategy_has_a_look_of_its_own() -> None:
    assert len({look_of(name) for name in strategy_names()}) == len(strategy_names())
    assert look_of("another") == look_of("another")
