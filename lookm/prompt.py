"""Where the tokens of a prompt batch lie: padding, text, images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lookm.errors import LookmError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

IMAGE_TOKEN_FIELDS = tuple(f"{kind}_token_{name}" for name in ("id", "index") for kind in ("image", "video", "audio"))
"""Where configurations name the placeholder tokens of what is not text."""


@dataclass(frozen=True)
class Prompt:
    """A left-padded batch of prompts.

    Attributes:
        starts: the first token of each row that is not padding.
        is_image: (B, L) bool, true for image tokens (video and audio tokens too: whatever is not text).
        token_ids: (B, L) int64, or None where only embeddings are known.
    """

    starts: tuple[int, ...]
    is_image: Tensor
    tail: int = 0
    """Tokens that come in the same pass and are no part of the prompt: they are read after its compression."""
    token_ids: Tensor | None = None
    tail_images: tuple[int, ...] = ()
    """Image tokens of each row's tail."""

    @property
    def length(self) -> int:
        """Tokens of the longest row, L."""
        return self.is_image.shape[1]

    def row_lengths(self) -> tuple[int, ...]:
        """Tokens of each row, padding not counted."""
        return tuple(self.length - start for start in self.starts)

    def row_is_image(self, row: int) -> Tensor:
        """(L_row,) bool, padding left out."""
        return self.is_image[row, self.starts[row] :]


_host_copies: WeakIdKeyDictionary = WeakIdKeyDictionary()


def on_host(is_image: Tensor) -> Tensor:
    """`is_image` on the CPU, copied once a tensor: layers that are handed the same one wait for the device once."""
    if is_image.device.type == "cpu":
        return is_image
    copy = _host_copies.get(is_image)
    if copy is None:
        copy = _host_copies[is_image] = is_image.cpu()
    return copy


def image_token_ids(config: PretrainedConfig) -> tuple[int, ...]:
    """Ids of the placeholder tokens for images, videos and audio, of the configuration and those inside it; or none."""
    configs = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    ids = (getattr(part, field, None) for part in configs for field in IMAGE_TOKEN_FIELDS)
    return tuple(dict.fromkeys(i for i in ids if isinstance(i, int) and not isinstance(i, bool)))


def image_mask(input_ids: Tensor, image_ids: tuple[int, ...]) -> Tensor:
    """Which tokens (B, L) int64 stand for images: (B, L) bool."""
    is_image = torch.zeros_like(input_ids, dtype=torch.bool)
    for image_id in image_ids:
        is_image |= input_ids == image_id
    return is_image


def read_prompt(
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    image_ids: tuple[int, ...],
    tail: int = 0,
) -> Prompt:
    """Find padding and images of a prompt batch.

    Args:
        input_ids: (B, L) int64, or None if embeddings are given.
        inputs_embeds: (B, L, width), read for its shape when there are no ids.
        attention_mask: (B, L), 1 for tokens and 0 for left padding, or None for no padding.
        image_ids: as of `image_token_ids`.
        tail: the last so many tokens are no part of the prompt, and may have padding anywhere.

    Raises:
        LookmError: if images cannot be found, the mask is not a left-padding mask, or nothing is before the tail.
    """
    if input_ids is not None:
        is_image = image_mask(input_ids, image_ids)
    elif inputs_embeds is None:
        raise LookmError("the model was called without input_ids; look_once reads the prompt from them")
    elif image_ids:
        raise LookmError("the model was called with inputs_embeds only; pass input_ids, which show where images are")
    else:
        is_image = torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    if tail >= is_image.shape[1] and tail:
        raise LookmError(f"a prompt of {is_image.shape[1]} tokens has none before the {tail} that are to be read later")
    length = is_image.shape[1] - tail
    if attention_mask is not None and attention_mask.shape == is_image.shape:
        attention_mask = attention_mask[:, :length]
    return Prompt(
        _row_starts(attention_mask, is_image.shape[0], length),
        is_image[:, :length],
        tail,
        None if input_ids is None else input_ids[:, :length],
        tuple(is_image[:, length:].sum(1).tolist()) if tail else (),
    )


def padding_of(attention_mask: Tensor | None, new: int, seen: int) -> Tensor | None:
    """Which of the last `new` tokens are padding, (B, new) bool, or None if none is.

    Args:
        attention_mask: (B, new) or (B, seen + new), 1 for tokens and 0 for padding; or None.

    Raises:
        LookmError: for a mask of another shape.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    if attention_mask.shape[1] not in (new, seen + new):
        raise LookmError(
            f"attention_mask has {attention_mask.shape[1]} columns for {new} new tokens after {seen}: it needs "
            f"{seen + new}, or {new} for the new ones alone"
        )
    padding = ~attention_mask[:, -new:].bool()
    return padding if bool(padding.any()) else None


def _row_starts(attention_mask: Tensor | None, rows: int, length: int) -> tuple[int, ...]:
    if attention_mask is None:
        return (0,) * rows
    if attention_mask.shape != (rows, length):
        raise LookmError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; look_once needs {(rows, length)}, "
            "1 for tokens and 0 for left padding"
        )
    mask = attention_mask.bool()
    counts = mask.sum(1)
    contiguous = (mask.cumsum(1) == torch.arange(length, device=mask.device) + 1 - (length - counts)[:, None]) | ~mask
    if not bool((contiguous.all(1) & mask[:, -1]).all() if length else True):
        raise LookmError(
            "attention_mask must be 0 … 0 1 … 1 in every row: pad prompts on the left (padding_side='left')"
        )
    return tuple((length - counts).tolist())
