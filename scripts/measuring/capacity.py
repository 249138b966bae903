"""The largest batch that fits in a given memory, by budget, and the tokens a second that it gives."""

from collections.abc import Iterator
from typing import Any

from .decode import BUDGETS, WARM_UP, measured_step
from .workplace import Workplace, is_out_of_memory, skipped


def largest_batches(place: Workplace) -> Iterator[dict[str, Any]]:
    """One record a budget: how many rows the memory holds beside the weights, and a decode step of all of them."""
    weights = sum(weight.nbytes for weight in place.model.parameters())
    new_tokens = WARM_UP + place.sizes.steps * place.sizes.repeats
    for budget in BUDGETS:
        row_bytes = (int(budget * place.sizes.length) + new_tokens) * place.token_bytes
        batch = (place.sizes.memory - weights) // row_bytes
        case = {
            "length": place.sizes.length,
            "budget": budget,
            "memory_bytes": place.sizes.memory,
            "weights_bytes": weights,
            "row_bytes": row_bytes,
            "batch": batch,
        }
        if batch < 1:
            yield {**case, "skipped": "not one row fits beside the weights"}
            continue
        place.empty()
        try:
            yield {**case, **measured_step(place, batch, place.sizes.length, budget, graph=place.on_gpu)}
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            yield skipped(case, error)
