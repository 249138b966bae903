"""The cache of a sweep: one prefill, and for every strategy and prompt a row of the joint decode batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from lookm.buckets import Bucket, bucket_cost, decode_rows, divide
from lookm.compression import compress_alike
from lookm.errors import BudgetError
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.prompt_cache import DecodeAttention, PromptCache
from lookm.record import LayerSizes
from lookm.stopwatch import Mark, Stopwatch
from lookm.storage.rows import CompressedRow
from lookm.strategy import Strategy


@dataclass(frozen=True)
class _Step:
    """Where one decode step writes and reads in one bucket: a number on the host, or on the device for a graph."""

    rows: slice
    slot: int | Tensor
    held: int
    mask: Tensor | None


@dataclass(eq=False)
class _Plan:
    """In which buckets the rows of a layer lie, their masks and the present step; layers of equal sizes share one."""

    buckets: list[Bucket]
    masks: list[Tensor | None] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)

    def make_masks(self, states: Tensor, new_tokens: int, questions: Tensor | None = None) -> None:
        """Masks of all slots, those of the prompt's padding and of the questions' padding (R, Q) bool behind it."""
        self.masks = []
        for bucket in self.buckets:
            slots = bucket.slots(new_tokens)
            mask = bucket.padding(states.dtype, states.device, slots)
            if questions is not None:
                mask = states.new_zeros(bucket.stop - bucket.start, 1, 1, slots) if mask is None else mask
                asked = mask[..., bucket.width : bucket.width + questions.shape[1]]
                asked.masked_fill_(questions[bucket.start : bucket.stop, None, None], -torch.inf)
            self.masks.append(mask)

    def begin(self, later: int, n: int, like: Tensor) -> None:
        """Prepare for n new tokens of each row, behind `later` others; masks are of the dtype and device of `like`."""
        self.steps = []
        for bucket, padding in zip(self.buckets, self.masks, strict=True):
            first, held = bucket.width + later, bucket.width + later + n
            mask = None if padding is None else padding[..., :held]
            if n > 1:
                slots = torch.arange(held, device=like.device)
                own = slots[first:, None]  # [n, 1]
                seen = torch.zeros(n, held, dtype=like.dtype, device=like.device)
                seen = seen.masked_fill_(slots > own, -torch.inf)[None, None]
                mask = seen if mask is None else mask + seen
                mask = mask.masked_fill(slots == own, 0.0)  # padding sees itself, so that its softmax is finite
            self.steps.append(_Step(slice(bucket.start, bucket.stop), first, held, mask))


class SweepLayer(CacheLayerMixin):
    """One layer: the prompt's keys and values until they are compressed, then those of every bucket.

    `keys` and `values` are the prompt's, (B, Hkv, L, D), and None afterwards; `shelves` holds for each bucket its keys
    and values, (rows, Hkv, width + new tokens, D), in which decoding only fills in slots; `plan` says where.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.shelves: list[tuple[Tensor, Tensor]] = []
        self.plan = _Plan([])

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


class SweepCache(PromptCache):
    """One prompt batch under many strategies.

    Rows have one order in all layers. Where all strategies keep equally many tokens in every layer, the buckets are the
    same in all layers, and one mask for each of them serves all.

    Args:
        strategies: of one prefill.
        prompt: the batch.
        config: of the model.
        new_tokens: slots for decoding in every row.

    Attributes:
        rows: of the decode batch, in its order.
        compressing: the time of compressing all layers, for all strategies together.
        prefill_end: when the last layer was compressed.
    """

    def __init__(
        self,
        strategies: Sequence[Strategy],
        prompt: Prompt,
        config: PretrainedConfig,
        new_tokens: int,
    ) -> None:
        super().__init__(prompt, config, SweepLayer, strategies)
        self.sweep_layers = {i: layer for i, layer in enumerate(self.layers) if isinstance(layer, SweepLayer)}
        self.strategies = list(strategies)
        self.rows = decode_rows(strategies, self.row_is_image)
        layouts: dict[tuple[bool, ...], list[int]] = {}
        for row, is_image in enumerate(self.row_is_image):
            layouts.setdefault(tuple(is_image.tolist()), []).append(row)
        self._alike = list(layouts.values())
        self.new_tokens = new_tokens
        self.compressing = Stopwatch()
        self.prefill_end: Mark | None = None
        self.token_bytes = 0
        self._later, self._new, self._asked = 0, 0, 0  # tokens behind the prompt: before the pass, in it, of questions
        self._question_padding: Tensor | None = None  # (R, Q) bool
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._kept: dict[int, tuple[int, ...]] = {}

    def layer_is_compressed(self, layer_index: int) -> bool:
        return bool(self.sweep_layers[layer_index].shelves)

    def end_prompt(self) -> None:
        """Give every row of the decode batch its copy of the layers that stay as they are.

        Raises:
            BudgetError: unless every other layer was compressed.
        """
        self._untouched_sizes = self.untouched_sizes()
        self._keep_untouched_rows([row.prompt_row for row in self.rows])
        missing = [index for index in self.sweep_layers if not self.layer_is_compressed(index)]
        if missing:
            raise BudgetError(
                f"layers {missing} of {len(self.layers)} were not compressed: "
                "their attention did not pass through the model's attention interface"
            )

    def sizes(self, rows: Sequence[int]) -> list[LayerSizes]:
        """What every layer held of the prompts, in the rows of one strategy, or of layers that stay as they are."""
        token, lengths = self.token_bytes, self.prompt.row_lengths()
        layers = []
        for index in range(len(self.layers)):
            if index in self._untouched_sizes:
                layers.append(self._untouched_sizes[index])
                continue
            kept = tuple(self._kept[index][row] for row in rows)
            layers.append(LayerSizes(kept, tuple(n * token for n in kept), tuple(n * token for n in lengths)))
        return layers

    def decode_attention_mask(self) -> Tensor | None:
        """Which tokens are padding, (R, tokens seen and one), for the layers that stay as they are; None if none is."""
        rows, tokens = [row.prompt_row for row in self.rows], self.prompt.length + self._later + self._new
        return self.mask_of_untouched(rows, tokens, self._question_padding)

    def _keep_untouched_rows(self, rows: Sequence[int]) -> None:
        for index in self.untouched:
            layer = self.layers[index]
            if isinstance(layer, DynamicLayer) and layer.keys is not None:
                layer.batch_select_indices(torch.tensor(rows, device=layer.keys.device))

    def compress(self, layer_index: int, rows: Sequence[Layer]) -> None:
        begin = Mark.now(rows[0].keys.device)
        for index, layers in self.ready(layer_index, rows, self.strategies):
            self._compress_layer(index, layers)
        end = Mark.now(rows[0].keys.device)
        self.compressing.add(begin, end)
        self.prefill_end = end

    def _compress_layer(self, layer_index: int, rows: Sequence[Layer]) -> None:
        layer = self.sweep_layers[layer_index]
        assert layer.keys is not None
        assert layer.values is not None
        compressed: list[CompressedRow | None] = [None] * len(self.rows)
        for alike in self._alike:
            places = [[n for n, row in enumerate(self.rows) if row.prompt_row == prompt] for prompt in alike]
            strategies = [self.strategies[self.rows[place].strategies[0]] for place in places[0]]
            made = compress_alike(strategies, [rows[prompt] for prompt in alike])
            for place, row in zip(chain(*places), chain(*made), strict=True):
                compressed[place] = row
        each = [row for row in compressed if row is not None]
        self._kept[layer_index] = tuple(row.keys.shape[1] for row in each)
        layer.plan = self._plan(self._kept[layer_index], layer.keys, layer.values)
        layer.shelves = [
            (_shelf(bucket, layer.keys, self.new_tokens), _shelf(bucket, layer.values, self.new_tokens))
            for bucket in layer.plan.buckets
        ]
        layer.keys = layer.values = None
        for bucket, shelves in zip(layer.plan.buckets, layer.shelves, strict=True):
            self._put_away(bucket, shelves, each[bucket.start : bucket.stop])

    def _put_away(self, bucket: Bucket, shelves: tuple[Tensor, Tensor], compressed: list[CompressedRow]) -> None:
        """Copy a bucket's rows, those of one size at once, to the end of their prompt slots."""
        for kept, run in groupby(range(len(compressed)), key=bucket.kept.__getitem__):
            members = list(run)
            rows = slice(members[0], members[-1] + 1)
            keys, values = (shelf[rows, :, bucket.width - kept : bucket.width] for shelf in shelves)
            torch.stack([compressed[i].keys for i in members], out=keys)
            torch.stack([compressed[i].values for i in members], out=values)

    def _plan(self, kept: tuple[int, ...], keys: Tensor, values: Tensor) -> _Plan:
        """Divide a layer's rows of these sizes into buckets, once for all layers of equal sizes."""
        self.token_bytes = keys.shape[1] * (keys.shape[-1] + values.shape[-1]) * keys.element_size()
        if kept not in self._plans:
            plan = self._plans[kept] = _Plan(divide(kept, bucket_cost(keys.device, self.token_bytes)))
            plan.make_masks(keys, self.new_tokens)
        return self._plans[kept]

    def ask(self, places: Sequence[int], padding: Tensor) -> None:
        """Go on with the rows at `places`, ascending and repeated, each with a question.

        Args:
            places: one for each of the new rows.
            padding: (R, Q) bool, which of the questions' tokens are none.
        """
        self.keep_rows(places)
        self._question_padding = padding if bool(padding.any()) else None
        for plan in self._plans.values():
            plan.make_masks(self._states, self.new_tokens, self._question_padding)
        self._begin(0, padding.shape[1])

    def end_questions(self) -> None:
        """The questions are read: decode steps are counted from here."""
        self._asked = self._new

    @property
    def _states(self) -> Tensor:
        """Some states of the cache, for their dtype and device."""
        return next(iter(self.sweep_layers.values())).shelves[0][0]

    def _begin(self, later: int, n: int) -> None:
        self._later, self._new = later, n
        for plan in self._plans.values():
            plan.begin(later, n, self._states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, so that positions go on after the prompt's."""
        first = next(iter(self.sweep_layers)) if layer_idx in self.untouched else layer_idx
        return self.sweep_layers[first].seen + self._later

    def begin_step(self, step: int) -> None:
        """Prepare all layers for the decode step number `step`, from 0."""
        self._begin(self._asked + step, 1)

    def begin_static_steps(self) -> None:
        """Prepare for steps that count on the device, each begun by `advance_static_step`."""
        states = self._states
        for plan in self._plans.values():
            plan.steps = []
            for bucket in plan.buckets:
                slots = bucket.slots(self.new_tokens)
                mask = states.new_zeros(bucket.stop - bucket.start, 1, 1, slots)
                slot = torch.zeros(1, dtype=torch.int64, device=states.device)
                plan.steps.append(_Step(slice(bucket.start, bucket.stop), slot, slots, mask))

    def rewind_static_steps(self, step: int) -> None:
        """Let the next `advance_static_step` begin step `step`; what a captured step knows is written, not replaced."""
        for plan in self._plans.values():
            for bucket, padding, now in zip(plan.buckets, plan.masks, plan.steps, strict=True):
                assert isinstance(now.slot, Tensor)
                assert now.mask is not None
                now.slot.fill_(bucket.width + step - 1)
                now.mask.zero_() if padding is None else now.mask.copy_(padding)
                now.mask[..., bucket.width + step :] = -torch.inf

    def advance_static_step(self) -> None:
        """Begin the next step, on the device alone."""
        for now in (step for plan in self._plans.values() for step in plan.steps):
            assert isinstance(now.slot, Tensor)
            assert now.mask is not None
            now.slot.add_(1)
            now.mask.index_fill_(-1, now.slot, 0.0)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Hold the prompt's states; those of a new token are put away by `attend`."""
        self.check_in_use()
        if layer_idx in self.untouched:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        layer = self.sweep_layers[layer_idx]
        if layer.shelves:
            return key_states, value_states
        return layer.update(key_states, value_states)

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
        rows, heads, n, _ = query.shape
        kv_heads = key.shape[1]
        groups = heads // kv_heads
        grouped = query.reshape(rows, kv_heads, groups * n, -1)  # [R, Hkv, G n, D]
        outputs = []
        layer = self.sweep_layers[layer_index]
        for step, (keys, values) in zip(layer.plan.steps, layer.shelves, strict=True):
            if isinstance(step.slot, Tensor):
                keys.index_copy_(2, step.slot, key[step.rows])
                values.index_copy_(2, step.slot, value[step.rows])
            else:
                keys[:, :, step.slot : step.held] = key[step.rows]
                values[:, :, step.slot : step.held] = value[step.rows]
            held = keys[:, :, : step.held], values[:, :, : step.held]
            if attention is not None:
                outputs.append(attention(query[step.rows], *held, step.mask).transpose(1, 2))
            else:
                mask = step.mask if n == 1 or step.mask is None else step.mask.repeat(1, 1, groups, 1)
                output = F.scaled_dot_product_attention(grouped[step.rows], *held, attn_mask=mask, scale=scaling)
                outputs.append(output.reshape(output.shape[0], heads, n, -1))
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)  # [R, Hq, n, Dv]
        return output.transpose(1, 2)

    def keep_rows(self, places: Sequence[int]) -> None:
        """Drop all rows of the decode batch but those at `places`, ascending."""
        states = self._states
        if self._question_padding is not None:
            self._question_padding = self._question_padding[torch.tensor(places, device=states.device)]
        moves = {id(plan): self._narrow(plan, places, states) for plan in self._plans.values()}
        for layer in self.sweep_layers.values():
            remaining = []
            for number, index, cut in moves[id(layer.plan)]:
                keys, values = layer.shelves[number]
                remaining.append((keys[:, :, cut:].index_select(0, index), values[:, :, cut:].index_select(0, index)))
            layer.shelves = remaining
        self._keep_untouched_rows(places)
        self.rows = [self.rows[place] for place in places]

    def _narrow(self, plan: _Plan, places: Sequence[int], states: Tensor) -> list[tuple[int, Tensor, int]]:
        """Let a plan hold only the rows at `places`: which shelf, which of its rows, and how much narrower it gets."""
        buckets: list[Bucket] = []
        moves: list[tuple[int, Tensor, int]] = []
        for number, bucket in enumerate(plan.buckets):
            own = [place - bucket.start for place in places if bucket.start <= place < bucket.stop]
            if own:
                buckets.append(bucket.only(own, buckets[-1].stop if buckets else 0))
                cut = bucket.slots(self.new_tokens) - buckets[-1].slots(self.new_tokens)
                moves.append((number, torch.tensor(own, device=states.device), cut))
        plan.buckets = buckets
        plan.make_masks(states, self.new_tokens, self._question_padding)
        return moves


def _shelf(bucket: Bucket, states: Tensor, new_tokens: int) -> Tensor:
    """A tensor for a bucket's keys or values (rows, Hkv, slots, D); what no row fills is finite."""
    shelf = states.new_empty(bucket.stop - bucket.start, states.shape[1], bucket.slots(new_tokens), states.shape[-1])
    shelf[:, :, : bucket.width - min(bucket.kept)] = 0
    shelf[:, :, bucket.width :] = 0
    return shelf
