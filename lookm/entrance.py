"""Where forward passes of a model enter a `look_once` block and leave it, and which blocks are open."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.cache_utils import Cache

from lookm.context import ForwardPass, eagerly, forward_pass, set_forward_pass
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.session import Session

open_sessions: ContextVar[tuple[Session, ...]] = ContextVar("lookm_open_sessions", default=())
"""The blocks that this context is in, the innermost last."""


class Entrance:
    """What happens before and after a module that contains the decoder, or is it: there forward passes begin and end.

    A deep copy of it does nothing: a copy of the model has no session.
    """

    def __init__(self, session: Session | None, module: nn.Module) -> None:
        self.session = session
        self.signature = inspect.signature(module.forward)
        parameters = self.signature.parameters
        self.takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self.takes_positions = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values())

    def __deepcopy__(self, memo: dict[int, Any]) -> Entrance:
        copy = Entrance.__new__(Entrance)
        copy.session = None
        return copy

    @eagerly
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
            if named.get("output_attentions") or getattr(getattr(module, "config", None), "output_attentions", False):
                raise LookmError("output_attentions is not available inside look_once; see lookm.attention_map")
            session.enter_pass()
            set_forward_pass(now)
        if "past_key_values" in added:
            added["past_key_values"] = now.cache
        return positional, named | added

    @eagerly
    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """End the forward pass that began here."""
        now = forward_pass()
        if self.session is not None and now is not None and now.entrance is self:
            set_forward_pass(None)
            self.session.leave_pass()
            if output is not None and now.cache is not None:
                self.session.end_prompt(now.cache)  # type: ignore[arg-type]

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return dict(self.signature.bind_partial(*args).arguments) | kwargs if args else dict(kwargs)


def _has(kwargs: dict[str, Any], cache: Cache) -> bool:
    return kwargs.get("past_key_values") is cache and kwargs.get("use_cache", True) is True


def innermost_session(decoder: nn.Module) -> Session | None:
    """The innermost `look_once` block of the present context that is open on the decoder."""
    return next((s for s in reversed(open_sessions.get()) if s.decoder is decoder and not s.closed), None)
