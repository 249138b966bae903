"""The tables of all methods in the docs, from the registry, the docstrings and what the methods do: none is missing.

What a method reads is tried out: it reads keys, values or queries if others in their place change what it keeps.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from lookm.compression import compress_many, joined_needs
from lookm.errors import LookmError
from lookm.fields import Named
from lookm.layer import Layer
from lookm.registry import load_storage, load_strategy, storage_names, strategy_names
from lookm.shortening import ShorteningStrategy
from lookm.strategy import Strategy

_HEAD = ("name", "paper", "rule", "reads", "when, and what it costs", "beside paper and code", "fields of its own")
_COMMON = {field.name for field in fields(Strategy)}
_STATES = ("queries", "keys", "values")
LENGTH = 600  # longer than any window that stays whatever the budget


def write(folder: Path) -> None:
    """Writes the tables as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"strategies": [row(load_strategy(name)) for name in strategy_names()]}
    tables["storages"] = [storage_row(load_storage(name)) for name in storage_names()]
    for name, rows in tables.items():
        head = _HEAD if name == "strategies" else tuple(cell for place, cell in enumerate(_HEAD) if place not in (3, 4))
        text = "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ("---",) * len(head), *rows))
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def row(strategy: Strategy) -> tuple[str, ...]:
    """One strategy's cells."""
    source, rule, beside, told = _documented(strategy)
    return f"`{strategy.name}`", source, rule, reads(strategy), costs(strategy), beside, told


def storage_row(storage: Named) -> tuple[str, ...]:
    """One storage's cells."""
    return f"`{storage.name}`", *_documented(storage)


def reads(strategy: Strategy) -> str:
    """What a strategy's choice depends on, tried out on a random layer."""
    if isinstance(strategy, ShorteningStrategy):
        return "the vision tower's attention" if strategy.first_short_layer == 0 else "attention in one layer"
    is_image = torch.arange(LENGTH) % 32 >= 8
    states = [4 * torch.randn(2, LENGTH, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    base = Layer(*states[:3], is_image)
    try:
        needs = joined_needs([strategy], is_image)
    except LookmError as missing:
        return str(missing).partition(":")[0]
    base.make_statistics(needs)
    kept = _kept(strategy, base)
    found = [f"{text} of attention" for text, asked in _asked(needs) if asked]
    others: dict[str, dict[str, Any]] = {name: {name: states[place]} for place, name in enumerate(_STATES, 3)}
    others["which tokens are images"] = {"is_image": is_image.roll(5), "statistics": None}
    found += [name for name, other in others.items() if _kept(strategy, replace(base, memory={}, **other)) != kept]
    found += ["other layers"] * (strategy.whole_prompt or bool(base.memory))
    return ", ".join(found) or "nothing but positions"


def _asked(needs: Any) -> list[tuple[str, bool]]:
    windows = "the last query's row" if needs.windows == {1} else "the last queries' rows"
    return [("column sums", needs.sums), ("sums of squares", needs.squares), (windows, bool(needs.windows))]


def _kept(strategy: Strategy, layer: Layer) -> list[list[int]]:
    return [head.tolist() for head in compress_many([strategy], layer)[0].head_positions()]


def costs(strategy: Strategy) -> str:
    """When a strategy chooses, and what that takes beside the plain prefill."""
    if isinstance(strategy, ShorteningStrategy):
        return "before the cache; the prefill gets cheaper"
    kind, base = type(strategy), Strategy
    parts = ["after the last layer: all are held in full until then" if strategy.whole_prompt else "layer by layer"]
    if kind.store is not base.store:
        parts.append("and at each step of decoding")
    text = reads(strategy)
    parts += ["one more QKᵀ"] * ("queries," in f"{text}," and "queries'" not in text)
    parts += ["sums beside the attention"] * ("of attention" in text)
    parts += ["one evicted × kept product"] * (getattr(strategy, "merge", "none") != "none")
    parts += ["heads without padding, alone in sweeps"] * strategy.ragged_heads
    return "; ".join(parts)


def _documented(method: Named) -> tuple[str, str, str, str]:
    """Source, rule, what is known to differ, and fields, from a class's and its module's docstrings."""
    kind = type(method)
    module = inspect.getmodule(kind)
    first, *rest = inspect.cleandoc((module.__doc__ if module else "") or "").split("\n\n")
    rule = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
    numbers = dict.fromkeys(re.findall(r"arXiv (\d{4}\.\d{4,5})", f"{first} {kind.__doc__}"))
    papers = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in numbers) or "–"
    settings = [field.name for field in fields(kind) if field.name not in _COMMON]
    told = ", ".join(f"`{field}={_shown(getattr(method, field))}`" for field in settings) or "–"
    beside = "[fidelity](fidelity.md)" if kind.__name__ == "LookM" else _escaped(" ".join(rest)) or "–"
    return papers, _escaped(rule), beside, told


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
