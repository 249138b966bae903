"""`look_once`: inside it, a transformers model compresses the cache of every prompt it encodes."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from lookm.attention import CACHE_ARGUMENT, NAME
from lookm.cache import LookOnceCache
from lookm.errors import LookmError
from lookm.prompt import image_token_ids, read_prompt
from lookm.record import PromptRecord
from lookm.registry import resolve_strategy
from lookm.report import Report
from lookm.stopwatch import Mark
from lookm.strategy import Strategy


class Session:
    """What `look_once` yields; `report()` tells of the last prompt batch."""

    def __init__(self, model: PreTrainedModel, strategy: Strategy) -> None:
        self.strategy = strategy
        self._signature = inspect.signature(model.forward)
        self._image_ids = image_token_ids(model.config)
        self._n_layers = len(DynamicCache(config=model.config).layers)
        self._record: PromptRecord | None = None

    def report(self) -> Report:
        """Kept tokens and bytes per layer, nominal and realised budget, times, of the last prompt batch.

        Raises:
            LookmError: if no prompt was encoded yet.
            BudgetError: if a layer holds something else than the strategy promises.
        """
        if self._record is None:
            raise LookmError("no prompt was encoded inside look_once yet; call model.generate first")
        return self._record.report()

    def _before_forward(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The pre-hook: hand a new cache to a prompt, and each cache to the attention function."""
        if _opened[model].sessions[-1] is not self:
            return None
        named = dict(self._signature.bind_partial(*args).arguments)
        named.update(kwargs)
        if named.get("use_cache") is False:
            raise LookmError("use_cache=False leaves nothing to compress; leave it out inside look_once")
        cache = named.get("past_key_values")
        tokens = named.get("input_ids")
        tokens = named.get("inputs_embeds") if tokens is None else tokens
        if isinstance(cache, LookOnceCache) and cache.get_seq_length() > 0:
            cache.record.check_complete()
            if tokens is not None and tokens.shape[1] != 1:
                raise LookmError(
                    f"{tokens.shape[1]} tokens at once on top of a compressed cache; look_once compresses after one "
                    "whole prompt: unset prefill_chunk_size, decode without an assistant, start new turns afresh"
                )
        else:
            _check_fresh(cache)
            prompt = read_prompt(
                named.get("input_ids"),
                named.get("inputs_embeds"),
                named.get("attention_mask"),
                self._image_ids,
            )
            cache = LookOnceCache(self.strategy, prompt, self._n_layers)
            self._record = cache.record
        cache.record.steps.append(Mark.now(cache.prompt.is_image.device))
        named.update({"past_key_values": cache, "use_cache": True, CACHE_ARGUMENT: cache})
        return (), named


@dataclass(frozen=True)
class _Opened:
    """The open sessions of one model, the innermost last, and its decoder's attention before the first of them."""

    attention: str
    sessions: list[Session]


_opened: WeakKeyDictionary[nn.Module, _Opened] = WeakKeyDictionary()


@contextmanager
def look_once(
    model: PreTrainedModel,
    strategy: str | Strategy,
    *,
    alpha1: float | None = None,
    alpha2: float | None = None,
    semantics: str | None = None,
) -> Iterator[Session]:
    """Compress the key/value cache of every prompt that `model` encodes in the `with` block, once, after its prefill.

    The model's text decoder runs with SDPA meanwhile and is as before afterwards, also after an exception. Blocks may
    be nested; the innermost counts.

    Args:
        model: any decoder-only transformers ≥ 5 model with full causal attention, vision-language or text.
        strategy: a name from `configs/strategy`, or a `Strategy`.
        alpha1: share of the prompt kept as the recent window; default: the strategy's.
        alpha2: share of the prompt kept as important tokens; default: the strategy's.
        semantics: "paper" or "release"; default: the strategy's.

    Yields:
        The session, whose `report()` tells what was kept.

    Raises:
        LookmError: for an unknown strategy, a wrong budget, or a model or call that cannot be compressed.

    Example:
        >>> with look_once(model, "tp_pmerge", alpha1=0.1, alpha2=0.1) as session:
        ...     output = model.generate(**inputs, max_new_tokens=64)
        >>> print(session.report())
    """
    session = Session(model, resolve_strategy(strategy, alpha1=alpha1, alpha2=alpha2, semantics=semantics))
    decoder = decoder_of(model)
    opened = _opened.setdefault(model, _Opened(decoder.config._attn_implementation, []))
    hook = model.register_forward_pre_hook(session._before_forward, with_kwargs=True)
    opened.sessions.append(session)
    try:
        decoder.set_attn_implementation(NAME)
        yield session
    finally:
        hook.remove()
        opened.sessions.remove(session)
        if not opened.sessions:
            decoder.set_attn_implementation(opened.attention)
            del _opened[model]


def is_looked_at(model: nn.Module) -> bool:
    """Whether a `look_once` block is open on the model."""
    return model in _opened


def _check_fresh(cache: Cache | None) -> None:
    """A prompt starts with no cache or with generate's empty dynamic one."""
    if cache is None or isinstance(cache, LookOnceCache):
        return
    if not isinstance(cache, DynamicCache):
        raise LookmError(
            f"look_once brings its own cache; drop cache_implementation ({type(cache).__name__} was given)"
        )
    if cache.get_seq_length() > 0:
        raise LookmError(
            f"a cache of {cache.get_seq_length()} tokens was given; pass none, look_once encodes the whole prompt"
        )


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The text decoder whose layers are compressed; refuses models that cannot be."""
    if model.config.is_encoder_decoder:
        raise LookmError(f"{type(model).__name__} is an encoder–decoder; look_once compresses decoder-only models")
    other = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers} - {DynamicLayer.__name__}
    if other:
        raise LookmError(
            f"{type(model).__name__} has layers without full attention ({', '.join(sorted(other))}), "
            "which look_once does not compress"
        )
    decoder = model.get_decoder()
    if not decoder._can_set_attn_implementation():
        raise LookmError(f"{type(decoder).__name__} does not use transformers' attention interface")
    return decoder
