"""Strategies, storages and backbones by name: the YAMLs of `configs` are the only registry, read without Hydra."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from lookm.errors import LookmError
from lookm.locations import CONFIGS

if TYPE_CHECKING:
    from lookm.fields import Named
    from lookm.models.backbone import Backbone
    from lookm.storage.base import Storage
    from lookm.strategy import Strategy

T = TypeVar("T", bound="Named")

PAPER_ROWS = (
    *("full", "h2o", "snapkv", "roco", "a_merge", "w_merge", "p_merge"),
    *("tp", "tp_amerge", "tp_wmerge", "tp_pmerge"),
)  # fmt: skip
"""The eleven rows of LOOK-M's tables, in the order of the spec."""


def strategy_names() -> list[str]:
    """Names of all strategies, sorted."""
    return names_of("strategy")


def ready_strategies() -> list[str]:
    """Names of the strategies that need nothing beside their YAML, sorted."""
    return [name for name in strategy_names() if load_strategy(name).missing is None]


def storage_names() -> list[str]:
    """Names of all storages, sorted."""
    return names_of("storage")


def load_strategy(name: str, **overrides: Any) -> Strategy:
    """Build a strategy from its YAML.

    Args:
        name: a file name in `configs/strategy`, without `.yaml`.
        **overrides: fields to set, such as `alpha1=0.05`, `semantics="release"`, `storage="kivi2"`.

    Raises:
        LookmError: for a name, field or value that does not exist; the message lists what does.

    Example:
        >>> load_strategy("tp_pmerge", alpha1=0.05).nominal_budget
        0.15000000000000002
    """
    return build_strategy(name, yaml_of("strategy", name) | overrides)


def load_storage(name: str, **overrides: Any) -> Storage:
    """Build a storage from its YAML in `configs/storage`, as `load_strategy` does a strategy.

    Example:
        >>> load_storage("kivi2", group=16).bits
        2
    """
    return build_storage(name, yaml_of("storage", name) | overrides)


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


def build_strategy(name: str, settings: dict[str, Any]) -> Strategy:
    """Build a strategy from `_target_` and fields, as a YAML or a composed configuration holds them.

    Raises:
        LookmError: if the target is no strategy, or a field is unknown or has a wrong value.
    """
    from lookm.strategy import Strategy  # with it comes torch; names are asked for without

    made: Strategy = _build(Strategy, name, settings)  # type: ignore[type-abstract]
    return made


def build_storage(name: str, settings: dict[str, Any]) -> Storage:
    """Build a storage, as `build_strategy` does a strategy."""
    from lookm.storage.base import Storage

    made: Storage = _build(Storage, name, settings)  # type: ignore[type-abstract]
    return made


def resolve_strategy(strategy: str | Strategy, **overrides: Any) -> Strategy:
    """A strategy by name or as given, with the overrides that are not None applied."""
    chosen = {key: value for key, value in overrides.items() if value is not None}
    if isinstance(strategy, str):
        return load_strategy(strategy, **chosen)
    from lookm.strategy import Strategy

    if not isinstance(strategy, Strategy):
        raise LookmError(f"strategy {strategy!r} is neither a name nor a lookm.Strategy")
    return strategy.with_fields(**chosen)


def resolve_storage(storage: str | Mapping[str, Any] | Storage) -> Storage:
    """A storage by name, by name and fields, or as given."""
    from lookm.storage.base import Storage

    if isinstance(storage, str):
        return load_storage(storage)
    if isinstance(storage, Mapping):
        return load_storage(**storage)
    if not isinstance(storage, Storage):
        raise LookmError(f"storage {storage!r} is neither a name nor a lookm Storage")
    return storage


def names_of(kind: str) -> list[str]:
    """Names of the YAMLs in a group of `configs`, sorted."""
    return sorted(file.stem for file in (CONFIGS / kind).glob("*.yaml"))


def yaml_of(kind: str, name: str) -> dict[str, Any]:
    """What stands in one of them; a name that is none is refused with those there are."""
    names = names_of(kind)
    if name not in names:
        close = get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise LookmError(f"{kind} {name!r} is unknown{hint}; choose one of {', '.join(names)}")
    settings: dict[str, Any] = yaml.safe_load((CONFIGS / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    return settings


def _build(base: type[T], name: str, settings: dict[str, Any]) -> Any:
    """An instance of a subclass of `base`."""
    settings = dict(settings)
    target = str(settings.pop("_target_", ""))
    module, _, attribute = target.rpartition(".")
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookmError(f"{base.kind} {name!r}: _target_ {target!r} cannot be imported ({error})") from error
    if not (isinstance(made, type) and issubclass(made, base)):
        raise LookmError(f"{base.kind} {name!r}: _target_ {target!r} is no subclass of lookm's {base.__name__}")
    known = [field.name for field in fields(made) if field.name != "name"]
    for key in settings:
        if key not in known:
            raise LookmError(f"{base.kind} {name!r} has no field {key!r}; it has {', '.join(known)}")
    return made(name=name, **settings)
