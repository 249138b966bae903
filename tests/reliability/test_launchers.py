"""Jobs in processes of their own: they share runs through locks, and a cluster's options reach sbatch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.evaluation.verify import timeless
from lookm.locations import CONFIGS
from tests.runner.conftest import OWN_CONFIGS
from tests.runner.small_benchmark import NEEDLE

ROOT = CONFIGS.parent


def launcher(*overrides: str) -> dict[str, Any]:
    """The composed node of a launcher."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    whole = OmegaConf.masked_copy(config, ["results_dir"])
    whole.launcher = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    resolved = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(resolved, dict)
    return {key: value for key, value in resolved["launcher"].items() if "${hydra" not in str(value)}


def sweep(tmp_path: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """A sweep of the command line on the random model and one small dataset."""
    command = [
        *(sys.executable, "run.py", "-m", f"hydra.searchpath=[file://{OWN_CONFIGS}]", "model=random"),
        *("benchmark=small", "device=cpu", f"datasets={NEEDLE}", f"results_dir={tmp_path}/runs"),
        *(f"data_dir={tmp_path}/data", *overrides),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, env=environment, check=False)


def test_two_processes_that_are_given_one_run_compute_it_once(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    done = sweep(tmp_path, "hydra/launcher=local", "strategy=full", "alpha1=0.1,0.2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 jobs, 1 runs") == 1
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir() and not path.name.startswith("."))
    about = json.loads((run / "run.json").read_text())
    assert about["state"] == "finished"
    assert len(about["sessions"]) == 1, "whoever came second found nothing to compute"
    assert len((run / NEEDLE / "samples.jsonl").read_text().splitlines()) == 4
    assert all(not name.endswith(".tmp") for name in timeless(run))


def test_a_group_is_one_job_whose_tasks_share_its_samples(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    done = sweep(tmp_path, "hydra/launcher=local", "hydra.launcher.tasks_per_node=2", "strategy=full,h2o")
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 2 runs" in done.stderr
    results = [path.name for path in (tmp_path / "runs" / ".submitit").glob("*/*_result.pkl")]
    assert len({name.split("_")[0] for name in results}) == 1, "one job for both runs"
    assert len(results) == 2, "two tasks"
    alone = tmp_path / "alone"
    again = sweep(alone, "strategy=full,h2o", f"data_dir={tmp_path}/data")
    assert again.returncode == 0, again.stderr
    runs = sorted(path.name for path in (tmp_path / "runs").glob("random-*"))
    assert len(runs) == 2
    for run in runs:
        assert timeless(tmp_path / "runs" / run) == timeless(alone / "runs" / run)


def test_workers_compute_groups_and_say_each_jobs_result_in_order(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = sweep(tmp_path, "hydra/launcher=workers", "strategy=full,h2o", "seed=0,1", "limit=2")
    assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in (tmp_path / "runs").glob("random-*"))
    assert len(runs) == 4
    assert all("decode_rows\": 4" in text for text in [
        (tmp_path / "runs" / name / NEEDLE / "samples.jsonl").read_text() for name in runs
    ]), "both strategies were decoded as one batch of two prompts"  # fmt: skip


def test_the_clusters_options_reach_sbatch(tmp_path: Path) -> None:
    slurm = pytest.importorskip("submitit.slurm.slurm")
    node = launcher("hydra/launcher=slurm", "hydra.launcher.partition=a100", "hydra.launcher.timeout_min=90")
    assert node.pop("_target_").endswith("GroupedSlurm")
    renamed = {"timeout_min": "time", "name": "job_name", "tasks_per_node": "ntasks_per_node"}
    known = set(slurm._get_default_parameters())
    parameters = {renamed.get(key, key): value for key, value in node.items() if value is not None}
    for key in ("submitit_folder", "max_num_timeout", "array_parallelism"):
        parameters.pop(key)
    parameters["mem"] = f"{parameters.pop('mem_gb')}GB"
    assert set(parameters) <= known
    text = slurm._make_sbatch_string("python run.py", folder=tmp_path, **parameters)
    for line in ("--partition=a100", "--gpus-per-node=1", "--time=90", "--mem=64GB", "--job-name=lookm"):
        assert f"#SBATCH {line}\n" in text


def test_joblibs_workers_are_configured() -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    node = launcher("hydra/launcher=workers", "hydra.launcher.n_jobs=3")
    assert (node["_target_"].rpartition(".")[2], node["n_jobs"]) == ("GroupedWorkers", 3)


def test_jobs_logs_lie_beside_the_runs_on_the_shared_disk() -> None:
    pytest.importorskip("submitit")
    for name in ("slurm", "local"):
        folder = launcher(f"hydra/launcher={name}", "results_dir=/shared/runs")["submitit_folder"]
        assert folder == "/shared/runs/.submitit/%j"
    assert launcher("hydra/launcher=slurm")["max_num_timeout"] > 0, "a job that runs out of time goes on in a new one"
