"""Tokens behind a prompt in the same forward pass, for strategies that choose after the last layer.

Others cut a layer just after its attention, so that the tokens behind the prompt read what is left of it in the same
pass. A strategy that reads all layers first has nothing to show them before the last one: the decoder is called twice.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from lookm.cache import LookOnceCache
from lookm.context import eagerly, forward_pass
from lookm.errors import LookmError


class TailPass:
    """A decoder's hooks that read a prompt first, and the tokens behind it in a second call."""

    def __init__(self, decoder: nn.Module) -> None:
        self.signature = inspect.signature(decoder.forward)

    @eagerly
    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give the decoder the prompt alone, and put the rest aside."""
        now, cache = forward_pass(), kwargs.get("past_key_values")
        if now is None or now.cache is not cache or not isinstance(cache, LookOnceCache):
            return None
        if not (cache.strategy.whole_prompt and cache.prompt.tail) or cache.get_seq_length() > 0:
            return None
        named = dict(self.signature.bind_partial(*args).arguments) | kwargs
        length, tail = cache.prompt.length, cache.prompt.tail
        cache.prompt = replace(cache.prompt, tail=0, tail_images=())
        seen = named.get("visual_pos_masks")
        parts = {name: _split(name, value, length, length + tail, seen) for name, value in named.items()}
        now.later = {name: later for name, (_, later) in parts.items()}
        return (), {name: first for name, (first, _) in parts.items()}

    @eagerly
    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Read the rest, now that the prompt is compressed, and join what the decoder gave."""
        now = forward_pass()
        if now is None or now.later is None:
            return None
        later, now.later = now.later, None
        now.attended.clear()
        joined = _joined(output, module(**later))
        logits, kept = joined.get("logits"), later.get("logits_to_keep")
        if logits is not None and isinstance(kept, int) and kept:
            joined["logits"] = logits[:, -kept:]
        return joined


def _split(name: str, value: Any, length: int, total: int, pictured: Tensor | None) -> tuple[Any, Any]:
    """An argument of the decoder for its first `length` tokens, and for those behind them.

    Args:
        pictured: (B, total) bool, the image tokens that `deepstack_visual_embeds` belong to, row by row.
    """
    if name == "deepstack_visual_embeds" and value is not None and pictured is not None:
        early = pictured.nonzero()[:, 1] < length
        return [states[early] for states in value], [states[~early] for states in value]
    if isinstance(value, Tensor) and value.ndim and name != "labels":
        if name == "attention_mask" and value.ndim == 2:  # which tokens are padding, all that came before among them
            return value[:, :length], value
        dim = value.ndim - 1 if name == "position_ids" else min(1, value.ndim - 1)
        if value.shape[dim] == total and name != "attention_mask":
            return value.narrow(dim, 0, length), value.narrow(dim, length, total - length)
    if isinstance(value, dict) and not any(isinstance(mask, Tensor) for mask in value.values()):
        return value, value  # masks by kind of layer, none of which needs one
    if isinstance(value, Tensor | list | tuple | dict):
        raise LookmError(
            f"the decoder's argument {name} cannot be divided between a prompt and the tokens behind it, which a "
            "strategy that chooses after the last layer needs; choose another one, or ask in a turn of its own"
        )
    return value, value


def _joined(first: Any, later: Any) -> ModelOutput:
    """The decoder's output of all tokens."""
    if not isinstance(first, ModelOutput):
        raise LookmError("a strategy that chooses after the last layer needs return_dict=True")
    for name in ("last_hidden_state", "logits", "hidden_states"):
        one: Any = getattr(first, name, None)
        other: Any = getattr(later, name, None)
        if isinstance(one, Tensor):
            later[name] = torch.cat([one, other], dim=1)
        elif one is not None:
            later[name] = tuple(torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    return later
