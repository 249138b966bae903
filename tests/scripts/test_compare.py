"""Claims about `scripts.compare`."""

import shutil
from pathlib import Path

import pytest

from benchmarks.tables import cells as cells_module
from scripts import compare
from tests.runner.small_benchmark import CHOICE, SAMPLES
from tests.tables.run_folders import STRATEGIES, Folders, right

FULL = {**STRATEGIES["full"], "name": "full"}
H2O = {**STRATEGIES["h2o"], "name": "h2o", "alpha1": 0.1, "alpha2": 0.1, "semantics": "paper"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cells_module, "FEWEST_PAIRS", 1)
    folders = Folders(tmp_path)
    wrong = folders.write("paper", H2O, lambda dataset, number: "right" if dataset == CHOICE else "a cat")
    good = folders.write("release", {**H2O, "semantics": "release"}, right, dtype="bfloat16")
    return [str(wrong), str(good)]


def test_any_two_runs_are_compared_task_by_task_with_what_they_differ_in(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(runs) == 0
    first, _, head, _, *rows = capsys.readouterr().out.splitlines()
    rows = [row for row in rows if row]
    assert first.endswith("differ in dtype (float32, bfloat16); strategy.semantics (paper, release)")
    assert head.split()[:2] == ["task", "n"]
    cells = {row.split()[0]: row.split() for row in rows}
    assert list(cells) == ["T-1", "S-3", "N-1", "task", "official"]
    assert cells["T-1"][1:7] == [str(SAMPLES), "0.0", "100.0", "+100.0▲", "+100.0", "+100.0"]
    assert cells["task"][1:3] == ["mean", str(3 * SAMPLES)]


def test_few_pairs_are_compared_without_interval_and_mark(
    runs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_module, "FEWEST_PAIRS", SAMPLES + 1)
    assert compare.main([*runs, "--format", "csv"]) == 0
    assert "T-1,4,0.0,100.0,+100.0,–,–" in capsys.readouterr().out


def test_several_pairs_have_a_line_each(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--means", *runs, *reversed(runs)]) == 0
    first, second = capsys.readouterr().out.splitlines()[2:4]
    assert first.split()[0] == "release"
    assert second.split()[0] == "paper"
    assert first.split()[4].strip("+▲") == second.split()[4].strip("−▼")


def test_a_dataset_that_one_run_lacks_is_refused_and_left_out_of_every_number_with_common(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(Path(runs[0]) / CHOICE)
    assert compare.main(runs) == 2
    assert f"only release has samples of {CHOICE}; complete the other run, or add --common" in capsys.readouterr().err
    assert compare.main(["--common", "--means", "--format", "csv", *runs]) == 0
    _, line, *_ = capsys.readouterr().out.splitlines()
    name, n, first, second, difference, *_ = line.split(",")
    assert (name, n, first, second, difference) == ("release", str(2 * SAMPLES), "0.0", "50.0", "+50.0▲")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([0], "give two run folders"), ([0, 1, 0, 1], "give two run folders"), ([0, 0], "two run folders of different")],
)
def test_wrong_input_is_one_line_and_status_2(
    runs: list[str], capsys: pytest.CaptureFixture[str], arguments: list[int], said: str
) -> None:
    assert compare.main([runs[place] for place in arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
