"""Settings for programs that look instead of run: composed as `run.py` composes them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.evaluation.settings import CONFIGS, Settings, read_settings


def compose_settings(overrides: Sequence[str]) -> Settings:
    """The settings that `run.py overrides…` has.

    Raises:
        LookmError: an unknown key, group or value, as `run.py` says it.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from benchmarks.command_line import choices_of, explain
    from lookm.errors import LookmError

    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise LookmError(explain(error)) from None
    return read_settings(config, choices_of(config))
