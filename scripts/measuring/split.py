"""Where the time of an answer goes: vision, prefill, statistics, choice, merge, decode."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from lookm import Strategy, generate_sweep, load_strategy
from lookm.compression import Stages
from lookm.decoder import decoder_of
from lookm.registry import PAPER_ROWS
from lookm.stopwatch import Mark, Stopwatch

from .clock import elapsed_ms
from .shapes import image_inputs
from .workplace import Workplace

STAGES = ("vision", "prefill", "statistics", "choice", "merge", "storing", "decode", "other")


@contextmanager
def timed_calls(place: Workplace, first: nn.Module, last: nn.Module) -> Iterator[Stopwatch]:
    """The spans from the beginning of a call of `first` to the end of the next call of `last`."""
    watch = Stopwatch()
    begins: list[Mark] = []
    hooks = [
        first.register_forward_pre_hook(lambda *_: begins.append(Mark.now(place.device))),
        last.register_forward_hook(lambda *_: watch.add(begins[-1], Mark.now(place.device))),
    ]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def one_split(place: Workplace, strategies: Sequence[Strategy]) -> dict[str, float]:
    """Milliseconds of each stage of one sweep with images.

    `prefill` is the decoder's prefill without compressing, `storing` copies what strategies keep into the decode
    batch, `other` is what `generate` prepares and all that no stage counts.
    """
    inputs = image_inputs(place.shape, 1, place.sizes.images, place.device, place.dtype)
    stages = Stages()
    model, decoder = place.model, decoder_of(place.model)
    found: list[Any] = []

    def work() -> None:
        found.extend(
            generate_sweep(
                model, inputs, strategies, max_new_tokens=place.sizes.new_tokens, pad_token_id=0, stages=stages
            )
        )

    with (
        timed_calls(place, model.model.vision_tower, model.model.multi_modal_projector) as vision,
        timed_calls(place, decoder, decoder) as decoding,
    ):
        total = elapsed_ms(work, place.device)
    compress = sum(row.report.compress_ms for row in found)
    split = {
        "vision": vision.milliseconds(),
        "prefill": decoding.spans[0][0].milliseconds_until(decoding.spans[0][1]) - compress,
        "statistics": stages.statistics.milliseconds(),
        "choice": stages.choice.milliseconds(),
        "merge": stages.merge.milliseconds(),
        "decode": (found[0].report.decode_ms_per_token or 0.0) * (place.sizes.new_tokens - 1),
    }
    split["storing"] = compress - split["statistics"] - split["choice"] - split["merge"]
    split["other"] = total - sum(split.values())
    return {**{stage: split[stage] for stage in STAGES}, "total": total}


def time_split(place: Workplace) -> Iterator[dict[str, Any]]:
    """The medians of all stages, for some strategies alone and for eleven together.

    Statistics that are made inside the prefill's attention cannot be timed apart: what a prefill takes longer than that
    of the full cache is counted as statistics.
    """
    cases = {name: [load_strategy(name)] for name in ("full", "h2o", "snapkv", "tp_pmerge")}
    cases["all eleven"] = [load_strategy(name) for name in PAPER_ROWS]
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(1 + place.sizes.repeats):  # the first warms up; all cases in turns, so that drifts meet all of them
        splits = {name: one_split(place, strategies) for name, strategies in cases.items()}
        for split in splits.values():
            split["statistics"] += split["prefill"] - splits["full"]["prefill"]
        rounds.append(splits)
    plain = statistics.median(splits["full"]["prefill"] for splits in rounds[1:])
    for name in cases:
        runs = [splits[name] for splits in rounds[1:]]
        medians = {stage: statistics.median(run[stage] for run in runs) for stage in (*STAGES, "total")}
        medians["prefill"] = plain
        yield {
            "strategy": name,
            "images": place.sizes.images,
            "new_tokens": place.sizes.new_tokens,
            **{f"{stage}_ms": round(milliseconds, 3) for stage, milliseconds in medians.items()},
            "runs": [{stage: round(milliseconds, 3) for stage, milliseconds in run.items()} for run in runs],
        }
