"""Strategies by name: `configs/strategy/<name>.yaml` (`_target_` and fields) is the only registry."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import yaml

from lookm.errors import LookmError
from lookm.locations import CONFIGS

if TYPE_CHECKING:
    from lookm.strategy import Strategy

PAPER_ROWS = (
    *("full", "h2o", "snapkv", "roco", "a_merge", "w_merge", "p_merge"),
    *("tp", "tp_amerge", "tp_wmerge", "tp_pmerge"),
)  # fmt: skip
"""The eleven rows of LOOK-M's tables, in the order of the spec."""


def strategy_names() -> list[str]:
    """Names of all strategies, sorted."""
    return sorted(file.stem for file in (CONFIGS / "strategy").glob("*.yaml"))


def load_strategy(name: str, **overrides: Any) -> Strategy:
    """Build a strategy from its YAML.

    Args:
        name: a file name in `configs/strategy`, without `.yaml`.
        **overrides: fields to set, such as `alpha1=0.05`, `semantics="release"`, `text_prior="strict"`.

    Raises:
        LookmError: for a name, field or value that does not exist; the message lists what does.

    Example:
        >>> load_strategy("tp_pmerge", alpha1=0.05).nominal_budget
        0.15000000000000002
    """
    if name not in strategy_names():
        raise LookmError(f"strategy {name!r} is unknown{_hint(name)}; choose one of {', '.join(strategy_names())}")
    text = (CONFIGS / "strategy" / f"{name}.yaml").read_text(encoding="utf-8")
    return build_strategy(name, {**yaml.safe_load(text), **overrides})


def build_strategy(name: str, settings: dict[str, Any]) -> Strategy:
    """Build a strategy from `_target_` and fields, as a YAML or a composed configuration holds them.

    Raises:
        LookmError: if the target is no strategy, or a field is unknown or has a wrong value.
    """
    from lookm.strategy import Strategy  # with it comes torch; names are asked for without

    settings = dict(settings)
    target = str(settings.pop("_target_", ""))
    module, _, attribute = target.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookmError(f"strategy {name!r}: _target_ {target!r} cannot be imported ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise LookmError(f"strategy {name!r}: _target_ {target!r} is no subclass of lookm.Strategy")
    known = [field.name for field in fields(kind) if field.name != "name"]
    for key in settings:
        if key not in known:
            raise LookmError(f"strategy {name!r} has no field {key!r}; it has {', '.join(known)}")
    return kind(name=name, **settings)


def resolve_strategy(strategy: str | Strategy, **overrides: Any) -> Strategy:
    """A strategy by name or as given, with the overrides that are not None applied."""
    chosen = {key: value for key, value in overrides.items() if value is not None}
    if isinstance(strategy, str):
        return load_strategy(strategy, **chosen)
    from lookm.strategy import Strategy

    if not isinstance(strategy, Strategy):
        raise LookmError(f"strategy {strategy!r} is neither a name nor a lookm.Strategy")
    return strategy.with_fields(**chosen)


def _hint(name: str) -> str:
    close = get_close_matches(str(name), strategy_names(), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
