"""The cache of a sweep's row that is decoded by itself, because its layers hold no rectangle of numbers as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PretrainedConfig

from lookm.buckets import DecodeRow
from lookm.cache import LookOnceCache
from lookm.prompt import Prompt
from lookm.record import LayerSizes
from lookm.stopwatch import Mark, Stopwatch
from lookm.strategy import Strategy


class LoneCache(LookOnceCache):
    """A prompt batch under one strategy, as `look_once` holds it and a sweep decodes it.

    Attributes:
        rows: of the decode batch, one a prompt.
    """

    def __init__(self, strategy: Strategy, prompt: Prompt, config: PretrainedConfig) -> None:
        super().__init__(strategy, prompt, config)
        kept = [strategy.promised_tokens(is_image) for is_image in self.row_is_image]
        self.rows = [DecodeRow(row, (0,), tokens) for row, tokens in enumerate(kept)]
        self._asked: Tensor | None = None  # (R, Q) bool, padding of the questions
        self._new = 1

    @property
    def compressing(self) -> Stopwatch:
        """The time of compressing all layers."""
        return self.record.compressing

    @property
    def prefill_end(self) -> Mark | None:
        """When the last layer was compressed."""
        return self.record.prefill_end

    def sizes(self, rows: Sequence[int]) -> list[LayerSizes]:
        """What every layer held of the prompts.

        Raises:
            BudgetError: unless every layer was compressed.
        """
        return self.record.check_complete()

    def begin_step(self, step: int) -> None:
        """Nothing to prepare: layers make room for new tokens by themselves."""

    def ask(self, places: Sequence[int], padding: Tensor) -> None:
        """Go on with the rows at `places`, each with a question, of whose tokens `padding` (R, Q) bool are none."""
        self.keep_rows(places)
        self._asked = self.padding = padding if bool(padding.any()) else None
        self._new = padding.shape[1]

    def end_questions(self) -> None:
        """The questions are read."""
        self.padding, self._new = None, 1

    def decode_attention_mask(self) -> Tensor | None:
        """Which tokens are padding, (R, tokens seen and new), for the layers that stay as they are; None if none is."""
        tokens = self.get_seq_length() + self._new
        return self.mask_of_untouched([row.prompt_row for row in self.rows], tokens, self._asked)

    def keep_rows(self, places: Sequence[int]) -> None:
        """Drop all rows of the decode batch but those at `places`, ascending; some may be repeated."""
        index = torch.tensor(places, device=self.prompt.is_image.device)
        self.batch_select_indices(index)
        self._asked = None if self._asked is None else self._asked[index]
        self.rows = [self.rows[place] for place in places]
