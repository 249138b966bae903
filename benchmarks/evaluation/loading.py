"""The model of a run: its fingerprint before it is loaded, and itself, which runs that share it load once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.evaluation.provenance import weights_digest
from benchmarks.evaluation.settings import Settings, construct
from lookm.models.source import weights_folder

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone


def load_backbone(settings: Settings) -> Backbone:
    """Loads the model; asked for the same one again, hands out the one in memory.

    Raises:
        LookmError: weights missing or not fitting.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # it would fill a log file with one endless line
    key = repr((settings.model_config, settings.device, settings.dtype))
    if key not in _loaded:
        _loaded.clear()  # before loading: two large models would not fit
        _loaded[key] = construct(settings.model_config, device=settings.device, dtype=settings.dtype)
    return _loaded[key]


_loaded: dict[str, Backbone] = {}


def weights_fingerprint(settings: Settings) -> str | None:
    """Fingerprint of the model's weights; None where they are not on this machine, or made up.

    They are in the model's `path`, a folder or a repository's copy in the Hugging Face cache, or shipped.
    """
    folder = weights_folder(settings.model_config)
    return None if folder is None else weights_digest(folder)
