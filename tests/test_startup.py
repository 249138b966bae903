"""What a command imports before it answers: a refusal, a help text and a finished run wait for no large package."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.command import COMMANDS

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "transformers", "pandas", "datasets", "sklearn", "scipy", "matplotlib", "rouge_score", "wandb")
"""Packages whose import takes a noticeable part of a second."""
MEASURING = {"device-check", "efficiency"}
"""Commands whose options depend on the device."""

PROGRAM = f"""
import json, sys
from scripts import command
for words in json.loads(sys.argv[1]):
    try:
        status = command.main(words)
    except SystemExit as end:
        status = end.code or 0
    print("\\nended:", json.dumps([words, status, [name for name in {SLOW} if name in sys.modules]]))
"""


def ends(*commands: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Exit status of each command, one after the other in one process, and what slow packages are imported by then."""
    arguments = json.dumps([*commands])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("ended: ") for line in done.stdout.splitlines() if line.startswith("ended: ")]
    ended = [json.loads(line) for line in lines]
    assert [words for words, *_ in ended] == [list(words) for words in commands]
    return [(status, imported) for _, status, imported in ended]


def test_help_imports_nothing_slow() -> None:
    commands = [[name, "--help"] for name in sorted(COMMANDS.keys() - MEASURING)] + [["run", "--cfg", "job"]]
    for words, end in zip(commands, ends(*commands), strict=True):
        assert end == (0, []), words


def test_a_wrong_value_is_refused_before_anything_slow_is_imported() -> None:
    wrong = [
        ["strategy=tp_pmrge"],
        ["seeed=1"],
        ["alpha1=2"],
        ["alpha1=0.6", "alpha2=0.6"],
        ["semantics=papr"],
        ["limit=x"],
        ["seed=-1"],
        ["task=Q-9"],
        ["datasets=[MiniWebQB]"],
        ["device=gpu"],
        ["dtype=fp8"],
        ["benchmark=milebench", "task=Q-9"],
        ["benchmark.samples=-3"],
        ["-m", "strategy=full,h2o", "alpha1=0.1,2"],
    ]
    for words, end in zip(wrong, ends(*(["run", *words] for words in wrong)), strict=True):
        assert end == (2, []), words


def test_a_wrong_field_of_a_strategy_needs_torch_alone() -> None:
    assert ends(["run", "strategy.merge=x"]) == [(2, ["torch"])]


def test_a_finished_run_prints_its_table_with_torch_alone(tmp_path: Path) -> None:
    words = ["run", "limit=1", "datasets=[MiniSpot-the-Diff]", f"results_dir={tmp_path}", f"data_dir={tmp_path}"]
    ((status, imported),) = ends(words)
    assert status == 0
    assert "transformers" in imported
    assert ends(words) == [(0, ["torch"])]
