"""The cost of a sweep: Table 1's rows, and all that share a prefill, beside the full row and eleven single runs."""

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm import Strategy, SweepRow, generate_sweep, load_strategy, look_once
from lookm.registry import PAPER_ROWS, ready_strategies
from lookm.sweep import first_differences

from .workplace import Workplace, attempted, in_turns, prompt_ids


def single_run(model: PreTrainedModel, inputs: Mapping[str, Tensor], strategy: Strategy, new_tokens: int) -> SweepRow:
    """One row as it is made alone: `look_once` and `generate`."""
    with look_once(model, strategy) as session, torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=new_tokens, min_new_tokens=1, do_sample=False, pad_token_id=0
        )
    ends = model.generation_config.eos_token_id
    answers = []
    for tokens in output[:, inputs["input_ids"].shape[1] :].tolist():
        answers.append(tuple(tokens[: tokens.index(ends) + 1] if ends in tokens else tokens))
    return SweepRow(strategy, tuple(answers), session.report(), (True,) * len(answers))


def sweep_cost(place: Workplace, model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Times of all ways, in turns, and how many answers differ from those of the single runs."""
    strategies = [load_strategy(name) for name in PAPER_ROWS]
    others = [load_strategy(name) for name in ready_strategies() if name not in PAPER_ROWS]
    every = [*strategies, *(one for one in others if one.joins_sweeps)]
    new_tokens, graph = place.sizes.new_tokens, place.on_gpu

    def swept(chosen: Sequence[Strategy], cuda_graph: bool = False) -> list[SweepRow]:
        with torch.inference_mode():
            return generate_sweep(
                model, inputs, chosen, max_new_tokens=new_tokens, pad_token_id=0, cuda_graph=cuda_graph
            )

    works: dict[str, Any] = {
        "full row alone": lambda: swept(strategies[:1]),
        "eleven rows together": lambda: swept(strategies),
        f"{len(every)} rows together": lambda: swept(every),
        "full row, look_once and generate": lambda: single_run(model, inputs, strategies[0], new_tokens),
        "eleven single runs": lambda: [single_run(model, inputs, one, new_tokens) for one in strategies],
    }
    if graph:
        works["full row alone, graph"] = lambda: swept(strategies[:1], True)
        works["eleven rows together, graph"] = lambda: swept(strategies, True)
    times = in_turns(works, place.device, place.sizes.repeats)
    single = [single_run(model, inputs, one, new_tokens) for one in strategies]
    together = swept(strategies)
    places = [place for row in first_differences(together, single) for place in row]
    return {
        "prompt_tokens": list(together[0].report.prompt_tokens),
        "decode_rows": together[0].report.decode_rows,
        "ways": times,
        "answers": len(places),
        "answers_that_differ_from_single_runs": sum(place is not None for place in places),
        "earliest_difference": min((place for place in places if place is not None), default=None),
    }


def tiny_inputs(backbone: Any, batch: int, images: int) -> dict[str, Tensor]:
    """Prompts of the shipped model with images of random colours."""
    from PIL import Image

    generator = random.Random(0)
    text = "Find the fact.\n The badge of ada 7." + "<ImageHere>" * images + " What is the badge of ada?"
    pictures = [
        [Image.frombytes("RGB", (32, 32), generator.randbytes(3) * 1024) for _ in range(images)] for _ in range(batch)
    ]
    return backbone.inputs([text] * batch, pictures)


def sweep_costs(place: Workplace) -> Iterator[dict[str, Any]]:
    """On a CPU the shipped tiny model with images; everywhere the random model, text and image tokens alone."""
    if not place.on_gpu:
        from lookm.models.tiny import load_tiny

        backbone = load_tiny()
        for batch, images in place.sizes.tiny:
            case = {"model": "tiny, trained", "batch": batch, "images": images}
            yield {**case, **sweep_cost(place, backbone.model, tiny_inputs(backbone, batch, images))}
    ids = prompt_ids(place.shape, 1, place.sizes.length, place.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    case = {"model": place.sizes.shape, "batch": 1, "images": None}
    yield attempted(place, case, partial(sweep_cost, place, place.model, inputs))
