"""The table of all strategies in the docs, from the registry and the docstrings, so that none is missing."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from lookm.registry import load_strategy, strategy_names
from lookm.strategy import Strategy

_HEAD = ("strategy", "paper", "what it keeps", "fields of its own")
_COMMON = {field.name for field in fields(Strategy)}


def write(path: Path) -> None:
    """Writes the table as Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(row(name) for name in strategy_names())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"| {' | '.join(cells)} |\n" for cells in rows), encoding="utf-8")


def row(name: str) -> tuple[str, ...]:
    """One strategy's cells."""
    strategy = load_strategy(name)
    kind = type(strategy)
    numbers = dict.fromkeys(re.findall(r"arXiv (\d{4}\.\d{4,5})", f"{_module(kind)} {kind.__doc__}"))
    papers = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in numbers) or "–"
    settings = [field.name for field in fields(kind) if field.name not in _COMMON]
    told = ", ".join(f"`{field}={_shown(getattr(strategy, field))}`" for field in settings) or "–"
    return f"`{name}`", papers, _escaped(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]), told


def _module(kind: type) -> str:
    module = inspect.getmodule(kind)
    return (module.__doc__ or "").split("\n\n")[0] if module else ""


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
