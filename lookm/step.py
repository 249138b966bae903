"""One decode step of a sweep: every row of the joint batch gets its next token."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lookm.context import filling
from lookm.errors import LookmError
from lookm.greedy import GreedyChoice, best_tokens
from lookm.lone_cache import LoneCache
from lookm.sweep_cache import SweepCache


def read_questions(
    model: PreTrainedModel, cache: SweepCache | LoneCache, ids: Tensor, padding: Tensor, positions: Tensor | None
) -> Tensor:
    """Let every row read its question after its compressed context.

    Args:
        cache: filled by the contexts, then asked: it has a row for each question and strategy.
        ids: (R, Q) int64, padded on the left.
        padding: (R, Q) bool.
        positions: (…, R, Q) int64, or None if the model counts for itself.

    Returns:
        Logits of the first new tokens, (R, V) float32.

    Raises:
        LookmError: for questions of different lengths where the model counts positions for itself.
    """
    if positions is None and bool(padding.any()):
        raise LookmError("the model counts positions for itself, so questions of one batch must be equally long")
    arguments = {} if positions is None else {"position_ids": positions}
    logits = call_model(model, cache, ids, arguments)
    cache.end_questions()
    return logits


def call_model(model: PreTrainedModel, cache: SweepCache | LoneCache, ids: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Logits (R, V) float32 of the last of the new tokens (R, n)."""
    mask = cache.decode_attention_mask()
    if mask is not None:
        arguments["attention_mask"] = mask
    arguments |= {"past_key_values": cache, "use_cache": True, "return_dict": True}
    with filling(cache):
        output = model(input_ids=ids, **arguments)
    return output.logits[:, -1].float()


class DecodeStep:
    """Calls the model for one token a row; where to write and read is known on the host.

    Args:
        cache: filled by the prompts.
        tokens: the last tokens (R,) int64.
        positions: the last positions (…, R, 1) int64, or None if the model counts for itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: SweepCache | LoneCache,
        choice: GreedyChoice,
        tokens: Tensor,
        positions: Tensor | None,
    ) -> None:
        self.model, self.cache, self.choice = model, cache, choice
        self.tokens, self.positions = tokens, positions

    def next(self, number: int) -> Tensor:
        """Step `number`, from 0: the next tokens (R,)."""
        self.cache.begin_step(number)
        if self.positions is not None:
            self.positions = self.positions + 1
        self.tokens = self.choice.next(self._logits())
        return self.tokens

    def keep_rows(self, places: list[int], number: int) -> None:
        """Go on with the rows at these places only; step `number` is next."""
        index = torch.tensor(places, device=self.tokens.device)
        self.cache.keep_rows(places)
        self.choice.select(index)
        self.tokens = self.tokens[index]
        if self.positions is not None:
            self.positions = self.positions.index_select(-2, index)

    def _logits(self) -> Tensor:
        tokens = self.tokens.clamp(min=0)[:, None]  # a row without a token has ended
        arguments = {} if self.positions is None else {"position_ids": self.positions}
        return call_model(self.model, self.cache, tokens, arguments)


class StaticStep(DecodeStep):
    """The same step with all its state in tensors of fixed size on the device, so that a CUDA graph can replay it.

    On a GPU the step is captured once for a set of rows, and a step is one launch; on a CPU the same function is called
    step by step. For plain greedy choice and models that are told their positions; attention reads all slots of a row,
    those of future tokens masked.
    """

    cache: SweepCache

    def __init__(
        self, model: PreTrainedModel, cache: SweepCache, choice: GreedyChoice, tokens: Tensor, positions: Tensor
    ) -> None:
        super().__init__(model, cache, choice, tokens.clone(), positions.clone())
        self._graph = self._captured(0)

    def next(self, number: int) -> Tensor:
        if self._graph is None:
            self._advance()
        else:
            self._graph.replay()
        return self.tokens.clone()

    def keep_rows(self, places: list[int], number: int) -> None:
        super().keep_rows(places, number)
        self._graph = self._captured(number)

    def _advance(self) -> None:
        """The captured function: reads and writes only the tensors that are there before it."""
        assert self.positions is not None
        self.cache.advance_static_step()
        self.positions += 1
        self.tokens.copy_(best_tokens(self._logits()))

    def _captured(self, number: int) -> torch.cuda.CUDAGraph | None:
        """A graph of the step, on a GPU; step `number` is next."""
        self.cache.begin_static_steps()
        self.cache.rewind_static_steps(number)
        if self.tokens.device.type != "cuda":
            return None
        assert self.positions is not None
        tokens, positions = self.tokens.clone(), self.positions.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries allocate their workspaces before the capture; slots are written again later
                self._advance()
                self.cache.rewind_static_steps(number)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        self.tokens.copy_(tokens)
        self.positions.copy_(positions)
        return graph
