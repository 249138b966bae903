"""What configurations may interpolate beyond OmegaConf's own: values that depend on the benchmark."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def register() -> None:
    """Makes `${for_benchmark:{name: value, …}}` known to OmegaConf; calling it again changes nothing."""
    OmegaConf.register_new_resolver("for_benchmark", _for_benchmark, replace=True)


def _for_benchmark(values: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for the configuration's benchmark, which its builder names (`<name>_benchmark`); None for others."""
    builder = str(_root_.benchmark._target_).rpartition(".")[2]
    return values.get(builder.removesuffix("_benchmark"))
