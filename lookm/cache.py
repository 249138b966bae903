"""The key/value cache that is compressed once, layer by layer, while the prompt is encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lookm.compression import CompressedRow, compress_many
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.prompt_cache import DecodeAttention, PromptCache
from lookm.record import LayerSizes, PromptRecord
from lookm.stopwatch import Mark
from lookm.strategy import Strategy

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
        for index, layers in self.ready(layer_index, rows, [self.strategy]):
            self.record.layers[index] = self._compressed_layer(index).compress(self.strategy, self.prompt, layers)
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
