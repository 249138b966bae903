"""Chat messages → what a backbone is asked: one text with a placeholder for each image, and the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.milebench.images import open_image
from benchmarks.milebench.prompts import PLACEHOLDER, build_prompt
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from lookm.models.qwen2_5vl import QwenBackbone
from lookm.models.templates import later_turn

Frames = Callable[[Any], list[Image.Image]]
"""Reads the frames of a video, whatever a message says of it."""

MARK = "<image>"
"""What the texts of many tasks say where an image belongs."""


@dataclass(frozen=True)
class Question:
    """What a backbone is asked, the first turn's template not yet around it.

    Attributes:
        text: with one `<ImageHere>` for each image.
        images: in the order of their placeholders.
        dropped_images: images that did not fit into the model's context; dropped_tokens: text tokens.
    """

    text: str
    images: tuple[Image.Image, ...]
    dropped_images: int = 0
    dropped_tokens: int = 0


def question_of(messages: Sequence[Mapping[str, Any]], backbone: Backbone, frames: Frames) -> Question:
    """The question that chat messages ask; text and images keep their order, as do earlier turns and answers.

    A system message stands before the first user's text: the template has its own system prompt. What does not fit
    into the model's context is left out from the beginning, as MileBench's reader does it.

    Args:
        messages: `{"role": "user" | "assistant" | "system", "content": …}`, the last one a user's; content is a text
            or a list of `{"type": "text", "text"}`, `{"type": "image", "url"}` and `{"type": "video", "url"}`.
        frames: reads a video's frames; each is an image to the model.

    Raises:
        LookmError: a role or a type of content that is none of these, or an image that cannot be read.
    """
    between = "" if isinstance(backbone, QwenBackbone) else "\n"  # Qwen's own template has nothing after an image
    text, images, answered = "", [], False
    for message in messages:
        role = message["role"]
        if role not in ("system", "user", "assistant"):
            raise LookmError(f"a message of role {role!r}; there are system, user, assistant")
        said, seen = _content(message["content"], frames, between)
        images += seen
        if role == "assistant":
            text += backbone.template.partition("{question}")[2] + said
        elif answered:
            text += later_turn(backbone.template).partition("{question}")[0] + said
        else:
            text += f"{said}\n" if role == "system" else said
        answered = role == "assistant"
    if answered or not text:
        raise LookmError("the messages ask nothing: the last one must be a user's, and not empty")
    return fitted(Question(text, tuple(images)), backbone)


def fitted(question: Question, backbone: Backbone) -> Question:
    """The question without its beginning where it is longer than `backbone.max_context_len`; else as it is."""
    tokens = len(backbone.encode(question.text.replace(PLACEHOLDER, "")))
    tokens += len(question.images) * backbone.n_tokens_per_image
    if tokens <= backbone.max_context_len:
        return question
    places = [str(place) for place in range(len(question.images))]
    prompt = build_prompt(
        {"sample_id": 0, "task_instance": {"context": question.text, "images_path": places}},
        "",
        dataset="",
        tokenizer=backbone.tokenizer,
        max_context_len=backbone.max_context_len,
        n_tokens_per_image=backbone.n_tokens_per_image,
        image_dir="",
    )
    kept = tuple(question.images[int(place)] for place in prompt.images)
    return Question(prompt.text.removeprefix("\n"), kept, prompt.dropped_images, prompt.dropped_tokens)


def _content(content: Any, frames: Frames, between: str) -> tuple[str, list[Image.Image]]:
    """The text of one message, and its images; `between` separates an image from a text that follows it.

    Where all images come first and the text says `<image>` as often, each stands where it says so.
    """
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    text, said = "", ""
    images: list[Image.Image] = []
    for part in content:
        if part["type"] == "text":
            said = str(part["text"]).replace(PLACEHOLDER, f"{PLACEHOLDER[0]} {PLACEHOLDER[1:]}")
            text += between * (text.endswith(PLACEHOLDER) and not said.startswith("\n")) + said
            continue
        if part["type"] == "image":
            seen = [_image(part["url"])]
        elif part["type"] == "video":
            seen = frames(part["url"])
        else:
            raise LookmError(f"content of type {part['type']!r}; the backbones read text, images and video frames")
        text += PLACEHOLDER * len(seen)
        images += seen
    if images and text.startswith(PLACEHOLDER * len(images)) and said.count(MARK) == len(images):
        text = said.replace(MARK, PLACEHOLDER)
    return text, images


def _image(image: Any) -> Image.Image:
    """An image as it is, or read from its path."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | Path):
        return open_image(Path(image))
    raise LookmError(f"an image is given as {type(image).__name__}; give a PIL image or a path")
