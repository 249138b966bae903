"""The key/value cache that is compressed once, layer by layer, while the prompt is encoded."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lookm.again import Again
from lookm.compression import compress_many
from lookm.errors import LookmError
from lookm.held import Held
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.prompt_cache import DecodeAttention, PromptCache
from lookm.record import LayerSizes, PromptRecord
from lookm.shortening import Shortened, ShorteningStrategy
from lookm.stopwatch import Mark
from lookm.storage.stored import Stored
from lookm.strategy import Strategy


class CompressedLayer(DynamicLayer):
    """One layer: full while its prompt is encoded, then what the strategy left, as it is stored, and the new tokens.

    Attributes:
        seen: tokens that were encoded.
        stored: what is held once the prompt was compressed; None before.
        later: tokens that came after the prompt; they can be cropped.
        padding: (B, later) bool, which of them are none; None: all are tokens.
        queries: (B, Hq, later, D), theirs, where the cache will be compressed again.
        positions: of each row and in it of each head, what was kept of the prompt, where the cache notes it.
    """

    is_croppable = False

    def __init__(self) -> None:
        self.seen = 0
        self.stored: Stored | None = None
        self.later = 0
        self.queries: Tensor | None = None
        self.padding: Tensor | None = None
        self.positions: list[tuple[Tensor, ...]] | None = None
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
        return None if self.stored is None else self._without_padding(self.stored.states().valid)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: object,
        padding: Tensor | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Hold a prompt's keys and values (B, Hkv, L, D), or append those of new tokens; returns all that is held.

        Of n new tokens `padding` (B, n) bool says which are none.
        """
        self.seen += key_states.shape[-2]
        if self.stored is None:
            self.lazy_initialization(key_states, value_states)
            self._full = key_states, value_states
            return key_states, value_states
        if isinstance(self.stored, Held):
            self.stored.append(key_states, value_states, padding)
            return key_states, value_states
        self.stored.append(key_states, value_states)
        self._note_padding(padding, key_states)
        keys, values, valid = self.stored.states()
        self._valid = self._without_padding(valid)
        return keys, values

    def _note_padding(self, padding: Tensor | None, new: Tensor) -> None:
        """Remember which of the new tokens (B, Hkv, n, D) are padding."""
        rows, n = new.shape[0], new.shape[2]
        if padding is not None and self.padding is None:
            self.padding = padding.new_zeros(rows, self.later)
        if self.padding is not None:
            now = self.padding.new_zeros(rows, n) if padding is None else padding
            self.padding = torch.cat([self.padding, now], dim=1)
        self.later += n

    def _without_padding(self, valid: Tensor | None) -> Tensor | None:
        """Which slots hold a token, given which ones do by the storage, (B, K) or (B, Hkv, K) bool or None for all."""
        if self.padding is None or self.stored is None:
            return valid
        tokens = F.pad(~self.padding, (self.stored.length - self.later, 0), value=True)
        return tokens if valid is None else valid & (tokens[:, None] if valid.ndim == 3 else tokens)

    def get_seq_length(self) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that the next queries will meet, and their offset."""
        return (self.seen if self.stored is None else self.stored.length) + query_length, 0

    def compress(
        self, strategy: Strategy, prompt: Prompt, layers: Sequence[Layer], notes_positions: bool = False
    ) -> LayerSizes:
        """Replace the full cache by what the strategy keeps of each row of the prompt, as its storage stores it."""
        keys, values = self._full
        assert keys is not None
        assert values is not None
        rows = [compress_many([strategy], layer)[0] for layer in layers]
        self.positions = [row.head_positions() for row in rows] if notes_positions else None
        self.stored = strategy.store(rows, layers)
        self._full = None, None
        token_bytes = (keys[0].nbytes + values[0].nbytes) // keys.shape[-2]
        self.seen += prompt.length - keys.shape[-2]  # positions go on after the whole prompt
        return LayerSizes(
            tokens=tuple(row.tokens for row in rows),
            kept_bytes=self.stored.prompt_bytes,
            full_bytes=tuple(n * token_bytes for n in prompt.row_lengths()),
        )

    def compress_again(self, again: Again, queries: Tensor, prompt_tokens: int, scaling: float | None) -> None:
        """Note the queries (B, Hq, n, D) of the last pass; once enough tokens are new, compress all that is held."""
        queries = queries.detach()
        self.queries = queries if self.queries is None else torch.cat([self.queries, queries], dim=2)
        if self.stored is None or self.later < again.every:
            return
        keys, values, _ = self.stored.states()
        valid, new, target = self.valid, self.queries.shape[2], again.target(prompt_tokens)
        valid = (
            torch.ones(keys.shape[0], keys.shape[2], dtype=torch.bool, device=keys.device) if valid is None else valid
        )
        rows = [
            again.row(k[:, held], v[:, held], q[:, held[-new:]], scaling, target)
            for k, v, q, held in zip(keys, values, self.queries, valid, strict=True)
        ]
        self.stored = again.strategy.storage.store(rows, [])
        self.later, self.queries, self.padding, self._valid = 0, None, None, None

    def decode_mask(self, query: Tensor) -> Tensor | None:
        """What the new queries of each row, (B, Hq, n, D), see of all that the last `update` returned.

        Returns:
            (B or 1, 1, n, K) bool, or (B, Hq, n, K) where heads hold different numbers of tokens: what is no padding,
            and of each other what came before; None where all see all.
        """
        n, mask = query.shape[2], None
        if self._valid is not None:
            heads = self._valid if self._valid.ndim == 3 else self._valid[:, None]
            groups = query.shape[1] // heads.shape[1] if heads.shape[1] > 1 else 1
            mask = heads.repeat_interleave(groups, dim=1)[:, :, None]
        if n == 1 or self.stored is None:
            return mask
        slots = torch.arange(self.stored.length, device=query.device)
        own = slots[-n:, None]  # [n, 1]
        if mask is None:
            return (slots <= own)[None, None]
        return mask & (slots <= own) | (slots == own)  # padding sees itself, so that its softmax is finite

    def crop(self, tokens_to_remove: int) -> None:
        """Take the last −tokens_to_remove tokens away again.

        Raises:
            LookmError: if they are the prompt's, of which evicted tokens cannot come back.
        """
        n = abs(tokens_to_remove)
        if n == 0 or self.stored is None:
            return
        if tokens_to_remove > 0 or n > self.later:
            raise LookmError(
                f"a compressed cache can be cropped by the {self.later} tokens that came after its prompt, not by {n}; "
                "encode the prompt again"
            )
        self.stored.crop(n)
        self.queries = None if self.queries is None else self.queries[:, :, :-n]
        self.seen, self.later = self.seen - n, self.later - n
        self.padding = None if self.padding is None else self.padding[:, :-n]

    def reset(self) -> None:
        """Forget everything."""
        self.seen, self.later, self.stored, self.queries, self.padding, self._valid = 0, 0, None, None, None, None
        self.is_initialized = False  # else transformers 5.17 would fill keys and values with zeros, which are gone
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, as beam search does."""
        if self.stored is not None:
            self._select(beam_idx.to(self.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        if self.stored is not None:
            self._select(torch.arange(self.stored.batch, device=self.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        if self.stored is not None:
            self._select(torch.arange(self.stored.batch, device=self.device)[indices.to(self.device)])

    def _select(self, rows: Tensor) -> None:
        assert self.stored is not None
        self.stored.select(rows)
        self.queries = None if self.queries is None else self.queries.index_select(0, rows)
        self.padding = None if self.padding is None else self.padding.index_select(0, rows)


class LookOnceCache(PromptCache):
    """The cache of one prompt batch under one strategy; it goes on with any number of new tokens at once.

    Attributes:
        record: sizes and times.
        again: when to compress again; None: never.
        padding: (B, n) bool, which of the present forward pass's new tokens are none; None: all are tokens.
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
            kwargs["padding"] = self.padding
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
            sizes = layer.compress(self.strategy, self.whole_prompt, layers, self.notes_positions)
            self.record.layers[index] = sizes
        if isinstance(self.strategy, ShorteningStrategy) and layer_index + 1 == self.strategy.first_short_layer:
            self.shorten([self.strategy.going_on(row) for row in rows])
        end = Mark.now(rows[0].keys.device)
        self.record.compressing.add(begin, end)
        self.record.prefill_end = end
