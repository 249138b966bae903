"""Backbones by name, as strategies are: `configs/model/<name>.yaml` (`_target_` and fields), read without Hydra."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lookm.errors import LookmError
from lookm.registry import names_of, yaml_of

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone


def model_names() -> list[str]:
    """Names of all backbones, sorted."""
    return names_of("model")


def load_model(name: str, *, device: str = "auto", dtype: str = "auto", **overrides: Any) -> Backbone:
    """Load a backbone from its YAML.

    Args:
        name: a file name in `configs/model`, without `.yaml`.
        device: `cpu`, `cuda`, `cuda:0` …; `auto` takes CUDA where there is one.
        dtype: `float32`, `bfloat16` or `float16`; `auto` takes float32 on the CPU, bfloat16 elsewhere.
        **overrides: fields to set, such as `batch_size=4`, `path="my/weights"`, `quantization="4bit"`.

    Raises:
        LookmError: for a name or field that does not exist (the message lists what does), or what the loader refuses.

    Example:
        >>> backbone = load_model("tiny", batch_size=2)
    """
    fields = yaml_of("model", name)
    fields.pop("defaults", None)
    module, _, attribute = fields.pop("_target_").rpartition(".")
    loader = getattr(import_module(module), attribute)
    known = [key for key in {**fields, **inspect.signature(loader).parameters} if key != "options"]
    for key in overrides:
        if key not in known:
            raise LookmError(f"model {name!r} has no field {key!r}; it has {', '.join(known)}")
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return loader(**{**fields, "device": device, "dtype": dtype, **overrides})
