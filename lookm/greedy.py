"""Greedy decoding of many rows at once, with what a model's generation configuration asks of the logits."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from lookm.errors import LookmError
from lookm.questions import Questions

NO_TOKEN = -1
"""Stands for the token of a row whose logits are not finite (NaN, or an overflow)."""

PROMPT_BOUND = (EncoderNoRepeatNGramLogitsProcessor, UnbatchedClassifierFreeGuidanceLogitsProcessor)


def best_tokens(scores: Tensor) -> Tensor:
    """The highest-scored token of each row of (R, V), `NO_TOKEN` where the highest score is not finite: (R,) int64."""
    largest, tokens = scores.max(-1)
    return tokens.masked_fill(~largest.isfinite(), NO_TOKEN)


class GreedyChoice:
    """Chooses each row's next token as `generate(do_sample=False)` does.

    Args:
        processors: as `generate` prepared them.
        prompt_ids: (R, L) int64, the rows' prompts, padding included.
        min_new_tokens: shortest answer; from then on a processor that only sees to it is left out.
    """

    def __init__(
        self, processors: LogitsProcessorList, prompt_ids: Tensor, max_new_tokens: int, min_new_tokens: int
    ) -> None:
        for processor in processors:
            if isinstance(processor, PROMPT_BOUND):
                raise LookmError(
                    f"the generation configuration asks for {type(processor).__name__}, which knows its prompts by "
                    "their place in the batch; a sweep cannot apply it: run the strategies one by one"
                )
        self._all = processors
        self._later = LogitsProcessorList(p for p in processors if not isinstance(p, MinNewTokensLengthLogitsProcessor))
        self._min_new_tokens = min_new_tokens
        self._length = prompt_ids.shape[1]
        self._new = 0
        self.reads_ids = bool(self._later) or min_new_tokens > 1
        """Whether a processor has a say after the first new token."""
        self._ids = torch.cat([prompt_ids, prompt_ids.new_zeros(prompt_ids.shape[0], max_new_tokens)], dim=1)

    def next(self, logits: Tensor) -> Tensor:
        """The next tokens (R,) from logits (R, V), as `best_tokens` has them, and remember them for the processors."""
        scores = logits.float()
        processors = self._all if self._new < self._min_new_tokens else self._later
        place = self._length + self._new
        if processors:
            scores = processors(self._ids[:, :place], scores)  # type: ignore[arg-type]
        tokens = best_tokens(scores)
        if self.reads_ids:
            self._ids[:, place] = tokens.clamp(min=0)
        self._new += 1
        return tokens

    def ask(self, questions: Questions) -> None:
        """Go on with a row for each question, whose tokens end its context's row."""
        self.select(torch.tensor(questions.contexts, device=self._ids.device))
        self._ids[:, self._length - questions.length : self._length] = questions.ids

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (N,) int64, in this order, repeated as they may be."""
        self._ids = self._ids[rows]
        for processor in self._all:
            padding = getattr(processor, "prompt_ignore_length", None)  # of the repetition penalty, one a row
            if isinstance(padding, Tensor):
                processor.prompt_ignore_length = padding.to(rows.device)[rows]


class Answers:
    """The tokens of rows that leave the batch when they end."""

    def __init__(self, rows: int, ends: Collection[int]) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.live = list(range(rows))
        """Which rows the batch holds, in its order; ended ones are among them until `leave`."""
        self.finite = [True] * rows
        """Whether a row ended, if it did, otherwise than by logits that are not finite."""
        self._ended = [False] * rows
        self._ends = frozenset(ends)

    def add(self, steps: Tensor) -> None:
        """Append the tokens of one or several steps, (n, rows in the batch); nothing after an end."""
        for row, new in zip(self.live, steps.t().tolist(), strict=True):
            for token in new:
                if self._ended[row]:
                    break
                if token == NO_TOKEN:
                    self.finite[row], self._ended[row] = False, True
                    break
                self.tokens[row].append(token)
                self._ended[row] = token in self._ends

    def going_on(self) -> list[int]:
        """Places in the batch of the rows that have not ended."""
        return [place for place, row in enumerate(self.live) if not self._ended[row]]

    def leave(self, places: Sequence[int]) -> None:
        """The batch now holds only the rows at these places."""
        self.live = [self.live[place] for place in places]
