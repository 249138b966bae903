"""`look_once`: inside it, a transformers model compresses the cache of every prompt it encodes."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from lookm.again import Again
from lookm.decoder import decoder_of, model_of
from lookm.registry import resolve_strategy
from lookm.session import Session, innermost_session
from lookm.storage.base import Storage
from lookm.strategy import Strategy


@contextmanager
def look_once(
    model: PreTrainedModel,
    strategy: str | Strategy,
    *,
    alpha1: float | None = None,
    alpha2: float | None = None,
    budget: float | int | None = None,
    semantics: str | None = None,
    storage: str | Storage | None = None,
    image_token_ids: Collection[int] | None = None,
    every: int | None = None,
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
        budget: what is kept at most, split as α1 : α2: a share up to 1, or a number of tokens a layer and head.
        semantics: "paper" or "release"; default: the strategy's.
        storage: in which form the compressed prompt stays in memory: a name from `configs/storage`, such as "kivi2", or
            a `Storage`; default: the strategy's, which is the plain one.
        image_token_ids: tokens that stand for images (and videos and audio); default: those that the model's
            configuration names.
        every: compress again whenever so many new tokens have come, so that a long chat or a stream of frames needs no
            more memory than its beginning (`lookm.again`); None: once, after the prompt.

    Yields:
        The session, whose `report()` tells what was kept.

    Raises:
        LookmError: for an unknown strategy, a wrong budget, or a model or call that cannot be compressed.

    Example:
        >>> with look_once(model, "tp_pmerge", alpha1=0.1, alpha2=0.1) as session:
        ...     output = model.generate(**inputs, max_new_tokens=64)
        >>> print(session.report())
    """
    chosen = resolve_strategy(
        strategy, alpha1=alpha1, alpha2=alpha2, budget=budget, semantics=semantics, storage=storage
    )
    session = Session(model_of(model), chosen, image_token_ids, None if every is None else Again.of(chosen, every))
    with session.opened():
        yield session


def is_looked_at(model: nn.Module) -> bool:
    """Whether the present context is in a `look_once` block on the model."""
    return innermost_session(decoder_of(model_of(model))) is not None
