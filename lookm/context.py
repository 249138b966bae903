"""Which forward pass is going on in the present context, and how a model is led to `look_once`'s attention meanwhile.

A context is what `contextvars` means by it: every thread and every asyncio task has its own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lookm.rotary import RotaryCall, rotary_calls

if TYPE_CHECKING:
    from lookm.prompt_cache import PromptCache

P = ParamSpec("P")
T = TypeVar("T")

NAME = "look_once"
"""The attention function's name, as registered with transformers."""


@dataclass
class ForwardPass:
    """One forward pass of a model.

    Attributes:
        input_ids: (B, n) of the outermost module, if it was given them.
        attention_mask: likewise.
        cache: the cache that it fills or reads, once a module was called that takes one.
        entrance: the hooks that began the pass and will end it.
        attended: layers whose attention has been computed in this pass.
        new_images: whether images are among several new tokens after a compressed prompt.
        later: the decoder's arguments for the tokens behind a prompt, if they are read in a second call.
    """

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    cache: "PromptCache | None" = None
    entrance: object | None = None
    attended: set[int] = field(default_factory=set)
    new_images: bool = False
    later: dict[str, Any] | None = None


_forward_pass: ContextVar[ForwardPass | None] = ContextVar("lookm_forward_pass", default=None)


def eagerly(function: Callable[P, T]) -> Callable[P, T]:
    """A function that `torch.compile` leaves its graph for; calls outside of compiled code cost nothing more."""
    outside = torch.compiler.disable(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return outside(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

    return call


def forward_pass() -> ForwardPass | None:
    """The forward pass of a compressing model that this context is in, or None."""
    return _forward_pass.get()


def set_forward_pass(value: ForwardPass | None) -> None:
    """Begin a forward pass in this context, or end it with None."""
    _forward_pass.set(value)


@contextmanager
def filling(cache: "PromptCache") -> Iterator[None]:
    """Within the block, the model's attention fills and reads this cache."""
    token = _forward_pass.set(ForwardPass(cache=cache))
    try:
        yield
    finally:
        _forward_pass.reset(token)


class AttentionName(str):
    """`look_once`, and which attention the model had before; a deep copy is that attention's own name."""

    original: str

    @classmethod
    def over(cls, original: str) -> "AttentionName":
        """The name that remembers `original`."""
        name = cls(NAME)
        name.original = original
        return name

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return self.original

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.original,)


def original_name(name: str) -> str:
    """The attention's name outside all blocks."""
    return name.original if isinstance(name, AttentionName) else name


def original_attention(module: nn.Module) -> Callable[..., Any]:
    """The attention function that the module would call outside all blocks."""
    modeling = sys.modules[type(module).__module__]
    interface = getattr(modeling, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    name = original_name(module.config._attn_implementation)  # type: ignore[union-attr, arg-type]
    function: Callable[..., Any] = interface.get_interface(
        name, getattr(modeling, "eager_attention_forward", sdpa_attention_forward)
    )
    return function


@dataclass
class _Led:
    """A decoder whose attention is `look_once`'s: its configuration, kept alive, and how many blocks want it."""

    config: Any
    original: str
    blocks: int = 0


_led: dict[int, _Led] = {}  # by the id of the configuration, which several models may share
_lock = Lock()


def _note_rotary_call(call: RotaryCall) -> None:
    """Show the present forward pass's cache how its prompt is rotated."""
    now = forward_pass()
    if now is not None and now.cache is not None:
        now.cache.note_rotary_call(call)


@contextmanager
def led(decoder: PreTrainedModel) -> Iterator[None]:
    """Within the block, the decoder's attention goes through `look_once`; after the last such block it is as before."""
    config = decoder.config
    with _lock:
        name = config._attn_implementation
        entry = _led.setdefault(id(config), _Led(config, original_name(name)))
        entry.blocks += 1
        if not isinstance(name, AttentionName):
            decoder.set_attn_implementation(AttentionName.over(name))
    try:
        with rotary_calls(decoder, _note_rotary_call):
            yield
    finally:
        with _lock:
            entry.blocks -= 1
            if not entry.blocks:
                decoder.set_attn_implementation(_led.pop(id(config)).original)
