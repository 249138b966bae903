"""Several processes of a node share a run's samples, and leave what one process leaves."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

import run
from benchmarks.command_line import Status
from benchmarks.evaluation import generate
from benchmarks.evaluation import run as running
from benchmarks.evaluation.active import Outcome
from benchmarks.evaluation.ranks import Ranks, current_ranks
from benchmarks.evaluation.run import attempt_group
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.verify import timeless
from lookm.errors import LookmError
from tests.conftest import Command
from tests.runner.conftest import OWN_CONFIGS, MakeSettings, settings_of  # noqa: F401
from tests.runner.random_llava import load_random
from tests.runner.small_benchmark import CHOICE

ROOT = Path(run.__file__).parent
SINGLE = ("model.batch_size=1",)
Shared = Callable[[list[Settings], int], list[list[Outcome | BaseException]]]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    """Computes runs with several threads in the place of processes; gives the results of each."""
    local = threading.local()
    monkeypatch.setattr(running, "current_ranks", lambda: local.ranks)

    def compute(settings: list[Settings], size: int) -> list[list[Outcome | BaseException]]:
        store = HashStore()
        # One for each thread, since what compresses a model's caches is attached to it; made here, since torch's seed
        # is one for all threads.
        models = [load_random(batch_size=1) for _ in range(size)]
        results: dict[int, Any] = {}

        def process(rank: int) -> None:
            local.ranks = Ranks(rank, size, store)
            results[rank] = attempt_group(settings, load=lambda _: models[rank])

        others = [threading.Thread(target=process, args=(rank,)) for rank in range(1, size)]
        for thread in others:
            thread.start()
        process(0)
        for thread in others:
            thread.join(60)
        return [results[rank] for rank in range(size)]

    return compute


def test_the_folders_are_those_of_one_process_for_any_number_of_them(
    settings_of: MakeSettings,  # noqa: F811
    shared: Shared,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = [settings_of(f"strategy={name}", *SINGLE) for name in ("full", "h2o")]
    shared(settings, 1)
    alone = [timeless(one.folder) for one in settings]
    asked: list[str] = []
    real = generate.generate_sweep

    def noted(*arguments: Any, **named: Any) -> Any:
        asked.append(threading.current_thread().name)
        return real(*arguments, **named)

    monkeypatch.setattr(generate, "generate_sweep", noted)
    again = [settings_of(f"strategy={one.strategy.name}", *SINGLE, "overwrite=true") for one in settings]
    for size in (2, 3):
        asked.clear()
        results = shared(again, size)
        assert sorted(asked.count(name) for name in set(asked)) == [12 // size] * size
        assert [timeless(one.folder) for one in settings] == alone
        for of_process in results:
            assert [result.summary.mean.n for result in of_process] == [12, 12]  # type: ignore[union-attr]


def test_another_number_of_processes_goes_on_where_one_was_killed(
    settings_of: MakeSettings,  # noqa: F811
    shared: Shared,
) -> None:
    settings = [settings_of("strategy=h2o", *SINGLE)]
    shared(settings, 1)
    alone = timeless(settings[0].folder)
    samples = settings[0].folder / CHOICE / "samples.jsonl"
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text(lines[0])
    samples.with_name("samples.1.jsonl").write_text(lines[2] + lines[1][:30])
    (outcome,), *_ = shared(settings, 3)
    assert isinstance(outcome, Outcome)
    assert outcome.computed == 2
    assert timeless(settings[0].folder) == alone


def test_a_process_that_fails_is_named_and_its_work_is_kept(
    settings_of: MakeSettings,  # noqa: F811
    shared: Shared,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = [settings_of("strategy=h2o", *SINGLE)]
    real = generate.generate_sweep
    asked: list[str] = []

    def fragile(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            asked.append("")
            if len(asked) == 3:
                raise RuntimeError("the GPU fell off")
        return real(*arguments, **named)

    monkeypatch.setattr(generate, "generate_sweep", fragile)
    (led,), (followed,) = shared(settings, 2)
    assert isinstance(led, LookmError)
    assert "process 1 of 2 stopped: the GPU fell off" in str(led)
    assert isinstance(followed, Outcome)
    monkeypatch.setattr(generate, "generate_sweep", real)
    (outcome,), *_ = shared(settings, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.computed == 4
    assert outcome.summary.mean.n == 12


def test_wrong_input_lets_all_processes_go(settings_of: MakeSettings, shared: Shared) -> None:  # noqa: F811
    settings = [settings_of("strategy=h2o", *SINGLE)]
    shared(settings, 1)
    about = settings[0].folder / "run.json"
    about.write_text(about.read_text().replace('"dtype": "float32"', '"dtype": "float16"'))
    (led,), *_ = shared(settings, 2)
    assert isinstance(led, LookmError)
    assert "was computed with other configuration" in str(led)


def test_processes_on_several_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LookmError, match="among the processes of one node"):
        current_ranks.__wrapped__()


def test_more_processes_than_gpus_are_refused(
    settings_of: MakeSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = settings_of("device=cuda", "dtype=float32")
    assert [Ranks(rank, 2).own_device(settings).device for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert Ranks().own_device(settings).device == "cuda"
    with pytest.raises(LookmError, match="started 3 processes, but torch sees 2 CUDA devices"):
        Ranks(0, 3).own_device(settings)


def test_torchrun_shares_a_sweep(command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep = ["strategy=full,h2o", "limit=3"]
    assert command("-m", *sweep, "results_dir=one") == Status.DONE
    expected = capfd.readouterr().out
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(ROOT / "run.py")]
    told = subprocess.run(
        [
            *program,
            "-m",
            "--config-dir",
            str(OWN_CONFIGS),
            "model=random",
            "benchmark=small",
            *sweep,
            "results_dir=two",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("scores in %") == told.stdout.count("-h2o-") == 1
    assert [line.split()[:4] for line in told.stdout.splitlines()[-6:-3]] == [
        line.split()[:4] for line in expected.splitlines()[-6:-3]
    ]
    for one in (tmp_path / "one").glob("random*"):
        assert timeless(tmp_path / "two" / one.name) == timeless(one)
