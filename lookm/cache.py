"""The key/value cache that is compressed once, layer by layer, while the prompt is encoded."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lookm.again import Again
from lookm.compressed_layer import CompressedLayer
from lookm.errors import LookmError
from lookm.held import Held
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.prompt_cache import DecodeAttention, PromptCache
from lookm.record import PromptRecord
from lookm.shortening import Shortened, ShorteningStrategy
from lookm.stopwatch import Mark
from lookm.strategy import Strategy


class LookOnceCache(PromptCache):
    """The cache of one prompt batch under one strategy; it goes on with any number of new tokens at once.

    Attributes:
        record: sizes and times.
        again: when to compress again; None: never.
        padding: (B, n) bool, which of the present forward pass's new tokens are none; None: all are tokens.
        new_is_image: (B, n) bool, which of them are of images, where `again` asks for it.
        rope_deltas: what models with several position axes add to positions after the prompt (B, 1), or None.
        notes_positions: whether layers note which positions they keep; `lookm.kept.positions_in` reads them.
        note: what its owner wants to find with it when it was saved and loaded again; values of JSON.
    """

    def __init__(
        self, strategy: Strategy, prompt: Prompt, config: PretrainedConfig, again: Again | None = None
    ) -> None:
        super().__init__(prompt, config, CompressedLayer, [strategy])
        self.strategy = strategy
        self.again = again
        self.whole_prompt = prompt
        self._shortened: Shortened | None = None
        image_tokens = torch.stack([is_image.sum() for is_image in self.row_is_image])
        self.record = PromptRecord(strategy, prompt.row_lengths(), image_tokens, [None] * len(self.layers))
        self.padding: Tensor | None = None
        self.new_is_image: Tensor | None = None
        self.rope_deltas: Tensor | None = None
        self.notes_positions = False
        self.note: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "LookOnceCache":
        """A cache to go on with apart from this one; no gradient leads from one to the other."""
        with_gradient = (value for value in self._tensors() if value.grad_fn is not None)
        memo.update((id(value), value.detach().clone()) for value in with_gradient)
        copy = type(self).__new__(type(self))
        shared = (self.prompt, self.whole_prompt, self.row_is_image, self.row_needs, self.strategy)
        memo |= {id(self): copy, id(self.record): self.record.again()} | {id(value): value for value in shared}
        vars(copy).update(deepcopy(vars(self), memo))
        return copy

    def _tensors(self) -> Iterator[Tensor]:
        """All that the layers hold."""
        for layer in self.layers:
            if isinstance(layer, CompressedLayer):
                yield from () if layer.stored is None else layer.stored.tensors()
            else:
                yield from (value for value in vars(layer).values() if isinstance(value, Tensor))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx not in self.untouched and self.layer_is_compressed(layer_idx):
            kwargs |= {"padding": self.padding, "is_image": self.new_is_image}
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def detach_tail(self, layer_index: int) -> tuple[Tensor, Tensor]:
        layer, n = self._compressed_layer(layer_index), self.prompt.tail
        keys, values = layer.keys, layer.values
        assert keys is not None
        assert values is not None
        layer.keys, layer.values, layer.seen = keys[:, :, :-n], values[:, :, :-n], layer.seen - n
        return keys[:, :, -n:], values[:, :, -n:]

    def layer_is_compressed(self, layer_index: int) -> bool:
        return self._compressed_layer(layer_index).stored is not None

    def _compressed_layer(self, layer_index: int) -> CompressedLayer:
        layer = self.layers[layer_index]
        assert isinstance(layer, CompressedLayer)
        return layer

    def end_prompt(self) -> None:
        """Note what the layers hold that are not compressed; the others are noted as they are compressed."""
        self._shortened = None
        if self.record.prefill_end is None:
            self.record.prefill_end = Mark.now(self.prompt.is_image.device)
        for index, sizes in self.untouched_sizes().items():
            if self.record.layers[index] is None:
                self.record.layers[index] = sizes

    def shorten(self, rows: Sequence[Tensor]) -> None:
        """Let only these positions of each row, (n,) int64 ascending, go on into the layers to come."""
        if self.untouched:
            raise LookmError(
                f"{self.strategy.name} drops tokens before layers, and layers {list(self.untouched)} have a window, a "
                "state or images of their own; choose another strategy"
            )
        self._shortened = Shortened.of(self.prompt, rows)
        self.prompt = self._shortened.prompt
        self.row_is_image = tuple(self.prompt.row_is_image(row) for row in range(len(rows)))

    def shortened(self, strategy: Strategy) -> Shortened | None:
        return self._shortened if strategy is self.strategy else None

    def attend(
        self,
        module: nn.Module,
        layer_index: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        attention: DecodeAttention | None = None,
    ) -> Tensor:
        layer = self._compressed_layer(layer_index)
        if isinstance(layer.stored, Held):
            return layer.stored.attend(query, scaling, attention)
        mask = layer.decode_mask(query)
        if attention is None:
            output = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=False)[0]
        elif self.again is None:
            added = None if mask is None else torch.where(mask, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
            return attention(query, key, value, added)
        else:
            raise LookmError(f"every={self.again.every} reads plain attention; this model caps its logits or has sinks")
        if self.again is not None:
            layer.compress_again(self.again, query, self.prompt.length, scaling)
        return output

    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        begin = Mark.now(rows[0].keys.device)
        for index, layers in self.ready(layer_index, rows, [self.strategy]):
            layer = self._compressed_layer(index)
            noted = self.notes_positions, self.again is not None and self.again.reads_modality
            self.record.layers[index] = layer.compress(self.strategy, self.whole_prompt, layers, *noted)
        if isinstance(self.strategy, ShorteningStrategy) and layer_index + 1 == self.strategy.first_short_layer:
            self.shorten([self.strategy.going_on(row) for row in rows])
        end = Mark.now(rows[0].keys.device)
        self.record.compressing.add(begin, end)
        self.record.prefill_end = end
