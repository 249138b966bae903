"""The leaderboard's page: every run once, sorted, filtered and linked, in a browser at desktop and phone width."""

import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.evaluation.store import find_runs
from benchmarks.report.groups import Group, gather
from benchmarks.report.leaderboard import Board, boards, render
from benchmarks.tables import cells as cells_module
from benchmarks.tables.table import percent
from scripts.leaderboard import main
from tests.report.conftest import half_right, questions, strategy, truth
from tests.report.test_page import browser  # noqa: F401  the fixture
from tests.tables.run_folders import Folders


@pytest.fixture(scope="module")
def results(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's runs, and two of the same model that read their questions after the compression."""
    folders = Folders(tmp_path_factory.mktemp("unseen"))
    for name, answer in (("full", truth), ("h2o", half_right)):
        folders.write(f"{name}-unseen", strategy(name), answer, fields=questions)
        file = folders.results / f"{name}-unseen" / "run.json"
        about = json.loads(file.read_text(encoding="utf-8"))
        about["configuration"]["question"] = "unseen"
        file.write_text(json.dumps(about), encoding="utf-8")
    return folders.results


@pytest.fixture(scope="module")
def groups(runs: Path, results: Path) -> Iterator[list[Group]]:
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cells_module, "FEWEST_PAIRS", 1)
        yield gather([*find_runs(runs), *find_runs(results)])


@pytest.fixture(scope="module")
def page_file(groups: list[Group], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "leaderboard.html"
    path.write_text(render(boards(groups, path)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def board(groups: list[Group], page_file: Path) -> Board:
    (one,) = boards(groups, page_file)
    return one


def test_every_run_is_a_line_best_mean_first(board: Board, groups: list[Group]) -> None:
    assert len(board.lines) == sum(len(group.rows) for group in groups) == 7
    means = [line.scores[0].value or 0.0 for line in board.lines]
    assert means == sorted(means, reverse=True)
    assert set(board.questions) == {"seen", "unseen"}
    assert board.budgets == ["0.2 + 0.2", "0.1 + 0.1"]


def test_a_line_says_what_its_cells_say(board: Board, groups: list[Group]) -> None:
    by_run = {row.run.name: (group, row) for group in groups for row in group.rows}
    for line in board.lines:
        group, row = by_run[line.row.run.name]
        for name, shown in zip(board.columns, line.scores, strict=True):
            cell = group.cell(row, name)
            assert cell is not None
            assert (shown.text, shown.value, shown.direction) == (percent(cell.score), cell.score, cell.direction)
            assert bool(shown.beneath) == (not row.is_full)
            if cell.interval and not row.is_full:
                low, high = re.findall(r"[+−]?\d+\.\d", shown.beneath)[1:]
                assert float(low.replace("−", "-")) == pytest.approx(100 * cell.interval.low, abs=0.051)
                assert float(high.replace("−", "-")) == pytest.approx(100 * cell.interval.high, abs=0.051)
        mean = group.cell(row, group.columns[-1].name)
        assert mean is not None
        assert [cost.value for cost in line.costs] == [mean.budget, mean.kept_bytes, mean.decode_ms, mean.changed]


def test_links_lead_from_the_page_to_the_runs(board: Board, page_file: Path) -> None:
    for line in board.lines:
        assert (page_file.parent / line.link).resolve() == (line.row.run.path / "run.json").resolve()
        assert (page_file.parent / line.link).is_file()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag != "a" and (named.get("src") or named.get("href")):
            self.loads.append(str(named.get("src") or named.get("href")))


def test_the_page_is_complete_and_small(page_file: Path) -> None:
    reader = _Reader()
    reader.feed(page_file.read_text(encoding="utf-8"))
    assert all(load.startswith("data:") for load in reader.loads)
    assert page_file.stat().st_size < 200_000


def test_the_command_reads_runs_and_wrong_input_is_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "board.html"
    assert main([str(runs), "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out.startswith(f"written: {page} (")
    for arguments, message in [
        (["nowhere"], "nowhere does not exist"),
        ([str(runs), "limit=3"], "run folders are only read"),
        ([str(runs), "--page", str(tmp_path)], f"--page {tmp_path} is a folder"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1


def open_page(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:  # noqa: F811
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else trouble.append(request.url)
    )
    page.goto(path.as_uri())
    return page, trouble


def values(page: Any, place: int) -> list[str]:
    rows = page.locator("tbody tr:visible")
    return [rows.nth(k).locator("th, td").nth(place).get_attribute("data-value") for k in range(rows.count())]


def sorted_by(shown: list[str]) -> set[str]:
    """The orders that values are in, as numbers if they all are."""
    try:
        keys: list[Any] = [float(value) for value in shown]
    except ValueError:
        keys = list(shown)
    return {
        name for name, turned in (("ascending", False), ("descending", True)) if keys == sorted(keys, reverse=turned)
    }


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser_it_sorts_and_filters(browser: Any, page_file: Path, width: int, scheme: str) -> None:  # noqa: F811
    page, trouble = open_page(browser, page_file, width, scheme)
    assert page.title() == "LOOK-M leaderboard"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    headings = page.locator("thead th")
    for place in range(headings.count()):
        orders = []
        for _ in range(2):
            headings.nth(place).locator("button").click()
            shown = values(page, place)
            known = [value for value in shown if value]
            assert shown == known + [""] * (len(shown) - len(known))  # what is absent is last, either way
            orders.append(sorted_by(known))
            assert headings.nth(place).get_attribute("aria-sort") in orders[-1]
        if len(set(known)) > 1:
            assert orders[0].isdisjoint(orders[1])
    assert page.locator("output").inner_text() == "7 of 7 runs"
    page.locator(".pick-question").select_option("unseen")
    assert set(values(page, 3)) == {"unseen"}
    page.locator(".pick-question").select_option("")
    page.locator(".pick-budget").select_option("0.2 + 0.2")
    assert page.locator("output").inner_text() == "4 of 7 runs"  # two methods and both full caches
    page.locator(".pick-method").fill("tp_")
    assert page.locator("output").inner_text() == "1 of 7 runs"
    page.locator(".pick-method").fill("")
    hidden = page.locator("tbody tr:visible .task small").first
    assert not hidden.is_visible()
    page.get_by_label("intervals of every task").check()
    assert hidden.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert trouble == []


def test_in_a_browser_names_stay_in_sight_on_a_phone(browser: Any, page_file: Path) -> None:  # noqa: F811
    page, _ = open_page(browser, page_file, 390, "light")
    name = page.locator("tbody th").nth(1)
    before = name.bounding_box()
    page.locator(".scroll").evaluate("element => { element.scrollLeft = 200; }")
    assert page.locator(".scroll").evaluate("element => element.scrollLeft") > 50
    assert name.bounding_box() == before


def test_the_site_is_built_by_the_script_that_pages_calls(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    workflow = yaml.safe_load((root / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["site"]["steps"] if "run" in step]
    assert commands == ["bash scripts/build_site.sh _site"]
    uploaded = [step["with"]["path"] for step in workflow["jobs"]["site"]["steps"] if "path" in step.get("with", {})]
    assert uploaded == ["_site"]
    script = (root / "scripts" / "build_site.sh").read_text(encoding="utf-8")
    arguments = re.findall(r"scripts\.leaderboard (.*) \"\$@\"", script)[0].replace("$folder", str(tmp_path))
    small = ["benchmark.samples=1", "task=N-1", "device=cpu", f"data_dir={tmp_path}/data"]
    assert main([*shlex.split(arguments), *small]) == 0
    links = re.findall(r'href="(runs/[^"]+)"', (tmp_path / "leaderboard.html").read_text(encoding="utf-8"))
    assert len(links) > 20
    assert all((tmp_path / link).is_file() for link in links)
