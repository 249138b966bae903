"""Decode steps by budget, prompt length and batch (the paper's Table 4), and the largest batch in a given memory.

The time of a step depends on how many tokens a cache holds and not on which, so the caches of the grid hold random
numbers, as many tokens as the budget says: 32,768 tokens × 64 prompts need no prefill.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from lookm import Strategy
from lookm.context import filling
from lookm.greedy import GreedyChoice
from lookm.layer import Layer
from lookm.locations import shipped
from lookm.prompt import Prompt
from lookm.step import DecodeStep, StaticStep
from lookm.sweep_cache import SweepCache

from .workplace import Workplace, attempted, elapsed_ms, summary

BUDGETS = (1.0, 0.2, 0.05)
PAPER = shipped("benchmarks/paper", "results/paper") / "efficiency.csv"
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Recent(Strategy):
    """Keep the last tokens: needs no statistics, so that a cache of any size is made at once."""

    def keep(self, layer: Layer) -> Tensor:
        recent, _ = self.window_sizes(layer.length)
        length = layer.length
        return torch.arange(length - recent, length, device=layer.is_image.device).expand(layer.kv_heads, -1)


def filled_cache(place: Workplace, batch: int, length: int, budget: float, new_tokens: int) -> SweepCache:
    """A cache of `batch` rows that hold `budget` of a prompt of random numbers, with slots for new tokens."""
    text = place.model.config.get_text_config()
    prompt = Prompt((0,) * batch, torch.zeros(batch, length, dtype=torch.bool, device=place.device))
    strategy = Recent(name="recent", alpha1=budget, alpha2=0.0)
    cache = SweepCache([strategy], prompt, place.model.config, new_tokens)
    heads, size = text.num_key_value_heads, text.hidden_size // text.num_attention_heads
    for layer in range(text.num_hidden_layers):
        states = torch.randn(1, heads, length, size, device=place.device, dtype=place.dtype).expand(batch, -1, -1, -1)
        with filling(cache):
            cache.update(states, states, layer)
        cache.compress(layer, cache.prompt_layers(layer, states, None, None, None))
    return cache


def measured_step(place: Workplace, batch: int, length: int, budget: float, *, graph: bool) -> dict[str, Any]:
    """Milliseconds of a decode step of so many rows, and what it reads."""
    steps, repeats = place.sizes.steps, place.sizes.repeats
    new_tokens = WARM_UP + steps * repeats
    place.check_room(batch * (int(budget * length) + new_tokens) * place.token_bytes)
    with place.compressing():
        cache = filled_cache(place, batch, length, budget, new_tokens)
        ids = torch.full((batch, 1), 5, device=place.device)
        choice = GreedyChoice(LogitsProcessorList(), ids, new_tokens + 1, 0)
        positions = torch.full((batch, 1), length - 1, device=place.device)
        kind = StaticStep if graph else DecodeStep
        step = kind(place.model, cache, choice, ids[:, 0], positions)
        number = iter(range(new_tokens))
        for _ in range(WARM_UP):
            step.next(next(number))

        def run() -> None:
            for _ in range(steps):
                step.next(next(number))

        runs = [elapsed_ms(run, place.device) / steps for _ in range(repeats)]
    kept = int(budget * length)
    read = place.decoder_bytes + batch * (kept + new_tokens // 2) * place.token_bytes
    floor = 1000 * read / place.bandwidth
    times = summary(runs)
    return {
        **times,
        "kept_tokens": kept,
        "kv_bytes": batch * kept * place.token_bytes,
        "read_bytes": read,
        "floor_ms": round(floor, 6),
        "times_floor": round(times["median_ms"] / floor, 3),
        "tokens_per_second": round(1000 * batch / times["median_ms"], 2),
    }


def decode_grid(place: Workplace) -> Iterator[dict[str, Any]]:
    """One record for each length, batch, budget and kind of step; what does not fit says so.

    Yields:
        The case, then what was measured, and `times_full`, its time by that of the full cache of the same case.
    """
    cases = [(place.sizes.table_length, 1), *((n, 1) for n in place.sizes.lengths)]
    cases += [(place.sizes.length, batch) for batch in place.sizes.batches]
    for length, batch in dict.fromkeys(cases):
        for graph in (False, True) if place.on_gpu else (False,):
            full = None
            for budget in BUDGETS:
                case = {"length": length, "batch": batch, "budget": budget, "graph": graph}
                row = attempted(place, case, partial(measured_step, place, batch, length, budget, graph=graph))
                if "skipped" not in row:
                    full = row["median_ms"] if budget == 1.0 else full
                    row["times_full"] = None if full is None else round(row["median_ms"] / full, 4)
                yield row


def largest_batches(place: Workplace) -> Iterator[dict[str, Any]]:
    """One record a budget: how many rows the memory holds beside the weights, and a decode step of all of them."""
    weights = sum(weight.nbytes for weight in place.model.parameters())
    length, new_tokens = place.sizes.length, WARM_UP + place.sizes.steps * place.sizes.repeats
    for budget in BUDGETS:
        row_bytes = (int(budget * length) + new_tokens) * place.token_bytes
        batch = (place.sizes.memory - weights) // row_bytes
        case = {
            "length": length, "budget": budget, "memory_bytes": place.sizes.memory, "weights_bytes": weights,
            "row_bytes": row_bytes, "batch": batch,
        }  # fmt: skip
        if batch < 1:
            yield {**case, "skipped": "not one row fits beside the weights"}
        else:
            yield attempted(place, case, partial(measured_step, place, batch, length, budget, graph=place.on_gpu))


def paper_rows() -> list[dict[str, Any]]:
    """Table 4 of the paper: budget, decode ms/token, KV GiB, and the time by the full cache's."""
    with PAPER.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] == "table4"]
    full = next(float(row["decode_ms_per_token"]) for row in rows if row["strategy"] == "full")
    return [
        {
            "budget": float(row["budget"]),
            "decode_ms_per_token": float(row["decode_ms_per_token"]),
            "kv_gib": float(row["kv_gib"]),
            "times_full": round(float(row["decode_ms_per_token"]) / full, 4),
            "hardware": row["hardware"],
        }
        for row in rows
    ]
