"""The docs: their code runs as it stands, their drawing is the tree, their table has every strategy."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lookm.registry import load_storage, load_strategy, storage_names, strategy_names
from lookm.strategy import Strategy
from scripts import pictures
from scripts.command import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
ELSEWHERE = {"baselines/evenly.py", "configs/strategy/evenly.yaml", "lookm/configs", "benchmarks/paper"}
"""What a reader makes, and places in the wheel."""


def blocks(page: str, language: str) -> list[str]:
    """Fenced code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize("page", ["engine", "quickstart", "ask_later", "wrapped"])
def test_library_code_runs_and_prints_what_the_page_shows(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks(page, "python"):
        exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    shown = [line for block in blocks(page, "text") for line in block.splitlines()]
    assert printed
    for line in printed:
        assert line in shown or "time" in line, line


def test_a_strategy_is_added_by_one_file_and_one_yaml(tmp_path: Path) -> None:
    for package in ("lookm", "baselines", "configs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("tiny_llava", "__pycache__"))
    (tmp_path / "baselines" / "evenly.py").write_text(blocks("adding", "python")[0], encoding="utf-8")
    (tmp_path / "configs" / "strategy" / "evenly.yaml").write_text(blocks("adding", "yaml")[0], encoding="utf-8")
    code = """
import torch
from lookm import compress_rows
q, k, v = torch.randn(3, 1, 2, 100, 8)
(row,) = compress_rows(q, k, v, torch.ones(100, dtype=torch.bool), strategy="evenly", alpha1=0.05, alpha2=0.05)
print(row.positions.tolist())
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str([[0, 19, 38, 57, 76, *range(95, 100)]] * 2)


def test_the_drawing_of_the_house_is_the_tree() -> None:
    (house,) = blocks("architecture", "text")
    drawn, top = set(), ""
    for indent, name in re.findall(r"^( *)([\w.]+/?) ", house, flags=re.MULTILINE):
        top = top if indent else name
        drawn.add(f"{top}{name}" if indent else name)
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = [Path(line) for line in tracked.stdout.splitlines() if (ROOT / line).exists()]
    folders = {f"{path.parts[0]}/" for path in files if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    rooms = {
        f"{path.parts[0]}/{path.parts[1]}/"
        for path in files
        if path.parts[0] in ("lookm", "benchmarks") and len(path.parts) > 2
    }
    assert drawn == folders | rooms | {"run.py"}


def test_every_strategy_and_storage_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import strategy_table

    made = [*map(load_strategy, strategy_names()), *map(load_storage, storage_names())]
    without = ("full", "random", "even", "replay", "window", "vnorm", "plain", "fp8")
    for named in made:
        make = strategy_table.row if isinstance(named, Strategy) else strategy_table.storage_row
        first, paper, keeps, *_ = make(named)
        assert first == f"`{named.name}`"
        assert len(keeps) > 20
        assert paper.startswith("[") or named.name in without


def test_what_a_method_reads_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from strategy_table import costs, reads

    tried = {
        name: reads(load_strategy(name)) for name in ("streaming", "h2o", "knorm", "cur", "tp", "corm", "madakv_heads")
    }
    assert tried == {
        "streaming": "nothing but positions",
        "h2o": "column sums of attention",
        "knorm": "keys",
        "cur": "keys, values",
        "tp": "column sums of attention, which tokens are images",
        "corm": "queries, keys",
        "madakv_heads": "the last queries' rows of attention, which tokens are images",
    }
    assert costs(load_strategy("prefixkv")).startswith("after the last layer")
    assert "one evicted × kept product" in costs(load_strategy("p_merge"))


def test_what_the_picture_of_kept_tokens_says_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pictures.main(["kept", "--output", "kept.png", "device=cpu"]) == 0
    shares = [line for line in capsys.readouterr().out.splitlines() if " of the image tokens" in line]
    assert shares
    assert shares == [line for line in PAGES["results"].splitlines() if " of the image tokens" in line]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_exists(page: str) -> None:
    for command in re.findall(r"(?:^|[`$;&(] ?)lookm ([a-z][\w-]*)", PAGES[page], flags=re.MULTILINE):
        assert command in COMMANDS, command
    for module in re.findall(r"python -m scripts\.(\w+)", PAGES[page]):
        assert (ROOT / "scripts" / f"{module}.py").exists(), module


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_test_that_a_page_names_exists(page: str) -> None:
    folders = "lookm|baselines|benchmarks|scripts|configs|results|tests|notebooks"
    for path in re.findall(rf"`((?:{folders})/[\w./]+)`", PAGES[page]):
        assert (ROOT / path).exists() or path in ELSEWHERE or path.startswith("results/runs"), path
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGES[page]):
        assert f"def {name}(" in tests, name


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "index.html").exists()
