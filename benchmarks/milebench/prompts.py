"""MileBench's prompt: instruction, context and choices, cut from the left until text and images fit the model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lookm.errors import LookmError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = "<ImageHere>"

_IMAGE_OR_TABLE = re.compile(r"\{(?:image|table)#([1-9][0-9]{0,8})\}")


class Reader(Protocol):
    """What a prompt must fit: a model's tokenizer, the tokens of an image, and those of a whole prompt."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def n_tokens_per_image(self) -> int: ...
    @property
    def max_context_len(self) -> int: ...


@dataclass(frozen=True)
class Prompt:
    """One sample's prompt, and what was left out of it.

    Attributes:
        context: the text exactly as MileBench's reader makes it, with `<ImageHere>` placeholders.
        images: paths of the images that are kept, in the order of their placeholders.
        dropped_images: images of the sample that are not in the prompt.
        dropped_tokens: text tokens of the sample that are not in the prompt.
        notes: what is unusual, each as `name` or `name:count`: `more_images_than_placeholders:2`,
            `more_placeholders_than_images:1` (both of the sample, before cutting), `no_image_left` (the sample had
            some), `no_room` (the instruction alone fills the context), `surplus_placeholders:1` (of `context`).
        surplus_first: whether surplus placeholders are the first ones of `context`; for a combined image, whose
            placeholder is the first, they are the last ones.
        question: the end of `context` that the question is, where it was asked for; else "".
    """

    context: str
    images: list[str]
    dropped_images: int
    dropped_tokens: int
    notes: tuple[str, ...] = ()
    surplus_first: bool = True
    question: str = ""

    @property
    def text(self) -> str:
        """`context` with exactly one placeholder per image: the surplus ones are taken out."""
        pieces = self.context.split(PLACEHOLDER)
        surplus = len(pieces) - 1 - len(self.images)
        if surplus <= 0:
            return self.context
        if self.surplus_first:
            return PLACEHOLDER.join(["".join(pieces[: surplus + 1]), *pieces[surplus + 1 :]])
        kept = len(self.images)
        return PLACEHOLDER.join([*pieces[:kept], "".join(pieces[kept:])])

    @property
    def before_question(self) -> str:
        """`text` without the question at its end."""
        return self.text.removesuffix(self.question)


@dataclass(frozen=True)
class _Walk:
    """What the walk over the fragments kept: token ids per fragment and images, both in reading order."""

    fragments: list[list[int]]
    images: list[str]
    starts_with_image: bool


def build_prompt(
    sample: Mapping[str, Any],
    task_instruction: str | Sequence[str] | Mapping[str, str],
    *,
    dataset: str,
    tokenizer: PreTrainedTokenizerBase,
    max_context_len: int,
    n_tokens_per_image: int,
    image_dir: str | os.PathLike[str],
    combine_image: int | None = None,
    question_start: int | None = None,
) -> Prompt:
    """Build the prompt of one sample as MileBench's reader does.

    Args:
        sample: one entry of an annotation's `data`.
        task_instruction: the sample's instruction, or the annotation's list or object of them, from which the sample's
            `task_instruction_id` chooses.
        dataset: the dataset's name; GPR1200's choices get no letters.
        tokenizer: counts and cuts the text; special tokens are not counted.
        max_context_len: tokens that instruction, text and images may take together.
        n_tokens_per_image: tokens that one image takes.
        image_dir: the dataset's folder `images`; combined images lie in `combined_<N>_images` beside it.
        combine_image: N to use the sample's one combined image instead of its images.
        question_start: where the question begins in the sample's context, to have it in `Prompt.question`.

    Returns:
        The prompt. A sample whose images and placeholders do not match still gives one, with a note.

    Raises:
        LookmError: no such instruction, not exactly one combined image, or no room for anything before the question.
    """
    instance = sample["task_instance"]
    instruction = _instruction(sample, task_instruction)
    n_images = len(instance["images_path"])

    # 1. and 2. The question with its choices; images and tables become placeholders.
    whole = instance["context"] + _choice_list(instance, lettered=dataset != "GPR1200")
    question = _with_placeholders(whole, n_images, combined=bool(combine_image))
    images = _image_paths(sample, image_dir, combine_image)

    # 3. What the instruction leaves.
    room = max(0, max_context_len - len(_tokens(tokenizer, instruction)))

    # 4. The fragments from the last to the first, each with the image before it.
    fragments = [_tokens(tokenizer, fragment) for fragment in question.split(PLACEHOLDER)]
    walk = _walk(fragments, [] if combine_image else images, room, None if combine_image else n_tokens_per_image)

    # 5. Put together.
    text = PLACEHOLDER.join(_text(tokenizer, fragment) for fragment in walk.fragments)
    if combine_image:
        kept, context = images, f"{PLACEHOLDER}\n{instruction}\n{text}"
    else:
        kept, context = walk.images, f"{instruction}\n{PLACEHOLDER if walk.starts_with_image else ''}{text}"
    dropped_tokens = sum(map(len, fragments)) - sum(map(len, walk.fragments))
    placeholders = len(fragments) - 1 + bool(combine_image)
    notes = _notes(placeholders, context.count(PLACEHOLDER), len(images), len(kept), room)
    asked = ""
    if question_start is not None:
        asked = _with_placeholders(whole[question_start:], n_images, combined=bool(combine_image))
        asked = _at_the_end(
            context, PLACEHOLDER.join(_text(tokenizer, _tokens(tokenizer, p)) for p in asked.split(PLACEHOLDER))
        )
    return Prompt(
        context, kept, len(images) - len(kept), dropped_tokens, notes, surplus_first=not combine_image, question=asked
    )


def _at_the_end(context: str, question: str) -> str:
    """The question as it ends the context: some tokenizers lose the white space that it begins with."""
    for text in (question, question.lstrip()):
        if context.endswith(text) and len(text) < len(context):
            return text
    raise LookmError("the context window has no room for what is before the question")


def _walk(fragments: Sequence[list[int]], images: Sequence[str], room: int, image_tokens: int | None) -> _Walk:
    """Keep fragments and images from the end while they fit; `image_tokens` is None where images take no room here."""
    kept: list[list[int]] = []
    images = list(images)
    kept_images: list[str] = []
    starts_with_image = False
    for fragment in reversed(fragments):
        if len(fragment) > room:
            if not kept:
                kept.insert(0, fragment[len(fragment) - room :])
            break
        kept.insert(0, fragment)
        room -= len(fragment)
        starts_with_image = False
        if image_tokens is None:
            continue
        if image_tokens > room:
            break
        if images:
            kept_images.insert(0, images.pop())
            room -= image_tokens
            starts_with_image = True
    return _Walk(kept, kept_images, starts_with_image)


def _instruction(sample: Mapping[str, Any], task_instruction: str | Sequence[str] | Mapping[str, str]) -> str:
    if isinstance(task_instruction, str):
        return task_instruction
    number = sample["task_instruction_id"]
    if isinstance(task_instruction, Mapping):
        if str(number) not in task_instruction:
            raise LookmError(
                f"sample {sample['sample_id']!r}: task_instruction_id is {number!r}, but the annotation has the "
                f"instructions {', '.join(task_instruction)}"
            )
        return task_instruction[str(number)]
    if not isinstance(number, int) or not 0 <= number < len(task_instruction):
        raise LookmError(
            f"sample {sample['sample_id']!r}: task_instruction_id is {number!r}, "
            f"but the annotation has the instructions 0 to {len(task_instruction) - 1}"
        )
    return task_instruction[number]


def _choice_list(instance: Mapping[str, Any], *, lettered: bool) -> str:
    choices = instance.get("choice_list")
    if choices is None:
        return ""
    lines = [f"{chr(ord('A') + index)}. {choice}" if lettered else f"{choice}" for index, choice in enumerate(choices)]
    return "\nChoice list: \n" + "\n".join(lines) + "\nYour answer is: "


def _with_placeholders(question: str, n_images: int, *, combined: bool) -> str:
    def replacement(match: re.Match[str]) -> str:
        number = match[1]
        if int(number) > n_images:
            return match[0]
        return f"<Image {number}> " if combined else PLACEHOLDER

    return _IMAGE_OR_TABLE.sub(replacement, question)


def _image_paths(sample: Mapping[str, Any], image_dir: str | os.PathLike[str], combine_image: int | None) -> list[str]:
    folder = Path(image_dir)
    if not combine_image:
        return [str(folder / path) for path in sample["task_instance"]["images_path"]]
    field = f"combined_{combine_image}_images"
    names = sample["task_instance"].get(field, [])
    if len(names) != 1:
        raise LookmError(
            f"sample {sample['sample_id']!r}: {field} holds {len(names)} images, but combine_image={combine_image} "
            "needs exactly one; read the annotation that belongs to this number of combined images"
        )
    return [str(folder.parent / field / names[0])]


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens))


def _notes(placeholders: int, left: int, n_images: int, kept: int, room: int) -> tuple[str, ...]:
    """Notes from counts: placeholders of the sample and left in the prompt, images of both, room for text."""
    notes = []
    if n_images > placeholders:
        notes.append(f"more_images_than_placeholders:{n_images - placeholders}")
    if placeholders > n_images:
        notes.append(f"more_placeholders_than_images:{placeholders - n_images}")
    if n_images and not kept:
        notes.append("no_image_left")
    if room == 0:
        notes.append("no_room")
    if left > kept:
        notes.append(f"surplus_placeholders:{left - kept}")
    return tuple(notes)
