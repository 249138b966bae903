"""Settings as the command line makes them, for a random model and a small benchmark in a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.composition import choices_of
from benchmarks.evaluation.settings import Settings, read_settings
from lookm.locations import CONFIGS

OWN_CONFIGS = Path(__file__).parent / "configs"
MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings_of(tmp_path: Path) -> MakeSettings:
    """Settings from overrides; two calls in one test share data and results."""

    def make(*overrides: str) -> Settings:
        fixed = [
            f"hydra.searchpath=[file://{OWN_CONFIGS}]",
            "model=random",
            "benchmark=small",
            "device=cpu",
            f"results_dir={tmp_path}/runs",
            f"data_dir={tmp_path}/data",
        ]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", overrides=[*fixed, *overrides], return_hydra_config=True)
        return read_settings(config, choices_of(config))

    return make
