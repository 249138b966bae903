"""The cache of a sweep: one prefill, and for every strategy and prompt a row of the joint decode batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from lookm.buckets import Bucket, bucket_cost, divide
from lookm.cache import PromptCache
from lookm.errors import BudgetError, LookmError
from lookm.prompt import Prompt
from lookm.sharing import Stages, compress_many
from lookm.stopwatch import Mark, Stopwatch
from lookm.strategy import Strategy


@dataclass(frozen=True)
class DecodeRow:
    """One row of the decode batch.

    Attributes:
        prompt_row: the prompt it goes on from.
        strategy: index of the strategy whose cache it has; None for the whole prompt's cache, which every strategy that
            evicts nothing shares.
        kept: prompt tokens it holds in every layer and head.
    """

    prompt_row: int
    strategy: int | None
    kept: int


def decode_rows(strategies: Sequence[Strategy], row_is_image: Sequence[Tensor]) -> list[DecodeRow]:
    """The rows of a sweep, the largest first; strategies that keep a whole prompt share one row of it."""
    rows: dict[tuple[int, int | None], DecodeRow] = {}
    for prompt_row, is_image in enumerate(row_is_image):
        for index, strategy in enumerate(strategies):
            kept = strategy.promised_tokens(is_image)
            own = None if kept == is_image.numel() else index
            rows.setdefault((prompt_row, own), DecodeRow(prompt_row, own, kept))
    return sorted(rows.values(), key=lambda row: -row.kept)


class SweepLayer(CacheLayerMixin):
    """One layer: the prompt's keys and values until they are compressed, then those of every bucket.

    `keys` and `values` are the prompt's, (B, Hkv, L, D), and None afterwards; `shelves` holds for each bucket its keys
    and values, (rows, Hkv, width + new tokens, D), in which decoding only fills in slots.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.shelves: list[tuple[Tensor, Tensor]] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make before the prompt."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Hold the prompt's keys and values (B, Hkv, L, D), as they are."""
        self.is_initialized = True
        self.seen = key_states.shape[-2]
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens seen and to be seen; the masks are the cache's own."""
        return self.seen + query_length, 0

    def get_max_length(self) -> int:
        """None is known."""
        return -1


@dataclass(frozen=True)
class _Step:
    """Where one decode step writes and reads in one bucket: a number on the host, or on the device for a graph."""

    rows: slice
    slot: int | Tensor
    held: int
    mask: Tensor | None


class SweepCache(PromptCache):
    """One prompt batch under many strategies.

    A row keeps the number of tokens that its strategy promises for the prompt, in every layer, so that the buckets are
    the same in all layers and one mask for each of them serves all layers.

    Args:
        strategies: of one prefill.
        prompt: the batch.
        n_layers: layers of the decoder.
        new_tokens: slots for decoding in every row.
        stages: collects the time of statistics, choice and merge.

    Attributes:
        rows: of the decode batch, in its order.
        compressing: the time of compressing all layers, for all strategies together.
        prefill_end: when the last layer was compressed.
    """

    def __init__(
        self,
        strategies: Sequence[Strategy],
        prompt: Prompt,
        n_layers: int,
        new_tokens: int,
        *,
        stages: Stages | None = None,
    ) -> None:
        self.sweep_layers = [SweepLayer() for _ in range(n_layers)]
        super().__init__(prompt, self.sweep_layers)
        self.strategies = list(strategies)
        self.rows = decode_rows(strategies, self.row_is_image)
        self.new_tokens = new_tokens
        self.compressing = Stopwatch()
        self.prefill_end: Mark | None = None
        self.token_bytes = 0
        self._stages = stages
        self._step = 0
        self._buckets: list[Bucket] = []
        self._masks: list[Tensor | None] = []
        self._steps: list[_Step] = []

    def layer_is_compressed(self, layer_index: int) -> bool:
        return bool(self.sweep_layers[layer_index].shelves)

    def check_complete(self) -> None:
        """Raise BudgetError unless every layer was compressed."""
        missing = [index for index in range(len(self.sweep_layers)) if not self.layer_is_compressed(index)]
        if missing:
            raise BudgetError(
                f"layers {missing} of {len(self.sweep_layers)} were not compressed: "
                "their attention did not pass through the model's attention interface"
            )

    def compress(self, layer_index: int, queries: Tensor, scaling: float | None, log_sum_exp: Tensor | None) -> None:
        begin = Mark.now(queries.device)
        layer = self.sweep_layers[layer_index]
        assert layer.keys is not None
        assert layer.values is not None
        keys, values = layer.keys, layer.values
        if not self._buckets:
            self._lay_out(keys, values)
        layer.shelves = [
            (_shelf(bucket, keys, self.new_tokens), _shelf(bucket, values, self.new_tokens)) for bucket in self._buckets
        ]
        for prompt_row, start in enumerate(self.prompt.starts):
            places = [place for place, row in enumerate(self.rows) if row.prompt_row == prompt_row]
            compressed = self._compress_prompt(
                places,
                prompt_row,
                queries[prompt_row, :, start:],
                keys[prompt_row, :, start:],
                values[prompt_row, :, start:],
                scaling,
                None if log_sum_exp is None else log_sum_exp[prompt_row, :, start:],
            )
            self._put_away(layer, places, compressed)
        layer.keys = layer.values = None
        end = Mark.now(queries.device)
        self.compressing.add(begin, end)
        self.prefill_end = end

    def _compress_prompt(
        self,
        places: list[int],
        prompt_row: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float | None,
        log_sum_exp: Tensor | None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (Hkv, kept, D) of the rows at `places`, which go on from one prompt."""
        chosen = [self.rows[place].strategy for place in places]
        compressed = iter(
            compress_many(
                [self.strategies[index] for index in chosen if index is not None],
                queries,
                keys,
                values,
                self.row_is_image[prompt_row],
                scaling=scaling,
                log_sum_exp=log_sum_exp,
                stages=self._stages,
            )
        )
        states: list[tuple[Tensor, Tensor]] = []
        for index in chosen:
            if index is None:
                states.append((keys, values))
            else:
                row = next(compressed)
                states.append((row.keys, row.values))
        return states

    def _put_away(self, layer: SweepLayer, places: list[int], states: list[tuple[Tensor, Tensor]]) -> None:
        """Copy rows to the end of their bucket's prompt slots."""
        for place, (keys, values) in zip(places, states, strict=True):
            number = next(i for i, bucket in enumerate(self._buckets) if place < bucket.stop)
            bucket, kept = self._buckets[number], self.rows[place].kept
            begin = bucket.width - kept
            layer.shelves[number][0][place - bucket.start, :, begin : bucket.width] = keys
            layer.shelves[number][1][place - bucket.start, :, begin : bucket.width] = values

    def _lay_out(self, keys: Tensor, values: Tensor) -> None:
        """Divide the rows into buckets; their masks are those of all layers."""
        self.token_bytes = keys.shape[1] * (keys.shape[-1] + values.shape[-1]) * keys.element_size()
        self._buckets = divide([row.kept for row in self.rows], bucket_cost(keys.device, self.token_bytes))
        self._masks = [bucket.mask(self.new_tokens, keys.dtype, keys.device) for bucket in self._buckets]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        return self.sweep_layers[layer_idx].seen + self._step

    def begin_step(self, step: int) -> None:
        """Prepare all layers for the decode step number `step`, from 0."""
        self._step = step
        self._steps = [
            _Step(
                slice(bucket.start, bucket.stop),
                bucket.width + step,
                bucket.width + step + 1,
                None if mask is None else mask[..., : bucket.width + step + 1],
            )
            for bucket, mask in zip(self._buckets, self._masks, strict=True)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Hold the prompt's states; those of a new token are put away by `attend`."""
        layer = self.sweep_layers[layer_idx]
        if layer.shelves:
            return key_states, value_states
        return layer.update(key_states, value_states)

    def attend(
        self, module: nn.Module, layer_index: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        rows, heads, new, _ = query.shape
        if new != 1:
            raise LookmError(f"{new} tokens at once on top of a compressed cache; a sweep decodes one by one")
        kv_heads = key.shape[1]
        grouped = query.view(rows, kv_heads, heads // kv_heads, -1)  # [R, Hkv, G, D]
        outputs = []
        for step, (keys, values) in zip(self._steps, self.sweep_layers[layer_index].shelves, strict=True):
            keys[:, :, step.slot] = key[step.rows, :, 0]
            values[:, :, step.slot] = value[step.rows, :, 0]
            outputs.append(
                F.scaled_dot_product_attention(
                    grouped[step.rows],
                    keys[:, :, : step.held],
                    values[:, :, : step.held],
                    attn_mask=step.mask,
                    scale=scaling,
                )
            )
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.reshape(rows, 1, heads, -1)

    def keep_rows(self, places: Sequence[int]) -> None:
        """Drop all rows of the decode batch but those at `places`, ascending."""
        buckets: list[Bucket] = []
        kept_shelves: list[tuple[int, Tensor, int]] = []
        for number, bucket in enumerate(self._buckets):
            own = [place - bucket.start for place in places if bucket.start <= place < bucket.stop]
            if own:
                kept = tuple(bucket.kept[place] for place in own)
                start = buckets[-1].stop if buckets else 0
                buckets.append(Bucket(start, start + len(own), max(kept), kept))
                index = torch.tensor(own, device=self.sweep_layers[0].shelves[number][0].device)
                kept_shelves.append((number, index, bucket.width - max(kept)))
        for layer in self.sweep_layers:
            shelves = layer.shelves
            layer.shelves = [
                (
                    shelves[number][0][:, :, cut:].index_select(0, index),
                    shelves[number][1][:, :, cut:].index_select(0, index),
                )
                for number, index, cut in kept_shelves
            ]
        self.rows = [self.rows[place] for place in places]
        self._buckets = buckets
        sample = self.sweep_layers[0].shelves[0][0]
        self._masks = [bucket.mask(self.new_tokens, sample.dtype, sample.device) for bucket in buckets]


def _shelf(bucket: Bucket, states: Tensor, new_tokens: int) -> Tensor:
    """An empty tensor for a bucket's keys or values."""
    rows = bucket.stop - bucket.start
    return states.new_zeros(rows, states.shape[1], bucket.width + new_tokens, states.shape[-1])
