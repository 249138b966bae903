"""The tables of all strategies and storages in the docs, from registry and docstrings, so that none is missing."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from lookm.fields import Named
from lookm.registry import load_storage, load_strategy, storage_names, strategy_names
from lookm.storage.base import Storage
from lookm.strategy import Strategy

_HEAD = ("paper", "what it keeps", "fields of its own")


def write(folder: Path) -> None:
    """Writes the tables as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"strategies": [row(load_strategy(name)) for name in strategy_names()]}
    tables["storages"] = [row(load_storage(name)) for name in storage_names()]
    for name, rows in tables.items():
        head = {"strategies": "strategy", "storages": "storage"}[name], *_HEAD
        lines = [head, ("---",) * len(head), *rows]
        text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def row(strategy: Named) -> tuple[str, ...]:
    """The cells of one strategy or storage."""
    kind, base = type(strategy), Strategy if isinstance(strategy, Strategy) else Storage
    common = {field.name for field in fields(base)}
    numbers = dict.fromkeys(re.findall(r"arXiv (\d{4}\.\d{4,5})", f"{_module(kind)} {kind.__doc__}"))
    papers = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in numbers) or "–"
    settings = [field.name for field in fields(kind) if field.name not in common]
    told = ", ".join(f"`{field}={_shown(getattr(strategy, field))}`" for field in settings) or "–"
    return f"`{strategy.name}`", papers, _escaped(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]), told


def _module(kind: type) -> str:
    module = inspect.getmodule(kind)
    return (module.__doc__ or "").split("\n\n")[0] if module else ""


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
