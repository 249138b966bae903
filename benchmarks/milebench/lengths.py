"""How long prompts are to a model, and what its context limit cuts off; needs its tokenizer, but no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from benchmarks.download.checkpoints import model_names
from benchmarks.evaluation.preparation import DATA_ERRORS, Dataset
from benchmarks.evaluation.settings import CONFIGS
from benchmarks.evaluation.truncation import GROUPS, truncation_group
from benchmarks.milebench.prompts import PLACEHOLDER, build_prompt
from lookm.errors import LookmError
from lookm.models.source import weights_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS_PER_IMAGE = {"llava7b": 576, "llava13b": 576, "mobilevlm3b": 144, "internvl7b": 576}
"""Image tokens of the paper's backbones, for where their configuration is not on this disk or does not tell."""


@dataclass(frozen=True)
class Measure:
    """What prompts are measured with.

    Attributes:
        model: whose limits they are.
        tokenizer_of: whose tokenizer counts; the model's own, unless another one stands in for it.
        tokenizer: that tokenizer.
        tokens_per_image: image tokens that an image becomes.
        max_context_len: tokens that a prompt may have, template not counted.
    """

    model: str
    tokenizer_of: str
    tokenizer: PreTrainedTokenizerBase
    tokens_per_image: int
    max_context_len: int


@dataclass(frozen=True)
class Lengths:
    """Prompts of one dataset, in tokens with expanded images and without the conversation template.

    Attributes:
        mean, most: of the whole prompts, before anything is cut.
        cut: samples that lose something to the context limit; `groups` says what (`benchmarks.evaluation.truncation`).
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


def read_measure(
    model: str, *, tokenizer: str | None = None, tokens_per_image: int | None = None, max_context_len: int | None = None
) -> Measure:
    """Finds out how a model measures prompts; loads its tokenizer and reads its `config.json`.

    Args:
        model: a file of `configs/model`.
        tokenizer: another model, or a folder, whose tokenizer stands in for the model's own.
        tokens_per_image, max_context_len: instead of the model's.

    Raises:
        LookmError: unknown model, a tokenizer that is not on this disk, or a number that nobody knows.
    """
    fields = _fields(model)
    folder = weights_folder(fields)
    source = folder if tokenizer is None else _stand_in(tokenizer)
    if source is None:
        raise LookmError(
            f"the tokenizer of {model} is not on this disk: get it with `python -m scripts.download model {model}`, or "
            "let another one stand in for it, such as --tokenizer tiny"
        )
    per_image = tokens_per_image or _tokens_per_image(folder) or TOKENS_PER_IMAGE.get(model)
    if per_image is None:
        raise LookmError(f"how many tokens an image is to {model} is not in its config.json; give --tokens-per-image")
    limit = max_context_len or fields.get("max_context_len")
    if limit is None:
        raise LookmError(f"configs/model/{model}.yaml has no max_context_len; give --max-context")
    from lookm.models.loading import read_tokenizer

    return Measure(model, tokenizer or model, read_tokenizer(source), int(per_image), int(limit))


def measure_lengths(dataset: Dataset, measure: Measure) -> Lengths:
    """Makes the prompts of the selected samples, as a run would, and counts."""
    whole: list[int] = []
    groups = dict.fromkeys(GROUPS, 0)
    images_lost = tokens_lost = without_prompt = 0
    for sample in dataset.samples.values():
        try:
            prompt = build_prompt(
                sample,
                dataset.instruction(sample),
                dataset=dataset.info.dataset,
                tokenizer=measure.tokenizer,
                max_context_len=measure.max_context_len,
                n_tokens_per_image=measure.tokens_per_image,
                image_dir=dataset.folder / "images",
                combine_image=dataset.combine_image,
            )
        except DATA_ERRORS:
            without_prompt += 1
            continue
        pieces = prompt.context.split(PLACEHOLDER)
        text = sum(len(measure.tokenizer(piece, add_special_tokens=False).input_ids) for piece in pieces)
        images = len(prompt.images) + prompt.dropped_images
        whole.append(text + prompt.dropped_tokens + images * measure.tokens_per_image)
        groups[truncation_group(prompt.dropped_images, prompt.dropped_tokens, len(prompt.images))] += 1
        images_lost += prompt.dropped_images
        tokens_lost += prompt.dropped_tokens
    mean = sum(whole) / len(whole) if whole else 0.0
    cut = len(whole) - groups["untouched"]
    return Lengths(mean, max(whole, default=0), cut, images_lost, tokens_lost, groups, without_prompt)


def _fields(model: str) -> dict[str, Any]:
    if model not in model_names():
        raise LookmError(f"unknown model {model!r}; choose one of {', '.join(model_names())}")
    fields = OmegaConf.to_container(OmegaConf.load(CONFIGS / "model" / f"{model}.yaml"))
    assert isinstance(fields, dict)
    return {str(key): value for key, value in fields.items()}


def _stand_in(tokenizer: str) -> Path:
    folder = weights_folder(_fields(tokenizer)) if tokenizer in model_names() else Path(tokenizer)
    if folder is None or not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        known = ", ".join(model_names())
        raise LookmError(
            f"--tokenizer {tokenizer} has no tokenizer.json or tokenizer.model on this disk; it may be a folder, or "
            f"one of {known} that was downloaded"
        )
    return folder


def _tokens_per_image(folder: Path | None) -> int | None:
    """What a transformers `config.json` says: `image_seq_length`, or the patches of a LLaVA's vision tower."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder is not None else {}
    except (OSError, ValueError):
        return None
    if isinstance(config.get("image_seq_length"), int):
        return int(config["image_seq_length"])
    vision = config.get("vision_config") if config.get("model_type") == "llava" else None
    if isinstance(vision, dict) and vision.get("image_size") and vision.get("patch_size"):
        return int(vision["image_size"] // vision["patch_size"]) ** 2
    return None
