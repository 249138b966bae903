"""The key/value cache that is compressed once, layer by layer, while the prompt is encoded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lookm.compression import CompressedRow, compress_many, joined_needs
from lookm.context import forward_pass
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.record import LayerSizes, PromptRecord
from lookm.rotary import RotaryCall, Rotation
from lookm.statistics import Statistics
from lookm.stopwatch import Mark
from lookm.strategy import Strategy


class PromptCache(Cache, ABC):
    """What the attention function asks of a cache whose layers are compressed once, each after its prompt.

    Attributes:
        prompt: where padding and images of the prompt batch lie.
        row_is_image: for each row (L_row,) bool, padding left out; the same tensors for every layer.
        row_needs: for each row the attention statistics that its strategies will read.
        untouched: layers that stay as they are, because they hold no more than a window, a state or images.
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
        self.prompt = prompt
        self.row_is_image = tuple(prompt.row_is_image(row) for row in range(len(prompt.starts)))
        self.row_needs = tuple(joined_needs(strategies, is_image) for is_image in self.row_is_image)
        self._rotary_call: RotaryCall | None = None
        self._row_memory: tuple[dict[Hashable, dict[int, Any]], ...] = tuple({} for _ in self.row_is_image)

    def prompt_layers(
        self,
        layer_index: int,
        queries: Tensor,
        scaling: float | None,
        log_sum_exp: Tensor | None,
        statistics: Sequence[Statistics] | None,
        *,
        plain: bool = True,
        rotary: bool = True,
    ) -> list[Layer]:
        """Each row of a layer whose attention has just been computed, as strategies read it.

        Args:
            layer_index: which layer.
            queries: (B, Hq, L, D), after the rotary embedding.
            scaling: factor on Q Kᵀ.
            log_sum_exp: (B, Hq, L) float32 of the attention kernel, or None.
            statistics: of each row, where they were made beside its attention: what `row_needs` asks for; or None.
            plain: whether attention is causal and nothing else.
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
                index=layer_index,
                n_layers=len(self.layers),
                log_sum_exp=None if log_sum_exp is None else log_sum_exp[row, :, start:],
                statistics=None if statistics is None else statistics[row],
                plain=plain,
                rotation=partial(self._rotation_of, row, rotary),
                memory=self._row_memory[row],
            )
            for row, start in enumerate(self.prompt.starts)
        ]

    def note_rotary_call(self, call: RotaryCall) -> None:
        """Remember how the prompt is rotated, before its first layer."""
        if call.position_ids.shape[-1] == self.prompt.length:
            self._rotary_call = call

    def _rotation_of(self, row: int, rotary: bool) -> Rotation:
        """The rotary embedding of one row."""
        if self._rotary_call is None or not rotary:
            raise LookmError("the strategy reads the rotary embedding, and the model shows none; choose another one")
        return self._rotary_call.of_row(row, self.prompt.starts[row])

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

    def untouched_sizes(self) -> dict[int, LayerSizes]:
        """What the layers hold that stay as they are, just after the prompt, by their index."""
        return {index: _sizes_as_they_are(self.layers[index], self.prompt) for index in self.untouched}

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
        attention: "DecodeAttention | None" = None,
    ) -> Tensor:
        """Attention of one new token of each row on what a compressed layer holds.

        Args:
            module: the attention layer.
            layer_index: its place.
            query: (B, Hq, 1, D), after the rotary embedding.
            key: (B, Hkv, held, D), as the layer's `update` returned it.
            value: (B, Hkv, held, Dv), likewise.
            scaling: factor on Q Kᵀ, by default 1 / √D.
            attention: called where the softmax is not the plain one, with queries, keys, values and a mask (rows, 1, 1,
                held) that is added to the logits, or None; gives (rows, 1, Hq, Dv).

        Returns:
            (B, 1, Hq, Dv).
        """

    @abstractmethod
    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        """Compress a layer whose attention has just been computed, given as `prompt_layers` makes it."""


DecodeAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


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


NEW_TOKENS = 64
"""Slots that are made at once for tokens to come, so that the cache is not copied for each of them."""


@dataclass(frozen=True)
class _Room:
    """Keys, values (B, Hkv, slots, D) and `valid` (B, slots) with slots for more tokens than there are."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None

    @classmethod
    def around(cls, keys: Tensor, values: Tensor, valid: Tensor | None, slots: int) -> "_Room":
        """Room for `slots` tokens that begins with those given."""
        more = slots - keys.shape[-2]
        return cls(
            F.pad(keys, (0, 0, 0, more)),
            F.pad(values, (0, 0, 0, more)),
            None if valid is None else F.pad(valid, (0, more), value=True),
        )


class CompressedLayer(DynamicLayer):
    """One layer: full while its prompt is encoded, then what the strategy left, then that and the new tokens.

    Rows that keep fewer tokens than the longest are padded on the left; `valid` (B, K) bool marks what is no padding,
    None means that nothing is.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.compressed = False
        self.valid: Tensor | None = None
        self._room: _Room | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, Hkv, n, D); returns all that is held."""
        new = key_states.shape[-2]
        self.seen += new
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        held = self.keys.shape[-2]
        if torch.is_grad_enabled() and (key_states.requires_grad or self.keys.requires_grad):
            return self._append_for_backward(key_states, value_states)
        if self._room is None or self._room.keys.shape[-2] < held + new:
            self._room = _Room.around(self.keys, self.values, self.valid, held + new + NEW_TOKENS)
        self._room.keys[:, :, held : held + new] = key_states
        self._room.values[:, :, held : held + new] = value_states
        self.keys, self.values = self._room.keys[:, :, : held + new], self._room.values[:, :, : held + new]
        if self._room.valid is not None:
            self.valid = self._room.valid[:, : held + new]
        return self.keys, self.values

    def _append_for_backward(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """As `update`, in new memory: what a backward pass will read must not be written into."""
        assert self.keys is not None
        assert self.values is not None
        self._room = None
        self.keys = torch.cat([self.keys, key_states], dim=-2)
        self.values = torch.cat([self.values, value_states], dim=-2)
        if self.valid is not None:
            self.valid = F.pad(self.valid, (0, key_states.shape[-2]), value=True)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that the next queries will meet, and their offset."""
        return (0 if self.keys is None else self.keys.shape[-2]) + query_length, 0

    def compress(self, strategy: Strategy, prompt: Prompt, layers: Sequence[Layer]) -> LayerSizes:
        """Replace the full cache by what the strategy keeps of each row."""
        assert self.keys is not None
        assert self.values is not None
        full_keys, full_values = self.keys, self.values
        rows = [compress_many([strategy], layer)[0] for layer in layers]
        self.compressed = True
        tokens = tuple(row.keys.shape[1] for row in rows)
        if tokens != (prompt.length,) * len(rows):
            self.keys, self.values, self.valid = _stack_rows(rows)
        heads, key_size, value_size = full_keys.shape[1], full_keys.shape[-1], full_values.shape[-1]
        token_bytes = heads * (key_size + value_size) * full_keys.element_size()
        return LayerSizes(
            tokens=tokens,
            kept_bytes=tuple(n * token_bytes for n in tokens),
            full_bytes=tuple(n * token_bytes for n in prompt.row_lengths()),
        )

    def decode_mask(self) -> Tensor | None:
        """Mask for one new query of each row, (B, 1, 1, held) bool, or None if all rows see all."""
        return None if self.valid is None else self.valid[:, None, None, :]

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: evicted tokens cannot come back."""
        raise LookmError("a compressed cache cannot be cropped; assisted decoding is not available inside look_once")

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.seen, self.compressed, self.valid, self._room = 0, False, None, None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, as beam search does."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._room = None
        if self.valid is not None:
            self.valid = self.valid.index_select(0, beam_idx.to(self.valid.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        super().batch_repeat_interleave(repeats)
        self._room = None
        if self.valid is not None:
            self.valid = self.valid.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        super().batch_select_indices(indices)
        self._room = None
        if self.valid is not None:
            self.valid = self.valid[indices]


class LookOnceCache(PromptCache):
    """The cache of one prompt batch under one strategy."""

    def __init__(self, strategy: Strategy, prompt: Prompt, config: PretrainedConfig) -> None:
        super().__init__(prompt, config, CompressedLayer, [strategy])
        self.strategy = strategy
        image_tokens = torch.stack([is_image.sum() for is_image in self.row_is_image])
        self.record = PromptRecord(strategy, prompt.row_lengths(), image_tokens, [None] * len(self.layers))

    def layer_is_compressed(self, layer_index: int) -> bool:
        return self._compressed_layer(layer_index).compressed

    def _compressed_layer(self, layer_index: int) -> CompressedLayer:
        layer = self.layers[layer_index]
        assert isinstance(layer, CompressedLayer)
        return layer

    def end_prompt(self) -> None:
        """Note what the layers hold that are not compressed; the others are noted as they are compressed."""
        if self.record.prefill_end is None:
            self.record.prefill_end = Mark.now(self.prompt.is_image.device)
        for index, sizes in self.untouched_sizes().items():
            if self.record.layers[index] is None:
                self.record.layers[index] = sizes

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
        mask = self._compressed_layer(layer_index).decode_mask()
        if attention is not None:
            added = None if mask is None else torch.where(mask, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
            return attention(query, key, value, added)
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=False)[0]

    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        begin = Mark.now(rows[0].keys.device)
        self.record.layers[layer_index] = self._compressed_layer(layer_index).compress(self.strategy, self.prompt, rows)
        end = Mark.now(rows[0].keys.device)
        self.record.compressing.add(begin, end)
        self.record.prefill_end = end


def _stack_rows(rows: list[CompressedRow]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows of different sizes as one left-padded batch: keys and values (B, Hkv, K, D) and `valid` (B, K) or None."""
    sizes = [row.keys.shape[1] for row in rows]
    longest = max(sizes)
    keys = torch.stack([F.pad(row.keys, (0, 0, longest - n, 0)) for row, n in zip(rows, sizes, strict=True)])
    values = torch.stack([F.pad(row.values, (0, 0, longest - n, 0)) for row, n in zip(rows, sizes, strict=True)])
    if min(sizes) == longest:
        return keys, values, None
    slots = torch.arange(longest, device=keys.device)
    return keys, values, slots >= longest - torch.tensor(sizes, device=keys.device)[:, None]
