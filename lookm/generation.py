"""`look_once`: inside it, a transformers model compresses the cache of every prompt it encodes."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from threading import Condition, get_ident
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import DynamicCache, Pipeline, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

import lookm.attention  # noqa: F401  registers the attention function
from lookm.cache import LookOnceCache
from lookm.context import ForwardPass, forward_pass, led, set_forward_pass
from lookm.errors import LookmError
from lookm.prompt import image_token_ids, read_prompt
from lookm.record import PromptRecord
from lookm.registry import resolve_strategy
from lookm.report import Report
from lookm.stopwatch import Mark
from lookm.strategy import Strategy

T = TypeVar("T")

_open: ContextVar[tuple["Session", ...]] = ContextVar("lookm_open_sessions", default=())
"""The blocks that this context is in, the innermost last."""


class Session:
    """What `look_once` yields; `report()` tells of the last prompt batch.

    A session belongs to its context, as `contextvars` means it: threads that are started in the block do not compress
    unless they are started by way of `run`.
    """

    def __init__(self, model: PreTrainedModel, strategy: Strategy) -> None:
        self.strategy = strategy
        self.decoder = decoder_of(model)
        self.closed = False
        self._image_ids = image_token_ids(model.config)
        self._n_layers = len(DynamicCache(config=model.config).layers)
        self._record: PromptRecord | None = None
        self._going_on = Condition()
        self._runs = 0
        self._passes: list[int] = []  # the threads of the forward passes that are going on
        self._warned_outside = False

    def report(self) -> Report:
        """Kept tokens and bytes per layer, nominal and realised budget, times, of the last prompt batch.

        Raises:
            LookmError: if no prompt was encoded yet.
            BudgetError: if a layer holds something else than the strategy promises.
        """
        if self._record is None:
            raise LookmError("no prompt was encoded inside look_once yet; call model.generate first")
        return self._record.report()

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in the block's context, from any thread; leaving the block waits for it.

        Args:
            function: what to call.
            *args: its arguments.
            **kwargs: its keyword arguments.

        Raises:
            LookmError: if the block has been left.

        Example:
            >>> Thread(target=session.run, args=(model.generate,), kwargs={**inputs, "streamer": streamer}).start()
        """
        with self._going_on:
            if self.closed:
                raise LookmError("the look_once block has been left; call session.run before")
            self._runs += 1
        context = copy_context()
        try:
            context.run(_open.set, (self,))
            return context.run(function, *args, **kwargs)
        finally:
            with self._going_on:
                self._runs -= 1
                self._going_on.notify_all()

    def cache_for(self, named: dict[str, Any], now: ForwardPass) -> LookOnceCache:
        """The cache of a forward pass, given the arguments of a module: the one to go on with, or one for a prompt."""
        if named.get("use_cache") is False:
            raise LookmError("use_cache=False leaves nothing to compress; leave it out inside look_once")
        cache = named.get("past_key_values")
        tokens = named.get("input_ids")
        tokens = named.get("inputs_embeds") if tokens is None else tokens
        if isinstance(cache, LookOnceCache) and cache.get_seq_length() > 0:
            cache.record.check_complete()
            cache.record.steps.append(Mark.now(cache.prompt.is_image.device))
            if tokens is not None and tokens.shape[1] != 1:
                raise LookmError(
                    f"{tokens.shape[1]} tokens at once on top of a compressed cache; look_once compresses after one "
                    "whole prompt: unset prefill_chunk_size, decode without an assistant, start new turns afresh"
                )
            return cache
        _check_fresh(cache)
        ids = named.get("input_ids") if now.input_ids is None else now.input_ids
        mask = named.get("attention_mask") if now.attention_mask is None else now.attention_mask
        prompt = read_prompt(ids, named.get("inputs_embeds"), mask, self._image_ids)
        cache = LookOnceCache(self.strategy, prompt, self._n_layers)
        self._record = cache.record
        cache.record.steps.append(Mark.now(prompt.is_image.device))
        return cache

    def enter_pass(self) -> None:
        """Count a forward pass of this thread; leaving the block waits for it."""
        with self._going_on:
            if self.closed:
                raise LookmError("the look_once block has been left while the model was still generating")
            self._passes.append(get_ident())

    def leave_pass(self) -> None:
        """The end of what `enter_pass` counted."""
        with self._going_on:
            self._passes.remove(get_ident())
            self._going_on.notify_all()

    def close(self, *, wait: bool) -> None:
        """End the session, after what `run` called (if asked to wait) and after the forward passes of other threads."""
        with self._going_on:
            if wait:
                self._going_on.wait_for(lambda: not self._runs)
            self.closed = True
            self._going_on.wait_for(lambda: not [thread for thread in self._passes if thread != get_ident()])

    def warn_outside(self) -> None:
        """Say once that a thread uses the model without being in the block."""
        if not self._warned_outside:
            self._warned_outside = True
            warnings.warn(
                "a thread outside the look_once block uses its model, with its plain cache; to compress there, start "
                "it with Thread(target=session.run, args=(model.generate,), kwargs=…)",
                stacklevel=5,  # whoever called the model
            )


class _Entrance:
    """What happens before and after a module that contains the decoder, or is it: there forward passes begin and end.

    A deep copy of it does nothing: a copy of the model has no session.
    """

    def __init__(self, session: Session | None, module: nn.Module) -> None:
        self.session = session
        self.signature = inspect.signature(module.forward)
        parameters = self.signature.parameters
        self.takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self.takes_positions = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values())

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Entrance":
        copy = _Entrance.__new__(_Entrance)
        copy.session = None
        return copy

    @torch.compiler.disable
    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Begin a forward pass, if none is going on, and hand its cache over."""
        session, now = self.session, forward_pass()
        if session is None or (now is not None and now.cache is not None and _has(kwargs, now.cache)):
            return None
        if innermost_session(session.decoder) is not session:
            if now is None and innermost_session(session.decoder) is None:
                session.warn_outside()
            return None
        positional, named = (args, dict(kwargs)) if self.takes_positions else ((), self._by_name(args, kwargs))
        begins = now is None
        if now is None:
            now = ForwardPass(named.get("input_ids"), named.get("attention_mask"), entrance=self)
        added: dict[str, Any] = {"past_key_values": None, "use_cache": True}
        added = {name: value for name, value in added.items() if self.takes_more or name in self.signature.parameters}
        if "past_key_values" in added and now.cache is None:
            now.cache = session.cache_for(named, now)
        if begins:
            session.enter_pass()
            set_forward_pass(now)
        if "past_key_values" in added:
            added["past_key_values"] = now.cache
        return positional, named | added

    @torch.compiler.disable
    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """End the forward pass that began here."""
        now = forward_pass()
        if self.session is not None and now is not None and now.entrance is self:
            set_forward_pass(None)
            self.session.leave_pass()

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return dict(self.signature.bind_partial(*args).arguments) | kwargs


def _has(kwargs: dict[str, Any], cache: Cache) -> bool:
    return kwargs.get("past_key_values") is cache and kwargs.get("use_cache", True) is True


def innermost_session(decoder: nn.Module) -> Session | None:
    """The innermost `look_once` block of the present context that is open on the decoder."""
    return next((s for s in reversed(_open.get()) if s.decoder is decoder and not s.closed), None)


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
    be nested; the innermost counts. A block belongs to its context (`contextvars`): other threads use the model as it
    is without the block, unless they are started by way of `Session.run`; each may have a block of its own. Leaving
    the block waits for what `Session.run` has started, after an exception only for forward passes that are going on.

    Args:
        model: any decoder-only transformers ≥ 5 model with full causal attention, vision-language or text; also wrapped
            by PEFT or `torch.compile`, or a pipeline, whose model is meant.
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
    chosen = resolve_strategy(strategy, alpha1=alpha1, alpha2=alpha2, semantics=semantics)
    model = model_of(model)
    session = Session(model, chosen)
    with ExitStack() as undo:
        undo.enter_context(led(session.decoder))
        for module in _way_to(session.decoder, model):
            entrance = _Entrance(session, module)
            undo.callback(module.register_forward_pre_hook(entrance.before, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(entrance.after, always_call=True).remove)
        _open.set((*_open.get(), session))
        try:
            yield session
        except BaseException:
            session.close(wait=False)
            raise
        else:
            session.close(wait=True)
        finally:
            session.closed = True
            _open.set(tuple(other for other in _open.get() if other is not session))


def is_looked_at(model: nn.Module) -> bool:
    """Whether the present context is in a `look_once` block on the model."""
    return innermost_session(decoder_of(model_of(model))) is not None


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


def model_of(model: Any) -> PreTrainedModel:
    """The model that is meant: a pipeline's, what `torch.compile` wraps, or the model itself (PEFT's wrapper too)."""
    model = model.model if isinstance(model, Pipeline) else model
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module) or not hasattr(model, "get_decoder"):
        raise LookmError(f"{model!r} is no transformers model; give the model that generates")
    return model  # type: ignore[return-value]


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


def _way_to(decoder: nn.Module, model: nn.Module) -> list[nn.Module]:
    """The modules from the model to its decoder, both included."""
    name = next(name for name, module in model.named_modules() if module is decoder)
    steps = name.split(".") if name else []
    return [model.get_submodule(".".join(steps[:n])) for n in range(len(steps) + 1)]
