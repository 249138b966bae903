"""For the whole suite: reproducible hypothesis runs, as many threads as OMP_NUM_THREADS says (by default one), and the
command line as a function."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("reproducible")

Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls the command line in this process, standing in a temporary folder; gives the exit status."""
    import run
    from benchmarks import command_line
    from tests.runner.conftest import OWN_CONFIGS

    def call(*arguments: str) -> int:
        fixed = ["--config-dir", str(OWN_CONFIGS), "model=random", "benchmark=small", "device=cpu"]
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        given = {override.partition("=")[0] for override in overrides}
        defaults = [word for word in fixed if word.partition("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", ["run.py", *flags, *defaults, *overrides])
        try:
            return command_line.guard(run.job)
        except SystemExit as end:
            return int(end.code or 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return call
