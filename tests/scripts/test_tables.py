"""Claims about `scripts.tables` and `scripts.figures`, from a sweep of the tiny model to the table."""

import csv
import io
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.composition import compose_jobs
from scripts import figures, tables
from tests.tables.run_folders import STRATEGIES, Folders, right

ROOT = Path(tables.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 3's sweep on two samples of each of its datasets."""
    results = tmp_path_factory.mktemp("sweep") / "runs"
    command = [sys.executable, "run.py", "-m", "+experiment=table3", "limit=2", "device=cpu", f"results_dir={results}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return results


def test_a_table_is_one_command_after_its_sweep(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["table3", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Table 3 · tiny LLaVA (trained on MileBench-mini) · MileBench-mini · α 0.1 + 0.1")
    assert "missing" not in text
    assert "°: not all samples" in text
    assert "ours − paper" not in text
    for strategy in ("full", "h2o", "snapkv", "roco", "tp_pmerge"):
        assert f"\n{strategy} " in text


def test_the_csv_has_a_line_for_every_cell(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["table3", "--results", str(results), "--format", "csv", "--protocol", "repaired"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == 5 * 5
    assert {line["column"] for line in lines} == {"T-2", "S-4", "NH", "IR", "column mean"}
    assert {line["n"] for line in lines if line["column"] == "NH"} == {"4"}
    assert all(line["paper"] == "" and line["protocol"] == "repaired" for line in lines)
    assert all(float(line["low"]) <= float(line["minus_full"]) <= float(line["high"]) for line in lines if line["low"])


@pytest.mark.parametrize("more", [["--compact"], ["--by", "dataset"], ["--split", "images"]])
def test_the_other_tables_have_every_strategy(
    results: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert tables.main(["table3", "--results", str(results), *more]) == 0
    text = capsys.readouterr().out
    assert all(strategy in text for strategy in ("full", "h2o", "snapkv", "roco", "tp_pmerge"))


def test_the_command_that_fills_a_gap_names_a_folder_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "my runs, all"
    results.mkdir()
    folders = Folders(tmp_path / "made")
    folders.write("a-full", {**STRATEGIES["full"], "name": "full"}, right)
    (folders.results / "a-full").rename(results / "a-full")
    for asked in (results, results / "a-full"):
        assert tables.main(["table3", "--results", str(asked)]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  lookm "))
        words = shlex.split(line)
        (settings,) = {one.results_dir for one in compose_jobs([word for word in words[2:] if word != "-m"])}
        assert settings == results


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
def test_the_other_formats_and_the_split_work_as_well(
    results: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert tables.main(["table3", "--results", str(results), "--format", form, "--split", "truncation"]) == 0
    text = capsys.readouterr().out
    assert "samples that lost no image" in text
    assert "samples that lost images to the context limit" in text


def test_a_table_of_the_paper_without_runs_shows_the_paper_and_the_command(
    results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tables.main(["table1", "--benchmark", "milebench"]) == 0
    assert "Table 1 of the paper is of llava7b and llava13b, not of tiny." in capsys.readouterr().out
    assert figures.main(["figure6"]) == 2
    assert "lookm sweep +experiment=figure6" in capsys.readouterr().err


def test_a_figure_is_written_with_its_caption(
    results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "pictures" / "figure"
    assert figures.main(["figure6", "--results", str(results), "--output", str(path)]) == 0
    assert capsys.readouterr().out.split() == [f"{path}.png", f"{path}.svg"]
    assert "MileBench-mini is not the paper's benchmark" in Path(f"{path}.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table9"], "unknown experiment 'table9'"),
        (["table1", "--model", "gpt5"], "unknown model 'gpt5'"),
        (["table1", "--results", "nowhere"], "nowhere does not exist"),
        (["table1", "--where", "dtype"], "--where takes KEY=VALUE"),
        (["table3", "--where", "dtyp=float32"], "--where dtyp: no run has a setting of this name; did you mean dtype?"),
        (["table3", "--where", "dtype=float16"], "--where dtype=float16: no run has this value; there are float32"),
        (["table1", "--semantics", "mine"], "unknown semantics 'mine'; choose one of paper, release"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    more = [] if "--results" in arguments else ["--results", str(results)]
    assert tables.main([*arguments, *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {said}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_help_needs_neither_torch_nor_matplotlib(command: str) -> None:
    code = f"import sys; from scripts import {command}; {command}._parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "matplotlib", "pandas"} & set(loaded.split())
