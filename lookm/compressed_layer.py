"""One layer of a compressed cache: full while its prompt is encoded, then what the strategy left of it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from lookm.again import Again
from lookm.compression import compress_many
from lookm.errors import LookmError
from lookm.held import Held
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.record import LayerSizes
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
        is_image: of each row (Hkv, K) bool, which of the prompt's kept tokens are of images; later_is_image: (B, later)
            bool, which of the later ones. Both where they are asked for when the cache is compressed again.
    """

    is_croppable = False

    def __init__(self) -> None:
        self.seen = 0
        self.stored: Stored | None = None
        self.later = 0
        self.queries: Tensor | None = None
        self.padding: Tensor | None = None
        self.positions: list[tuple[Tensor, ...]] | None = None
        self.is_image: list[Tensor] | None = None
        self.later_is_image: Tensor | None = None
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
        is_image: Tensor | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Hold a prompt's keys and values (B, Hkv, L, D), or append those of new tokens; returns all that is held.

        Of n new tokens `padding` (B, n) bool says which are none, and `is_image` (B, n) bool which are of images.
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
        if is_image is not None:
            parts = [is_image] if self.later_is_image is None else [self.later_is_image, is_image]
            self.later_is_image = torch.cat(parts, dim=1)
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
        self,
        strategy: Strategy,
        prompt: Prompt,
        layers: Sequence[Layer],
        notes_positions: bool = False,
        notes_modality: bool = False,
    ) -> LayerSizes:
        """Replace the full cache by what the strategy keeps of each row of the prompt, as its storage stores it."""
        keys, values = self._full
        assert keys is not None
        assert values is not None
        rows = [compress_many([strategy], layer)[0] for layer in layers]
        self.positions = [row.head_positions() for row in rows] if notes_positions else None
        if notes_modality:
            self.is_image = [layer.is_image[row.positions] for row, layer in zip(rows, layers, strict=True)]
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
        images = self._held_images(again)
        rows = [
            again.row(k[:, held], v[:, held], q[:, held[-new:]], scaling, target, is_image)
            for k, v, q, held, is_image in zip(keys, values, self.queries, valid, images, strict=True)
        ]
        self.stored = again.strategy.storage.store(rows, [])
        if self.is_image is not None:
            pairs = zip(images, rows, strict=True)
            self.is_image = [of_row.gather(1, row.positions) for of_row, row in pairs if of_row is not None]
        self.later, self.queries, self.padding, self._valid = 0, None, None, None
        self.positions = self.later_is_image = None

    def _held_images(self, again: Again) -> list[Tensor | None]:
        """For each row which of the tokens that its heads hold are of images, (Hkv, K) bool, if that is asked for."""
        assert self.stored is not None
        if not again.reads_modality:
            return [None] * self.stored.batch
        if self.is_image is None or self.later_is_image is None:
            raise LookmError(f"the cache was made without every={again.every}: what it holds of images is not known")
        padding = torch.zeros_like(self.later_is_image) if self.padding is None else self.padding
        rows = zip(self.is_image, self.later_is_image, padding, strict=True)
        return [torch.cat([held, new[~none].expand(len(held), -1)], dim=1) for held, new, none in rows]

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
        self.later_is_image = None if self.later_is_image is None else self.later_is_image[:, :-n]

    def reset(self) -> None:
        """Forget everything."""
        self.seen, self.later, self.stored, self.queries, self.padding, self._valid = 0, 0, None, None, None, None
        self.positions = self.is_image = self.later_is_image = None
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
        self.is_image = None if self.is_image is None else [self.is_image[row] for row in rows.tolist()]
        self.later_is_image = None if self.later_is_image is None else self.later_is_image.index_select(0, rows)
