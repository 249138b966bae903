"""A conversation about one context, which is encoded and compressed once, before its questions are known."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from lookm.cache import LookOnceCache
from lookm.errors import LookmError
from lookm.models.backbone import IMAGE_HERE, Backbone, EncodedImages
from lookm.models.templates import later_turn
from lookm.questions import common_tokens
from lookm.session import Session

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer


class Conversation:
    """Questions about one context; each goes on from its compressed cache and from what was said since.

    Attributes:
        context: (1, L) int64, the tokens before the first question.
        cache: what is kept of them; questions go on from copies of it.

    Example:
        >>> with look_once(backbone.model, "tp_pmerge") as session:
        ...     conversation = Conversation.about(backbone, session, "<ImageHere>" * 2, images)
        ...     print(conversation.ask("What is red?"), conversation.ask("And blue?"))
    """

    def __init__(self, backbone: Backbone, session: Session, context: Tensor, cache: LookOnceCache) -> None:
        self.backbone, self.session = backbone, session
        self.context, self.cache = context, cache
        self.begin_again()

    @classmethod
    def about(cls, backbone: Backbone, session: Session, text: str, images: Sequence[Image.Image] = ()) -> Conversation:
        """Encode a context with the conversation template before it.

        Args:
            backbone: the model; session: of the `look_once` block on it.
            text: with one `<ImageHere>` for each image.
            images: in the order of their placeholders.

        Raises:
            LookmError: no context, another number of images, or more tokens than the model takes.
        """
        text = text.rstrip()
        if not text:
            raise LookmError("the context is empty; give words or images")
        if text.count(IMAGE_HERE) != len(images):
            raise LookmError(
                f"the context has {text.count(IMAGE_HERE)} times {IMAGE_HERE} and {len(images)} images; give one image "
                "for each"
            )
        pictures = [image.convert("RGB") for image in images]
        encoded = backbone.encode_images(pictures) if pictures else EncodedImages({}, ())
        tokens = _context_tokens(backbone, text, encoded.n_tokens)
        _check_length(backbone, len(tokens), "the context", "give fewer images or words")
        inputs = backbone.batch([tokens], encoded)
        with torch.inference_mode():
            cache = backbone.model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        cache.note = {"text": text, "image_tokens": list(encoded.n_tokens)}
        return cls(backbone, session, inputs["input_ids"], cache)

    @classmethod
    def load(cls, backbone: Backbone, session: Session, path: str | os.PathLike[str]) -> Conversation:
        """Go on from a context that `save` wrote; its images are not needed any more.

        Raises:
            LookmError: for a file that is none, the cache of another model, or of no conversation.
        """
        cache = session.load_cache(path)
        if not {"text", "image_tokens"} <= cache.note.keys():
            raise LookmError(f"{path} holds a cache, but not of a conversation; load it with session.load_cache")
        tokens = _context_tokens(backbone, cache.note["text"], cache.note["image_tokens"])
        return cls(backbone, session, torch.tensor([tokens], device=backbone.model.device), cache)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the context's cache to a safetensors file, without what was said since.

        Raises:
            LookmError: it cannot be written.
        """
        self.session.save_cache(path, self.cache)

    def begin_again(self) -> None:
        """Forget what was said; the next question goes on from the context alone."""
        self._said, self._held = self.context, self.cache

    @torch.inference_mode()
    def ask(self, question: str, streamer: BaseStreamer | None = None) -> str:
        """The answer to a question, greedily decoded; after an exception the conversation stands as before.

        Args:
            question: text alone.
            streamer: gets the answer's tokens as they come.

        Raises:
            LookmError: the conversation has more tokens than the model takes.
        """
        question = question.strip().replace(IMAGE_HERE, f"{IMAGE_HERE[0]} {IMAGE_HERE[1:]}")
        begins = self._held is self.cache
        tokens = self._first_turn(question) if begins else self._later_turn(question)
        _check_length(self.backbone, tokens.shape[1], "the conversation", "ask in fewer words or begin again")
        model: Any = self.backbone.model
        output = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            past_key_values=self.session.resume(copy.deepcopy(self._held)),
            max_new_tokens=self.backbone.max_new_tokens,
            do_sample=False,
            pad_token_id=int(self.backbone.tokenizer.pad_token_id),
            return_dict_in_generate=True,
            streamer=streamer,
        )
        self._said, self._held = output.sequences, output.past_key_values
        return self.backbone.answers(self._said[:, tokens.shape[1] :])[0]

    def _first_turn(self, question: str) -> Tensor:
        """The context and its first question, token by token as if they were one prompt."""
        text, n_tokens = self.cache.note["text"], self.cache.note["image_tokens"]
        whole = self.backbone.prompt_tokens(f"{text} {question}", n_tokens)
        new = whole[common_tokens(self.context[0].tolist(), whole) :]
        return torch.cat([self.context, self.context.new_tensor([new])], dim=1)

    def _later_turn(self, question: str) -> Tensor:
        """What was said so far and the next question."""
        begins = self.backbone.template.partition("{question}")[0]
        text = self.backbone.without_image_tokens(question if begins else f" {question}")
        return later_tokens(self.backbone, self._said, text)


def later_tokens(backbone: Backbone, said: Tensor, question: str) -> Tensor:
    """A conversation (1, L) with its next question, as the template writes later turns: (1, L + n)."""
    text = later_turn(backbone.template).replace("{question}", question)
    if int(said[0, -1]) in backbone.end_tokens:
        said = said[:, :-1]  # the next turn writes the end of the last answer
    return torch.cat([said, said.new_tensor([backbone.encode(text)])], dim=1)


def _context_tokens(backbone: Backbone, text: str, n_image_tokens: Sequence[int]) -> list[int]:
    """Tokens of a context in the template, up to where any question begins: with a space."""
    alone, asked = (backbone.prompt_tokens(prompt, n_image_tokens) for prompt in (text, f"{text} ?"))
    return alone[: common_tokens(alone, asked)]


def _check_length(backbone: Backbone, tokens: int, what: str, way_out: str) -> None:
    if tokens > backbone.max_context_len:
        raise LookmError(f"{what} has {tokens} tokens; {backbone.label} takes {backbone.max_context_len}: {way_out}")
