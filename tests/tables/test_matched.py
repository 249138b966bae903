"""Claims about methods at equal bytes: what counts as equal, what is compared, and the picture of it."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from benchmarks.composition import compose_jobs
from benchmarks.evaluation.store import find_runs
from benchmarks.tables import cells as cells_module
from benchmarks.tables import matched as matched_module
from benchmarks.tables.curves import save_figure
from benchmarks.tables.matched import EqualBytes, equal_bytes, matched_table, others_table
from benchmarks.tables.paper import measured_by_others
from benchmarks.tables.pareto import (
    draw_asked,
    draw_pareto,
    method_points,
    pareto_caption,
    pareto_front,
    slopes_at,
    spread,
)
from benchmarks.tables.table import as_csv, as_text, text_of
from lookm.errors import LookmError
from lookm.registry import ready_strategies
from scripts import figures, tables
from tests.tables.run_folders import Folders, right

LOOKM = {"_target_": "lookm.method.LookM", "text_prior": "union", "merge": "pivotal", "name": "tp_pmerge"}
H2O = {"_target_": "baselines.h2o.H2O", "name": "h2o"}
SNAPKV = {"_target_": "baselines.snapkv.SnapKV", "window": None, "kernel": 5, "name": "snapkv"}


def capped(strategy: Mapping[str, Any], budget: float) -> dict[str, Any]:
    return {**strategy, "alpha1": budget / 2, "alpha2": budget / 2, "semantics": "paper", "budget": budget}


def kept(share: float) -> Any:
    fields = {"kept_tokens": (int(40 * share),) * 2, "realised_budget": share, "kept_bytes": round(400 * share)}
    return lambda dataset, number: fields


def wrong(dataset: str, number: int) -> str:
    return right(dataset, number) if number else "nothing"


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EqualBytes:
    """LOOK-M, H2O and one that keeps too much at 20 %; LOOK-M at 10 %, the full cache, and a run of another kind."""
    monkeypatch.setattr(cells_module, "FEWEST_PAIRS", 1)
    folders = Folders(tmp_path)
    folders.write("full", {"_target_": "baselines.full.Full", "name": "full"}, right, fields=kept(1.0))
    folders.write("look", capped(LOOKM, 0.2), wrong, fields=kept(0.2))
    folders.write("h2o", capped(H2O, 0.2), right, fields=kept(0.2))
    folders.write("more", capped(SNAPKV, 0.2), right, fields=kept(0.3))
    folders.write("low", capped(LOOKM, 0.1), wrong, fields=kept(0.1))
    folders.write("plain", {**H2O, "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}, right)
    return equal_bytes(find_runs(folders.results), "random", "small")


def test_only_runs_with_a_budget_and_the_full_cache_are_taken(part: EqualBytes) -> None:
    assert part.asked == {"full": None, "look": 0.2, "h2o": 0.2, "more": 0.2, "low": 0.1}
    assert part.budgets == [0.2, 0.1]


def test_runs_of_other_bytes_stand_apart_without_differences(part: EqualBytes) -> None:
    table = matched_table(part, 0.2)
    rows = [[text_of(cell) for cell in row.cells] for row in table.rows]
    assert [row[0] for row in rows] == ["h2o", "tp_pmerge", "full", "snapkv", "chance"]
    assert [row.begins_block for row in table.rows] == [False, False, True, False, False]
    assert table.head[2] == "− tp_pmerge"
    assert table.head[5] == "− h2o"
    best, look, *apart, _ = rows
    assert [best[2][:5], *best[5:8]] == ["+16.7", "", "", ""]
    assert [*look[2:5], look[5][:5]] == ["", "", "", "−16.7"]
    assert all(row[2:8] == [""] * 6 for row in apart)
    assert [row[8] for row in rows[:-1]] == ["20.0", "20.0", "100.0", "30.0"]
    assert "bytes differ from tp_pmerge's by more than 2% on the mean" in as_text(table).replace("\n", " ")
    assert "lookm sweep +experiment=matched" in as_text(table)


def test_bytes_are_compared_sample_by_sample(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("look", capped(LOOKM, 0.2), right, fields=kept(0.2))
    swing = [kept(0.1)("", 0), kept(0.3)("", 0)]
    folders.write("swings", capped(H2O, 0.2), right, fields=lambda dataset, number: swing[number % 2])
    part = equal_bytes(find_runs(folders.results), "random", "small")
    assert part.mean["swings"].budget == pytest.approx(part.mean["look"].budget)  # the means agree
    assert part.off("swings", "look") == pytest.approx(0.5)
    assert matched_table(part, 0.2).rows[1].begins_block


def test_csv_has_every_column_unrounded_and_no_difference_of_unequal_bytes(part: EqualBytes) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(matched_table(part, 0.2)))))
    assert {line["column"] for line in lines} == {column.name for column in part.columns}
    assert all(line["minus_lookm"] == line["minus_best"] == "" for line in lines if line["run"] in ("more", "full"))
    means = {line["run"]: line for line in lines if line["column"] == part.columns[-1].name}
    assert (means["h2o"]["minus_lookm"], means["look"]["minus_best"]) == ("16.6667", "-16.6667")
    assert (means["more"]["bytes"], means["more"]["bytes_off"]) == ("30", "50")


def test_without_look_m_nothing_is_compared(part: EqualBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matched_module, "LOOKM", "absent")
    table = matched_table(part, 0.2)
    assert all(text_of(cell) == "" for row in table.rows[:-1] for cell in row.cells[2:8])
    assert "No run of absent: there is nothing to compare bytes with." in as_text(table)


def test_runs_that_differ_otherwise_are_refused_and_absent_budgets_named(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.write("look", capped(LOOKM, 0.2), right)
    with pytest.raises(LookmError, match=r"no run of random on small has a budget of 5 % or 64 tokens\. To fill it:"):
        equal_bytes(find_runs(folders.results), "random", "small", budgets=[0.05, 64])
    folders.write("seeded", capped(H2O, 0.2), right, seed=1)
    with pytest.raises(LookmError, match="seed is 0 in look and 1 in seeded"):
        equal_bytes(find_runs(folders.results), "random", "small")
    part = equal_bytes(find_runs(folders.results), "random", "small", where={"seed": "1"})
    assert list(part.asked) == ["seeded"]


def test_the_commands_print_and_draw_and_refuse_in_one_line(
    part: EqualBytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--model", "random", "--benchmark", "small", "--results", str(tmp_path / "runs")]
    assert tables.main(["matched", "--budget", "0.2", *place]) == 0
    printed = capsys.readouterr().out
    assert "Equal bytes · 20 %" in printed
    assert "What others measured for LOOK-M" in printed
    assert figures.main(["pareto", "--output", str(tmp_path / "front"), *place]) == 0
    assert {path.suffix for path in tmp_path.glob("front.*")} == {".png", ".svg", ".txt"}
    for arguments in (["--compact"], ["--budget", "much"], ["--budget", "1.5"], ["--set", "alpha1=0.1"]):
        assert tables.main(["matched", *place, *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert figures.main(["pareto", "--x", "nominal", *place]) == 2


def test_the_experiment_holds_every_strategy_that_needs_no_file_at_every_budget() -> None:
    jobs = compose_jobs(["+experiment=matched"])
    budgets = {one.strategy.budget for one in jobs}
    assert budgets == {0.2, 0.1, 0.05, 0.02}
    assert {(one.strategy.name, one.strategy.budget) for one in jobs} == {
        (name, budget) for name in ready_strategies() for budget in budgets
    }


def test_others_numbers_stand_in_a_table_of_their_own_with_their_sources() -> None:
    text = as_text(others_table())
    assert all(entry["arxiv"] in text and entry["score"] in text for entry in measured_by_others())
    assert "none is ours" in text


def test_the_picture_names_every_method_and_its_front_is_the_best_of_all(part: EqualBytes, tmp_path: Path) -> None:
    points = method_points(part)
    assert [value for point in points["tp_pmerge"] for value in point] == pytest.approx([10, 50, 20, 50])
    assert list(points) == ["full", "h2o", "snapkv", "tp_pmerge"]
    caption = pareto_caption(part)
    png, svg = save_figure(draw_pareto(part), tmp_path / "front", caption)
    text = svg.read_text(encoding="utf-8")
    assert all(f"{name}  " in text for name in ("full cache", "h2o", "snapkv", "tp_pmerge"))
    assert png.stat().st_size > 10_000
    assert caption in (tmp_path / "front.txt").read_text(encoding="utf-8")


def test_seen_and_unseen_scores_are_joined_at_each_budget_that_both_have(
    part: EqualBytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--model", "random", "--benchmark", "small", "--results", str(tmp_path / "runs")]
    assert figures.main(["asked", *place]) == 2
    assert "question=unseen" in capsys.readouterr().err
    folders = Folders(tmp_path)
    folders.write("later", capped(LOOKM, 0.2), right, fields=kept(0.2), question="unseen")
    folders.write("later-low", capped(H2O, 0.1), right, fields=kept(0.1), question="unseen")
    runs = find_runs(folders.results)
    seen, unseen = (equal_bytes(runs, "random", "small", where={"question": one}) for one in ("seen", "unseen"))
    ((variant, ends),) = slopes_at(0.2, seen, unseen).items()
    assert variant == "tp_pmerge"
    assert ends == pytest.approx((50, 200 / 3))  # `right` is right in two of three
    assert slopes_at(0.1, seen, unseen) == {}
    assert figures.main(["asked", "--output", str(tmp_path / "asked"), *place]) == 0
    drawn = (tmp_path / "asked.svg").read_text(encoding="utf-8")
    assert all(text in drawn for text in ("tp_pmerge  50.0", "tp_pmerge  66.7", "20 %", "question unseen"))
    long = "tiny Qwen2-VL (trained on MileBench-mini) · MileBench-mini"  # the longest label of a shipped model
    one = equal_bytes(runs, "random", "small", budgets=(0.2,), where={"question": "seen"})
    figure = draw_asked(replace(one, label=long), unseen)
    figure.draw_without_rendering()
    title = figure.findobj(lambda artist: isinstance(artist, Text) and long in artist.get_text())[0]
    assert 0 < title.get_window_extent().x0 < title.get_window_extent().x1 < figure.bbox.width


@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_holds_exactly_the_points_that_none_beats(points: list[tuple[int, int]]) -> None:
    def beaten(point: tuple[int, int]) -> bool:
        return any(c <= point[0] and s >= point[1] and (c, s) != point for c, s in points)

    assert pareto_front(points) == sorted({point for point in points if not beaten(point)})


@given(st.lists(st.floats(0, 100), max_size=30).map(sorted))
def test_names_are_spread_in_order_within_the_panel_and_stay_where_there_is_room(heights: list[float]) -> None:
    moved = spread(heights, 3.0, 0.0, 100.0)
    assert all(right - left >= 3 - 1e-6 for left, right in pairwise(moved))
    assert all(-1e-6 <= height <= 100 + 1e-6 for height in moved)
    alone = [
        place for place, height in enumerate(heights)
        if all(abs(height - other) > 3 * len(heights) for index, other in enumerate(heights) if index != place)
    ]  # fmt: skip
    assert [moved[place] for place in alone] == [heights[place] for place in alone]
