"""What a command imports before it answers: a refusal, a help text and a finished run wait for no large package."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.command import COMMANDS

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "transformers", "pandas", "datasets", "sklearn", "scipy", "matplotlib", "rouge_score", "wandb")
"""Packages whose import takes a noticeable part of a second."""

PROGRAM = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *(name for name in {SLOW} if name in sys.modules)))
import run
sys.exit(run.main())
"""


def imported(*words: str, status: int) -> list[str]:
    """Which slow packages `python run.py *words` has imported when it ends."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]], ids=lambda words: " ".join(words))
def test_help_imports_nothing_slow(words: list[str]) -> None:
    assert imported(*words, status=0) == []


MEASURING = {"device-check", "efficiency"}
"""Commands whose options depend on the device."""


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - MEASURING))
def test_the_help_of_every_command_imports_nothing_slow(name: str) -> None:
    program = PROGRAM.replace(
        "import run\nsys.exit(run.main())", "from scripts import command\nsys.exit(command.main())"
    )
    done = subprocess.run([sys.executable, "-c", program, name, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1].split()) == (0, ["imported:"]), done.stderr


@pytest.mark.parametrize(
    "words",
    [
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
    ],
    ids=lambda words: " ".join(words),
)
def test_a_wrong_value_is_refused_before_anything_slow_is_imported(words: list[str]) -> None:
    assert imported(*words, status=2) == []


def test_a_wrong_field_of_a_strategy_needs_torch_alone() -> None:
    assert imported("strategy.merge=x", status=2) == ["torch"]


def test_a_finished_run_prints_its_table_with_torch_alone(tmp_path: Path) -> None:
    words = ["limit=1", "datasets=[MiniSpot-the-Diff]", f"results_dir={tmp_path}", f"data_dir={tmp_path}"]
    assert "transformers" in imported(*words, status=0)
    assert imported(*words, status=0) == ["torch"]
