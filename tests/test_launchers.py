"""Whatever launcher runs the jobs of a sweep, they leave the same folders and say the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

import run
from benchmarks.command_line import Status
from benchmarks.evaluation import generate
from benchmarks.evaluation.verify import timeless
from tests.conftest import Command
from tests.runner.conftest import OWN_CONFIGS
from tests.runner.small_benchmark import NEEDLE

ROOT = Path(run.__file__).parent
SWEEP = ("limit=2", f"datasets={NEEDLE}")


def folders(results: Path) -> dict[str, dict[str, bytes]]:
    """What is in the run folders, times aside."""
    return {path.name: timeless(path) for path in results.iterdir() if path.name != ".locks"}


def sweep_of_its_own(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The sweep in a process of its own: launchers start others, and write where the streams of this one point."""
    fixed = ("-m", "--config-dir", str(OWN_CONFIGS), "model=random", "benchmark=small", "device=cpu")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *fixed, *words],
        capture_output=True, text=True, cwd=folder, timeout=240, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategies", "launcher"),
    [
        ("full,h2o,tp_pmerge", ("basic",)),
        ("full,h2o", ("joblib", "hydra.launcher.n_jobs=2")),
        ("h2o", ("submitit_local", "hydra.launcher.submitit_folder=submitted")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_every_launcher_leaves_the_same_folders_and_comparison(
    strategies: str,
    launcher: tuple[str, ...],
    command: Command,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    sweep = (*SWEEP, f"strategy={strategies}")
    assert command("-m", *sweep, "results_dir=grouped") == Status.DONE
    expected = capfd.readouterr().out
    name, *settings = launcher
    done = sweep_of_its_own(tmp_path, *sweep, "results_dir=other", f"hydra/launcher={name}", *settings)
    assert done.returncode == Status.DONE, done.stderr
    assert folders(tmp_path / "other") == folders(tmp_path / "grouped")
    assert len(folders(tmp_path / "other")) == len(strategies.split(","))
    ours, theirs = (out[out.index("scores in %") :].splitlines() for out in (expected, done.stdout))
    assert [line.split()[:4] for line in ours[4:7]] == [line.split()[:4] for line in theirs[4:7]]
    assert done.stdout.count("scores in %") == 1


class Recorder(Callback):
    """Writes down what Hydra tells of every job."""

    seen: list[tuple[Any, ...]] = []  # noqa: RUF012

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        hydra = config.hydra
        self.seen.append(("start", hydra.job.num, list(hydra.overrides.task), hydra.runtime.output_dir))

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        self.seen.append(
            ("end", config.hydra.job.num, job_return.overrides, job_return.status, repr(job_return.return_value))
        )


RECORDED = f"+hydra.callbacks.recorder._target_={__name__}.Recorder"


def test_jobs_are_told_of_as_hydra_tells_of_them_one_by_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for launcher in ("basic", "grouped"):
        monkeypatch.setattr(sys.modules[__name__].Recorder, "seen", [])
        words = ("strategy=h2o,full", "alpha1=0.05,0.1", "limit=1", f"datasets={NEEDLE}", f"results_dir={launcher}")
        command("-m", *words, RECORDED, "hydra.sweep.dir=swept", f"hydra/launcher={launcher}")
        told[launcher] = [
            tuple(str(item).replace(launcher, "") for item in event) for event in sys.modules[__name__].Recorder.seen
        ]
    assert told["grouped"] == told["basic"]
    assert [event[:2] for event in told["grouped"]] == [
        (kind, str(number)) for number in range(4) for kind in ("start", "end")
    ]


def test_a_sweeper_may_hand_over_its_jobs_in_batches(
    command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []
    real = generate.generate_sweep

    def noted(model: Any, inputs: Any, strategies: Any, **named: Any) -> Any:
        swept.append([strategy.name for strategy in strategies])
        return real(model, inputs, strategies, **named)

    monkeypatch.setattr(generate, "generate_sweep", noted)
    words = ("strategy=full,h2o,tp", "limit=1", f"datasets={NEEDLE}", "hydra.sweeper.max_batch_size=2")
    assert command("-m", *words) == Status.DONE
    assert swept == [["full", "h2o"], ["tp"]]
    assert "3 jobs, 3 runs" in capfd.readouterr().err


def test_jobs_with_working_directories_of_their_own_are_computed_alone(command: Command, tmp_path: Path) -> None:
    words = ("strategy=full,h2o", "limit=1", f"datasets={NEEDLE}", f"data_dir={tmp_path}/data")
    command("-m", *words, "hydra.job.chdir=true", "hydra.sweep.dir=swept", "hydra.sweep.subdir=${hydra.job.num}")
    assert {path.relative_to(tmp_path).parts[1] for path in tmp_path.glob("swept/*/results/runs/*/run.json")} == {
        "0", "1"
    }  # fmt: skip


def test_samples_of_another_selection_are_added_after_the_first(command: Command, tmp_path: Path) -> None:
    assert command("-m", "strategy=full,h2o", "limit=1,3", f"datasets={NEEDLE}", "overwrite=true") == Status.DONE
    for path in (tmp_path / "results" / "runs").glob("*/*/samples.jsonl"):
        assert path.read_text().count("\n") == 3
