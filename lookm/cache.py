"""The key/value cache that is compressed once, layer by layer, while the prompt is encoded."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lookm.compression import compress_many
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.prompt_cache import DecodeAttention, PromptCache
from lookm.record import LayerSizes, PromptRecord
from lookm.stopwatch import Mark
from lookm.storage.base import Plain, Storage
from lookm.storage.stored import Stored
from lookm.strategy import Strategy

NEW_TOKENS = 64
"""Slots that are made at once for tokens to come, so that the cache is not copied for each of them."""


class CompressedLayer(DynamicLayer):
    """One layer: full while its prompt is encoded, then what the strategy left, as it is stored, and the new tokens.

    Attributes:
        seen: tokens that were encoded.
        stored: what is held once the prompt was compressed; None before.
    """

    is_croppable = False

    def __init__(self) -> None:
        self.seen = 0
        self.stored: Stored | None = None
        self._full: tuple[Tensor | None, Tensor | None] = None, None
        self._valid: Tensor | None = None
        super().__init__()

    @property
    def keys(self) -> Tensor | None:
        """All keys that are held, (B, Hkv, K, D); unpacked anew if they are stored in another form."""
        return self._full[0] if self.stored is None else self.stored.states().keys

    @keys.setter
    def keys(self, states: Tensor | None) -> None:
        self._full = states, self._full[1]

    @property
    def values(self) -> Tensor | None:
        """All values that are held, (B, Hkv, K, Dv), likewise."""
        return self._full[1] if self.stored is None else self.stored.states().values

    @values.setter
    def values(self, states: Tensor | None) -> None:
        self._full = self._full[0], states

    @property
    def valid(self) -> Tensor | None:
        """Which slots hold a token, (B, K) or (B, Hkv, K) bool; None: all."""
        return None if self.stored is None else self.stored.states().valid

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Hold a prompt's keys and values (B, Hkv, L, D), or append those of new tokens; returns all that is held."""
        self.seen += key_states.shape[-2]
        if self.stored is None:
            self.lazy_initialization(key_states, value_states)
            self._full = key_states, value_states
            return key_states, value_states
        self.stored.append(key_states, value_states)
        keys, values, self._valid = self.stored.states()
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that the next queries will meet, and their offset."""
        return (self.seen if self.stored is None else self.stored.length) + query_length, 0

    def compress(self, strategy: Strategy, storage: Storage, prompt: Prompt, layers: Sequence[Layer]) -> LayerSizes:
        """Replace the full cache by what the strategy keeps of each row, as the storage stores it."""
        keys, values = self._full
        assert keys is not None
        assert values is not None
        rows = [compress_many([strategy], layer)[0] for layer in layers]
        self.stored = storage.store(rows, layers)
        self._full = None, None
        token_bytes = (keys[0].nbytes + values[0].nbytes) // prompt.length
        return LayerSizes(
            tokens=tuple(row.tokens for row in rows),
            kept_bytes=self.stored.prompt_bytes,
            full_bytes=tuple(n * token_bytes for n in prompt.row_lengths()),
        )

    def decode_mask(self, query: Tensor) -> Tensor | None:
        """What one new query of each row, (B, Hq, 1, D), sees of all that the last `update` returned.

        Returns:
            (B, 1, 1, K) bool, or (B, Hq, 1, K) where heads hold different numbers of tokens; None where all see all.
        """
        if self._valid is None:
            return None
        heads = self._valid if self._valid.ndim == 3 else self._valid[:, None]
        groups = query.shape[1] // heads.shape[1] if heads.shape[1] > 1 else 1
        return heads.repeat_interleave(groups, dim=1)[:, :, None]

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: evicted tokens cannot come back."""
        raise LookmError("a compressed cache cannot be cropped; assisted decoding is not available inside look_once")

    def reset(self) -> None:
        """Forget everything."""
        self.seen, self.stored, self._valid = 0, None, None
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, as beam search does."""
        if self.stored is not None:
            self.stored.select(beam_idx.to(self.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        if self.stored is not None:
            self.stored.select(torch.arange(self.stored.batch, device=self.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        if self.stored is not None:
            self.stored.select(torch.arange(self.stored.batch, device=self.device)[indices.to(self.device)])


class LookOnceCache(PromptCache):
    """The cache of one prompt batch under one strategy."""

    def __init__(
        self, strategy: Strategy, prompt: Prompt, config: PretrainedConfig, storage: Storage | None = None
    ) -> None:
        super().__init__(prompt, config, CompressedLayer, [strategy])
        self.strategy, self.storage = strategy, storage or Plain()
        image_tokens = torch.stack([is_image.sum() for is_image in self.row_is_image])
        self.record = PromptRecord(strategy, prompt.row_lengths(), image_tokens, [None] * len(self.layers))

    def layer_is_compressed(self, layer_index: int) -> bool:
        return self._compressed_layer(layer_index).stored is not None

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
        mask = self._compressed_layer(layer_index).decode_mask(query)
        if attention is not None:
            added = None if mask is None else torch.where(mask, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
            return attention(query, key, value, added)
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=False)[0]

    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        begin = Mark.now(rows[0].keys.device)
        for index, layers in self.ready(layer_index, rows, [self.strategy]):
            layer = self._compressed_layer(index)
            self.record.layers[index] = layer.compress(self.strategy, self.storage, self.prompt, layers)
        end = Mark.now(rows[0].keys.device)
        self.record.compressing.add(begin, end)
        self.record.prefill_end = end
