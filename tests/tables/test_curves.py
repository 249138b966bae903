"""Claims about budget curves."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.cells import dataset_columns
from benchmarks.tables.cells import Cell, Interval
from benchmarks.tables.curves import caption, curve_points, draw_curves, save_figure
from benchmarks.tables.experiments import Row
from benchmarks.tables.paper import paper_experiments
from benchmarks.tables.reproduction import ALL, Reproduction, reproduce
from benchmarks.tables.styles import style_of
from lookm.errors import LookmError
from lookm.registry import PAPER_ROWS
from tests.tables.rows import FIGURE

COLUMNS = tuple(dataset_columns([DatasetInfo(name, "T-1", "accuracy", 40, 0.1) for name in ("A", "B")]))


def filled(rows: tuple[Row, ...], missing: tuple[str, ...] = ()) -> Reproduction:
    """Scores that grow with the budget, and intervals of ±5 points."""
    cells = {}
    for row in rows:
        for column in COLUMNS:
            if row.strategy in missing:
                continue
            if row.alpha1 is None or row.alpha2 is None:
                cells[row, column.name] = Cell(0.9, 40, 0, (column.name,), chance=0.1, budget=1.0)
                continue
            score = 0.9 * (row.alpha1 + row.alpha2)
            against = Interval(score - 0.9, score - 0.95, score - 0.85)
            budget = row.alpha1 + row.alpha2 + 0.01
            cells[row, column.name] = Cell(
                score, 40, 0, (column.name,), 0.1, budget, difference=score - 0.9, interval=against, paired=40
            )
    experiment = replace(FIGURE, rows=rows)
    return Reproduction(
        experiment, None, "model · data", "official", ALL, COLUMNS, {row: row.identity for row in rows}, cells, {}, ()
    )


ROWS = (
    Row("full", None, None, None, "{}"),
    *(Row(name, a, a, "paper", f"{name}{a}") for name in ("h2o", "tp_pmerge") for a in (0.2, 0.05, 0.4)),
)


def test_points_are_in_order_with_intervals_around_the_full_cache() -> None:
    points = curve_points(filled(ROWS), "h2o", COLUMNS[0], "nominal")
    assert [point.x for point in points] == pytest.approx([10, 40, 80])
    assert [point.score for point in points] == pytest.approx([9, 36, 72])
    assert points[0].low == pytest.approx(4)
    assert points[0].high == pytest.approx(14)


def test_the_horizontal_axis_may_be_the_realised_budget_or_its_division() -> None:
    result = filled(ROWS)
    assert [point.x for point in curve_points(result, "h2o", COLUMNS[0], "realised")] == pytest.approx([11, 41, 81])
    assert {point.x for point in curve_points(result, "h2o", COLUMNS[0], "split")} == {50}


def test_without_the_full_cache_there_are_scores_and_no_intervals() -> None:
    result = filled(ROWS)
    cells = {key: replace(cell, interval=None) for key, cell in result.cells.items() if not key[0].is_full}
    points = curve_points(
        replace(result, cells=cells, runs={row: row.identity for row in ROWS[1:]}), "h2o", COLUMNS[0], "nominal"
    )
    assert [point.low for point in points] == [None] * 3


@pytest.mark.parametrize("axis", ["nominal", "realised", "split"])
def test_the_figure_says_what_it_is_of_and_its_legend_stands_beside_the_data(axis: str, tmp_path: Path) -> None:
    result = filled(ROWS)
    figure = draw_curves(result, axis)  # type: ignore[arg-type]
    assert [panel.get_title() for panel in figure.axes] == ["A", "B"]
    png, svg = save_figure(figure, tmp_path / "deep" / "figure", caption(result))
    written = svg.read_text()
    assert "model · data" in written
    assert ">tp_pmerge<" in written
    assert ">95 % interval" in written
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert all(not box.overlaps(panel.get_tightbbox()) for panel in figure.axes)
    with Image.open(png) as picture:
        assert min(picture.size) > 400
    assert [panel.get_xscale() for panel in figure.axes] == ["linear" if axis == "split" else "log"] * 2


def test_a_strategy_without_runs_is_left_out_of_the_legend() -> None:
    figure = draw_curves(filled(ROWS, missing=("h2o",)), "nominal")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "h2o" not in shown
    assert "tp_pmerge" in shown


def test_nothing_to_draw_is_said_with_the_command_that_helps() -> None:
    (empty,) = reproduce(FIGURE, [])
    with pytest.raises(LookmError, match=r"no run of figure5 .* lookm sweep \+experiment=figure5"):
        draw_curves(empty, "nominal")


def test_the_caption_says_how_many_samples_and_what_the_bars_are() -> None:
    text = caption(replace(filled(ROWS), notes=("A note.",)))
    assert "model · data" in text
    assert "40 samples per panel" in text
    assert "around the full cache's score" in text
    assert text.endswith("A note.")


def test_every_strategy_has_one_look_and_the_paper_s_have_one_of_their_own() -> None:
    looks = [style_of(name) for name in PAPER_ROWS]
    assert len(PAPER_ROWS) == len({look.colour for look in looks}) == 11
    assert len({look.marker for look in looks}) == 11
    for name in ("figure5", "figure6"):
        assert set(paper_experiments()[name].strategies) <= set(PAPER_ROWS)
    assert style_of("another") == style_of("another") != style_of("yet_another")


def test_no_axis_of_shares_goes_above_100() -> None:
    result = filled(ROWS)
    cells = {key: replace(cell, score=1.0) for key, cell in result.cells.items()}
    figure = draw_curves(replace(result, cells=cells), "realised")
    for panel in figure.axes:
        assert panel.get_ylim()[1] <= 100
        assert panel.get_xlim()[1] <= 100
    assert all(point.high is None or point.high <= 100 for point in curve_points(result, "h2o", COLUMNS[0], "nominal"))


@pytest.mark.parametrize("name", ["f5", "f5.png", "f5.svg"])
def test_an_ending_is_not_written_twice(tmp_path: Path, name: str) -> None:
    written = save_figure(draw_curves(filled(ROWS), "nominal"), tmp_path / name, "caption")
    assert [path.name for path in written] == ["f5.png", "f5.svg"]
