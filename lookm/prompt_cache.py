"""What the attention function asks of a cache, and which of a model's layers such a cache holds as they are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from lookm.compression import joined_needs, observe
from lookm.context import forward_pass
from lookm.errors import LookmError
from lookm.exact import RealSoftmax
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.record import LayerSizes
from lookm.rotary import RotaryCall, Rotation
from lookm.shortening import Shortened
from lookm.statistics import Statistics
from lookm.strategy import Strategy

DecodeAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class PromptCache(Cache, ABC):
    """What the attention function asks of a cache whose layers are compressed once, each after its prompt.

    Attributes:
        prompt: where padding and images of the prompt batch lie.
        row_is_image: for each row (L_row,) bool, padding left out; the same tensors for every layer.
        row_needs: for each row the attention statistics that its strategies will read.
        untouched: layers that stay as they are, because they hold no more than a window, a state or images.
        compressible: the other layers.
        waiting: layers that are held in full until the last one was attended, with their rows.
    """

    def __init__(
        self,
        prompt: Prompt,
        config: PretrainedConfig,
        make_layer: Callable[[], CacheLayerMixin],
        strategies: Sequence[Strategy] = (),
    ) -> None:
        layers, self.untouched = cache_layers(config, make_layer)
        super().__init__(layers=layers)
        self.compressible = [index for index in range(len(layers)) if index not in self.untouched]
        self.waiting: list[tuple[int, Sequence[Layer]]] = []
        self.prompt = prompt
        self.row_is_image = tuple(prompt.row_is_image(row) for row in range(len(prompt.starts)))
        self.row_needs = tuple(joined_needs(strategies, is_image) for is_image in self.row_is_image)
        self._rotations: tuple[Callable[[], Rotation], ...] = ()  # of each row, made once for all layers
        self._row_memory: tuple[dict[Hashable, dict[int, Any]], ...] = tuple({} for _ in self.row_is_image)

    def prompt_layers(
        self,
        layer_index: int,
        queries: Tensor,
        scaling: float | None,
        log_sum_exp: Tensor | None,
        statistics: Sequence[Statistics] | None,
        *,
        real: Sequence[RealSoftmax] | None = None,
        rotary: bool = True,
    ) -> list[Layer]:
        """Each row of a layer whose attention has just been computed, as strategies read it.

        Args:
            queries: (B, Hq, L, D), after the rotary embedding.
            scaling: factor on Q Kᵀ.
            log_sum_exp: (B, Hq, L) float32 of the attention kernel, or None.
            statistics: of each row, where they were made beside its attention: what `row_needs` asks for; or None.
            real: how each row attends, where that is not plainly causal.
            rotary: whether the layer has a rotary embedding.
        """
        held = self.layers[layer_index]
        assert isinstance(held, CacheLayerMixin)
        assert held.keys is not None
        assert held.values is not None
        return [
            Layer(
                queries[row, :, start:],
                held.keys[row, :, start:],
                held.values[row, :, start:],
                self.row_is_image[row].to(queries.device),
                scaling,
                index=self.compressible.index(layer_index),
                n_layers=len(self.compressible),
                log_sum_exp=None if log_sum_exp is None else log_sum_exp[row, :, start:],
                statistics=None if statistics is None else statistics[row],
                real=None if real is None else real[row],
                token_ids=self._token_ids(row, queries.device),
                rotation=self._rotations[row] if rotary and self._rotations else _no_rotation,
                memory=self._row_memory[row],
            )
            for row, start in enumerate(self.prompt.starts)
        ]

    def _token_ids(self, row: int, device: torch.device) -> Tensor | None:
        ids = self.prompt.token_ids
        return None if ids is None else ids[row, self.prompt.starts[row] :].to(device)

    def note_rotary_call(self, call: RotaryCall) -> None:
        """Remember how the prompt is rotated, before its first layer."""
        if call.position_ids.shape[-1] == self.prompt.length + self.prompt.tail:
            call = call.until(self.prompt.length)
            rows = enumerate(self.prompt.starts)
            self._rotations = tuple(cache(partial(call.of_row, row, start)) for row, start in rows)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, Hkv, n, D) to a layer; returns all that it holds.

        Raises:
            LookmError: outside the block that made the cache, where nobody would know which of its rows see what.
        """
        self.check_in_use()
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def check_in_use(self) -> None:
        """Raise LookmError unless the forward pass that is going on knows of this cache."""
        now = forward_pass()
        if now is None or now.cache is not self:
            raise LookmError(
                "a compressed cache is used outside its look_once block, where attention does not know what it holds; "
                "go on inside a look_once block of the model"
            )

    def shortened(self, strategy: Strategy) -> Shortened | None:
        """Which tokens are left of the prompt that this pass encodes, if the strategy has shortened it."""
        return None

    def untouched_sizes(self) -> dict[int, LayerSizes]:
        """What the layers hold that stay as they are, just after the prompt, by their index."""
        return {index: _sizes_as_they_are(self.layers[index], self.prompt) for index in self.untouched}

    def mask_of_untouched(self, rows: Sequence[int], tokens: int, asked: Tensor | None = None) -> Tensor | None:
        """Which of the tokens seen are padding for the layers that stay as they are; None if none is.

        Args:
            rows: of the prompt batch, R of them, as often as they are decoded.
            tokens: seen, those that are new in the pass among them.
            asked: (R, Q) bool, which of the tokens right behind the prompts are padding; None: none is.

        Returns:
            (R, tokens) int64, 0 for padding.
        """
        if not self.untouched or not (any(self.prompt.starts) or asked is not None):
            return None
        starts = torch.tensor([self.prompt.starts[row] for row in rows])
        mask = torch.arange(tokens) >= starts[:, None]
        if asked is not None:
            mask[:, self.prompt.length : self.prompt.length + asked.shape[1]] &= ~asked.cpu()
        return mask.long().to(self.prompt.is_image.device)

    @abstractmethod
    def layer_is_compressed(self, layer_index: int) -> bool:
        """Whether the layer has seen its prompt."""

    @abstractmethod
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
        """Attention of the new tokens of each row on what a compressed layer holds, and causally on each other.

        Args:
            module: the attention layer.
            query: (B, Hq, n, D), after the rotary embedding.
            key: (B, Hkv, held, D), as the layer's `update` returned it.
            value: (B, Hkv, held, Dv), likewise.
            scaling: factor on Q Kᵀ, by default 1 / √D.
            attention: called where the softmax is not the plain one, with queries, keys, values and a mask (rows, 1, n,
                held) that is added to the logits, or None; gives (rows, n, Hq, Dv).

        Returns:
            (B, n, Hq, Dv).
        """

    def detach_tail(self, layer_index: int) -> tuple[Tensor, Tensor]:
        """Take keys and values (B, Hkv, tail, D) out that a layer holds behind its prompt; `update` puts them back."""
        raise NotImplementedError

    def ready(
        self, layer_index: int, rows: Sequence[Layer], strategies: Sequence[Strategy]
    ) -> list[tuple[int, Sequence[Layer]]]:
        """Which layers can be compressed now: this one, or after the last one all, if a strategy reads all first."""
        late = [strategy for strategy in strategies if strategy.whole_prompt]
        if layer_index == self.compressible[-1]:  # what strategies remember of the prompt ends with these rows
            self._rotations, self._row_memory = (), tuple({} for _ in self.row_is_image)
        if not late:
            return [(layer_index, rows)]
        for row, needs in zip(rows, self.row_needs, strict=True):
            row.make_statistics(needs)
            observe(late, row)
            if len(late) == len(strategies):  # others read queries when they choose
                row.forget_queries()
        self.waiting.append((layer_index, rows))
        if layer_index != self.compressible[-1]:
            return []
        ready, self.waiting = self.waiting, []
        return ready

    @abstractmethod
    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        """Compress a layer whose attention has just been computed, given as `prompt_layers` makes it."""


def _no_rotation() -> Rotation:
    raise LookmError("the strategy reads the rotary embedding, and the model shows none; choose another one")


def cache_layers(
    config: PretrainedConfig, make_layer: Callable[[], CacheLayerMixin]
) -> tuple[list[Any], tuple[int, ...]]:
    """The layers of transformers' own cache, those with attention on the whole prompt made by `make_layer`.

    Returns:
        The layers, and which of them are transformers' own: with a window, a state, or attention on images alone.
    """
    cross = getattr(config.get_text_config(decoder=True), "cross_attention_layers", None) or ()
    layers = DynamicCache(config=config).layers
    own = tuple(i for i, layer in enumerate(layers) if type(layer) is not DynamicLayer or i in cross)
    return [layer if i in own else make_layer() for i, layer in enumerate(layers)], own


def _sizes_as_they_are(layer: Any, prompt: Prompt) -> LayerSizes:
    """Tokens and bytes of a layer with a window, with a state, with images (cross-attention), or with nothing."""
    rows = len(prompt.starts)
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is not None and values is not None:
        held = keys.shape[-2]
        limits = prompt.row_lengths() if getattr(layer, "is_sliding", False) else (held,) * rows
        token_bytes = (keys[0].nbytes + values[0].nbytes) // max(1, held)
        tokens = tuple(min(held, limit) for limit in limits)
        size = tuple(n * token_bytes for n in tokens)
    else:
        states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
        tokens = (0,) * rows
        size = (sum(state[0].nbytes for state in states if state is not None),) * rows
    return LayerSizes(tokens, kept_bytes=size, full_bytes=size, compressed=False)
