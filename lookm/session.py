"""A block of `look_once`: which caches it hands to forward passes, and how the model's modules lead there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from threading import Condition, get_ident
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

import lookm.attention  # noqa: F401  registers the attention function
from lookm.again import Again
from lookm.cache import LookOnceCache
from lookm.context import ForwardPass, eagerly, forward_pass, led
from lookm.decoder import decoder_of, image_ids_of, way_to
from lookm.entrance import Entrance, innermost_session, open_sessions
from lookm.errors import LookmError
from lookm.prompt import image_mask, padding_of, read_prompt
from lookm.record import PromptRecord
from lookm.report import Report
from lookm.shortening import Shortening, ShorteningStrategy
from lookm.strategy import Strategy
from lookm.tail import TailPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

    from lookm.kept import KeptPositions

T = TypeVar("T")

_embedded: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("lookm_embedded", default=None)
"""The tokens (B, L) that were embedded last, outside a forward pass, and what they became, (B, L, width)."""


class Session:
    """What `look_once` yields; `report()` tells of the last prompt batch.

    A session belongs to its context, as `contextvars` means it: threads that are started in the block do not compress
    unless they are started by way of `run`.

    Attributes:
        strategy: of the block.
        question_tokens: the last so many tokens of each prompt are read after its compression, which does not see them:
            a question that comes later, in the pass of its context. May be set between prompts.
        notes_positions: whether caches note which positions they keep, for `lookm.kept.positions_in`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        strategy: Strategy,
        image_token_ids: Collection[int] | None = None,
        again: Again | None = None,
    ) -> None:
        self.strategy = strategy
        self._again = again
        self.decoder = decoder_of(model)
        self.question_tokens = 0
        self.notes_positions = False
        self.closed = False
        self._model = model
        self._image_ids = image_ids_of(model, image_token_ids)
        self._record: PromptRecord | None = None
        self._cache: ref[LookOnceCache] | None = None
        self._counting = next((m for m in way_to(self.decoder, model) if hasattr(m, "rope_deltas")), None)
        self._going_on = Condition()
        self._runs = 0
        self._passes: list[int] = []  # the threads of the forward passes that are going on
        self._warned: set[str] = set()
        self._shortening = Shortening(strategy, self.decoder) if isinstance(strategy, ShorteningStrategy) else None

    def report(self) -> Report:
        """Kept tokens and bytes per layer, nominal and realised budget, times, of the last prompt batch.

        Raises:
            LookmError: if no prompt was encoded yet.
            BudgetError: if a layer holds something else than the strategy promises.
        """
        if self._record is None:
            raise LookmError("no prompt was encoded inside look_once yet; call model.generate first")
        return self._record.report()

    def show(
        self,
        inputs: Mapping[str, Tensor],
        tokenizer: PreTrainedTokenizerBase,
        images: Sequence[Image] = (),
        *,
        layer: int | None = None,
    ) -> Figure:
        """A picture of what the block's strategy keeps of a prompt: words shaded by how many heads kept them, images
        veiled where their tokens went. A notebook shows it; the prompt is encoded once more.

        Args:
            inputs: what `generate` was given, one prompt.
            layer: one layer, from 0; None sums up all of them.

        Raises:
            LookmError: several prompts, another number of images, or matplotlib is missing.

        Example:
            >>> session.show(inputs, backbone.tokenizer, images).savefig("kept.png")
        """
        from lookm.kept import kept_positions
        from lookm.kept_figure import draw_kept, shown_in_notebooks, token_texts

        def observed() -> list[KeptPositions]:
            open_sessions.set(())  # this prompt is looked at, not compressed
            return kept_positions(self._model, inputs, [self.strategy])

        kept = copy_context().run(observed)
        texts = token_texts(tokenizer, inputs["input_ids"][0, -len(kept[0].is_image) :].tolist())
        where = "all layers" if layer is None else f"layer {layer}"
        return shown_in_notebooks(draw_kept(texts, images, kept, f"What the heads of {where} keep", layer))

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in the block's context, from any thread; leaving the block waits for it.

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
            context.run(open_sessions.set, (self,))
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
            return self._go_on(cache, named, now, 1 if tokens is None else tokens.shape[1])
        recording = cache is not None and any(getattr(layer, "record_past", False) for layer in cache.layers)
        _check_fresh(cache)
        ids = named.get("input_ids") if now.input_ids is None else now.input_ids
        if ids is None and self._image_ids:
            ids = self._embedded_ids(named.get("inputs_embeds"))
        mask = named.get("attention_mask") if now.attention_mask is None else now.attention_mask
        tail = self.question_tokens + _drafts(named)
        prompt = read_prompt(ids, named.get("inputs_embeds"), mask, self._image_ids, tail)
        cache = LookOnceCache(self.strategy, prompt, self._model.config, self._again)
        cache.padding = padding_of(mask, tail, prompt.length) if tail else None
        cache.notes_positions = self.notes_positions
        if tail and self._again is not None:
            cache.new_is_image = self._again.images_among(None if ids is None else ids[:, -tail:], self._image_ids)
        now.new_images = bool(tail and ids is not None and image_mask(ids[:, -tail:], self._image_ids).any())
        if recording:  # layers with a window or a state, of which assisted decoding takes tokens back
            cache.activate_past_recording()
        self._record, self._cache = cache.record, ref(cache)
        cache.record.begin_pass(prompt.length, prompt.is_image.device)
        return cache

    def _go_on(self, cache: LookOnceCache, named: dict[str, Any], now: ForwardPass, new: int) -> LookOnceCache:
        """A pass of new tokens after a compressed prompt."""
        cache.record.check_complete()
        ids = named.get("input_ids") if now.input_ids is None else now.input_ids
        cache.new_is_image = None if cache.again is None else cache.again.images_among(ids, self._image_ids)
        if new > 1:
            now.new_images = ids is not None and bool(image_mask(ids, self._image_ids).any())
            if not now.new_images:
                self._check_positions(cache)
            cache.record.aside = False  # a new turn
        self._go_back_to(cache.record)
        self._cache = ref(cache)
        mask = named.get("attention_mask") if now.attention_mask is None else now.attention_mask
        cache.padding = padding_of(mask, new, cache.get_seq_length())
        cache.record.begin_pass(new, cache.prompt.is_image.device)
        return cache

    def save_cache(self, path: str | os.PathLike[str], cache: LookOnceCache | None = None) -> None:
        """Write a compressed cache to a safetensors file, to go on from it with `load_cache` in another process.

        Args:
            path: of the file; an older one is replaced when the new one is whole.
            cache: which one; None: that of the last prompt or turn, if somebody still holds it.

        Raises:
            LookmError: if there is no such cache any more, or it cannot be written.
        """
        from lookm.saving import write_cache

        if cache is None and self._cache is not None:
            cache = self._cache()
        if cache is None:
            raise LookmError("the last prompt's cache is gone; keep it: cache = model(**inputs).past_key_values")
        write_cache(cache, path, self._model)

    def load_cache(self, path: str | os.PathLike[str]) -> LookOnceCache:
        """Read a cache that `save_cache` wrote for this model; it goes on with the strategy that made it.

        Raises:
            LookmError: for a file that is none, or a cache of another model.

        Example:
            >>> cache = session.load_cache("report.cache")
            >>> model.generate(input_ids=context_and_question, past_key_values=cache)
        """
        from lookm.saving import read_cache

        cache = read_cache(path, self._model)
        cache.again = self._again
        return self.resume(cache)

    def resume(self, cache: LookOnceCache) -> LookOnceCache:
        """Tell the model that the next turn goes on from this cache; it counts positions from the prompt it saw last.

        Only models with several position axes (M-RoPE) need it, where another prompt was encoded meanwhile.
        """
        if self._counting is not None:
            self._counting.rope_deltas = cache.rope_deltas  # type: ignore[assignment]
        return cache

    def _check_positions(self, cache: LookOnceCache) -> None:
        """Refuse to go on with a cache when the model counts positions from another prompt."""
        deltas = None if self._counting is None else self._counting.rope_deltas
        if isinstance(deltas, Tensor) and cache.rope_deltas is not None:
            same = deltas.unique().equal(cache.rope_deltas.to(deltas.device).unique())
            if not same:
                raise LookmError(
                    "the model counts positions from another prompt that it saw meanwhile; "
                    "call session.resume(cache) before going on with this one"
                )

    def _go_back_to(self, record: PromptRecord) -> None:
        """Report on the prompt that is being answered, not on one that was encoded aside (classifier-free guidance)."""
        if self._record is not record and not record.aside:
            if self._record is not None:
                self._record.aside = True
            self._record = record

    @eagerly
    def note_embedded(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """A hook of the input embeddings: models that embed a prompt before their forward pass show its tokens here."""
        if args and forward_pass() is None and innermost_session(self.decoder) is self:
            _embedded.set((args[0], output))

    def _embedded_ids(self, embeddings: Tensor | None) -> Tensor | None:
        """The tokens (B, L) that embeddings (B, L, width) were made from, if their text is what was embedded last."""
        noted = _embedded.get()
        _embedded.set(None)
        if noted is None or embeddings is None or noted[1].shape != embeddings.shape:
            return None
        ids, output = noted
        is_text = ~image_mask(ids, self._image_ids)
        same = output[is_text].to(embeddings.dtype).equal(embeddings[is_text])
        return ids if same else None

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

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The block: meanwhile forward passes of the model that begin in this context are this session's."""
        with ExitStack() as undo:
            undo.enter_context(led(self.decoder))
            for module in way_to(self.decoder, self._model):
                entrance = Entrance(self, module)
                undo.callback(module.register_forward_pre_hook(entrance.before, with_kwargs=True).remove)
                undo.callback(module.register_forward_hook(entrance.after, always_call=True).remove)
            tail = TailPass(self.decoder)
            undo.callback(self.decoder.register_forward_pre_hook(tail.before, with_kwargs=True).remove)
            undo.callback(self.decoder.register_forward_hook(tail.after, prepend=True).remove)  # within the pass
            if self._shortening is not None:
                self._shortening.hook(self._model, undo)
            embeddings = self._model.get_input_embeddings()
            if self._image_ids and embeddings is not None:
                undo.callback(embeddings.register_forward_hook(self.note_embedded).remove)
            open_sessions.set((*open_sessions.get(), self))
            try:
                yield
            except BaseException:
                self._close(wait=False)
                raise
            else:
                self._close(wait=True)
            finally:
                self.closed = True
                open_sessions.set(tuple(other for other in open_sessions.get() if other is not self))

    def _close(self, *, wait: bool) -> None:
        """End the session, after what `run` called (if asked to wait) and after the forward passes of other threads."""
        with self._going_on:
            if wait:
                self._going_on.wait_for(lambda: not self._runs)
            self.closed = True
            self._going_on.wait_for(lambda: not [thread for thread in self._passes if thread != get_ident()])

    def warn_outside(self) -> None:
        """Say once that a thread uses the model without being in the block."""
        self._warn(
            "a thread outside the look_once block uses its model, with its plain cache; to compress there, start it "
            "with Thread(target=session.run, args=(model.generate,), kwargs=…)"
        )

    def end_prompt(self, cache: LookOnceCache) -> None:
        """Take note of a pass that went well; say once if it was a prompt's and nothing was compressed."""
        if self._counting is not None and len(cache.record.steps) == 1:
            cache.rope_deltas = self._counting.rope_deltas  # type: ignore[assignment]
        if cache.record.prefill_end is not None and len(cache.record.steps) > 1:
            return
        cache.end_prompt()
        if cache.record.stored_nothing_smaller():
            self._warn(
                f"storage={self.strategy.storage.name} made nothing of a prompt smaller: too few tokens come before "
                "those that stay whole"
            )
        if not cache.record.evicted_nothing():
            return
        images = int(cache.record.image_tokens.sum())
        if len(cache.untouched) == len(cache.layers):
            reason = "every layer has a window or a state, which is bounded already"
        elif not images:
            reason = f"no image token ({self._image_ids or 'none is known'}) is in it; image_token_ids=… says which are"
        else:
            reason = f"{images} image tokens and the text beside them are no more than the strategy keeps"
        self._warn(f"{self.strategy.name} compressed nothing of a prompt: {reason}")

    def _warn(self, message: str) -> None:
        kind = message.split(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=6)  # whoever called the model


def _drafts(named: dict[str, Any]) -> int:
    """Tokens behind a prompt that are drafts: assisted decoding asks for their logits beside the prompt's last."""
    logits = named.get("logits_to_keep")
    return max(0, logits - 1) if isinstance(logits, int) else 0


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
