"""One group of a sweep: a prefill whose layers are compressed for every strategy, and the joint decoding after it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, PretrainedConfig, PreTrainedModel

from lookm.context import filling
from lookm.greedy import Answers, GreedyChoice
from lookm.lone_cache import LoneCache
from lookm.prompt import Prompt
from lookm.questions import Questions
from lookm.record import Times, report_of
from lookm.report import Report
from lookm.step import DecodeStep, StaticStep, read_questions
from lookm.stopwatch import Mark
from lookm.strategy import Strategy
from lookm.sweep_cache import SweepCache

LEAVING_SHARE = 0.75
"""Ended rows leave the batch as soon as no more than this share of it goes on."""

PER_TOKEN = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")
"""Arguments of models with a column for each token of the prompt."""

GPU_STEPS = 8
"""Decode steps between two looks at the tokens on a GPU, where each look waits for the device."""


@dataclass(frozen=True)
class SweepRow:
    """What one strategy made of a prompt batch.

    Attributes:
        strategy: which.
        tokens: for each prompt, or for each question that came after them, the new tokens, up to and with the one that
            ends the answer.
        report: as of `Session.report()`, with times as a sweep can attribute them. `compress_ms` is the strategy's
            equal share of the joint compression (0 if it evicts nothing), `prefill_ms` the one prefill without the
            joint compression plus that share, `decode_ms_per_token` a step of the joint batch of `decode_rows` rows.
        finite: for each of them whether all its logits were finite; otherwise `tokens` ends before the first that were
            not.
    """

    strategy: Strategy
    tokens: tuple[tuple[int, ...], ...]
    report: Report
    finite: tuple[bool, ...]


@dataclass(frozen=True)
class Limits:
    """When answers end: length, end tokens; and whether decode steps keep their state on the device."""

    max_new_tokens: int
    min_new_tokens: int
    ends: Collection[int]
    static: bool


class Group:
    """Strategies whose caches fit into memory together, or one that is decoded by itself.

    Args:
        questions: read after the prompts were compressed; None: the prompts end with them.
    """

    def __init__(
        self,
        strategies: Sequence[Strategy],
        prompt: Prompt,
        config: PretrainedConfig,
        limits: Limits,
        questions: Questions | None = None,
    ) -> None:
        self.strategies = strategies
        self.prompt = prompt
        self.limits = limits
        self.questions = questions
        self.contexts = tuple(range(len(prompt.starts))) if questions is None else questions.contexts
        self.cache: SweepCache | LoneCache
        if strategies[0].joins_sweeps:
            later = limits.max_new_tokens - 1 + (0 if questions is None else questions.length)
            self.cache = SweepCache(strategies, prompt, config, later)
        else:
            self.cache = LoneCache(strategies[0], prompt, config)
        self.rows = list(self.cache.rows)
        self.asked = [  # for each row that is decoded, which question it answers and which row it goes on from
            (question, place)
            for place, row in enumerate(self.rows)
            for question, context in enumerate(self.contexts)
            if context == row.prompt_row
        ]
        self.answers = Answers(len(self.asked), limits.ends)
        self.steps = 0

    def run(
        self, model: PreTrainedModel, input_ids: Tensor, processors: LogitsProcessorList, model_kwargs: dict[str, Any]
    ) -> None:
        """Encode the prompts (B, L) and decode; arguments are those that `generate` prepared.

        With questions they are (B, L + Q), of which the last Q tell no more than what follows the prompts.
        """
        limits, device = self.limits, input_ids.device
        choice = GreedyChoice(processors, input_ids, limits.max_new_tokens, limits.min_new_tokens)
        self.begin = Mark.now(device)
        prepared = model.prepare_inputs_for_generation(  # type: ignore[operator]
            input_ids, is_first_iteration=True, **{**model_kwargs, "past_key_values": self.cache, "use_cache": True}
        )
        told = model_kwargs.get("position_ids") if "position_ids" in prepared else None  # some models count themselves
        if self.questions is not None:
            prepared = {name: _beginning(name, value, self.prompt.length) for name, value in prepared.items()}
        with filling(self.cache):
            logits = model(**prepared, return_dict=True).logits[:, -1]
        self.cache.end_prompt()
        if self.questions is None:
            tokens = choice.next(logits)  # (B,): the same first token for every strategy
            prompts = torch.tensor([row.prompt_row for row in self.rows], device=device)
            choice.select(prompts)
            tokens, positions = tokens[prompts], _last_positions(told, len(self.prompt.starts))
            positions = None if positions is None else positions.index_select(-2, prompts)
        else:
            tokens, positions = self._ask(model, choice, self.questions, told)
        self.decode_begin = Mark.now(device)
        static = limits.static and self.questions is None and not choice.reads_ids and not self.cache.untouched
        if static and positions is not None and isinstance(self.cache, SweepCache):
            self._decode(StaticStep(model, self.cache, choice, tokens, positions))
        else:
            self._decode(DecodeStep(model, self.cache, choice, tokens, positions))
        self.decode_end = Mark.now(device)

    def _ask(
        self, model: PreTrainedModel, choice: GreedyChoice, questions: Questions, told: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Every row reads its question: the first new tokens (R,), and the questions' last positions (…, R, 1)."""
        order = torch.tensor([question for question, _ in self.asked], device=questions.ids.device)
        positions = None if told is None else questions.positions(told[..., self.prompt.length :])
        positions = None if positions is None else positions.index_select(-2, order)
        padding = ~questions.mask.bool()[order]
        self.cache.ask([place for _, place in self.asked], padding)
        logits = read_questions(model, self.cache, questions.ids[order], padding, positions)
        choice.ask(questions)
        choice.select(order)
        return choice.next(logits), None if positions is None else positions[..., -1:]

    def _decode(self, step: DecodeStep) -> None:
        """Go on from the first new tokens."""
        device = step.tokens.device
        look = 1 if device.type == "cpu" else GPU_STEPS
        unread = [step.tokens]
        while True:
            last = self.steps == self.limits.max_new_tokens - 1
            if last or self.steps % look == 0:
                self.answers.add(torch.stack(unread))
                unread = []
                places = self.answers.going_on()
                if last or not places:
                    break
                if len(places) <= LEAVING_SHARE * len(self.answers.live):
                    step.keep_rows(places, self.steps)
                    self.answers.leave(places)
            unread.append(step.next(self.steps))
            self.steps += 1

    def results(self) -> list[SweepRow]:
        """What each strategy made of the batch."""
        place = {(row.prompt_row, index): number for number, row in enumerate(self.rows) for index in row.strategies}
        answer = {pair: number for number, pair in enumerate(self.asked)}
        prompts = range(len(self.prompt.starts))
        lengths = self.prompt.row_lengths()
        evicting = {i for i, s in enumerate(self.strategies) if any(map(s.chooses, self.cache.row_is_image))}
        image_tokens = torch.stack([is_image.sum() for is_image in self.cache.row_is_image]).tolist()
        compress = self.cache.compressing.milliseconds()
        assert self.cache.prefill_end is not None
        prefill = self.begin.milliseconds_until(self.cache.prefill_end) - compress
        decode = self.decode_begin.milliseconds_until(self.decode_end) / self.steps if self.steps else None
        results = []
        for index, strategy in enumerate(self.strategies):
            own = [place[prompt, index] for prompt in prompts]
            share = compress / max(1, len(evicting)) if index in evicting else 0.0
            times = Times(share, prefill + share, decode, len(self.asked))
            numbers = [answer[question, own[context]] for question, context in enumerate(self.contexts)]
            results.append(
                SweepRow(
                    strategy,
                    tuple(tuple(self.answers.tokens[number]) for number in numbers),
                    report_of(strategy, lengths, image_tokens, self.cache.sizes(own), times),
                    tuple(self.answers.finite[number] for number in numbers),
                )
            )
        return results


def _beginning(name: str, value: Any, length: int) -> Any:
    """An argument of the model for the prompts alone, without the questions."""
    return value[..., :length] if name in PER_TOKEN and isinstance(value, Tensor) else value


def _last_positions(position_ids: Tensor | None, prompts: int) -> Tensor | None:
    """Positions of the prompts' last tokens, (…, B, 1), from position ids (…, B or 1, L)."""
    if position_ids is None:
        return None
    last = position_ids[..., -1:]
    return last.expand(*last.shape[:-2], prompts, 1)
