from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.store import find_runs
from benchmarks.report.changes import count_changes
from benchmarks.report.charts import curve_chart, plane_chart
from benchmarks.report.groups import Group, gather
from benchmarks.tables import cells as cells_module
from lookm.answers import first_difference
from tests.report.conftest import strategy, truth
from tests.tables.run_folders import Folders

TOKENS = st.lists(st.integers(0, 3), max_size=6)


@pytest.fixture(scope="module")
def group(runs: Path) -> Group:
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cells_module, "FEWEST_PAIRS", 1)
        (one,) = gather(find_runs(runs))
    return one


@given(one=TOKENS, other=TOKENS)
def test_first_difference_is_behind_the_common_beginning(one: list[int], other: list[int]) -> None:
    place = first_difference(one, other)
    if place is None:
        assert one == other
    else:
        assert one[: place - 1] == other[: place - 1]
        assert one[place - 1 : place] != other[place - 1 : place]


def test_changes_count_won_lost_reworded_and_where(tmp_path: Path) -> None:
    folders = Folders(tmp_path)

    def full(dataset: str, number: int) -> str:
        return "wrong" if number == 0 else truth(dataset, number)

    def compressed(dataset: str, number: int) -> str | None:
        texts = {0: truth(dataset, 0), 1: truth(dataset, 1), 2: "xxxxx"}
        return texts.get(number)

    folders.write("full", strategy("full"), full)
    folders.write("h2o", strategy("h2o"), compressed)
    (group,) = gather(find_runs(folders.results))
    change = count_changes(group)["h2o", "task mean"]
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
    (group,) = gather(find_runs(folders.results))
    assert count_changes(group) == {}


def test_curves_need_two_budgets_and_show_scores_and_intervals(group: Group) -> None:
    chart = curve_chart(group)
    assert chart is not None
    assert list(chart.views) == ["task mean", "T-1", "S-3", "N-1"]
    line = next(trace for trace in chart.views["task mean"]["data"] if trace["name"] == "h2o")
    h2o = [row for row in group.rows if row.strategy == "h2o"]
    cells = [group.cell(row, "task mean") for row in h2o]
    assert list(line["x"]) == [20.0, 40.0]
    assert list(line["y"]) == [100 * cell.score for cell in cells if cell]
    lows = [
        min(100 * (cell.interval.difference - cell.interval.low), 100 * cell.score)
        for cell in cells
        if cell and cell.interval
    ]
    assert list(line["error_y"]["arrayminus"]) == pytest.approx(lows)
    assert plane_chart(group) is None  # budgets on a line make no plane


def test_plane_has_a_cell_for_each_pair(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for alpha1 in (0.1, 0.2):
        for alpha2 in (0.1, 0.3):
            if (alpha1, alpha2) != (0.2, 0.3):
                folders.write(f"{alpha1}-{alpha2}", strategy("h2o", alpha1, alpha2), truth)
    (group,) = gather(find_runs(folders.results))
    chart = plane_chart(group)
    assert chart is not None
    assert chart.options == (("strategy", ("h2o",)), ("column", ("task mean", "T-1", "S-3", "N-1")))
    (trace,) = chart.views["h2o | task mean"]["data"]
    assert [list(line) for line in trace["z"]] == [
        [pytest.approx(200 / 3), pytest.approx(200 / 3)],
        [pytest.approx(200 / 3), None],
    ]


def test_no_axis_of_scores_goes_above_100(group: Group) -> None:
    chart = curve_chart(group)
    assert chart is not None
    for view in chart.views.values():
        low, high = view["layout"]["yaxis"]["range"]
        assert 0 <= low < high <= 100
        for trace in view["data"]:
            if trace.get("error_y"):
                ends = [y + up for y, up in zip(trace["y"], trace["error_y"]["array"], strict=True)]
                assert max(ends) <= 100 + 1e-9
