"""Claims about the eleven-row table."""

import json
from pathlib import Path
from typing import Any

import pytest

from lookm.registry import strategy_names
from scripts import mini_table

ROOT = Path(mini_table.__file__).resolve().parent.parent


def test_the_table_has_the_paper_s_eleven_rows() -> None:
    assert len(mini_table.PAPER_ROWS) == 11
    assert set(mini_table.PAPER_ROWS) <= set(strategy_names())
    assert mini_table.PAPER_ROWS[0] == "full"


def test_the_table_is_written_with_its_command_and_nothing_is_written_after_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_table, "PAPER_ROWS", ("full", "tp_pmerge"))
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "table"
    assert mini_table.main(["--output", str(output), "alpha1=7"]) == 2
    assert not output.exists()
    assert mini_table.main(["--output", str(output), "limit=1", "task=N-1"]) == 0
    text = (output / "table.txt").read_text()
    assert text.startswith("$ python run.py -m strategy=full,tp_pmerge limit=1 task=N-1\n")
    assert "MileBench-mini" in text
    result: dict[str, Any] = json.loads((output / "table.json").read_text())
    assert [row["strategy"] for row in result["rows"]] == ["full", "tp_pmerge"]
    assert result["rows"][1]["tasks"]["N-1"]["n"] == 1
    assert result["hardware"]["processor"]


def test_nothing_is_written_unless_it_is_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mini_table, "PAPER_ROWS", ("full", "tp_pmerge"))
    monkeypatch.chdir(tmp_path)
    before = (ROOT / "results/mini/table.txt").read_bytes()
    assert mini_table.main(["limit=1", "task=N-1"]) == 0
    assert "tp_pmerge" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"results", "data"}
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["runs"]
    assert (ROOT / "results/mini/table.txt").read_bytes() == before


def test_a_crashed_sweep_is_the_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mini_table.run, "main", lambda argv: 1)
    assert mini_table.main(["--output", str(tmp_path / "none")]) == 1
