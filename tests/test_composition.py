"""Claims about composing configurations: as `run.py` does, and no job of a sweep twice."""

from typing import Any

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode

from benchmarks.composition import compose_jobs, compose_one
from lookm.errors import LookmError
from lookm.locations import CONFIGS
from tests.conftest import Command


def test_a_sweeps_jobs_are_the_product_of_its_values_and_an_experiments_axes() -> None:
    jobs = compose_jobs(["strategy=h2o,tp", "alpha1=0.05,0.1"])
    assert [(job.strategy.name, job.strategy.alpha1) for job in jobs] == [
        *(("h2o", 0.05), ("h2o", 0.1), ("tp", 0.05), ("tp", 0.1))
    ]
    table1 = yaml.safe_load((CONFIGS / "experiment" / "table1.yaml").read_text())
    axis = table1["hydra"]["sweeper"]["params"]["strategy"].replace(" ", "").split(",")
    assert [job.strategy.name for job in compose_jobs(["+experiment=table1", "model=tiny"])] == axis


def test_one_is_what_the_command_without_m_has() -> None:
    settings = compose_one(["strategy=h2o", "alpha2=0.3"])
    assert (settings.run, settings.strategy.alpha2) == ("tiny-mini-h2o-0.1-0.3-paper-fp32", 0.3)
    with pytest.raises(LookmError, match="2 runs are asked for; give one value for each key"):
        compose_one(["alpha1=0.1,0.2"])


@pytest.mark.parametrize(
    ("override", "message"),
    [("alpa1=1", "unknown key 'alpa1'; did you mean 'alpha1'"), ("strategy=x", "unknown strategy 'x'; choose one of")],
)
def test_wrong_overrides_are_told_as_run_tells_them(override: str, message: str) -> None:
    with pytest.raises(LookmError, match=message):
        compose_jobs([override])


def test_a_sweep_composes_every_job_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    composed = []
    real = ConfigLoaderImpl.load_configuration

    def counting(self: ConfigLoaderImpl, config_name: str, overrides: list[str], *rest: Any, **named: Any) -> Any:
        if (named.get("run_mode") or rest[0]) == RunMode.RUN:
            composed.append(tuple(word for word in overrides if word.startswith("strategy=")))
        return real(self, config_name, overrides, *rest, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counting)
    assert command("-m", "strategy=full,h2o,tp", "limit=1") == 0
    assert sorted(composed) == [("strategy=full",), ("strategy=h2o",), ("strategy=tp",)]
