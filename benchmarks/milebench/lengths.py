"""How long prompts are to a model, and what its context limit cuts off; needs its tokenizer, but no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.milebench.dataset import DATA_ERRORS, Dataset
from benchmarks.milebench.prompts import PLACEHOLDER
from lookm.errors import LookmError
from lookm.models.source import weights_folder
from lookm.registry import names_of, yaml_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


GROUPS = ("untouched", "text dropped", "images dropped", "text only")
"""In this order: nothing dropped; text only dropped; images dropped and some left; images dropped and none left."""


@dataclass(frozen=True)
class Measure:
    """What prompts are measured with.

    Attributes:
        tokenizer_of: whose tokenizer counts; the model's own, unless another one stands in for it.
        max_context_len: tokens that a prompt may have, template not counted.
    """

    model: str
    tokenizer_of: str
    tokenizer: PreTrainedTokenizerBase
    n_tokens_per_image: int
    max_context_len: int


@dataclass(frozen=True)
class Lengths:
    """Prompts of one dataset, in tokens with expanded images and without the conversation template.

    Attributes:
        mean, most: of the whole prompts, before anything is cut.
        cut: samples that lose something to the context limit; `groups` says what (`GROUPS`).
        images_lost, tokens_lost: images and text tokens that they lose.
        without_prompt: samples of which no prompt can be made.
    """

    mean: float
    most: int
    cut: int
    images_lost: int
    tokens_lost: int
    groups: dict[str, int]
    without_prompt: int


def read_measure(model: str, *, tokenizer: str | None = None) -> Measure:
    """Finds out how a model measures prompts; loads its tokenizer and reads its `config.json`.

    Args:
        model: a file of `configs/model`.
        tokenizer: another model, or a folder, whose tokenizer stands in for the model's own.

    Raises:
        LookmError: unknown model, or a tokenizer that is not on this disk.
    """
    fields = yaml_of("model", model)
    folder = weights_folder(fields)
    source = folder if tokenizer is None else _stand_in(tokenizer)
    if source is None:
        raise LookmError(
            f"the tokenizer of {model} is not on this disk: get it with `lookm download model {model}`, or "
            "let another one stand in for it, such as --tokenizer tiny"
        )
    from lookm.models.loading import read_tokenizer

    loaded = read_tokenizer(source)
    per_image = _tokens_per_image(fields, folder, loaded)
    return Measure(model, tokenizer or model, loaded, per_image, int(fields["max_context_len"]))


def measure_lengths(dataset: Dataset, measure: Measure) -> Lengths:
    """Makes the prompts of the selected samples, as a run would, and counts."""
    whole: list[int] = []
    groups = dict.fromkeys(GROUPS, 0)
    images_lost = tokens_lost = without_prompt = 0
    for name in dataset.samples:
        try:
            prompt = dataset.prompt(name, measure)
        except DATA_ERRORS:
            without_prompt += 1
            continue
        pieces = prompt.context.split(PLACEHOLDER)
        text = sum(len(measure.tokenizer(piece, add_special_tokens=False).input_ids) for piece in pieces)
        images = len(prompt.images) + prompt.dropped_images
        whole.append(text + prompt.dropped_tokens + images * measure.n_tokens_per_image)
        groups[truncation_group(prompt.dropped_images, prompt.dropped_tokens, len(prompt.images))] += 1
        images_lost += prompt.dropped_images
        tokens_lost += prompt.dropped_tokens
    mean = sum(whole) / len(whole) if whole else 0.0
    cut = len(whole) - groups["untouched"]
    return Lengths(mean, max(whole, default=0), cut, images_lost, tokens_lost, groups, without_prompt)


def _stand_in(tokenizer: str) -> Path:
    folder = weights_folder(yaml_of("model", tokenizer)) if tokenizer in names_of("model") else Path(tokenizer)
    if folder is None or not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        known = ", ".join(names_of("model"))
        raise LookmError(
            f"--tokenizer {tokenizer} has no tokenizer.json or tokenizer.model on this disk; it may be a folder, or "
            f"one of {known} that was downloaded"
        )
    return folder


def _tokens_per_image(fields: Mapping[str, Any], folder: Path | None, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens of an image and its marks, by the folder's `config.json`, or else by the full-size model's."""
    from lookm.models.family import family_of
    from lookm.models.loading import read_config
    from lookm.models.tiny import TOKENS_PER_IMAGE

    config = read_config(folder) if folder is not None and (folder / "config.json").is_file() else None
    if "family" not in fields:  # the tiny models'
        return int((config or {}).get("image_seq_length", TOKENS_PER_IMAGE))
    family = family_of(fields)
    shape = family.image_shape(family.full_size() if config is None else family.read_config(config))
    marks = (tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in family.around_image if mark)
    return shape.tokens + sum(map(len, marks))


def truncation_group(dropped_images: int, dropped_tokens: int, images_left: int) -> str:
    """The group of a sample, one of GROUPS.

    Args:
        dropped_images, dropped_tokens: images and text tokens of the sample that are not in its prompt.
        images_left: images, or as well image tokens, that are.
    """
    if dropped_images:
        return "images dropped" if images_left else "text only"
    return "text dropped" if dropped_tokens else "untouched"
