"""The command `lookm`, and the demonstration that it and `scripts/demo.sh` start."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lookm.registry import ready_strategies
from scripts import command, demo, leaderboard

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_command_is_a_script_with_a_main() -> None:
    for module, _, what in command.COMMANDS.values():
        assert re.search(r"^def main\(", (ROOT / "scripts" / f"{module}.py").read_text(encoding="utf-8"), re.MULTILINE)
        assert what in command.overview()


def test_help_and_a_mistyped_command_import_nothing_heavy() -> None:
    code = """
import sys
from scripts import command
assert command.main(["--help"]) == 0
assert command.main(["tabel"]) == 2
print(sorted({"torch", "transformers", "hydra", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("usage: lookm COMMAND")
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == "error: unknown command 'tabel'; did you mean 'table'?\n"


def test_a_name_like_no_other_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["zzz"]) == command.WRONG_INPUT
    assert capsys.readouterr().err.startswith("error: unknown command 'zzz'; choose one of demo, run, sweep, ")


def test_arguments_and_exit_status_are_the_script_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["compare", "only-one-run"]) == 2
    assert "give two run folders" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "extra"), [("omegaconf", "harness"), ("plotly", "report")])
def test_a_missing_package_is_one_line_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, extra: str
) -> None:
    def absent(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}.sub'", name=f"{package}.sub")

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(command, "import_module", absent)
    assert command.main(["run"]) == command.WRONG_INPUT
    line = f"error: `lookm run` needs the package {package}: pip install 'lookm-harness[{extra}]'\n"
    assert capsys.readouterr().err == line


def test_a_module_that_this_program_lacks_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.COMMANDS, "gone", ("gone", (), ""))
    with pytest.raises(ModuleNotFoundError):
        command.main(["gone"])


def test_the_demonstration_tells_its_numbers_from_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["benchmark.samples=2", "datasets=[MiniTextNeedleInAHaystack,MiniWebQA]", "device=cpu"]
    assert demo.main(small) == 0
    table, _, story = capfd.readouterr().out.rpartition("\n\n")
    rows = [line.split() for line in table.splitlines() if line.startswith(demo.STRATEGIES)]
    assert [row[0] for row in rows] == list(demo.STRATEGIES)
    full, h2o, lookm = rows  # strategy α1 α2 S-1 N-1 mean budget …
    for column in (4, 5):
        told = f"{h2o[column]} % with h2o and {lookm[column]} % with tp_pmerge, against {full[column]} %"
        assert told in story
    assert "tiny LLaVA" in story
    assert "MileBench-mini" in story
    assert demo.main(["alpha1=7"]) == 2


def test_the_leaderboard_ranks_every_strategy_and_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["benchmark.samples=1", "datasets=[MiniTextNeedleInAHaystack,MiniWebQA]", "device=cpu"]
    small.append("model.max_new_tokens=2")
    assert leaderboard.main(["--tasks", "N-1,S-1", "--output", "board.txt", *small]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "board.txt").read_text(encoding="utf-8") == printed
    title, _, head, _, *lines = printed.splitlines()
    assert "tiny LLaVA" in title
    assert head.split() == ["strategy", "mean", "N-1", "S-1", "bytes", "%", "changed", "%"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(rows) == {*ready_strategies(), "chance"}
    means = [float(row[0]) for row in rows.values()]
    assert means == sorted(means, reverse=True)
    for name, (mean, told, seen, *costs) in rows.items():
        assert float(mean) == pytest.approx((float(told) + float(seen)) / 2, abs=0.1)
        assert bool(costs) == (name != "chance")
    assert rows["full"][3:] == ["100.0", "–"]
