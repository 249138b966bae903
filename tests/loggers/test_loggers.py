import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.evaluation.loggers import Logger, name_group, open_logger
from benchmarks.evaluation.run import run, run_group
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.summary import Summary
from lookm.errors import LookmError
from scripts import log
from tests.loggers.offline_run import OfflineRun, read_offline_run
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import CHOICE, DATASETS, NEEDLE

WANDB = "benchmarks.evaluation.loggers.wandb.WandbLogger"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)


def finished_run(settings: Settings) -> tuple[Summary, RunFolder]:
    untold = replace(settings, resolved={**settings.resolved, "logger": None})
    return run(untold).summary, RunFolder(settings.folder)


def tell(logger: Logger, settings: Settings) -> None:
    """All that a run tells its logger."""
    _, folder = finished_run(settings)
    logger.started(folder)
    for info in settings.datasets:
        logger.dataset_done(folder, info.dataset)
    logger.finished(folder)


def offline_run(folder: Path) -> OfflineRun:
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return offline_run_of(path)


def offline_run_of(path: Path) -> OfflineRun:
    for _ in range(100):  # wandb's own process writes the file, now and then a moment later
        found = read_offline_run(path)
        if found.exit_code is not None:
            break
        time.sleep(0.05)
    return found


def test_wandb_gets_configuration_scores_samples_pictures_and_the_folder(
    settings_of: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_of("strategy=h2o", "logger=wandb", f"logger.dir={tmp_path}/logs", "logger.samples=2")
    summary, _ = finished_run(settings)
    tell(open_logger(settings.resolved["logger"]), settings)
    sent = offline_run(tmp_path / "logs")

    assert sent.run.display_name == settings.run
    assert sent.run.run_group == "random-small"
    assert sent.config["alpha1"] == 0.1
    assert sent.config["strategy"] == settings.resolved["strategy"]
    assert sent.exit_code == 0
    for task, row in summary.rows.items():
        assert sent.summary[f"task/{task}/official"] == row.scores["official"]
        assert sent.summary[f"task/{task}/repaired"] == row.scores["repaired"]
    for info in DATASETS:
        assert {f"dataset/{info.dataset}/{name}" for name in ("official", "repaired", "decode_ms")} <= set(sent.history)
    assert sent.summary["mean/realised_budget"] == summary.mean.budget
    assert sent.summary["mean/kept_bytes"] == summary.mean.kept_bytes

    results = next(artifact for artifact in sent.artifacts if artifact.type == "results")
    paths = {entry.path for entry in results.manifest.contents}
    assert {"run.json", f"{CHOICE}/samples.jsonl", f"{CHOICE}/pred.json"} <= paths

    rows = next(artifact for artifact in sent.artifacts if artifact.type == "run_table")
    files = {entry.path: Path(entry.local_path) for entry in rows.manifest.contents}
    table = json.loads(files["samples.table.json"].read_text())
    assert len(table["data"]) == 2 * len(DATASETS)
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert first["dataset"] == CHOICE
    assert first["truth"] == "left"
    with Image.open(files[first["image 1"]["path"]]) as picture:
        assert picture.size == (16, 16)
    assert first["image 2"] is None  # the first sample has one image


def test_a_sweep_names_the_group_of_its_runs_but_not_against_the_user(
    settings_of: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_GROUP", "set to be restored")
    monkeypatch.delenv("WANDB_RUN_GROUP")
    name_group(["strategy=full,h2o", "alpha1=0.05,0.1"])
    name_group(["another"])
    settings = settings_of(
        "logger=wandb", f"logger.dir={tmp_path}/logs", "logger.samples=0", "logger.artifact=false", "limit=1"
    )
    tell(open_logger(settings.resolved["logger"]), settings)
    sent = offline_run(tmp_path / "logs")
    assert sent.run.run_group == "strategy=full,h2o alpha1=0.05,0.1"
    assert not sent.artifacts
    os.environ.pop("WANDB_RUN_GROUP")


def test_a_failed_run_is_sent_as_failed(settings_of: MakeSettings, tmp_path: Path) -> None:
    settings = settings_of("logger=wandb", f"logger.dir={tmp_path}/logs", f"datasets={NEEDLE}")
    finished_run(settings)
    logger = open_logger(settings.resolved["logger"])
    logger.started(RunFolder(settings.folder))
    logger.failed(MemoryError("out of\nmemory"))
    sent = offline_run(tmp_path / "logs")
    assert sent.summary["error"] == "out of memory"
    assert sent.exit_code == 1


def test_tensorboard_gets_scalars_and_text(settings_of: MakeSettings, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = settings_of("logger=tensorboard", f"logger.dir={tmp_path}/boards", "logger.samples=1", "strategy=h2o")
    tell(open_logger(settings.resolved["logger"]), settings)
    summary, _ = finished_run(settings)
    events = EventAccumulator(str(tmp_path / "boards" / settings.run)).Reload()
    (score,) = events.Scalars("mean/official")
    assert score.value == pytest.approx(summary.mean.scores["official"])
    assert f"dataset/{NEEDLE}/repaired" in events.Tags()["scalars"]
    texts = events.Tags()["tensors"]
    assert {"configuration/text_summary", "table/text_summary", f"{CHOICE}/0/text_summary"} <= set(texts)
    (text,) = events.Tensors("configuration/text_summary")
    assert b"alpha1: 0.1" in text.tensor_proto.string_val[0]


class Broken(Logger):
    name = "broken"

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls: list[str] = []

    def started(self, folder: RunFolder) -> None:
        raise ConnectionError("no network\nat all")


def test_a_failing_logger_is_one_warning_and_is_told_nothing_more(
    settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of("limit=1")
    tell(open_logger({"_target_": f"{__name__}.Broken"}), settings)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "logger" in line] == [
        "warning: logger broken: no network at all; the run goes on without it"
    ]


@pytest.mark.parametrize(("target", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_logger_whose_package_is_missing_says_how_to_install_it(
    target: str,
    module: str,
    settings_of: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    settings = settings_of(f"logger={target}", f"logger.dir={tmp_path}/logs")
    finished_run(settings)
    open_logger(settings.resolved["logger"]).started(RunFolder(settings.folder))
    assert f'(pip install "lookm-harness[{target}]"); the run goes on' in capsys.readouterr().err


def test_no_logger_says_and_writes_nothing(
    settings_of: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of("limit=1")
    finished_run(settings)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    tell(open_logger(settings.resolved["logger"]), settings)
    assert sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": WANDB, "mode": "sometimes"}, "unknown logger.mode 'sometimes'; choose one of offline, online"),
        ({"_target_": WANDB, "images": -1}, "logger.images must be a whole number of at least 0, not -1"),
        ({"_target_": WANDB, "image_size": 0}, "logger.image_size must be a whole number of at least 1, not 0"),
        ({"_target_": WANDB, "colour": "red"}, "unexpected keyword argument 'colour'"),
        (
            {"_target_": "benchmarks.evaluation.loggers.no.Such"},
            "'benchmarks.evaluation.loggers.no.Such' cannot be imported",
        ),
        ({"_target_": "pathlib.Path"}, "makes no benchmarks.evaluation.loggers.Logger"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(config: dict[str, object], message: str) -> None:
    with pytest.raises(LookmError) as raised:
        open_logger(config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_finished_runs_are_sent_later(
    settings_of: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [settings_of(f"strategy={name}", f"datasets={NEEDLE}") for name in ("full", "h2o")]
    summaries = {one.run: finished_run(one)[0] for one in runs}
    fields = [f"dir={tmp_path}/logs", "samples=1", "artifact=false"]
    arguments = ["--group", "table 1", *(word for field in fields for word in ("--set", field))]
    assert log.main([str(runs[0].results_dir), *arguments]) == 0
    assert capsys.readouterr().out == "2 of 2 runs sent to wandb\n"
    sent = [offline_run_of(path) for path in (tmp_path / "logs").glob("wandb/offline-run-*/run-*.wandb")]
    assert {one.run.run_group for one in sent} == {"table 1"}
    assert {one.run.display_name: one.summary["mean/official"] for one in sent} == {
        name: summary.mean.scores["official"] for name, summary in summaries.items()
    }
    compressed = next(one for one in sent if one.run.display_name == runs[1].run)
    assert compressed.summary["mean/changed_answers"] == summaries[runs[1].run].mean.changed
    os.environ.pop("WANDB_RUN_GROUP")


def test_a_sweeps_group_holds_rows_that_were_computed_before(settings_of: MakeSettings, tmp_path: Path) -> None:
    logged = ("logger=tensorboard", f"logger.dir={tmp_path}/boards", f"datasets={NEEDLE}")
    run(settings_of("strategy=full", f"datasets={NEEDLE}"))
    run_group([settings_of("strategy=full", *logged), settings_of("strategy=h2o", *logged)])
    names = {settings_of(f"strategy={name}").run for name in ("full", "h2o")}
    assert {path.name for path in (tmp_path / "boards").iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([".", "--set", "samples"], "--set 'samples' is not KEY=VALUE"),
        ([".", "--set", "mode=sometimes"], "holds no run"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert log.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
