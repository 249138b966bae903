import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation.cells import Totals
from benchmarks.evaluation.loggers.content import numbers
from benchmarks.milebench import TASKS
from scripts.dashboard import main, make_workspace, specification

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")

ROW = Totals(
    0.5, 4, 0, ("A",), chance=0.25, budget=0.2, kept_bytes=100.0, decode_ms=2.0, changed=0.1,
    scores={"official": 0.5, "repaired": 0.5},
)  # fmt: skip


def strings(value: Any) -> set[str]:
    """All texts in a JSON value."""
    if isinstance(value, dict):
        return set().union(*map(strings, value.values()), set())
    if isinstance(value, list):
        return set().union(*map(strings, value), set())
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("name", ["workspace", "report"])
def test_panels_show_what_the_logger_sends_and_nothing_else(name: str) -> None:
    found = strings(specification("team", "lookm")[name])
    shown = {text.removeprefix("summary:").removeprefix("summary_metrics.") for text in found if "/" in text}
    sent = set(numbers(ROW, "mean")) | {key for task in TASKS for key in numbers(ROW, f"task/{task}")}
    metrics = {text for text in shown if text.startswith(("mean/", "task/"))}
    assert {f"task/{task}/official" for task in TASKS} <= metrics
    assert {"mean/kept_bytes", "mean/decode_ms", "mean/realised_budget"} <= metrics
    assert metrics <= sent
    assert "samples" in found


def test_workspace_groups_runs_by_strategy() -> None:
    workspace = make_workspace("team", "lookm")
    assert [section.name for section in workspace.sections] == ["Scores", "Costs", "Tasks", "Samples"]
    assert workspace.runset_settings.groupby[0].name == "identity.strategy.name"


def test_offline_the_specification_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["--output", str(tmp_path / "dashboard.json")]) == 0
    written = json.loads((tmp_path / "dashboard.json").read_text())
    assert set(printed) == set(written) == {"workspace", "report"}


def test_online_without_entity_or_account_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--mode", "online"]) == 2
    assert "needs --entity" in capsys.readouterr().err

    def refuse(self: object, *arguments: object, **named: object) -> None:
        raise RuntimeError("no\naccount")

    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", refuse)
    assert main(["--mode", "online", "--entity", "team"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: wandb did not save it: no account")
    assert error.count("\n") == 1
