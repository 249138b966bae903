"""Before the cache: image tokens leave a prompt inside the model, and the layers behind neither see nor cache them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from lookm.context import forward_pass
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.prompt import Prompt
from lookm.strategy import Strategy

if TYPE_CHECKING:
    from lookm.cache import LookOnceCache


@dataclass(frozen=True, kw_only=True)
class ShorteningStrategy(Strategy):
    """Base of strategies that shorten the prompt itself; every layer caches all that it sees, α1 and α2 mean nothing.

    A subclass answers `first_short_layer`, and either `going_on` or, where it reads the vision tower, `watch`.
    """

    shortens_prompt: ClassVar[bool] = True

    @property
    def nominal_budget(self) -> float:
        return 1.0

    @property
    def fixed_size(self) -> bool:
        return False

    @property
    @abstractmethod
    def first_short_layer(self) -> int:
        """The layer, from 0, before which tokens leave."""

    def going_on(self, layer: Layer) -> Tensor:
        """Positions (n,) int64, ascending, that go on behind this layer, which is the one before `first_short_layer`.

        The last token must be among them.
        """
        raise NotImplementedError

    def watch(self, model: PreTrainedModel, undo: ExitStack) -> ImageTokens:
        """Hook whatever decides before the decoder begins, where `first_short_layer` is 0; `undo` takes it away."""
        raise NotImplementedError

    def promised_tokens(self, is_image: Tensor) -> int:
        return is_image.numel()

    def chooses(self, is_image: Tensor) -> bool:
        return False

    def keep(self, layer: Layer) -> Tensor:
        return torch.arange(layer.length, device=layer.is_image.device).expand(layer.kv_heads, -1)


@dataclass
class ImageTokens:
    """What became of the image tokens of the last prompt batch: which go on, (images · tokens,) bool, or None."""

    going_on: Tensor | None = None


@dataclass(frozen=True)
class Shortened:
    """The tokens of a left-padded prompt batch that go on.

    Attributes:
        prompt: where padding and images of the shorter batch lie.
        index: (B, n) int64, the slot of the longer batch that each token comes from, tail included; of padding, any.
        length: slots of the longer batch.
    """

    prompt: Prompt
    index: Tensor
    length: int

    @classmethod
    def of(cls, prompt: Prompt, rows: Sequence[Tensor]) -> Shortened:
        """Given the positions of each row, (n_row,) int64 ascending, padding not counted."""
        longest = max(len(row) for row in rows)
        starts = tuple(longest - len(row) for row in rows)
        moved = [row + begin for row, begin in zip(rows, prompt.starts, strict=True)]
        index = torch.stack([F.pad(row, (start, 0)) for row, start in zip(moved, starts, strict=True)])
        length = prompt.length + prompt.tail
        tail = torch.arange(prompt.length, length, device=index.device).expand(len(rows), -1)
        shorter = Prompt(starts, prompt.is_image.gather(1, index), prompt.tail)
        return cls(shorter, torch.cat([index, tail], 1), length)

    def take(self, states: Tensor, dim: int) -> Tensor:
        """The tokens along `dim`, before which the rows lie, or 1 for all: (…, B or 1, length, …) → (…, B, n, …)."""
        dim %= states.ndim
        batch = len(self.index)
        states = states.expand(*states.shape[: dim - 1], batch, *states.shape[dim:])
        index = self.index.view(batch, -1, *[1] * (states.ndim - dim - 1))
        return states.gather(dim, index.expand(*states.shape[:dim], -1, *states.shape[dim + 1 :]))


class Shortening:
    """The hooks of one `look_once` block that let a prompt go on shortened.

    Raises:
        LookmError: for a model whose decoder layers cannot be shown a shorter prompt.
    """

    def __init__(self, strategy: ShorteningStrategy, decoder: nn.Module) -> None:
        self.strategy = strategy
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or hasattr(decoder, "_deepstack_process"):
            raise LookmError(
                f"{strategy.name} drops tokens between the layers of a decoder, which {type(decoder).__name__} does "
                "not show; choose another strategy"
            )
        if strategy.first_short_layer >= len(layers):
            raise LookmError(
                f"{strategy.name} drops tokens before layer {strategy.first_short_layer}; {type(decoder).__name__} has "
                f"{len(layers)} layers, choose one from 1 to {len(layers) - 1}"
            )
        self.layers = list(layers)[strategy.first_short_layer :]
        self.image_tokens: ImageTokens | None = None

    def hook(self, model: PreTrainedModel, undo: ExitStack) -> None:
        """Hook the layers, and what decides before them; `undo` takes the hooks away."""
        if not self.strategy.first_short_layer:
            self.image_tokens = self.strategy.watch(model, undo)
        for layer in self.layers:
            undo.callback(layer.register_forward_pre_hook(self.before, with_kwargs=True).remove)

    def begin(self, tokens: ImageTokens, cache: LookOnceCache) -> None:
        """Shorten a prompt that is about to enter the decoder; beams' rows stand beside each other, and are alike."""
        is_image, stays = cache.prompt.is_image, torch.ones_like(cache.prompt.is_image)
        counts = is_image.sum(1).tolist()
        # Pictures of questions that come later went through the tower, too, but stay whole.
        whole = [a + b for a, b in zip(counts, cache.prompt.tail_images or [0] * len(counts), strict=True)]
        going_on, tokens.going_on = tokens.going_on, None
        seen = 0 if going_on is None else going_on.numel()
        beams = max(1, sum(whole) // max(1, seen))
        if sum(whole[::beams]) != seen:
            raise LookmError(
                f"{self.strategy.name} saw {seen} image tokens leave the vision tower for a prompt of {sum(whole)}; "
                "encode images and prompt in one call"
            )
        if going_on is not None:
            parts = zip(going_on.to(stays.device).split(whole[::beams]), counts[::beams], strict=True)
            stays[is_image] = torch.cat([part[:count] for part, count in parts for _ in range(beams)])
        cache.shorten([row[start:].nonzero()[:, 0] for row, start in zip(stays, cache.prompt.starts, strict=True)])

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Show a layer what is left of the prompt; states of the layer before may still be whole."""
        now = forward_pass()
        cache = None if now is None else now.cache
        if cache is None:
            return None
        if self.image_tokens is not None and module is self.layers[0] and not cache.layer_is_compressed(0):
            self.begin(self.image_tokens, cast("LookOnceCache", cache))
        shortened = cache.shortened(self.strategy)
        if shortened is None:
            return None
        hidden, *others = args or (kwargs.pop("hidden_states"),)
        if hidden.shape[1] == shortened.length:
            hidden = shortened.take(hidden, -2)
        changed = dict(kwargs)
        if kwargs.get("position_embeddings") is not None:
            changed["position_embeddings"] = tuple(shortened.take(x, -2) for x in kwargs["position_embeddings"])
        if kwargs.get("position_ids") is not None:
            changed["position_ids"] = shortened.take(kwargs["position_ids"], -1)
        if kwargs.get("attention_mask") is not None:
            raise LookmError(
                f"{self.strategy.name} drops tokens of a causal prompt; layer {type(module).__name__} has another mask"
            )
        return (hidden, *others), changed
