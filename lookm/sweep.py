"""Many strategies from one prefill: `generate_sweep`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedModel

from lookm.attention import CACHE_ARGUMENT, NAME
from lookm.errors import LookmError
from lookm.generation import decoder_of, is_looked_at
from lookm.greedy import Answers, GreedyChoice
from lookm.memory import estimate_bytes, fitting_groups, free_bytes
from lookm.prompt import Prompt, image_token_ids, read_prompt
from lookm.record import LayerSizes, Times, report_of
from lookm.report import Report
from lookm.sharing import Stages
from lookm.stopwatch import Mark
from lookm.strategy import Strategy
from lookm.sweep_cache import SweepCache

LEAVING_SHARE = 0.75
"""Ended rows leave the batch as soon as no more than this share of it goes on."""

GPU_STEPS = 8
"""Decode steps between two looks at the tokens on a GPU, where each look waits for the device."""


@dataclass(frozen=True)
class SweepRow:
    """What one strategy made of a prompt batch.

    Attributes:
        strategy: which.
        tokens: for each prompt the new tokens, up to and with the one that ends the answer.
        report: as of `Session.report()`, with times as a sweep can attribute them. `compress_ms` is the strategy's
            equal share of the joint compression (0 if it evicts nothing), `prefill_ms` the one prefill without the
            joint compression plus that share, `decode_ms_per_token` a step of the joint batch of `decode_rows` rows.
        finite: for each prompt whether all its logits were finite; otherwise `tokens` ends before the first that were
            not.
    """

    strategy: Strategy
    tokens: tuple[tuple[int, ...], ...]
    report: Report
    finite: tuple[bool, ...]


def generate_sweep(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    strategies: Sequence[Strategy],
    *,
    max_new_tokens: int,
    min_new_tokens: int = 1,
    pad_token_id: int,
    eos_token_ids: Collection[int] = (),
    memory_limit: int | None = None,
    stages: Stages | None = None,
) -> list[SweepRow]:
    """Greedy answers under many strategies: the prompts are encoded once, and all rows are decoded as one batch.

    In float32 every row has the tokens that `look_once` with its strategy and `generate(do_sample=False)` give; in half
    precision a larger batch rounds differently, and near ties may fall the other way (`first_differences` counts them).
    The caches are estimated first. Strategies that do not fit together are run in groups, each with a prefill of its
    own: encoding again costs no memory anywhere, which keeping the rows of later groups would.

    Args:
        model: as for `look_once`.
        inputs: what `generate` would get; `input_ids` (B, L) left-padded, with its `attention_mask`.
        strategies: any number, in any mixture of budgets, semantics and fields.
        max_new_tokens: longest answer.
        min_new_tokens: shortest answer.
        pad_token_id: as for `generate`.
        eos_token_ids: tokens that end an answer; empty: those of the model's generation configuration.
        memory_limit: bytes that the rows' caches may take; None: 80 % of the device's free memory.
        stages: collects the time of statistics, choice and merge.

    Returns:
        One row a strategy, in their order.

    Raises:
        LookmError: for a model or call that cannot be compressed.
        BudgetError: if a layer keeps something else than a strategy promises.

    Example:
        >>> strategies = [load_strategy(name) for name in ("full", "h2o", "tp_pmerge")]
        >>> for row in generate_sweep(model, inputs, strategies, max_new_tokens=16, pad_token_id=0):
        ...     print(row.strategy.name, row.tokens)
    """
    if not 1 <= min_new_tokens <= max_new_tokens:
        raise LookmError(f"min_new_tokens={min_new_tokens} and max_new_tokens={max_new_tokens}: need 1 ≤ min ≤ max")
    if is_looked_at(model):
        raise LookmError("generate_sweep brings its own strategies; call it outside look_once")
    decoder = decoder_of(model)
    n_layers = len(DynamicCache(config=model.config).layers)
    prompt = read_prompt(inputs.get("input_ids"), None, inputs.get("attention_mask"), image_token_ids(model.config))
    images = [prompt.row_is_image(row) for row in range(len(prompt.starts))]
    limit = free_bytes(prompt.is_image.device) if memory_limit is None else memory_limit
    needed = estimate_bytes(model.config, model.dtype, strategies, images, max_new_tokens)
    ends = {"eos_token_id": list(eos_token_ids)} if eos_token_ids else {}
    attention = decoder.config._attn_implementation
    rows: list[SweepRow] = []
    try:
        decoder.set_attn_implementation(NAME)
        for group in fitting_groups(needed, limit):
            sweep = _Sweep([strategies[index] for index in group], prompt, n_layers, stages)
            model.generate(  # type: ignore[operator]
                **inputs,
                **ends,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens,
                pad_token_id=pad_token_id,
                do_sample=False,
                num_beams=1,
                custom_generate=sweep.run,
            )
            rows += sweep.results()
    finally:
        decoder.set_attn_implementation(attention)
    return rows


class _Sweep:
    """One prefill and the joint decoding after it; `run` is what `generate` calls after its preparations."""

    def __init__(self, strategies: Sequence[Strategy], prompt: Prompt, n_layers: int, stages: Stages | None) -> None:
        self.strategies = strategies
        self.prompt = prompt
        self.n_layers = n_layers
        self.stages = stages

    def run(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: object,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Tensor:
        """Encode and decode; `generate` gets the prompt back, the tokens are in `results`."""
        new_tokens, ends = generation_config.max_new_tokens, generation_config.eos_token_id
        assert new_tokens is not None
        self.cache = SweepCache(self.strategies, self.prompt, self.n_layers, new_tokens - 1, stages=self.stages)
        self.rows = list(self.cache.rows)
        self.answers = Answers(len(self.rows), ends if isinstance(ends, list) else [] if ends is None else [ends])
        choice = GreedyChoice(logits_processor, input_ids, new_tokens, generation_config.min_new_tokens or 0)
        self.begin = Mark.now(input_ids.device)
        model_kwargs.update(past_key_values=self.cache, use_cache=True)
        prepared = model.prepare_inputs_for_generation(  # type: ignore[operator]
            input_ids, is_first_iteration=True, **model_kwargs
        )
        logits = model(**prepared, return_dict=True, **{CACHE_ARGUMENT: self.cache}).logits[:, -1]
        self.cache.check_complete()
        tokens = choice.next(logits)  # (B,): the same first token for every strategy
        prompts = torch.tensor([row.prompt_row for row in self.rows], device=input_ids.device)
        choice.select(prompts)
        positions = _last_positions(model_kwargs.get("position_ids"), len(self.prompt.starts))
        if positions is not None:
            positions = positions.index_select(-2, prompts)
        self._decode(model, choice, tokens[prompts], positions, new_tokens)
        return input_ids

    def _decode(
        self, model: PreTrainedModel, choice: GreedyChoice, tokens: Tensor, positions: Tensor | None, new_tokens: int
    ) -> None:
        """Go on from the first new tokens (R,) at the last positions (…, R, 1) of the prompts."""
        device = tokens.device
        look = 1 if device.type == "cpu" else GPU_STEPS
        self.decode_begin, self.steps = Mark.now(device), 0
        unread = [tokens]
        while True:
            last = self.steps == new_tokens - 1
            if last or self.steps % look == 0:
                self.answers.add(torch.stack(unread))
                unread = []
                places = self.answers.going_on()
                if last or not places:
                    break
                if len(places) <= LEAVING_SHARE * len(self.answers.live):
                    index = torch.tensor(places, device=device)
                    tokens = tokens[index]
                    positions = None if positions is None else positions.index_select(-2, index)
                    choice.select(index)
                    self.cache.keep_rows(places)
                    self.answers.leave(places)
            arguments = {}
            if positions is not None:
                positions = positions + 1
                arguments["position_ids"] = positions
            self.cache.begin_step(self.steps)
            output = model(
                input_ids=tokens.clamp(min=0)[:, None],  # a row without a token has ended
                past_key_values=self.cache,
                use_cache=True,
                return_dict=True,
                **arguments,
                **{CACHE_ARGUMENT: self.cache},
            )
            tokens = choice.next(output.logits[:, -1])
            unread.append(tokens)
            self.steps += 1
        self.decode_end = Mark.now(device)

    def results(self) -> list[SweepRow]:
        """What each strategy made of the batch."""
        place = {(row.prompt_row, row.strategy): number for number, row in enumerate(self.rows)}
        prompts = range(len(self.prompt.starts))
        evicting = {row.strategy for row in self.rows if row.strategy is not None}
        lengths = self.prompt.row_lengths()
        image_tokens = torch.stack([is_image.sum() for is_image in self.cache.row_is_image]).tolist()
        compress = self.cache.compressing.milliseconds()
        assert self.cache.prefill_end is not None
        prefill = self.begin.milliseconds_until(self.cache.prefill_end) - compress
        decode = self.decode_begin.milliseconds_until(self.decode_end) / self.steps if self.steps else None
        results = []
        for index, strategy in enumerate(self.strategies):
            own = [place.get((prompt, index), place.get((prompt, None), -1)) for prompt in prompts]
            kept = tuple(self.rows[number].kept for number in own)
            token = self.cache.token_bytes
            layer = LayerSizes(kept, tuple(n * token for n in kept), tuple(n * token for n in lengths))
            share = compress / len(evicting) if index in evicting else 0.0
            times = Times(share, prefill + share, decode, len(self.rows))
            results.append(
                SweepRow(
                    strategy,
                    tuple(tuple(self.answers.tokens[number]) for number in own),
                    report_of(strategy, lengths, image_tokens, [layer] * self.n_layers, times),
                    tuple(self.answers.finite[number] for number in own),
                )
            )
        return results


def _last_positions(position_ids: Tensor | None, prompts: int) -> Tensor | None:
    """Positions of the prompts' last tokens, (…, B, 1), from position ids (…, B or 1, L)."""
    if position_ids is None:
        return None
    last = position_ids[..., -1:]
    return last.expand(*last.shape[:-2], prompts, 1)


def first_differences(ours: Sequence[SweepRow], theirs: Sequence[SweepRow]) -> list[list[int | None]]:
    """Where two sweeps' answers begin to differ.

    Args:
        ours: rows of some strategies on a prompt batch.
        theirs: rows of the same strategies on the same batch, from another precision, device or grouping.

    Returns:
        [strategy][prompt], the number of the first new token that is not the same, None if all are.
    """
    return [
        [_first_difference(a, b) for a, b in zip(row.tokens, other.tokens, strict=True)]
        for row, other in zip(ours, theirs, strict=True)
    ]


def _first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    for place, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return place
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))
