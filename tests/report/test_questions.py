"""Runs whose questions were seen by the compression beside those whose questions came later."""

from pathlib import Path

import pytest

from benchmarks.evaluation.store import find_runs
from benchmarks.report.groups import gather
from benchmarks.report.page import make_parts, render
from benchmarks.report.questions import SideBySide, side_by_side
from benchmarks.tables import cells as cells_module
from tests.report.conftest import half_right, strategy, truth
from tests.runner.small_benchmark import CHOICE
from tests.tables.run_folders import Folders


def wrong(dataset: str, number: int) -> str:
    return "nothing"


def choices_alone(dataset: str, number: int) -> str | None:
    return truth(dataset, number) if dataset == CHOICE else wrong(dataset, number)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both ways to ask; of h2o at 0.2 + 0.2 and of tp_pmerge there is one alone."""
    folders = Folders(tmp_path_factory.mktemp("asked"))
    folders.write("full", strategy("full"), truth)
    folders.write("h2o", strategy("h2o"), truth)
    folders.write("h2o-0.2", strategy("h2o", 0.2, 0.2), truth)
    folders.write("full-unseen", strategy("full"), truth, question="unseen")
    folders.write("h2o-unseen", strategy("h2o"), choices_alone, question="unseen", limit=3)
    folders.write("tp_pmerge-unseen", strategy("tp_pmerge"), wrong, question="unseen")
    folders.write("full-many", strategy("full"), wrong, question="many")
    return folders.results


@pytest.fixture(scope="module")
def both(results: Path) -> SideBySide:
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cells_module, "FEWEST_PAIRS", 1)
        (one,) = side_by_side(gather(find_runs(results)))
    return one


def test_a_line_is_a_strategy_and_budget_that_has_both(both: SideBySide) -> None:
    lines = both.lines["official"]
    assert [line.row.label for line in lines] == ["full", "h2o 0.1 + 0.1"]
    assert both.columns == ("task mean", "T-1", "S-3", "N-1")


def test_differences_are_over_the_samples_that_all_have_and_carry_their_intervals(both: SideBySide) -> None:
    full, h2o = both.lines["official"]
    assert both.samples == 3 * 3  # h2o was asked three of each dataset later
    assert (full.seen, full.unseen) == ("66.7", "66.7")  # none finds the needle
    assert [difference.text for difference in full.differences if difference] == ["0.0"] * 4
    assert (h2o.seen, h2o.unseen) == ("66.7", "33.3")
    mean, *tasks = h2o.differences
    assert mean is not None
    assert (mean.text, mean.ends, mean.direction) == ("−33.4", "[−33.3, −33.3]", -1)  # that of the printed means
    assert [difference.text for difference in tasks if difference] == ["0.0", "−100.0", "0.0"]


def test_the_page_has_the_section_only_where_both_are_there(results: Path, tmp_path: Path) -> None:
    groups = gather(find_runs(results))
    page = render(make_parts(groups, samples="0", heat="no"))
    assert 'href="#asked"' in page
    assert "over the 9 samples that all of these runs have" in page
    one_way = [group for group in groups if group.question != "unseen"]
    assert 'id="asked"' not in render(make_parts(one_way, samples="0", heat="no"))


def test_what_differs_in_more_than_the_question_is_not_compared(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("seen", strategy("h2o"), half_right)
    folders.write("other", strategy("h2o"), half_right, question="unseen", dtype="bfloat16")
    folders.write("tp", strategy("tp_pmerge"), half_right, question="unseen")  # no run is a pair
    assert side_by_side(gather(find_runs(folders.results))) == []
