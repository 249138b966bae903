"""Every model of configs/model runs through the benchmark, from its YAML to its result files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.composition import choices_of
from benchmarks.evaluation.run import run
from benchmarks.evaluation.settings import Settings, read_settings
from lookm.locations import CONFIGS
from tests.models import checkpoints, modern_checkpoints

MODELS: dict[str, Callable[[Path], object]] = {
    "llava7b": checkpoints.llava,
    "llava13b": checkpoints.llava,
    "mobilevlm3b": checkpoints.mobilevlm,
    "internvl7b": checkpoints.internvl,
    "qwen2_5vl7b": modern_checkpoints.qwen2_5vl,
    "llava_onevision7b": modern_checkpoints.llava_onevision,
    "internvl3_8b": modern_checkpoints.internvl3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def settings_of(tmp_path: Path, data: Path, model: str, *overrides: str) -> Settings:
    fixed = [f"model={model}", "benchmark=mini", "benchmark.samples=2", "device=cpu", "model.max_new_tokens=3"]
    folders = [f"results_dir={tmp_path}/runs", f"data_dir={data}", "datasets=[MiniTextNeedleInAHaystack,MiniGPR1200]"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides=[*fixed, *folders, *overrides], return_hydra_config=True)
    return read_settings(config, choices_of(config))


def test_no_model_is_forgotten_here() -> None:
    assert set(MODELS) == {file.stem for file in (CONFIGS / "model").glob("*.yaml")} - {"tiny", "tiny_qwen"}


@pytest.mark.parametrize("model", MODELS)
def test_a_shrunk_checkpoint_answers_the_benchmark(tmp_path: Path, data: Path, model: str) -> None:
    MODELS[model](tmp_path / "weights")
    settings = settings_of(tmp_path, data, model, f"model.path={tmp_path}/weights", "limit=2")
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (4, 0)
    records = [
        json.loads(line)
        for dataset in ("MiniTextNeedleInAHaystack", "MiniGPR1200")
        for line in (settings.folder / dataset / "samples.jsonl").read_text().splitlines()
    ]
    assert len(records) == 4
    for record in records:
        assert 0 < record["image_tokens"] < record["prompt_tokens"]
        assert 0 < record["realised_budget"] < 1
    described = json.loads((settings.folder / "run.json").read_text())
    assert described["weights"]
    assert run(settings).computed == 0
