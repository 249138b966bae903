"""The command line: sweeps, tables, exit statuses, and one line for what is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import run
from benchmarks.command_line import Status
from benchmarks.evaluation import KEYS, compute
from benchmarks.evaluation import run as running
from tests.conftest import Command
from tests.runner.small_benchmark import NEEDLE

ROOT = Path(run.__file__).parent


def runs_in(folder: Path) -> list[Path]:
    """The folders of runs where a command was called; locks lie beside them."""
    return [path for path in (folder / "results" / "runs").iterdir() if path.name != ".locks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strategy=foo",), r"unknown strategy 'foo'; choose one of .*full, h2o.*tp_pmerge"),
        (("model=gpt",), r"unknown model 'gpt'; choose one of .*random, tiny"),
        (("benchmark=none",), r"unknown benchmark 'none'; choose one of .*mini, small"),
        (("logger=x",), r"unknown logger 'x'; choose one of none"),
        (("datasets=[X]",), r"unknown dataset 'X'; small benchmark has SmallOrder"),
        (("alpa1=0.3",), r"unknown key 'alpa1'; did you mean 'alpha1'\?"),
        (("+alpa1=0.3",), r"unknown key 'alpa1'; the keys are model, strategy"),
        (("+strategy.prior=off",), r"strategy 'tp_pmerge' has no field 'prior'; it has"),
        (("+model.colour=red",), r"unexpected keyword argument 'colour'"),
        (("model.device=cuda:9", "benchmark.root=[1"), r"\S"),
        (("strategy.prior=off",), r"unknown key 'strategy.prior'; this strategy has no such field"),
        (("alpha1=2",), r"alpha1 must be a number from 0 to 1, not 2"),
        (("strategy=full,h2o",), r"strategy=full,h2o names several values; add -m"),
        (("-m", "strategy=full,foo"), r"unknown strategy 'foo'; choose one of"),
        (("-m", "strategy=full", "alpha1=0.1,0.2,7"), r"alpha1 must be a number from 0 to 1, not 7"),
        (("-m", "alpa1=0.1,0.2"), r"unknown key 'alpa1'; did you mean 'alpha1'\?"),
        (("model=tiny", "model.path=nowhere"), r"no model in nowhere"),
        (("benchmark=milebench",), r"lookm download milebench"),
        (("strategy=[",), r"\S"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert command(*arguments) == Status.WRONG_INPUT
    told = capfd.readouterr()
    assert re.fullmatch(rf"error: .*(?:{message}).*\n", told.err), told.err
    assert told.out == ""
    assert not (tmp_path / "results").exists(), "nothing may have been computed"


def test_the_keys_that_messages_name_are_those_of_the_configuration() -> None:
    config = OmegaConf.load(ROOT / "configs" / "config.yaml")
    chosen = [next(iter(item)) for item in config.defaults if item != "_self_"]
    own = {key for key in config if key not in ("defaults", "hydra")}
    assert set(KEYS) == own | {name for name in chosen if not name.startswith("override")}


def test_a_run_writes_its_folder_and_nothing_else(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("strategy=h2o", f"datasets={NEEDLE}") == Status.DONE
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results"}
    (folder,) = runs_in(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"run.json", NEEDLE}
    told = capfd.readouterr()
    assert "random LLaVA · small benchmark · h2o, nominal budget 20%" in told.out
    assert "\r" not in told.err, "no progress bar where no terminal is"
    assert "4/4 samples" in told.err


def test_a_failed_sample_makes_status_3(command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("limit=1") == Status.DONE
    (tmp_path / "data" / "small" / NEEDLE / "images" / "3_0.png").unlink()
    assert command() == Status.SAMPLES_FAILED
    assert "failed ones are in samples.jsonl with their reason" in capfd.readouterr().out
    assert command("limit=3") == Status.DONE, "the failed one is not selected"
    assert command("-m", "strategy=h2o,tp") == Status.SAMPLES_FAILED


def test_a_results_folder_that_cannot_be_written_is_wrong_input(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert command(f"datasets={NEEDLE}", "results_dir=file") == Status.WRONG_INPUT
    assert re.fullmatch(r"error: file/\S+ cannot be (read|written to).*Not a directory.*\n", capfd.readouterr().err)


def test_ctrl_c_says_how_to_go_on(
    command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compute, "answer", interrupt)
    assert command() == Status.INTERRUPTED
    assert "interrupted; the same command goes on from here" in capfd.readouterr().err


def test_a_sweep_ends_in_one_comparison(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, loaded = running.construct, []

    def counted(*arguments: Any, **named: Any) -> Any:
        loaded.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(running, "_loaded", {})
    monkeypatch.setattr(running, "construct", counted)
    assert command("-m", "strategy=full,h2o", "alpha1=0.05,0.1", "overwrite=true") == Status.DONE
    told = capfd.readouterr()
    assert "4 jobs, 3 runs" in told.err
    table = told.out[told.out.index("scores in %") :].splitlines()
    assert [line.split()[:3] for line in table[4:7]] == [
        ["full", "–", "–"], ["h2o", "0.05", "0.1"], ["h2o", "0.1", "0.1"]
    ]  # fmt: skip
    assert told.out.count("12 samples computed") == 3, "the full cache does not depend on the budget"
    assert len(loaded) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results"}
    assert len(runs_in(tmp_path)) == 3


def test_a_job_that_crashes_does_not_take_the_others_along(
    command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compute.answer

    def crash(backbone, strategies, *rest, **named):  # type: ignore[no-untyped-def]
        if any(strategy.name == "h2o" for strategy in strategies):
            raise RuntimeError("the GPU fell off")
        return real(backbone, strategies, *rest, **named)

    monkeypatch.setattr(compute, "answer", crash)
    assert command("-m", "strategy=h2o,tp") == Status.CRASHED
    told = capfd.readouterr()
    assert "RuntimeError: the GPU fell off" in told.err
    assert re.search(r"^tp .* 0 ", told.out, re.MULTILINE)
    assert re.search(r"^h2o .* 12 ", told.out, re.MULTILINE), "twelve samples without an answer"


def test_a_sweep_refuses_a_folder_made_from_something_else_before_it_starts(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("strategy=tp", "limit=1") == Status.DONE
    (about,) = (tmp_path / "results" / "runs").glob("*/run.json")
    content = json.loads(about.read_text())
    content["configuration"]["dtype"] = "float16"
    about.write_text(json.dumps(content))
    capfd.readouterr()
    assert command("-m", "strategy=h2o,tp") == Status.WRONG_INPUT
    assert "was computed with other configuration (dtype: 'float16' there" in capfd.readouterr().err
    assert len(runs_in(tmp_path)) == 1


def test_it_works_as_a_program_from_any_folder(tmp_path: Path) -> None:
    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    told = program("--help")
    assert told.returncode == 0
    for words in ("strategy: a_merge, ", " h2o, ", "model: ", "alpha1       share", "Exit status: 0 done"):
        assert words in told.stdout
    told = program("strategy=foo")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("error: unknown strategy 'foo'; choose one of a_merge, ")
    assert told.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_tasks_compares_all_of_them(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("-m", "strategy=full,h2o", "task=T-1,N-1") == Status.DONE
    told = capfd.readouterr()
    assert "4 jobs, 2 runs" in told.err
    head = next(line for line in told.out.splitlines() if line.startswith("strategy"))
    assert "T-1" in head
    assert "N-1" in head
