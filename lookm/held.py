"""What a layer holds of a prompt batch under a strategy that evicts while decoding: slots that are filled anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.rotary import rotated
from lookm.storage.rows import CompressedRow, States
from lookm.storage.stored import NEW_TOKENS, Stored, stacked

if TYPE_CHECKING:
    from lookm.decoding import DecodingStrategy
    from lookm.prompt_cache import DecodeAttention

EMPTY = -1


class Held(Stored):
    """The tokens of a layer in S slots: a new one comes last, and then takes the slot of the token that goes.

    Several new tokens at once are attended to one after the other, as if they had come so.

    Attributes:
        lengths: prompt tokens of each row.
        kept: those of them that were kept.
        seen: tokens of each row so far, the new one included.
        constants: what the strategy notes of each row, (B, n) float32 by name.
        weights: the new token's attention weights, averaged over a group's query heads, (B, Hkv, S) float32; for
            strategies that read them.
    """

    weights: Tensor

    def __init__(self, strategy: DecodingStrategy, rows: Sequence[CompressedRow], layers: Sequence[Layer]) -> None:
        self._strategy = strategy
        self.lengths = [layer.length for layer in layers]
        self.kept = [row.positions.shape[1] for row in rows]
        self.seen, self._counts = list(self.lengths), list(self.kept)
        self._size = max(self.kept)
        self._free = [list(range(self._size - n)) for n in self.kept]  # slots that hold no token
        self._new: tuple[Tensor, Tensor] | None = None
        self._padding: Tensor | None = None
        for layer in layers:
            if not strategy.chooses(layer.is_image):  # what is noted of a prompt that was kept whole is not made yet
                layer.statistics = None
                layer.make_statistics(strategy.needs(layer.is_image))
        keys, values, _ = stacked([States(row.keys, row.values) for row in rows])
        noted = [
            {"positions": row.positions} | strategy.notes(layer, row.positions)
            for row, layer in zip(rows, layers, strict=True)
        ]
        padded = {
            name: torch.stack([F.pad(of[name], (self._size - of[name].shape[1], 1), value=EMPTY) for of in noted])
            for name in noted[0]
        }
        self._positions = padded.pop("positions").int()
        self._notes = {name: table.float() for name, table in padded.items()}
        self._keys, self._values = F.pad(keys, (0, 0, 0, 1)), F.pad(values, (0, 0, 0, 1))
        constants = [strategy.constants(layer, row.positions) for row, layer in zip(rows, layers, strict=True)]
        self.constants = {name: torch.stack([of[name] for of in constants]) for name in constants[0]}
        token_bytes = sum(x[0, :, :1].nbytes for x in (self._keys, self._values, self._positions[..., None]))
        token_bytes += sum(table[0, :, :1].nbytes for table in self._notes.values())
        row_bytes = sum(table[0].nbytes for table in self.constants.values())
        self.prompt_bytes = tuple(n * token_bytes + row_bytes for n in self.kept)

    @property
    def positions(self) -> Tensor:
        """Of each slot's token in its row, padding not counted: (B, Hkv, S) int32; −1 where a slot is empty."""
        return self._positions[..., : self._size]

    @property
    def newest(self) -> Tensor:
        """The position of each row's new token: (B, 1, 1) int64."""
        return torch.tensor(self.seen, device=self._keys.device)[:, None, None] - 1

    def note(self, name: str) -> Tensor:
        """What is noted of each token, (B, Hkv, S) float32: a view, to be changed in place."""
        return self._notes[name][..., : self._size]

    def oldest(self, among: Tensor) -> Tensor:
        """The slot of the oldest token of those marked, (B, Hkv, S) bool: (B, Hkv) int64."""
        return self.positions.masked_fill(~among | (self.positions == EMPTY), torch.iinfo(torch.int32).max).argmin(-1)

    def lowest(self, scores: Tensor, among: Tensor) -> Tensor:
        """The slot of the lowest score (B, Hkv, S) of those marked; of equal scores, the oldest token's."""
        among = among & (self.positions != EMPTY)
        scores = scores.masked_fill(~among, torch.inf)
        return self.oldest(among & (scores == scores.amin(-1, keepdim=True)))

    def append(self, keys: Tensor, values: Tensor, padding: Tensor | None = None) -> None:
        """Take in new tokens (B, Hkv, n, D), which `attend` will put away; `padding` (B, n) bool: those that are none.

        Raises:
            LookmError: where a gradient is asked for.
        """
        if torch.is_grad_enabled() and keys.requires_grad:
            raise LookmError(
                f"{self._strategy.name} overwrites its cache while decoding, through which no gradient passes; call "
                "the model under torch.no_grad()"
            )
        self._new, self._padding = (keys, values), padding

    def attend(
        self,
        query: Tensor,
        scaling: float | None,
        attention: DecodeAttention | None = None,
    ) -> Tensor:
        """Attention of the new tokens, each on what is held when it comes; after each, the strategy may evict one.

        Args:
            query: (B, Hq, n, D), after the rotary embedding.
            scaling: factor on Q Kᵀ, by default 1 / √D.
            attention: as of `PromptCache.attend`.

        Returns:
            (B, n, Hq, Dv).

        Raises:
            LookmError: if the strategy reads attention weights, and the softmax is not the plain one.
        """
        assert self._new is not None
        outputs, padding = [], self._padding
        for i, (key, value) in enumerate(zip(self._new[0].unbind(2), self._new[1].unbind(2), strict=True)):
            present = [True] * self.batch if padding is None else (~padding[:, i]).tolist()
            self._insert(key, value, present)
            outputs.append(self._attention(query[:, :, i], scaling, attention, all(present)))
            with torch.no_grad():
                self._settle(self._step(present), present)
        self._new = None
        return torch.stack(outputs, dim=1)

    def _insert(self, key: Tensor, value: Tensor, present: Sequence[bool]) -> None:
        """Put a new token of each row, (B, Hkv, D), into the last slot."""
        last = self._size
        if last == self._keys.shape[2]:
            self._keys, self._values = (F.pad(x, (0, 0, 0, NEW_TOKENS)) for x in (self._keys, self._values))
            self._positions = F.pad(self._positions, (0, NEW_TOKENS))
            self._notes = {name: F.pad(table, (0, NEW_TOKENS)) for name, table in self._notes.items()}
        places = [seen if here else EMPTY for seen, here in zip(self.seen, present, strict=True)]
        self._keys[:, :, last], self._values[:, :, last] = key, value
        self._positions[:, :, last] = torch.tensor(places, device=key.device)[:, None]
        for table in self._notes.values():
            table[..., last] = 0
        self.seen = [seen + here for seen, here in zip(self.seen, present, strict=True)]
        self._size += 1

    def _attention(
        self, query: Tensor, scaling: float | None, attention: DecodeAttention | None, all_present: bool
    ) -> Tensor:
        """Of one new token of each row, (B, Hq, D), on all slots: (B, Hq, Dv)."""
        keys, values, strategy = self._keys[:, :, : self._size], self._values[:, :, : self._size], self._strategy
        seen = None
        if not all_present or any(self._free):
            seen = self.positions[:, :1, None] != EMPTY  # [B, 1, 1, S]
            seen[..., -1] = True  # padding sees itself, so that its softmax is finite
        turn = strategy.turn(self)
        grouped = query.unflatten(1, (keys.shape[1], -1))  # [B, Hkv, G, D]
        if not strategy.reads_attention and turn is None:
            if attention is not None:
                lowest = torch.finfo(query.dtype).min
                added = None if seen is None else torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, lowest)
                return attention(query[:, :, None], keys, values, added)[:, 0]
            output = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen, scale=scaling)
            return output.flatten(1, 2)
        if attention is not None:
            raise LookmError(
                f"{strategy.name} computes attention while decoding, and the model caps its logits or has attention "
                "sinks; choose another strategy"
            )
        logits = grouped @ keys.transpose(2, 3)
        if turn is not None:
            moved, angles = turn  # q · R(a) k = R(−a) q · k
            angles = angles[:, None, None]
            back = rotated(grouped.float(), angles.cos(), -angles.sin()).to(query.dtype)
            logits = torch.where(moved[:, :, None], back @ keys.transpose(2, 3), logits)
        logits = logits.float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        weights = (logits if seen is None else logits.masked_fill(~seen, -torch.inf)).softmax(-1)
        self.weights = weights.mean(2)
        return (weights.to(values.dtype) @ values).flatten(1, 2)

    def _step(self, present: Sequence[bool]) -> Tensor:
        """The slots that the strategy would evict from; rows whose new token is padding note nothing."""
        if all(present):
            return self._strategy.step(self)
        absent = torch.tensor([row for row, here in enumerate(present) if not here], device=self._keys.device)
        before = {name: table[absent] for name, table in self._notes.items()}
        evicted = self._strategy.step(self)
        for name, table in self._notes.items():
            table[absent] = before[name]
        return evicted

    def _settle(self, evicted: Tensor, present: Sequence[bool]) -> None:
        """Move each row's new token to the slot of the token that goes, (B, Hkv), or to an empty one."""
        last, targets = self._size - 1, []
        for row, here in enumerate(present):
            limit = self._strategy.held_tokens(self.lengths[row], self.kept[row], self.seen[row])
            if here and self._counts[row] + 1 > limit:
                targets.append(EMPTY)  # the slot of the token that goes
                continue
            self._counts[row] += here
            targets.append(self._free[row].pop() if here and self._free[row] else last)
        stays = [here and target == last for here, target in zip(present, targets, strict=True)]
        if set(targets) != {EMPTY}:
            fixed = torch.tensor(targets, device=evicted.device)[:, None]
            evicted = torch.where(fixed == EMPTY, evicted, fixed)
        for table in (self._keys, self._values, self._positions, *self._notes.values()):
            new = table[:, :, last : last + 1].clone()
            table.scatter_(2, evicted.view(*evicted.shape, *[1] * (table.ndim - 2)).expand_as(new), new)
        if not any(stays):
            self._size -= 1
            return
        for row in (row for row, here in enumerate(stays) if not here):
            self._positions[row, :, last] = EMPTY
            self._free[row].append(last)

    def states(self) -> States:
        valid = self.positions != EMPTY if any(self._free) else None
        return States(self._keys[:, :, : self._size], self._values[:, :, : self._size], valid)

    def select(self, rows: Tensor) -> None:
        chosen = rows.tolist()
        self.lengths, self.kept, self.seen, self._counts = (
            [numbers[row] for row in chosen] for numbers in (self.lengths, self.kept, self.seen, self._counts)
        )
        self._free = [list(self._free[row]) for row in chosen]
        self._keys, self._values, self._positions = (
            table.index_select(0, rows) for table in (self._keys, self._values, self._positions)
        )
        self._notes = {name: table.index_select(0, rows) for name, table in self._notes.items()}
        self.constants = {name: table.index_select(0, rows) for name, table in self.constants.items()}

    @property
    def batch(self) -> int:
        return len(self.seen)

    @property
    def length(self) -> int:
        return self._size

    def tensors(self) -> list[Tensor]:
        return [self._keys, self._values, self._positions, *self._notes.values(), *self.constants.values()]
