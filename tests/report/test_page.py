import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.evaluation.store import find_runs
from benchmarks.report.groups import Group, gather
from benchmarks.report.page import make_parts, render, script_json
from benchmarks.report.rerun import kept_data, load_model
from benchmarks.report.samples import data_uri
from benchmarks.tables import cells as cells_module
from lookm import LookmError, load_strategy
from lookm.kept import KeptPositions
from scripts.report import main
from tests.report.conftest import ATTACK
from tests.runner.small_benchmark import CHOICE, NEEDLE

CHROMIUM = Path("/usr/bin/chromium")
SAMPLES = f"{CHOICE}/1,{NEEDLE}/2"


@pytest.fixture(scope="module")
def group(runs: Path) -> Iterator[Group]:
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cells_module, "FEWEST_PAIRS", 1)
        (one,) = gather(find_runs(runs))
        yield one  # while the page is made as well


@pytest.fixture(scope="module")
def page_file(group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with heat maps of the random model."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(make_parts([group], samples=SAMPLES, heat="yes")), encoding="utf-8")
    return path


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.scripts += tag == "script"
        if named.get("id"):
            self.ids.add(str(named["id"]))
        if tag == "a":
            self.links.append(str(named["href"]))
        elif named.get("src") or named.get("href"):
            self.loads.append(str(named.get("src") or named.get("href")))


def test_page_loads_nothing_and_every_link_has_its_target(page_file: Path) -> None:
    reader = _Reader()
    reader.feed(page_file.read_text(encoding="utf-8"))
    assert reader.links
    assert {link.removeprefix("#") for link in reader.links} <= reader.ids
    assert all(load.startswith("data:") for load in reader.loads)
    assert page_file.stat().st_size < 10 * 2**20


def test_what_models_say_is_escaped(page_file: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(html)
    assert reader.scripts == 3  # data, plotly, the page's own
    assert "&lt;script&gt;document.title" in html
    assert "document.title = 'taken'</script>" not in html
    assert 'onerror="' not in html.split("<script>", 1)[0]


def test_script_json_cannot_end_its_script() -> None:
    text = script_json({"answer": ATTACK, "number": 1.5})
    assert "<" not in text
    assert json.loads(text) == {"answer": ATTACK, "number": 1.5}


@pytest.mark.parametrize("heads", [1, 3])
def test_kept_bits_are_the_masks(heads: int, group: Group) -> None:
    kept = torch.stack(
        [torch.randperm(21, generator=torch.Generator().manual_seed(h))[:5].sort().values for h in range(heads)]
    )
    positions = KeptPositions(load_strategy("h2o"), torch.zeros(21, dtype=torch.bool), (kept.unbind(),))
    data = kept_data("h2o", positions)
    raw = base64.b64decode(data["layers"][0])
    bits = "".join(f"{byte:08b}" for byte in raw)
    stride = 8 * (len(raw) // heads)
    for head in range(heads):
        places = [place for place in range(21) if bits[head * stride + place] == "1"]
        assert places == kept[head].tolist()


@pytest.mark.parametrize(("size", "kind"), [((16, 16), "png"), ((400, 200), "jpeg")])
def test_pictures_are_embedded_small(size: tuple[int, int], kind: str) -> None:
    uri = data_uri(Image.new("RGB", size, "red"))
    assert uri.startswith(f"data:image/{kind};base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert max(picture.size) <= 144


def test_without_a_rerun_pictures_and_answers_are_still_there(group: Group) -> None:
    (part,) = make_parts([group], samples=SAMPLES, heat="auto")
    first = part.views[0]
    assert first.why_not
    assert [item.get("image") for item in first.data["flow"] if "image" in item] == [0, 1]
    assert all(image["source"].startswith("data:image/png") for image in first.data["images"])
    assert first.truth == "left"
    answers = {answer.row.strategy: answer for answer in first.answers}
    assert answers["h2o"].text == ATTACK
    assert answers["tp_pmerge"].differs_at is None


def test_command_writes_the_page_and_wrong_input_is_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.html"
    assert main([str(runs), "--samples", "1", "--output", str(output)]) == 0
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert re.match(r"written: \S+mine\.html \(\d\.\d MiB\)\n", capsys.readouterr().out)
    for arguments, message in [
        (["nowhere"], "nowhere does not exist"),
        ([str(runs), "--samples", "Nope/1"], "no run has a sample 'Nope/1'"),
        ([str(runs), "--output", str(tmp_path)], f"--output {tmp_path} is a folder"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


def open_page(browser: Any, path: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and everything that goes wrong or is asked of the network."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else trouble.append(request.url)
    )
    page.goto(path.as_uri())
    page.wait_for_selector(".plot .main-svg")
    return page, trouble


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser_every_control_works_without_an_error(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page, trouble = open_page(browser, page_file, width, scheme)
    assert page.title() == "LOOK-M report"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plots = page.locator(".chart").count()
    assert plots == page.locator(".plot .main-svg:first-child").count() == 6
    for link in page.locator("nav a").all():
        link.click()
        assert page.evaluate("document.querySelector(location.hash) !== null")
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    for select in page.locator("select").all():
        for option in select.locator("option").all():
            select.select_option(option.get_attribute("value") or option.inner_text())
    page.get_by_label("repaired").check()
    assert page.locator(".official-only:visible").count() == 0
    assert page.locator(".repaired-only:visible").count() == 2
    grounds = set()
    for _ in range(3):
        page.locator("#theme").click()
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    assert trouble == []


def test_in_a_browser_heat_follows_strategy_layer_and_head(browser: Any, page_file: Path) -> None:
    page, trouble = open_page(browser, page_file, 1280)
    sample = page.locator(".sample").last
    assert sample.locator(".picture canvas").count() == 3
    assert sample.locator(".picture > img:visible").count() == 3  # the raw picture beside each
    sample.locator(".pick-raw").uncheck()
    assert sample.locator(".picture > img:visible").count() == 0
    assert sample.locator(".picture .heated img:visible").count() == 3
    told = {}
    for name in ("full", "h2o", "tp_pmerge"):
        sample.locator(".pick-strategy").select_option(label=name)
        told[name] = sample.locator("output").inner_text()
    assert told["full"] == "kept: 100 % of the text, 100 % of the image tokens"
    assert told["tp_pmerge"].startswith("kept: 100 % of the text")
    assert not told["h2o"].startswith("kept: 100 %")
    sample.locator(".pick-strategy").select_option(label="h2o")
    seen = set()
    for head in ("-1", "0", "1"):
        sample.locator(".pick-head").select_option(head)
        seen.add(sample.locator(".token.gone").evaluate_all("list => list.map((token) => token.dataset.at).join()"))
    assert len(seen) > 1
    assert trouble == []


def test_in_a_browser_any_run_may_be_the_baseline(browser: Any, page_file: Path) -> None:
    page, trouble = open_page(browser, page_file, 1280)
    budget = page.locator(".budget").first
    table = budget.locator("table:visible")
    assert table.locator("tr.baseline th").inner_text().startswith("full")
    assert table.locator("td.down").count() > 0
    assert budget.locator(".baseline-name").inner_text() == "full"
    budget.locator(".pick-baseline").select_option(label="h2o")
    assert table.locator("tr.baseline th").inner_text().startswith("h2o")
    assert table.locator("tr").nth(1).locator("td.up").count() > 0
    assert "against h2o over 4 samples" in str(table.locator("tr").nth(1).locator("td").first.get_attribute("title"))
    budget.locator(".pick-column").select_option(label="T-1")
    assert "difference from h2o" in budget.locator(".plot").inner_text()
    assert trouble == []


def test_in_a_browser_names_stay_in_sight_on_a_narrow_screen(browser: Any, page_file: Path) -> None:
    page, _ = open_page(browser, page_file, 390)
    scroll = page.locator(".official-only").first
    name = scroll.locator("tbody th").nth(1)
    before = name.bounding_box()
    scroll.evaluate("element => { element.scrollLeft = 200; }")
    assert scroll.evaluate("element => element.scrollLeft") > 50
    assert name.bounding_box() == before


def test_a_model_that_cannot_be_loaded_is_one_line_on_the_page(runs: Path, group: Group) -> None:
    run = group.rows[0].run
    identity = {"name": "llava7b", "_target_": "lookm.models.llava.load_llava", "path": "nowhere/at-all"}
    about = {**run.about, "configuration": {**run.configuration, "model": identity}}
    with pytest.MonkeyPatch.context() as context:
        context.setattr(run, "_about", about)
        with pytest.raises(LookmError) as caught:
            load_model(group, any_size=True)
        assert "TypeError" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_page_prints_in_light_colours(browser: Any, page_file: Path) -> None:
    page, trouble = open_page(browser, page_file, 1280, "dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") is None
    assert trouble == []
